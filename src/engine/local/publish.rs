//! From a committed record to files in their places, by renames only. The same steps run after a commit and in
//! recovery, so each looks first at what is there: its own work, what it replaces, or a stranger's.
//! Must not decide whether a change is allowed: it is committed.

use super::super::{EngineError, Result};
use super::disk::{Access, DiskFile, Stat};
use super::look::{self, Found, Look};
use super::mark::{Mark, Span};
use super::record::{Act, Append, Body, Record, Value};
use super::recover::Replay;
use super::session::Session;
use super::{LocalEngine, ROUNDS_MAX, paths, tree};
use crate::words::{Key, Version};

/// What publication works with beside the record.
#[derive(Debug)]
pub(super) struct Work<'a> {
    /// The record's body.
    pub(super) body: &'a [u8],
    /// The staged value, where the commit still has it open.
    pub(super) draft: Option<&'a dyn DiskFile>,
    /// What the commit found in the value's place. The exchange checks it again, so it need not be looked at twice.
    pub(super) judged: Option<&'a Found>,
    /// It is the first attempt: the staged sidecar is as it was made.
    pub(super) first: bool,
    /// The change is published again, after a crash.
    pub(super) replay: Option<&'a Replay<'a>>,
}

impl<'a> Work<'a> {
    /// To publish from the record alone.
    pub(super) fn again(body: &'a [u8], replay: Option<&'a Replay<'a>>) -> Self {
        Self { body, draft: None, judged: None, first: false, replay }
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
                self.make_dir(&record.session, dir, kept)
            }
            Act::RemoveDir { dir } => {
                let _alone = s.publishing_names();
                self.remove_dir(&record.session, dir)
            }
            Act::Attributes { path, version, set } => {
                let _alone = s.publishing(path);
                self.change_attributes(&record.session, path, *version, set)
            }
            Act::Declare { key, version } => {
                let _alone = s.publishing(key.as_str());
                self.declare(record, key, *version, work)
            }
            Act::Adopt { key, version, size, crc, mtime_ns, .. } => {
                let _alone = s.publishing(key.as_str());
                let span = Span { version: *version, since: *version, size: *size, crc: *crc, mtime_ns: *mtime_ns };
                self.mark_stranger(record, key, span)
            }
            Act::Policy { policy } => self.write_policy(record, *policy),
            Act::Drop { .. } => Ok(()),
        }
    }

    fn whose(found: &Found, value: &Value, replay: Option<&Replay<'_>>) -> Whose {
        let Some(mark) = &found.mark else {
            // After a crash the rename may be there and the mark not.
            let same = (found.stat.size_bytes, found.stat.mtime_ns) == (value.size, value.kept.mtime_ns);
            return if replay.is_some() && same { Whose::This } else { Whose::Stranger };
        };
        // A file of ours that a crash tore has its mark's time, or an append of ours was under way; a program that
        // changed it in place has left its own time.
        let torn = |replay: &Replay<'_>| {
            mark.mtime_ns == found.stat.mtime_ns || replay.was_appending(&value.key, mark.version)
        };
        if !mark.fits(&found.stat) && !replay.is_some_and(torn) {
            Whose::Stranger
        } else if mark.covers(value.version) {
            Whose::This
        } else if mark.version < value.version {
            Whose::Before(mark.version)
        } else {
            Whose::Later
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
                (Some(found), _) | (None, Look::File(found)) => (Self::whose(found, value, work.replay), Some(found)),
                (None, Look::Nothing) => (Whose::Before(0), None),
                (None, Look::Dir | Look::InTheWay) => (Whose::Stranger, None),
            };
            match (whose, found) {
                (Whose::This, Some(found)) => {
                    if work.replay.is_some() {
                        self.mend(record, value, work.body, found)?;
                    }
                    if self.clear_draft(record, value, found.stat.ino)? {
                        return Ok(false);
                    }
                    // The sidecar of a later append is that append's own to write.
                    return Ok(found.mark.as_ref().is_none_or(|mark| mark.version == value.version));
                }
                (Whose::Before(version), found) => {
                    let Some(ino) = self.ready_draft(record, value, work)? else {
                        tracing::debug!(key = %value.key, version = value.version, "published and replaced before");
                        return Ok(false);
                    };
                    let placed = match found {
                        Some(found) => self.exchange(&draft, ino, &target, &found.stat)?,
                        None => self.place_new(&draft, &target)?,
                    };
                    if placed {
                        if version > 0 {
                            self.keep(&record.session, &value.key, version, value.version, &draft)?;
                        }
                        return Ok(true);
                    }
                }
                (Whose::Later, _) if self.mend_kept(record, &value.key, value.version, 0, work)? => return Ok(false),
                (Whose::Later | Whose::Stranger | Whose::This, _) => {
                    if self.ready_draft(record, value, work)?.is_some() {
                        self.keep(&record.session, &value.key, value.version, value.version, &draft)?;
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
    fn exchange(&self, draft: &str, ino: u64, target: &str, judged: &Stat) -> Result<bool> {
        match self.disk.exchange(draft, target) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(io("publishing", target))?,
        }
        let out = self.disk.stat(draft).map_err(io("checking what was replaced at", target))?;
        let same = |stat: &Stat| (stat.ino, stat.size_bytes, stat.mtime_ns);
        if same(&out) == same(judged) {
            return Ok(true);
        }
        self.disk.exchange(draft, target).map_err(io("giving back", target))?;
        if self.disk.stat(draft).map_err(io("checking what was given back at", target))?.ino != ino {
            // A second stranger had replaced ours meanwhile and is in the draft now: it is the newer one, and replaces
            // the first as it meant to. Ours went with its rename.
            self.disk.exchange(draft, target).map_err(io("giving back", target))?;
            tree::unlink(&*self.disk, draft)?;
        }
        Ok(false)
    }

    /// Puts the bytes of a value right that a crash tore.
    fn mend(&self, record: &Record, value: &Value, body: &[u8], found: &Found) -> Result<()> {
        let target = paths::value(&record.session, value.key.as_str());
        if value.body == Body::Inline {
            let mtime_ns = found.mark.as_ref().map_or(value.kept.mtime_ns, |mark| mark.mtime_ns);
            self.mend_range(&target, found, 0, body, mtime_ns)?;
        }
        if found.mark.is_none() {
            look::set_attributes(&*found.file, &value.kept.attributes(), &target)?;
            record.mark(&target, value.span()).write(&*found.file, &target)?;
        }
        Ok(())
    }

    fn mend_range(&self, target: &str, found: &Found, offset: u64, bytes: &[u8], mtime_ns: i64) -> Result<()> {
        let mut there = vec![0; bytes.len()];
        let got = found.file.read_at(offset, &mut there).map_err(io("reading", target))?;
        if got == bytes.len() && there == bytes {
            return Ok(());
        }
        tracing::info!("{target}: bytes that a crash took are put back");
        let file = self.disk.open(target, Access::Write).map_err(io("opening", target))?;
        file.write_at(offset, bytes).map_err(io("writing", target))?;
        file.set_mtime(mtime_ns).map_err(io("writing", target))
    }

    /// Puts bytes right that a crash took of a version that is in history by now, alone or with appends after it.
    /// `false`: it is not there, or there is nothing to put right.
    fn mend_kept(&self, record: &Record, key: &Key, version: Version, offset: u64, work: &Work<'_>) -> Result<bool> {
        if work.replay.is_none() {
            return Ok(false);
        }
        let kept = self.kept(&record.session, key)?;
        let Some(kept) = kept.into_iter().find(|kept| *kept >= version) else { return Ok(false) };
        let place = paths::history(&record.session, key.as_str(), kept);
        let Look::File(found) = look::look_at(&*self.disk, &place, Access::Read)? else { return Ok(false) };
        // Its mark was put on it at its key's path.
        let mark = Mark::read(&*found.file).map_err(io("reading", &place))?;
        let Some(mark) = mark.filter(|mark| mark.covers(version)) else { return Ok(false) };
        self.mend_range(&place, &found, offset, work.body, mark.mtime_ns)?;
        Ok(true)
    }

    /// The draft of a value that is in its place already: the version it replaced, or nothing of worth. `true`: it was a
    /// stranger's value, which an attempt cut off had no time to give back; it is in the place now, and ours in history.
    fn clear_draft(&self, record: &Record, value: &Value, placed: u64) -> Result<bool> {
        let draft = paths::draft(&record.operation);
        let Look::File(left) = look::look_at(&*self.disk, &draft, Access::Read)? else { return Ok(false) };
        let source = match &record.act {
            Act::Rename { from, .. } => self.disk.stat(&paths::value(&record.session, from.as_str())).ok(),
            _ => None,
        };
        if [Some(placed), source.map(|source| source.ino)].contains(&Some(left.stat.ino)) {
            tree::unlink(&*self.disk, &draft)?;
            return Ok(false);
        }
        let target = paths::value(&record.session, value.key.as_str());
        match Mark::read(&*left.file).map_err(io("reading", &draft))?.filter(|mark| mark.is_of(&target)) {
            Some(mark) if mark.version < value.version => {
                self.keep(&record.session, &value.key, mark.version, value.version, &draft)?;
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
                self.keep(&record.session, &value.key, value.version, value.version, &draft)?;
                Ok(true)
            }
        }
    }

    /// Puts bytes after a published value.
    fn extend(&self, record: &Record, append: &Append, work: &Work<'_>) -> Result<()> {
        let target = paths::value(&record.session, append.key.as_str());
        let Look::File(found) = look::look_at(&*self.disk, &target, Access::Write)? else { return Ok(()) };
        let end = append.offset.saturating_add(append.len);
        match found.mark.clone() {
            Some(mark) if mark.covers(append.version) => {
                if work.replay.is_some() {
                    self.mend_range(&target, &found, append.offset, work.body, mark.mtime_ns)?;
                }
                if mark.version == append.version {
                    return self.place_sidecar(record, &append.key, work);
                }
            }
            // Not more than ours may be behind the end: whatever else is there, a stranger wrote.
            Some(mark) if mark.version == append.over && mark.size == append.offset && found.stat.size_bytes <= end => {
                found.file.write_at(append.offset, work.body).map_err(io("appending to", &target))?;
                found.file.set_mtime(append.mtime_ns).map_err(io("appending to", &target))?;
                let stat = found.file.stat().map_err(io("appending to", &target))?;
                let span = Span {
                    version: append.version,
                    since: append.since,
                    size: end,
                    mtime_ns: stat.mtime_ns,
                    crc: append.crc,
                };
                record.mark(&target, span).write(&*found.file, &target)?;
                return self.place_sidecar(record, &append.key, work);
            }
            _ => {
                self.mend_kept(record, &append.key, append.version, append.offset, work)?;
            }
        }
        tree::unlink(&*self.disk, &paths::draft_sidecar(&record.operation))
    }

    /// Moves a deleted value to history; a stranger's that came meanwhile stays.
    fn take_away(&self, record: &Record, key: &Key, over: Version, work: &Work<'_>) -> Result<()> {
        let target = paths::value(&record.session, key.as_str());
        let draft = paths::draft(&record.operation);
        if let Look::File(left) = look::look_at(&*self.disk, &draft, Access::Read)? {
            // Left by an attempt that failed between the two renames.
            drop(left);
            self.keep(&record.session, key, over, over, &draft)?;
        }
        let Look::File(found) = look::look_at(&*self.disk, &target, Access::Read)? else {
            return self.remove_sidecar(&record.session, key);
        };
        let torn =
            |mark: &&Mark| mark.fits(&found.stat) || work.replay.is_some() && mark.mtime_ns == found.stat.mtime_ns;
        let Some(mark) = found.mark.as_ref().filter(torn).filter(|mark| mark.version <= over) else {
            return Ok(());
        };
        match self.disk.rename_new(&target, &draft) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return self.remove_sidecar(&record.session, key),
            other => other.map_err(io("removing", &target))?,
        }
        if self.disk.stat(&draft).map_err(io("removing", &target))?.ino != found.stat.ino {
            // A stranger's value came in between: it goes back, unless a newer one is there by now.
            match self.disk.rename_new(&draft, &target) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => tree::unlink(&*self.disk, &draft)?,
                other => other.map_err(io("giving back", &target))?,
            }
            return Ok(());
        }
        self.remove_sidecar(&record.session, key)?;
        self.keep(&record.session, key, mark.version, over, &draft)
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
                let ours = found.ours().is_some_and(|mark| mark.version == over_from);
                if value.body == Body::Source && ours && linked.is_none() && work.replay.is_some() {
                    self.disk.link(&source, &draft).map_err(io("linking", &source))?;
                }
                (ours || linked.is_some_and(|stat| stat.ino == found.stat.ino)).then_some(found.stat.ino)
            }
            _ => None,
        };
        self.place(record, value, work)?;
        let target = paths::value(&record.session, value.key.as_str());
        match self.disk.stat(&source) {
            Ok(stat) if Some(stat.ino) == judged || self.disk.stat(&target).is_ok_and(|it| it.ino == stat.ino) => {
                tree::unlink(&*self.disk, &source)?;
                self.remove_sidecar(&record.session, from)
            }
            // An attempt before was cut off between the two.
            Err(e) if tree::is_missing(&e) => self.remove_sidecar(&record.session, from),
            _ => Ok(()),
        }
    }
}
