//! The rules: who may change which key, what a change must be, what is recorded of it. Knows no kernel, no process,
//! no terminal; the engine below makes changes durable and visible, the doors above bring them.
//!
//! [`Store::write`] is the one road of a value: the close of a file on the mount, `fsync`, `batonfs write` and a
//! handoff all end there. Delete, rename and directory changes have their own methods and take the same last step.

pub mod commit;
pub mod conflict;
pub mod document;
pub mod error;
mod lock;
pub mod past;
pub mod session;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use commit::{Base, Caller, Committed, Draft, Rule, Write};
pub use document::{Context as DocumentContext, Document, InvalidDocument, PrefixCheck};
pub use error::StoreError;

use crate::engine::{AttributeChange, Engine};
use crate::words::{Dir, Key, Policy, SessionId};

/// The result of every store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A store of sessions with its rules.
#[derive(Debug)]
pub struct Store {
    engine: Arc<dyn Engine>,
    root: PathBuf,
    documents: Vec<Box<dyn Document>>,
    policy: Policy,
    locks: lock::Locks,
}

impl Store {
    /// A store over an engine. `root` is the absolute path that handles and envelopes show; `documents` are the keys
    /// whose content has a form; `policy` is the least strict policy any write gets.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>, root: PathBuf, documents: Vec<Box<dyn Document>>, policy: Policy) -> Self {
        Self { engine, root, documents, policy, locks: lock::Locks::default() }
    }

    /// The engine, for reading. Changes go through the methods here.
    #[must_use]
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// The absolute path of the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The document rules of a key, if it has any.
    #[must_use]
    pub fn document(&self, key: &Key) -> Option<&dyn Document> {
        self.documents.iter().find(|d| d.key() == key).map(AsRef::as_ref)
    }

    /// The policy a caller's write to a session meets: the strictest of the caller's, the session's and the store's.
    ///
    /// # Errors
    /// As [`Engine::policy`].
    pub fn policy_for(&self, session: &SessionId, caller: Option<Policy>) -> Result<Policy> {
        Ok(self.engine.policy(session)?.max(self.policy).max(caller.unwrap_or_default()))
    }

    /// Changes attributes of a key or directory (empty path: the session); no version.
    ///
    /// # Errors
    /// [`StoreError::Engine`]; nothing changed.
    pub fn set_attributes(&self, session: &SessionId, path: &str, set: AttributeChange, by: &Caller) -> Result<()> {
        let change = crate::engine::Change::Attributes { path: path.to_owned(), set };
        let _guard = match Key::literal(path) {
            Ok(key) => self.locks.key(session, &key),
            Err(_) => self.locks.tree(session),
        };
        self.engine.commit(session, change, &by.context(None))?;
        Ok(())
    }

    /// Renames a directory inside a session. Keys below it keep their versions.
    ///
    /// # Errors
    /// [`StoreError::Key`] when a key below it would be too long, [`StoreError::Engine`]; nothing changed.
    pub fn rename_dir(&self, session: &SessionId, from: &Dir, to: &Dir, by: &Caller) -> Result<()> {
        let _guard = self.locks.tree(session);
        if to.as_str().len() > from.as_str().len() {
            self.refuse_too_long(session, from, to)?;
        }
        let change = crate::engine::Change::RenameDir { from: from.clone(), to: to.clone() };
        self.engine.commit(session, change, &by.context(None))?;
        Ok(())
    }

    /// What lies below a directory must be a key under its new name too: nobody could reach it else.
    fn refuse_too_long(&self, session: &SessionId, from: &Dir, to: &Dir) -> Result<()> {
        let inside = format!("{from}/");
        for key in self.engine.list(session)? {
            if let Some(rest) = key.as_str().strip_prefix(&inside) {
                Key::literal(&format!("{to}/{rest}"))?;
            }
        }
        Ok(())
    }
}
