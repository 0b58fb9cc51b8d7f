//! Which version a handle reads: pinned at its first read, followed by appends, kept when the name is lost.

use std::sync::Arc;

use super::errno::Refusal;
use super::fs::{Filesystem, Reply};
use super::handles::{Handle, State, Writer};
use super::inodes::{Ino, Role};
use crate::engine::Snapshot;

impl Filesystem {
    /// Reads the version pinned at the first read, or one that only appended to it.
    pub(super) fn read_pinned(
        &self,
        ino: Ino,
        pinned: &mut Option<Snapshot>,
        offset: u64,
        size: usize,
    ) -> Reply<Vec<u8>> {
        let snapshot = match pinned {
            Some(snapshot) => snapshot,
            None => match self.newest(ino)? {
                Some(newest) => pinned.insert(newest),
                // A name that no commit has made, opened by who made it.
                None if self.inodes.fresh(ino).is_some() => return Ok(Vec::new()),
                None => return Err(Refusal::new(libc::ENOENT, "the key was deleted before its first read")),
            },
        };
        let bytes = snapshot.read(offset, size)?;
        if bytes.len() == size || offset + (bytes.len() as u64) < snapshot.head.size_bytes {
            return Ok(bytes);
        }
        match self.newest(ino)? {
            Some(newest) if follows(&newest, snapshot) => {
                *snapshot = newest;
                Ok(snapshot.read(offset, size)?)
            }
            _ => Ok(bytes),
        }
    }

    /// The newest version of a node's key; `None` when none was committed, or its name is gone.
    pub(super) fn newest(&self, ino: Ino) -> Reply<Option<Snapshot>> {
        let Ok(place) = self.place(ino) else { return Ok(None) };
        if self.role(ino)? != Role::Key {
            return Ok(None);
        }
        Ok(self.engine().open(&place.session, &place.key()?)?)
    }

    pub(super) fn pin_for_edit(&self, ino: Ino, writer: &mut Writer) -> Reply<()> {
        if writer.draft.wants_pin() {
            let newest = self.newest(ino)?;
            writer.draft.pin_for_edit(newest);
        }
        Ok(())
    }

    /// A name is about to lose its value: who has it open keeps what was opened. Called before the name is held; then
    /// again, by [`Filesystem::pin_late`].
    pub(super) fn pin_readers(&self, ino: Option<Ino>) -> Reply<()> {
        let Some(ino) = ino else { return Ok(()) };
        self.leave(ino)?;
        self.handles_on(ino).iter().try_for_each(|handle| self.pin(ino, &mut handle.state()))
    }

    /// The same for those that came meanwhile; the name is held. A handle that is busy is in the middle of its first
    /// read or write, or waits for this very name with a draft of its own.
    pub(super) fn pin_late(&self, ino: Option<Ino>) -> Reply<()> {
        let Some(ino) = ino else { return Ok(()) };
        self.leave(ino)?;
        let handles = self.handles_on(ino);
        handles.iter().filter_map(|handle| handle.try_state()).try_for_each(|mut state| self.pin(ino, &mut state))
    }

    /// Keeps the attributes that a node has while it still has its name. From here on, opens of it look twice.
    fn leave(&self, ino: Ino) -> Reply<()> {
        let Ok(place) = self.place(ino) else { return Ok(()) };
        if let Some(entry) = self.engine().entry(&place.session, &place.path)? {
            self.inodes.leave(ino, entry.attributes);
        }
        Ok(())
    }

    /// Has the node lost its name, or is it about to?
    #[must_use]
    pub fn is_leaving(&self, ino: Ino) -> bool {
        self.inodes.is_leaving(ino)
    }

    fn pin(&self, ino: Ino, state: &mut State) -> Reply<()> {
        match state {
            State::Reader(pinned @ None) => *pinned = self.newest(ino)?,
            State::Writer(writer) if writer.draft.wants_pin() => {
                let newest = self.newest(ino)?;
                writer.draft.pin_for_edit(newest);
            }
            _ => {}
        }
        Ok(())
    }

    /// A handle just opened on a node that is losing its name, or has lost it: it waits until that is done, and reads
    /// what others who have the file open read (`/proc/self/fd/N` of a deleted file).
    ///
    /// # Errors
    /// ESTALE where nobody has it open any more: the kernel looks the name up again.
    pub(super) fn join_pins(&self, handle: &Arc<Handle>) -> Reply<()> {
        if !self.is_leaving(handle.ino) || self.keep_name(handle.ino).is_some() {
            return Ok(());
        }
        let others = self.handles_on(handle.ino).into_iter().filter(|other| other.id != handle.id);
        let pinned = others.filter_map(|other| match &*other.try_state()? {
            State::Reader(pinned) => pinned.clone(),
            State::Writer(writer) => writer.draft.pinned().cloned(),
            _ => None,
        });
        let Some(pinned) = pinned.last() else {
            self.handles.close(handle.id);
            self.inodes.drop_handle(handle.ino, handle.id);
            return Err(Refusal::new(libc::ESTALE, "the file has just been deleted"));
        };
        match &mut *handle.state() {
            State::Reader(none) => *none = Some(pinned),
            State::Writer(writer) => writer.draft.pin_for_edit(Some(pinned)),
            _ => {}
        }
        Ok(())
    }

    fn handles_on(&self, ino: Ino) -> Vec<Arc<Handle>> {
        self.inodes.handles(ino).into_iter().filter_map(|id| self.handles.get(id).ok()).collect()
    }
}

fn follows(newest: &Snapshot, pinned: &Snapshot) -> bool {
    newest.head.version > pinned.head.version && newest.head.appends_since <= pinned.head.version
}
