//! Finding and listing: lookup, getattr, forget, directories, statfs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::errno::Refusal;
use super::fs::{Asker, Filesystem, Reply, Stat};
use super::handles::{Handle, HandleId, State};
use super::inodes::{Fresh, Ino, Left, ROOT, Role};
use super::special;
use super::views::{self, View, seen_as};
use crate::engine::{Attributes, DirEntry, Entry, Kind, Space};
use crate::identity::holders;
use crate::words::SessionId;
use crate::words::key::{BATON_DIR, NAME_MAX_BYTES};

impl Filesystem {
    /// Finds a name. The kernel counts the node as looked up.
    ///
    /// # Errors
    /// ENOENT, also for a name that another process has reserved; ENAMETOOLONG.
    pub fn lookup(&self, asker: Asker, parent: Ino, name: &str) -> Reply<Stat> {
        check_length(name)?;
        let known = self.inodes.find(parent, name);
        let (role, entry) = self.find_entry(asker, parent, name)?;
        let ino = self.inodes.look_up(parent, name, role);
        // What was found is what is shown, if it was found of this node; while its name is changed, what is read is.
        if let Some(entry) = entry
            && known == Some(ino)
            && self.inodes.left(ino).is_none()
        {
            return Ok(entry_stat(ino, entry));
        }
        let stat = self.stat(asker, ino);
        if stat.is_err() {
            self.forget(ino, 1);
        }
        stat
    }

    /// Is this the directory of writer views?
    #[must_use]
    pub fn is_views(&self, ino: Ino) -> bool {
        self.inodes.role(ino) == Some(Role::Views)
    }

    /// Finds the view of a writer: its root is the mount's once more. The kernel counts it as looked up.
    ///
    /// # Errors
    /// EINVAL for a name of no writer, ENAMETOOLONG, ENFILE.
    pub fn look_up_view(&self, name: &str) -> Reply<(View, Stat)> {
        let view = self.views.enter(&views::writer_of(name)?)?;
        self.inodes.looked_up(ROOT);
        Ok((view, dir_stat(ROOT, self.root.clone())))
    }

    /// What a name is; ENOENT when this caller cannot see it.
    pub(super) fn find_role(&self, asker: Asker, parent: Ino, name: &str) -> Reply<Role> {
        self.find_entry(asker, parent, name).map(|(role, _)| role)
    }

    /// What a name is, with what the store has there.
    fn find_entry(&self, asker: Asker, parent: Ino, name: &str) -> Reply<(Role, Option<Entry>)> {
        let not_found = || Refusal::not_found(name);
        match self.role(parent)? {
            Role::ControlDir => return Ok((self.control_role(asker.view, parent, name)?, None)),
            // Looked up it is there, whatever its name: this is asked by who would remove or rename it.
            Role::Views => return Err(Refusal::new(libc::EPERM, "a writer view is not made, removed or renamed")),
            Role::Dir | Role::MetaDir => {}
            Role::PastDir => return Ok((self.past_role(asker.view, parent, name)?, None)),
            Role::Key | Role::Sidecar | Role::Scratch | Role::Control | Role::Past => {
                return Err(Refusal::new(libc::ENOTDIR, "not a directory"));
            }
        }
        let known = self.inodes.find(parent, name);
        if special::is_scratch(name) {
            return known.map(|_| (Role::Scratch, None)).ok_or_else(not_found);
        }
        if let Some(ino) = known {
            self.look_again(ino);
        }
        if name == BATON_DIR && self.has_controls(parent) {
            return Ok((Role::ControlDir, None));
        }
        let place = self.place_in(parent, name).map_err(|_| not_found())?;
        if let Some(role) = self.special_role(&place)? {
            return Ok((role, None));
        }
        match self.engine().entry(&place.session, &place.path)? {
            Some(entry) if entry.kind == Kind::Dir => Ok((Role::Dir, Some(entry))),
            Some(entry) if parent != ROOT => Ok((Role::Key, Some(entry))),
            _ => known.filter(|&ino| self.sees_fresh(asker, ino)).map(|_| (Role::Key, None)).ok_or_else(not_found),
        }
    }

    /// May this caller see a name that no commit has made? Those may who made it or hold it.
    fn sees_fresh(&self, asker: Asker, ino: Ino) -> bool {
        let creators = match self.inodes.fresh(ino) {
            Some(Fresh { creators, .. }) => creators,
            None => return false,
        };
        let Some(pid) = holders::tgid(asker.thread) else { return false };
        creators.contains(&pid)
            || self.writers_on(ino).iter().any(|handle| !handle.is_closed() && handle.may_be_held_by(pid))
            // Who has only inherited a descriptor has taken part in nothing yet.
            || holders::holds(pid, seen_as(ino))
    }

    /// The kernel forgets some of its lookups of a node.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.inodes.forget(ino, count);
    }

    /// What `stat` shows of a node: committed things, but for a name nobody else can see.
    ///
    /// # Errors
    /// ENOENT when what the node stands for is gone.
    pub fn stat(&self, asker: Asker, ino: Ino) -> Reply<Stat> {
        let role = self.role(ino)?;
        if ino == ROOT {
            return Ok(dir_stat(ino, self.root.clone()));
        }
        match role {
            Role::Control | Role::ControlDir | Role::Views => self.control_stat(asker, ino),
            Role::Past | Role::PastDir => self.past_stat(asker.view, ino),
            Role::MetaDir => Ok(dir_stat(ino, self.meta_dir_attributes(&self.place(ino)?)?)),
            Role::Sidecar => {
                let (bytes, attributes) = self.sidecar(&self.place(ino)?)?;
                Ok(file_stat(ino, bytes.len() as u64, attributes))
            }
            Role::Scratch => {
                let size = self.scratches.read(ino).len().max(self.draft_size(ino));
                Ok(file_stat(ino, size, self.fresh_attributes(ino)))
            }
            Role::Dir | Role::Key => self.stat_stored(asker, ino),
        }
    }

    fn stat_stored(&self, asker: Asker, ino: Ino) -> Reply<Stat> {
        // Looked up in the instant before it lost its name: the kernel looks again, and an open may make it anew.
        let gone = || Refusal::new(libc::ESTALE, "the file has just been deleted");
        let Ok(place) = self.place(ino) else { return self.stat_unnamed(asker, ino).ok_or_else(gone) };
        let entry = self.engine().entry(&place.session, &place.path)?;
        // While the name is changed, what is shown is what is read.
        if let Some(Left { attributes, value: Some(value) }) = self.inodes.left(ino) {
            return Ok(file_stat(ino, value.head.size_bytes, attributes));
        }
        match entry {
            Some(entry) => Ok(entry_stat(ino, entry)),
            None if self.inodes.fresh(ino).is_some() => {
                Ok(file_stat(ino, self.draft_size(ino), self.fresh_attributes(ino)))
            }
            // Its name may be changing: what holds once that is done is the answer.
            None => match self.keep_name(ino).and(self.place(ino).ok()) {
                None => return self.stat_unnamed(asker, ino).ok_or_else(gone),
                Some(place) => self.engine().entry(&place.session, &place.path)?.map(|entry| entry_stat(ino, entry)),
            }
            .ok_or_else(|| Refusal::not_found(place.path)),
        }
    }

    /// Unlinked while open: `fstat` shows what the handles on it have. Without one it is about to be opened: by who
    /// has looked the name up in the instant before.
    fn stat_unnamed(&self, asker: Asker, ino: Ino) -> Option<Stat> {
        if self.inodes.role(ino) == Some(Role::Dir) {
            let attributes = self.inodes.left(ino).map_or_else(|| self.root.clone(), |left| left.attributes);
            return (!self.inodes.handles(ino).is_empty()).then(|| Stat { links: 0, ..dir_stat(ino, attributes) });
        }
        let handles = self.handles_on(ino).into_iter();
        let left = self.inodes.left(ino);
        let there = left.as_ref().and_then(|left| left.value.as_ref()).map(|value| value.head.size_bytes);
        // What was committed is shown to all but who writes: a draft is nobody else's business.
        let pid = holders::tgid(asker.thread);
        let own = |handle: &Handle| !handle.is_closed() && pid.is_some_and(|pid| handle.may_be_held_by(pid));
        let sizes = handles.filter(|handle| there.is_none() || own(handle));
        let sizes = sizes.map(|handle| match handle.try_state().as_deref() {
            Some(State::Reader(pinned)) => pinned.as_ref().map_or(0, |snapshot| snapshot.head.size_bytes),
            Some(State::Writer(writer)) => {
                there.filter(|_| writer.draft.wants_pin()).unwrap_or(0) + writer.draft.size_bytes()
            }
            _ => handle.draft_size_bytes.load(Ordering::Relaxed),
        });
        let attributes = left.map_or_else(|| self.fresh_attributes(ino), |left| left.attributes);
        sizes.max().or(there).map(|size| Stat { links: 0, ..file_stat(ino, size, attributes) })
    }

    /// The size that this handle sees, for SEEK_END: the draft's where there is one.
    ///
    /// # Errors
    /// As [`Filesystem::stat`].
    pub fn stat_handle(&self, asker: Asker, ino: Ino, id: HandleId) -> Reply<Stat> {
        let handle = self.handles.get(id)?;
        let mut state = handle.state();
        if let State::Writer(writer) = &mut *state {
            self.give_way(ino, writer);
        }
        let size = match &mut *state {
            State::Writer(writer) if !writer.draft.is_untouched() || writer.draft.pinned().is_some() => {
                // An append's end is behind the version it goes after.
                self.pin_for_edit(ino, writer)?;
                Some(writer.draft.size_bytes())
            }
            State::Reader(Some(snapshot)) | State::Kept(snapshot) => Some(snapshot.head.size_bytes),
            State::Fixed(bytes) => Some(bytes.len()),
            // What it would read: of a name that is gone, what was there, whatever others still write to it.
            State::Writer(_) | State::Reader(None) => {
                self.inodes.left(ino).and_then(|left| left.value).map(|value| value.head.size_bytes)
            }
            _ => None,
        };
        drop(state);
        let stat = self.stat(asker, ino)?;
        Ok(Stat { size_bytes: size.unwrap_or(stat.size_bytes), ..stat })
    }

    /// The largest draft open on a node.
    fn draft_size(&self, ino: Ino) -> u64 {
        let sizes = self.writers_on(ino).into_iter().map(|handle| handle.draft_size_bytes.load(Ordering::Relaxed));
        sizes.max().unwrap_or(0)
    }

    /// The attributes a name will have at its first commit.
    pub(super) fn fresh_attributes(&self, ino: Ino) -> Attributes {
        let fresh = self.inodes.fresh(ino).map(|fresh| fresh.attributes);
        fresh.unwrap_or_else(|| Attributes { mode: 0o644, ..self.root.clone() })
    }

    /// Opens a directory: its entries as they are now. Looks again at commits that wait below it.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    pub fn open_dir(&self, asker: Asker, ino: Ino) -> Reply<Arc<Handle>> {
        let entries = self.list(asker.view, ino)?;
        let handle = self.handles.open(ino, false, State::Directory { entries, begun: false });
        self.inodes.add_handle(ino, handle.id);
        Ok(handle)
    }

    fn list(&self, view: View, ino: Ino) -> Reply<Vec<DirEntry>> {
        for child in self.inodes.children(ino) {
            self.look_again(child);
        }
        Ok(match (ino, self.role(ino)?) {
            (ROOT, _) => self.engine().sessions()?.iter().map(session_entry).collect(),
            (_, Role::Dir) => {
                let place = self.place(ino)?;
                self.engine().read_dir(&place.session, &place.dir()?)?
            }
            (_, Role::ControlDir) => self.control_entries(view, ino)?,
            (_, Role::PastDir) => self.past_entries(view, ino)?,
            (_, Role::MetaDir | Role::Views) => Vec::new(),
            _ => return Err(Refusal::new(libc::ENOTDIR, "not a directory")),
        })
    }

    /// The entries of an open directory from an offset on (from the start again: as they are now), each with the number of its node (0: not known), `.` and
    /// `..` first. `add` gets (node, next offset, kind, name) and says whether there is no room for it.
    ///
    /// # Errors
    /// EBADF.
    pub fn read_dir(
        &self,
        asker: Asker,
        id: HandleId,
        offset: u64,
        add: &mut dyn FnMut(Ino, u64, Kind, &str) -> bool,
    ) -> Reply<()> {
        let handle = self.handles.get(id)?;
        let mut state = handle.state();
        let State::Directory { entries, begun } = &mut *state else {
            return Err(Refusal::new(libc::EBADF, "not an open directory"));
        };
        if offset == 0 && std::mem::replace(begun, true) {
            // A directory that is gone has no entries, and is no error to who has it open.
            *entries = self
                .list(asker.view, handle.ino)
                .or_else(|gone| if gone.errno == libc::ENOENT { Ok(Vec::new()) } else { Err(gone) })?;
        }
        let dots = [(handle.ino, "."), (self.inodes.parent(handle.ino), "..")];
        let dots = dots.into_iter().map(|(ino, name)| (ino, Kind::Dir, name));
        let names = entries.iter().map(|entry| {
            let ino = self.inodes.find(handle.ino, &entry.name).unwrap_or(0);
            (ino, entry.kind, entry.name.as_str())
        });
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (ino, kind, name)) in dots.chain(names).enumerate().skip(from) {
            if add(ino, at as u64 + 1, kind, name) {
                break;
            }
        }
        Ok(())
    }

    /// Closes a directory.
    pub fn release_dir(&self, id: HandleId) {
        if let Some(handle) = self.handles.close(id) {
            self.inodes.drop_handle(handle.ino, id);
        }
    }

    /// Space left, for `df`.
    ///
    /// # Errors
    /// EIO.
    pub fn space(&self) -> Reply<Space> {
        Ok(self.engine().space()?)
    }

    /// The attributes of a directory that something is made in.
    pub(super) fn dir_attributes(&self, ino: Ino) -> Reply<Attributes> {
        if ino == ROOT {
            return Ok(self.root.clone());
        }
        let place = self.place(ino)?;
        if self.role(ino)? == Role::MetaDir {
            return self.meta_dir_attributes(&place);
        }
        let entry = self.engine().entry(&place.session, &place.path)?;
        entry.map(|entry| entry.attributes).ok_or_else(|| Refusal::not_found(place.path))
    }

    /// Is this the root or a session?
    #[must_use]
    pub fn is_session_or_root(&self, ino: Ino) -> bool {
        ino == ROOT || (self.inodes.parent(ino) == ROOT && self.inodes.role(ino) == Some(Role::Dir))
    }

    /// Is this a directory that has control files: the mount or a session?
    fn has_controls(&self, parent: Ino) -> bool {
        parent == ROOT || self.place(parent).is_ok_and(|place| place.path.is_empty())
    }
}

/// Refuses names longer than a key's may be; the neighbour's temporary names may be as long as its own system lets them.
pub(super) fn check_length(name: &str) -> Reply<()> {
    let most = if special::is_scratch(name) { special::SCRATCH_MAX_BYTES } else { NAME_MAX_BYTES };
    if name.len() > most {
        let words = format!("'{name}' is too long: a name has at most {most} bytes");
        return Err(Refusal::new(libc::ENAMETOOLONG, words));
    }
    Ok(())
}

fn session_entry(session: &SessionId) -> DirEntry {
    DirEntry { name: session.to_string(), kind: Kind::Dir }
}

pub(super) fn dir_stat(ino: Ino, attributes: Attributes) -> Stat {
    Stat { ino, kind: Kind::Dir, size_bytes: 0, blocks: 0, links: 1, attributes }
}

pub(super) fn file_stat(ino: Ino, size_bytes: u64, attributes: Attributes) -> Stat {
    Stat { ino, kind: Kind::File, size_bytes, blocks: size_bytes.div_ceil(512), links: 1, attributes }
}

fn entry_stat(ino: Ino, entry: Entry) -> Stat {
    let Entry { kind, size_bytes, blocks, attributes } = entry;
    Stat { ino, kind, size_bytes, blocks, links: 1, attributes }
}
