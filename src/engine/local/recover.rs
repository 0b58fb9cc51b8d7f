//! Opening a store: its own directory, and what a crash left of changes that were committed. The same publication
//! runs as after a commit; a checkpoint then lets the journal start again.

use std::collections::HashSet;
use std::io::ErrorKind;

use super::super::{EngineError, Result};
use super::disk::{Access, Disk, Form};
use super::journal::{Contents, Found};
use super::publish::Work;
use super::record::{Act, Record};
use super::stage::read_whole;
use super::{LocalEngine, paths, tree};
use crate::words::{Key, SessionId, Version};

/// The format this engine reads and writes.
const FORMAT: u32 = 1;
/// What the marker says before the number.
const MARKER: &str = "batonfs store format ";

/// What publication has to know of the other records while it runs again.
#[derive(Debug)]
pub(super) struct Replay<'a> {
    session: &'a SessionId,
    appends: &'a HashSet<(SessionId, Key, Version)>,
}

impl Replay<'_> {
    /// Was an append to this version committed? Then a file that is longer than its mark says is ours, half done.
    pub(super) fn was_appending(&self, key: &Key, to: Version) -> bool {
        self.appends.contains(&(self.session.clone(), key.clone(), to))
    }
}

/// Makes our directory in a store that has none, and checks that we know the format of one that has.
///
/// # Errors
/// [`EngineError::Damaged`]: the marker is no marker, or a newer version's. [`EngineError::Io`]: also when the file
/// system keeps no user xattrs.
pub(super) fn prepare(disk: &dyn Disk) -> Result<()> {
    let io = |doing: &str, e| EngineError::io(format!("{doing} {}", paths::BATON), e);
    for dir in [paths::DRAFTS, paths::HISTORY, paths::SESSIONS] {
        tree::make_dirs(disk, dir)?;
    }
    match disk.open(paths::FORMAT, Access::Read) {
        Ok(file) => check_format(&read_whole(&*file, paths::FORMAT)?)?,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let draft = paths::draft("format");
            tree::unlink(disk, &draft)?;
            let file = disk.create(&draft, super::tree::PRIVATE).map_err(|e| io("writing", e))?;
            file.write_at(0, format!("{MARKER}{FORMAT}\n").as_bytes()).map_err(|e| io("writing", e))?;
            file.sync().map_err(|e| io("writing", e))?;
            disk.rename(&draft, paths::FORMAT).map_err(|e| io("writing", e))?;
            disk.sync_dir(paths::BATON).map_err(|e| io("writing", e))?;
            disk.sync_dir("").map_err(|e| io("writing", e))?;
        }
        Err(e) => return Err(io("reading", e)),
    }
    probe_xattrs(disk)
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

fn probe_xattrs(disk: &dyn Disk) -> Result<()> {
    let probe = paths::draft("probe");
    tree::unlink(disk, &probe)?;
    let words = "the file system of the store keeps no user xattrs, which versions and writers are recorded in";
    let file = disk.create(&probe, super::tree::PRIVATE).map_err(|e| EngineError::io("writing to the store", e))?;
    let result =
        file.set_xattr(super::mark::NAME, &[b' '; super::mark::ROOM_BYTES]).map_err(|e| EngineError::io(words, e));
    tree::unlink(disk, &probe)?;
    result
}

impl LocalEngine {
    /// Publishes what the journal has and a crash kept from its place, then lets the journal start again.
    ///
    /// # Errors
    /// [`EngineError::Damaged`]: a record or log that was durable cannot be read. [`EngineError::Io`]: nothing is lost,
    /// opening again goes on.
    pub(super) fn recover(&self, contents: &Contents) -> Result<()> {
        let records = contents.records.iter().map(read_record).collect::<Result<Vec<_>>>()?;
        let appends: HashSet<_> = records.iter().filter_map(|(record, _)| appended_to(record)).collect();
        for (record, body) in &records {
            let session = self.session(&record.session)?;
            let logged = session.order().logged();
            if contents.same_boot && record.seq <= logged {
                // Its line was written after its publication, and no power was lost since: a value that is missing
                // now was deleted from beside the store, and is not to come back.
                continue;
            }
            let replay = Replay { session: &record.session, appends: &appends };
            self.publish(&session, record, &Work::again(body, Some(&replay)))?;
            let mut order = session.order();
            if record.seq > order.next() {
                let what = format!("the line of change {} is missing", order.next());
                return Err(EngineError::Damaged { place: paths::log(&record.session), what });
            }
            if record.seq == order.next() {
                order.take(record.line(), true);
                order.drain(&*self.disk);
            }
        }
        if contents.stale {
            self.checkpoint()?;
        }
        self.clear_drafts()
    }

    fn clear_drafts(&self) -> Result<()> {
        let io = |e| EngineError::io(format!("reading {}", paths::DRAFTS), e);
        for (name, form) in self.disk.read_dir(paths::DRAFTS).map_err(io)? {
            match name.to_str() {
                Some(name) if form == Form::Dir => tree::remove_tree(&*self.disk, &paths::draft(name))?,
                Some(name) => tree::unlink(&*self.disk, &paths::draft(name))?,
                None => {}
            }
        }
        Ok(())
    }
}

fn read_record(found: &Found) -> Result<(Record, Vec<u8>)> {
    let record = serde_json::from_slice(&found.header).map_err(|e| EngineError::Damaged {
        place: paths::JOURNAL.to_owned(),
        what: format!("a whole record says what this version cannot read: {e}"),
    })?;
    Ok((record, found.body.clone()))
}

fn appended_to(record: &Record) -> Option<(SessionId, Key, Version)> {
    match &record.act {
        Act::Append(append) => Some((record.session.clone(), append.key.clone(), append.over)),
        _ => None,
    }
}
