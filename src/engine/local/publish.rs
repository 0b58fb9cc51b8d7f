//! From a committed record to files in their places, by renames only. The same steps run after a commit and in
//! recovery, so each looks first at what is there: its own work, what it replaces, or a stranger's.
//! Must not decide whether a change is allowed: it is committed.

use super::super::{EngineError, Result};
use super::disk::{Access, DiskFile, Form, Stat};
use super::look::{self, Found, Look};
use super::mark::{Mark, Span};
use super::record::{Act, Append, Body, Kept, KeptChange, Record, Value};
use super::recover::Replay;
use super::session::Session;
use super::{LocalEngine, ROUNDS_MAX, paths, tree};
use crate::words::{Dir, Key, SessionId, Version};

/// What publication works with beside the record.
#[derive(Debug)]
pub(super) struct Work<'a> {
    /// The record's body.
    pub(super) body: &'a [u8],
    /// The staged value, where the commit still has it open.
    pub(super) draft: Option<&'a dyn DiskFile>,
    /// What the commit found in the value's place. The exchange checks it again, so it need not be looked at twice.
    pub(super) judged: Option<&'a Found>,
    /// The change is published again, after a crash.
    pub(super) replay: Option<&'a Replay<'a>>,
}

impl<'a> Work<'a> {
    /// To publish from the record alone.
    pub(super) fn again(body: &'a [u8], replay: Option<&'a Replay<'a>>) -> Self {
        Self { body, draft: None, judged: None, replay }
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

fn io(doing: &str, place: &str) -> impl Fn(std::io::Error) -> EngineError {
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
                self.declare(record, key, *version)
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
            return self.place_sidecar(record, &value.key);
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
                    self.clear_draft(record, value, found.stat.ino)?;
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

    /// The draft of a value that is in its place already: the version it replaced, or nothing of worth.
    fn clear_draft(&self, record: &Record, value: &Value, placed: u64) -> Result<()> {
        let draft = paths::draft(&record.operation);
        if let Look::File(left) = look::look_at(&*self.disk, &draft, Access::Read)? {
            let target = paths::value(&record.session, value.key.as_str());
            let mark = Mark::read(&*left.file).map_err(io("reading", &draft))?.filter(|mark| mark.is_of(&target));
            match mark.filter(|mark| left.stat.ino != placed && mark.version < value.version) {
                Some(mark) => self.keep(&record.session, &value.key, mark.version, value.version, &draft)?,
                None => tree::unlink(&*self.disk, &draft)?,
            }
        }
        Ok(())
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
                    return self.place_sidecar(record, &append.key);
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
                return self.place_sidecar(record, &append.key);
            }
            _ => {}
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
        if let Ok(stat) = self.disk.stat(&source)
            && (Some(stat.ino) == judged || self.disk.stat(&target).is_ok_and(|target| target.ino == stat.ino))
        {
            tree::unlink(&*self.disk, &source)?;
            self.remove_sidecar(&record.session, from)?;
        }
        Ok(())
    }

    fn move_dir(&self, session: &SessionId, from: &Dir, to: &Dir, floors: &[(Key, Version)]) -> Result<()> {
        if from == to {
            return Ok(());
        }
        let (source, target) = (paths::value(session, from.as_str()), paths::value(session, to.as_str()));
        tree::remove_hidden(&*self.disk, session, to.as_str())?;
        match self.disk.rename(&source, &target) {
            Err(e) if !tree::is_missing(&e) => return Err(io("renaming", &source)(e)),
            _ => {}
        }
        let (meta_from, meta_to) = (paths::meta_dir(session, from.as_str()), paths::meta_dir(session, to.as_str()));
        tree::merge(&*self.disk, &meta_from, &meta_to)?;
        let (past_from, past_to) =
            (paths::history_dir(session, from.as_str()), paths::history_dir(session, to.as_str()));
        tree::merge(&*self.disk, &past_from, &past_to)?;
        self.mark_moved(session, from.as_str(), to.as_str(), floors)
    }

    /// Marks say where they were put: those below a renamed directory are put again.
    fn mark_moved(&self, session: &SessionId, from: &str, to: &str, floors: &[(Key, Version)]) -> Result<()> {
        let place = paths::value(session, to);
        let names = match tree::shown(&*self.disk, session, to) {
            Err(e) if tree::is_missing(&e) => return Ok(()),
            other => other.map_err(io("reading", &place))?,
        };
        for (name, form) in names {
            let (old, new) = (format!("{from}/{name}"), format!("{to}/{name}"));
            if form == Form::Dir {
                self.mark_moved(session, &old, &new, floors)?;
                continue;
            }
            let (old_place, new_place) = (paths::value(session, &old), paths::value(session, &new));
            let file = self.disk.open(&new_place, Access::Read).map_err(io("reading", &new_place))?;
            let mark = Mark::read(&*file).map_err(io("reading", &new_place))?;
            if let Some(mark) = mark.filter(|mark| mark.is_of(&old_place)) {
                let floor = floors.iter().find(|(key, _)| key.as_str() == new).map_or(0, |(_, version)| *version);
                let mark = Mark { floor: floor.max(mark.floor), ..mark.moved(&new_place) };
                mark.write(&*file, &new_place)?;
            }
        }
        Ok(())
    }

    fn make_dir(&self, session: &SessionId, dir: &Dir, kept: &Kept) -> Result<()> {
        let place = paths::value(session, dir.as_str());
        tree::make_dirs(&*self.disk, &place)?;
        let made = self.disk.open(&place, Access::Read).map_err(io("making", &place))?;
        look::set_attributes(&*made, &kept.attributes(), &place)
    }

    fn remove_dir(&self, session: &SessionId, dir: &Dir) -> Result<()> {
        let place = paths::value(session, dir.as_str());
        match tree::is_empty(&*self.disk, session, dir.as_str()) {
            Err(e) if tree::is_missing(&e) => {}
            Err(e) => return Err(io("reading", &place)(e)),
            // Something came into it from beside the store, or a later change of ours did before a crash.
            Ok(false) => return Ok(()),
            Ok(true) => {
                tree::remove_hidden(&*self.disk, session, dir.as_str())?;
                match self.disk.remove_dir(&place) {
                    Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty || tree::is_missing(&e) => {}
                    other => other.map_err(io("removing", &place))?,
                }
            }
        }
        if dir.is_root() {
            return tree::unlink(&*self.disk, &paths::policy(session));
        }
        let meta = paths::meta_dir(session, dir.as_str());
        match self.disk.stat(&meta) {
            Ok(stat) if stat.form == Form::Dir => tree::remove_tree(&*self.disk, &meta),
            _ => Ok(()),
        }
    }

    fn change_attributes(
        &self,
        session: &SessionId,
        path: &str,
        version: Option<Version>,
        set: &KeptChange,
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
            (Look::File(found), Some(version)) => {
                let Some(mark) = found.mark.clone().filter(|mark| mark.version == version) else { return Ok(()) };
                if mark.size != found.stat.size_bytes {
                    return Ok(());
                }
                change(&*found.file, &found.stat)?;
                let mtime_ns = found.file.stat().map_err(io("reading", &place))?.mtime_ns;
                Mark { mtime_ns, ..mark }.write(&*found.file, &place)
            }
            _ => Ok(()),
        }
    }

    fn declare(&self, record: &Record, key: &Key, version: Version) -> Result<()> {
        let place = paths::value(&record.session, key.as_str());
        if let Look::File(found) = look::look_at(&*self.disk, &place, Access::Read)?
            && let Some(mark) = found.ours().filter(|mark| mark.version == version)
        {
            let writer = record.author.writer.clone();
            Mark { writer, foreign: false, ..mark.clone() }.write(&*found.file, &place)?;
            return self.place_sidecar(record, key);
        }
        tree::unlink(&*self.disk, &paths::draft_sidecar(&record.operation))
    }

    fn mark_stranger(&self, record: &Record, key: &Key, span: Span) -> Result<()> {
        let place = paths::value(&record.session, key.as_str());
        if let Look::File(found) = look::look_at(&*self.disk, &place, Access::Read)?
            && found.ours().is_none()
            && (found.stat.size_bytes, found.stat.mtime_ns) == (span.size, span.mtime_ns)
        {
            Mark { foreign: true, ..record.mark(&place, span) }.write(&*found.file, &place)?;
        }
        Ok(())
    }

    fn write_policy(&self, record: &Record, policy: crate::words::Policy) -> Result<()> {
        let (place, draft) = (paths::policy(&record.session), paths::draft(&record.operation));
        tree::make_dirs_above(&*self.disk, &place)?;
        let file = tree::create(&*self.disk, &draft, tree::PRIVATE).map_err(io("writing", &place))?;
        file.write_at(0, format!("{policy}\n").as_bytes()).map_err(io("writing", &place))?;
        self.disk.rename(&draft, &place).map_err(io("writing", &place))
    }

    /// Puts the sidecar of a record's writer beside its value; none for an empty writer.
    fn place_sidecar(&self, record: &Record, key: &Key) -> Result<()> {
        if record.author.writer.is_empty() {
            return self.remove_sidecar(&record.session, key);
        }
        // A staged sidecar that cannot be placed goes with the drafts, at the next opening.
        let (place, draft) = (paths::sidecar(&record.session, key.as_str()), paths::draft_sidecar(&record.operation));
        // Exchanged, not replaced: some file systems write out a replacing file at once, and here the journal has it.
        if self.disk.exchange(&draft, &place).is_ok() {
            return tree::unlink(&*self.disk, &draft);
        }
        if self.disk.rename_new(&draft, &place).is_ok() {
            return Ok(());
        }
        if let Err(e) = tree::make_dirs_above(&*self.disk, &place) {
            return Self::pass_collision(e);
        }
        self.stage_sidecar(&record.operation, &record.author, record.time_ms)?;
        self.disk.rename(&draft, &place).or_else(|e| Self::pass_collision(io("writing", &place)(e)))
    }

    /// The keys `a` and `a.json/b` collide in the neighbour's sidecars: the second one's writer is in its mark only.
    fn pass_collision(e: EngineError) -> Result<()> {
        match &e {
            EngineError::Io { source, .. }
                if matches!(
                    source.raw_os_error(),
                    Some(libc::ENOTDIR | libc::EISDIR | libc::EEXIST | libc::ENOTEMPTY | libc::ENAMETOOLONG)
                ) =>
            {
                Ok(())
            }
            _ => Err(e),
        }
    }

    fn remove_sidecar(&self, session: &SessionId, key: &Key) -> Result<()> {
        let place = paths::sidecar(session, key.as_str());
        match self.disk.unlink(&place) {
            Err(e) if !tree::is_missing(&e) && e.raw_os_error() != Some(libc::EISDIR) => Err(io("removing", &place)(e)),
            _ => Ok(()),
        }
    }
}
