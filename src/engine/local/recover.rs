//! Opening a store: its own directory, and what a crash left of changes that were committed. The same publication
//! runs as after a commit; a checkpoint then lets the journal start again.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{EngineError, Result};
use super::disk::{Access, Disk, Form};
use super::journal::{Contents, Found, Journal};
use super::look::{self, Look};
use super::mark::Mark;
use super::publish::Work;
use super::record::{Act, Body, Record};
use super::replay::{Known, Replay};
use super::stage::read_whole;
use super::{LocalEngine, paths, session, tree};

/// The format this engine reads and writes.
const FORMAT: u32 = 1;
/// A recovery that takes longer tells how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// What the marker says before the number.
const MARKER: &str = "batonfs store format ";

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
    let io = |e| EngineError::io(format!("writing {}", paths::FORMAT), e);
    let draft = paths::draft("format");
    tree::unlink(disk, &draft)?;
    let file = disk.create(&draft, super::tree::PRIVATE).map_err(io)?;
    file.write_at(0, format!("{MARKER}{FORMAT}\n").as_bytes()).map_err(io)?;
    file.sync().map_err(io)?;
    disk.rename(&draft, paths::FORMAT).map_err(io)?;
    disk.sync_dir(paths::BATON).map_err(io)?;
    disk.sync_dir("").map_err(io)
}

fn check_format(bytes: &[u8]) -> Result<()> {
    let damaged = |what: String| EngineError::Damaged { place: paths::FORMAT.to_owned(), what };
    let text = String::from_utf8_lossy(bytes);
    let number = text.trim_end().strip_prefix(MARKER).and_then(|number| number.parse::<u32>().ok());
    match number {
        Some(FORMAT) => Ok(()),
        Some(newer) if newer > FORMAT => Err(damaged(format!(
            "the store has format {newer}, this batonfs knows {FORMAT}: use the version of batonfs that wrote it"
        ))),
        _ => Err(damaged(format!("'{}' is not the marker of a store", text.trim_end().escape_default()))),
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

/// Some file systems know no rename but the plain one: what is committed there could never come to its place.
fn probe_renames(disk: &dyn Disk, probe: &str) -> Result<()> {
    let words = "the file system of the store cannot exchange two names, by which values are replaced";
    let other = paths::draft("probe.other");
    tree::unlink(disk, &other)?;
    let renamed = disk.rename_new(probe, &other).and_then(|()| {
        disk.create(probe, super::tree::PRIVATE)?;
        disk.exchange(probe, &other)
    });
    tree::unlink(disk, &other)?;
    renamed.map_err(|e| EngineError::io(words, e))
}

impl LocalEngine {
    /// Publishes what the journal has and a crash kept from its place, then lets the journal start again. What cannot be
    /// put in its place now is served from memory, and tried again.
    ///
    /// # Errors
    /// [`EngineError::Damaged`]: a record or log that was durable cannot be read. [`EngineError::Io`]: nothing is lost,
    /// opening again goes on.
    pub(super) fn recover(&self, contents: Contents) -> Result<()> {
        let mut replay = Replay::new(!contents.same_boot);
        self.journal.each(|found| {
            replay.note(&read_record(&found)?);
            Ok(())
        })?;
        if replay.lost {
            for (session, first, last) in replay.sessions() {
                let session = self.session(session)?;
                let mut order = session.order();
                if order.logged() > last {
                    let what = format!("it ends with change {last} of session '{}', whose log goes on", session.id);
                    return Err(EngineError::Damaged { place: paths::JOURNAL.to_owned(), what });
                }
                order.rewind(first)?;
            }
            self.journal.each(|found| self.sort_out(&read_record(&found)?, &replay))?;
        }
        self.stage_all_again(&replay)?;
        let replay = Arc::new(replay);
        let mut progress = Progress::default();
        self.journal.each(|found| {
            progress.tell(replay.records);
            self.publish_again(&read_record(&found)?, found.body, &replay)
        })?;
        if replay.records > 0 {
            tracing::info!(changes = replay.records, "recovered what was under way when the store was last left");
        }
        if self.all().values().any(|session| session.is_stuck() || !session.order().is_settled()) {
            // The drafts of what is not in its place are needed, and so is the journal, also for lines of logs.
            return if contents.remains { self.journal.cut() } else { Ok(()) };
        }
        if contents.stale {
            self.checkpoint()?;
        }
        self.clear_drafts()
    }

    /// Stages the small values of all records that are to be published again, and makes them durable by one sync.
    fn stage_all_again(&self, replay: &Replay) -> Result<()> {
        let mut staged = 0_u64;
        self.journal.each(|found| {
            let record = read_record(&found)?;
            if !replay.lost && record.seq <= self.session(&record.session)?.order().logged() {
                return Ok(());
            }
            match &record.act {
                Act::Put(value) | Act::Rename { value, .. } if value.body == Body::Inline => {
                    staged += 1;
                    if let Err(e) = self.stage_again(&record, value, &found.body) {
                        // Publication tries once more, and keeps it in memory where that fails too.
                        tracing::warn!(key = %value.key, version = value.version, "it cannot be staged again: {e}");
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        if staged > 0 {
            self.disk.sync_everything().map_err(|e| EngineError::io("syncing the store", e))?;
        }
        Ok(())
    }

    fn publish_again(&self, record: &Record, body: Vec<u8>, replay: &Arc<Replay>) -> Result<()> {
        let session = self.session(&record.session)?;
        let (logged, next) = {
            let order = session.order();
            (order.logged(), order.next())
        };
        if !replay.lost && record.seq <= logged {
            // Its line was written after its publication, and no power was lost since: a value that is missing now was
            // deleted from beside the store, and is not to come back.
            return Ok(());
        }
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
        Ok(())
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
        let marked = Mark::read(&*left.file).map_err(|e| EngineError::io(format!("reading {draft}"), e))?;
        let marked = marked.filter(|mark| mark.is_of(&target)).map(|mark| mark.version);
        if made.is_some_and(|(file, version)| file == left.stat.id || marked == Some(version)) {
            return Ok(());
        }
        let known = replay.known(left.stat.id, &record.session, key, over.map_or(0, |over| over + 1));
        match (known, over) {
            (Some(Known::This | Known::Before(_)), Some(over)) => self.keep_new(record, key, over, &draft),
            (None, Some(over)) if marked.is_some() => self.keep_new(record, key, over, &draft),
            (Some(_), _) => tree::unlink(&*self.disk, &draft),
            (None, _) => Ok(()),
        }
    }

    fn clear_drafts(&self) -> Result<()> {
        let io = |e| EngineError::io(format!("reading {}", paths::DRAFTS), e);
        let mut cleared = 0_u64;
        for (name, form) in self.disk.read_dir(paths::DRAFTS).map_err(io)? {
            match name.to_str() {
                Some(name) if form == Form::Dir => tree::remove_tree(&*self.disk, &paths::draft(name))?,
                Some(name) => tree::unlink(&*self.disk, &paths::draft(name))?,
                None => {}
            }
            cleared += 1;
        }
        if cleared > 0 {
            tracing::info!(files = cleared, "removed drafts that nobody has any more");
        }
        Ok(())
    }
}

/// Tells how far a long recovery is.
#[derive(Debug)]
struct Progress {
    done: u64,
    told: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self { done: 0, told: Instant::now() }
    }
}

impl Progress {
    fn tell(&mut self, of: u64) {
        if self.told.elapsed() > TELL_EVERY {
            tracing::warn!("recovering the store: {} of {of} changes", self.done);
            self.told = Instant::now();
        }
        self.done += 1;
    }
}

fn read_record(found: &Found) -> Result<Record> {
    serde_json::from_slice(&found.header).map_err(|e| EngineError::Damaged {
        place: paths::JOURNAL.to_owned(),
        what: format!("a whole record says what this version cannot read: {e}"),
    })
}
