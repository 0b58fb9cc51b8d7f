//! The moment of commit: whose close is the last one, and the one road from a handle's draft to the store.
//!
//! In FLUSH and RELEASE only what [`crate::identity::holders`] reads may be read of a process: the caller may be in
//! the middle of an exec and hold a lock that every other file of `/proc` waits for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::OnKill;
use super::counters::Moment;
use super::errno::Refusal;
use super::fs::{Asker, Filesystem, Reply};
use super::handles::{Handle, HandleId, State, Writer};
use super::inodes::{Ino, Lost, Role};
use super::views::seen_as;
use crate::engine::AttributeChange;
use crate::identity::holders::{self, Closer, Death, Holder};
use crate::store::{Caller, Rule, StoreError, Write};
use crate::words;

/// As often as this processes new to us may turn up before a draft waits for a later FLUSH, a look or its RELEASE.
const LOOKS_MAX: usize = 100;
/// So often while somebody holds it: who starts processes without end is not looked at for long.
const LOOKS_HELD_MAX: usize = 8;

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
            State::Switch { text, by } => return self.set_switch(asker, handle.ino, text, by),
            _ => return Ok(()),
        };
        writer.still_good()?;
        writer.flushed = true;
        let closer = Closer::of(asker.thread);
        self.note_death(asker, closer, writer);
        let wrote = writer.closed_by(lock_owner);
        // Also with nothing to commit: who is seen holding it now may write when it is nobody's descendant any more.
        let held = self.is_held(&handle, writer, Some((closer, wrote)));
        handle.closed.store(!held, Ordering::Relaxed);
        if !writer.draft.is_dirty() {
            return Ok(());
        }
        if held && !writer.draft.is_append() {
            self.wait(&handle, true);
            return Ok(());
        }
        self.finish(&handle, writer, Moment::Close)
    }

    /// RELEASE: the last descriptor is gone. Commits what still waits, if a FLUSH was seen. Without one the kernel has
    /// failed the open after we had answered it, and the draft is dropped; but what was written came through a file that
    /// was open without being any descriptor (io_uring's direct ones), and is committed unless its writer was killed.
    pub fn release(&self, id: HandleId) {
        let Ok(handle) = self.handles.get(id) else { return };
        handle.closed.store(true, Ordering::Relaxed);
        self.opening.closed(handle.ino, id);
        if let State::Writer(writer) = &mut *handle.state() {
            let unflushed = !writer.flushed && !writer.writers.is_empty();
            if unflushed && writer.has_draft() && self.is_orphaned(writer) {
                self.drop_draft(&handle, writer, "its writer was killed by a signal");
            }
            let waits = writer.has_draft() && (writer.flushed || unflushed);
            if waits && let Err(refusal) = self.finish(&handle, writer, Moment::Release) {
                self.note_refusal("release", handle.ino, None, None, &refusal);
            }
            self.wait(&handle, false);
        }
        // Not before: who looks again at what waits must find it.
        self.handles.close(id);
        self.forget_handle(&handle);
    }

    /// fsync: commits what is there, whoever else holds the file, and makes durable all that is committed; the handle
    /// goes on.
    ///
    /// # Errors
    /// Those of the commit, and of the sync.
    pub fn fsync(&self, id: HandleId) -> Reply<()> {
        self.commit_here(id)?;
        self.sync()
    }

    /// Makes durable all that is committed, where closes return before it is.
    ///
    /// # Errors
    /// EIO: the sync failed, now or before.
    pub fn sync(&self) -> Reply<()> {
        Ok(self.engine().sync()?)
    }

    fn commit_here(&self, id: HandleId) -> Reply<()> {
        let handle = self.handles.get(id)?;
        let mut state = handle.state();
        let State::Writer(writer) = &mut *state else { return Ok(()) };
        writer.still_good()?;
        if self.has_draft(&handle, writer) { self.commit_draft(&handle, writer, Moment::Fsync) } else { Ok(()) }
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
            let left = writer.has_draft() && !self.is_held(&handle, writer, None);
            if left && let Err(refusal) = self.finish(&handle, writer, Moment::Look) {
                self.note_refusal("close", handle.ino, None, None, &refusal);
            }
        }
    }

    /// Is anything waiting on this node, so that looking again is worth a thread of its own?
    #[must_use]
    pub fn waits(&self, ino: Ino) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
            && self.writers_on(ino).iter().any(|handle| handle.waiting.load(Ordering::Relaxed))
    }

    /// The same for one name in a directory: a lookup costs the same however many names are there.
    #[must_use]
    pub fn waits_at(&self, dir: Ino, name: &str) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 && self.inodes.find(dir, name).is_some_and(|ino| self.waits(ino))
    }

    /// The same for all names in a directory.
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
        let named = self.keep_name(handle.ino).zip(self.place(handle.ino).ok());
        let Some((_name, place)) = named else {
            if writer.draft.is_dirty() && self.inodes.lost(handle.ino) != Some(Lost::Given) {
                let words = "the key's name stands for something else now, put there beside the mount";
                let refusal = Refusal::new(libc::EISDIR, words);
                return Err(self.fail(handle, writer, refusal));
            }
            self.pin_for_edit(handle.ino, writer)?;
            return Ok(writer.draft.stay_private(self.engine())?);
        };
        let (only_made, appended) = (writer.draft.is_only_made(), writer.draft.is_log());
        let set = std::mem::take(&mut writer.set);
        let Some((draft, base)) = writer.draft.take() else { return Ok(()) };
        writer.append_since = None;
        if self.role(handle.ino)? == Role::Scratch {
            return self.keep_scratch(handle.ino, draft);
        }
        let key = place.key()?;
        let fresh = self.fresh_attributes(handle.ino);
        let set = AttributeChange { mtime: set.mtime.or(Some(writer.written_at)), ..set };
        // A value there was put beside the mount, or is what this name was moved onto (C10).
        let reserved = self.inodes.fresh(handle.ino).is_some();
        let own = reserved && handle.makes();
        let anothers = reserved && !own && self.has_value(handle.ino);
        let write = Write { session: &place.session, key: &key, draft, base, fresh, own, set, rule: Rule::Policy };
        let by = self.caller_of(&place.session, writer);
        match self.store.write(&write, &by) {
            Ok(committed) => {
                self.counters.committed(moment);
                self.note_accepted("close", &place, &committed, &by);
                handle.makes.store(false, Ordering::Relaxed);
                if !(anothers && self.writers_on(handle.ino).iter().any(|other| other.makes())) {
                    self.inodes.committed(handle.ino);
                }
                writer.draft.committed((!appended).then_some(committed.version));
                writer.writers.drain(..writer.writers.len().saturating_sub(1));
                writer.owners.clear();
                writer.unowned = false;
                Ok(())
            }
            // Another has made the name, perhaps while we asked.
            Err(StoreError::Outdated { .. }) if only_made => {
                self.inodes.committed(handle.ino);
                Ok(())
            }
            Err(error) => {
                let refusal = self.keep_refused(&write, Refusal::from(error), &by);
                Err(self.fail(handle, writer, refusal))
            }
        }
    }

    /// Drops a draft: it is kept in history, and recorded with the reason.
    pub(super) fn drop_draft(&self, handle: &Handle, writer: &mut Writer, reason: &str) {
        let size_bytes = writer.draft.size_bytes();
        self.take_lost(handle, writer, |write, by| {
            let (session, key) = (write.session, write.key);
            match self.store.lose(write, words::Lost::Dropped, reason, by) {
                Ok(kept) => {
                    let kept = self.store.shown_past(session, key, kept);
                    tracing::warn!(%session, %key, size_bytes, kept, "a draft was dropped: {reason}");
                }
                Err(error) => {
                    tracing::warn!(%session, %key, size_bytes, "a draft was dropped ({reason}) and not kept: {error}");
                }
            }
        });
        writer.draft.discard();
        writer.dropped = true;
        handle.makes.store(false, Ordering::Relaxed);
        self.wait(handle, false);
        self.counters.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a draft that is to become no version; nothing of one whose name is gone, or no key's.
    fn take_lost<T>(
        &self,
        handle: &Handle,
        writer: &mut Writer,
        then: impl FnOnce(&Write<'_>, &Caller) -> T,
    ) -> Option<T> {
        let set = std::mem::take(&mut writer.set);
        let (draft, base) = writer.draft.take()?;
        let place = self.place(handle.ino).ok()?;
        let key = place.key().ok()?;
        let fresh = self.fresh_attributes(handle.ino);
        let set = AttributeChange { mtime: set.mtime.or(Some(writer.written_at)), ..set };
        let own = handle.makes();
        let write = Write { session: &place.session, key: &key, draft, base, fresh, own, set, rule: Rule::Policy };
        Some(then(&write, &self.caller_of(&place.session, writer)))
    }

    /// Keeps the bytes of a draft that was refused; the refusal then says where they are.
    fn keep_refused(&self, write: &Write<'_>, refusal: Refusal, by: &Caller) -> Refusal {
        match self.store.keep_refused(write, &refusal.words, refusal.errno == libc::ENOSPC, by) {
            Some(told) => Refusal { words: format!("{}; {told}", refusal.words), ..refusal },
            None => refusal,
        }
    }

    /// A handle that was refused: its draft becomes no version, and it says so from now on. The refusal, for who is
    /// answered first.
    pub(super) fn fail(&self, handle: &Handle, writer: &mut Writer, refusal: Refusal) -> Refusal {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        let kept = self.take_lost(handle, writer, |write, by| self.keep_refused(write, refusal.clone(), by));
        let mut refusal = kept.unwrap_or(refusal);
        // Who closes, or hears of it later, need not be who wrote.
        let session = self.inodes.last_seen(handle.ino).and_then(|at| at.session);
        refusal.who = session.map(|session| Box::new(self.caller_of(&session, writer).author));
        tracing::warn!("{refusal}");
        writer.draft.discard();
        writer.failed = Some(refusal.clone());
        handle.makes.store(false, Ordering::Relaxed);
        self.wait(handle, false);
        refusal
    }

    /// A draft whose last writer was killed is half a value: it is dropped, unless the mount says otherwise.
    fn finish(&self, handle: &Handle, writer: &mut Writer, moment: Moment) -> Reply<()> {
        if !self.has_draft(handle, writer) {
            self.wait(handle, false);
            return Ok(());
        }
        if let Some(signal) = writer.killed.filter(|_| self.drops(writer)) {
            self.drop_draft(handle, writer, &format!("its writer was killed by signal {signal}"));
            return Ok(());
        }
        self.commit_draft(handle, writer, moment)
    }

    /// Was the process that wrote last killed, though no FLUSH has told? Then what it left may be half a value.
    fn is_orphaned(&self, writer: &Writer) -> bool {
        let killed = matches!(writer.last.as_ref().and_then(Holder::death), Some(Death::Signal(_)));
        killed && self.drops(writer)
    }

    /// Is what was left by a killed writer dropped? Appends are whole writes, and never are.
    fn drops(&self, writer: &Writer) -> bool {
        self.options.on_kill == OnKill::Drop && !writer.draft.is_append()
    }

    /// Remembers that the process which wrote last is being killed; as long as nobody wrote, any that held the file: what
    /// an open has emptied was to be filled.
    fn note_death(&self, asker: Asker, closer: Closer, writer: &mut Writer) {
        if !closer.dying {
            return;
        }
        let ends = closer.pid;
        writer.ended.extend(ends);
        let last = writer.writers.last().and_then(|seen| seen.process.as_ref()).map(|process| process.pid);
        if (writer.writers.is_empty() || (last.is_some() && last == ends))
            && let Some(Death::Signal(signal)) = holders::death(asker.thread)
        {
            writer.killed = Some(signal);
        }
    }

    /// Does anyone we know of still hold a descriptor of this handle that can write?
    ///
    /// One that is duplicated and then closed, or passed to a child, can have moved to where we had already looked. But
    /// that close is a FLUSH, which waits for the state we hold, and its thread with it: whoever let go during one look
    /// stands still during the next, and only a process that is new to it can have let go during that.
    fn is_held(&self, handle: &Arc<Handle>, writer: &mut Writer, flusher: Option<(Closer, bool)>) -> bool {
        let (mut known, mut seen) = (Vec::new(), false);
        for look in 0..LOOKS_MAX {
            match self.look_for_holders(handle, writer, flusher, &mut known) {
                Look::Held => return true,
                Look::Passing if look >= LOOKS_HELD_MAX => return true,
                Look::Free => return false,
                // Who was seen holding it a moment ago may be who is hidden now.
                Look::Unseen => return seen || !flusher.is_some_and(|(_, wrote)| wrote),
                Look::Passing => seen = true,
                Look::Again => {}
            }
        }
        true
    }

    /// One look at the descriptors of everyone we know of; `known` are those that had none of this handle's in
    /// the look before.
    ///
    /// Descriptors are counted per file, not per handle: `fdinfo` shows no more. So those of the other live write
    /// handles of the same processes are taken off. Of the flusher: who it is, and whether its table may have written.
    fn look_for_holders(
        &self,
        handle: &Arc<Handle>,
        writer: &mut Writer,
        flusher: Option<(Closer, bool)>,
        known: &mut Vec<u32>,
    ) -> Look {
        if flusher.is_none() && handle.is_closed() {
            return Look::Free;
        }
        // Where not all can be seen, the descriptor table that wrote decides, and at last the RELEASE: who is hidden
        // has not let go for all we know.
        if std::iter::once(&writer.opener).chain(&writer.writers).any(|seen| seen.process.is_none()) {
            return Look::Unseen;
        }
        // Who has ended holds nothing, and is not held on to: a long-lived log sees thousands of them.
        writer.holders.retain(Holder::is_alive);
        let mut pids = writer.pids();
        let flusher = flusher.map(|(flusher, _)| flusher);
        let closer = flusher.and_then(|flusher| flusher.pid);
        if flusher.is_some() && closer.is_none() {
            return Look::Unseen;
        }
        pids.extend(closer);
        let named = pids.clone();
        let pids = with_descendants(pids, flusher);
        let (mut descriptors, mut holding) = (0, Vec::new());
        for &pid in &pids {
            let Some(held) = holders::writable_descriptors(pid, seen_as(handle.ino)) else {
                if named.contains(&pid) && holders::is_hidden(pid) {
                    self.counters.unseen.fetch_add(1, Ordering::Relaxed);
                    return Look::Unseen;
                }
                continue;
            };
            descriptors += held;
            holding.extend((held > 0).then_some(pid));
            if held > 0 && !writer.holders.iter().any(|holder| holder.pid == pid) {
                writer.holders.extend(Holder::of(pid));
            }
        }
        handle.note(writer);
        // Nothing is taken off while nobody waits for our answer: another handle may just be coming or going, and has no
        // descriptor then.
        // What a handle for reading has made is none of those descriptors'.
        let counted = handle.descriptors_write && descriptors > 0;
        // Who has none now and had none in the look before has not passed it on between.
        let without: Vec<u32> = pids.iter().copied().filter(|pid| holding.binary_search(pid).is_err()).collect();
        let settled = without.iter().all(|pid| Some(*pid) == closer || known.binary_search(pid).is_ok());
        if counted && flusher.is_none_or(|flusher| self.holds_more(handle, flusher, descriptors, holding, &pids)) {
            *known = without;
            // Else a child that has it would be unknown once those between have ended, which the flusher's answer lets them.
            return if settled { Look::Held } else { Look::Passing };
        }
        // Last, since a process loses its descriptors before it shows as one that ends.
        if is_awaited(writer, closer) {
            return Look::Held;
        }
        let stands_still = flusher.is_some_and(|flusher| flusher.alone && pids.iter().all(|&pid| Some(pid) == closer));
        let all_known = pids.iter().all(|pid| known.binary_search(pid).is_ok());
        *known = pids;
        if stands_still || all_known { Look::Free } else { Look::Again }
    }

    /// Do these processes, of which those `holding` have `descriptors` of the file, have more than their other live write
    /// handles on it explain? Those may be with processes that are none of these: only what was counted may be taken off.
    /// A process that holds nothing explains none: at its exit its handles outlive its descriptors. While the flusher
    /// itself is at its end its own are not taken off: which of them it takes along nobody can tell.
    fn holds_more(
        &self,
        handle: &Handle,
        flusher: Closer,
        mut descriptors: usize,
        mut holding: Vec<u32>,
        pids: &[u32],
    ) -> bool {
        let of = |other: &Handle, pids: &[u32]| pids.iter().any(|&pid| other.may_be_held_by(pid));
        let mut others = self.writers_on(handle.ino);
        others.retain(|other| other.descriptors_write && other.id != handle.id && !other.is_closed());
        others.retain(|other| of(other, pids));
        if descriptors > others.len() {
            return true;
        }
        if flusher.dying {
            others.retain(|other| !flusher.pid.is_some_and(|pid| other.may_be_held_by(pid)));
        }
        let elsewhere = with_descendants(others.iter().flat_map(|other| other.pids()).collect(), None);
        for pid in elsewhere.into_iter().filter(|pid| !pids.contains(pid)) {
            let held = holders::writable_descriptors(pid, seen_as(handle.ino)).unwrap_or(0);
            descriptors += held;
            holding.extend((held > 0).then_some(pid));
        }
        descriptors > others.iter().filter(|other| of(other, &holding)).count()
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
        let held = self.inodes.handles(handle.ino);
        if self.inodes.fresh(handle.ino).is_none() || !self.writers_on(handle.ino).is_empty() {
            return;
        }
        // What a dropped draft was moved onto has its value still, and who reads it.
        if self.has_value(handle.ino) {
            self.inodes.committed(handle.ino)
        } else {
            self.inodes.unreserve(handle.ino, &held)
        }
    }

    fn has_value(&self, ino: Ino) -> bool {
        self.place(ino).is_ok_and(|place| matches!(self.engine().entry(&place.session, &place.path), Ok(Some(_))))
    }
}

/// What one look for holders has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Held,
    Free,
    /// Nobody was seen holding it; a process that was met for the first time may just have passed it on.
    Again,
    /// The same of what somebody holds.
    Passing,
    /// Not all can be seen.
    Unseen,
}

/// Is a process whose death decides about the draft on its way out, its own FLUSH perhaps still to come? When several
/// are killed at once, the first FLUSH may be that of another one, and nobody has a descriptor any more.
fn is_awaited(writer: &Writer, closer: Option<u32>) -> bool {
    let last = writer.writers.last().and_then(|seen| seen.process.as_ref());
    let deciding = last.map_or_else(|| writer.pids(), |process| vec![process.pid]);
    deciding.into_iter().any(|pid| Some(pid) != closer && !writer.ended.contains(&pid) && holders::is_ending(pid))
}

/// These processes and all that descend from them; one of them may be who has just been looked at.
fn with_descendants(mut pids: Vec<u32>, seen: Option<Closer>) -> Vec<u32> {
    pids.sort_unstable();
    pids.dedup();
    let of = |&pid: &u32| match seen {
        Some(seen) if seen.pid == Some(pid) => seen.descendants(),
        _ => holders::descendants(pid),
    };
    let more: Vec<u32> = pids.iter().flat_map(of).collect();
    pids.extend(more);
    pids.sort_unstable();
    pids.dedup();
    pids
}
