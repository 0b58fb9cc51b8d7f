//! The reference model: what SEMANTICS says that values, names, drafts and descriptors are after each step.
//! Knows no mount; written from the sentences, not from the code that keeps them.

use std::collections::{BTreeMap, BTreeSet};

mod calls;
mod closes;

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
    /// The value it had when it lost its name.
    left: Option<Value>,
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
    /// It has made a new name and written nothing to it.
    made: bool,
    /// What it has made stays empty to it whatever another commits there: it was read, or opened with O_TRUNC.
    stays_empty: bool,
    /// What this handle committed last, until it reads again: its next edit goes on from there (C18).
    mine: Option<u64>,
    opener: Proc,
    writers: Vec<Proc>,
    /// Processes seen holding it at a close that had to wait (C1).
    seen: BTreeSet<Proc>,
    killed: bool,
    /// It was dropped (C6): there is nothing of it to cut.
    dropped: bool,
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

    /// Has the name a value, or else no drafts but this process's? Whose drafts `truncate` cuts there no sentence says.
    pub(super) fn may_cut(&self, process: Proc, key: Key) -> bool {
        let own = |handle: HandleId| self.handles[handle].draft.as_ref().is_none_or(|draft| draft.opener == process);
        let node = self.by_name.get(&key);
        self.values.contains_key(&key) || node.is_none_or(|&node| self.handles_on(node).into_iter().all(own))
    }

    /// As [`World::has_size`] for what a descriptor is of.
    pub(super) fn shows_size(&self, process: Proc, fd: i32) -> bool {
        let node = self.handles[self.processes[process].descriptors[&fd]].node;
        // Without a name a draft is shown to who writes it; whether also to who only holds it no sentence says.
        let told = |handle: &Handle| {
            let holds = handle.node == node && handle.held_by.contains(&process);
            !holds || handle.draft.as_ref().is_none_or(|draft| draft.is_of(process))
        };
        self.newest(node).is_some() || (self.all_open(node) && self.handles.iter().all(told))
    }

    /// Is what a read through a descriptor finds told by a value, or by this handle alone? Whether a name without a value is
    /// there still, is told as its size is ([`World::has_size`]): a read does not look again (C2).
    pub(super) fn shows_bytes(&self, process: Proc, fd: i32) -> bool {
        let handle = &self.handles[self.processes[process].descriptors[&fd]];
        !handle.wants_pin() || self.newest(handle.node).is_some() || self.all_open(handle.node)
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
            self.nodes.push(Node { name: Some(key), fresh: None, left: None });
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

    /// What `stat` shows a process (C13).
    fn shown_size(&self, node: NodeId, process: Proc) -> usize {
        if let Some(value) = self.newest(node) {
            return value.bytes.len();
        }
        if let (None, Some(left)) = (self.nodes[node].name, &self.nodes[node].left) {
            let own = |id: &HandleId| self.handles[*id].draft.as_ref().is_some_and(|draft| draft.is_of(process));
            let sizes = self.handles_on(node).into_iter().filter(own).map(|id| self.handles[id].size());
            return sizes.max().unwrap_or(left.bytes.len());
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
        self.nodes[node].left.clone_from(&newest);
        for id in self.handles_on(node) {
            let handle = &mut self.handles[id];
            // What is appended after a truncation that had nothing to empty goes after the newest value, also here (C7).
            let clean = handle.draft.as_ref().is_some_and(|draft| !draft.dirty && !draft.made);
            if handle.wants_pin() || (handle.pinned.is_none() && clean) {
                handle.pinned.clone_from(&newest);
            }
        }
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
    /// Has the process opened or written it?
    fn is_of(&self, process: Proc) -> bool {
        self.opener == process || self.writers.contains(&process)
    }

    fn has_append(&self) -> bool {
        self.dirty && matches!(&self.bytes, Bytes::Append(bytes) if !bytes.is_empty())
    }
}
