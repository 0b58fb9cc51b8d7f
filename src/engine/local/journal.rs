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
const HEADERS: [u64; 2] = [0, 4096];
const HEADER_BYTES: usize = 80;
/// Where records begin.
const FIRST: u64 = 8192;
/// Magic, checksum, tag, synced position, two lengths.
const FRAME_BYTES: usize = 32;
/// Zeros are written ahead in steps of this, so that the sync of a small commit moves no metadata.
const ZEROS_BYTES: u64 = 1 << 20;
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
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The records, oldest first.
    pub(super) records: Vec<Found>,
    /// The machine has not started again since they were written: nothing written was lost.
    pub(super) same_boot: bool,
    /// It must start again before anything is appended: it has records, was written before the machine started, or has
    /// remains of a torn batch that a new record could run into.
    pub(super) stale: bool,
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    file: Box<dyn DiskFile>,
    boot: String,
    state: Mutex<State>,
    synced: Condvar,
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
    syncing: bool,
    /// Why nothing is accepted any more.
    closed: Option<String>,
}

impl Journal {
    /// Opens the journal, or makes it. What is after the last whole record is a torn batch that nobody was told of.
    ///
    /// # Errors
    /// [`EngineError::Damaged`]: a record that was durable is unreadable. [`EngineError::Io`].
    pub(super) fn open(disk: &dyn Disk) -> Result<(Self, Contents)> {
        let boot = disk.boot();
        let (file, bytes) = match disk.open(paths::JOURNAL, super::disk::Access::Write) {
            Ok(file) => {
                let bytes = super::stage::read_whole(&*file, paths::JOURNAL)?;
                (file, bytes)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => make(disk, &boot)?,
            Err(e) => return Err(EngineError::io("opening the journal", e)),
        };
        let Some((index, Header { generation, tag, boot: written_at })) = newest_header(&bytes) else {
            return Err(damaged("neither header is whole"));
        };
        let Scan { records, end, remains } = scan(&bytes, tag)?;
        let same_boot = !boot.is_empty() && written_at == boot;
        let state = State {
            generation,
            tag,
            header: index,
            end,
            written: (bytes.len() as u64).max(FIRST),
            durable: end,
            syncing: false,
            closed: None,
        };
        let journal = Self { file, boot, state: Mutex::new(state), synced: Condvar::new() };
        let stale = remains || !same_boot || !records.is_empty();
        Ok((journal, Contents { records, same_boot, stale }))
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
            state.refuse_closed()?;
            if state.syncing {
                state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.syncing = true;
            let target = state.end;
            drop(state);
            let result = self.file.sync_data();
            state = self.state();
            state.syncing = false;
            match result {
                Ok(()) => state.durable = target,
                Err(e) => state.closed = Some(format!("syncing the journal failed: {e}")),
            }
            self.synced.notify_all();
        }
        Ok(())
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
        let tag = fresh_tag();
        let header = 1 - state.header;
        let place = HEADERS.get(header).copied().unwrap_or(0);
        let io = |e| EngineError::io("starting the journal again", e);
        self.file.write_at(place, &header_bytes(generation, tag, &self.boot)).map_err(io)?;
        if let Err(e) = self.file.sync_data() {
            let words = format!("syncing the journal failed: {e}");
            state.closed = Some(words.clone());
            return Err(EngineError::Closed(words));
        }
        (state.generation, state.tag, state.header) = (generation, tag, header);
        (state.end, state.durable) = (FIRST, FIRST);
        if state.written > KEEP_BYTES && self.file.set_len(KEEP_BYTES).is_ok() {
            state.written = KEEP_BYTES;
        }
        Ok(())
    }
}

impl State {
    fn refuse_closed(&self) -> Result<()> {
        self.closed.clone().map_or(Ok(()), |words| Err(EngineError::Closed(words)))
    }
}

fn damaged(what: impl Into<String>) -> EngineError {
    EngineError::Damaged { place: paths::JOURNAL.to_owned(), what: what.into() }
}

/// A fresh journal appears under its name whole, so that a crash while it is made leaves none.
fn make(disk: &dyn Disk, boot: &str) -> Result<(Box<dyn DiskFile>, Vec<u8>)> {
    let io = |e| EngineError::io("making the journal", e);
    let draft = paths::draft("journal");
    match disk.unlink(&draft) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    let file = disk.create(&draft, super::tree::PRIVATE).map_err(io)?;
    let mut start = vec![0; FIRST as usize];
    if let Some(place) = start.get_mut(..HEADER_BYTES) {
        place.copy_from_slice(&header_bytes(1, fresh_tag(), boot));
    }
    file.write_at(0, &start).map_err(io)?;
    file.sync().map_err(io)?;
    disk.rename(&draft, paths::JOURNAL).map_err(io)?;
    disk.sync_dir(paths::parent(paths::JOURNAL)).map_err(io)?;
    Ok((disk.open(paths::JOURNAL, super::disk::Access::Write).map_err(io)?, start))
}

fn fresh_tag() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
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

/// The newest whole header and its index.
fn newest_header(bytes: &[u8]) -> Option<(usize, Header)> {
    HEADERS
        .iter()
        .enumerate()
        .filter_map(|(index, at)| Some((index, read_header(tail(bytes, *at).get(..HEADER_BYTES)?)?)))
        .max_by_key(|(_, header)| header.generation)
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

fn read_record(bytes: &[u8], tag: u64) -> Option<Read> {
    if u32_at(bytes, 0)? != RECORD_MAGIC || u64_at(bytes, 8)? != tag {
        return None;
    }
    let header_len = u32_at(bytes, 24)? as usize;
    let body_len = u32_at(bytes, 28)? as usize;
    let header_end = FRAME_BYTES.checked_add(header_len)?;
    let body_end = header_end.checked_add(body_len)?;
    if crc32c::crc32c(bytes.get(8..body_end)?) != u32_at(bytes, 4)? {
        return None;
    }
    let found =
        Found { header: bytes.get(FRAME_BYTES..header_end)?.to_vec(), body: bytes.get(header_end..body_end)?.to_vec() };
    Some(Read { found, durable: u64_at(bytes, 16)?, len: body_end.next_multiple_of(8) as u64 })
}

struct Scan {
    /// All whole records from the first on.
    records: Vec<Found>,
    /// Where the next one goes.
    end: u64,
    /// Whole records of this generation lie behind an unreadable one.
    remains: bool,
}

fn scan(bytes: &[u8], tag: u64) -> Result<Scan> {
    let mut records = Vec::new();
    let mut end = FIRST;
    while let Some(read) = read_record(tail(bytes, end), tag) {
        records.push(read.found);
        end += read.len;
    }
    // A batch is written before it is synced, so a crash may leave a later record of it whole and an earlier one torn.
    // Only a record that says that this place was durable when it was written proves damage.
    let mut remains = false;
    for later in begun_records(bytes, end + 8) {
        let Some(read) = read_record(tail(bytes, later), tag) else { continue };
        remains = true;
        if read.durable > end {
            return Err(damaged(format!(
                "the record at byte {end} is unreadable, though everything up to byte {} was durable",
                read.durable
            )));
        }
    }
    Ok(Scan { records, end, remains })
}

/// Where something from `from` on begins like a record. Most of a journal is zeros, which are passed over by pages.
fn begun_records(bytes: &[u8], from: u64) -> impl Iterator<Item = u64> {
    const PAGE_BYTES: usize = 4096;
    static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    let pages = tail(bytes, from).chunks(PAGE_BYTES).zip((from..).step_by(PAGE_BYTES));
    let written = pages.filter(|(page, _)| Some(*page) != ZEROS.get(..page.len()));
    let words = written.flat_map(|(page, at)| page.chunks(8).zip((at..).step_by(8)));
    words.filter(|(word, _)| word.starts_with(&RECORD_MAGIC.to_le_bytes())).map(|(_, at)| at)
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

/// What a journal's bytes are, without opening it.
pub(super) fn inspect(bytes: &[u8]) -> Inspected {
    let at = |place| tail(bytes, place).get(..HEADER_BYTES).unwrap_or_default();
    let generations = HEADERS.map(|place| read_header(at(place)).map(|header| header.generation));
    let used = HEADERS.map(|place| at(place).iter().any(|byte| *byte != 0));
    let mut seen = Inspected { generations, used, ..Inspected::default() };
    let Some((_, header)) = newest_header(bytes) else {
        seen.damage = Some(damaged("neither header is whole"));
        return seen;
    };
    let mut end = FIRST;
    while let Some(read) = read_record(tail(bytes, end), header.tag) {
        seen.records.push(read.found);
        end += read.len;
    }
    let first = tail(bytes, FIRST);
    let whole = u64_at(first, 8).is_some_and(|tag| tag != header.tag && read_record(first, tag).is_some());
    seen.other_first = whole;
    let rest = tail(bytes, end);
    let begun = u32_at(rest, 0) == Some(RECORD_MAGIC) && u64_at(rest, 8) == Some(header.tag);
    match scan(bytes, header.tag) {
        Ok(Scan { remains, .. }) => seen.torn = (begun || remains).then_some(end),
        Err(e) => seen.damage = Some(e),
    }
    seen.boot = header.boot;
    seen
}

fn tail(bytes: &[u8], from: u64) -> &[u8] {
    usize::try_from(from).ok().and_then(|from| bytes.get(from..)).unwrap_or_default()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}
