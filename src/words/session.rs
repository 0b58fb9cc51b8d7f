//! Session ids: the name of a directory directly under the store. Knows form only.

use std::fmt;

use super::key::{BATON_DIR, NAME_MAX_BYTES, is_reserved};

/// Why a string is not a session id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Empty, `.`, `..`, or holds a `/` or a NUL byte.
    #[error("session '{}' must be one path component: no '/', not '.' or '..', not empty", .0.escape_default())]
    NotOneComponent(String),
    /// Names our own directory or one of the neighbour's internal names.
    #[error("session '{0}' uses a reserved internal path")]
    Reserved(String),
    /// Over [`NAME_MAX_BYTES`].
    #[error("session '{0}' is too long: at most {NAME_MAX_BYTES} bytes")]
    TooLong(String),
}

/// The id of a session, one path component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(String);

impl SessionId {
    /// Checks the form; the text is taken literally.
    ///
    /// # Errors
    /// [`SessionError`] with words for the person who chose it.
    pub fn parse(raw: &str) -> Result<Self, SessionError> {
        if raw.is_empty() || raw == "." || raw == ".." || raw.contains(['/', '\0']) {
            return Err(SessionError::NotOneComponent(raw.to_owned()));
        }
        if is_reserved(raw) || raw == BATON_DIR {
            return Err(SessionError::Reserved(raw.to_owned()));
        }
        if raw.len() > NAME_MAX_BYTES {
            return Err(SessionError::TooLong(raw.to_owned()));
        }
        Ok(Self(raw.to_owned()))
    }

    /// A fresh id: a UUIDv7, so that ids sort by the time they were made.
    #[must_use]
    pub fn fresh() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SessionId {
    type Error = SessionError;
    fn try_from(raw: String) -> Result<Self, SessionError> {
        Self::parse(&raw)
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.0
    }
}
