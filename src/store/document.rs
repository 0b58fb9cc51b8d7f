//! Keys whose content has a form: checked while it is written, and made at commit from what was written.
//! Knows that such keys exist, not which; the rooms above bring them (the handoff is one).

use std::fmt::Debug;
use std::path::Path;

use crate::words::{Key, SessionId, Writer};

/// What was written is not of the key's form; the words say what it lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidDocument(pub String);

/// What a document may take from its commit.
#[derive(Debug)]
pub struct Context<'a> {
    /// The session written to.
    pub session: &'a SessionId,
    /// The absolute path of the store.
    pub root: &'a Path,
    /// Who writes.
    pub writer: &'a Writer,
    /// Seconds since 1970.
    pub now_s: u64,
}

/// Watches a document being written from its first byte on.
pub trait PrefixCheck: Send + Sync + Debug {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`InvalidDocument`] at the first byte after which nothing can make the whole valid any more.
    fn push(&mut self, bytes: &[u8]) -> Result<(), InvalidDocument>;
}

/// The rules of one such key.
pub trait Document: Send + Sync + Debug {
    /// The key.
    fn key(&self) -> &Key;

    /// The most that may be written for it, in bytes: a document is made in memory.
    fn max_bytes(&self) -> u64;

    /// A check for a document that is about to be written from its start.
    fn prefix_check(&self) -> Box<dyn PrefixCheck>;

    /// Makes what readers will see of what was written.
    ///
    /// # Errors
    /// [`InvalidDocument`]; the commit is refused with its words.
    fn accept(&self, written: &[u8], context: &Context<'_>) -> Result<Vec<u8>, InvalidDocument>;
}
