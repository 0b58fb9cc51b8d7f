//! Who may change a name, and who may count on it. A commit asks for its key's name and lands there: nothing may take
//! the name away in between. A rename, an unlink or a create must see a name as it is from its look to its change.
//! Knows names in directories, by number; not what they stand for.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::inodes::Ino;

const SHARDS: usize = 128;

/// Locks by name, in shards; and one over the tree, for changes of directories. Held across the disk's work of one
/// change, never across a wait for a process.
#[derive(Debug)]
pub(super) struct Names {
    tree: RwLock<()>,
    names: Vec<RwLock<()>>,
    hasher: RandomState,
}

/// What is held.
#[derive(Debug)]
#[expect(dead_code, reason = "held for their drop")]
pub(super) enum Held<'a> {
    /// A name stays what it is; others may hold it too.
    Shared(RwLockReadGuard<'a, ()>, RwLockReadGuard<'a, ()>),
    /// One or two names are changed.
    Alone(RwLockReadGuard<'a, ()>, RwLockWriteGuard<'a, ()>, Option<RwLockWriteGuard<'a, ()>>),
    /// Directories are changed.
    Tree(RwLockWriteGuard<'a, ()>),
}

impl Default for Names {
    fn default() -> Self {
        let names = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { tree: RwLock::default(), names, hasher: RandomState::new() }
    }
}

// The guarded value is (), so a panicking holder leaves nothing half-changed: poison is passed over.
impl Names {
    /// For a commit under a name.
    pub(super) fn keep(&self, name: (Ino, &str)) -> Held<'_> {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let name = self.lock(self.shard(name)).read().unwrap_or_else(PoisonError::into_inner);
        Held::Shared(tree, name)
    }

    /// For a change of one name.
    pub(super) fn change(&self, name: (Ino, &str)) -> Held<'_> {
        self.change_two(name, name)
    }

    /// For a change of two names; taken in one order, so that no two changes wait for each other.
    pub(super) fn change_two(&self, a: (Ino, &str), b: (Ino, &str)) -> Held<'_> {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let (a, b) = (self.shard(a), self.shard(b));
        let take = |shard| self.lock(shard).write().unwrap_or_else(PoisonError::into_inner);
        let first = take(a.min(b));
        let second = (a != b).then(|| take(a.max(b)));
        Held::Alone(tree, first, second)
    }

    /// For a change of directories: every name below them is theirs.
    pub(super) fn tree(&self) -> Held<'_> {
        Held::Tree(self.tree.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn shard(&self, name: (Ino, &str)) -> usize {
        self.hasher.hash_one(name) as usize % SHARDS
    }

    #[expect(clippy::indexing_slicing, reason = "there are SHARDS locks, and the index is below that")]
    fn lock(&self, shard: usize) -> &RwLock<()> {
        &self.names[shard]
    }
}
