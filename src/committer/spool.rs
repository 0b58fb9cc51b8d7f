//! Bytes between a stream and a store: taken in whole before anything else happens, so that no slow pipe is ever
//! waited for while the store is locked, and no half of a value goes on.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, open};

use crate::engine::{Engine, Result as EngineResult, Snapshot, Staged};

/// What is kept in memory; more goes to a file without a name.
pub(super) const MEMORY_MAX_BYTES: usize = 1024 * 1024;
/// How much is moved at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Reads a stream to its end. Large ones spill to a file without a name, beside `near` where that is allowed, else in
/// the system's temporary directory.
///
/// # Errors
/// The stream's, or the disk's.
pub fn take(from: &mut dyn Read, near: &Path) -> io::Result<Staged> {
    let mut bytes = Vec::new();
    from.take(MEMORY_MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() <= MEMORY_MAX_BYTES {
        return Ok(Staged::from(bytes));
    }
    let mut file = nameless(near).or_else(|_| nameless(&std::env::temp_dir()))?;
    file.write_all(&bytes)?;
    let len = bytes.len() as u64 + io::copy(from, &mut file)?;
    Ok(Staged::File { file: Arc::new(file), len, crc: None })
}

/// As [`take`], for a stream that says its length beforehand.
///
/// # Errors
/// As [`take`]; UnexpectedEof when the stream ends before its length.
pub fn take_exactly(from: &mut dyn Read, len: u64, near: &Path) -> io::Result<Staged> {
    let taken = take(&mut from.take(len), near)?;
    if taken.len() == len { Ok(taken) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn nameless(dir: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(open(dir, flags, Mode::from_raw_mode(0o600))?))
}

/// Writes all of it.
///
/// # Errors
/// The stream's, or the disk's.
pub fn give(staged: &Staged, to: &mut dyn Write) -> io::Result<()> {
    let (file, len) = match staged {
        Staged::Memory(bytes) => return to.write_all(bytes),
        Staged::File { file, len, .. } => (file, *len),
    };
    chunks(len, |at, buffer| file.read_at(buffer, at), |_, bytes| to.write_all(bytes))
}

/// Writes all of a version.
///
/// # Errors
/// The stream's, or the engine's.
pub fn give_snapshot(snapshot: &Snapshot, to: &mut dyn Write) -> io::Result<()> {
    let read = |at, buffer: &mut [u8]| snapshot.content.read_at(at, buffer).map_err(io::Error::other);
    chunks(snapshot.head.size_bytes, read, |_, bytes| to.write_all(bytes))
}

/// Puts spooled bytes where the engine wants a value to be.
///
/// # Errors
/// The engine's, or reading what was spooled.
pub fn stage(staged: Staged, engine: &dyn Engine) -> EngineResult<Staged> {
    let (file, len) = match staged {
        Staged::Memory(_) => return Ok(staged),
        Staged::File { file, len, .. } => (file, len),
    };
    let mut stage = engine.stage();
    let mut failed = Ok(());
    let copied = chunks(
        len,
        |at, buffer| file.read_at(buffer, at),
        |at, bytes| {
            stage.write_at(at, bytes).map_err(|e| {
                failed = Err(e);
                io::ErrorKind::Other.into()
            })
        },
    );
    failed?;
    copied.map_err(|e| crate::engine::EngineError::io("reading what is to be written", e))?;
    Ok(stage.freeze())
}

fn chunks(
    len: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
    mut write: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES.min(usize::try_from(len).unwrap_or(CHUNK_BYTES))];
    let mut at = 0;
    while at < len {
        let want = usize::try_from(len - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        let Some(part) = buffer.get_mut(..want) else { break };
        let n = read(at, part)?;
        match part.get(..n).filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => write(at, bytes)?,
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        at += n as u64;
    }
    Ok(())
}
