//! What is kept of the past, for who may see all of it or one writer's part, where it is shown, and what comes to it of a
//! refused draft. Knows names and writers; not the kernel.

use super::{Caller, Result, Store, Write};
use crate::words::key::BATON_DIR;
use crate::words::{Dir, Key, Lost, Past, SessionId};

/// The tree of what is kept, in a session's control directory.
pub const HISTORY: &str = "history";

/// A reader: of all lost drafts, or of this writer's alone. Versions are everybody's, as values are.
pub type Only<'a> = Option<&'a str>;

impl Store {
    /// What is kept of a key, as [`crate::engine::Engine::past`] tells it, and shown to a reader.
    ///
    /// # Errors
    /// [`super::StoreError::Engine`].
    pub fn past(&self, session: &SessionId, key: &Key, only: Only<'_>) -> Result<Vec<Past>> {
        let mut shown = Vec::new();
        for past in self.engine.past(session, key)? {
            if self.shows(session, key, past, only)? {
                shown.push(past);
            }
        }
        Ok(shown)
    }

    /// Is something that is kept of a key shown to a reader? What is not kept is not.
    ///
    /// # Errors
    /// As [`Store::past`].
    pub fn shows(&self, session: &SessionId, key: &Key, past: Past, only: Only<'_>) -> Result<bool> {
        let (Some(only), Past::Draft(..)) = (only, past) else { return Ok(true) };
        let head = self.engine.past_head(session, key, past)?;
        Ok(head.is_some_and(|head| head.writer.writer_id.as_deref() == Some(only)))
    }

    /// The names in a directory under which something other than a newest version is kept and shown to a reader.
    ///
    /// # Errors
    /// As [`Store::past`].
    pub fn past_names(&self, session: &SessionId, dir: &Dir, only: Only<'_>) -> Result<Vec<String>> {
        let names = self.engine.past_names(session, dir)?;
        if only.is_none() {
            return Ok(names);
        }
        let mut shown = Vec::new();
        for name in names {
            let path = if dir.is_root() { name.clone() } else { format!("{dir}/{name}") };
            if self.has_past(session, &path, only)? {
                shown.push(name);
            }
        }
        Ok(shown)
    }

    /// Has a path a key or directory, or had it one of which something is kept that is shown to a reader?
    ///
    /// # Errors
    /// As [`Store::past`].
    pub fn has_past(&self, session: &SessionId, path: &str, only: Only<'_>) -> Result<bool> {
        if Key::literal(path).is_ok() && self.engine.entry(session, path)?.is_some() {
            return Ok(true);
        }
        // What a directory has below it may all be another writer's drafts: then it is looked through.
        let mut left = vec![path.to_owned()];
        while let Some(path) = left.pop() {
            let (Ok(key), Ok(dir)) = (Key::literal(&path), Dir::literal(&path)) else { continue };
            if !self.past(session, &key, only)?.is_empty() {
                return Ok(true);
            }
            let names = self.engine.past_names(session, &dir)?;
            if only.is_none() && !names.is_empty() {
                return Ok(true);
            }
            left.extend(names.into_iter().map(|name| format!("{path}/{name}")));
        }
        Ok(false)
    }

    /// Keeps the bytes of a draft that was refused, for `reason`; in words, where they are or why they are not kept. `None`
    /// where there are none. `full`: it was refused because there is no room.
    pub fn keep_refused(&self, write: &Write<'_>, reason: &str, full: bool, by: &Caller) -> Option<String> {
        if write.draft.is_empty() {
            return None;
        }
        if full {
            // What room is left is for the values.
            return Some("what was written could not be kept".to_owned());
        }
        Some(match self.lose(write, Lost::Refused, reason, by) {
            Ok(kept) => self.kept_words(write.session, write.key, kept),
            Err(error) => format!("what was written could not be kept: {error}"),
        })
    }

    /// In words, where a refused draft is.
    #[must_use]
    pub fn kept_words(&self, session: &SessionId, key: &Key, kept: Past) -> String {
        format!("what was written is kept in {}", self.shown_past(session, key, kept))
    }

    /// The path below its session under which a mount shows something that is kept of a key.
    #[must_use]
    pub fn shown_past(&self, session: &SessionId, key: &Key, past: Past) -> String {
        let free = |name: &str| !self.has_past(session, &format!("{key}/{name}"), None).unwrap_or(false);
        format!("{BATON_DIR}/{HISTORY}/{key}/{}", free_name(past, free))
    }
}

/// The name something that is kept is shown under: with as many zeros in front as it takes to be no key's.
pub fn free_name(past: Past, free: impl Fn(&str) -> bool) -> String {
    let mut name = past.to_string();
    while !free(&name) {
        name.insert(0, '0');
    }
    name
}
