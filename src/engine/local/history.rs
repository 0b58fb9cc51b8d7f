//! Earlier versions of values: moved there by the commit that replaced them, pruned by number.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::super::{EngineError, Entry, Head, Kind, Result, Snapshot};
use super::disk::{Access, Form};
use super::look::{self, Found, Look};
use super::mark::Mark;
use super::read::entry_of;
use super::record::Record;
use super::stage::{FileContent, checksum};
use super::{LocalEngine, paths, tree};
use crate::words::{Dir, Key, Past, SessionId, Version};

impl LocalEngine {
    /// Moves the file at `place` to a key's history as `version`, and prunes what is too far before `newest`, as the
    /// record's committer wants it.
    ///
    /// # Errors
    /// [`EngineError::Io`], [`EngineError::NoSpace`]: the file is where it was.
    pub(super) fn keep(
        &self,
        record: &Record,
        key: &Key,
        version: Version,
        newest: Version,
        place: &str,
    ) -> Result<()> {
        let to = paths::history(&record.session, key.as_str(), version);
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
        let Some(count) = Some(record.keep).filter(|count| *count > 0) else { return Ok(()) };
        let Some(due) = newest.checked_sub(count.saturating_add(1)).filter(|due| *due > 0) else { return Ok(()) };
        let old = paths::history(&record.session, key.as_str(), due);
        if newest.is_multiple_of(count) || record.replaces(due) || !self.spare_values.retire(&*self.disk, &old) {
            return self.prune(record, key, newest);
        }
        Ok(())
    }

    /// Moves the file at `place` to a key's history as `version`, unless that is there already: then it goes.
    ///
    /// # Errors
    /// As [`LocalEngine::keep`].
    pub(super) fn keep_new(&self, record: &Record, key: &Key, version: Version, place: &str) -> Result<()> {
        let to = paths::history(&record.session, key.as_str(), version);
        tree::make_dirs_above(&*self.disk, &to)?;
        let renamed = match self.disk.rename_new(place, &to) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => match self.is_others(&to, place)? {
                true => self.disk.rename(place, &to),
                false => return tree::unlink(&*self.disk, place),
            },
            other => other,
        };
        renamed.map_err(|e| EngineError::io(format!("keeping {to}"), e))
    }

    /// Is a file in history what had its number before a renamed directory brought the one at `place` under its name?
    fn is_others(&self, kept: &str, place: &str) -> Result<bool> {
        let (kept, comes) = (self.mark_at(kept)?, self.mark_at(place)?);
        Ok(comes.filter(|comes| comes.floor > 0).is_some_and(|comes| kept.is_some_and(|kept| kept.seq != comes.seq)))
    }

    fn mark_at(&self, place: &str) -> Result<Option<Mark>> {
        Ok(self.marked_at(place)?.and_then(|(_, mark)| mark))
    }

    /// The file at a place in history, or on its way there, with its mark, which was put on it at its key's path.
    fn marked_at(&self, place: &str) -> Result<Option<(Found, Option<Mark>)>> {
        let Look::File(found) = look::look_at(&*self.disk, place, Access::Read)? else { return Ok(None) };
        let mark = Mark::read(&*found.file).map_err(|e| EngineError::io(format!("reading {place}"), e))?;
        Ok(Some((found, mark)))
    }

    /// Removes what is too far before `newest` in a key's history, but for the version that was there just before: under
    /// a name that came with a renamed directory, its number may be far below.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    fn prune(&self, record: &Record, key: &Key, newest: Version) -> Result<()> {
        let keep = record.keeps();
        if keep.count == 0 {
            return Ok(());
        }
        let is_old = |old: &Version| keep.is_past(*old, newest) && !record.replaces(*old);
        for old in self.kept(&record.session, key)?.into_iter().filter(is_old) {
            tree::unlink(&*self.disk, &paths::history(&record.session, key.as_str(), old))?;
        }
        Ok(())
    }

    /// Lets go of what the commit of a record has let go of: its file may have been written again for another value, and
    /// only the name it was given for that may be lost.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn prune_again(&self, record: &Record) -> Result<()> {
        match record.outdates() {
            Some((key, newest)) => self.prune(record, key, newest),
            None => Ok(()),
        }
    }

    /// The file in a key's history that has a version: its own, or one that went on to be appended to.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn kept_with(&self, session: &SessionId, key: &Key, version: Version) -> Result<Option<Version>> {
        // Of all that are kept few are looked at where most have their own.
        if self.is_kept(session, key, version)? {
            return Ok(Some(version));
        }
        Ok(self.kept(session, key)?.into_iter().find(|kept| *kept >= version))
    }

    /// The versions in a key's history, oldest first.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn kept(&self, session: &SessionId, key: &Key) -> Result<Vec<Version>> {
        Ok(self.kept_past(session, key)?.into_iter().filter_map(Past::version).collect())
    }

    /// Is this version in a key's history? No change is on its way there.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn is_kept(&self, session: &SessionId, key: &Key, version: Version) -> Result<bool> {
        let place = paths::history(session, key.as_str(), version);
        match self.disk.stat(&place) {
            Err(e) if tree::is_missing(&e) => Ok(false),
            other => {
                other.map(|stat| stat.form == Form::File).map_err(|e| EngineError::io(format!("reading {place}"), e))
            }
        }
    }

    /// Is this very version in a key's history, and no other that had its number under that name?
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn is_kept_itself(&self, session: &SessionId, key: &Key, mark: &Mark) -> Result<bool> {
        let kept = self.mark_at(&paths::history(session, key.as_str(), mark.version))?;
        Ok(kept.is_some_and(|kept| kept.seq == mark.seq))
    }

    /// Everything in a key's history: versions, then drafts, oldest first.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn kept_past(&self, session: &SessionId, key: &Key) -> Result<Vec<Past>> {
        let place = paths::history_key(session, key.as_str());
        let names = self.names_in(&place)?;
        let files = names.into_iter().filter(|(_, form)| *form == Form::File);
        let mut past: Vec<_> = files.filter_map(|(name, _)| paths::past_of(name.to_str()?)).collect();
        past.extend(self.waiting_in(session, &place).iter().filter_map(|name| paths::past_of(name)));
        past.sort_unstable();
        past.dedup();
        Ok(past)
    }

    /// The names in a directory under which something is in history, sorted.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn kept_names(&self, session: &SessionId, dir: &Dir) -> Result<Vec<String>> {
        let place = paths::history_dir(session, dir.as_str());
        let shown = |name: &str| name.strip_prefix(['d', 'k']).filter(|shown| !shown.is_empty()).map(str::to_owned);
        let waiting = self.waiting_in(session, &place);
        let mut kept: BTreeSet<_> =
            waiting.iter().filter_map(|path| shown(path.split('/').next().unwrap_or_default())).collect();
        for (name, form) in self.names_in(&place)? {
            let Some(name) = name.to_str().filter(|_| form == Form::Dir) else { continue };
            // Of one that has been emptied the directory may stay.
            if let Some(shown) = shown(name)
                && !kept.contains(&shown)
                && !self.names_in(&format!("{place}/{name}"))?.is_empty()
            {
                kept.insert(shown);
            }
        }
        Ok(kept.into_iter().collect())
    }

    /// The paths below a place in history of lost drafts that could not be put there yet.
    fn waiting_in(&self, session: &SessionId, place: &str) -> Vec<String> {
        let Some(known) = self.known(session).filter(|known| known.is_stuck()) else { return Vec::new() };
        let below = |path: &String| path.strip_prefix(place)?.strip_prefix('/').map(str::to_owned);
        known.stuck().shown.keys().filter_map(below).collect()
    }

    /// One of them.
    fn waiting(&self, session: &SessionId, place: &str) -> Option<Snapshot> {
        self.known(session).filter(|known| known.is_stuck())?.stuck().value(place)
    }

    fn names_in(&self, place: &str) -> Result<Vec<(OsString, Form)>> {
        match self.disk.read_dir(place) {
            Err(e) if tree::is_missing(&e) => Ok(Vec::new()),
            other => other.map_err(|e| EngineError::io(format!("reading {place}"), e)),
        }
    }

    /// What `stat` needs of something in a key's history.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn kept_entry(&self, session: &SessionId, key: &Key, past: Past) -> Result<Option<Entry>> {
        let place = paths::past(session, key.as_str(), past);
        if let Some(waiting) = self.waiting(session, &place) {
            return Ok(Some(entry_of(waiting.head)));
        }
        match self.disk.stat(&place) {
            Ok(stat) if stat.form == Form::File => Ok(Some(Entry {
                kind: Kind::File,
                size_bytes: stat.size_bytes,
                blocks: stat.blocks,
                attributes: look::plain(&stat),
            })),
            Err(e) if !tree::is_missing(&e) => Err(EngineError::io(format!("reading {place}"), e)),
            _ => Ok(None),
        }
    }

    /// What there is to say of something in a key's history.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn kept_head(&self, session: &SessionId, key: &Key, past: Past) -> Result<Option<Head>> {
        let place = paths::past(session, key.as_str(), past);
        if let Some(waiting) = self.waiting(session, &place) {
            return Ok(Some(waiting.head));
        }
        Ok(self.find_kept(&place, past)?.map(|kept| kept.head))
    }

    /// Something in a key's history with its bytes, which are checked.
    ///
    /// # Errors
    /// [`EngineError::Io`]; [`EngineError::Damaged`] when they are not those that were committed.
    pub(super) fn open_kept(&self, session: &SessionId, key: &Key, past: Past) -> Result<Option<Snapshot>> {
        let place = paths::past(session, key.as_str(), past);
        if let Some(waiting) = self.waiting(session, &place) {
            return Ok(Some(waiting));
        }
        let Some(KeptFile { found, mark, head }) = self.find_kept(&place, past)? else { return Ok(None) };
        if let Some(mark) = &mark {
            check(&found, mark, (key, past), &place)?;
        }
        Ok(Some(Snapshot { head, content: std::sync::Arc::new(FileContent(found.file)) }))
    }

    fn find_kept(&self, place: &str, past: Past) -> Result<Option<KeptFile>> {
        let Some((found, mark)) = self.marked_at(place)? else { return Ok(None) };
        let version = past.version().unwrap_or(0);
        let head = Head {
            version,
            appends_since: mark.as_ref().map_or(version, |mark| mark.since),
            seq: mark.as_ref().map_or(0, |mark| mark.seq),
            size_bytes: found.stat.size_bytes,
            writer: mark.as_ref().map(|mark| mark.writer.clone()).unwrap_or_default(),
            committed_at_s: mark.as_ref().map_or(0, |mark| mark.at_s),
            attributes: look::attributes(&*found.file, &found.stat)?,
        };
        Ok(Some(KeptFile { found, mark, head }))
    }
}

/// A file in history, and what there is to say of it.
struct KeptFile {
    found: Found,
    mark: Option<Mark>,
    head: Head,
}

/// Are the bytes of a file those that its mark speaks of, and does it speak of this? Nobody but a failing disk changes
/// them.
///
/// # Errors
/// [`EngineError::Damaged`]: not so; [`EngineError::Io`].
pub(super) fn check(found: &Found, mark: &Mark, (key, past): (&Key, Past), place: &str) -> Result<()> {
    let read =
        |at, part: &mut [u8]| found.file.read_at(at, part).map_err(|e| EngineError::io(format!("reading {place}"), e));
    let is_whole = mark.size == found.stat.size_bytes && checksum(mark.size, read)? == mark.crc;
    if mark.is_of_past(past) && is_whole {
        return Ok(());
    }
    let what = match past {
        Past::Version(version) => format!("its bytes are not those of version {version} of '{key}'"),
        Past::Draft(..) => format!("its bytes are not those of the draft of '{key}' that was kept"),
    };
    Err(EngineError::Damaged { place: place.to_owned(), what })
}
