//! The reference model: what SEMANTICS says that values, names, drafts and descriptors are after each step.
//! Knows no mount; written from the sentences, not from the code that keeps them.

use std::collections::{BTreeMap, BTreeSet};

use super::steps::{Flags, Step};

pub(super) type Key = usize;
pub(super) type Proc = usize;
type NodeId = usize;
pub(super) type HandleId = usize;

/// What a system call answers: its result as text, or the errno.
pub(super) type Answer = Result<String, i32>;

/// The version a key has now on the mount, looked at by a stranger; looking makes it commit what waits for nobody.
pub(super) type Look<'a> = &'a mut dyn FnMut(Key) -> Option<u64>;

/// A committed version. `id` stays the same under another name; `run` is the same for versions that only appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    id: u64,
    run: u64,
    pub(super) version: u64,
    pub(super) bytes: Vec<u8>,
}

/// A line of the log: what the model expects of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Line {
    pub(super) op: &'static str,
    pub(super) key: Key,
    pub(super) to: Option<Key>,
    pub(super) version: Option<u64>,
    pub(super) size: Option<u64>,
    pub(super) conflict: bool,
}

/// What a name stands for while handles are open on it. Without a name it was removed or replaced.
#[derive(Debug, Clone, Default)]
struct Node {
    name: Option<Key>,
    /// No commit has made the name (C8): the processes that created it.
    fresh: Option<Vec<Proc>>,
}

/// What a whole draft was made from (C18): nothing, or an edit of a version (`None`: of no value at all).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Fresh,
    Edit(Option<u64>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Bytes {
    Untouched,
    Whole(Vec<u8>, Base),
    Append(Vec<u8>),
}

/// The draft of a handle that may commit.
#[derive(Debug, Clone)]
struct Draft {
    bytes: Bytes,
    dirty: bool,
    /// What this handle committed last, until it reads again: its next edit goes on from there (C18).
    mine: Option<u64>,
    opener: Proc,
    writers: Vec<Proc>,
    /// Processes seen holding it at a close that had to wait (C1).
    seen: BTreeSet<Proc>,
    killed: bool,
}

/// An open file description.
#[derive(Debug, Clone)]
struct Handle {
    node: NodeId,
    reads: bool,
    writes: bool,
    appends: bool,
    draft: Option<Draft>,
    pinned: Option<Value>,
    /// `None` after an append: the kernel keeps an offset that means nothing here.
    position: Option<usize>,
    open: bool,
    /// Everyone who ever had a descriptor of it.
    held_by: BTreeSet<Proc>,
}

#[derive(Debug, Clone)]
struct Process {
    alive: bool,
    parent: Option<Proc>,
    descriptors: BTreeMap<i32, HandleId>,
}

/// Does a process see a name that no commit has made?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sees {
    Yes,
    No,
    /// It took part once and holds nothing any more: no sentence says.
    Open,
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    values: BTreeMap<Key, Value>,
    last: BTreeMap<Key, u64>,
    nodes: Vec<Node>,
    by_name: BTreeMap<Key, NodeId>,
    handles: Vec<Handle>,
    processes: Vec<Process>,
    ids: u64,
    pub(super) log: Vec<Line>,
    /// How often a limit of SEMANTICS left two outcomes open and the mount was looked at.
    pub(super) looked: u64,
    /// A limit left open what cannot be looked at: the case says nothing more.
    pub(super) undecided: bool,
}

impl World {
    // --- processes and descriptors ---

    pub(super) fn start(&mut self, parent: Option<Proc>) -> Proc {
        let descriptors = parent.map(|parent| self.processes[parent].descriptors.clone()).unwrap_or_default();
        let id = self.processes.len();
        for &handle in descriptors.values() {
            self.handles[handle].held_by.insert(id);
        }
        self.processes.push(Process { alive: true, parent, descriptors });
        id
    }

    pub(super) fn alive(&self) -> Vec<Proc> {
        (0..self.processes.len()).filter(|&id| self.processes[id].alive).collect()
    }

    pub(super) fn descriptors(&self) -> Vec<(Proc, i32)> {
        let alive = self.alive().into_iter();
        alive.flat_map(|id| self.processes[id].descriptors.keys().map(move |&fd| (id, fd))).collect()
    }

    pub(super) fn descriptors_of(&self, process: Proc) -> Vec<i32> {
        self.processes[process].descriptors.keys().copied().collect()
    }

    /// Does the position of this descriptor mean anything?
    pub(super) fn has_position(&self, process: Proc, fd: i32) -> bool {
        self.handles[self.processes[process].descriptors[&fd]].position.is_some()
    }

    /// Is the size that `stat` shows told by more than drafts, or do all of these still count? The kernel tells of a
    /// handle's end when the next step may have begun.
    pub(super) fn has_size(&self, key: Key) -> bool {
        self.values.contains_key(&key) || self.by_name.get(&key).is_none_or(|&node| self.all_open(node))
    }

    /// The same for what a descriptor is of.
    pub(super) fn shows_size(&self, process: Proc, fd: i32) -> bool {
        let node = self.handles[self.processes[process].descriptors[&fd]].node;
        self.newest(node).is_some() || self.all_open(node)
    }

    fn all_open(&self, node: NodeId) -> bool {
        self.handles.iter().all(|handle| handle.node != node || handle.open)
    }

    pub(super) fn values(&self) -> &BTreeMap<Key, Value> {
        &self.values
    }

    fn holders(&self, handle: HandleId) -> Vec<Proc> {
        let holds = |process: &Process| process.descriptors.values().filter(|&&held| held == handle).count();
        (0..self.processes.len()).flat_map(|id| vec![id; holds(&self.processes[id])]).collect()
    }

    fn descends(&self, mut process: Proc, from: Proc) -> bool {
        while let Some(parent) = self.processes[process].parent {
            if parent == from {
                return true;
            }
            process = parent;
        }
        false
    }

    // --- names ---

    pub(super) fn sees(&self, process: Proc, key: Key) -> Sees {
        if self.values.contains_key(&key) {
            return Sees::Yes;
        }
        let Some(&node) = self.by_name.get(&key) else { return Sees::No };
        let Some(creators) = &self.nodes[node].fresh else { return Sees::No };
        let on_it = |handle: &HandleId| self.handles[*handle].open && self.handles[*handle].node == node;
        if creators.contains(&process) || self.processes[process].descriptors.values().any(on_it) {
            return Sees::Yes;
        }
        let took_part = self.handles_on(node).into_iter().any(|handle| self.handles[handle].held_by.contains(&process));
        if took_part { Sees::Open } else { Sees::No }
    }

    fn node_of(&mut self, key: Key) -> NodeId {
        let next = self.nodes.len();
        let node = *self.by_name.entry(key).or_insert(next);
        if node == next {
            self.nodes.push(Node { name: Some(key), fresh: None });
        }
        node
    }

    fn handles_on(&self, node: NodeId) -> Vec<HandleId> {
        (0..self.handles.len()).filter(|&id| self.handles[id].open && self.handles[id].node == node).collect()
    }

    fn lose_name(&mut self, node: NodeId) {
        self.nodes[node].fresh = None;
        if let Some(name) = self.nodes[node].name.take() {
            self.by_name.remove(&name);
        }
    }

    fn newest(&self, node: NodeId) -> Option<Value> {
        self.values.get(&self.nodes[node].name?).cloned()
    }

    /// What `stat` shows (C13).
    fn shown_size(&self, node: NodeId) -> usize {
        if let Some(value) = self.newest(node) {
            return value.bytes.len();
        }
        let unnamed = self.nodes[node].name.is_none();
        let of = |id: HandleId| match &self.handles[id] {
            handle if handle.draft.is_some() => handle.size(),
            handle if unnamed => handle.pinned.as_ref().map_or(0, |value| value.bytes.len()),
            _ => 0,
        };
        self.handles_on(node).into_iter().map(of).max().unwrap_or(0)
    }

    /// C11, C10: who has open what loses its name keeps what it opened.
    fn pin_all(&mut self, key: Key) {
        let Some(&node) = self.by_name.get(&key) else { return };
        let newest = self.newest(node);
        for id in self.handles_on(node) {
            let handle = &mut self.handles[id];
            if handle.wants_pin() {
                handle.pinned.clone_from(&newest);
            }
        }
    }

    // --- commits ---

    fn fresh_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(super) fn put(&mut self, op: &'static str, key: Key, bytes: Vec<u8>, conflict: bool) -> u64 {
        let id = self.fresh_id();
        self.place(op, key, None, Value { id, run: id, version: 0, bytes }, conflict);
        id
    }

    fn place(&mut self, op: &'static str, key: Key, to: Option<Key>, value: Value, conflict: bool) {
        let target = to.unwrap_or(key);
        let last = self.last.entry(target).or_default();
        *last += 1;
        let (version, size) = (*last, value.bytes.len() as u64);
        self.values.insert(target, Value { version, ..value });
        self.log.push(Line { op, key, to, version: Some(version), size: Some(size), conflict });
    }

    /// C1, C5, C7: the draft becomes the next version of the name it has now; without a name, of nothing (C11).
    fn commit(&mut self, id: HandleId) {
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
        if let Some(draft) = self.handles[id].draft.as_mut() {
            draft.mine = mine;
            let earlier = draft.writers.len().saturating_sub(1);
            draft.writers.drain(..earlier);
        }
    }

    /// C6: half a value is dropped, and the log tells.
    fn finish(&mut self, id: HandleId) {
        let size = self.handles[id].size() as u64;
        let key = self.nodes[self.handles[id].node].name;
        match self.handles[id].draft.as_mut() {
            Some(draft) if draft.killed && !draft.has_append() => {
                draft.dirty = false;
                draft.bytes = Bytes::Untouched;
                if let Some(key) = key {
                    self.log.push(Line { op: "drop", key, size: Some(size), ..Line::default() });
                }
            }
            _ => self.commit(id),
        }
    }

    /// One descriptor of a handle is gone from `process` (C1, C3).
    fn flush(&mut self, id: HandleId, process: Proc, killed: bool, look: Look<'_>) {
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
        let open_question = if holders.is_empty() { self.shares_its_file(id) } else { unknown && !append };
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
    fn note_known(&mut self, id: HandleId, flusher: Proc, holders: &[Proc]) -> bool {
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

    /// Limits: a process with several write handles on one file and duplicates of their descriptors.
    fn shares_its_file(&self, id: HandleId) -> bool {
        let others = self.handles_on(self.handles[id].node).into_iter().filter(|&other| other != id);
        others.filter(|&other| self.handles[other].writes).any(|other| {
            let opener = self.handles[other].draft.as_ref().map(|draft| draft.opener);
            let holders = self.holders(other);
            holders.len() != 1 || Some(holders[0]) != opener
        })
    }

    /// The last descriptor is gone.
    fn release(&mut self, id: HandleId) {
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

    fn close(&mut self, process: Proc, fd: i32, look: Look<'_>) {
        let Some(handle) = self.processes[process].descriptors.remove(&fd) else { return };
        self.flush(handle, process, false, look);
        if self.holders(handle).is_empty() {
            self.release(handle);
        }
    }

    /// A process ends: all its descriptors are gone before the first of them is flushed.
    pub(super) fn end(&mut self, process: Proc, killed: bool, look: Look<'_>) {
        let descriptors = std::mem::take(&mut self.processes[process].descriptors);
        let looked = self.looked;
        for &handle in descriptors.values() {
            self.flush(handle, process, killed, look);
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

    // --- steps ---

    /// Makes a step; `fd` is the descriptor the mount gave, where the step makes one.
    pub(super) fn step(&mut self, step: &Step, fd: Option<i32>, look: Look<'_>) -> Answer {
        let done = Ok(String::new());
        match *step {
            Step::Open { process, key, flags } => self.open(process, key, flags, fd),
            Step::Truncate { process, key, size } => self.truncate(process, key, size),
            Step::Stat { process, key } => {
                self.must_see(process, key)?;
                let node = self.node_of(key);
                Ok(format!("{} 1", self.shown_size(node)))
            }
            Step::List { .. } => Ok(self.values.keys().map(|key| format!("k{key}")).collect::<Vec<_>>().join(" ")),
            Step::Rename { process, from, to, replace } => self.rename(process, from, to, replace),
            Step::Unlink { process, key } => {
                self.must_see(process, key)?;
                self.pin_all(key);
                if self.values.remove(&key).is_some() {
                    self.log.push(Line { op: "delete", key, ..Line::default() });
                }
                let node = self.node_of(key);
                self.lose_name(node);
                done
            }
            Step::Dup { process, fd: old } => {
                let handle = self.processes[process].descriptors[&old];
                self.give(process, fd, handle)
            }
            Step::Dup2 { process, fd: old, onto } => {
                let handle = self.processes[process].descriptors[&old];
                let replaced = self.processes[process].descriptors.insert(onto, handle);
                if let Some(replaced) = replaced.filter(|_| old != onto) {
                    self.handles[handle].held_by.insert(process);
                    self.flush(replaced, process, false, look);
                    if self.holders(replaced).is_empty() {
                        self.release(replaced);
                    }
                }
                Ok(onto.to_string())
            }
            Step::Close { process, fd } => {
                self.close(process, fd, look);
                done
            }
            Step::Read { process, fd, size, at } => self.read(process, fd, size, at),
            Step::Write { process, fd, ref data, at } => self.write(process, fd, data, at),
            Step::Cut { process, fd, size } => {
                let handle = self.processes[process].descriptors[&fd];
                if !self.handles[handle].writes {
                    return Err(libc::EINVAL);
                }
                self.cut(handle, process, size);
                done
            }
            Step::Seek { process, fd, at } => self.seek(process, fd, at),
            Step::Fstat { process, fd } => {
                let node = self.handles[self.processes[process].descriptors[&fd]].node;
                Ok(format!("{} {}", self.shown_size(node), usize::from(self.nodes[node].name.is_some())))
            }
            Step::Sync { process, fd } => {
                let handle = self.processes[process].descriptors[&fd];
                if self.handles[handle].draft.as_ref().is_some_and(|draft| draft.dirty) {
                    self.commit(handle);
                }
                done
            }
        }
    }

    fn must_see(&self, process: Proc, key: Key) -> Result<(), i32> {
        if self.sees(process, key) == Sees::Yes { Ok(()) } else { Err(libc::ENOENT) }
    }

    fn give(&mut self, process: Proc, fd: Option<i32>, handle: HandleId) -> Answer {
        // A mount that refused what it should have allowed gave none: any number shows the difference.
        let fd = fd.unwrap_or(-1);
        self.processes[process].descriptors.insert(fd, handle);
        self.handles[handle].held_by.insert(process);
        Ok(fd.to_string())
    }

    fn open(&mut self, process: Proc, key: Key, flags: Flags, fd: Option<i32>) -> Answer {
        let seen = self.sees(process, key) == Sees::Yes;
        let node = match (seen, flags.create, flags.exclusive) {
            (true, true, true) => return Err(libc::EEXIST),
            (false, false, _) => return Err(libc::ENOENT),
            _ => self.node_of(key),
        };
        let mut draft = None;
        let new_draft = |bytes, dirty| Draft {
            bytes,
            dirty,
            mine: None,
            opener: process,
            writers: Vec::new(),
            seen: BTreeSet::new(),
            killed: false,
        };
        if !seen {
            // C8: reserved by another, or from now on by this one.
            match &mut self.nodes[node].fresh {
                Some(_) if flags.exclusive => return Err(libc::EEXIST),
                Some(creators) => creators.push(process),
                fresh @ None => *fresh = Some(vec![process]),
            }
            let empty = if flags.append { Bytes::Append(Vec::new()) } else { Bytes::Whole(Vec::new(), Base::Fresh) };
            draft = Some(new_draft(empty, true));
        } else if flags.writes {
            // C4: emptying what is empty is nothing to commit.
            let counts = flags.truncate && self.shown_size(node) > 0;
            let bytes = if flags.truncate { Bytes::Whole(Vec::new(), Base::Fresh) } else { Bytes::Untouched };
            draft = Some(new_draft(bytes, counts));
        }
        let truncates = seen && flags.truncate && !flags.writes;
        let handle = self.handles.len();
        self.handles.push(Handle {
            node,
            reads: flags.reads,
            writes: flags.writes,
            appends: flags.append && flags.writes,
            draft,
            pinned: None,
            position: Some(0),
            open: true,
            held_by: BTreeSet::new(),
        });
        let given = self.give(process, fd, handle);
        if truncates {
            self.truncate(process, key, 0)?;
        }
        given
    }

    /// C9.
    fn truncate(&mut self, process: Proc, key: Key, size: usize) -> Answer {
        self.must_see(process, key)?;
        match self.values.get(&key) {
            Some(value) if value.bytes.len() == size => {}
            Some(value) => {
                let mut bytes = value.bytes.clone();
                bytes.resize(size, 0);
                self.put("put", key, bytes, false);
            }
            None => {
                let node = self.node_of(key);
                for handle in self.handles_on(node) {
                    if self.handles[handle].draft.is_some() {
                        self.cut(handle, process, size);
                    }
                }
            }
        }
        Ok(String::new())
    }

    /// C10.
    fn rename(&mut self, process: Proc, from: Key, to: Key, replace: bool) -> Answer {
        self.must_see(process, from)?;
        let reserved = self.by_name.get(&to).is_some_and(|&node| self.nodes[node].fresh.is_some());
        if !replace && (self.values.contains_key(&to) || reserved) {
            return Err(libc::EEXIST);
        }
        if from == to {
            return Ok(String::new());
        }
        let node = self.node_of(from);
        if self.values.contains_key(&to) && !self.values.contains_key(&from) {
            // What was appended to a name of its own does not go after the value that the name replaces.
            for handle in self.handles_on(node) {
                let log = |draft: &Draft| draft.dirty && matches!(draft.bytes, Bytes::Append(_));
                if self.handles[handle].draft.as_ref().is_some_and(log) {
                    self.commit(handle);
                }
            }
        }
        self.pin_all(to);
        if let Some(&old) = self.by_name.get(&to) {
            self.lose_name(old);
        }
        self.by_name.remove(&from);
        self.by_name.insert(to, node);
        self.nodes[node].name = Some(to);
        if let Some(value) = self.values.remove(&from) {
            let run = self.fresh_id();
            for handle in self.handles_on(node) {
                let pinned = self.handles[handle].pinned.as_mut();
                pinned.into_iter().filter(|pinned| pinned.id == value.id).for_each(|pinned| pinned.run = run);
            }
            self.place("rename", from, Some(to), Value { run, ..value }, false);
        }
        Ok(String::new())
    }

    /// C12, C13.
    fn read(&mut self, process: Proc, fd: i32, size: usize, at: Option<usize>) -> Answer {
        let id = self.processes[process].descriptors[&fd];
        if !self.handles[id].reads {
            return Err(libc::EBADF);
        }
        let offset = at.or(self.handles[id].position).unwrap_or(0);
        let node = self.handles[id].node;
        let newest = self.newest(node);
        if self.handles[id].wants_pin() {
            let hidden = self.nodes[node].fresh.is_some();
            let handle = &mut self.handles[id];
            match &mut handle.draft {
                Some(draft) => draft.mine = None,
                // A name that no commit has made is empty to who opened it; one that is gone is gone (Limits).
                None if newest.is_none() && !hidden => return Err(libc::ENOENT),
                None => {}
            }
            handle.pinned.clone_from(&newest);
        }
        let handle = &mut self.handles[id];
        let mut bytes = handle.view();
        let short = offset + size > bytes.len();
        if let (true, None, Some(newest), Some(pinned)) = (short, &handle.draft, newest, &handle.pinned)
            && newest.run == pinned.run
            && newest.id > pinned.id
        {
            bytes.clone_from(&newest.bytes);
            handle.pinned = Some(newest);
        }
        let read: Vec<u8> = bytes.into_iter().skip(offset).take(size).collect();
        if at.is_none() {
            handle.position = Some(offset + read.len());
        }
        Ok(super::steps::hex(&read))
    }

    fn write(&mut self, process: Proc, fd: i32, data: &[u8], at: Option<usize>) -> Answer {
        let id = self.processes[process].descriptors[&fd];
        if !self.handles[id].writes {
            return Err(libc::EBADF);
        }
        let offset = at.or(self.handles[id].position).unwrap_or(0);
        let appends = self.handles[id].appends;
        self.wrote(id, process);
        if appends {
            let draft = self.handles[id].draft.as_mut().expect("a draft");
            match &mut draft.bytes {
                Bytes::Whole(bytes, _) | Bytes::Append(bytes) => bytes.extend(data),
                Bytes::Untouched => draft.bytes = Bytes::Append(data.to_vec()),
            }
            draft.dirty = true;
        } else {
            let bytes = self.edit(id);
            if bytes.len() < offset + data.len() {
                bytes.resize(offset + data.len(), 0);
            }
            bytes[offset..offset + data.len()].copy_from_slice(data);
        }
        if at.is_none() {
            self.handles[id].position = (!appends).then_some(offset + data.len());
        }
        Ok(data.len().to_string())
    }

    fn wrote(&mut self, id: HandleId, process: Proc) {
        if let Some(draft) = self.handles[id].draft.as_mut() {
            draft.writers.retain(|&writer| writer != process);
            draft.writers.push(process);
            draft.killed = false;
        }
    }

    /// `ftruncate`: a write of the process. Appended bytes are never part of a draft that can be lost (C6, C7).
    fn cut(&mut self, id: HandleId, process: Proc, size: usize) {
        self.wrote(id, process);
        if self.handles[id].draft.as_ref().is_some_and(Draft::has_append) {
            self.commit(id);
        }
        if size == 0 && self.handles[id].pinned.is_none() {
            let draft = self.handles[id].draft.as_mut().expect("a draft");
            draft.bytes = Bytes::Whole(Vec::new(), Base::Fresh);
            draft.dirty = true;
            return;
        }
        self.edit(id).resize(size, 0);
    }

    /// The bytes of a whole draft: a copy of the current version where none was made yet.
    fn edit(&mut self, id: HandleId) -> &mut Vec<u8> {
        let newest = self.newest(self.handles[id].node);
        let handle = &mut self.handles[id];
        if handle.wants_pin() {
            handle.pinned = newest;
        }
        let view = handle.view();
        let pinned = handle.pinned.as_ref().map(|value| value.id);
        let draft = handle.draft.as_mut().expect("a draft");
        if !matches!(draft.bytes, Bytes::Whole(..)) {
            draft.bytes = Bytes::Whole(view, Base::Edit(draft.mine.or(pinned)));
        }
        draft.dirty = true;
        match &mut draft.bytes {
            Bytes::Whole(bytes, _) => bytes,
            Bytes::Untouched | Bytes::Append(_) => unreachable!("made above"),
        }
    }

    /// C13: SEEK_END is the end of what this handle reads.
    fn seek(&mut self, process: Proc, fd: i32, at: Option<usize>) -> Answer {
        let id = self.processes[process].descriptors[&fd];
        let node = self.handles[id].node;
        let newest = self.newest(node);
        let shown = self.shown_size(node);
        let handle = &mut self.handles[id];
        let position = match (at, &handle.draft) {
            (Some(at), _) => at,
            (None, Some(draft)) if draft.dirty || handle.pinned.is_some() => {
                if handle.wants_pin() {
                    handle.pinned = newest;
                }
                handle.size()
            }
            (None, None) if handle.pinned.is_some() => handle.size(),
            (None, _) => shown,
        };
        self.handles[id].position = Some(position);
        Ok(position.to_string())
    }
}

impl Handle {
    /// Would a read take the newest version?
    fn wants_pin(&self) -> bool {
        let whole = matches!(&self.draft, Some(Draft { bytes: Bytes::Whole(..), .. }));
        self.pinned.is_none() && !whole
    }

    /// What a read through this handle sees.
    fn view(&self) -> Vec<u8> {
        let pinned = self.pinned.as_ref().map(|value| value.bytes.clone()).unwrap_or_default();
        match self.draft.as_ref().map(|draft| &draft.bytes) {
            Some(Bytes::Whole(bytes, _)) => bytes.clone(),
            Some(Bytes::Append(more)) => [pinned.as_slice(), more].concat(),
            Some(Bytes::Untouched) | None => pinned,
        }
    }

    fn size(&self) -> usize {
        self.view().len()
    }
}

impl Draft {
    fn has_append(&self) -> bool {
        self.dirty && matches!(&self.bytes, Bytes::Append(bytes) if !bytes.is_empty())
    }
}
