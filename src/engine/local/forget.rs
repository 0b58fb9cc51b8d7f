//! The past that was kept for long enough: removed in the background, by when it came to history. Knows names and times
//! of history's files; must not know bytes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::super::{EngineError, Result};
use super::disk::Form;
use super::{LocalEngine, paths, time, tree};
use crate::words::SessionId;

/// So many files go at a time: the session takes no change meanwhile.
const AT_ONCE: usize = 256;

impl LocalEngine {
    /// Removes what has been in history for longer than is kept; how many files. Takes time proportional to history, so it
    /// is nothing to wait for; `stop` ends it early.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn forget(&self, now: SystemTime, stop: &AtomicBool) -> Result<u64> {
        let Some(before) = self.keep.age.and_then(|age| now.checked_sub(age)) else { return Ok(0) };
        let sessions = match self.disk.read_dir(paths::HISTORY) {
            Err(e) if tree::is_missing(&e) => return Ok(0),
            other => other.map_err(|e| EngineError::io(format!("reading {}", paths::HISTORY), e))?,
        };
        let mut forgotten = 0;
        // Also of sessions that are gone.
        for id in sessions.iter().filter_map(|(name, _)| SessionId::parse(name.to_str()?).ok()) {
            let mut dirs = vec![paths::history_dir(&id, "")];
            while let Some(dir) = dirs.pop().filter(|_| !stop.load(Ordering::Relaxed)) {
                // What cannot be read now is looked at the next time.
                for (name, form) in self.disk.read_dir(&dir).unwrap_or_default() {
                    let Some(name) = name.to_str().filter(|_| form == Form::Dir) else { continue };
                    let place = format!("{dir}/{name}");
                    if name.starts_with('k') {
                        forgotten += self.forget_key(&id, &place, time::to_ns(before));
                    } else {
                        dirs.push(place);
                    }
                }
            }
        }
        if forgotten > 0 {
            tracing::info!(files = forgotten, "removed versions and drafts that were kept for long enough");
        }
        Ok(forgotten)
    }

    /// The same in the history of one key.
    fn forget_key(&self, id: &SessionId, place: &str, before_ns: i64) -> u64 {
        let old = self.old_in(place, before_ns);
        old.chunks(AT_ONCE).map(|some| self.forget_some(id, place, some, before_ns)).sum()
    }

    /// Removes some files of one key that were too old when they were looked at.
    fn forget_some(&self, id: &SessionId, place: &str, old: &[String], before_ns: i64) -> u64 {
        // Nothing comes to history meanwhile, nor does a renamed directory bring other files under these names.
        let _gate = self.pass();
        let session = match self.loaded(id) {
            Ok(session) => session,
            Err(e) => {
                tracing::warn!("what is too old in history stays: {e}");
                return 0;
            }
        };
        let _tree = session.hold_tree();
        if session.is_stuck() {
            return 0;
        }
        // One that cannot be removed keeps no other from it.
        let gone = |file: &String| {
            let removed = tree::unlink(&*self.disk, file);
            removed.inspect_err(|e| tracing::warn!("what is too old in history stays: {e}")).is_ok()
        };
        let forgotten = old.iter().filter(|file| self.is_old(file, before_ns) && gone(file)).count();
        let mut emptied = place;
        while emptied.len() > paths::HISTORY.len() && self.disk.remove_dir(emptied).is_ok() {
            emptied = paths::parent(emptied);
        }
        forgotten as u64
    }

    /// The files in a directory of history that came there before a time: a file's last change was its coming there.
    fn old_in(&self, place: &str, before_ns: i64) -> Vec<String> {
        let names = self.disk.read_dir(place).unwrap_or_default().into_iter();
        let ours = names.filter_map(|(name, _)| name.into_string().ok()).filter(|name| paths::past_of(name).is_some());
        ours.map(|name| format!("{place}/{name}")).filter(|file| self.is_old(file, before_ns)).collect()
    }

    fn is_old(&self, file: &str, before_ns: i64) -> bool {
        self.disk.stat(file).is_ok_and(|stat| stat.form == Form::File && stat.changed_ns < before_ns)
    }
}
