//! The table of versions: what a session's log says of the last version of each key, for who cannot read the whole log.
//! Knows pages and hashes; must not know what a line says. The layout is in FORMAT.md.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::super::{EngineError, Result};
use super::disk::{Access, Disk, DiskFile};
use super::journal::{u32_at, u64_at};
use super::{paths, tree};
use crate::words::{Seq, SessionId, Version};

const MAGIC: &[u8; 8] = b"batonver";
const FORM: u32 = 1;
/// The header is in the first page; a bucket is a page.
const PAGE_BYTES: usize = 4096;
const HEADER_BYTES: usize = 64;
/// Checksum and number of entries.
const BUCKET_HEAD_BYTES: usize = 8;
/// The hash of a key, and its version.
const ENTRY_BYTES: usize = 16;
const ENTRIES_MAX: usize = (PAGE_BYTES - BUCKET_HEAD_BYTES) / ENTRY_BYTES;
/// How full a fresh table is: half, so that none of its buckets overflows soon.
const ENTRIES_FRESH: usize = ENTRIES_MAX / 2;
/// More buckets are no help: so many keys of one hash are nobody's chance.
const BUCKETS_MAX: u64 = 1 << 28;

/// A place in a log: the end of the line of change `seq`, with what that line is known by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Upto {
    pub(super) seq: Seq,
    pub(super) at: u64,
    pub(super) line_len: u32,
    pub(super) line_crc: u32,
}

/// A table with a header that is whole.
#[derive(Debug)]
pub(super) struct Table {
    file: Box<dyn DiskFile>,
    place: String,
    header: Header,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    /// Drawn for each table: nobody can name keys that fall into one bucket.
    hash: (u64, u64),
    buckets: u64,
    upto: Upto,
}

/// An entry on its way into its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    bucket: u64,
    hash: u64,
    version: Version,
}

impl Table {
    /// The table of a session; `None`: there is none that is whole in size and header. Its buckets and its place in the log
    /// are not looked at.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn open(disk: &dyn Disk, session: &SessionId) -> Result<Option<Self>> {
        let place = paths::versions(session);
        let io = |e| EngineError::io(format!("reading {place}"), e);
        let file = match disk.open(&place, Access::Write) {
            Err(e) if tree::is_missing(&e) => return Ok(None),
            other => other.map_err(io)?,
        };
        let mut bytes = [0; HEADER_BYTES];
        file.read_at(0, &mut bytes).map_err(io)?;
        let Some(header) = Header::read(&bytes) else { return Ok(None) };
        let whole = file.stat().map_err(io)?.size_bytes == (1 + header.buckets).saturating_mul(PAGE_BYTES as u64);
        Ok(whole.then_some(Self { file, place, header }))
    }

    /// Makes a table for so many keys at `place`, without any.
    ///
    /// # Errors
    /// [`EngineError::Io`], [`EngineError::NoSpace`].
    pub(super) fn make(disk: &dyn Disk, place: &str, keys: usize) -> Result<Self> {
        let buckets = (keys / ENTRIES_FRESH + 1).next_power_of_two() as u64;
        let hash = uuid::Uuid::new_v4().as_u64_pair();
        Self::make_of(disk, place, Header { hash, buckets, upto: Upto::default() }, |made| {
            (0..buckets).try_for_each(|bucket| made.write(bucket, &[]))
        })
    }

    /// A full disk gets no part of a table.
    fn make_of(disk: &dyn Disk, place: &str, header: Header, fill: impl FnOnce(&Self) -> Result<()>) -> Result<Self> {
        let io = |e| EngineError::io(format!("writing {place}"), e);
        let file = tree::create(disk, place, tree::PRIVATE).map_err(io)?;
        let made = Self { file, place: place.to_owned(), header };
        let sized = made.file.set_len((1 + header.buckets) * PAGE_BYTES as u64).map_err(io);
        match sized.and_then(|()| fill(&made)) {
            Ok(()) => Ok(made),
            Err(e) => made.remove(disk).and(Err(e)),
        }
    }

    /// Makes a table of twice the buckets at `place`, with the same entries.
    ///
    /// # Errors
    /// As [`Table::make`], [`Table::get`].
    pub(super) fn doubled(&self, disk: &dyn Disk, place: &str) -> Result<Self> {
        let buckets = self.header.buckets;
        if buckets >= BUCKETS_MAX {
            return Err(EngineError::Damaged { place: self.place.clone(), what: "it has no room".to_owned() });
        }
        Self::make_of(disk, place, Header { buckets: buckets * 2, ..self.header }, |made| {
            (0..buckets).try_for_each(|bucket| {
                let there = self.read(bucket)?.into_iter();
                let (low, high): (Vec<_>, Vec<_>) = there.partition(|(hash, _)| made.bucket_of(*hash) == bucket);
                made.write(bucket, &low)?;
                made.write(bucket + buckets, &high)
            })
        })
    }

    /// Up to where in the log it says everything.
    pub(super) fn upto(&self) -> Upto {
        self.header.upto
    }

    /// The last version of a key as far as [`Table::upto`], or a later one; 0 when it had none.
    ///
    /// # Errors
    /// [`EngineError::Io`]; [`EngineError::Damaged`]: the key's bucket is not whole.
    pub(super) fn get(&self, key: &str) -> Result<Version> {
        let hash = self.hash(key);
        let entries = self.read(self.bucket_of(hash))?;
        Ok(entries.iter().find(|(of, _)| *of == hash).map_or(0, |(_, version)| *version))
    }

    /// Raises the versions of keys. `false`: a bucket has no room, and perhaps not all are in the table.
    ///
    /// # Errors
    /// As [`Table::get`]; [`EngineError::NoSpace`].
    pub(super) fn raise<'a>(&self, keys: impl Iterator<Item = (&'a str, Version)>) -> Result<bool> {
        let entry = |(key, version)| {
            let hash = self.hash(key);
            Entry { bucket: self.bucket_of(hash), hash, version }
        };
        let mut entries: Vec<_> = keys.map(entry).collect();
        entries.sort_unstable();
        let mut room = true;
        for of_one in entries.chunk_by(|a, b| a.bucket == b.bucket) {
            let Some(bucket) = of_one.first().map(|entry| entry.bucket) else { continue };
            let mut there = self.read(bucket)?;
            for Entry { hash, version, .. } in of_one {
                match there.iter_mut().find(|(of, _)| of == hash) {
                    Some((_, last)) => *last = (*last).max(*version),
                    None => there.push((*hash, *version)),
                }
            }
            room &= there.len() <= ENTRIES_MAX;
            there.truncate(ENTRIES_MAX);
            self.write(bucket, &there)?;
        }
        Ok(room)
    }

    /// Says that everything up to there is in the table. The caller has made its buckets durable: after a power cut the
    /// header must not say more than they do.
    ///
    /// # Errors
    /// [`EngineError::Io`], [`EngineError::NoSpace`]: it says what it said.
    pub(super) fn say(&mut self, upto: Upto) -> Result<()> {
        let header = Header { upto, ..self.header };
        let io = |e| EngineError::io(format!("writing {}", self.place), e);
        self.file.write_at(0, &header.bytes()).map_err(io)?;
        self.header = header;
        Ok(())
    }

    /// Puts it in the place of a session's table.
    ///
    /// # Errors
    /// [`EngineError::Io`], [`EngineError::NoSpace`].
    pub(super) fn put(mut self, disk: &dyn Disk, session: &SessionId) -> Result<Self> {
        let place = paths::versions(session);
        if let Err(e) = disk.rename(&self.place, &place) {
            self.remove(disk)?;
            return Err(EngineError::io(format!("writing {place}"), e));
        }
        self.place = place;
        Ok(self)
    }

    /// Removes one that is a draft.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn remove(&self, disk: &dyn Disk) -> Result<()> {
        tree::unlink(disk, &self.place)
    }

    /// Looks at every bucket. The keys are given in any order, each with a version that the table must not be behind; a key
    /// of which it is comes back.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub(super) fn check<'a>(
        &self,
        keys: impl Iterator<Item = (&'a str, Version)>,
        mut step: impl FnMut() -> Result<()>,
    ) -> Result<Option<&'a str>> {
        let mut keys: Vec<_> = keys.map(|(key, version)| (self.bucket_of(self.hash(key)), version, key)).collect();
        keys.sort_unstable();
        let mut keys = keys.into_iter().peekable();
        for bucket in 0..self.header.buckets {
            step()?;
            let there = self.read(bucket)?;
            while let Some((_, version, key)) = keys.next_if(|(of, ..)| *of == bucket) {
                let hash = self.hash(key);
                if there.iter().find(|(of, _)| *of == hash).is_none_or(|(_, last)| *last < version) {
                    return Ok(Some(key));
                }
            }
        }
        Ok(None)
    }

    fn hash(&self, key: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.header.hash.0, self.header.hash.1);
        hasher.write(key.as_bytes());
        hasher.finish()
    }

    /// There is a power of two of them, so that each bucket of a table becomes two of one twice as large.
    fn bucket_of(&self, hash: u64) -> u64 {
        hash & (self.header.buckets - 1)
    }

    fn read(&self, bucket: u64) -> Result<Vec<(u64, Version)>> {
        let mut page = [0; PAGE_BYTES];
        let io = |e| EngineError::io(format!("reading {}", self.place), e);
        let got = self.file.read_at((1 + bucket) * PAGE_BYTES as u64, &mut page).map_err(io)?;
        let entries = read_bucket(page.get(..got).unwrap_or_default(), bucket);
        entries.ok_or_else(|| EngineError::Damaged {
            place: self.place.clone(),
            what: format!("its page {} is not whole", 1 + bucket),
        })
    }

    fn write(&self, bucket: u64, entries: &[(u64, Version)]) -> Result<()> {
        let mut page = Vec::with_capacity(PAGE_BYTES);
        page.extend_from_slice(&[0; 4]);
        page.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (hash, version) in entries {
            page.extend_from_slice(&hash.to_le_bytes());
            page.extend_from_slice(&version.to_le_bytes());
        }
        page.resize(PAGE_BYTES, 0);
        let crc = bucket_crc(&page, bucket);
        if let Some(place) = page.get_mut(..4) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        let io = |e| EngineError::io(format!("writing {}", self.place), e);
        self.file.write_at((1 + bucket) * PAGE_BYTES as u64, &page).map_err(io)
    }
}

impl Header {
    fn bytes(&self) -> Vec<u8> {
        let (upto, mut rest) = (self.upto, Vec::with_capacity(HEADER_BYTES));
        for number in [self.hash.0, self.hash.1, self.buckets, upto.seq, upto.at] {
            rest.extend_from_slice(&number.to_le_bytes());
        }
        rest.extend_from_slice(&upto.line_len.to_le_bytes());
        rest.extend_from_slice(&upto.line_crc.to_le_bytes());
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORM.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&rest).to_le_bytes());
        bytes.extend_from_slice(&rest);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.get(16..HEADER_BYTES)?;
        let ours = bytes.get(..8)? == MAGIC && u32_at(bytes, 8)? == FORM;
        if !ours || u32_at(bytes, 12)? != crc32c::crc32c(rest) {
            return None;
        }
        let upto = Upto {
            seq: u64_at(rest, 24)?,
            at: u64_at(rest, 32)?,
            line_len: u32_at(rest, 40)?,
            line_crc: u32_at(rest, 44)?,
        };
        let header = Self { hash: (u64_at(rest, 0)?, u64_at(rest, 8)?), buckets: u64_at(rest, 16)?, upto };
        (header.buckets.is_power_of_two() && header.buckets <= BUCKETS_MAX).then_some(header)
    }
}

/// The number of the bucket is in it: a page that a disk wrote elsewhere is none.
fn bucket_crc(page: &[u8], bucket: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bucket.to_le_bytes()), page.get(4..).unwrap_or_default())
}

fn read_bucket(page: &[u8], bucket: u64) -> Option<Vec<(u64, Version)>> {
    if page.len() != PAGE_BYTES || u32_at(page, 0)? != bucket_crc(page, bucket) {
        return None;
    }
    let count = usize::try_from(u32_at(page, 4)?).ok()?;
    let entries = page.get(BUCKET_HEAD_BYTES..)?.get(..count.checked_mul(ENTRY_BYTES)?)?;
    entries.chunks_exact(ENTRY_BYTES).map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?))).collect()
}
