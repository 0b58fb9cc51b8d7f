//! Where it is measured: a directory of our own for the stores and what is mounted. It goes away at the end, also when
//! the run is interrupted.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::Result;
use super::mount::Mount;

/// The session all values are in.
pub(crate) const SESSION: &str = "bench";

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on a signal that asks for the end is only noted.
pub(crate) fn note_interrupts() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler = note as extern "C" fn(libc::c_int);
        // SAFETY: the handler only stores to an atomic.
        let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        if before == libc::SIG_IGN {
            // SAFETY: as it was.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

/// Was the end asked for?
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails once the end was asked for: what is open is ended on the way out.
pub(crate) fn go_on() -> Result<()> {
    if interrupted() { Err("interrupted".into()) } else { Ok(()) }
}

/// The place of one run.
#[derive(Debug)]
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    /// Makes a directory in `above` (where temporary files go, when none is given).
    pub(crate) fn make(above: Option<&Path>) -> Result<Self> {
        let above = above.map_or_else(std::env::temp_dir, Path::to_owned);
        let made = tempfile::Builder::new().prefix("batonfs-bench.").tempdir_in(&above);
        let dir = made.map_err(|e| format!("making a directory in '{}': {e}", above.display()))?;
        Ok(Self { dir })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A fresh directory in it.
    pub(crate) fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.path().join(name);
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }

    /// Can anything be mounted here?
    pub(crate) fn mounts() -> bool {
        Path::new("/dev/fuse").exists()
    }

    /// A fresh store, mounted, with a session.
    pub(crate) fn mounted(&self, name: &str) -> Result<Mount> {
        let mount = Mount::ours(&self.dir(&format!("{name}-store"))?, self.dir(name)?)?;
        std::fs::create_dir(mount.session(SESSION))?;
        Ok(mount)
    }

    /// What is below: the kind of file system and its device, as the system's table has them.
    pub(crate) fn file_system(&self) -> String {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let here = self.dir.path();
        let mounts = table.lines().filter_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let at = Path::new(place.split(' ').nth(4)?);
            let mut kind = kind.split(' ');
            here.starts_with(at).then_some((at.as_os_str().len(), kind.next()?, kind.next()?))
        });
        // Of several at one place the last is the one that is seen.
        let found = mounts.max_by_key(|&(depth, ..)| depth);
        found.map_or_else(|| "unknown".to_owned(), |(_, kind, device)| format!("{kind} on {device}"))
    }

    /// Removes all of it.
    pub(crate) fn end(self) -> Result<()> {
        Ok(self.dir.close()?)
    }
}
