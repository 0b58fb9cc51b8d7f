//! Which version a handle reads: pinned at its first read, followed by appends, kept when the name is lost.

use super::errno::Refusal;
use super::fs::{Filesystem, Reply};
use super::handles::Writer;
use super::inodes::{Ino, Left, Role};
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

    /// The newest version of a node's key, the last one there was when its name is gone; `None` when none was committed.
    pub(super) fn newest(&self, ino: Ino) -> Reply<Option<Snapshot>> {
        if self.role(ino)? != Role::Key {
            return Ok(None);
        }
        if let Some(newest) = self.newest_by_name(ino)? {
            return Ok(Some(newest));
        }
        // Its name, or that of a directory above it, may be changing: what holds once that is done is the answer.
        let Some(_name) = self.keep_name(ino) else { return Ok(self.inodes.left(ino).and_then(|left| left.value)) };
        self.newest_by_name(ino)
    }

    fn newest_by_name(&self, ino: Ino) -> Reply<Option<Snapshot>> {
        let Ok(place) = self.place(ino) else { return Ok(None) };
        Ok(self.engine().open(&place.session, &place.key()?)?)
    }

    pub(super) fn pin_for_edit(&self, ino: Ino, writer: &mut Writer) -> Reply<()> {
        if writer.draft.wants_pin() {
            let newest = self.newest(ino)?;
            writer.draft.pin_for_edit(newest);
        }
        Ok(())
    }

    /// The name, which is held, is about to lose its value: who has it open keeps what was there.
    pub(super) fn leave(&self, ino: Option<Ino>) -> Reply<()> {
        let Some(ino) = ino else { return Ok(()) };
        if let Some(value) = self.newest_by_name(ino)? {
            self.inodes.leave(ino, Left { attributes: value.head.attributes.clone(), value: Some(value) });
        }
        Ok(())
    }
}

fn follows(newest: &Snapshot, pinned: &Snapshot) -> bool {
    newest.head.version > pinned.head.version && newest.head.appends_since <= pinned.head.version
}
