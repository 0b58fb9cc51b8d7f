//! What of a writer's requests is done by the thread that reads them: where nothing has to be waited for, as mostly. Each
//! of these does all of its request or leaves everything as it was, and then the request takes the other way.

use super::fs::{Asker, Filesystem, Stat};
use super::handles::{Handle, HandleId, State, Writer};
use super::inodes::{Ino, Role};
use super::ops_file::{WriteAt, note_written};
use crate::words::Policy;

/// Drafts that stay this small are in memory.
const SMALL_MAX_BYTES: u64 = 64 << 10;

impl Filesystem {
    /// As [`Filesystem::write`]. `false` where that has to look at who writes, may meet a conflict, or does more than put
    /// bytes into memory.
    pub(super) fn write_at_once(&self, asker: Asker, id: HandleId, at: WriteAt, bytes: &[u8]) -> bool {
        let Ok(handle) = self.handles.get(id) else { return false };
        let Some(mut state) = handle.try_state() else { return false };
        let State::Writer(writer) = &mut *state else { return false };
        if writer.still_good().is_err() || writer.dropped || writer.check.is_some() || self.takes_writes().is_err() {
            return false;
        }
        let to = if at.append { writer.draft.size_bytes() } else { at.offset };
        let small = to.checked_add(bytes.len() as u64).is_some_and(|end| end <= SMALL_MAX_BYTES);
        if !small
            || !writer.draft.takes_into_memory(at.append, SMALL_MAX_BYTES)
            || self.inodes.role(handle.ino) != Some(Role::Key)
        {
            return false;
        }
        if !self.writes_on(asker, &handle, writer) {
            return false;
        }
        if let Err(refusal) = self.write_draft(&handle, writer, at, bytes) {
            // Into memory: a refusal of this is the handle's end on the other way too.
            self.fail(&handle, writer, refusal);
            return false;
        }
        note_written(&handle, writer, at);
        true
    }

    /// Notes who writes, where that is known without looking and nobody could refuse it.
    fn writes_on(&self, asker: Asker, handle: &Handle, writer: &mut Writer) -> bool {
        let same = writer.last_thread == asker.thread;
        if same && writer.writers.last().is_some_and(|last| last.memory.is_in_use()) {
            return true;
        }
        let Some(seen) = self.seen_lately(asker) else { return false };
        if !self.refuses_nobody(handle.ino, seen.policy.or(writer.opener.policy)) {
            return false;
        }
        writer.wrote(seen, asker.thread);
        true
    }

    /// The O_TRUNC of an open just made, as [`Filesystem::truncate_opened`]; what SETATTR answers. `None` where it may meet
    /// a conflict, or is a truncation like any other.
    pub(super) fn truncate_at_once(&self, asker: Asker, ino: Ino, id: HandleId) -> Option<Stat> {
        let handle = self.handles.get(id).ok()?;
        let mut state = handle.try_state()?;
        let State::Writer(writer) = &mut *state else { return None };
        if writer.still_good().is_err() || writer.dropped || self.takes_writes().is_err() {
            return None;
        }
        // Of a name that no commit has made the draft's size is shown.
        if self.inodes.fresh(ino).is_some() {
            return None;
        }
        let stat = self.stat(asker, ino).ok()?;
        let counts = stat.size_bytes > 0;
        if counts && !self.refuses_nobody(ino, writer.opener.policy) {
            return None;
        }
        self.begin_anew(&handle, writer, counts);
        Some(stat)
    }

    /// Does RELEASE of this handle only forget it? Not where something waits to be committed, or a name to be freed.
    pub(super) fn releases_at_once(&self, handle: &Handle) -> bool {
        let waits = match handle.try_state().as_deref() {
            Some(State::Writer(writer)) => writer.has_draft(),
            Some(_) => false,
            None => true,
        };
        !waits && self.inodes.fresh(handle.ino).is_none()
    }

    /// Is there no policy under which a write would be refused? Where there is, the conflict is judged by what is in the
    /// key's place, which may have to be given a version first.
    fn refuses_nobody(&self, ino: Ino, policy: Option<Policy>) -> bool {
        let strictest = self.place(ino).ok().and_then(|place| self.store.policy_for(&place.session, policy).ok());
        strictest.is_some_and(|policy| policy < Policy::Error)
    }
}
