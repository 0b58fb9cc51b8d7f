//! What can go wrong in an engine, and what the caller knows after it.

use std::io;

use crate::words::Version;

/// An engine's refusal or failure. Unless a variant says otherwise, nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The change expected another version than the current one (`None`: no such key).
    #[error("the current version is {}, not the expected one", .current.map_or("none".to_owned(), |v| v.to_string()))]
    Stale {
        /// The current version.
        current: Option<Version>,
    },
    /// The session does not exist.
    #[error("session '{0}' not found")]
    NoSession(String),
    /// The key or directory does not exist.
    #[error("'{0}' not found")]
    NotFound(String),
    /// The key or directory exists already.
    #[error("'{0}' exists already")]
    Exists(String),
    /// A key stands where a directory is needed.
    #[error("'{0}' is not a directory")]
    NotADirectory(String),
    /// A directory stands where a key is needed.
    #[error("'{0}' is a directory")]
    IsADirectory(String),
    /// The directory still has keys or directories.
    #[error("'{0}' is not empty")]
    NotEmpty(String),
    /// A directory cannot go below itself.
    #[error("'{0}' cannot be moved into itself")]
    IntoItself(String),
    /// No space or quota left for the change.
    #[error("no space left in the store")]
    NoSpace,
    /// The engine accepts no more commits until the store is reopened; the words say why. After a failed sync what
    /// the disk holds of the last change is unknown.
    #[error("the store accepts no more changes until it is opened again: {0}")]
    Closed(String),
    /// A file of ours holds what none of our versions writes.
    #[error("{place} is damaged: {what}")]
    Damaged {
        /// The file.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// The disk failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// The system's error.
        source: io::Error,
    },
}

impl EngineError {
    /// An i/o failure with what was being done; a full disk becomes [`EngineError::NoSpace`].
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace,
            _ => Self::Io { doing: doing.into(), source },
        }
    }
}
