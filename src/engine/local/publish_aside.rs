//! Publication of what is said of a value beside its bytes: attributes, writers, sidecars, and the session's policy.

use super::super::{EngineError, Result};
use super::disk::{Access, DiskFile, Form, Stat};
use super::look::{self, Found, Look};
use super::mark::{self, Mark, Span};
use super::publish::{Work, io};
use super::record::{KeptChange, Record};
use super::replay::Known;
use super::{LocalEngine, paths, tree};
use crate::words::{Key, SessionId, Version};

impl LocalEngine {
    pub(super) fn change_attributes(
        &self,
        session: &SessionId,
        path: &str,
        version: Option<Version>,
        set: &KeptChange,
        work: &Work<'_>,
    ) -> Result<()> {
        let place = paths::value(session, path);
        let change = |file: &dyn DiskFile, stat: &Stat| {
            let mut attributes = look::attributes(file, stat)?;
            set.change().apply(&mut attributes);
            look::set_attributes(file, &attributes, &place)
        };
        match (look::look_at(&*self.disk, &place, Access::Read)?, version) {
            (Look::Dir, None) => {
                let dir = self.disk.open(&place, Access::Read).map_err(io("opening", &place))?;
                let stat = dir.stat().map_err(io("reading", &place))?;
                change(&*dir, &stat)
            }
            (look, Some(version)) => {
                let Some((found, mark)) = self.versioned(session, path, look, version, work)? else { return Ok(()) };
                if mark.size != found.stat.size_bytes && work.replay.is_none() {
                    return Ok(());
                }
                change(&*found.file, &found.stat)?;
                let mtime_ns = found.file.stat().map_err(io("reading", &place))?.mtime_ns;
                Mark { mtime_ns, ..mark }.write(&*found.file, &place)
            }
            _ => Ok(()),
        }
    }

    /// The file that is this version of a key: in its place, or after a crash also in history or with what was appended.
    fn versioned(
        &self,
        session: &SessionId,
        path: &str,
        look: Look,
        version: Version,
        work: &Work<'_>,
    ) -> Result<Option<(Found, Mark)>> {
        let Ok(key) = Key::literal(path) else { return Ok(None) };
        let is_it = |found: &Found, mark: &Mark| match work.replay {
            Some(replay) => mark.covers(version) && !replay.is_changed(found.stat.id, session, &key, version),
            None => mark.version == version,
        };
        let marked = |found: Found| found.mark.clone().filter(|mark| is_it(&found, mark)).map(|mark| (found, mark));
        if let Look::File(found) = look
            && let Some(found) = marked(found)
        {
            return Ok(Some(found));
        }
        if work.replay.is_none() {
            return Ok(None);
        }
        let Some(kept) = self.kept_with(session, &key, version)? else { return Ok(None) };
        Ok(self.look_at_kept(session, &key, &paths::history(session, path, kept))?.and_then(marked))
    }

    pub(super) fn declare(&self, record: &Record, key: &Key, version: Version, work: &Work<'_>) -> Result<()> {
        let place = paths::value(&record.session, key.as_str());
        let look = look::look_at(&*self.disk, &place, Access::Read)?;
        if let Some((found, mark)) = self.versioned(&record.session, key.as_str(), look, version, work)?
            && mark.version == version
            && (mark.fits(&found.stat) || work.replay.is_some_and(|replay| replay.lost))
        {
            let writer = record.author.writer.clone();
            Mark { writer, foreign: false, ..mark }.write(&*found.file, &place)?;
            if self.disk.stat(&place).is_ok_and(|stat| stat.id == found.stat.id) {
                return self.place_sidecar(record, key, work);
            }
        }
        tree::unlink(&*self.disk, &paths::draft_sidecar(&record.operation))
    }

    /// Marks a stranger's value as the version it got.
    pub(super) fn mark_stranger(&self, record: &Record, key: &Key, span: Span, work: &Work<'_>) -> Result<()> {
        let target = paths::value(&record.session, key.as_str());
        let mark =
            |found: &Found, at: &str| Mark { foreign: true, ..record.mark(&target, span) }.write(&*found.file, at);
        let found = match look::look_at(&*self.disk, &target, Access::Read)? {
            Look::File(found) => Some(found),
            _ => None,
        };
        let is_it = |found: &&Found| (found.stat.size_bytes, found.stat.mtime_ns) == (span.size, span.mtime_ns);
        if let Some(found) = found.as_ref().filter(|found| found.ours().is_none()).filter(is_it) {
            return mark(found, &target);
        }
        let Some(replay) = work.replay.filter(|replay| replay.lost) else { return Ok(()) };
        // Power may have taken the mark of a file that was appended to by then, or was in history. With it, the records of
        // that find what they speak of; where it was changed otherwise, the mark does not fit.
        let is_bare = |found: &Found| {
            let known = replay.known(found.stat.id, &record.session, key, span.version);
            known == Some(Known::This)
                && found.stat.size_bytes >= span.size
                && found.mark.as_ref().is_none_or(|mark| mark.version < span.version)
        };
        if let Some(found) = found.filter(is_bare) {
            return mark(&found, &target);
        }
        let Some(kept) = self.kept_with(&record.session, key, span.version)? else { return Ok(()) };
        let place = paths::history(&record.session, key.as_str(), kept);
        match self.look_at_kept(&record.session, key, &place)?.filter(is_bare) {
            Some(found) => mark(&found, &place),
            None => Ok(()),
        }
    }

    pub(super) fn write_policy(&self, record: &Record, policy: crate::words::Policy) -> Result<()> {
        let (place, draft) = (paths::policy(&record.session), paths::draft(&record.operation));
        tree::make_dirs_above(&*self.disk, &place)?;
        let file = tree::create(&*self.disk, &draft, tree::PRIVATE).map_err(io("writing", &place))?;
        file.write_at(0, format!("{policy}\n").as_bytes()).map_err(io("writing", &place))?;
        self.disk.rename(&draft, &place).map_err(io("writing", &place))
    }

    /// Puts the sidecar of a record's writer beside its value; none for an empty writer.
    pub(super) fn place_sidecar(&self, record: &Record, key: &Key, work: &Work<'_>) -> Result<()> {
        if record.author.writer.is_empty() {
            return self.remove_sidecar(&record.session, key);
        }
        let (place, draft) = (paths::sidecar(&record.session, key.as_str()), paths::draft_sidecar(&record.operation));
        if !work.first {
            if self.disk.stat(&draft).is_ok_and(|left| left.form == Form::Dir) {
                // An attempt before was cut off while it held the sidecars of a directory that is named like this one.
                self.disk.exchange(&draft, &place).map_err(io("giving back", &place))?;
            }
            // An attempt before may have exchanged it: what is there then is the old one.
            self.stage_sidecar_again(record)?;
        }
        if self.exchange_sidecar(record, key, &draft, &place)? || self.disk.rename_new(&draft, &place).is_ok() {
            return Ok(());
        }
        let made = tree::make_dirs_above(&*self.disk, &place);
        match made.and_then(|()| self.disk.rename_new(&draft, &place).map_err(io("writing", &place))) {
            // The neighbour's came there meanwhile.
            Err(e) if !self.exchange_sidecar(record, key, &draft, &place)? => self.pass_collision(e, &draft),
            _ => Ok(()),
        }
    }

    /// Exchanges a sidecar with the one in its place, and gives back what is not to be replaced. `false`: there is none.
    fn exchange_sidecar(&self, record: &Record, key: &Key, draft: &str, place: &str) -> Result<bool> {
        // Exchanged, not replaced: some file systems write out a replacing file at once, and here the journal has it.
        match self.disk.exchange(draft, place) {
            Err(e) if tree::is_missing(&e) => return Ok(false),
            other => other.map_err(io("writing", place))?,
        }
        let stat = || self.disk.stat(draft).map_err(io("checking what was replaced at", place));
        let mut out = stat()?;
        // The sidecars of a directory that is named like this one, or the neighbour's for a value that came after ours.
        if out.form == Form::Dir
            || (record.version().is_some()
                && !self.is_in_its_place(record)
                && self.is_of_strangers_value(&record.session, key, draft)?)
        {
            self.disk.exchange(draft, place).map_err(io("giving back", place))?;
            out = stat()?;
        }
        self.spare_sidecars.leave(&*self.disk, draft, &out);
        Ok(true)
    }

    /// Is the file of a record's value at its key's path, as it was put there?
    fn is_in_its_place(&self, record: &Record) -> bool {
        record.value().is_some_and(|value| {
            let stat = self.disk.stat(&paths::value(&record.session, value.key.as_str()));
            let put = (value.file, value.size, value.kept.mtime_ns);
            stat.is_ok_and(|stat| (stat.id, stat.size_bytes, stat.mtime_ns) == put)
        })
    }

    /// The keys `a` and `a.json/b` collide in the neighbour's sidecars: the second one's writer is in its mark only.
    fn pass_collision(&self, e: EngineError, draft: &str) -> Result<()> {
        match &e {
            EngineError::Io { source, .. }
                if matches!(
                    source.raw_os_error(),
                    Some(libc::ENOTDIR | libc::EISDIR | libc::EEXIST | libc::ENOTEMPTY | libc::ENAMETOOLONG)
                ) =>
            {
                tree::unlink(&*self.disk, draft)
            }
            _ => Err(e),
        }
    }

    /// Is this sidecar the neighbour's, for a value that it has put in the place of ours meanwhile? It comes after its value,
    /// so the value tells; one that was left from before is not in the way of a value that nobody has seen.
    fn is_of_strangers_value(&self, session: &SessionId, key: &Key, sidecar: &str) -> Result<bool> {
        let target = paths::value(session, key.as_str());
        match look::look_at(&*self.disk, &target, Access::Read)? {
            Look::File(value) if value.ours().is_none() => {}
            _ => return Ok(false),
        }
        let Look::File(found) = look::look_at(&*self.disk, sidecar, Access::Read)? else { return Ok(false) };
        Ok(found.file.xattr(mark::NAME).map_err(io("reading", sidecar))?.is_none())
    }

    pub(super) fn remove_sidecar(&self, session: &SessionId, key: &Key) -> Result<()> {
        let place = paths::sidecar(session, key.as_str());
        if self.is_of_strangers_value(session, key, &place)? {
            return Ok(());
        }
        match self.disk.unlink(&place) {
            Err(e) if !tree::is_missing(&e) && e.raw_os_error() != Some(libc::EISDIR) => Err(io("removing", &place)(e)),
            _ => Ok(()),
        }
    }
}
