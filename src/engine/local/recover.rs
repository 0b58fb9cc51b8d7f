//! Opening a store: its own directory, and what a crash left of changes that were committed. The same publication
//! runs as after a commit; a checkpoint then lets the journal start again.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use super::super::{EngineError, Recovery, Result};
use super::disk::{Access, Disk, Form, Stat};
use super::journal::{Contents, Found, Journal};
use super::look::{self, Look};
use super::mark::{self, Mark};
use super::marker::{FORMAT, Says};
use super::publish::Work;
use super::record::{Act, Body, Record};
use super::replay::{Known, Replay};
use super::stage::read_whole;
use super::{LocalEngine, Opening, marker, paths, session, tree};

/// Makes our directory in a store that has none, and checks that we know the format of one that has. `true`: the store
/// has no marker yet; it gets one by [`finish`] once everything else is there.
///
/// # Errors
/// [`EngineError::Damaged`]: the marker is no marker, or a newer version's. [`EngineError::Io`]: also when the file
/// system keeps no user xattrs.
pub(super) fn prepare(disk: &dyn Disk) -> Result<bool> {
    for dir in [paths::DRAFTS, paths::HISTORY, paths::SESSIONS] {
        tree::make_dirs(disk, dir)?;
    }
    let fresh = match disk.open(paths::FORMAT, Access::Read) {
        Ok(file) => {
            check_format(&read_whole(&*file, paths::FORMAT)?)?;
            false
        }
        Err(e) if e.kind() == ErrorKind::NotFound => true,
        Err(e) => return Err(EngineError::io(format!("reading {}", paths::FORMAT), e)),
    };
    match probe(disk) {
        // It has kept them so far. A store on a full disk is read, and room is made in it.
        Err(EngineError::NoSpace) if !fresh => tracing::warn!("the disk of the store is full"),
        probed => probed?,
    }
    Ok(fresh)
}

/// Writes the marker: from here on a missing journal is damage.
///
/// # Errors
/// [`EngineError::Damaged`]: there are changes, so this was a store and its marker is gone. [`EngineError::Io`].
pub(super) fn finish(disk: &dyn Disk, journal: &Journal) -> Result<()> {
    if journal.len() > 0 {
        let what = "it is gone, though the journal beside it has changes".to_owned();
        return Err(EngineError::Damaged { place: paths::FORMAT.to_owned(), what });
    }
    marker::write(disk)
}

fn check_format(bytes: &[u8]) -> Result<()> {
    let damaged = |what: String| EngineError::Damaged { place: paths::FORMAT.to_owned(), what };
    let text = String::from_utf8_lossy(bytes);
    match marker::read(&text) {
        Says::Ours => Ok(()),
        Says::Newer(newer) => Err(damaged(format!(
            "the store has format {newer}, this batonfs knows {FORMAT}: use the version of batonfs that wrote it"
        ))),
        Says::Nothing => Err(damaged(format!("'{}' is not the marker of a store", text.trim_end().escape_default()))),
    }
}

fn probe(disk: &dyn Disk) -> Result<()> {
    let probe = paths::draft("probe");
    tree::unlink(disk, &probe)?;
    let words = "the file system of the store keeps no user xattrs, which versions and writers are recorded in";
    let file = disk.create(&probe, super::tree::PRIVATE).map_err(|e| EngineError::io("writing to the store", e))?;
    let result =
        file.set_xattr(super::mark::NAME, &[b' '; super::mark::ROOM_BYTES]).map_err(|e| EngineError::io(words, e));
    let result = result.and_then(|()| probe_renames(disk, &probe));
    tree::unlink(disk, &probe)?;
    result
}

/// Some file systems know no rename but the plain one, or only shorter names: what is committed there could never come to
/// its place.
fn probe_renames(disk: &dyn Disk, probe: &str) -> Result<()> {
    let io = |e: std::io::Error| {
        let words = match e.raw_os_error() {
            Some(libc::ENAMETOOLONG) => "the file system of the store has no names of 255 bytes, which keys may need",
            _ => "the file system of the store cannot exchange two names, by which values are replaced",
        };
        EngineError::io(words, e)
    };
    let other = paths::draft(&format!("{:o<255}", "probe."));
    let away = || match disk.unlink(&other) {
        Err(e) if !tree::is_missing(&e) => Err(io(e)),
        _ => Ok(()),
    };
    away()?;
    let renamed = disk.rename_new(probe, &other).and_then(|()| {
        disk.create(probe, super::tree::PRIVATE)?;
        disk.exchange(probe, &other)
    });
    away()?;
    renamed.map_err(io)
}

impl LocalEngine {
    /// Publishes what the journal has and a crash kept from its place, then lets the journal start again. What cannot be
    /// put in its place now is served from memory, and tried again.
    ///
    /// # Errors
    /// [`EngineError::Damaged`]: a record or log that was durable cannot be read. [`EngineError::Io`]: nothing is lost,
    /// opening again goes on.
    pub(super) fn recover(&self, contents: Contents, opening: Opening<'_>) -> Result<()> {
        let mut progress = Progress::new(opening);
        let mut replay = Replay::new(!contents.same_boot);
        self.journal.each(|found| {
            replay.note(&read_record(&found)?);
            Ok(())
        })?;
        if replay.lost {
            for (session, first, last) in replay.sessions() {
                let session = self.loaded(session)?;
                let mut order = session.order();
                if order.logged() > last {
                    let what = format!("it ends with change {last} of session '{}', whose log goes on", session.id);
                    return Err(EngineError::Damaged { place: paths::JOURNAL.to_owned(), what });
                }
                order.rewind(first)?;
            }
        }
        self.journal.each(|found| {
            let record = read_record(&found)?;
            if self.is_in_place(&record, &replay)? {
                return Ok(());
            }
            match self.mark_sidecars(&record, &replay).and_then(|()| self.sort_out(&record, &replay)) {
                // Publication meets the same, and serves from memory what has no place now.
                Err(e) if !replay.lost => {
                    tracing::warn!(seq = record.seq, "what it replaced cannot be moved to history: {e}");
                    Ok(())
                }
                sorted => sorted,
            }
        })?;
        self.stage_all_again(&replay, &mut progress)?;
        let replay = Arc::new(replay);
        let (mut done, mut changes) = (0, 0);
        self.journal.each(|found| {
            progress.tell(Recovery::Placing { done, of: replay.records });
            done += 1;
            changes += u64::from(self.publish_again(&read_record(&found)?, found.body, &replay)?);
            Ok(())
        })?;
        let waiting = self.all().values().map(|session| session.stuck().records.len() as u64).sum();
        if waiting > 0 || self.all().values().any(|session| !session.order().is_settled()) {
            progress.end(changes, waiting, 0);
            // The drafts of what is not in its place are needed, and so is the journal, also for lines of logs.
            return if contents.remains { self.journal.cut() } else { Ok(()) };
        }
        if contents.stale {
            self.checkpoint_all()?;
        }
        let removed = self.clear_drafts()?;
        progress.end(changes, waiting, removed);
        Ok(())
    }

    /// Stages the small values of all records that are to be published again, and makes them durable by one sync.
    fn stage_all_again(&self, replay: &Replay, progress: &mut Progress<'_>) -> Result<()> {
        let (mut staged, mut done) = (0_u64, 0);
        self.journal.each(|found| {
            progress.tell(Recovery::Staging { done, of: replay.records });
            done += 1;
            let record = read_record(&found)?;
            if self.is_in_place(&record, replay)? {
                return Ok(());
            }
            if let Some(value) = record.value().filter(|value| value.body == Body::Inline) {
                staged += 1;
                if let Err(e) = self.stage_again(&record, value, &found.body) {
                    // Publication tries once more, and keeps it in memory where that fails too.
                    tracing::warn!(key = %value.key, version = value.version, "it cannot be staged again: {e}");
                }
            }
            Ok(())
        })?;
        if staged > 0 {
            self.disk.sync_everything().map_err(|e| EngineError::io("syncing the store", e))?;
        } else if replay.records > 0 {
            self.journal.confirm()?;
        }
        Ok(())
    }

    /// Its line was written after its publication, and no power was lost since: a value that is missing now was deleted from
    /// beside the store, and is not to come back.
    fn is_in_place(&self, record: &Record, replay: &Replay) -> Result<bool> {
        Ok(!replay.lost && record.seq <= self.loaded(&record.session)?.order().logged())
    }

    /// `false`: it was in its place.
    fn publish_again(&self, record: &Record, body: Vec<u8>, replay: &Arc<Replay>) -> Result<bool> {
        if self.is_in_place(record, replay)? {
            return Ok(false);
        }
        let session = self.loaded(&record.session)?;
        let next = session.order().next();
        if record.seq > next {
            let what = format!("the line of change {next} is missing");
            return Err(EngineError::Damaged { place: paths::log(&record.session), what });
        }
        let published = if session.is_stuck() {
            Err(EngineError::io("an earlier change is not in its place", std::io::ErrorKind::Other.into()))
        } else {
            self.publish(&session, record, &Work::again(&body, Some(replay)))
        };
        let stuck = match published {
            Ok(()) => false,
            Err(e) => {
                tracing::error!(session = %record.session, seq = record.seq, "committed, but not yet in its place: {e}");
                self.serve_again(&session, record, body, replay)?;
                true
            }
        };
        let mut order = session.order();
        if record.seq == order.next() {
            order.take(record.line(), if stuck { session::Progress::Stuck } else { session::Progress::Visible });
            order.drain(&*self.disk);
        }
        Ok(true)
    }

    /// Where a crash came between an exchange and the move to history, and what came out is in the draft still: the move
    /// is made, so that every later step finds each version under its own name or nowhere.
    fn sort_out(&self, record: &Record, replay: &Replay) -> Result<()> {
        let (key, made, over) = match &record.act {
            Act::Put(value) | Act::Rename { value, .. } => (&value.key, Some((value.file, value.version)), value.over),
            Act::Delete { key, over } => (key, None, Some(*over)),
            _ => return Ok(()),
        };
        let draft = paths::draft(&record.operation);
        let Look::File(left) = look::look_at(&*self.disk, &draft, Access::Read)? else { return Ok(()) };
        let target = paths::value(&record.session, key.as_str());
        let mark = Mark::read(&*left.file).map_err(|e| EngineError::io(format!("reading {draft}"), e))?;
        let mark = mark.filter(|mark| mark.is_of(&target));
        // What it has made may have been appended to before its name was lost.
        let is_made = |version| mark.as_ref().is_some_and(|mark| mark.covers(version));
        if made.is_some_and(|(file, version)| file == left.stat.id || is_made(version)) {
            return Ok(());
        }
        let known = replay.known(left.stat.id, &record.session, key, over.map_or(0, |over| over + 1));
        match (known, over) {
            (Some(Known::This | Known::Before(_)), Some(over)) => self.keep_new(record, key, over, &draft),
            (None, Some(over)) if mark.is_some_and(|mark| mark.version <= over) => {
                self.keep_new(record, key, over, &draft)
            }
            (Some(_), _) => tree::unlink(&*self.disk, &draft),
            (None, _) => Ok(()),
        }
    }

    /// Power may have taken the mark of a sidecar of ours, and the exchange that brought it out, but not the bytes that were
    /// written over it since. Beside a stranger's value it would pass for the neighbour's.
    fn mark_sidecars(&self, record: &Record, replay: &Replay) -> Result<()> {
        if !replay.lost {
            return Ok(());
        }
        let is_ours = |stat: Stat| replay.is_sidecar(stat.id);
        let line = record.line();
        for key in [Some(line.key), line.to].into_iter().flatten() {
            let place = paths::sidecar(&record.session, &key);
            // By its name first: the neighbour's may be for its owner's eyes alone.
            if !self.disk.stat(&place).is_ok_and(is_ours) {
                continue;
            }
            let marked = self.disk.open(&place, Access::Read).and_then(|file| match is_ours(file.stat()?) {
                true => file.set_xattr(mark::NAME, mark::SIDECARS),
                false => Ok(()),
            });
            if let Err(e) = marked {
                // Where its value is, publication puts it there again.
                tracing::warn!("{place} cannot be marked, and goes: {e}");
                tree::unlink(&*self.disk, &place)?;
            }
        }
        Ok(())
    }

    /// How many there were, but for what this recovery staged itself.
    fn clear_drafts(&self) -> Result<u64> {
        let io = |e| EngineError::io(format!("reading {}", paths::DRAFTS), e);
        let mut cleared = 0_u64;
        for (name, form) in self.disk.read_dir(paths::DRAFTS).map_err(io)? {
            let Some(name) = name.to_str() else { continue };
            match form {
                Form::Dir => tree::remove_tree(&*self.disk, &paths::draft(name))?,
                _ => tree::unlink(&*self.disk, &paths::draft(name))?,
            }
            cleared += u64::from(!name.ends_with(paths::AGAIN));
        }
        Ok(cleared)
    }
}

/// Tells how far a long recovery is.
struct Progress<'a> {
    opening: Opening<'a>,
    told: Instant,
    began: Instant,
}

impl<'a> Progress<'a> {
    fn new(opening: Opening<'a>) -> Self {
        let began = Instant::now();
        Self { opening, told: began, began }
    }

    fn tell(&mut self, recovery: Recovery) {
        if self.told.elapsed() >= self.opening.patience {
            (self.opening.tell)(&recovery);
            self.told = Instant::now();
        }
    }

    fn end(self, changes: u64, waiting: u64, removed: u64) {
        let over = Recovery::Over { changes, waiting, removed };
        if changes + removed == 0 {
            return;
        }
        tracing::info!("{over}");
        if self.began.elapsed() >= self.opening.patience {
            (self.opening.tell)(&over);
        }
    }
}

fn read_record(found: &Found) -> Result<Record> {
    serde_json::from_slice(&found.header).map_err(|e| EngineError::Damaged {
        place: paths::JOURNAL.to_owned(),
        what: format!("a whole record says what this version cannot read: {e}"),
    })
}
