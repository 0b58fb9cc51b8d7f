//! Bytes before they are committed and after: stages, and the content of snapshots. Knows files, not keys.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::super::value::Content;
use super::super::{EngineError, Result, Snapshot, Stage, Staged};
use super::disk::{Disk, DiskFile};
use super::paths;

/// Values up to this size stay in memory until their commit, which then puts them into the journal.
pub(super) const INLINE_BYTES: u64 = 64 << 10;
/// How much is copied at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A stage that moves to a nameless file when it grows.
#[derive(Debug)]
pub(super) struct LocalStage {
    disk: Arc<dyn Disk>,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Memory(Vec<u8>),
    /// With the checksum of all there is, as long as each write went on where the one before it ended: a large value is then
    /// not read again at its commit.
    File {
        file: File,
        len: u64,
        crc: Option<u32>,
    },
}

impl LocalStage {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, held: Held::Memory(Vec::new()) }
    }

    /// Moves to a file when `len` bytes are too many for memory.
    fn make_room(&mut self, len: u64) -> Result<()> {
        if let Held::Memory(bytes) = &self.held
            && len > INLINE_BYTES
        {
            let file = self.disk.anonymous(paths::DRAFTS).map_err(failed)?;
            file.write_all_at(bytes, 0).map_err(failed)?;
            self.held = Held::File { file, len: bytes.len() as u64, crc: Some(crc32c::crc32c(bytes)) };
        }
        Ok(())
    }
}

fn failed(e: std::io::Error) -> EngineError {
    EngineError::io("writing a draft", e)
}

impl Stage for LocalStage {
    fn len(&self) -> u64 {
        match &self.held {
            Held::Memory(bytes) => bytes.len() as u64,
            Held::File { len, .. } => *len,
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        match &self.held {
            Held::Memory(bytes) => Ok(copy_out(bytes, offset, buffer)),
            Held::File { file, .. } => file.read_at(buffer, offset).map_err(|e| EngineError::io("reading a draft", e)),
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(end) = offset.checked_add(bytes.len() as u64) else { return Err(too_big()) };
        self.make_room(end)?;
        match &mut self.held {
            Held::Memory(held) => {
                let (from, to) = (index(offset)?, index(end)?);
                if held.len() < to {
                    held.resize(to, 0);
                }
                if let Some(place) = held.get_mut(from..to) {
                    place.copy_from_slice(bytes);
                }
            }
            Held::File { file, len, crc } => {
                // None stays of a write that fails: part of it may be there.
                let before = crc.take().filter(|_| offset == *len);
                file.write_all_at(bytes, offset).map_err(failed)?;
                *crc = before.map(|crc| crc32c::crc32c_append(crc, bytes));
                *len = end.max(*len);
            }
        }
        Ok(())
    }

    fn set_len(&mut self, to: u64) -> Result<()> {
        self.make_room(to)?;
        match &mut self.held {
            Held::Memory(held) => held.resize(index(to)?, 0),
            Held::File { file, len, crc } => {
                file.set_len(to).map_err(failed)?;
                *crc = crc.filter(|_| to == *len);
                *len = to;
            }
        }
        Ok(())
    }

    fn copy_from(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.set_len(0)?;
        let (mut at, end) = (0, snapshot.head.size_bytes);
        while at < end {
            let chunk = snapshot.read(at, CHUNK_BYTES)?;
            if chunk.is_empty() {
                break;
            }
            // Zeros stay a hole, so that a copy takes no more room than the value.
            if chunk.iter().any(|b| *b != 0) {
                self.write_at(at, &chunk)?;
            }
            at += chunk.len() as u64;
        }
        self.set_len(end)
    }

    fn freeze(self: Box<Self>) -> Staged {
        match self.held {
            Held::Memory(bytes) => Staged::Memory(Arc::new(bytes)),
            Held::File { file, len, crc } => Staged::File { file: Arc::new(file), len, crc },
        }
    }
}

fn index(at: u64) -> Result<usize> {
    usize::try_from(at).map_err(|_| too_big())
}

fn too_big() -> EngineError {
    failed(std::io::Error::from_raw_os_error(libc::EFBIG))
}

/// Copies what `bytes` has from `offset` on into `buffer`; how much that was.
pub(super) fn copy_out(bytes: &[u8], offset: u64, buffer: &mut [u8]) -> usize {
    let from = usize::try_from(offset).ok().and_then(|from| bytes.get(from..)).unwrap_or_default();
    let n = from.len().min(buffer.len());
    if let (Some(to), Some(from)) = (buffer.get_mut(..n), from.get(..n)) {
        to.copy_from_slice(from);
    }
    n
}

/// The bytes of a published file; its first bytes never change while it is open, whatever is renamed or appended.
#[derive(Debug)]
pub(super) struct FileContent(pub(super) Box<dyn DiskFile>);

impl Content for FileContent {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.0.read_at(offset, buffer).map_err(|e| EngineError::io("reading a value", e))
    }
}

/// Bytes in memory.
#[derive(Debug)]
pub(super) struct MemoryContent(pub(in super::super) Arc<Vec<u8>>);

impl Content for MemoryContent {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        Ok(copy_out(&self.0, offset, buffer))
    }
}

/// A value with bytes put after its first `len` ones.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) base: Arc<dyn Content>,
    pub(super) len: u64,
    pub(super) more: Arc<Vec<u8>>,
}

impl Content for Appended {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        if offset >= self.len {
            return Ok(copy_out(&self.more, offset - self.len, buffer));
        }
        let room = usize::try_from(self.len - offset).unwrap_or(usize::MAX).min(buffer.len());
        self.base.read_at(offset, buffer.get_mut(..room).unwrap_or_default())
    }
}

/// The bytes of a draft that is committed but not yet in its place.
#[derive(Debug)]
pub(super) struct StagedContent(pub(super) Staged);

impl Content for StagedContent {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        match &self.0 {
            Staged::Memory(bytes) => Ok(copy_out(bytes, offset, buffer)),
            Staged::File { file, .. } => {
                file.read_at(buffer, offset).map_err(|e| EngineError::io("reading a draft", e))
            }
        }
    }
}

/// All bytes of a file.
///
/// # Errors
/// [`EngineError::Io`] with `place`.
pub(super) fn read_whole(file: &dyn DiskFile, place: &str) -> Result<Vec<u8>> {
    let io = |e| EngineError::io(format!("reading {place}"), e);
    let size = file.stat().map_err(io)?.size_bytes;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let got = file.read_at(0, &mut bytes).map_err(io)?;
    bytes.truncate(got);
    Ok(bytes)
}

/// The checksum of the first `len` bytes, read in parts.
///
/// # Errors
/// As `read`.
pub(super) fn checksum(len: u64, read: impl FnMut(u64, &mut [u8]) -> Result<usize>) -> Result<u32> {
    let mut crc = 0;
    each_part(len, read, |_, part| {
        crc = crc32c::crc32c_append(crc, part);
        Ok(())
    })?;
    Ok(crc)
}

/// Reads the first `len` bytes, or all there are, in parts; `each` gets them with their place.
///
/// # Errors
/// As `read` and `each`.
pub(super) fn each_part(
    len: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<usize>,
    mut each: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES.min(usize::try_from(len).unwrap_or(CHUNK_BYTES))];
    let mut at = 0;
    while at < len {
        let want = buffer.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
        let place = buffer.get_mut(..want).unwrap_or_default();
        let got = read(at, place)?;
        if got == 0 {
            break;
        }
        each(at, place.get(..got).unwrap_or_default())?;
        at += got as u64;
    }
    Ok(())
}

/// Copies the first `len` bytes of what is at `place`, in parts.
///
/// # Errors
/// As `read` and `write`; [`EngineError::Io`] when there are fewer.
pub(super) fn copy(
    len: u64,
    place: &str,
    read: impl FnMut(u64, &mut [u8]) -> Result<usize>,
    mut write: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut copied = 0;
    each_part(len, read, |at, part| {
        copied = at + part.len() as u64;
        write(at, part)
    })?;
    match copied < len {
        true => Err(EngineError::io(format!("reading {place}"), std::io::ErrorKind::UnexpectedEof.into())),
        false => Ok(()),
    }
}
