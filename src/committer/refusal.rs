//! What a store's committer answers instead of doing it: a kind a program can act on, words for a person.

use serde::{Deserialize, Serialize};

use crate::engine::EngineError;
use crate::identity::IdentityError;
use crate::store::StoreError;

/// What sort of refusal; the command gives each its own exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// It was right to ask, and it failed.
    Failed,
    /// What was asked has no meaning: a key, session id, policy or declared id of bad form.
    Usage,
    /// Another writer's value stays.
    Conflict,
    /// No such store, session or key.
    NotFound,
    /// Not a handoff.
    InvalidHandoff,
    /// The store holds what no version of ours writes.
    Damaged,
    /// Somebody else holds the store or the mount.
    InUse,
}

/// A refusal. Nothing changed, unless the words say that this is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{words}")]
pub struct Refusal {
    /// Its sort.
    pub kind: RefusalKind,
    /// What is wrong.
    pub words: String,
    /// What to do about it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Refusal {
    /// A refusal without a hint.
    #[must_use]
    pub fn new(kind: RefusalKind, words: impl Into<String>) -> Self {
        Self { kind, words: words.into(), hint: None }
    }

    /// A failure of the system, with what was being done.
    #[must_use]
    pub fn failed(doing: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::new(RefusalKind::Failed, format!("{doing}: {error}"))
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Conflict { .. } | StoreError::Outdated { .. } => RefusalKind::Conflict,
            StoreError::Document(_) => RefusalKind::InvalidHandoff,
            StoreError::Key(_) | StoreError::Session(_) | StoreError::Policy(_) | StoreError::Claim(_) => {
                RefusalKind::Usage
            }
            StoreError::Engine(EngineError::NoSession(_) | EngineError::NotFound(_)) => RefusalKind::NotFound,
            StoreError::Engine(EngineError::Damaged { .. }) => RefusalKind::Damaged,
            StoreError::Engine(_) => RefusalKind::Failed,
        };
        let words = error.to_string();
        match error {
            StoreError::Engine(EngineError::NoSession(session)) => {
                Self::new(kind, words).with_hint(format!("'batonfs init STORE {session}' makes it"))
            }
            StoreError::Conflict { .. } => {
                Self::new(kind, words).with_hint("the value was not changed; the policy of this write is 'error'")
            }
            _ => Self::new(kind, words),
        }
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        StoreError::from(error).into()
    }
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        Self::new(RefusalKind::Usage, error.to_string())
    }
}
