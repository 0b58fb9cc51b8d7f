//! What a store refuses, in words a person can act on.

use super::document::InvalidDocument;
use crate::engine::EngineError;
use crate::words::{ClaimError, KeyError, SessionError, UnknownPolicy, Version};

/// A refusal or failure. In every case the value that was there is still there.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The key was last written by another writer, and the policy is `error`.
    #[error("key '{key}' was previously written by '{previous}' and is now being written by '{current}'")]
    Conflict {
        /// The key.
        key: String,
        /// The name of the writer recorded with it.
        previous: String,
        /// The name of the writer refused.
        current: String,
    },
    /// A draft that edits an existing value was made from a version that is no longer the current one, and the policy
    /// is `error`.
    #[error(
        "key '{key}' was changed to version {current} by '{by}' while version {base} was being edited; read it again and repeat the edit"
    )]
    Outdated {
        /// The key.
        key: String,
        /// The version the draft was made from; 0 when there was none.
        base: Version,
        /// The version there is now; 0 when the key is gone.
        current: Version,
        /// Who wrote that.
        by: String,
    },
    /// The key has a form and this is not it.
    #[error(transparent)]
    Document(#[from] InvalidDocument),
    /// Not a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not a session id.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Not a policy.
    #[error(transparent)]
    Policy(#[from] UnknownPolicy),
    /// Not a declared id that can be recorded.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The engine's refusal or failure.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
