//! Commits that are answered before their sync: made durable together, in the order in which they were made, and put in
//! their place only then, so that a crash finds nothing in a place that the journal could have lost. Knows when; how they
//! are served until then is in `unpublished`.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::super::{Change, Receipt, Result};
use super::LocalEngine;
use super::commit::Decision;
use super::disk::Form;
use super::mark::{self, Mark, Span};
use super::paths;
use super::record::{Act, Record};
use super::session::{Late, Session};
use crate::words::{Author, SessionId};

/// More of them are not kept waiting: each is in memory, and some have a file open.
const LATE_MAX: usize = 1024;
/// Nor so much in the journal.
const LATE_MAX_BYTES: u64 = 4 << 20;

impl LocalEngine {
    /// From here on a commit of a value may be answered before it is durable; [`super::super::Engine::sync`] makes it so.
    #[must_use]
    pub fn deferring(mut self) -> Self {
        self.defers = true;
        self.spare_values.keep_more(LATE_MAX);
        self.spare_sidecars.keep_more(LATE_MAX);
        self
    }

    /// May this change be answered before its sync? Only values in directories that are there: whatever else changes names
    /// is decided by what is in its place. The caller holds what the change needs.
    /// `has_parent`: its directory is known to be there.
    pub(super) fn may_wait(
        &self,
        session: &Session,
        change: &Change,
        author: &Author,
        has_parent: bool,
    ) -> Result<bool> {
        let (Change::Put { key, .. } | Change::Append { key, .. }) = change else { return Ok(false) };
        if !self.defers || self.at_once.load(Ordering::SeqCst) > 0 {
            return Ok(false);
        }
        // The file that it goes behind has no place yet in which room for a longer mark could be made sure of.
        let room = |late: Late| late.plain && Mark::is_slim(&author.writer);
        let fits = matches!(change, Change::Put { .. }) || session.late(key.as_str()).is_none_or(room);
        Ok(fits && (has_parent || self.form(session, key.parent().as_str())? == Some(Form::Dir)))
    }

    /// Takes a committed change that is to be made durable later.
    pub(super) fn wait_for_sync(&self, session: &Session, record: Record, decision: Decision, end: u64) -> Receipt {
        let receipt = Receipt { seq: record.seq, version: record.version() };
        let late = self.late_file(session, &record, &decision);
        self.late.fetch_add(1, Ordering::SeqCst);
        self.serve_from_memory(session, record, decision, Some((end, late)));
        session.finished(&*self.disk, receipt.seq, true, || self.journal.check_open().is_err());
        receipt
    }

    /// What the file will be.
    fn late_file(&self, session: &Session, record: &Record, decision: &Decision) -> Option<Late> {
        let plain =
            |names: std::io::Result<Vec<String>>| names.is_ok_and(|names| names.iter().all(|name| name == mark::NAME));
        match &record.act {
            Act::Put(value) => {
                let mark = record.mark(&paths::value(&session.id, value.key.as_str()), value.span());
                let plain = decision.draft.as_ref().is_some_and(|draft| plain(draft.xattr_names()));
                Some(Late { mark, plain })
            }
            Act::Append(append) => {
                let plain = match &decision.base {
                    Some((found, _)) => plain(found.file.xattr_names()),
                    None => session.late(append.key.as_str())?.plain,
                };
                let (size, mtime_ns) = (append.offset.saturating_add(append.len), append.mtime_ns);
                let span = Span { version: append.version, since: append.since, size, crc: append.crc, mtime_ns };
                Some(Late { mark: record.mark(&paths::value(&session.id, append.key.as_str()), span), plain })
            }
            _ => None,
        }
    }

    /// Makes durable what was committed so far, by one sync, and puts it in its place.
    ///
    /// # Errors
    /// [`super::super::EngineError::Closed`]: the sync failed, here or before.
    pub(super) fn sync_late(&self) -> Result<()> {
        if self.late.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        let _gate = self.pass();
        let durable = self.journal.sync()?;
        let sessions: Vec<_> = self.all().values().filter(|session| session.is_stuck()).cloned().collect();
        for session in sessions {
            let _tree = session.hold_tree();
            if session.stuck().failed {
                continue;
            }
            if let Err(e) = self.settle_held(&session, false, Some(durable)) {
                tracing::error!(session = %session.id, "durable, but not yet in its place: {e}");
            }
        }
        Ok(())
    }

    /// Keeps the number of those that wait in bounds.
    pub(super) fn bound_late(&self) {
        let late = self.late.load(Ordering::SeqCst);
        if late > LATE_MAX || late > 0 && self.journal.late_bytes() > LATE_MAX_BYTES {
            // Whoever commits next hears of it.
            drop(self.sync_late());
        }
    }

    /// Puts what waits in its place, for who asks for versions that it replaces. What cannot be put there is still served.
    pub(super) fn past_in_place(&self, session: &SessionId) {
        if let Some(known) = self.known(session)
            && let Err(e) = self.settle(&known, false)
        {
            tracing::warn!(%session, "not yet in its place: {e}");
        }
    }

    /// Does something while every commit is durable, and in its place, before it is answered.
    pub(super) fn at_once<T>(&self, does: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.defers {
            return does();
        }
        self.at_once.fetch_add(1, Ordering::SeqCst);
        // Who was before that is through the gate.
        drop(self.gate.write().unwrap_or_else(PoisonError::into_inner));
        if let Err(e) = self.sync_late() {
            tracing::warn!("what waits for its sync goes on waiting: {e}");
        }
        let done = does();
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        done
    }
}
