//! Which version a handle reads: pinned at its first read, followed by appends, kept when the name is lost.

use super::errno::Refusal;
use super::fs::{Filesystem, Reply};
use super::handles::Writer;
use super::inodes::{Ino, Inodes, Left, Role};
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
        let left = || self.inodes.left(ino).and_then(|left| left.value);
        if let Some(value) = left() {
            return Ok(Some(value));
        }
        let place = self.place(ino).ok();
        let newest = self.newest_by_name(ino)?;
        if let Some(value) = left() {
            return Ok(Some(value));
        }
        if newest.is_some() && self.place(ino).ok() == place {
            return Ok(newest);
        }
        // Its name, or that of a directory above it, may be changing: what holds once that is done is the answer.
        let Some(_name) = self.keep_name(ino) else { return Ok(left()) };
        self.newest_by_name(ino)
    }

    fn newest_by_name(&self, ino: Ino) -> Reply<Option<Snapshot>> {
        let Ok(place) = self.place(ino) else { return Ok(None) };
        Ok(self.engine().open(&place.session, &place.key()?)?)
    }

    /// A name that this handle has only made is nothing to commit once another has committed a value there, be that
    /// gone again; not where it was lost before any commit. Asked before each thing that is done with its draft.
    pub(super) fn give_way(&self, ino: Ino, writer: &mut Writer) {
        if !writer.draft.is_only_made() || self.inodes.fresh(ino).is_some() {
            return;
        }
        let had_value = || self.inodes.left(ino).is_some_and(|left| left.value.is_some());
        if self.place(ino).is_ok() || had_value() {
            writer.draft.give_way();
        }
    }

    pub(super) fn pin_for_edit(&self, ino: Ino, writer: &mut Writer) -> Reply<()> {
        if writer.draft.wants_pin() {
            let newest = self.newest_to_pin(ino, writer)?;
            writer.draft.pin_for_edit(newest);
        }
        Ok(())
    }

    /// The version that a writer's first read or edit begins from.
    ///
    /// # Errors
    /// ENOENT when it was there at the open, or at this handle's last commit, and was deleted since, beside the mount or
    /// by the command.
    pub(super) fn newest_to_pin(&self, ino: Ino, writer: &Writer) -> Reply<Option<Snapshot>> {
        let newest = self.newest(ino)?;
        let had_one = writer.draft.is_unbegun() && self.inodes.fresh(ino).is_none() && self.place(ino).is_ok();
        if newest.is_none() && had_one {
            return Err(Refusal::new(libc::ENOENT, "the key was deleted, and there is nothing of it to read or edit"));
        }
        Ok(newest)
    }

    /// The name, which is held, is about to change or to lose its value: who has it open reads what was there until that
    /// is done, and afterwards where it was lost. The store changes first and the node after it: nobody may see the new
    /// value through a node that the kernel knows by the old one's size.
    pub(super) fn leave(&self, ino: Option<Ino>) -> Reply<Leaving<'_>> {
        let mut leaving = Leaving { inodes: &self.inodes, ino: None };
        if let Some(ino) = ino
            && let Some(value) = self.newest_by_name(ino)?
        {
            self.inodes.leave(ino, Left { attributes: value.head.attributes.clone(), value: Some(value) });
            leaving.ino = Some(ino);
        }
        Ok(leaving)
    }
}

/// A name is being changed; dropped when that is done, or was refused.
#[derive(Debug)]
pub(super) struct Leaving<'a> {
    inodes: &'a Inodes,
    ino: Option<Ino>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let Some(ino) = self.ino {
            self.inodes.stayed(ino);
        }
    }
}

fn follows(newest: &Snapshot, pinned: &Snapshot) -> bool {
    newest.head.version > pinned.head.version && newest.head.appends_since <= pinned.head.version
}
