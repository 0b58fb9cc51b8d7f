//! The lock that makes one committer a store, and who holds it. Held by a file lock, so that a killed holder holds it
//! no more; the file's contents only name the holder for people.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use super::place::Place;

const NAME: &str = "lock";
/// Longest description that is read back: more than any holder of ours writes.
const HOLDER_MAX_BYTES: u64 = 64 * 1024;

/// Who holds a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process id, in its own pid namespace.
    pub pid: u32,
    /// What it is: `mount`, or the command's name.
    pub what: String,
    /// Where it has the store mounted, if it is a mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mountpoint: Option<PathBuf>,
    /// Since when, in seconds since 1970.
    pub since_s: u64,
}

impl Holder {
    /// This process, from now on.
    #[must_use]
    pub fn this(what: &str, mountpoint: Option<&Path>) -> Self {
        let mountpoint = mountpoint.map(Path::to_owned);
        Self { pid: std::process::id(), what: what.to_owned(), mountpoint, since_s: now_s() }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let for_s = now_s().saturating_sub(self.since_s);
        match &self.mountpoint {
            Some(at) => write!(f, "process {} (mount at '{}', for {for_s} s)", self.pid, at.display()),
            None => write!(f, "process {} (batonfs {}, for {for_s} s)", self.pid, self.what),
        }
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The lock of a store, held until dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// What came of trying.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Taken(Lock),
    /// Somebody has it; `None` when they have not yet said who they are.
    Held(Option<Holder>),
}

impl Lock {
    /// Takes the lock if it is free; never waits.
    ///
    /// # Errors
    /// The system's, opening or locking the file.
    pub fn attempt(place: &Place, holder: &Holder) -> io::Result<Attempt> {
        let mut file = place.file(NAME, OFlags::RDWR | OFlags::CREATE)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Attempt::Held(read_holder(&mut file))),
            other => other?,
        }
        // A file that was removed meanwhile locks nobody out: not ours until it is the one by that name.
        if !is_current(place, &file) {
            return Ok(Attempt::Held(None));
        }
        let mut lock = Self { file };
        if let Err(e) = lock.describe(holder) {
            // Words only: on a full disk the store is still to be read, and room to be made in it.
            tracing::warn!("the lock does not say who holds it: {e}");
        }
        Ok(Attempt::Taken(lock))
    }

    fn describe(&mut self, holder: &Holder) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        serde_json::to_writer(&mut self.file, holder)?;
        self.file.write_all(b"\n")
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The words only; the lock itself ends with the descriptor.
        let _ = self.file.set_len(0);
    }
}

/// Who holds the lock of a store now; `None` when nobody does, or when they have not said.
///
/// # Errors
/// The system's.
pub fn holder(place: &Place) -> io::Result<Option<Holder>> {
    let mut file = match place.file(NAME, OFlags::RDWR) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    // Shared, so that two who look do not take each other for holders.
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(read_holder(&mut file)),
        other => Ok(other.map(|()| None)?),
    }
}

fn is_current(place: &Place, file: &File) -> bool {
    match (place.file(NAME, OFlags::RDONLY).and_then(|f| f.metadata()), file.metadata()) {
        (Ok(named), Ok(ours)) => named.ino() == ours.ino() && named.dev() == ours.dev(),
        _ => false,
    }
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(HOLDER_MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}
