//! The journal: checksummed records, made durable by one sync shared by all that wait for it. Knows bytes and
//! positions; must not know what a record does. The layout is in FORMAT.md.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::super::{EngineError, Result};
use super::disk::{Disk, DiskFile};
use super::paths;

const HEADER_MAGIC: &[u8; 8] = b"batonjnl";
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"bRec");
const FORM: u32 = 1;
/// Where the two headers are; the valid one with the higher generation counts.
pub(super) const HEADERS: [u64; 2] = [0, 4096];
/// So long is one.
pub(super) const HEADER_BYTES: usize = 80;
/// Where records begin.
const FIRST: u64 = 8192;
/// Magic, checksum, tag, synced position, two lengths.
const FRAME_BYTES: usize = 32;
/// So much of a tag is its generation's.
const GENERATION_BITS: u32 = 24;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
/// Zeros are written ahead in steps of this, so that the sync of a small commit moves no metadata.
const ZEROS_BYTES: u64 = 1 << 20;
/// How much is looked through at a time; a multiple of 8, as places of records are.
const WINDOW_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;
/// What a journal keeps of its length when it starts again.
const KEEP_BYTES: u64 = 4 << 20;

/// A record as it was found.
#[derive(Debug)]
pub(super) struct Found {
    /// What [`Journal::append`] was given as header.
    pub(super) header: Vec<u8>,
    /// What it was given as body.
    pub(super) body: Vec<u8>,
}

/// What the journal held when it was opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contents {
    /// The machine has not started again since the records were written: nothing written was lost.
    pub(super) same_boot: bool,
    /// It must start again before anything is appended: it has records, was written before the machine started, or has
    /// remains of a torn batch that a new record could run into.
    pub(super) stale: bool,
    /// Whole records lie behind the torn end.
    pub(super) remains: bool,
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    file: Box<dyn DiskFile>,
    boot: String,
    state: Mutex<State>,
    /// Where those wait that the sync under way will do for, and those that the next one will, in turn: who is woken has
    /// something to do.
    synced: [Condvar; 2],
}

#[derive(Debug)]
struct State {
    generation: u64,
    /// What the records of this generation are known by. Nobody can guess it: old bytes of the file are what somebody
    /// once wrote as a value, and must not pass for records.
    tag: u64,
    /// The header the current generation is in, an index of [`HEADERS`].
    header: usize,
    end: u64,
    /// Up to here the file is written, records or zeros.
    written: u64,
    durable: u64,
    /// How many syncs were begun.
    syncs: usize,
    /// Up to where the one under way makes it durable.
    syncing: Option<u64>,
    /// Why nothing is accepted any more.
    closed: Option<String>,
}

impl Journal {
    /// Opens the journal; `fresh`: makes it where there is none. What is after the last whole record is a torn batch
    /// that nobody was told of.
    ///
    /// # Errors
    /// [`EngineError::Damaged`]: a record that was durable is unreadable, or the journal of a store is gone.
    /// [`EngineError::Io`].
    pub(super) fn open(disk: &dyn Disk, fresh: bool) -> Result<(Self, Contents)> {
        let boot = disk.boot();
        let file = match disk.open(paths::JOURNAL, super::disk::Access::Write) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && fresh => make(disk, &boot)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(damaged("it is gone, and with it what was not yet in its place"));
            }
            Err(e) => return Err(EngineError::io("opening the journal", e)),
        };
        let reader = Reader::new(&*file)?;
        if reader.len < FIRST {
            return Err(damaged("it is cut short"));
        }
        let Some((index, Header { generation, tag, boot: written_at })) = reader.newest_header()? else {
            return Err(damaged("neither header is whole"));
        };
        let (end, remains) = reader.scan(tag)?;
        if reader.follows(generation)? {
            return Err(damaged(format!("the header of generation {} is not whole", generation + 1)));
        }
        let same_boot = !boot.is_empty() && written_at == boot;
        let written = reader.len.max(FIRST);
        let state =
            State { generation, tag, header: index, end, written, durable: end, syncs: 0, syncing: None, closed: None };
        let journal = Self { file, boot, state: Mutex::new(state), synced: Default::default() };
        let stale = remains || !same_boot || end > FIRST;
        Ok((journal, Contents { same_boot, stale, remains }))
    }

    /// The records there are, oldest first; one at a time is in memory.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn each(&self, mut each: impl FnMut(Found) -> Result<()>) -> Result<()> {
        let (tag, end) = {
            let state = self.state();
            (state.tag, state.end)
        };
        let reader = Reader::new(&*self.file)?;
        let mut at = FIRST;
        while at < end {
            let Some(read) = reader.record(at, tag)? else {
                return Err(damaged(format!("the record at byte {at} was readable a moment ago")));
            };
            at += read.len;
            each(read.found)?;
        }
        Ok(())
    }

    /// Takes away what lies behind the torn end, where it cannot start again at once: a new record must not run into it.
    ///
    /// # Errors
    /// [`EngineError::Io`]; [`EngineError::Closed`] when it could not be made durable.
    pub(super) fn cut(&self) -> Result<()> {
        let mut state = self.state();
        state.refuse_closed()?;
        let io = |e| EngineError::io("cutting the journal", e);
        self.file.set_len(state.end).map_err(io)?;
        state.written = state.end;
        self.file.sync_data().map_err(|e| state.fail(&e))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a record after the last one; it is durable after [`Journal::sync_to`] of the position given back.
    ///
    /// # Errors
    /// [`EngineError::NoSpace`], [`EngineError::Io`]: the record is not there. [`EngineError::Closed`].
    pub(super) fn append(&self, header: &[u8], body: &[u8]) -> Result<u64> {
        let mut state = self.state();
        state.refuse_closed()?;
        let frame = frame(state.tag, state.durable, header, body)?;
        let end = state.end + frame.len() as u64;
        let io = |e| EngineError::io("writing the journal", e);
        if end > state.written {
            let to = end.next_multiple_of(ZEROS_BYTES);
            let zeros = vec![0; usize::try_from(to - state.written).unwrap_or(0)];
            self.file.write_at(state.written, &zeros).map_err(io)?;
            state.written = to;
        }
        self.file.write_at(state.end, &frame).map_err(io)?;
        state.end = end;
        Ok(end)
    }

    /// Makes everything up to `position` durable. One thread syncs for all that wait: whoever finds no sync under way
    /// makes one for everything appended so far, the others wait for its end and look again.
    ///
    /// # Errors
    /// [`EngineError::Closed`]: a sync failed, here or before; what the disk holds is unknown.
    pub(super) fn sync_to(&self, position: u64) -> Result<()> {
        let mut state = self.state();
        while state.durable < position {
            // What the sync under way is for it makes durable, whatever else is refused meanwhile.
            let covered = state.syncing.map(|target| position <= target);
            if covered != Some(true) {
                // Whoever waits for the next one is refused too.
                state.refuse_closed().inspect_err(|_| self.synced.iter().for_each(Condvar::notify_all))?;
            }
            if let Some(covered) = covered {
                let turn = state.syncs + usize::from(!covered);
                state = self.turn(turn).wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.syncs += 1;
            let (turn, target) = (state.syncs, state.end);
            state.syncing = Some(target);
            drop(state);
            let result = self.file.sync_data();
            state = self.state();
            state.syncing = None;
            match result {
                Ok(()) => state.durable = target,
                Err(e) => drop(state.fail(&e)),
            }
            self.turn(turn).notify_all();
            // It makes the next sync, for all that wait for that.
            self.turn(turn + 1).notify_one();
        }
        Ok(())
    }

    #[expect(clippy::indexing_slicing, reason = "there are two, and the index is below that")]
    fn turn(&self, sync: usize) -> &Condvar {
        &self.synced[sync % 2]
    }

    /// Makes everything appended so far durable; up to where that is.
    ///
    /// # Errors
    /// As [`Journal::sync_to`].
    pub(super) fn sync(&self) -> Result<u64> {
        let end = self.state().end;
        self.sync_to(end).map(|()| end)
    }

    /// How many bytes of records are not durable.
    pub(super) fn late_bytes(&self) -> u64 {
        let state = self.state();
        state.end.saturating_sub(state.durable)
    }

    /// Makes durable what was found: who died before its sync has left records that only the page cache has.
    ///
    /// # Errors
    /// [`EngineError::Closed`]: it failed.
    pub(super) fn confirm(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| self.state().fail(&e))
    }

    /// How many bytes of records there are.
    pub(super) fn len(&self) -> u64 {
        self.state().end - FIRST
    }

    /// Accepts nothing any more.
    pub(super) fn close(&self, words: &str) {
        self.state().closed.get_or_insert_with(|| words.to_owned());
    }

    /// Refuses when closed.
    ///
    /// # Errors
    /// [`EngineError::Closed`].
    pub(super) fn check_open(&self) -> Result<()> {
        self.state().refuse_closed()
    }

    /// Starts the next generation: every record so far is forgotten. The caller has made durable what they did.
    ///
    /// # Errors
    /// [`EngineError::Io`]: the old generation still counts. [`EngineError::Closed`].
    pub(super) fn restart(&self) -> Result<()> {
        let mut state = self.state();
        state.refuse_closed()?;
        let generation = state.generation + 1;
        let tag = fresh_tag(generation);
        let header = 1 - state.header;
        let place = HEADERS.get(header).copied().unwrap_or(0);
        let io = |e| EngineError::io("starting the journal again", e);
        self.file.write_at(place, &header_bytes(generation, tag, &self.boot)).map_err(io)?;
        self.file.sync_data().map_err(|e| state.fail(&e))?;
        (state.generation, state.tag, state.header) = (generation, tag, header);
        (state.end, state.durable) = (FIRST, FIRST);
        if state.written > KEEP_BYTES && self.file.set_len(KEEP_BYTES).is_ok() {
            state.written = KEEP_BYTES;
        }
        Ok(())
    }
}

impl State {
    /// After a failed sync what the disk holds is unknown: nothing is accepted any more.
    fn fail(&mut self, e: &std::io::Error) -> EngineError {
        let words = format!("syncing the journal failed: {e}");
        self.closed = Some(words.clone());
        EngineError::Closed(words)
    }

    fn refuse_closed(&self) -> Result<()> {
        self.closed.clone().map_or(Ok(()), |words| Err(EngineError::Closed(words)))
    }
}

fn damaged(what: impl Into<String>) -> EngineError {
    EngineError::Damaged { place: paths::JOURNAL.to_owned(), what: what.into() }
}

/// A fresh journal appears under its name whole, so that a crash while it is made leaves none.
pub(super) fn make(disk: &dyn Disk, boot: &str) -> Result<Box<dyn DiskFile>> {
    let io = |e| EngineError::io("making the journal", e);
    let draft = paths::draft("journal");
    match disk.unlink(&draft) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    let file = disk.create(&draft, super::tree::PRIVATE).map_err(io)?;
    let mut start = vec![0; FIRST as usize];
    if let Some(place) = start.get_mut(..HEADER_BYTES) {
        place.copy_from_slice(&header_bytes(1, fresh_tag(1), boot));
    }
    file.write_at(0, &start).map_err(io)?;
    file.sync().map_err(io)?;
    disk.rename(&draft, paths::JOURNAL).map_err(io)?;
    disk.sync_dir(paths::parent(paths::JOURNAL)).map_err(io)?;
    disk.open(paths::JOURNAL, super::disk::Access::Write).map_err(io)
}

/// Random, with the end of the generation's number: a record tells so when the header of its generation is lost.
fn fresh_tag(generation: u64) -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1 << GENERATION_BITS | generation & GENERATION_MASK
}

fn header_bytes(generation: u64, tag: u64, boot: &str) -> [u8; HEADER_BYTES] {
    let mut rest = Vec::with_capacity(HEADER_BYTES);
    rest.extend_from_slice(&generation.to_le_bytes());
    rest.extend_from_slice(&tag.to_le_bytes());
    rest.extend_from_slice(boot.as_bytes());
    rest.resize(HEADER_BYTES - 16, 0);
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(HEADER_MAGIC);
    bytes.extend_from_slice(&FORM.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&rest).to_le_bytes());
    bytes.extend_from_slice(&rest);
    bytes.try_into().unwrap_or([0; HEADER_BYTES])
}

/// What a header says.
struct Header {
    generation: u64,
    tag: u64,
    boot: String,
}

fn read_header(header: &[u8]) -> Option<Header> {
    let rest = header.get(16..)?;
    let whole = header.get(..8)? == HEADER_MAGIC && u32_at(header, 8)? == FORM;
    if !whole || u32_at(header, 12)? != crc32c::crc32c(rest) {
        return None;
    }
    let boot = rest.get(16..)?.split(|b| *b == 0).next().unwrap_or_default();
    let boot = String::from_utf8_lossy(boot).into_owned();
    Some(Header { generation: u64_at(rest, 0)?, tag: u64_at(rest, 8)?, boot })
}

fn frame(tag: u64, durable: u64, header: &[u8], body: &[u8]) -> Result<Vec<u8>> {
    let (Ok(header_len), Ok(body_len)) = (u32::try_from(header.len()), u32::try_from(body.len())) else {
        return Err(EngineError::io("writing the journal", std::io::Error::from_raw_os_error(libc::EFBIG)));
    };
    let len = (FRAME_BYTES + header.len() + body.len()).next_multiple_of(8);
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(&RECORD_MAGIC.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&tag.to_le_bytes());
    bytes.extend_from_slice(&durable.to_le_bytes());
    bytes.extend_from_slice(&header_len.to_le_bytes());
    bytes.extend_from_slice(&body_len.to_le_bytes());
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(body);
    let crc = crc32c::crc32c(bytes.get(8..).unwrap_or_default());
    if let Some(place) = bytes.get_mut(4..8) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    bytes.resize(len, 0);
    Ok(bytes)
}

struct Read {
    found: Found,
    durable: u64,
    len: u64,
}

/// Reads a journal that nobody writes meanwhile.
struct Reader<'a> {
    file: &'a dyn DiskFile,
    len: u64,
}

impl<'a> Reader<'a> {
    fn new(file: &'a dyn DiskFile) -> Result<Self> {
        let stat = file.stat().map_err(|e| EngineError::io("reading the journal", e))?;
        Ok(Self { file, len: stat.size_bytes })
    }

    fn bytes(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let got = self.file.read_at(at, &mut bytes).map_err(|e| EngineError::io("reading the journal", e))?;
        bytes.truncate(got);
        Ok(bytes)
    }

    /// The newest whole header and its index.
    fn newest_header(&self) -> Result<Option<(usize, Header)>> {
        let mut newest: Option<(usize, Header)> = None;
        for (index, at) in HEADERS.iter().enumerate() {
            if let Some(header) = read_header(&self.bytes(*at, HEADER_BYTES)?)
                && newest.as_ref().is_none_or(|(_, newest)| newest.generation < header.generation)
            {
                newest = Some((index, header));
            }
        }
        Ok(newest)
    }

    /// The record at `at`; `None`: there is no whole one.
    fn record(&self, at: u64, tag: u64) -> Result<Option<Read>> {
        let mut bytes = self.bytes(at, FRAME_BYTES)?;
        let Some((crc, durable, header_len, body_len)) = read_frame(&bytes, tag) else { return Ok(None) };
        let len = FRAME_BYTES as u64 + u64::from(header_len) + u64::from(body_len);
        let (Ok(rest), true) = (usize::try_from(len - FRAME_BYTES as u64), at.saturating_add(len) <= self.len) else {
            return Ok(None);
        };
        bytes.extend(self.bytes(at + FRAME_BYTES as u64, rest)?);
        if crc32c::crc32c(bytes.get(8..).unwrap_or_default()) != crc {
            return Ok(None);
        }
        let mut header = bytes.split_off(FRAME_BYTES);
        let body = header.split_off((header_len as usize).min(header.len()));
        Ok(Some(Read { found: Found { header, body }, durable, len: len.next_multiple_of(8) }))
    }

    /// Does the file begin with a whole record of the generation after this one? Then that one's header was lost.
    fn follows(&self, generation: u64) -> Result<bool> {
        let Some(tag) = u64_at(&self.bytes(FIRST, FRAME_BYTES)?, 8) else { return Ok(false) };
        Ok(tag & GENERATION_MASK == (generation + 1) & GENERATION_MASK && self.record(FIRST, tag)?.is_some())
    }

    /// Where the next record goes, and whether whole records of this generation lie behind that, unreachable.
    fn scan(&self, tag: u64) -> Result<(u64, bool)> {
        let mut end = FIRST;
        while let Some(read) = self.record(end, tag)? {
            end += read.len;
        }
        // A batch is written before it is synced, so a crash may leave a later record of it whole and an earlier one
        // torn. Only a record that says that this place was durable when it was written proves damage.
        let (mut from, mut remains) = (end + 8, false);
        while from < self.len {
            for at in begun_records(&self.bytes(from, WINDOW_BYTES)?) {
                let Some(read) = self.record(from + at, tag)? else { continue };
                remains = true;
                if read.durable > end {
                    return Err(damaged(format!(
                        "the record at byte {end} is unreadable, though everything up to byte {} was durable",
                        read.durable
                    )));
                }
            }
            from += WINDOW_BYTES as u64;
        }
        Ok((end, remains))
    }
}

/// Where something begins like a record. Most of a journal is zeros, which are passed over by pages.
fn begun_records(bytes: &[u8]) -> impl Iterator<Item = u64> {
    static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    let pages = bytes.chunks(PAGE_BYTES).zip((0_u64..).step_by(PAGE_BYTES));
    let written = pages.filter(|(page, _)| Some(*page) != ZEROS.get(..page.len()));
    let words = written.flat_map(|(page, at)| page.chunks(8).zip((at..).step_by(8)));
    words.filter(|(word, _)| word.starts_with(&RECORD_MAGIC.to_le_bytes())).map(|(_, at)| at)
}

/// Checksum, position that was durable, and the two lengths of a frame of this generation.
fn read_frame(bytes: &[u8], tag: u64) -> Option<(u32, u64, u32, u32)> {
    if u32_at(bytes, 0)? != RECORD_MAGIC || u64_at(bytes, 8)? != tag {
        return None;
    }
    Some((u32_at(bytes, 4)?, u64_at(bytes, 16)?, u32_at(bytes, 24)?, u32_at(bytes, 28)?))
}

/// A journal as somebody sees it who only looks.
#[derive(Debug, Default)]
pub(super) struct Inspected {
    /// Of both headers: the generation, if it is whole.
    pub(super) generations: [Option<u64>; 2],
    /// Of both headers: was anything ever written there?
    pub(super) used: [bool; 2],
    /// The boot in the header that counts.
    pub(super) boot: String,
    /// The file begins with a whole record of another generation than the one that counts.
    pub(super) other_first: bool,
    /// The whole records from the first on.
    pub(super) records: Vec<Found>,
    /// Where a record of this generation is unreadable, and nothing calls it durable.
    pub(super) torn: Option<u64>,
    /// What [`Journal::open`] would refuse.
    pub(super) damage: Option<EngineError>,
}

/// What a journal is, without opening it.
///
/// # Errors
/// [`EngineError::Io`].
pub(super) fn inspect(file: &dyn DiskFile) -> Result<Inspected> {
    let reader = Reader::new(file)?;
    let mut seen = Inspected::default();
    for ((at, generation), used) in HEADERS.iter().zip(&mut seen.generations).zip(&mut seen.used) {
        let bytes = reader.bytes(*at, HEADER_BYTES)?;
        *generation = read_header(&bytes).map(|header| header.generation);
        *used = bytes.iter().any(|byte| *byte != 0);
    }
    let Some((_, header)) = reader.newest_header()? else {
        seen.damage = Some(damaged("neither header is whole"));
        return Ok(seen);
    };
    let mut end = FIRST;
    while let Some(read) = reader.record(end, header.tag)? {
        seen.records.push(read.found);
        end += read.len;
    }
    let tag_at = |bytes: &[u8]| u64_at(bytes, 8).filter(|_| u32_at(bytes, 0) == Some(RECORD_MAGIC));
    if let Some(tag) = tag_at(&reader.bytes(FIRST, FRAME_BYTES)?).filter(|tag| *tag != header.tag) {
        seen.other_first = reader.record(FIRST, tag)?.is_some();
    }
    let begun = tag_at(&reader.bytes(end, FRAME_BYTES)?) == Some(header.tag);
    match reader.scan(header.tag) {
        Ok((_, remains)) => seen.torn = (begun || remains).then_some(end),
        Err(e) => seen.damage = Some(e),
    }
    seen.boot = header.boot;
    Ok(seen)
}

/// A number in bytes, little-endian.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

/// A number in bytes, little-endian.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::disk::LocalDisk;
    use super::super::tree;
    use super::*;

    // F16
    #[test]
    fn a_close_refuses_nobody_whose_sync_is_under_way() {
        let dir = tempfile::tempdir().unwrap();
        let disk = LocalDisk::open_at(dir.path()).unwrap();
        tree::make_dirs(&disk, paths::DRAFTS).unwrap();
        let journal = Journal::open(&disk, true).unwrap().0;
        let first = journal.append(b"{}", b"").unwrap();
        {
            let mut state = journal.state();
            (state.syncs, state.syncing) = (1, Some(first));
        }
        let second = journal.append(b"{}", b"").unwrap();
        let wake_all = || journal.synced.iter().for_each(Condvar::notify_all);
        std::thread::scope(|scope| {
            let (covered, next) = (scope.spawn(|| journal.sync_to(first)), scope.spawn(|| journal.sync_to(second)));
            journal.close("it was closed");
            wake_all();
            assert!(matches!(next.join().unwrap(), Err(EngineError::Closed(_))));
            // So that the other one looks too.
            std::thread::sleep(Duration::from_millis(50));
            let mut state = journal.state();
            (state.syncing, state.durable) = (None, first);
            drop(state);
            wake_all();
            covered.join().unwrap().unwrap();
        });
    }
}
