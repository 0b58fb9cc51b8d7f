//! Sessions and directories as operations: make, resume, remove.

use super::commit::Caller;
use super::{Result, Store};
use crate::engine::{Attributes, Change, EngineError, Kind};
use crate::words::{Dir, Policy, SessionId};

impl Store {
    /// Makes a session, or finds it made: `Ok(true)` when it is new.
    ///
    /// # Errors
    /// [`super::StoreError::Engine`].
    pub fn init(&self, session: &SessionId, attributes: Attributes, by: &Caller) -> Result<bool> {
        match self.make_dir(session, &Dir::root(), attributes, by) {
            Ok(()) => Ok(true),
            Err(super::StoreError::Engine(EngineError::Exists(_))) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Finds a session.
    ///
    /// # Errors
    /// [`EngineError::NoSession`] when there is none.
    pub fn resume(&self, session: &SessionId) -> Result<()> {
        match self.engine.entry(session, "")? {
            Some(entry) if entry.kind == Kind::Dir => Ok(()),
            _ => Err(EngineError::NoSession(session.to_string()).into()),
        }
    }

    /// Makes a directory; the session itself when `dir` is the root.
    ///
    /// # Errors
    /// [`EngineError::Exists`], [`EngineError::NotFound`] without a parent, [`EngineError::NotADirectory`].
    pub fn make_dir(&self, session: &SessionId, dir: &Dir, attributes: Attributes, by: &Caller) -> Result<()> {
        let _guard = self.locks.tree(session);
        self.engine.commit(session, Change::MakeDir { dir: dir.clone(), attributes }, &by.context(None))?;
        Ok(())
    }

    /// Removes an empty directory; the session itself when `dir` is the root.
    ///
    /// # Errors
    /// [`EngineError::NotEmpty`], [`EngineError::NotFound`].
    pub fn remove_dir(&self, session: &SessionId, dir: &Dir, by: &Caller) -> Result<()> {
        let _guard = self.locks.tree(session);
        self.engine.commit(session, Change::RemoveDir { dir: dir.clone() }, &by.context(None))?;
        Ok(())
    }

    /// Sets the session's policy; the strictest of it, the caller's and the store's holds.
    ///
    /// # Errors
    /// [`EngineError::NoSession`].
    pub fn set_policy(&self, session: &SessionId, policy: Policy, by: &Caller) -> Result<()> {
        let _guard = self.locks.tree(session);
        self.engine.commit(session, Change::SetPolicy(policy), &by.context(None))?;
        Ok(())
    }
}
