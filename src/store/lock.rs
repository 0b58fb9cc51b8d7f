//! Who decides about a key decides alone. Locks are held across the disk's work, never across a wait for a process.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::words::{Key, SessionId};

const SHARDS: usize = 256;

/// Locks by session and key, in shards: a fixed number, whatever the store holds.
#[derive(Debug)]
pub(super) struct Locks {
    sessions: Vec<RwLock<()>>,
    keys: Vec<Mutex<()>>,
    hasher: RandomState,
}

/// What is held while one change is decided and made.
#[derive(Debug)]
#[expect(dead_code, reason = "held for their drop")]
pub(super) enum Guard<'a> {
    /// One or two keys of a session.
    Keys(RwLockReadGuard<'a, ()>, MutexGuard<'a, ()>, Option<MutexGuard<'a, ()>>),
    /// The whole tree of a session.
    Tree(RwLockWriteGuard<'a, ()>),
}

impl Default for Locks {
    fn default() -> Self {
        Self {
            sessions: (0..SHARDS).map(|_| RwLock::default()).collect(),
            keys: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

// The guarded value is (), so a panicking holder leaves nothing half-changed: poison is passed over.
impl Locks {
    /// For a change of one key.
    pub(super) fn key(&self, session: &SessionId, key: &Key) -> Guard<'_> {
        self.keys(session, key, key)
    }

    /// For a change of two keys; always taken in one order, so two renames never wait for each other.
    pub(super) fn keys(&self, session: &SessionId, a: &Key, b: &Key) -> Guard<'_> {
        let tree = shard(&self.sessions, self.hasher.hash_one(session));
        let tree = tree.read().unwrap_or_else(PoisonError::into_inner);
        let mut at = [a, b].map(|key| self.hasher.hash_one((session, key)) as usize % SHARDS);
        at.sort_unstable();
        let [first, second] = at;
        let one = take(shard(&self.keys, first as u64));
        let two = (first != second).then(|| take(shard(&self.keys, second as u64)));
        Guard::Keys(tree, one, two)
    }

    /// For a change of the directories of a session.
    pub(super) fn tree(&self, session: &SessionId) -> Guard<'_> {
        let tree = shard(&self.sessions, self.hasher.hash_one(session));
        Guard::Tree(tree.write().unwrap_or_else(PoisonError::into_inner))
    }
}

#[expect(clippy::indexing_slicing, reason = "the index is reduced to the length")]
fn shard<T>(of: &[T], hash: u64) -> &T {
    &of[hash as usize % of.len()]
}

fn take(lock: &Mutex<()>) -> MutexGuard<'_, ()> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
