//! The one table of exit codes. A number is never given a second meaning.

use std::process::ExitCode;

use crate::committer::RefusalKind;

/// How a command ended. `run` ends as the command it becomes; 126 and 127 as in the shell when it cannot become it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It was right to ask, and it failed.
    Failed = 1,
    /// What was asked has no meaning: options, a key, a session id, a policy, a declared id.
    Usage = 2,
    /// Another writer's value stays.
    Conflict = 3,
    /// No such store, mount, session or key.
    NotFound = 4,
    /// Not a handoff.
    InvalidHandoff = 5,
    /// The store is damaged.
    Damaged = 6,
    /// The store, the mountpoint or the mount is in use.
    InUse = 7,
    /// `wait`: the time is over.
    TimedOut = 8,
    /// `run`: the command was found and cannot be run.
    CannotRun = 126,
    /// `run`: there is no such command.
    NoCommand = 127,
}

impl From<RefusalKind> for Exit {
    fn from(kind: RefusalKind) -> Self {
        match kind {
            RefusalKind::Failed => Self::Failed,
            RefusalKind::Usage => Self::Usage,
            RefusalKind::Conflict => Self::Conflict,
            RefusalKind::NotFound => Self::NotFound,
            RefusalKind::InvalidHandoff => Self::InvalidHandoff,
            RefusalKind::Damaged => Self::Damaged,
            RefusalKind::InUse => Self::InUse,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
