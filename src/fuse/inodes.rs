//! The kernel's numbers for names: a tree of nodes with parent links, so that a rename moves one node and all below it.
//! Knows names and numbers, not what is behind them.
//!
//! A node lives while the kernel remembers it (its lookup count), a handle is open on it, or a node below it lives.
//! Numbers start at a random high base: `/proc/P/fdinfo` shows only the number, and no other filesystem on the machine
//! should have the same one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::views::next_ino;
use crate::engine::{AttributeChange, Attributes, Snapshot};
use crate::words::SessionId;

/// A node's number, as the kernel and `stat` show it.
pub type Ino = u64;

/// The number of the mount's root, fixed by the protocol.
pub const ROOT: Ino = 1;

/// How many forgotten numbers are kept: some megabytes of names at most.
const FORGOTTEN_MAX: usize = 1 << 15;

/// What a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A directory: the root, a session, or below one.
    Dir,
    /// A key.
    Key,
    /// The neighbour's sidecar directory or one below it.
    MetaDir,
    /// A sidecar.
    Sidecar,
    /// The neighbour's temporary file.
    Scratch,
    /// A directory of control files.
    ControlDir,
    /// A control file.
    Control,
    /// The directory of writer views.
    Views,
    /// A directory in a session's history.
    PastDir,
    /// Something that is kept of a key.
    Past,
}

/// A name that no commit has made yet: reserved, and shown only to those who made it.
#[derive(Debug, Clone)]
pub struct Fresh {
    /// Attributes its first version will have.
    pub attributes: Attributes,
    /// The processes that created it.
    pub creators: Vec<u32>,
}

/// What a node had when it lost its name: who has it open goes on with that.
#[derive(Debug, Clone)]
pub struct Left {
    /// For `fstat`.
    pub attributes: Attributes,
    /// The last version; `None` for a directory and a name that no commit had made.
    pub value: Option<Snapshot>,
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The name of the first component: a session, or the mount's own control directory. `None` at the root.
    pub session: Option<SessionId>,
    /// The path below the session; empty for the session itself.
    pub path: String,
}

#[derive(Debug)]
struct Node {
    parent: Ino,
    name: String,
    role: Role,
    lookups: u64,
    children: u64,
    handles: Vec<u64>,
    fresh: Option<Fresh>,
    /// What it had when it lost its name, or is about to.
    left: Option<Left>,
    /// It has no name any more, and nothing of it can be committed.
    lost: Option<Lost>,
}

/// How a node has lost its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Removed or replaced through the mount: who did that has done away with what was being written, too.
    Given,
    /// Something of another kind has come there beside the mount.
    Taken,
}

/// All nodes. Every method takes the table for its own time alone and gives back values: nothing of it stays locked.
#[derive(Debug)]
pub struct Inodes {
    table: Mutex<Table>,
}

/// The name is reserved already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved;

impl Inodes {
    /// A tree with its root alone. `base` is the first number given out.
    #[must_use]
    pub fn new(base: Ino) -> Self {
        Self { table: Mutex::new(Table::new(base)) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many nodes there are; the root is always one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table().nodes.len()
    }

    /// What a node stands for; `None` for a number we never gave out.
    #[must_use]
    pub fn role(&self, ino: Ino) -> Option<Role> {
        self.table().role(ino)
    }

    /// The node of a name, if the kernel or a handle knows it.
    #[must_use]
    pub fn find(&self, parent: Ino, name: &str) -> Option<Ino> {
        self.table().find(parent, name)
    }

    /// The node of a name in a role, for a reply that gives it to the kernel; made when there is none. A node in
    /// another role there loses its name.
    pub fn look_up(&self, parent: Ino, name: &str, role: Role) -> Ino {
        let mut table = self.table();
        let ino = table.intern(parent, name, role);
        table.looked_up(ino);
        ino
    }

    /// Counts a reply that gives the kernel this node.
    pub fn looked_up(&self, ino: Ino) {
        self.table().looked_up(ino);
    }

    /// The kernel forgets `count` of its lookups.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.table().forget(ino, count);
    }

    /// Reserves a name that no commit has made, or joins the reservation of another.
    ///
    /// # Errors
    /// [`Reserved`] when another has reserved it and this one wants it `alone`.
    pub fn reserve(&self, parent: Ino, name: &str, role: Role, fresh: Fresh, alone: bool) -> Result<Ino, Reserved> {
        let mut table = self.table();
        let ino = table.intern(parent, name, role);
        match table.fresh_mut(ino) {
            Some(_) if alone => return Err(Reserved),
            Some(there) => there.creators.extend(fresh.creators),
            None => table.set_fresh(ino, Some(fresh)),
        }
        Ok(ino)
    }

    /// Frees a reservation that no handles hold but those in `but`: one that was opened meanwhile goes on with the name.
    pub fn unreserve(&self, ino: Ino, but: &[u64]) {
        let mut table = self.table();
        if table.handles(ino).iter().all(|handle| but.contains(handle)) {
            table.remove(ino, Lost::Given);
        }
    }

    /// The reservation of a name that no commit has made.
    #[must_use]
    pub fn fresh(&self, ino: Ino) -> Option<Fresh> {
        self.table().fresh(ino).cloned()
    }

    /// Changes the attributes a reserved name will have; `false` when it is not reserved.
    pub fn change_fresh(&self, ino: Ino, set: &AttributeChange) -> bool {
        self.table().fresh_mut(ino).is_some_and(|fresh| {
            set.apply(&mut fresh.attributes);
            true
        })
    }

    /// Keeps what a node has that is about to lose its name.
    pub fn leave(&self, ino: Ino, left: Left) {
        if let Some(node) = self.table().nodes.get_mut(&ino) {
            node.left = Some(left);
        }
    }

    /// The name has changed; a node that still has one has its value by that again.
    pub fn stayed(&self, ino: Ino) {
        if let Some(node) = self.table().nodes.get_mut(&ino).filter(|node| node.lost.is_none()) {
            node.left = None;
        }
    }

    /// What a node had when it lost its name, or has while its name is changed.
    #[must_use]
    pub fn left(&self, ino: Ino) -> Option<Left> {
        self.table().nodes.get(&ino)?.left.clone()
    }

    /// How the node has lost its name itself; `None` also where a directory above it has.
    #[must_use]
    pub fn lost(&self, ino: Ino) -> Option<Lost> {
        self.table().nodes.get(&ino)?.lost
    }

    /// A commit has made the name; it stands for a key now.
    pub fn committed(&self, ino: Ino) {
        let mut table = self.table();
        table.set_role(ino, Role::Key);
        table.set_fresh(ino, None);
    }

    /// A handle is open on the node.
    pub fn add_handle(&self, ino: Ino, handle: u64) {
        self.table().add_handle(ino, handle);
    }

    /// A handle is gone.
    pub fn drop_handle(&self, ino: Ino, handle: u64) {
        self.table().drop_handle(ino, handle);
    }

    /// The handles open on a node.
    #[must_use]
    pub fn handles(&self, ino: Ino) -> Vec<u64> {
        self.table().handles(ino)
    }

    /// Where the node is; `None` when it or a directory above it has no name any more.
    #[must_use]
    pub fn locate(&self, ino: Ino) -> Option<Location> {
        self.table().locate(ino, false)
    }

    /// Where the node is, or was when it or a directory above it lost its name.
    #[must_use]
    pub fn last_seen(&self, ino: Ino) -> Option<Location> {
        self.table().locate(ino, true)
    }

    /// The parent of a node; the root is its own.
    #[must_use]
    pub fn parent(&self, ino: Ino) -> Ino {
        self.table().parent(ino)
    }

    /// The directory and the name of a node; `None` when it has no name any more.
    #[must_use]
    pub fn name(&self, ino: Ino) -> Option<(Ino, String)> {
        let table = self.table();
        let node = table.nodes.get(&ino).filter(|node| node.lost.is_none())?;
        Some((node.parent, node.name.clone()))
    }

    /// The names below this directory that open drafts have reserved.
    #[must_use]
    pub fn fresh_below(&self, dir: Ino) -> Vec<Ino> {
        self.table().fresh_below(dir)
    }

    /// The nodes directly in a directory.
    #[must_use]
    pub fn children(&self, dir: Ino) -> Vec<Ino> {
        self.table().children(dir)
    }

    /// Takes the node's name away: nothing of it can be committed any more.
    pub fn remove(&self, ino: Ino) {
        self.table().remove(ino, Lost::Given);
    }

    /// The node of one name gets another; what had that name loses it.
    pub fn rename(&self, from: (Ino, &str), to: (Ino, &str)) {
        let mut table = self.table();
        if let Some(ino) = table.find(from.0, from.1) {
            table.rename(ino, to.0, to.1);
        } else if let Some(old) = table.find(to.0, to.1) {
            table.remove(old, Lost::Given);
        }
    }
}

/// All nodes.
#[derive(Debug)]
struct Table {
    nodes: HashMap<Ino, Node>,
    names: HashMap<Ino, HashMap<String, Ino>>,
    forgotten: Forgotten,
    next: Ino,
}

/// The numbers of nodes that the kernel has forgotten, the last ones: found again, a name has the number it had, so that
/// who compares numbers does not take it for another file.
#[derive(Debug, Default)]
struct Forgotten {
    numbers: HashMap<Forgot, Ino>,
    order: VecDeque<Forgot>,
}

type Forgot = (Ino, String, Role);

impl Forgotten {
    fn add(&mut self, forgot: Forgot, ino: Ino) {
        if self.numbers.insert(forgot.clone(), ino).is_none() {
            self.order.push_back(forgot);
        }
        // What was found again is still in the queue.
        while self.order.len() > FORGOTTEN_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.numbers.remove(&oldest);
            }
        }
    }

    fn take(&mut self, forgot: &Forgot) -> Option<Ino> {
        self.numbers.remove(forgot)
    }
}

impl Table {
    fn new(base: Ino) -> Self {
        let root = Node {
            parent: ROOT,
            name: String::new(),
            role: Role::Dir,
            lookups: 1,
            children: 0,
            handles: Vec::new(),
            fresh: None,
            left: None,
            lost: None,
        };
        Self {
            nodes: HashMap::from([(ROOT, root)]),
            names: HashMap::new(),
            forgotten: Forgotten::default(),
            next: base.max(ROOT + 1),
        }
    }

    fn role(&self, ino: Ino) -> Option<Role> {
        self.nodes.get(&ino).map(|node| node.role)
    }

    /// Changes what a node stands for (the neighbour's temporary file becomes a key).
    fn set_role(&mut self, ino: Ino, role: Role) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.role = role;
        }
    }

    fn find(&self, parent: Ino, name: &str) -> Option<Ino> {
        self.names.get(&parent)?.get(name).copied()
    }

    /// The node of a name in a role, made when there is none. A node in another role there loses its name.
    fn intern(&mut self, parent: Ino, name: &str, role: Role) -> Ino {
        match self.find(parent, name) {
            Some(ino) if self.role(ino) == Some(role) => return ino,
            Some(ino) => self.remove(ino, Lost::Taken),
            None => {}
        }
        let ino = self.forgotten.take(&(parent, name.to_owned(), role));
        let ino = ino.filter(|ino| !self.nodes.contains_key(ino)).unwrap_or_else(|| self.number());
        let node = Node {
            parent,
            name: name.to_owned(),
            role,
            lookups: 0,
            children: 0,
            handles: Vec::new(),
            fresh: None,
            left: None,
            lost: None,
        };
        self.nodes.insert(ino, node);
        self.link(parent, name, ino);
        ino
    }

    /// A number that no node has.
    fn number(&mut self) -> Ino {
        loop {
            let ino = self.next;
            self.next = next_ino(ino);
            if ino > ROOT && !self.nodes.contains_key(&ino) {
                return ino;
            }
        }
    }

    fn looked_up(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups += 1;
        }
    }

    fn forget(&mut self, ino: Ino, count: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(count);
        }
        self.collect(ino);
    }

    fn add_handle(&mut self, ino: Ino, handle: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.handles.push(handle);
        }
    }

    fn drop_handle(&mut self, ino: Ino, handle: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.handles.retain(|&other| other != handle);
        }
        self.collect(ino);
    }

    fn handles(&self, ino: Ino) -> Vec<u64> {
        self.nodes.get(&ino).map(|node| node.handles.clone()).unwrap_or_default()
    }

    fn locate(&self, ino: Ino, lost_too: bool) -> Option<Location> {
        let mut parts = Vec::new();
        let mut at = ino;
        while at != ROOT {
            let node = self.nodes.get(&at).filter(|node| lost_too || node.lost.is_none())?;
            parts.push(node.name.as_str());
            at = node.parent;
        }
        let Some(first) = parts.pop() else {
            return Some(Location { session: None, path: String::new() });
        };
        parts.reverse();
        Some(Location { session: SessionId::parse(first).ok(), path: parts.join("/") })
    }

    fn parent(&self, ino: Ino) -> Ino {
        self.nodes.get(&ino).map_or(ROOT, |node| node.parent)
    }

    fn fresh(&self, ino: Ino) -> Option<&Fresh> {
        self.nodes.get(&ino)?.fresh.as_ref()
    }

    fn fresh_mut(&mut self, ino: Ino) -> Option<&mut Fresh> {
        self.nodes.get_mut(&ino)?.fresh.as_mut()
    }

    /// Reserves the name, or (`None`) tells that a commit has made it.
    fn set_fresh(&mut self, ino: Ino, fresh: Option<Fresh>) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.fresh = fresh;
        }
        self.collect(ino);
    }

    fn fresh_below(&self, dir: Ino) -> Vec<Ino> {
        let (mut found, mut dirs) = (Vec::new(), vec![dir]);
        while let Some(dir) = dirs.pop() {
            let names = self.names.get(&dir).into_iter().flat_map(HashMap::values);
            dirs.extend(names.clone());
            found.extend(names.filter(|&&ino| self.role(ino) == Some(Role::Key) && self.fresh(ino).is_some()));
        }
        found
    }

    fn children(&self, dir: Ino) -> Vec<Ino> {
        self.names.get(&dir).map(|names| names.values().copied().collect()).unwrap_or_default()
    }

    fn remove(&mut self, ino: Ino, how: Lost) {
        let Some(node) = self.nodes.get_mut(&ino).filter(|node| node.lost.is_none()) else { return };
        node.lost = Some(how);
        if let Some(fresh) = node.fresh.take() {
            node.left.get_or_insert(Left { attributes: fresh.attributes, value: None });
        }
        let (parent, name) = (node.parent, node.name.clone());
        self.unlink(parent, &name);
        self.collect(ino);
    }

    fn rename(&mut self, ino: Ino, parent: Ino, name: &str) {
        if let Some(old) = self.find(parent, name).filter(|&old| old != ino) {
            self.remove(old, Lost::Given);
        }
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        let (old_parent, old_name) = (node.parent, std::mem::replace(&mut node.name, name.to_owned()));
        node.parent = parent;
        self.unlink(old_parent, &old_name);
        self.link(parent, name, ino);
        self.collect(old_parent);
    }

    fn link(&mut self, parent: Ino, name: &str, ino: Ino) {
        self.names.entry(parent).or_default().insert(name.to_owned(), ino);
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children += 1;
        }
    }

    fn unlink(&mut self, parent: Ino, name: &str) {
        if let Some(names) = self.names.get_mut(&parent) {
            names.remove(name);
            if names.is_empty() {
                self.names.remove(&parent);
            }
        }
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children = parent.children.saturating_sub(1);
        }
    }

    /// Drops the node when nothing keeps it, then looks at its parent.
    fn collect(&mut self, ino: Ino) {
        let mut at = ino;
        while at != ROOT {
            let Some(node) = self.nodes.get(&at) else { return };
            if node.lookups > 0 || node.children > 0 || !node.handles.is_empty() || node.fresh.is_some() {
                return;
            }
            let (parent, name, role, lost) = (node.parent, node.name.clone(), node.role, node.lost);
            self.nodes.remove(&at);
            if lost.is_none() {
                self.unlink(parent, &name);
                if matches!(role, Role::Dir | Role::Key) {
                    self.forgotten.add((parent, name, role), at);
                }
            }
            at = parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(inodes: &Inodes, ino: Ino) -> Option<String> {
        inodes.locate(ino).map(|at| at.path)
    }

    #[test]
    fn a_renamed_directory_takes_all_below_it_along() {
        let inodes = Inodes::new(100);
        let session = inodes.look_up(ROOT, "s", Role::Dir);
        let dir = inodes.look_up(session, "a", Role::Dir);
        let key = inodes.look_up(dir, "k", Role::Key);
        inodes.rename((session, "a"), (session, "b"));
        assert_eq!(location(&inodes, key).as_deref(), Some("b/k"));
        assert_eq!(inodes.find(session, "a"), None);
    }

    #[test]
    fn a_replaced_node_has_no_name_and_what_is_below_it_neither() {
        let inodes = Inodes::new(100);
        let session = inodes.look_up(ROOT, "s", Role::Dir);
        let (old, new) = (inodes.look_up(session, "old", Role::Dir), inodes.look_up(session, "new", Role::Dir));
        let below = inodes.look_up(old, "k", Role::Key);
        inodes.rename((session, "new"), (session, "old"));
        assert_eq!(location(&inodes, new).as_deref(), Some("old"));
        assert_eq!((location(&inodes, old), location(&inodes, below)), (None, None));
        assert_eq!(inodes.name(old), None);
    }

    #[test]
    fn a_name_that_changed_its_kind_has_another_number() {
        let inodes = Inodes::new(100);
        let session = inodes.look_up(ROOT, "s", Role::Dir);
        let key = inodes.look_up(session, "x", Role::Key);
        let dir = inodes.look_up(session, "x", Role::Dir);
        assert_ne!(key, dir);
        assert!(inodes.name(key).is_none() && inodes.name(dir).is_some());
    }

    #[test]
    fn the_table_comes_back_to_the_root_when_all_is_forgotten() {
        let inodes = Inodes::new(100);
        let session = inodes.look_up(ROOT, "s", Role::Dir);
        let dir = inodes.look_up(session, "d", Role::Dir);
        let key = inodes.look_up(dir, "k", Role::Key);
        let other = inodes.look_up(dir, "o", Role::Key);
        inodes.add_handle(key, 1);
        inodes.rename((dir, "k"), (session, "moved"));
        inodes.remove(other);
        for ino in [session, dir, key, other] {
            inodes.forget(ino, 1);
        }
        assert!(inodes.find(session, "moved").is_some(), "an open handle keeps its node and all above it");
        inodes.drop_handle(key, 1);
        assert_eq!(inodes.count(), 1);
    }

    #[test]
    fn a_name_found_again_has_the_number_it_had_unless_it_was_removed() {
        let inodes = Inodes::new(100);
        let session = inodes.look_up(ROOT, "s", Role::Dir);
        let key = inodes.look_up(session, "k", Role::Key);
        inodes.forget(key, 1);
        inodes.forget(session, 1);
        assert_eq!(inodes.count(), 1);
        assert_eq!((inodes.look_up(ROOT, "s", Role::Dir), inodes.look_up(session, "k", Role::Key)), (session, key));
        inodes.remove(key);
        inodes.forget(key, 1);
        assert_ne!(inodes.look_up(session, "k", Role::Key), key);
    }

    #[test]
    fn numbers_that_begin_again_are_those_of_no_node() {
        let first = u64::from(u32::MAX) - 1;
        let inodes = Inodes::new(first);
        let numbers: Vec<_> = ["a", "b", "c"].map(|name| inodes.look_up(ROOT, name, Role::Dir)).to_vec();
        assert_eq!(numbers, [first, first + 1, ROOT + 1], "0 and the root's are none");
        inodes.table().next = first;
        assert_eq!(inodes.look_up(ROOT, "d", Role::Dir), ROOT + 2);
    }

    #[test]
    fn of_forgotten_numbers_the_last_are_kept() {
        let inodes = Inodes::new(100);
        let first = inodes.look_up(ROOT, "first", Role::Dir);
        inodes.forget(first, 1);
        for n in 0..FORGOTTEN_MAX {
            let other = inodes.look_up(ROOT, &n.to_string(), Role::Dir);
            inodes.forget(other, 1);
        }
        assert_ne!(inodes.look_up(ROOT, "first", Role::Dir), first);
        assert_eq!(inodes.table().forgotten.order.len(), FORGOTTEN_MAX);
    }

    #[test]
    fn a_reserved_name_stays_until_it_is_committed_or_removed() {
        let inodes = Inodes::new(100);
        let session = inodes.look_up(ROOT, "s", Role::Dir);
        let attributes = Attributes {
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: std::time::SystemTime::UNIX_EPOCH,
            xattrs: std::collections::BTreeMap::new(),
        };
        let fresh = |pid| Fresh { attributes: attributes.clone(), creators: vec![pid] };
        let key = inodes.reserve(session, "k", Role::Key, fresh(1), true).unwrap();
        assert_eq!(inodes.reserve(session, "k", Role::Key, fresh(2), true), Err(Reserved));
        assert_eq!(inodes.reserve(session, "k", Role::Key, fresh(2), false), Ok(key));
        assert_eq!(inodes.fresh(key).unwrap().creators, [1, 2]);
        assert_eq!(inodes.find(session, "k"), Some(key));
        assert!(!inodes.fresh_below(ROOT).is_empty());
        inodes.remove(key);
        assert!(inodes.fresh_below(ROOT).is_empty());
    }
}
