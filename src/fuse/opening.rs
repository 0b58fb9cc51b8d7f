//! Opens just answered, until their O_TRUNC: without FUSE_ATOMIC_O_TRUNC it comes as a SETATTR of its own, with size 0
//! and no handle, from the thread that has opened and before anything else of it. Knows numbers only.
//!
//! Threads outside our pid namespace are all one (0). Theirs wait in a queue per node, each until its handle is used:
//! the thread whose O_TRUNC is on its way cannot have used it. Of several the newest of the same user is meant. Two that
//! both truncate may be mixed up, which changes nothing: each gets one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fs::Asker;
use super::handles::HandleId;
use super::inodes::Ino;

/// A handle that nobody has used for so long was not opened with O_TRUNC: that takes one round trip.
const UNUSED: Duration = Duration::from_secs(2);

/// The opens.
#[derive(Debug, Default)]
pub(super) struct Openings(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_thread: HashMap<u32, (Ino, HandleId)>,
    unseen: HashMap<Ino, Vec<Unseen>>,
}

#[derive(Debug)]
struct Unseen {
    id: HandleId,
    uid: u32,
    gid: u32,
    since: Instant,
}

impl Openings {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open is about to be answered, with these flags.
    pub(super) fn opened(&self, asker: Asker, ino: Ino, id: HandleId, flags: i32) {
        let mut table = self.table();
        if asker.thread != 0 {
            table.by_thread.insert(asker.thread, (ino, id));
            return;
        }
        // An O_TRUNC on a handle for reading is a truncation like any other, and one beside O_APPEND is too rare to
        // take that of another open for it.
        if flags & libc::O_ACCMODE == libc::O_RDONLY || flags & libc::O_APPEND != 0 {
            return;
        }
        let queue = table.unseen.entry(ino).or_default();
        queue.retain(|open| open.since.elapsed() < UNUSED);
        queue.push(Unseen { id, uid: asker.uid, gid: asker.gid, since: Instant::now() });
    }

    /// Truncation to nothing without a handle: the open whose O_TRUNC it is, if it is one's.
    pub(super) fn take(&self, asker: Asker, ino: Ino) -> Option<HandleId> {
        let mut table = self.table();
        if asker.thread != 0 {
            return table.by_thread.remove(&asker.thread).filter(|&(opened, _)| opened == ino).map(|(_, id)| id);
        }
        let queue = table.unseen.get_mut(&ino)?;
        queue.retain(|open| open.since.elapsed() < UNUSED);
        let at = queue.iter().rposition(|open| (open.uid, open.gid) == (asker.uid, asker.gid))?;
        let id = queue.remove(at).id;
        if queue.is_empty() {
            table.unseen.remove(&ino);
        }
        Some(id)
    }

    /// The thread does something else, with this handle if it is named: its open had no O_TRUNC.
    pub(super) fn done(&self, asker: Asker, used: Option<(Ino, HandleId)>) {
        if asker.thread != 0 {
            self.table().by_thread.remove(&asker.thread);
        } else if let Some((ino, id)) = used {
            self.table().forget_unseen(ino, id);
        }
    }

    /// The handle is gone.
    pub(super) fn closed(&self, ino: Ino, id: HandleId) {
        let mut table = self.table();
        table.by_thread.retain(|_, &mut (_, other)| other != id);
        table.forget_unseen(ino, id);
    }
}

impl Table {
    fn forget_unseen(&mut self, ino: Ino, id: HandleId) {
        if let Some(queue) = self.unseen.get_mut(&ino) {
            queue.retain(|open| open.id != id);
            if queue.is_empty() {
                self.unseen.remove(&ino);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: Ino = 7;
    const TRUNC: i32 = libc::O_WRONLY;

    fn by(thread: u32, uid: u32) -> Asker {
        Asker { thread, uid, gid: uid }
    }

    #[test]
    fn a_threads_truncation_is_that_of_the_open_it_made_last() {
        let opens = Openings::default();
        opens.opened(by(1, 0), INO, 10, TRUNC);
        opens.opened(by(2, 0), INO, 20, TRUNC);
        assert_eq!(opens.take(by(1, 0), INO), Some(10));
        assert_eq!(opens.take(by(1, 0), INO), None);
        opens.done(by(2, 0), None);
        assert_eq!(opens.take(by(2, 0), INO), None);
    }

    #[test]
    fn two_that_cannot_be_told_apart_each_get_one() {
        let opens = Openings::default();
        opens.opened(by(0, 0), INO, 10, TRUNC);
        opens.opened(by(0, 0), INO, 20, TRUNC);
        let mut taken = [opens.take(by(0, 0), INO), opens.take(by(0, 0), INO)];
        taken.sort();
        assert_eq!(taken, [Some(10), Some(20)]);
        assert_eq!(opens.take(by(0, 0), INO), None);
        assert!(opens.table().unseen.is_empty());
    }

    #[test]
    fn another_users_a_readers_an_appending_and_a_used_open_are_not_meant() {
        let opens = Openings::default();
        opens.opened(by(0, 1), INO, 10, TRUNC);
        opens.opened(by(0, 0), INO, 20, libc::O_RDONLY);
        opens.opened(by(0, 0), INO, 30, TRUNC | libc::O_APPEND);
        opens.opened(by(0, 0), INO, 40, libc::O_RDWR);
        opens.done(by(0, 0), Some((INO, 40)));
        opens.opened(by(0, 0), INO, 50, TRUNC);
        opens.closed(INO, 50);
        assert_eq!(opens.take(by(0, 0), INO), None);
        assert_eq!(opens.take(by(0, 1), INO), Some(10));
    }
}
