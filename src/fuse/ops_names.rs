//! Making, removing and moving names: mkdir, mknod, unlink, rmdir, rename. Each is durable when it returns.

use super::counters::Moment;
use super::errno::Refusal;
use super::fs::{Asker, Filesystem, Place, Reply, Stat};
use super::handles::{Handle, State};
use super::inodes::{Ino, Left, ROOT, Role};
use super::names::Held;
use super::ops_past::kept_is_kept;
use super::ops_tree::check_length;
use super::special;
use crate::engine::{EngineError, Staged};
use crate::store::{Base, Draft, Rule, StoreError, Write};
use crate::words::{Dir, Version};

/// One end of a rename.
#[derive(Debug)]
struct End {
    parent: Ino,
    name: String,
    place: Place,
    role: Option<Role>,
    ino: Option<Ino>,
}

impl Filesystem {
    /// Makes a directory; at the root, a session.
    ///
    /// # Errors
    /// EEXIST, ENOENT, ENAMETOOLONG, EPERM for reserved names, EROFS.
    pub fn make_dir(&self, asker: Asker, parent: Ino, name: &str, mode: u32) -> Reply<Stat> {
        self.writable()?;
        check_length(name)?;
        let place = self.place_in(parent, name)?;
        if self.special_role(&place)?.is_some() {
            return Err(Refusal::new(libc::EEXIST, format!("'{name}' exists already")));
        }
        if self.role(parent)? != Role::Dir {
            return Err(Refusal::new(libc::EPERM, format!("'{name}': nothing can be made here")));
        }
        self.directory(&place)?;
        let by = self.caller(&place.session, asker)?;
        let name_held = self.names.change((parent, name));
        let place = self.place_in(parent, name)?;
        if self.inodes.find(parent, name).is_some_and(|ino| self.inodes_fresh(ino)) {
            return Err(Refusal::new(libc::EEXIST, format!("'{name}' is being created by another process")));
        }
        let attributes = self.made_by(asker, mode, &self.dir_attributes(parent)?, true);
        self.store.make_dir(&place.session, &place.dir()?, attributes, &by)?;
        drop(name_held);
        self.lookup(asker, parent, name)
    }

    /// A place as a directory that may be there: not where a document is looked for.
    fn directory(&self, place: &Place) -> Reply<Dir> {
        if place.key().is_ok_and(|key| self.store.document(&key).is_some()) {
            return Err(Refusal::new(libc::EPERM, format!("'{}' is a document, not a directory", place.path)));
        }
        place.dir()
    }

    fn inodes_fresh(&self, ino: Ino) -> bool {
        self.inodes.fresh(ino).is_some()
    }

    /// `mknod` of a regular file: an empty value, committed.
    ///
    /// # Errors
    /// EPERM for anything else than a regular file; EEXIST; as a commit.
    pub fn make_node(&self, asker: Asker, parent: Ino, name: &str, mode: u32) -> Reply<Stat> {
        self.writable()?;
        if !matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG) {
            return Err(Refusal::has_not("a device, FIFO or socket"));
        }
        let (role, place) = self.new_name(parent, name)?;
        let by = self.caller(&place.session, asker)?;
        let name_held = self.names.change((parent, name));
        let place = self.place_in(parent, name)?;
        let reserved = self.inodes.find(parent, name).is_some_and(|ino| self.inodes_fresh(ino));
        if role != Role::Key || reserved || self.engine().entry(&place.session, &place.path)?.is_some() {
            return Err(Refusal::new(libc::EEXIST, format!("'{name}' exists already")));
        }
        let key = place.key()?;
        let write = Write {
            session: &place.session,
            key: &key,
            draft: Draft::Whole(Staged::from(Vec::new())),
            base: Base::Exactly(0),
            fresh: self.made_by(asker, mode, &self.dir_attributes(parent)?, false),
            own: false,
            set: crate::engine::AttributeChange::default(),
            rule: Rule::Policy,
        };
        self.store.write(&write, &by)?;
        drop(name_held);
        self.lookup(asker, parent, name)
    }

    /// Removes a key; drafts open on it are dropped with it.
    ///
    /// # Errors
    /// ENOENT; EPERM for sidecars and control files; EROFS.
    pub fn unlink(&self, asker: Asker, parent: Ino, name: &str) -> Reply<()> {
        self.writable()?;
        let role = self.find_role(asker, parent, name)?;
        let known = self.inodes.find(parent, name);
        match role {
            Role::Key => {}
            Role::Scratch => {
                if let Some(ino) = known {
                    self.scratches.remove(ino);
                    self.inodes.remove(ino);
                }
                return Ok(());
            }
            Role::Past | Role::PastDir => return Err(kept_is_kept()),
            Role::Dir | Role::MetaDir | Role::ControlDir | Role::Views => {
                return Err(Refusal::new(libc::EISDIR, "is a directory"));
            }
            Role::Sidecar | Role::Control => {
                return Err(Refusal::new(libc::EPERM, format!("'{name}' goes with what it belongs to")));
            }
        }
        let place = self.place_in(parent, name)?;
        let by = self.caller(&place.session, asker)?;
        let _name = self.names.change((parent, name));
        let _leaving = self.leave(self.inodes.find(parent, name))?;
        let place = self.place_in(parent, name)?;
        let existed = self.store.delete(&place.session, &place.key()?, &by, false)?;
        let known = self.inodes.find(parent, name);
        let reserved = known.is_some_and(|ino| self.inodes_fresh(ino));
        if let Some(ino) = known {
            self.inodes.remove(ino);
        }
        if existed || reserved { Ok(()) } else { Err(Refusal::not_found(name)) }
    }

    /// Removes an empty directory; a session takes its reserved names with it.
    ///
    /// # Errors
    /// ENOTEMPTY, also for a name below it that a draft has reserved; ENOENT, ENOTDIR, EROFS.
    pub fn remove_dir(&self, asker: Asker, parent: Ino, name: &str) -> Reply<()> {
        self.writable()?;
        match self.find_role(asker, parent, name)? {
            Role::Dir => {}
            Role::Past | Role::PastDir => return Err(kept_is_kept()),
            Role::MetaDir | Role::ControlDir | Role::Views => {
                return Err(Refusal::new(libc::ENOTEMPTY, format!("'{name}' goes with what it belongs to")));
            }
            _ => return Err(Refusal::new(libc::ENOTDIR, format!("'{name}' is not a directory"))),
        }
        let place = self.place_in(parent, name)?;
        let by = self.caller(&place.session, asker)?;
        let _names = self.tree_at_rest((parent, name));
        let (place, known) = (self.place_in(parent, name)?, self.inodes.find(parent, name));
        if known.is_some_and(|ino| self.is_written_below(ino)) {
            return Err(Refusal::new(libc::ENOTEMPTY, format!("a file is being written in '{name}'")));
        }
        let attributes = known.map(|ino| self.dir_attributes(ino)).transpose()?;
        self.store.remove_dir(&place.session, &place.dir()?, &by)?;
        if parent == ROOT {
            self.errors.forget(&place.session);
        }
        if let (Some(ino), Some(attributes)) = (known, attributes) {
            self.inodes.leave(ino, Left { attributes, value: None });
            self.forget_scratches(ino);
            self.inodes.remove(ino);
        }
        Ok(())
    }

    /// Renames inside a session.
    ///
    /// # Errors
    /// EXDEV out of the session, EPERM for a session or a reserved destination, EEXIST under NOREPLACE, EINVAL for
    /// other flags; EBUSY and EINVAL as a commit of the destination.
    pub fn rename(&self, asker: Asker, from: (Ino, &str), to: (Ino, &str), flags: u32) -> Reply<()> {
        self.writable()?;
        if flags & !libc::RENAME_NOREPLACE != 0 {
            return Err(Refusal::new(libc::EINVAL, "only a plain rename and RENAME_NOREPLACE are known"));
        }
        if from.0 == ROOT {
            return Err(Refusal::new(libc::EPERM, "a session is not renamed: its id is part of the record"));
        }
        if to.0 == ROOT {
            return Err(Refusal::new(libc::EXDEV, "a directory does not become a session"));
        }
        check_length(to.1)?;
        let (from, to) = (self.end(asker, from)?, self.end(asker, to)?);
        if from.place.session != to.place.session {
            return Err(Refusal::new(libc::EXDEV, "nothing is moved from one session to another"));
        }
        let source = from.role.ok_or_else(|| Refusal::not_found(&from.name))?;
        if [Some(source), to.role].iter().flatten().any(|role| matches!(role, Role::Past | Role::PastDir)) {
            return Err(kept_is_kept());
        }
        if flags & libc::RENAME_NOREPLACE != 0 {
            self.refuse_taken(&to)?;
        }
        match source {
            Role::Dir => self.rename_dir(asker, &from, &to),
            Role::Scratch => self.rename_scratch(asker, &from, &to),
            Role::Key => self.rename_key(asker, &from, &to, flags & libc::RENAME_NOREPLACE == 0),
            _ => Err(Refusal::new(libc::EPERM, format!("'{}' cannot be renamed", from.name))),
        }
    }

    /// For a rename that replaces nothing: the name is there, or reserved by an open draft.
    fn refuse_taken(&self, to: &End) -> Reply<()> {
        let reserved = self.inodes.find(to.parent, &to.name).is_some_and(|ino| self.inodes_fresh(ino));
        if to.role.is_some() || reserved {
            return Err(Refusal::new(libc::EEXIST, format!("'{}' exists already", to.name)));
        }
        Ok(())
    }

    fn end(&self, asker: Asker, (parent, name): (Ino, &str)) -> Reply<End> {
        let role = match self.find_role(asker, parent, name) {
            Ok(role) => Some(role),
            Err(refusal) if refusal.errno == libc::ENOENT => None,
            Err(refusal) => return Err(refusal),
        };
        let place = self.place_in(parent, name)?;
        let ino = self.inodes.find(parent, name);
        Ok(End { parent, name: name.to_owned(), place, role, ino })
    }

    /// The place of an end once its name is held: a directory above it may have been renamed since it was looked at.
    fn place_of(&self, end: &End) -> Reply<Place> {
        self.place_in(end.parent, &end.name)
    }

    fn rename_dir(&self, asker: Asker, from: &End, to: &End) -> Reply<()> {
        if matches!(to.role, Some(role) if role != Role::Dir) {
            return Err(Refusal::new(libc::ENOTDIR, format!("'{}' is not a directory", to.name)));
        }
        let by = self.caller(&from.place.session, asker)?;
        let _names = self.tree_at_rest((to.parent, &to.name));
        let (source, target) = (self.place_of(from)?.dir()?, self.directory(&self.place_of(to)?)?);
        if to.ino.is_some_and(|ino| self.is_written_below(ino)) {
            return Err(Refusal::new(libc::ENOTEMPTY, format!("a file is being written in '{}'", to.name)));
        }
        self.store.rename_dir(&from.place.session, &source, &target, &by)?;
        self.move_node(from, to);
        Ok(())
    }

    fn rename_key(&self, asker: Asker, from: &End, to: &End, replace: bool) -> Reply<()> {
        if matches!(to.role, Some(Role::Dir)) {
            return Err(Refusal::new(libc::EISDIR, format!("'{}' is a directory", to.name)));
        }
        if from.place.key()? == to.place.key()? {
            return Ok(());
        }
        let session = &from.place.session;
        let by = self.caller(session, asker)?;
        let mut moved = None;
        {
            let _names = self.keep_for_rename(from, to)?;
            let (source, target) = (self.place_of(from)?.key()?, self.place_of(to)?.key()?);
            if !replace {
                self.refuse_taken(to)?;
            }
            let _leaving = (
                self.leave(self.inodes.find(from.parent, &from.name))?,
                self.leave(self.inodes.find(to.parent, &to.name))?,
            );
            let before = self.engine().head(session, &source)?.map_or(0, |head| head.version);
            match self.store.rename(session, &source, &target, replace, &by) {
                Ok(committed) => {
                    self.note_accepted("rename", &to.place, &committed, &by);
                    moved = Some((before, committed.version));
                }
                // A name that no commit has made: only its draft moves, the old value there stays until it commits.
                Err(StoreError::Engine(EngineError::NotFound(_)))
                    if from.ino.is_some_and(|ino| self.inodes_fresh(ino)) =>
                {
                    self.store.check(session, &target, &by).map_err(|error| Refusal::from(error).of(&by))?;
                }
                Err(error) => return Err(Refusal::from(error).of(&by)),
            }
            self.move_node(from, to);
        }
        if let (Some(ino), Some((before, now))) = (from.ino, moved) {
            self.renumber(ino, before, now);
        }
        Ok(())
    }

    /// Both names of a rename, once the drafts that move with the one are such as replace what the other stands for.
    /// Handles come before names in the order of locks, so where a value comes there in between, it is begun again.
    fn keep_for_rename(&self, from: &End, to: &End) -> Reply<Held<'_>> {
        let replaces = || -> Reply<bool> {
            let moves_drafts = from.ino.is_some_and(|ino| self.inodes_fresh(ino));
            let place = self.place_of(to)?;
            Ok(moves_drafts && self.engine().entry(&place.session, &place.path)?.is_some())
        };
        loop {
            let prepared = replaces()?;
            if prepared {
                self.let_replace(from.ino)?;
            }
            let names = self.names.change_two((from.parent, &from.name), (to.parent, &to.name));
            if prepared || !replaces()? {
                return Ok(names);
            }
        }
    }

    /// A name that only appends have made, and that is put in the place of a value: as a draft it would go after that
    /// value. Appends may be committed at any time, so they are now, under the name they have still, which is then a value
    /// that moves. Else what no one has written to yet replaces the value all the same.
    fn let_replace(&self, ino: Option<Ino>) -> Reply<()> {
        let Some(ino) = ino else { return Ok(()) };
        let writers = self.writers_on(ino);
        for handle in &writers {
            if let State::Writer(writer) = &mut *handle.state()
                && writer.draft.is_log()
            {
                self.commit_draft(handle, writer, Moment::Write)?;
            }
        }
        for handle in writers.iter().filter(|_| self.inodes_fresh(ino)) {
            if let State::Writer(writer) = &mut *handle.state() {
                writer.draft.stand();
            }
        }
        Ok(())
    }

    /// All names, once no handle below a directory is at its end: only then is known whether that commits its name or
    /// frees it. It is waited for without them, since handles come before names in the order of locks.
    fn tree_at_rest(&self, dir: (Ino, &str)) -> Held<'_> {
        loop {
            let names = self.names.tree();
            let below = self.inodes.find(dir.0, dir.1).map(|ino| self.inodes.fresh_below(ino)).unwrap_or_default();
            let mut handles = below.into_iter().flat_map(|ino| self.handles_on(ino));
            let Some(ending) = handles.find(|handle| handle.is_closed() && handle.try_state().is_none()) else {
                return names;
            };
            drop(names);
            drop(ending.state());
        }
    }

    /// Has a draft reserved a name below a directory? Not one that was refused, or has nothing to commit and was closed:
    /// RELEASE comes some time after the close, and frees the name some time after the handle. All names are held.
    fn is_written_below(&self, dir: Ino) -> bool {
        let reserves = |handle: &Handle| match handle.try_state().as_deref() {
            Some(State::Writer(writer)) => writer.failed.is_none() && (writer.has_draft() || !handle.is_closed()),
            Some(_) => !handle.is_closed(),
            None => true,
        };
        let mut below = self.inodes.fresh_below(dir).into_iter().flat_map(|ino| self.handles_on(ino));
        below.any(|handle| reserves(&handle))
    }

    /// A key under another name has other version numbers: what handles on it were made from is told in those.
    fn renumber(&self, ino: Ino, before: Version, now: Version) {
        for handle in self.handles_on(ino) {
            match &mut *handle.state() {
                State::Reader(Some(snapshot)) => snapshot.renumber(before, now),
                State::Writer(writer) => writer.draft.renumber(before, now),
                _ => {}
            }
        }
    }

    fn rename_scratch(&self, asker: Asker, from: &End, to: &End) -> Reply<()> {
        let ino = from.ino.ok_or_else(|| Refusal::not_found(&from.name))?;
        if special::is_scratch(&to.name) {
            self.move_node(from, to);
            if let Some(replaced) = to.ino.filter(|&replaced| replaced != ino) {
                self.scratches.remove(replaced);
            }
            return Ok(());
        }
        match to.role {
            Some(Role::Dir | Role::MetaDir | Role::ControlDir | Role::Views) => {
                Err(Refusal::new(libc::EISDIR, format!("'{}' is a directory", to.name)))
            }
            Some(Role::Control | Role::Past | Role::PastDir) => {
                Err(Refusal::new(libc::EPERM, format!("'{}' cannot be replaced", to.name)))
            }
            Some(Role::Sidecar) => self.declare(ino, to, asker),
            _ if self.role(to.parent)? == Role::MetaDir => self.declare(ino, to, asker),
            Some(Role::Key | Role::Scratch) | None => {
                self.keep_open_scratch(ino)?;
                self.scratch_becomes_key(asker, ino, from, to)
            }
        }
    }

    fn scratch_becomes_key(&self, asker: Asker, ino: Ino, from: &End, to: &End) -> Reply<()> {
        let by = self.caller(&to.place.session, asker)?;
        let version = {
            let _names = self.names.change_two((from.parent, &from.name), (to.parent, &to.name));
            let _leaving = self.leave(self.inodes.find(to.parent, &to.name))?;
            let version = self.commit_scratch(asker.view, ino, &self.place_of(to)?, &by)?;
            self.move_node(from, to);
            self.inodes.committed(ino);
            version
        };
        self.go_on_from(ino, version);
        Ok(())
    }

    fn declare(&self, ino: Ino, to: &End, asker: Asker) -> Reply<()> {
        self.declare_by_scratch(ino, &to.place, asker)?;
        self.inodes.remove(ino);
        Ok(())
    }

    fn move_node(&self, from: &End, to: &End) {
        self.inodes.rename((from.parent, &from.name), (to.parent, &to.name));
    }
}
