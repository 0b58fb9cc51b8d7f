//! One table from error to errno, chosen so that common runtimes show it in words and do not retry it.

use std::fmt;

use crate::engine::EngineError;
use crate::identity::IdentityError;
use crate::store::{Caller, StoreError};
use crate::words::{KeyError, SessionError};

/// A refusal as the kernel carries it, with the words behind the number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A positive errno.
    pub errno: i32,
    /// Why, for a person.
    pub words: String,
    /// A handle gives its answer once more; it was kept and told before.
    pub again: bool,
    /// The writer that was refused, where that was known.
    pub writer_id: Option<String>,
}

impl Refusal {
    /// A refusal in words of its own.
    pub fn new(errno: i32, words: impl Into<String>) -> Self {
        Self { errno, words: words.into(), again: false, writer_id: None }
    }

    /// No such name.
    pub fn not_found(name: impl fmt::Display) -> Self {
        Self::new(libc::ENOENT, format!("'{name}' not found"))
    }

    /// A thing this filesystem has not.
    pub fn has_not(what: &str) -> Self {
        Self::new(libc::EPERM, format!("{what}: this filesystem has regular files and directories only"))
    }

    /// The same refusal, of this caller.
    #[must_use]
    pub fn of(self, caller: &Caller) -> Self {
        Self { writer_id: caller.author.writer.writer_id.clone(), ..self }
    }

    /// The same refusal, given again.
    #[must_use]
    pub fn repeated(&self) -> Self {
        Self { again: true, ..self.clone() }
    }

    /// Is this an everyday answer (a name that is not there, or is), or one that was told before? Nobody wants that in
    /// a log.
    #[must_use]
    pub fn is_everyday(&self) -> bool {
        self.again
            || matches!(
                self.errno,
                libc::ENOENT
                    | libc::ESTALE
                    | libc::EEXIST
                    | libc::ENOTEMPTY
                    | libc::ENODATA
                    | libc::ENOTSUP
                    | libc::ENOSYS
            )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let errno = match &error {
            StoreError::Conflict { .. } | StoreError::Outdated { .. } => libc::EBUSY,
            StoreError::Document(_) | StoreError::Policy(_) | StoreError::Claim(_) => libc::EINVAL,
            StoreError::Key(key) => key_errno(key),
            StoreError::Session(session) => session_errno(session),
            StoreError::Engine(engine) => engine_errno(engine),
        };
        Self::new(errno, error.to_string())
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        Self::new(engine_errno(&error), error.to_string())
    }
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        Self::new(key_errno(&error), error.to_string())
    }
}

impl From<SessionError> for Refusal {
    fn from(error: SessionError) -> Self {
        Self::new(session_errno(&error), error.to_string())
    }
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        Self::new(libc::EINVAL, error.to_string())
    }
}

fn key_errno(error: &KeyError) -> i32 {
    match error {
        KeyError::TooLong(_) => libc::ENAMETOOLONG,
        KeyError::Reserved(_) | KeyError::Escapes(_) => libc::EPERM,
        KeyError::Empty | KeyError::OnlyDots | KeyError::Absolute(_) | KeyError::Nul(_) => libc::EINVAL,
    }
}

fn session_errno(error: &SessionError) -> i32 {
    match error {
        SessionError::TooLong(_) => libc::ENAMETOOLONG,
        SessionError::Reserved(_) => libc::EPERM,
        SessionError::NotOneComponent(_) => libc::EINVAL,
    }
}

fn engine_errno(error: &EngineError) -> i32 {
    match error {
        // The store decides a stale change again; what is left over lost every race.
        EngineError::Stale { .. } => libc::EBUSY,
        EngineError::NoSession(_) | EngineError::NotFound(_) => libc::ENOENT,
        EngineError::Exists(_) => libc::EEXIST,
        EngineError::NotADirectory(_) => libc::ENOTDIR,
        EngineError::IsADirectory(_) => libc::EISDIR,
        EngineError::NotEmpty(_) => libc::ENOTEMPTY,
        EngineError::IntoItself(_) => libc::EINVAL,
        EngineError::NoSpace => libc::ENOSPC,
        // The file system below holds no value that large.
        EngineError::Io { source, .. } if source.raw_os_error() == Some(libc::EFBIG) => libc::EFBIG,
        EngineError::Closed(_) | EngineError::Damaged { .. } | EngineError::Io { .. } => libc::EIO,
    }
}
