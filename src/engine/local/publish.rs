//! From a committed record to files in their places, by renames only. The same steps run after a commit and in
//! recovery, so each looks first at what is there: its own work, what it replaces, or a stranger's.
//! Must not decide whether a change is allowed: it is committed.

use super::super::{Attributes, EngineError, Result, Snapshot};
use super::disk::{Access, DiskFile, FileId, Stat};
use super::draft::write_over;
use super::look::{self, Found, Look};
use super::mark::{Mark, Span};
use super::record::{Act, Append, Body, Record, Value};
use super::replay::{Known, Replay};
use super::session::Session;
use super::{LocalEngine, ROUNDS_MAX, paths, stage, tree};
use crate::words::{Key, SessionId, Version};

/// What publication works with beside the record.
#[derive(Debug)]
pub(super) struct Work<'a> {
    /// The record's body.
    pub(super) body: &'a [u8],
    /// The staged value, where the commit still has it open.
    pub(super) draft: Option<&'a dyn DiskFile>,
    /// What the commit found in the value's place. The exchange checks it again, so it need not be looked at twice. Of an
    /// append: what it goes behind, also when a program beside the store has replaced that since.
    pub(super) judged: Option<&'a Found>,
    /// What an append that waited for its sync goes behind, likewise.
    pub(super) behind: Option<&'a Snapshot>,
    /// It is the first attempt: the staged sidecar is as it was made.
    pub(super) first: bool,
    /// The change is published again, after a crash.
    pub(super) replay: Option<&'a Replay>,
}

impl<'a> Work<'a> {
    /// To publish from the record alone.
    pub(super) fn again(body: &'a [u8], replay: Option<&'a Replay>) -> Self {
        Self { body, draft: None, judged: None, behind: None, first: false, replay }
    }

    /// Is the directory that a record of before a crash makes or changes removed by a later one?
    fn goes(&self, record: &Record, dir: &str) -> bool {
        self.replay.is_some_and(|replay| replay.removes_dir(&record.session, dir) > Some(record.seq))
    }
}

/// Whose file is in a value's place.
enum Whose {
    /// It is this version, or this version with appends.
    This,
    /// One of ours that this version replaces.
    Before(Version),
    /// One of ours that came later.
    Later,
    /// Not one of ours, or changed since: it stays, as the next version.
    Stranger,
}

/// What the file at a key's place is.
pub(super) enum Held<'f> {
    /// A version of ours, whole or torn.
    Ours(&'f Mark),
    /// What power left of a file that was being written: nobody's value.
    Remains,
    /// Not ours, or changed since.
    Stranger,
}

/// Is a file where a directory would have to be, or the other way round?
fn is_in_the_way(e: &EngineError) -> bool {
    matches!(e, EngineError::Io { source, .. }
        if matches!(source.raw_os_error(), Some(libc::ENOTDIR | libc::EISDIR | libc::EEXIST)))
}

/// Makes the error of a disk operation, with its place.
pub(super) fn io(doing: &str, place: &str) -> impl Fn(std::io::Error) -> EngineError {
    let doing = format!("{doing} {place}");
    move |e| EngineError::io(doing.clone(), e)
}

impl LocalEngine {
    /// Puts a committed change in its place. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`EngineError::Io`], [`EngineError::NoSpace`]: part of it may be done; doing it again does the rest.
    pub(super) fn publish(&self, s: &Session, record: &Record, work: &Work<'_>) -> Result<()> {
        self.put_in_place(s, record, work)?;
        if work.replay.is_some() { self.prune_again(record) } else { Ok(()) }
    }

    fn put_in_place(&self, s: &Session, record: &Record, work: &Work<'_>) -> Result<()> {
        match &record.act {
            Act::Put(value) => {
                let _alone = s.publishing(value.key.as_str());
                self.place(record, value, work)
            }
            Act::Append(append) => {
                let _alone = s.publishing(append.key.as_str());
                self.extend(record, append, work)
            }
            Act::Delete { key, over } => {
                let _alone = s.publishing(key.as_str());
                self.take_away(record, key, *over, work)
            }
            Act::Rename { from, over_from, value } => {
                let _alone = s.publishing_names();
                self.move_value(record, from, *over_from, value, work)
            }
            Act::RenameDir { from, to, floors } => {
                let _alone = s.publishing_names();
                self.move_dir(&record.session, from, to, floors)
            }
            Act::MakeDir { dir, kept } => {
                let _alone = s.publishing_names();
                self.make_dir(&record.session, dir, kept, work.goes(record, dir.as_str()))
            }
            Act::RemoveDir { dir } => {
                let _alone = s.publishing_names();
                self.remove_dir(&record.session, dir).inspect(|()| s.forget_policy())
            }
            Act::Attributes { path, version, set } => {
                let _alone = s.publishing(path);
                if version.is_none() && work.goes(record, path) {
                    return Ok(());
                }
                self.change_attributes(&record.session, path, *version, set, work)
            }
            Act::Declare { key, version } => {
                let _alone = s.publishing(key.as_str());
                self.declare(record, key, *version, work)
            }
            Act::Adopt { key, version, size, crc, mtime_ns, .. } => {
                let _alone = s.publishing(key.as_str());
                let span = Span { version: *version, since: *version, size: *size, crc: *crc, mtime_ns: *mtime_ns };
                self.mark_stranger(record, key, span, work)
            }
            Act::Policy { policy } => self.write_policy(record, *policy).inspect(|()| s.forget_policy()),
            Act::Drop(draft) => {
                let _alone = s.publishing(draft.key.as_str());
                self.keep_lost(record, draft, work)
            }
        }
    }

    /// Whose file is at the place of a value that is to be published?
    fn whose(session: &SessionId, found: &Found, value: &Value, replay: Option<&Replay>) -> Whose {
        match replay.and_then(|replay| replay.known(found.stat.id, session, &value.key, value.version)) {
            Some(Known::This) => return Whose::This,
            Some(Known::Before(version)) => return Whose::Before(found.grown_from(version)),
            Some(Known::Later) => return Whose::Later,
            Some(Known::Another) | None => {}
        }
        match Self::held(session, found, &value.key, replay) {
            Held::Stranger => Whose::Stranger,
            Held::Remains => Whose::Before(0),
            Held::Ours(mark) if mark.covers(value.version) => Whose::This,
            Held::Ours(mark) if mark.version < value.version => Whose::Before(mark.version),
            Held::Ours(_) => Whose::Later,
        }
    }

    /// What the file at a key's place is, as far as its mark and the journal tell.
    pub(super) fn held<'f>(session: &SessionId, found: &'f Found, key: &Key, replay: Option<&Replay>) -> Held<'f> {
        let lost = replay.is_some_and(|replay| replay.lost);
        let Some(mark) = &found.mark else {
            let staged = replay.and_then(|replay| replay.known(found.stat.id, session, key, 0)).is_some();
            return if lost && (staged || found.is_draft) { Held::Remains } else { Held::Stranger };
        };
        // A file of ours that a crash tore has its mark's time, or an append of ours was under way; a program that
        // changed it in place has left its own time.
        let torn = |replay: &Replay| {
            let end = replay.appended(session, key, mark.version);
            mark.mtime_ns == found.stat.mtime_ns || end.is_some_and(|end| found.stat.size_bytes <= end)
        };
        if mark.fits(&found.stat) || replay.is_some_and(torn) {
            Held::Ours(mark)
        } else if lost {
            // It was to be written again for another value.
            Held::Remains
        } else {
            Held::Stranger
        }
    }

    /// Puts a whole value in its place, and its sidecar beside it.
    fn place(&self, record: &Record, value: &Value, work: &Work<'_>) -> Result<()> {
        if self.place_value(record, value, work)? {
            return self.place_sidecar(record, &value.key, work);
        }
        tree::unlink(&*self.disk, &paths::draft_sidecar(&record.operation))
    }

    /// `true`: the value is this version now. `false`: another's is there, this version is in history.
    fn place_value(&self, record: &Record, value: &Value, work: &Work<'_>) -> Result<bool> {
        let target = paths::value(&record.session, value.key.as_str());
        let draft = paths::draft(&record.operation);
        let mut judged = work.judged;
        for _ in 0..ROUNDS_MAX {
            let look = match judged {
                Some(_) => Look::Nothing,
                None => look::look_at(&*self.disk, &target, Access::Read)?,
            };
            let (whose, found) = match (judged.take(), &look) {
                (Some(found), _) | (None, Look::File(found)) => {
                    (Self::whose(&record.session, found, value, work.replay), Some(found))
                }
                (None, Look::Nothing) => (Whose::Before(0), None),
                (None, Look::Dir | Look::InTheWay) => (Whose::Stranger, None),
            };
            match (whose, found) {
                (Whose::This, Some(found)) => {
                    if let Some(replay) = work.replay {
                        self.mend(record, value, work.body, found, &target, replay)?;
                    }
                    if self.clear_draft(record, value, found.stat.id)? {
                        return Ok(false);
                    }
                    // The sidecar of a later append is that append's own to write.
                    return Ok(found.mark.as_ref().is_none_or(|mark| mark.version <= value.version));
                }
                (Whose::Before(version), found) => {
                    let Some(id) = self.ready_draft(record, value, work)? else {
                        // Published and replaced before. What is at the target was put there again by earlier records.
                        self.mend_kept(record, value, work)?;
                        if found.is_some() && work.replay.is_some() {
                            self.take_away(record, &value.key, value.version - 1, work)?;
                        }
                        return Ok(false);
                    };
                    let placed = match found {
                        Some(found) => self.exchange(&draft, id, &target, &found.stat)?,
                        None => match self.place_new(&draft, &target) {
                            Err(e) if is_in_the_way(&e) => {
                                // A later change, or a program beside the store, has put a file where this one's
                                // directory was.
                                self.keep_new(record, &value.key, value.version, &draft)?;
                                return Ok(false);
                            }
                            other => other?,
                        },
                    };
                    if placed {
                        match (version, found) {
                            (0, Some(_)) => tree::unlink(&*self.disk, &draft)?,
                            (0, None) => {}
                            _ => self.keep(record, &value.key, version, value.version, &draft)?,
                        }
                        return Ok(true);
                    }
                }
                (Whose::Later, _) if self.mend_kept(record, value, work)? => return Ok(false),
                (Whose::Later | Whose::Stranger | Whose::This, _) => {
                    match self.ready_draft(record, value, work)? {
                        Some(_) => self.keep(record, &value.key, value.version, value.version, &draft)?,
                        // It went there before power was lost, which may have taken its mark.
                        None => drop(self.mend_kept(record, value, work)?),
                    }
                    return Ok(false);
                }
            }
        }
        Err(EngineError::io(
            format!("publishing {target}: programs beside the store replace it without end"),
            std::io::Error::from_raw_os_error(libc::EBUSY),
        ))
    }

    /// `false`: something came to the place meanwhile.
    fn place_new(&self, draft: &str, target: &str) -> Result<bool> {
        let renamed = match self.disk.rename_new(draft, target) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                tree::make_dirs_above(&*self.disk, target)?;
                self.disk.rename_new(draft, target)
            }
            other => other,
        };
        match renamed {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(io("publishing", target)(e)),
        }
    }

    /// Exchanges the draft with what is in its place. What comes out must be what was judged; a stranger's that came
    /// in between goes back. `false`: look again.
    pub(super) fn exchange(&self, draft: &str, id: FileId, target: &str, judged: &Stat) -> Result<bool> {
        match self.disk.exchange(draft, target) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(io("publishing", target))?,
        }
        let out = self.disk.stat(draft).map_err(io("checking what was replaced at", target))?;
        let same = |stat: &Stat| (stat.id, stat.size_bytes, stat.mtime_ns);
        if same(&out) == same(judged) {
            return Ok(true);
        }
        self.disk.exchange(draft, target).map_err(io("giving back", target))?;
        if self.disk.stat(draft).map_err(io("checking what was given back at", target))?.id != id {
            // A second stranger had replaced ours meanwhile and is in the draft now: it is the newer one, and replaces
            // the first as it meant to. Ours went with its rename.
            self.disk.exchange(draft, target).map_err(io("giving back", target))?;
            tree::unlink(&*self.disk, draft)?;
        }
        Ok(false)
    }

    /// Puts bytes, attributes and mark of a value right that a crash tore; `place`: where the file is now.
    fn mend(
        &self,
        record: &Record,
        value: &Value,
        body: &[u8],
        found: &Found,
        place: &str,
        replay: &Replay,
    ) -> Result<()> {
        let target = paths::value(&record.session, value.key.as_str());
        let inline = value.body == Body::Inline;
        let Some(mark) = found.mark.as_ref().filter(|mark| mark.covers(value.version)) else {
            if inline {
                let file = self.disk.open(place, Access::Write).map_err(io("opening", place))?;
                write_over(&*file, found.stat.size_bytes, body)?;
            }
            look::set_attributes(&*found.file, &value.kept.attributes(), place)?;
            let mtime_ns = found.file.stat().map_err(io("reading", place))?.mtime_ns;
            return record.mark(&target, Span { mtime_ns, ..value.span() }).write(&*found.file, place);
        };
        if mark.version > value.version {
            // What was appended puts size and time right.
            if inline {
                self.mend_range(place, found, 0, body, found.stat.mtime_ns)?;
            }
            let attributes = value.kept.attributes();
            return if replay.lost { look::set_attributes(&*found.file, &attributes, place) } else { Ok(()) };
        }
        let grown = replay.appended(&record.session, &value.key, value.version);
        let appended = grown.is_some();
        if inline {
            // Longer than anything that was put behind it: of what the file held before it was written again.
            if found.stat.size_bytes > grown.unwrap_or(value.size) {
                let file = self.disk.open(place, Access::Write).map_err(io("opening", place))?;
                file.set_len(value.size).map_err(io("cutting", place))?;
            }
            self.mend_range(place, found, 0, body, mark.mtime_ns)?;
        }
        if replay.lost {
            look::set_attributes(&*found.file, &value.kept.attributes(), place)?;
        }
        if !appended && found.file.stat().map_err(io("reading", place))?.mtime_ns != mark.mtime_ns {
            found.file.set_mtime(mark.mtime_ns).map_err(io("writing", place))?;
        }
        Ok(())
    }

    fn mend_range(&self, place: &str, found: &Found, offset: u64, bytes: &[u8], mtime_ns: i64) -> Result<()> {
        let mut there = vec![0; bytes.len()];
        let got = found.file.read_at(offset, &mut there).map_err(io("reading", place))?;
        if got == bytes.len() && there == bytes {
            return Ok(());
        }
        tracing::info!("{place}: bytes that a crash took are put back");
        let file = self.disk.open(place, Access::Write).map_err(io("opening", place))?;
        file.write_at(offset, bytes).map_err(io("writing", place))?;
        file.set_mtime(mtime_ns).map_err(io("writing", place))
    }

    /// Puts a version right that a crash tore and that is in history by now, alone or with appends after it.
    /// `false`: it is not there.
    fn mend_kept(&self, record: &Record, value: &Value, work: &Work<'_>) -> Result<bool> {
        let Some(replay) = work.replay else { return Ok(false) };
        let Some(kept) = self.kept_with(&record.session, &value.key, value.version)? else { return Ok(false) };
        let place = paths::history(&record.session, value.key.as_str(), kept);
        let Some(found) = self.look_at_kept(&record.session, &value.key, &place)? else { return Ok(false) };
        let covers = found.mark.as_ref().is_some_and(|mark| mark.covers(value.version));
        let known = replay.known(found.stat.id, &record.session, &value.key, value.version);
        // A file that was changed in place may be a later version by now, also where it has lost the mark of that.
        let covers = covers && known != Some(Known::Later);
        let staged = known == Some(Known::This) && found.mark.as_ref().is_none_or(|mark| mark.version < value.version);
        if !covers && !staged {
            return Ok(false);
        }
        self.mend(record, value, work.body, &found, &place, replay)?;
        Ok(true)
    }

    /// A file in a key's history. Its mark was put on it at its key's path.
    pub(super) fn look_at_kept(&self, session: &SessionId, key: &Key, place: &str) -> Result<Option<Found>> {
        let Look::File(found) = look::look_at(&*self.disk, place, Access::Write)? else { return Ok(None) };
        let target = paths::value(session, key.as_str());
        let mark = Mark::read(&*found.file).map_err(io("reading", place))?;
        Ok(Some(Found { mark: mark.filter(|mark| mark.is_of(&target)), ..found }))
    }

    /// The draft of a value that is in its place already: the version it replaced, or nothing of worth. `true`: it was a
    /// stranger's value, which an attempt cut off had no time to give back; it is in the place now, and ours in history.
    fn clear_draft(&self, record: &Record, value: &Value, placed: FileId) -> Result<bool> {
        let draft = paths::draft(&record.operation);
        let Look::File(left) = look::look_at(&*self.disk, &draft, Access::Read)? else { return Ok(false) };
        let source = match &record.act {
            Act::Rename { from, .. } => self.disk.stat(&paths::value(&record.session, from.as_str())).ok(),
            _ => None,
        };
        if [Some(placed), Some(value.file), source.map(|source| source.id)].contains(&Some(left.stat.id)) {
            tree::unlink(&*self.disk, &draft)?;
            return Ok(false);
        }
        let target = paths::value(&record.session, value.key.as_str());
        match Mark::read(&*left.file).map_err(io("reading", &draft))?.filter(|mark| mark.is_of(&target)) {
            Some(mark) if mark.version < value.version => {
                self.keep(record, &value.key, mark.version, value.version, &draft)?;
                Ok(false)
            }
            // Staged by an attempt that got no further.
            None if (left.stat.size_bytes, left.stat.mtime_ns) == (value.size, value.kept.mtime_ns) => {
                tree::unlink(&*self.disk, &draft)?;
                Ok(false)
            }
            Some(_) => {
                tree::unlink(&*self.disk, &draft)?;
                Ok(false)
            }
            None => {
                self.disk.exchange(&draft, &target).map_err(io("giving back", &target))?;
                self.keep(record, &value.key, value.version, value.version, &draft)?;
                Ok(true)
            }
        }
    }

    /// Puts bytes after a published value. After a crash that value may be in history by now.
    fn extend(&self, record: &Record, append: &Append, work: &Work<'_>) -> Result<()> {
        let target = paths::value(&record.session, append.key.as_str());
        if let Look::File(found) = look::look_at(&*self.disk, &target, Access::Write)?
            && let Some(version) = self.extend_at(record, append, work, &found, &target)?
        {
            let there = self.disk.stat(&target).is_ok_and(|stat| stat.id == found.stat.id);
            if version == append.version && there {
                return self.place_sidecar(record, &append.key, work);
            }
            if version == append.version {
                // It was replaced before the bytes were written.
                self.keep_appended(record, append, work, &found)?;
            }
        } else if work.replay.is_some() {
            self.extend_kept(record, append, work)?;
        } else if let Some(base) = work.judged {
            self.keep_appended(record, append, work, base)?;
        } else if let Some(base) = work.behind {
            let read = |at, part: &mut [u8]| base.content.read_at(at, part);
            self.keep_with(record, append, work, &base.head.attributes, read)?;
        }
        tree::unlink(&*self.disk, &paths::draft_sidecar(&record.operation))
    }

    /// The version the file is afterwards; `None`: it is another's, or another version.
    fn extend_at(
        &self,
        record: &Record,
        append: &Append,
        work: &Work<'_>,
        found: &Found,
        place: &str,
    ) -> Result<Option<Version>> {
        let target = paths::value(&record.session, append.key.as_str());
        let (session, key) = (&record.session, &append.key);
        if work.replay.is_some_and(|replay| replay.is_changed(found.stat.id, session, key, append.version)) {
            return Ok(None);
        }
        let last = work.replay.and_then(|replay| replay.appended(session, key, append.over));
        let end = append.offset.saturating_add(append.len);
        match found.mark.as_ref() {
            Some(mark) if mark.covers(append.version) => {
                if let Some(replay) = work.replay {
                    let whole = mark.version == append.version && replay.appended(session, key, mark.version).is_none();
                    self.mend_range(place, found, append.offset, work.body, mark.mtime_ns)?;
                    if whole && found.stat.size_bytes > end {
                        found.file.set_len(end).map_err(io("cutting", place))?;
                    }
                    if whole && found.stat.mtime_ns != append.mtime_ns {
                        found.file.set_mtime(append.mtime_ns).map_err(io("writing", place))?;
                        let mtime_ns = found.file.stat().map_err(io("reading", place))?.mtime_ns;
                        Mark { mtime_ns, ..mark.clone() }.write(&*found.file, place)?;
                    }
                }
                Ok(Some(mark.version))
            }
            // Not more than ours may be behind the end: whatever else is there, a stranger wrote.
            Some(mark)
                if mark.version == append.over
                    && mark.size == append.offset
                    && found.stat.size_bytes <= last.unwrap_or(end) =>
            {
                found.file.write_at(append.offset, work.body).map_err(io("appending to", place))?;
                found.file.set_mtime(append.mtime_ns).map_err(io("appending to", place))?;
                let mtime_ns = found.file.stat().map_err(io("appending to", place))?.mtime_ns;
                let (version, since, crc) = (append.version, append.since, append.crc);
                let span = Span { version, since, size: end, mtime_ns, crc };
                record.mark(&target, span).write(&*found.file, place)?;
                Ok(Some(version))
            }
            _ => Ok(None),
        }
    }

    /// The value was replaced from beside the store in this moment: with what was appended it is a version in history.
    fn keep_appended(&self, record: &Record, append: &Append, work: &Work<'_>, base: &Found) -> Result<()> {
        let target = paths::value(&record.session, append.key.as_str());
        let read = |at, part: &mut [u8]| base.file.read_at(at, part).map_err(io("reading", &target));
        self.keep_with(record, append, work, &look::attributes(&*base.file, &base.stat)?, read)
    }

    /// The same with what `read` gives.
    fn keep_with(
        &self,
        record: &Record,
        append: &Append,
        work: &Work<'_>,
        attributes: &Attributes,
        read: impl Fn(u64, &mut [u8]) -> Result<usize>,
    ) -> Result<()> {
        let draft = paths::draft(&record.operation);
        let target = paths::value(&record.session, append.key.as_str());
        let file = tree::create(&*self.disk, &draft, tree::PRIVATE).map_err(io("keeping", &target))?;
        stage::copy(append.offset, &target, read, |at, part| file.write_at(at, part).map_err(io("keeping", &target)))?;
        file.write_at(append.offset, work.body).map_err(io("keeping", &target))?;
        look::set_first_attributes(&*file, attributes, &draft)?;
        file.set_mtime(append.mtime_ns).map_err(io("keeping", &target))?;
        let mtime_ns = file.stat().map_err(io("keeping", &target))?.mtime_ns;
        let size = append.offset.saturating_add(append.len);
        let span = Span { version: append.version, since: append.since, size, mtime_ns, crc: append.crc };
        record.mark(&target, span).write(&*file, &draft)?;
        self.keep_new(record, &append.key, append.version, &draft)
    }

    fn extend_kept(&self, record: &Record, append: &Append, work: &Work<'_>) -> Result<()> {
        let with = self.kept_with(&record.session, &append.key, append.version)?;
        for version in with.into_iter().chain([append.over]) {
            let place = paths::history(&record.session, append.key.as_str(), version);
            let Some(found) = self.look_at_kept(&record.session, &append.key, &place)? else { continue };
            if self.extend_at(record, append, work, &found, &place)?.is_some() {
                if version == append.over {
                    let to = paths::history(&record.session, append.key.as_str(), append.version);
                    self.disk.rename(&place, &to).map_err(io("keeping", &to))?;
                }
                break;
            }
        }
        Ok(())
    }

    /// Moves a deleted value to history; a stranger's that came meanwhile stays.
    fn take_away(&self, record: &Record, key: &Key, over: Version, work: &Work<'_>) -> Result<()> {
        let target = paths::value(&record.session, key.as_str());
        let draft = paths::draft(&record.operation);
        let strangers = self.take_left(record, key, over, &draft, &target)?;
        let Look::File(found) = look::look_at(&*self.disk, &target, Access::Read)? else {
            return if strangers { self.give_back(&draft, &target) } else { self.remove_sidecar(&record.session, key) };
        };
        let known = work.replay.and_then(|replay| replay.known(found.stat.id, &record.session, key, over));
        let version = match (known, Self::held(&record.session, &found, key, work.replay)) {
            (Some(Known::This), _) => over,
            (Some(Known::Before(version)), _) => found.grown_from(version),
            (Some(Known::Another) | None, Held::Ours(mark)) if mark.version <= over => mark.version,
            (Some(Known::Another) | None, Held::Remains) => 0,
            _ if strangers => return tree::unlink(&*self.disk, &draft),
            _ => return Ok(()),
        };
        let taken = if strangers { self.disk.exchange(&target, &draft) } else { self.disk.rename_new(&target, &draft) };
        match taken {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && strangers => return self.give_back(&draft, &target),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return self.remove_sidecar(&record.session, key),
            other => other.map_err(io("removing", &target))?,
        }
        if self.disk.stat(&draft).map_err(io("removing", &target))?.id != found.stat.id {
            // A stranger's value came in between, after the one that was left, where one was.
            if strangers {
                self.disk.exchange(&target, &draft).map_err(io("giving back", &target))?;
                return tree::unlink(&*self.disk, &draft);
            }
            return self.give_back(&draft, &target);
        }
        self.remove_sidecar(&record.session, key)?;
        match version {
            0 => tree::unlink(&*self.disk, &draft),
            _ => self.keep(record, key, version, over, &draft),
        }
    }

    /// What an attempt that failed between two renames has left in its draft: a version of ours goes to history. `true`: it
    /// is a stranger's value, which is to go back.
    fn take_left(&self, record: &Record, key: &Key, over: Version, draft: &str, target: &str) -> Result<bool> {
        let Look::File(left) = look::look_at(&*self.disk, draft, Access::Read)? else { return Ok(false) };
        match Mark::read(&*left.file).map_err(io("reading", draft))?.filter(|mark| mark.is_of(target)) {
            Some(mark) if mark.version <= over => {
                self.keep(record, key, mark.version, over, draft)?;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// Puts back a stranger's value that was taken for ours, unless a newer one is there by now.
    fn give_back(&self, draft: &str, target: &str) -> Result<()> {
        match self.disk.rename_new(draft, target) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => tree::unlink(&*self.disk, draft),
            other => other.map_err(io("giving back", target)),
        }
    }

    fn move_value(
        &self,
        record: &Record,
        from: &Key,
        over_from: Version,
        value: &Value,
        work: &Work<'_>,
    ) -> Result<()> {
        let source = paths::value(&record.session, from.as_str());
        let draft = paths::draft(&record.operation);
        // The source is known by its inode, which the mark below is put on too, or by its own mark.
        let judged = match look::look_at(&*self.disk, &source, Access::Read)? {
            Look::File(found) => {
                let linked = self.disk.stat(&draft).ok().filter(|_| value.body == Body::Source);
                let held = Self::held(&record.session, &found, from, work.replay);
                let itself = value.body == Body::Source && found.stat.id == value.file;
                let ours = itself || matches!(held, Held::Ours(mark) if mark.version == over_from);
                if value.body == Body::Source && ours && linked.is_none() && work.replay.is_some() {
                    self.disk.link(&source, &draft).map_err(io("linking", &source))?;
                }
                (ours || linked.is_some_and(|stat| stat.id == found.stat.id)).then_some(found.stat.id)
            }
            _ => None,
        };
        self.place(record, value, work)?;
        if work.replay.is_some() {
            // Published again under a later value, it was kept; but it was moved.
            tree::unlink(&*self.disk, &paths::history(&record.session, from.as_str(), over_from))?;
        }
        let target = paths::value(&record.session, value.key.as_str());
        match self.disk.stat(&source) {
            Ok(stat) if Some(stat.id) == judged || self.disk.stat(&target).is_ok_and(|it| it.id == stat.id) => {
                tree::unlink(&*self.disk, &source)?;
                self.remove_sidecar(&record.session, from)
            }
            // An attempt before was cut off between the two.
            Err(e) if tree::is_missing(&e) => self.remove_sidecar(&record.session, from),
            // What a stranger's value replaced that was moved away: an earlier record has put it there again.
            Ok(_) if work.replay.is_some() && self.disk.stat(&draft).is_err_and(|e| tree::is_missing(&e)) => {
                self.take_away(record, from, over_from, work)
            }
            _ => Ok(()),
        }
    }
}
