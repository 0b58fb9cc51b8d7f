//! Open, create, read, write, truncate: the life of a handle until its close (see `closing`).

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime};

use super::counters::Moment;
use super::draft::Draft;
use super::errno::Refusal;
use super::fs::{Asker, Filesystem, Place, Reply, Stat};
use super::handles::{Handle, HandleId, State, Writer};
use super::inodes::{Fresh, Ino, Role};
use super::ops_tree::check_length;
use super::special;
use crate::engine::{AttributeChange, Attributes};
use crate::identity::holders;
use crate::identity::{self, Observed};
use crate::store::{Base, Caller, Draft as StoreDraft, Rule, StoreError, Write};

/// The most one value can hold: what a file offset can say.
const VALUE_MAX_BYTES: u64 = i64::MAX as u64;

/// The largest request: what the kernel sends at most.
pub(super) const REQUEST_MAX_BYTES: usize = 1 << 20;

/// A program's write that is longer than a request comes as several. All but the last are full of pages, and the first
/// may begin inside one.
const REQUEST_FULL_BYTES: usize = REQUEST_MAX_BYTES - (64 << 10);

/// An append that has grown to this is committed without waiting for its second: it is held in memory.
const APPEND_MAX_BYTES: u64 = 4 << 20;

/// So much is held where the write may go on, so that one of up to 16 MiB is never split.
const APPEND_GOING_ON_MAX_BYTES: u64 = APPEND_MAX_BYTES + (16 << 20);

impl Filesystem {
    /// Opens an existing file; of its flags the access mode and O_APPEND are looked at. Who opens it for writing is looked
    /// at, where that has not been `seen` before.
    ///
    /// # Errors
    /// EINVAL when the opener's environment cannot be used; EROFS, EPERM.
    pub fn open(&self, asker: Asker, ino: Ino, flags: i32, seen: Option<Observed>) -> Reply<Arc<Handle>> {
        let role = self.role(ino)?;
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        if writes {
            self.writable()?;
        }
        let state = match role {
            Role::Dir | Role::MetaDir | Role::ControlDir | Role::PastDir | Role::Views => {
                return Err(Refusal::new(libc::EISDIR, "is a directory"));
            }
            Role::Past => self.open_kept(asker.view, ino, writes)?,
            Role::Control => self.open_control(asker, ino, writes)?,
            Role::Sidecar if writes => {
                return Err(Refusal::new(
                    libc::EPERM,
                    "a sidecar is written by renaming onto it, by who committed its key",
                ));
            }
            Role::Sidecar => State::Fixed(self.sidecar(&self.place(ino)?)?.0.into()),
            Role::Scratch if !writes => State::Fixed(self.scratches.read(ino)),
            Role::Key if !writes => {
                self.look_again(ino);
                State::Reader(None)
            }
            Role::Key | Role::Scratch => {
                self.look_again(ino);
                let opener = seen.map_or_else(|| self.observe(asker), Ok)?;
                let place = self.place(ino).ok();
                if self.look_up_again(asker, place.is_none()) {
                    return Err(Refusal::new(libc::ESTALE, "the file has just been deleted"));
                }
                State::Writer(Box::new(self.writer_on(place.as_ref(), role, opener, None)?))
            }
        };
        let handle = self.open_handle(ino, writes, state);
        if matches!(role, Role::Key | Role::Scratch) {
            // The O_TRUNC of this open, if it has one, comes next from this thread, as a SETATTR without a handle.
            self.opening.opened(asker, ino, handle.id, flags);
        }
        Ok(handle)
    }

    /// A name that has just gone: the kernel looks it up again, and makes it anew where the open may; but once an open.
    /// Who meets that twice opens what was there, like any file that is deleted while it is open.
    fn look_up_again(&self, asker: Asker, gone: bool) -> bool {
        let mut told = self.told_stale.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.remove(&asker.thread);
        gone && !before && told.insert(asker.thread)
    }

    /// Creates a file, or opens the one that has come there since the kernel looked.
    ///
    /// # Errors
    /// EEXIST under O_EXCL, also for a name another process has reserved; ENAMETOOLONG, EPERM for reserved names; as
    /// [`Filesystem::open`].
    pub fn create(&self, asker: Asker, parent: Ino, name: &str, mode: u32, flags: i32) -> Reply<(Stat, Arc<Handle>)> {
        self.writable()?;
        self.takes_writes()?;
        let (role, _) = self.new_name(parent, name)?;
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        self.look_up_again(asker, false);
        // Facts about a process are waited for before the name is held.
        let opener = self.observe(asker)?;
        let (_name, place) = loop {
            let name_held = self.names.change((parent, name));
            let place = self.place_in(parent, name)?;
            let entry = if role == Role::Key { self.engine().entry(&place.session, &place.path)? } else { None };
            let Some(entry) = entry else { break (name_held, place) };
            drop(name_held);
            let exclusive = flags & libc::O_EXCL != 0;
            if !exclusive && asker.uid != 0 && asker.uid != entry.attributes.uid {
                // The kernel takes what CREATE gives for the caller's own. So it looks once more, and asks the mode.
                return Err(Refusal::new(libc::ESTALE, format!("'{name}' has just been created by another user")));
            }
            // None: it was renamed or removed meanwhile, so there is something to create after all.
            if let Some(opened) = self.create_existing(asker, parent, name, entry.kind, flags)? {
                return Ok(opened);
            }
        };
        let ino = self.reserve(asker, parent, name, role, mode, flags & libc::O_EXCL != 0)?;
        let writer = match self.writer_on(Some(&place), role, opener, Some(flags)) {
            Ok(writer) => writer,
            Err(refusal) => {
                self.inodes.unreserve(ino, &[]);
                return Err(refusal);
            }
        };
        let handle = self.open_handle(ino, writes, State::Writer(Box::new(writer)));
        handle.makes.store(true, Ordering::Relaxed);
        self.inodes.looked_up(ino);
        Ok((self.stat(asker, ino)?, handle))
    }

    /// The role and place of a name that is to be made.
    pub(super) fn new_name(&self, parent: Ino, name: &str) -> Reply<(Role, Place)> {
        check_length(name)?;
        let parent_role = self.role(parent)?;
        if self.place(parent).is_err() {
            return Err(Refusal::has_not("a file at the top of the mount, beside the sessions"));
        }
        let place = self.place_in(parent, name)?;
        match parent_role {
            Role::Dir | Role::MetaDir if special::is_scratch(name) => Ok((Role::Scratch, place)),
            Role::Dir => {
                place.key()?;
                Ok((Role::Key, place))
            }
            _ => Err(Refusal::new(libc::EPERM, format!("'{name}': nothing can be made here"))),
        }
    }

    /// Opens what a CREATE has found; `None` when its name was gone again.
    fn create_existing(
        &self,
        asker: Asker,
        parent: Ino,
        name: &str,
        kind: crate::engine::Kind,
        flags: i32,
    ) -> Reply<Option<(Stat, Arc<Handle>)>> {
        if flags & libc::O_EXCL != 0 {
            return Err(Refusal::new(libc::EEXIST, format!("'{name}' exists already")));
        }
        if kind == crate::engine::Kind::Dir {
            return Err(Refusal::new(libc::EISDIR, format!("'{name}' is a directory")));
        }
        let ino = self.inodes.look_up(parent, name, Role::Key);
        let opened = self.open(asker, ino, flags, None).and_then(|handle| {
            self.opening_done(asker, Some((ino, handle.id)));
            let truncated =
                if flags & libc::O_TRUNC != 0 { self.truncate_opened(asker, ino, handle.id) } else { Ok(()) };
            let stat = truncated.and_then(|()| self.stat(asker, ino));
            // The kernel never hears of a handle that is refused, and would not release it.
            stat.inspect_err(|_| self.release(handle.id)).map(|stat| (stat, handle))
        });
        match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(refusal) => {
                self.forget(ino, 1);
                if matches!(refusal.errno, libc::ENOENT | libc::ESTALE) { Ok(None) } else { Err(refusal) }
            }
        }
    }

    /// Reserves a name that no commit has made, or joins the reservation of another.
    fn reserve(&self, asker: Asker, parent: Ino, name: &str, role: Role, mode: u32, exclusive: bool) -> Reply<Ino> {
        if let Some(there) = self.inodes.find(parent, name).and_then(|ino| self.inodes.fresh(ino)) {
            let Attributes { mode, uid, gid, .. } = there.attributes;
            let allowed =
                asker.uid == 0 || asker.uid == uid || mode & 0o002 != 0 || (asker.gid == gid && mode & 0o020 != 0);
            if !exclusive && !allowed {
                return Err(Refusal::new(libc::EACCES, format!("'{name}' is being created by another user")));
            }
        }
        let attributes = self.made_by(asker, mode, &self.dir_attributes(parent)?, false);
        let pid = holders::tgid(asker.thread).unwrap_or(0);
        let fresh = Fresh { attributes, creators: vec![pid] };
        let reserved = self.inodes.reserve(parent, name, role, fresh, exclusive);
        reserved.map_err(|_| Refusal::new(libc::EEXIST, format!("'{name}' is being created by another process")))
    }

    fn open_handle(&self, ino: Ino, writes: bool, state: State) -> Arc<Handle> {
        let handle = self.handles.open(ino, writes, state);
        self.inodes.add_handle(ino, handle.id);
        handle
    }

    /// A writer for a handle: on an existing file, or (`created`, with the flags of its open) on a new name.
    fn writer_on(&self, place: Option<&Place>, role: Role, opener: Observed, created: Option<i32>) -> Reply<Writer> {
        let document = match place {
            Some(place) if role != Role::Scratch => self.store.document(&place.key()?),
            _ => None,
        };
        let check = document.map(|document| document.prefix_check());
        let appends = created.is_some_and(|flags| flags & libc::O_APPEND != 0);
        let mut draft = match created {
            None => Draft::of_existing(check.is_some()),
            Some(_) if appends && check.is_none() => Draft::of_new_log(),
            Some(_) => Draft::of_new(check.is_some(), self.engine()),
        };
        if created.is_some_and(|flags| flags & libc::O_TRUNC != 0) {
            draft.truncated();
        }
        Ok(Writer::new(draft, opener, check))
    }

    /// Refuses an open that would truncate another writer's value, where the opener is who will write.
    fn check_opener(&self, asker: Asker, ino: Ino, writer: &Writer) -> Reply<()> {
        // What has lost its name meanwhile is nobody's.
        let Ok(place) = self.place(ino) else { return Ok(()) };
        if self.role(ino)? != Role::Key {
            return Ok(());
        }
        let by = self.caller_of(&place.session, writer);
        match self.store.check(&place.session, &place.key()?, &by) {
            // A shell's forked child that has not exec'd yet, or a shell that is about to exec a command with other
            // declarations, is not the one who will write: the first write will tell.
            // Where the path says who writes, all that is no matter.
            Err(StoreError::Conflict { .. })
                if !writer.opener.fixed && (!writer.opener.execed || identity::may_declare(asker.thread)) =>
            {
                Ok(())
            }
            checked => checked.map_err(|error| Refusal::from(error).of(&by)),
        }
    }

    /// Reads from a handle. `own` is false for the kernel's shared page cache (sendfile, mappings), which sees the
    /// committed version, never a draft.
    ///
    /// # Errors
    /// EBADF, EIO.
    pub fn read(&self, id: HandleId, offset: u64, size: usize, own: bool) -> Reply<Vec<u8>> {
        let handle = self.handles.get(id)?;
        let mut state = handle.state();
        match &mut *state {
            State::Reader(pinned) => self.read_pinned(handle.ino, pinned, offset, size),
            State::Fixed(bytes) => Ok(bytes.read(offset, size)?),
            State::Lines(lines) => self.read_lines(handle.ino, lines, offset, size),
            State::Kept(kept) => Ok(kept.read(offset, size)?),
            State::Switch { .. } | State::Directory { .. } => Err(Refusal::new(libc::EBADF, "not open for reading")),
            State::Writer(_) if !own => match self.newest(handle.ino)? {
                Some(snapshot) => Ok(snapshot.read(offset, size)?),
                None => Ok(Vec::new()),
            },
            State::Writer(writer) => {
                writer.still_good()?;
                self.give_way(handle.ino, writer);
                writer.draft.saw();
                if writer.draft.wants_pin() {
                    let newest = self.newest_to_pin(handle.ino, writer)?;
                    writer.draft.pin_for_read(newest);
                }
                Ok(writer.draft.read(offset, size)?)
            }
        }
    }

    /// Writes to a handle's draft; with `append`, at its end, whatever the offset says.
    ///
    /// # Errors
    /// EBUSY when this process may not write the key; EINVAL when a document cannot become one any more; ENOSPC, EFBIG.
    /// After an error the handle answers every call the same.
    pub fn write(&self, asker: Asker, id: HandleId, at: WriteAt, bytes: &[u8]) -> Reply<()> {
        let handle = self.handles.get(id)?;
        let seen = self.who_writes(asker, &handle);
        let mut state = handle.state();
        let writer = match &mut *state {
            State::Writer(writer) => writer,
            State::Switch { text, by } => {
                *by = seen?.unwrap_or_default();
                write_switch(text, at.offset, bytes)?;
                return self.check_switch(handle.ino, text);
            }
            _ => return Err(Refusal::new(libc::EBADF, "not open for writing")),
        };
        self.takes_writes_to(&handle, writer)?;
        if at.offset.checked_add(bytes.len() as u64).is_none_or(|end| end > VALUE_MAX_BYTES) {
            return Err(Refusal::new(libc::EFBIG, "a value cannot be that large"));
        }
        self.give_way(handle.ino, writer);
        let written = seen
            .and_then(|seen| self.note_writer(asker, &handle, writer, seen))
            .and_then(|()| self.write_draft(&handle, writer, at, bytes));
        if let Err(refusal) = written {
            return Err(self.fail(&handle, writer, refusal));
        }
        note_written(&handle, writer, at);
        Ok(())
    }

    pub(super) fn write_draft(&self, handle: &Handle, writer: &mut Writer, at: WriteAt, bytes: &[u8]) -> Reply<()> {
        self.check_document(writer, at, bytes)?;
        if self.role(handle.ino)? == Role::Scratch && writer.draft.is_untouched() {
            writer.draft.restart(true, self.engine());
            writer.draft.write(0, &self.scratches.read(handle.ino).read_all()?, self.engine())?;
        }
        if at.append {
            if writer.draft.only_empties() {
                // As the other way round: what is appended is none of a draft that can be lost.
                self.commit_draft(handle, writer, Moment::Write)?;
            }
            writer.draft.append(bytes, self.engine())?;
            writer.goes_on = bytes.len() > REQUEST_FULL_BYTES;
            let most = if writer.goes_on { APPEND_GOING_ON_MAX_BYTES } else { APPEND_MAX_BYTES };
            let full = writer.draft.append_bytes() > most;
            return if full { self.commit_draft(handle, writer, Moment::Write) } else { Ok(()) };
        }
        if writer.draft.is_append() {
            // Appended bytes are never part of a draft that can be lost.
            self.commit_draft(handle, writer, Moment::Write)?;
        }
        self.pin_for_edit(handle.ino, writer)?;
        Ok(writer.draft.write(at.offset, bytes, self.engine())?)
    }

    /// A document written in order from its start is refused at the first byte that cannot be part of one.
    fn check_document(&self, writer: &mut Writer, at: WriteAt, bytes: &[u8]) -> Reply<()> {
        let Some((next, check)) = &mut writer.check else { return Ok(()) };
        if !at.append && at.offset != *next {
            writer.check = None;
            return Ok(());
        }
        *next += bytes.len() as u64;
        check.push(bytes).map_err(|invalid| Refusal::from(crate::store::StoreError::from(invalid)))
    }

    /// Who writes now; `None` when it is still the one that wrote last. Facts about a process may have to be waited
    /// for, so the handle is not held meanwhile: a process in exec may be waiting for its flush.
    fn who_writes(&self, asker: Asker, handle: &Handle) -> Reply<Option<Observed>> {
        let last = match &*handle.state() {
            State::Writer(writer) if writer.failed.is_some() => return Ok(None),
            State::Writer(writer) if writer.last_thread == asker.thread => match writer.writers.last() {
                Some(last) if last.memory.is_in_use() => return Ok(None),
                last => last.map(|seen| seen.environment),
            },
            State::Writer(_) | State::Switch { .. } => None,
            _ => return Ok(None),
        };
        if last.is_some() && self.resolver.environment_print(asker.thread) == last {
            return Ok(None);
        }
        self.observe(asker).map(Some)
    }

    /// Notes who writes; a process that has not written to this handle before meets the conflict rule now.
    fn note_writer(&self, asker: Asker, handle: &Handle, writer: &mut Writer, seen: Option<Observed>) -> Reply<()> {
        let Some(seen) = seen else { return Ok(()) };
        writer.wrote(seen, asker.thread);
        let Ok(place) = self.place(handle.ino) else { return Ok(()) };
        if self.role(handle.ino)? == Role::Key {
            let by = self.caller_of(&place.session, writer);
            self.store.check(&place.session, &place.key()?, &by)?;
        }
        Ok(())
    }

    /// `copy_file_range`: from what the source handle reads into the destination's draft. How many bytes were copied.
    ///
    /// # Errors
    /// As [`Filesystem::read`] and [`Filesystem::write`].
    pub fn copy(&self, asker: Asker, from: (HandleId, u64), to: HandleId, at: WriteAt, size: usize) -> Reply<u32> {
        const CHUNK_BYTES: usize = 1 << 20;
        let bytes = self.read(from.0, from.1, size.min(CHUNK_BYTES), true)?;
        if !bytes.is_empty() {
            self.write(asker, to, at, &bytes)?;
        }
        u32::try_from(bytes.len()).map_err(|_| Refusal::new(libc::EFBIG, "too much at once"))
    }

    /// The thread does something else, with this handle if it is named: its open had no O_TRUNC.
    pub fn opening_done(&self, asker: Asker, used: Option<(Ino, HandleId)>) {
        self.opening.done(asker, used);
    }

    /// O_TRUNC of a handle just opened: its draft starts empty. On a handle for reading it is a truncation. The kernel
    /// fails the open when this is refused.
    ///
    /// # Errors
    /// EBUSY when the opener is known and the value is another writer's under `error`; as [`Filesystem::truncate`].
    pub fn truncate_opened(&self, asker: Asker, ino: Ino, id: HandleId) -> Reply<()> {
        let handle = self.handles.get(id)?;
        let mut state = handle.state();
        let State::Writer(writer) = &mut *state else {
            let switch = matches!(*state, State::Switch { .. });
            drop(state);
            return if switch { Ok(()) } else { self.truncate(asker, ino, 0) };
        };
        let counts = self.stat(asker, ino)?.size_bytes > 0;
        if counts {
            self.takes_writes()?;
            self.check_opener(asker, ino, writer)?;
        }
        self.begin_anew(&handle, writer, counts);
        Ok(())
    }

    /// An open has truncated: the draft starts empty; where that `counts`, it is something to commit.
    pub(super) fn begin_anew(&self, handle: &Handle, writer: &mut Writer, counts: bool) {
        writer.draft.restart(counts, self.engine());
        writer.written_at = SystemTime::now();
        handle.note(writer);
    }

    /// `truncate(path)`: commits at once. Truncating to the size there is commits nothing.
    ///
    /// # Errors
    /// Those of a commit.
    pub fn truncate(&self, asker: Asker, ino: Ino, size: u64) -> Reply<()> {
        self.writable()?;
        self.takes_writes()?;
        check_size(size)?;
        if self.role(ino)? != Role::Key {
            return Err(Refusal::new(libc::EPERM, "only keys can be truncated"));
        }
        // Without a name there is nothing to commit.
        let Ok(place) = self.place(ino) else { return Ok(()) };
        let by = self.caller(&place.session, asker)?;
        loop {
            match self.truncate_newest(ino, size, &by) {
                // Another commit came between the copy and ours: what it wrote is what is to be cut.
                Err(StoreError::Outdated { .. }) => {}
                Ok(Some(())) => return Ok(()),
                Ok(None) => return self.truncate_fresh(asker, ino, size),
                Err(error) => return Err(Refusal::from(error).of(&by)),
            }
        }
    }

    /// Commits the newest version cut to a size; `None` when no commit has made the name.
    fn truncate_newest(&self, ino: Ino, size: u64, by: &Caller) -> Result<Option<()>, StoreError> {
        let held = self
            .keep_name(ino)
            .zip(self.place(ino).ok())
            .and_then(|(held, place)| Some((held, place.key().ok()?, place)));
        let Some((_name, key, place)) = held else { return Ok(Some(())) };
        let Some(snapshot) = self.engine().open(&place.session, &key)? else { return Ok(None) };
        self.store.check(&place.session, &key, by)?;
        if snapshot.head.size_bytes == size {
            return Ok(Some(()));
        }
        let mut stage = self.engine().stage();
        if size > 0 {
            stage.copy_from(&snapshot)?;
        }
        stage.set_len(size)?;
        let write = Write {
            session: &place.session,
            key: &key,
            draft: StoreDraft::Whole(stage.freeze()),
            base: if size == 0 { Base::Fresh } else { Base::Exactly(snapshot.head.version) },
            fresh: snapshot.head.attributes.clone(),
            own: false,
            set: AttributeChange { mtime: Some(SystemTime::now()), ..AttributeChange::default() },
            rule: Rule::Policy,
        };
        let committed = self.store.write(&write, by)?;
        self.note_accepted("setattr", &place, &committed, by);
        Ok(Some(()))
    }

    /// A name that no commit has made has only drafts to cut: those of who can see it. What was dropped or refused is none.
    fn truncate_fresh(&self, asker: Asker, ino: Ino, size: u64) -> Reply<()> {
        let pid = holders::tgid(asker.thread);
        let own = |handle: &&Arc<Handle>| pid.is_none_or(|pid| handle.may_be_held_by(pid));
        let is_draft = |handle: &&Arc<Handle>| match &*handle.state() {
            State::Writer(writer) => !writer.dropped && writer.failed.is_none(),
            _ => true,
        };
        let writers = self.writers_on(ino);
        let drafts = writers.iter().filter(own).filter(is_draft);
        drafts.map(|handle| handle.id).try_for_each(|id| self.truncate_handle(asker, id, size))
    }

    /// `ftruncate`: changes the draft, and is a write of the process that asks for it.
    ///
    /// # Errors
    /// EBUSY when this process may not write the key; ENOSPC, EFBIG; the handle then answers every call the same.
    pub fn truncate_handle(&self, asker: Asker, id: HandleId, size: u64) -> Reply<()> {
        check_size(size)?;
        let handle = self.handles.get(id)?;
        let seen = self.who_writes(asker, &handle);
        let mut state = handle.state();
        let State::Writer(writer) = &mut *state else {
            return Err(Refusal::new(libc::EINVAL, "not open for writing"));
        };
        self.takes_writes_to(&handle, writer)?;
        self.give_way(handle.ino, writer);
        if size == 0 && self.is_empty(handle.ino, writer)? {
            return Ok(());
        }
        let cut = seen
            .and_then(|seen| self.note_writer(asker, &handle, writer, seen))
            .and_then(|()| self.cut_draft(&handle, writer, size));
        if let Err(refusal) = cut {
            return Err(self.fail(&handle, writer, refusal));
        }
        if size == 0 {
            let check = self.place(handle.ino).and_then(|place| place.key()).ok();
            let check = check.and_then(|key| self.store.document(&key).map(|document| document.prefix_check()));
            writer.check = check.map(|check| (0, check));
        }
        writer.unowned = true;
        writer.written_at = SystemTime::now();
        writer.set.mtime = None;
        writer.killed = None;
        writer.flushed = false;
        handle.closed.store(false, Ordering::Relaxed);
        handle.note(writer);
        Ok(())
    }

    /// Is there nothing to cut: an empty value, seen so by a handle that has written nothing?
    fn is_empty(&self, ino: Ino, writer: &Writer) -> Reply<bool> {
        let sees_none = writer.draft.pinned().is_none_or(|pinned| pinned.head.size_bytes == 0);
        let clean = !writer.draft.is_dirty() && sees_none;
        Ok(clean && self.newest(ino)?.is_some_and(|newest| newest.head.size_bytes == 0))
    }

    fn cut_draft(&self, handle: &Handle, writer: &mut Writer, size: u64) -> Reply<()> {
        if writer.draft.is_append() {
            self.commit_draft(handle, writer, Moment::Write)?;
        }
        if size == 0 && writer.draft.pinned().is_none() {
            writer.draft.restart(true, self.engine());
            return Ok(());
        }
        self.pin_for_edit(handle.ino, writer)?;
        Ok(writer.draft.set_len(size, self.engine())?)
    }

    /// `fallocate` without flags: the value is at least that long.
    ///
    /// # Errors
    /// As [`Filesystem::truncate_handle`].
    pub fn allocate(&self, asker: Asker, ino: Ino, id: HandleId, end: u64) -> Reply<()> {
        if self.stat_handle(asker, ino, id)?.size_bytes < end { self.truncate_handle(asker, id, end) } else { Ok(()) }
    }
}

/// Something was written to the handle's draft.
pub(super) fn note_written(handle: &Handle, writer: &mut Writer, at: WriteAt) {
    match at.lock_owner {
        Some(owner) => drop(writer.owners.insert(owner)),
        None => writer.unowned = true,
    }
    writer.written_at = SystemTime::now();
    writer.append_since = writer.draft.is_append().then(|| writer.append_since.unwrap_or_else(Instant::now));
    writer.set.mtime = None;
    writer.killed = None;
    writer.flushed = false;
    handle.closed.store(false, Ordering::Relaxed);
    handle.note(writer);
}

/// Where a WRITE goes.
#[derive(Debug, Clone, Copy)]
pub struct WriteAt {
    /// The offset; of no meaning with `append`.
    pub offset: u64,
    /// The descriptor has O_APPEND now.
    pub append: bool,
    /// The descriptor table it comes from.
    pub lock_owner: Option<u64>,
}

fn check_size(size: u64) -> Reply<()> {
    if size > VALUE_MAX_BYTES {
        return Err(Refusal::new(libc::EFBIG, "a value cannot be that large"));
    }
    Ok(())
}

fn write_switch(text: &mut Vec<u8>, offset: u64, bytes: &[u8]) -> Reply<()> {
    const SWITCH_MAX_BYTES: u64 = 4096;
    let at = usize::try_from(offset).ok().filter(|&at| at <= text.len() && offset <= SWITCH_MAX_BYTES);
    let at = at.ok_or_else(|| Refusal::new(libc::EINVAL, "a switch takes one short text"))?;
    if bytes.len() as u64 + offset > SWITCH_MAX_BYTES {
        return Err(Refusal::new(libc::EINVAL, "a switch takes one short text"));
    }
    text.truncate(at);
    text.extend_from_slice(bytes);
    Ok(())
}
