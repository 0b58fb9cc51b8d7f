//! Earlier versions of values: moved there by the commit that replaced them, pruned by number.

use super::super::{EngineError, Head, KEPT_VERSIONS, Result, Snapshot};
use super::disk::{Access, Form};
use super::look::{self, Look};
use super::mark::Mark;
use super::record::Record;
use super::stage::{FileContent, checksum};
use super::{LocalEngine, paths, tree};
use crate::words::{Key, SessionId, Version};

impl LocalEngine {
    /// Moves the file at `place` to a key's history as `version`, and prunes what is too far before `newest`.
    ///
    /// # Errors
    /// [`EngineError::Io`], [`EngineError::NoSpace`]: the file is where it was.
    pub(super) fn keep(
        &self,
        session: &SessionId,
        key: &Key,
        version: Version,
        newest: Version,
        place: &str,
    ) -> Result<()> {
        let to = paths::history(session, key.as_str(), version);
        let renamed = match self.disk.rename(place, &to) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                tree::make_dirs_above(&*self.disk, &to)?;
                self.disk.rename(place, &to)
            }
            other => other,
        };
        renamed.map_err(|e| EngineError::io(format!("keeping {to}"), e))?;
        // Most puts follow a put: then one name is too old. Where appends or deletes left a gap there, numbers pass by
        // the one that is due, and the directory says which are too old.
        let Some(old) = newest.checked_sub(KEPT_VERSIONS + 1).filter(|old| *old > 0) else { return Ok(()) };
        let old = paths::history(session, key.as_str(), old);
        if newest.is_multiple_of(KEPT_VERSIONS) || self.disk.stat(&old).is_err() {
            return self.prune(session, key, newest);
        }
        self.spare_values.retire(&*self.disk, &old);
        Ok(())
    }

    /// Moves the file at `place` to a key's history as `version`, unless that is there already: then it goes.
    ///
    /// # Errors
    /// As [`LocalEngine::keep`].
    pub(super) fn keep_new(&self, record: &Record, key: &Key, version: Version, place: &str) -> Result<()> {
        let to = paths::history(&record.session, key.as_str(), version);
        tree::make_dirs_above(&*self.disk, &to)?;
        match self.disk.rename_new(place, &to) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => tree::unlink(&*self.disk, place),
            other => other.map_err(|e| EngineError::io(format!("keeping {to}"), e)),
        }
    }

    /// Removes what is too far before `newest` in a key's history.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn prune(&self, session: &SessionId, key: &Key, newest: Version) -> Result<()> {
        for old in self.kept(session, key)?.into_iter().filter(|old| old.saturating_add(KEPT_VERSIONS) < newest) {
            tree::unlink(&*self.disk, &paths::history(session, key.as_str(), old))?;
        }
        Ok(())
    }

    /// The versions in a key's history, oldest first.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn kept(&self, session: &SessionId, key: &Key) -> Result<Vec<Version>> {
        let place = paths::history_key(session, key.as_str());
        let names = match self.disk.read_dir(&place) {
            Err(e) if tree::is_missing(&e) => Vec::new(),
            other => other.map_err(|e| EngineError::io(format!("reading {place}"), e))?,
        };
        let files = names.into_iter().filter(|(_, form)| *form == Form::File);
        let mut versions: Vec<Version> = files.filter_map(|(name, _)| name.to_str()?.parse().ok()).collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// A version of a key's history with its bytes, which are checked: nobody but a failing disk changes them.
    ///
    /// # Errors
    /// [`EngineError::Io`]; [`EngineError::Damaged`] when they are not those that were committed.
    pub(super) fn open_kept(&self, session: &SessionId, key: &Key, version: Version) -> Result<Option<Snapshot>> {
        let place = paths::history(session, key.as_str(), version);
        let Look::File(found) = look::look_at(&*self.disk, &place, Access::Read)? else { return Ok(None) };
        // Its mark was put on it at its key's path.
        let io = |e| EngineError::io(format!("reading {place}"), e);
        let mark = Mark::read(&*found.file).map_err(io)?;
        if let Some(mark) = &mark {
            let crc = checksum(found.stat.size_bytes, |at, buffer| found.file.read_at(at, buffer).map_err(io))?;
            if (mark.size, mark.crc) != (found.stat.size_bytes, crc) {
                let what = format!("its bytes are not those of version {version} of '{key}'");
                return Err(EngineError::Damaged { place, what });
            }
        }
        let head = Head {
            version,
            appends_since: mark.as_ref().map_or(version, |mark| mark.since),
            seq: mark.as_ref().map_or(0, |mark| mark.seq),
            size_bytes: found.stat.size_bytes,
            writer: mark.as_ref().map(|mark| mark.writer.clone()).unwrap_or_default(),
            committed_at_s: mark.as_ref().map_or(0, |mark| mark.at_s),
            attributes: look::attributes(&*found.file, &found.stat)?,
        };
        Ok(Some(Snapshot { head, content: std::sync::Arc::new(FileContent(found.file)) }))
    }
}
