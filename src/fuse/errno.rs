//! One table from error to errno, chosen so that common runtimes show it in words and do not retry it.

use std::fmt;

use crate::engine::EngineError;
use crate::identity::IdentityError;
use crate::store::{Caller, StoreError};
use crate::words::{Author, KeyError, SessionError};

/// A refusal as the kernel carries it, with the words behind the number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A positive errno.
    pub errno: i32,
    /// Why, for a person.
    pub words: String,
    /// A handle gives its answer once more; it was kept and told before.
    pub again: bool,
    /// Who was refused, where a handle knows it better than who asks shows.
    pub who: Option<Box<Author>>,
}

impl Refusal {
    /// A refusal in words of its own.
    pub fn new(errno: i32, words: impl Into<String>) -> Self {
        Self { errno, words: words.into(), again: false, who: None }
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
        Self { who: Some(Box::new(caller.author.clone())), ..self }
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

/// What can be done after a refusal with this errno, where something can.
#[must_use]
pub fn hint(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EBUSY => {
            "the value was not changed: read it again and write then, or write another key; the strictest of \
             BATON_CONFLICT_POLICY, the session's .baton/policy and the mount's --conflict-policy decides"
        }
        libc::EINVAL => {
            "the value was not changed: a handoff is one JSON object, a policy is ignore, warn or error, a declared id \
             has at most 256 bytes"
        }
        libc::EPERM => {
            "there are regular files and directories only, and the names of .baton and .agent_state_meta are reserved: \
             choose another name, or keep such files outside the mount"
        }
        libc::EACCES => "the mode or owner of the file or a directory above does not let this user do it",
        libc::EXDEV => "nothing is moved from one session to another: copy it, then delete it",
        libc::EROFS => "the store is mounted read-only: unmount it, and mount it without --read-only",
        libc::ENOSPC | libc::EDQUOT => "make room on the file system of the store; the xattrs of a key have 2 KiB",
        libc::EFBIG => "the file system of the store holds no file that large",
        libc::ENAMETOOLONG => "a name has at most 250 bytes, a key 3800",
        libc::EILSEQ => "a name has to be UTF-8",
        libc::ENODEV => "shared mappings do not work here: map privately, or copy the file elsewhere",
        libc::ENOTDIR | libc::EISDIR => "a key stands where a directory is needed, or a directory where a key is",
        libc::EIO => "the store itself failed: .baton/daemon.log in it says more, 'batonfs verify' checks it",
        _ => return None,
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{ClaimError, Key, Policy, SessionId};

    #[test]
    fn every_refusal_that_is_kept_comes_with_what_can_be_done() {
        let disk = |errno| EngineError::Io { doing: String::new(), source: std::io::Error::from_raw_os_error(errno) };
        let engine = [
            EngineError::Stale { current: None },
            EngineError::NoSession(String::new()),
            EngineError::NotFound(String::new()),
            EngineError::Exists(String::new()),
            EngineError::NotADirectory(String::new()),
            EngineError::IsADirectory(String::new()),
            EngineError::NotEmpty(String::new()),
            EngineError::IntoItself(String::new()),
            EngineError::NoSpace,
            EngineError::Closed(String::new()),
            EngineError::Damaged { place: String::new(), what: String::new() },
            disk(libc::EFBIG),
            disk(libc::EIO),
        ];
        let long = "n".repeat(5000);
        let keys =
            ["", ".", "/a", "..", ".agent_state_meta", "a\0", &long].map(|raw| Key::parse(raw).unwrap_err().into());
        let sessions = ["a/b", ".baton", &long].map(|raw| SessionId::parse(raw).unwrap_err().into());
        let others = [
            Refusal::from(Policy::parse("harsh").map_err(StoreError::from).unwrap_err()),
            Refusal::from(StoreError::from(ClaimError::NotUtf8(String::new()))),
            Refusal::has_not("a socket"),
        ];
        let refusals = engine.map(Refusal::from).into_iter().chain(keys).chain(sessions).chain(others);
        for refusal in refusals {
            assert!(refusal.is_everyday() || hint(refusal.errno).is_some(), "{}: {refusal}", refusal.errno);
        }
    }
}
