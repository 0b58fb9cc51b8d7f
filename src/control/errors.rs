//! The refusals of a mount, by session: the words behind an errno, for who asks after it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::words::{SessionId, Writer};

/// How many refusals of a session are kept.
const KEPT: usize = 256;

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ErrorLine {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// What was asked.
    pub op: &'static str,
    /// Of which key or directory.
    pub key: String,
    /// The errno's number.
    pub errno: i32,
    /// Why; a conflict's words name both writers.
    pub words: String,
    /// Who asked, as declared; empty when that is not known.
    pub writer: Writer,
    /// Their user id, where it is known.
    pub uid: Option<u32>,
}

/// The latest refusals of every session.
#[derive(Debug, Default)]
pub struct Errors {
    lines: Mutex<HashMap<SessionId, VecDeque<ErrorLine>>>,
}

impl Errors {
    /// Keeps a refusal.
    pub fn add(&self, session: &SessionId, line: ErrorLine) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let of_session = lines.entry(session.clone()).or_default();
        if of_session.len() == KEPT {
            of_session.pop_front();
        }
        of_session.push_back(line);
    }

    /// A session was removed: what was refused in it is of no use to one that gets its name.
    pub fn forget(&self, session: &SessionId) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).remove(session);
    }

    /// The refusals of all sessions, those of each oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<(SessionId, ErrorLine)> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().flat_map(|(session, lines)| lines.iter().map(|line| (session.clone(), line.clone()))).collect()
    }

    /// The refusals of a session, oldest first.
    #[must_use]
    pub fn of(&self, session: &SessionId) -> Vec<ErrorLine> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.get(session).map(|lines| lines.iter().cloned().collect()).unwrap_or_default()
    }
}
