//! The moment of commit: whose close is the last one, and the one road from a handle's draft to the store.
//!
//! In FLUSH and RELEASE only what [`crate::identity::holders`] reads may be read of a process: the caller may be in
//! the middle of an exec and hold a lock that every other file of `/proc` waits for.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::OnKill;
use super::counters::Moment;
use super::errno::Refusal;
use super::fs::{Asker, Filesystem, Reply};
use super::handles::{Handle, HandleId, State, Writer};
use super::inodes::{Ino, Role};
use crate::identity::holders::{self, Death, Holder};
use crate::store::{Draft, Rule, Write};

impl Filesystem {
    /// FLUSH: one descriptor of the handle was closed. Commits when it was the last one that can write.
    ///
    /// # Errors
    /// Those of the commit; the handle then answers every later call the same.
    pub fn flush(&self, asker: Asker, id: HandleId, lock_owner: u64) -> Reply<()> {
        let handle = self.handles.get(id)?;
        let mut state = handle.state();
        let writer = match &mut *state {
            State::Writer(writer) => writer,
            State::Switch { text, by } => return self.set_switch(handle.ino, text, by),
            _ => return Ok(()),
        };
        writer.still_good()?;
        writer.flushed = true;
        self.note_death(asker, writer);
        if !writer.draft.is_dirty() {
            return Ok(());
        }
        let held = self.is_held(&handle, writer, Some((asker.thread, lock_owner)));
        handle.closed.store(!held, Ordering::Relaxed);
        if held && !writer.draft.is_append() {
            self.wait(&handle, true);
            return Ok(());
        }
        self.finish(&handle, writer, Moment::Close)
    }

    /// RELEASE: the last descriptor is gone. Commits what still waits, if a FLUSH was seen; drops it otherwise, since
    /// the kernel failed the open after we had answered it.
    pub fn release(&self, id: HandleId) {
        let Ok(handle) = self.handles.get(id) else { return };
        handle.closed.store(true, Ordering::Relaxed);
        self.opening.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, &mut (_, other)| other != id);
        if let State::Writer(writer) = &mut *handle.state() {
            let waits = writer.draft.is_dirty() && writer.failed.is_none() && writer.flushed;
            if waits && let Err(refusal) = self.finish(&handle, writer, Moment::Release) {
                self.note_refusal("release", handle.ino, None, &refusal);
            }
            self.wait(&handle, false);
        }
        // Not before: who looks again at what waits must find it.
        self.handles.close(id);
        self.forget_handle(&handle);
    }

    /// fsync: commits what is there, whoever else holds the file; the handle goes on.
    ///
    /// # Errors
    /// Those of the commit.
    pub fn fsync(&self, id: HandleId) -> Reply<()> {
        let handle = self.handles.get(id)?;
        let mut state = handle.state();
        let State::Writer(writer) = &mut *state else { return Ok(()) };
        writer.still_good()?;
        if writer.draft.is_dirty() { self.commit_draft(&handle, writer, Moment::Fsync) } else { Ok(()) }
    }

    /// Looks again at the commits that wait on a node: whoever touches a key after its last holder has gone sees the
    /// committed value, whether or not the kernel's RELEASE has arrived.
    pub fn look_again(&self, ino: Ino) {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        for handle in self.writers_on(ino) {
            if !handle.waiting.load(Ordering::Relaxed) {
                continue;
            }
            // A handle that is busy may be in the middle of the very commit that is asked for.
            let mut state = handle.state();
            let State::Writer(writer) = &mut *state else { continue };
            let left = writer.draft.is_dirty() && writer.failed.is_none() && !self.is_held(&handle, writer, None);
            if left && let Err(refusal) = self.finish(&handle, writer, Moment::Look) {
                self.note_refusal("close", handle.ino, None, &refusal);
            }
        }
    }

    /// Is anything waiting on this node, so that looking again is worth a thread of its own?
    #[must_use]
    pub fn waits(&self, ino: Ino) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
            && self.writers_on(ino).iter().any(|handle| handle.waiting.load(Ordering::Relaxed))
    }

    /// The same for the names in a directory.
    #[must_use]
    pub fn waits_below(&self, dir: Ino) -> bool {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let children = self.inodes.children(dir);
        children.into_iter().any(|child| self.waits(child))
    }

    /// The one road from a draft to the store: FLUSH, RELEASE, fsync, an aged append and the end of the mount.
    ///
    /// # Errors
    /// The store's refusal; the draft is gone and the handle keeps answering it.
    pub(super) fn commit_draft(&self, handle: &Handle, writer: &mut Writer, moment: Moment) -> Reply<()> {
        let done = self.put_in_place(handle, writer, moment);
        // Not before: who looks again meanwhile must wait for it.
        self.wait(handle, false);
        done
    }

    fn put_in_place(&self, handle: &Handle, writer: &mut Writer, moment: Moment) -> Reply<()> {
        // Without a name it was unlinked or replaced: nothing deleted comes back, but who has it open still reads it.
        let Some(_name) = self.keep_name(handle.ino) else { return Ok(writer.draft.stay_private(self.engine())?) };
        let Ok(place) = self.place(handle.ino) else { return Ok(writer.draft.stay_private(self.engine())?) };
        let set = std::mem::take(&mut writer.set);
        let Some((draft, base)) = writer.draft.take() else { return Ok(()) };
        writer.append_since = None;
        if self.role(handle.ino)? == Role::Scratch {
            return self.keep_scratch(handle.ino, draft);
        }
        let key = place.key()?;
        let appended = matches!(draft, Draft::Append(_));
        let fresh = self.fresh_attributes(handle.ino);
        let set = crate::engine::AttributeChange { mtime: set.mtime.or(Some(writer.written_at)), ..set };
        let write = Write { session: &place.session, key: &key, draft, base, fresh, set, rule: Rule::Policy };
        let by = self.caller_of(&place.session, writer);
        match self.store.write(write, &by) {
            Ok(committed) => {
                self.counters.committed(moment);
                self.inodes.committed(handle.ino);
                writer.draft.committed((!appended).then_some(committed.version));
                writer.writers.drain(..writer.writers.len().saturating_sub(1));
                writer.owners.clear();
                Ok(())
            }
            Err(error) => {
                let refusal = Refusal::from(error);
                self.fail(handle, writer, refusal.clone());
                Err(refusal)
            }
        }
    }

    /// Drops a draft and records that it was.
    pub(super) fn drop_draft(&self, handle: &Handle, writer: &mut Writer) {
        let size_bytes = writer.draft.size_bytes();
        writer.draft.discard();
        self.wait(handle, false);
        self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        let Ok(place) = self.place(handle.ino) else { return };
        let Ok(key) = place.key() else { return };
        let by = self.caller_of(&place.session, writer);
        if let Err(error) = self.store.dropped(&place.session, &key, size_bytes, &by) {
            tracing::warn!("a dropped draft could not be recorded: {error}");
        }
        tracing::warn!(session = %place.session, %key, size_bytes, "a draft was dropped");
    }

    /// A handle that was refused: its draft is gone, and it says so from now on.
    pub(super) fn fail(&self, handle: &Handle, writer: &mut Writer, refusal: Refusal) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("{refusal}");
        writer.draft.discard();
        writer.failed = Some(refusal);
        self.wait(handle, false);
    }

    /// A draft whose last writer was killed is half a value: it is dropped, unless the mount says otherwise.
    fn finish(&self, handle: &Handle, writer: &mut Writer, moment: Moment) -> Reply<()> {
        let drops = self.options.on_kill == OnKill::Drop && !writer.draft.is_append();
        if drops && (writer.killed.is_some() || dies_of(writer).is_some()) {
            self.drop_draft(handle, writer);
            return Ok(());
        }
        self.commit_draft(handle, writer, moment)
    }

    /// Remembers that the process which wrote last is being killed; as long as nobody wrote, any that held the file: what
    /// an open has emptied was to be filled.
    fn note_death(&self, asker: Asker, writer: &mut Writer) {
        if asker.thread == 0 || !holders::is_dying(asker.thread) {
            return;
        }
        let last = writer.writers.last().and_then(|seen| seen.process.as_ref()).map(|process| process.pid);
        if (writer.writers.is_empty() || (last.is_some() && last == holders::tgid(asker.thread)))
            && let Some(Death::Signal(signal)) = holders::death(asker.thread)
        {
            writer.killed = Some(signal);
        }
    }

    /// Does anyone we know of still hold a descriptor of this handle that can write?
    ///
    /// Descriptors are counted per file, not per handle: `fdinfo` shows no more. So those of the other live write
    /// handles of the same processes are taken off.
    fn is_held(&self, handle: &Arc<Handle>, writer: &mut Writer, flusher: Option<(u32, u64)>) -> bool {
        if flusher.is_none() {
            if handle.closed.load(Ordering::Relaxed) {
                return false;
            }
            // Whose descriptors cannot be seen has not let go of them for all we know; the RELEASE will tell.
            if std::iter::once(&writer.opener).chain(&writer.writers).any(|seen| seen.process.is_none()) {
                return true;
            }
        }
        // Who has ended holds nothing, and is not held on to: a long-lived log sees thousands of them.
        writer.holders.retain(Holder::is_alive);
        let mut pids = writer.pids();
        if let Some((thread, owner)) = flusher {
            match holders::tgid(thread).filter(|&pid| can_be_seen(pid, handle.ino)) {
                Some(pid) => pids.push(pid),
                // Outside our pid namespace, or hidden: the descriptor table that wrote decides.
                None => return !writer.owners.contains(&owner),
            }
        }
        pids.sort_unstable();
        pids.dedup();
        for at in 0..pids.len() {
            pids.extend(pids.get(at).map(|&pid| holders::descendants(pid)).unwrap_or_default());
        }
        pids.sort_unstable();
        pids.dedup();
        let mut descriptors = 0;
        for &pid in &pids {
            let held = holders::writable_descriptors(pid, handle.ino).unwrap_or(0);
            descriptors += held;
            if held > 0 && !writer.holders.iter().any(|holder| holder.pid == pid) {
                writer.holders.extend(Holder::of(pid));
            }
        }
        descriptors > self.other_handles_of(handle, &pids)
    }

    /// How many other live handles on the node these processes have, with descriptors that are counted.
    fn other_handles_of(&self, handle: &Arc<Handle>, pids: &[u32]) -> usize {
        let others = self.writers_on(handle.ino).into_iter();
        let others = others
            .filter(|other| other.descriptors_write && other.id != handle.id && !other.closed.load(Ordering::Relaxed));
        others.filter(|other| other.pids().iter().any(|pid| pids.contains(pid))).count()
    }

    /// Marks or unmarks a handle as waiting for its holders.
    fn wait(&self, handle: &Handle, waits: bool) {
        if handle.waiting.swap(waits, Ordering::Relaxed) != waits {
            match waits {
                true => self.waiting.fetch_add(1, Ordering::Relaxed),
                false => self.waiting.fetch_sub(1, Ordering::Relaxed),
            };
        }
    }

    /// Takes a released handle off its node; a name that only it reserved is free again.
    pub(super) fn forget_handle(&self, handle: &Handle) {
        self.inodes.drop_handle(handle.ino, handle.id);
        // The neighbour's temporary file stays until it is renamed or removed by name.
        let reserved = self.inodes.fresh(handle.ino).is_some() && self.inodes.role(handle.ino) == Some(Role::Key);
        if !reserved {
            return;
        }
        let Some((parent, name)) = self.inodes.name(handle.ino) else { return };
        let _name = self.names.change((parent, &name));
        if self.inodes.fresh(handle.ino).is_some() && self.writers_on(handle.ino).is_empty() {
            self.inodes.remove(handle.ino);
        }
    }
}

/// The signal that who wrote last, or opened what nobody wrote, dies of while another one's close is looked at: its own
/// is on the way.
fn dies_of(writer: &Writer) -> Option<u32> {
    let last = writer.writers.last().unwrap_or(&writer.opener);
    holders::dies_of(last.process.as_ref()?.pid)
}

/// Can the descriptors of this process be read? A dying one has none left, which is an answer too.
fn can_be_seen(pid: u32, ino: Ino) -> bool {
    holders::writable_descriptors(pid, ino).is_some() || holders::is_dying(pid)
}
