//! Opens just answered, until their O_TRUNC: without FUSE_ATOMIC_O_TRUNC it comes as a SETATTR of its own, with size 0
//! and no handle, from the thread that has opened and before anything else of it. Knows numbers only.
//!
//! Threads outside our pid namespace are all one (0). Of those of one user only one at a time is let into a node, until
//! its O_TRUNC has come or its handle is used: a thread whose O_TRUNC is on its way cannot have used it.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fs::Asker;
use super::handles::HandleId;
use super::inodes::Ino;
use super::views::View;

/// An O_TRUNC follows its open by one round trip: a handle that nobody has used for so long was opened without one.
const UNUSED: Duration = Duration::from_millis(100);

/// The opens.
#[derive(Debug, Default)]
pub(super) struct Openings {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    by_thread: HashMap<u32, (View, Ino, HandleId)>,
    unseen: HashMap<Place, (HandleId, Instant)>,
}

/// A node in a view, and a user.
type Place = (Ino, View, u32, u32);

fn place(asker: Asker, ino: Ino) -> Place {
    (ino, asker.view, asker.uid, asker.gid)
}

impl Openings {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open is about to be answered, with these flags. Waits for another that it could be mixed up with.
    pub(super) fn opened(&self, asker: Asker, ino: Ino, id: HandleId, flags: i32) {
        let mut table = self.table();
        if asker.thread != 0 {
            table.by_thread.insert(asker.thread, (asker.view, ino, id));
            return;
        }
        // An O_TRUNC on a handle for reading is a truncation like any other, and one beside O_APPEND is too rare to
        // take that of another open for it.
        if flags & libc::O_ACCMODE == libc::O_RDONLY || flags & libc::O_APPEND != 0 {
            return;
        }
        while let Some(left) = table.left(place(asker, ino)) {
            let waited = self.changed.wait_timeout(table, left);
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        table.unseen.insert(place(asker, ino), (id, Instant::now()));
    }

    /// Truncation to nothing without a handle: the open whose O_TRUNC it is, if it is one's.
    pub(super) fn take(&self, asker: Asker, ino: Ino) -> Option<HandleId> {
        let mut table = self.table();
        if asker.thread != 0 {
            let (view, opened, id) = table.by_thread.remove(&asker.thread)?;
            return (view == asker.view && opened == ino).then_some(id);
        }
        table.left(place(asker, ino))?;
        let (id, _) = table.unseen.remove(&place(asker, ino))?;
        self.changed.notify_all();
        Some(id)
    }

    /// The thread does something else, with this handle if it is named: its open had no O_TRUNC.
    pub(super) fn done(&self, asker: Asker, used: Option<(Ino, HandleId)>) {
        let mut table = self.table();
        if asker.thread != 0 {
            table.by_thread.remove(&asker.thread);
        }
        if let Some((ino, id)) = used {
            self.forget_unseen(&mut table, ino, id);
        }
    }

    /// The handle is gone.
    pub(super) fn closed(&self, ino: Ino, id: HandleId) {
        let mut table = self.table();
        table.by_thread.retain(|_, &mut (_, _, other)| other != id);
        self.forget_unseen(&mut table, ino, id);
    }

    fn forget_unseen(&self, table: &mut Table, ino: Ino, id: HandleId) {
        if table.unseen.is_empty() {
            return;
        }
        let before = table.unseen.len();
        table.unseen.retain(|&(at, ..), &mut (open, since)| (at, open) != (ino, id) && since.elapsed() < UNUSED);
        if table.unseen.len() < before {
            self.changed.notify_all();
        }
    }
}

impl Table {
    /// How long an open in this place may still be followed by its O_TRUNC; `None` when there is none.
    fn left(&self, at: Place) -> Option<Duration> {
        let &(_, since) = self.unseen.get(&at)?;
        UNUSED.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: Ino = 7;
    const TRUNC: i32 = libc::O_WRONLY;

    fn by(thread: u32, uid: u32) -> Asker {
        Asker { thread, uid, gid: uid, view: View::PLAIN }
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
    fn two_that_cannot_be_told_apart_are_let_in_one_after_the_other() {
        let opens = Openings::default();
        opens.opened(by(0, 0), INO, 10, TRUNC);
        opens.opened(by(0, 1), INO, 30, TRUNC);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| opens.opened(by(0, 0), INO, 20, TRUNC));
            assert_eq!(opens.take(by(0, 0), INO), Some(10));
            second.join().unwrap();
        });
        assert_eq!(opens.take(by(0, 0), INO), Some(20));
        assert_eq!(opens.take(by(0, 0), INO), None);
        assert_eq!(opens.take(by(0, 1), INO), Some(30));
    }

    // V6
    #[test]
    fn a_truncation_in_one_view_is_that_of_no_open_in_another() {
        let opens = Openings::default();
        let view = super::super::views::decode(1 << 32).0;
        assert!(!view.is_plain());
        for thread in [1, 0] {
            let there = Asker { view, ..by(thread, 0) };
            opens.opened(there, INO, 10, TRUNC);
            if thread == 0 {
                opens.opened(by(thread, 0), INO, 20, TRUNC);
                assert_eq!(opens.take(by(thread, 0), INO), Some(20));
                assert_eq!(opens.take(there, INO), Some(10));
            } else {
                assert_eq!(opens.take(by(thread, 0), INO), None);
            }
        }
    }

    #[test]
    fn one_that_is_not_used_is_not_waited_for_for_ever() {
        let opens = Openings::default();
        opens.opened(by(0, 0), INO, 10, libc::O_RDWR);
        opens.opened(by(0, 0), INO, 20, TRUNC);
        assert_eq!(opens.take(by(0, 0), INO), Some(20));
    }

    #[test]
    fn a_readers_an_appending_and_a_used_open_are_not_meant() {
        let opens = Openings::default();
        opens.opened(by(0, 0), INO, 20, libc::O_RDONLY);
        opens.opened(by(0, 0), INO, 30, TRUNC | libc::O_APPEND);
        opens.opened(by(0, 0), INO, 40, libc::O_RDWR);
        opens.done(by(0, 0), Some((INO, 40)));
        opens.opened(by(0, 0), INO, 50, TRUNC);
        opens.closed(INO, 50);
        assert_eq!(opens.take(by(0, 0), INO), None);
    }
}
