//! The refusals of a mount, by session: the words behind an errno, for who asks after it; and those of conflicts that were
//! accepted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::words::{SessionId, Writer};

/// How many refusals of a session are kept at least. As many again may be: so they go all at once, for who follows them
/// begins anew whenever some have gone.
const KEPT: usize = 256;
/// How many of all sessions together, of which there may be any number; likewise.
const KEPT_OF_ALL: usize = 16 * KEPT;

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ErrorLine {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// What was asked.
    pub op: &'static str,
    /// Of which key or directory.
    pub key: String,
    /// The errno's number; 0 for a conflict that was accepted under `warn`.
    pub errno: i32,
    /// Why; a conflict's words name both writers.
    pub words: String,
    /// Who asked, as declared; empty when that is not known.
    pub writer: Writer,
    /// Their user id, where it is known.
    pub uid: Option<u32>,
}

impl ErrorLine {
    /// Was something refused?
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.errno != 0
    }
}

/// The latest refusals of every session.
#[derive(Debug, Default)]
pub struct Errors(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The number of the last one of all: numbers grow, and none is given twice.
    last: u64,
    lines: HashMap<SessionId, VecDeque<(u64, ErrorLine)>>,
    /// How many lines there are.
    count: usize,
}

impl Kept {
    /// Lets the older half go, whosever they are.
    fn shrink(&mut self) {
        let mut numbers: Vec<_> = self.lines.values().flatten().map(|(number, _)| *number).collect();
        let half = numbers.len() / 2;
        let (_, first, _) = numbers.select_nth_unstable(half);
        self.lines.retain(|_, lines| {
            lines.retain(|(number, _)| number >= first);
            !lines.is_empty()
        });
        self.count = self.lines.values().map(VecDeque::len).sum();
    }
}

impl Errors {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a refusal.
    pub fn add(&self, session: &SessionId, line: ErrorLine) {
        let mut kept = self.kept();
        kept.last += 1;
        let number = kept.last;
        if kept.count >= 2 * KEPT_OF_ALL {
            kept.shrink();
        }
        let of_session = kept.lines.entry(session.clone()).or_default();
        let old = if of_session.len() == 2 * KEPT { KEPT } else { 0 };
        of_session.drain(..old);
        of_session.push_back((number, line));
        kept.count = kept.count + 1 - old;
    }

    /// A session was removed: what was refused in it is of no use to one that gets its name.
    pub fn forget(&self, session: &SessionId) {
        let mut kept = self.kept();
        let gone = kept.lines.remove(session).map_or(0, |lines| lines.len());
        kept.count -= gone;
    }

    /// The refusals of all sessions, those of each oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<(SessionId, ErrorLine)> {
        let kept = self.kept();
        kept.lines.iter().flat_map(|(id, lines)| lines.iter().map(|(_, line)| (id.clone(), line.clone()))).collect()
    }

    /// The refusals of a session after a number, oldest first, each with its own.
    #[must_use]
    pub fn after(&self, session: &SessionId, number: u64) -> Vec<(u64, ErrorLine)> {
        let kept = self.kept();
        let lines = kept.lines.get(session).into_iter().flatten();
        lines.filter(|(of, _)| *of > number).cloned().collect()
    }
}
