//! Passing work on: the handoff document, its envelope and the typed handoff. Knows no disk and no process.
//!
//! What is written to `__handoff.json` is a summary, any JSON object; what readers see is an envelope around it that
//! says who passed it on, where and when. `check` watches the writing, `envelope` wraps, `typed` reads a summary
//! that has the neighbour's form of a handoff.

mod check;
mod envelope;
mod json;
mod latest;
mod typed;

pub use latest::{Latest, latest};
use uuid::Uuid;

use self::json::{Json, Object};
use crate::store::{Document, DocumentContext, InvalidDocument, PrefixCheck};
use crate::words::Key;

/// Deepest nesting of objects and arrays in anything written here, the outermost counted: one more and the usual
/// readers of JSON refuse it, ours among them.
pub const DEPTH_MAX: usize = 127;
/// The most that may be written, in bytes: a handoff says what is where, it does not carry it.
pub const DOCUMENT_MAX_BYTES: u64 = 16 << 20;
/// Deepest nesting of a summary: its envelope is one level around it.
pub const SUMMARY_DEPTH_MAX: usize = DEPTH_MAX - 1;

/// The rules of the key `__handoff.json`.
#[derive(Debug, Clone)]
pub struct HandoffDocument {
    key: Key,
    fresh_id: fn() -> Uuid,
}

impl HandoffDocument {
    /// The rules, with ids made from the system's clock and randomness.
    #[must_use]
    pub fn new() -> Self {
        Self::with_ids(Uuid::now_v7)
    }

    /// The rules with another source of ids: UUIDv7, of which a typed handoff takes its `id` and `created_at` where it
    /// has none.
    #[must_use]
    pub fn with_ids(fresh_id: fn() -> Uuid) -> Self {
        Self { key: Key::handoff(), fresh_id }
    }
}

impl Default for HandoffDocument {
    fn default() -> Self {
        Self::new()
    }
}

impl Document for HandoffDocument {
    fn key(&self) -> &Key {
        &self.key
    }

    fn max_bytes(&self) -> u64 {
        DOCUMENT_MAX_BYTES
    }

    fn prefix_check(&self) -> Box<dyn PrefixCheck> {
        Box::new(check::Check::default())
    }

    /// The envelope of the summary in `written`, pretty and sorted, no line end behind it.
    ///
    /// # Errors
    /// [`InvalidDocument`] with what was found, and where: not one JSON object, or nested deeper than
    /// [`SUMMARY_DEPTH_MAX`].
    fn accept(&self, written: &[u8], context: &DocumentContext<'_>) -> Result<Vec<u8>, InvalidDocument> {
        let summary = envelope::summary_of(parse(written)?);
        let handoff = typed::typed(&summary, (self.fresh_id)()).unwrap_or_default();
        let envelope = envelope::around(summary, handoff, context);
        let depth = envelope.depth();
        if depth > DEPTH_MAX {
            let depth = depth - 1;
            return Err(invalid(format_args!("it nests {depth} levels deep, and {SUMMARY_DEPTH_MAX} is the most")));
        }
        Ok(envelope.pretty().into_bytes())
    }
}

fn parse(written: &[u8]) -> Result<Object, InvalidDocument> {
    let mut check = check::Check::default();
    check.push(written)?;
    check.finish()?;
    let text = std::str::from_utf8(written).map_err(invalid)?;
    match Json::read(text) {
        Some(Json::Object(document)) => Ok(document),
        _ => Err(invalid("it could not be read")),
    }
}

/// The neighbour's words, and what was found instead.
fn invalid(found: impl std::fmt::Display) -> InvalidDocument {
    InvalidDocument(format!("summary must be a JSON object: {found}"))
}

#[cfg(test)]
mod tests;
