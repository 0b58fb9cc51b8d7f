//! C1 to C8: what a commit makes, and which close makes one.

use std::collections::BTreeSet;

use super::{Base, Bytes, HandleId, Key, Line, Look, NodeId, Proc, Value, World};

/// Was it a signal that ended a process?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Killed(bool);

impl World {
    pub(super) fn fresh_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(in crate::model) fn put(&mut self, op: &'static str, key: Key, bytes: Vec<u8>, conflict: bool) -> u64 {
        let id = self.fresh_id();
        self.place(op, key, None, Value { id, run: id, version: 0, bytes }, conflict);
        id
    }

    pub(super) fn place(&mut self, op: &'static str, key: Key, to: Option<Key>, value: Value, conflict: bool) {
        let target = to.unwrap_or(key);
        let last = self.last.entry(target).or_default();
        *last += 1;
        let (version, size) = (*last, value.bytes.len() as u64);
        self.values.insert(target, Value { version, ..value });
        self.log.push(Line { op, key, to, version: Some(version), size: Some(size), conflict });
    }

    /// C1, C5, C7: the draft becomes the next version of the name it has now; without a name, of nothing (C11).
    pub(super) fn commit(&mut self, id: HandleId) {
        let node = self.handles[id].node;
        let Some(key) = self.nodes[node].name else {
            let handle = &mut self.handles[id];
            let view = handle.view();
            if let Some(draft) = handle.draft.as_mut().filter(|draft| matches!(draft.bytes, Bytes::Append(_))) {
                draft.bytes = Bytes::Whole(view, Base::Fresh);
            }
            return;
        };
        let current = self.values.get(&key).cloned();
        let handle = &mut self.handles[id];
        let Some(draft) = handle.draft.as_mut() else { return };
        draft.dirty = false;
        let bytes = std::mem::replace(&mut draft.bytes, Bytes::Untouched);
        draft.mine = None;
        handle.pinned = None;
        let mut mine = None;
        match (bytes, current) {
            (Bytes::Whole(bytes, base), current) => {
                let conflict = matches!(base, Base::Edit(base) if base != current.map(|value| value.id));
                mine = Some(self.put("put", key, bytes, conflict));
            }
            (Bytes::Append(more), Some(current)) if !more.is_empty() => {
                let (id, bytes) = (self.fresh_id(), [current.bytes, more].concat());
                self.place("append", key, None, Value { id, run: current.run, version: 0, bytes }, false);
            }
            (Bytes::Append(bytes), None) => drop(self.put("put", key, bytes, false)),
            (Bytes::Append(_), Some(_)) | (Bytes::Untouched, _) => {}
        }
        self.nodes[node].fresh = None;
        for other in self.handles_on(node) {
            // C8: who has only made the name goes on with the value that it has now.
            if let Some(draft) = self.handles[other].draft.as_mut().filter(|draft| draft.made) {
                (draft.dirty, draft.made) = (false, false);
                if !draft.stays_empty {
                    draft.bytes = Bytes::Untouched;
                }
            }
        }
        if let Some(draft) = self.handles[id].draft.as_mut() {
            draft.mine = mine;
            let earlier = draft.writers.len().saturating_sub(1);
            draft.writers.drain(..earlier);
        }
    }

    /// C6: half a value is dropped, and the log tells.
    pub(super) fn finish(&mut self, id: HandleId) {
        let size = self.handles[id].size() as u64;
        let key = self.nodes[self.handles[id].node].name;
        match self.handles[id].draft.as_mut() {
            Some(draft) if draft.killed && !draft.has_append() => {
                (draft.dirty, draft.dropped) = (false, true);
                draft.bytes = Bytes::Untouched;
                if let Some(key) = key {
                    self.log.push(Line { op: "drop", key, size: Some(size), ..Line::default() });
                }
            }
            _ => self.commit(id),
        }
    }

    /// One descriptor of a handle is gone from `process` (C1, C3).
    /// At its end (`ends`), by a signal or not, all its descriptors are gone before.
    pub(super) fn flush(&mut self, id: HandleId, process: Proc, ends: Option<Killed>, look: Look<'_>) {
        let (killed, ends) = (ends == Some(Killed(true)), ends.is_some());
        let Some(draft) = self.handles[id].draft.as_mut() else { return };
        if killed && draft.writers.last().is_none_or(|&last| last == process) {
            draft.killed = true;
        }
        if !draft.dirty {
            return;
        }
        let (append, dead) = (draft.has_append(), draft.killed);
        let holders = if self.handles[id].writes { self.holders(id) } else { Vec::new() };
        let unknown = self.note_known(id, process, &holders);
        let named = self.nodes[self.handles[id].node].name;
        let open_question =
            if holders.is_empty() { self.shares_its_file(id, ends.then_some(process)) } else { unknown && !append };
        if let (true, Some(key)) = (open_question, named) {
            self.looked += 1;
            let there = look(key);
            // A last close is committed by then, at the latest by the look.
            if !(holders.is_empty() && self.holders(id).is_empty()) {
                let committed = there != self.values.get(&key).map(|value| value.version);
                // What waits although nothing of it is held is committed by whoever touches it, and when.
                self.undecided |= dead || (holders.is_empty() && !committed);
                if committed {
                    self.commit(id);
                }
                return;
            }
        }
        if holders.is_empty() || append {
            self.finish(id);
        }
    }

    /// Who is known to hold the file at this close; is there a holder that nobody can know of (Limits: no descendant
    /// of one we know)? One of another handle counts: its handle then seems to explain a descriptor of this one.
    pub(super) fn note_known(&mut self, id: HandleId, flusher: Proc, holders: &[Proc]) -> bool {
        let Some(draft) = self.handles[id].draft.as_ref() else { return false };
        let mut known: BTreeSet<Proc> = draft.writers.iter().chain(&draft.seen).copied().collect();
        known.extend([draft.opener, flusher]);
        let below = |process: Proc| known.iter().any(|&above| self.descends(process, above));
        let all: BTreeSet<Proc> = (0..self.processes.len()).filter(|&p| known.contains(&p) || below(p)).collect();
        let node = self.handles[id].node;
        let writes = |handle: &HandleId| self.handles[*handle].node == node && self.handles[*handle].writes;
        let seen: Vec<Proc> =
            all.iter().copied().filter(|&p| self.processes[p].descriptors.values().any(writes)).collect();
        if let Some(draft) = self.handles[id].draft.as_mut() {
            draft.seen.extend(seen);
        }
        let others = self.handles_on(node).into_iter().filter(|&other| other != id && self.handles[other].writes);
        let strange = others.flat_map(|other| self.holders(other)).any(|holder| !all.contains(&holder));
        strange || holders.iter().any(|holder| !all.contains(holder))
    }

    /// Limits: a process with several write handles on one file and duplicates of their descriptors; one that ends may
    /// have been taken for a holder of a handle that was closed while it held another.
    pub(super) fn shares_its_file(&self, id: HandleId, ends: Option<Proc>) -> bool {
        let others = self.handles_on(self.handles[id].node).into_iter().filter(|&other| other != id);
        others.filter(|&other| self.handles[other].writes).any(|other| {
            let opener = self.handles[other].draft.as_ref().map(|draft| draft.opener);
            let holders = self.holders(other);
            let mistaken = ends.is_some_and(|ends| !self.handles[other].held_by.contains(&ends));
            mistaken || holders.len() != 1 || Some(holders[0]) != opener
        })
    }

    /// The last descriptor is gone.
    pub(super) fn release(&mut self, id: HandleId) {
        if self.handles[id].draft.as_ref().is_some_and(|draft| draft.dirty) {
            self.finish(id);
        }
        self.handles[id].open = false;
        let node = self.handles[id].node;
        let held = self.handles_on(node).into_iter().any(|other| self.handles[other].draft.is_some());
        if self.nodes[node].fresh.is_some() && !held {
            self.nodes[node].fresh = None;
            // A value that was there before the name was moved onto it is not this node's to take along.
            if self.nodes[node].name.is_none_or(|name| !self.values.contains_key(&name)) {
                self.lose_name(node);
            }
        }
    }

    pub(super) fn close(&mut self, process: Proc, fd: i32, look: Look<'_>) {
        let Some(handle) = self.processes[process].descriptors.remove(&fd) else { return };
        self.flush(handle, process, None, look);
        if self.holders(handle).is_empty() {
            self.release(handle);
        }
    }

    /// A process ends: all its descriptors are gone before the first of them is flushed.
    pub(in crate::model) fn end(&mut self, process: Proc, killed: bool, look: Look<'_>) {
        let descriptors = std::mem::take(&mut self.processes[process].descriptors);
        let looked = self.looked;
        for &handle in descriptors.values() {
            self.flush(handle, process, Some(Killed(killed)), look);
        }
        // Of several commits of one key, a limit leaves open which of them was delayed.
        let files: BTreeSet<NodeId> = descriptors.values().map(|&handle| self.handles[handle].node).collect();
        let handles: BTreeSet<HandleId> = descriptors.values().copied().collect();
        self.undecided |= self.looked > looked && files.len() < handles.len();
        for &handle in descriptors.values() {
            if self.handles[handle].open && self.holders(handle).is_empty() {
                self.release(handle);
            }
        }
        self.processes[process].alive = false;
        for other in &mut self.processes {
            other.parent = other.parent.filter(|&parent| parent != process);
        }
    }
}
