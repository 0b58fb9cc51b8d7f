//! Where it is measured: a directory of our own with the stores, and the two mounts. All of it goes away at the end,
//! also when the run is interrupted.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use batonfs::committer;
use batonfs::engine::Attributes;
use batonfs::engine::local::Opening;
use batonfs::store::{Caller, Store};
use batonfs::words::{Author, Key, Policy, SessionId};
use tempfile::TempDir;

use super::way::Way;
use super::{Result, nothing, way};

const BATONFS: &str = env!("CARGO_BIN_EXE_batonfs");
/// The session all values are in.
pub(crate) const SESSION: &str = "bench";
/// Where the store is whose disk is timed.
const TIMED: &str = "timed";
/// Longer than any start or end takes.
const LIMIT: Duration = Duration::from_secs(20);

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

/// The place of one run.
#[derive(Debug)]
pub(crate) struct Place {
    store: Option<Arc<Store>>,
    mounts: Vec<Mount>,
    // Last, so that what lies in it has ended.
    dir: TempDir,
}

impl Place {
    /// Makes a directory in `above` (where temporary files go, when none is given), opens and mounts what is measured.
    pub(crate) fn make(above: Option<&Path>) -> Result<Self> {
        let above = above.map_or_else(std::env::temp_dir, Path::to_owned);
        let made = tempfile::Builder::new().prefix("batonfs-bench.").tempdir_in(&above);
        let dir = made.map_err(|e| format!("making a directory in '{}': {e}", above.display()))?;
        let mut place = Self { store: None, mounts: Vec::new(), dir };
        for name in ["library", "directory", "store", "mount", "nothing", TIMED] {
            std::fs::create_dir(place.path(name))?;
        }
        let store = Arc::new(committer::open_store(&place.path("library"), Policy::default(), Opening::USUAL)?);
        place.store = Some(store);
        if !Path::new("/dev/fuse").exists() {
            return Ok(place);
        }
        let mount = Mount::ours(&place.path("store"), place.path("mount"))?;
        place.mounts.push(mount);
        let mount = Mount::nothing(place.path("nothing"))?;
        place.mounts.push(mount);
        std::fs::create_dir(place.root(Way::Mount).join(SESSION))?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory that sessions of this way are in.
    pub(crate) fn root(&self, way: Way) -> PathBuf {
        self.path(way.word())
    }

    /// For a store whose disk is timed.
    pub(crate) fn timed(&self) -> PathBuf {
        self.path(TIMED)
    }

    /// The store that the library's writers share.
    pub(crate) fn store(&self) -> Result<Arc<Store>> {
        Ok(self.store.clone().ok_or("the store is closed")?)
    }

    /// Can it be measured here?
    pub(crate) fn has(&self, way: Way) -> bool {
        matches!(way, Way::Directory | Way::Library) || !self.mounts.is_empty()
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

    /// Makes the library's session, and its keys' first versions.
    pub(crate) fn prepare_library(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let store = self.store()?;
        let session = SessionId::parse(SESSION)?;
        make_session(&store, &session)?;
        way::through_the_store(&store, &session, &Key::literal(key)?, bytes)?;
        Ok(())
    }

    /// Ends all of it, and says what did not end well.
    pub(crate) fn end(mut self) -> Result<()> {
        if let Some(store) = self.store.take() {
            store.engine().close()?;
        }
        for mount in std::mem::take(&mut self.mounts) {
            mount.end()?;
        }
        Ok(self.dir.close()?)
    }
}

/// A mount with its daemon, ended when dropped.
#[derive(Debug)]
struct Mount {
    point: PathBuf,
    /// The daemon, where it is a child of ours.
    served_by: Option<Child>,
    ended: bool,
}

impl Mount {
    fn ours(store: &Path, point: PathBuf) -> Result<Self> {
        let mut command = aside(BATONFS);
        let mounted = command.arg("mount").arg(store).arg(&point).status()?;
        if !mounted.success() {
            return Err("`batonfs mount` failed".into());
        }
        Ok(Self { point, served_by: None, ended: false })
    }

    fn nothing(point: PathBuf) -> Result<Self> {
        let mut command = aside(std::env::current_exe()?);
        let child = command.arg(nothing::WORD).arg(&point).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut mount = Self { point, served_by: Some(child), ended: false };
        let until = Instant::now() + LIMIT;
        while !is_mounted(&mount.point) {
            let ended = mount.served_by.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > until {
                return Err("the filesystem that does nothing could not be mounted".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(mount)
    }

    fn end(mut self) -> Result<()> {
        self.leave()
    }

    fn leave(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let left = match &self.served_by {
            None => aside(BATONFS).arg("umount").arg(&self.point).status().is_ok_and(|ended| ended.success()),
            Some(_) => batonfs::fuse::unmount(&self.point, false).is_ok(),
        };
        if !left && is_mounted(&self.point) {
            batonfs::fuse::unmount(&self.point, true)?;
        }
        self.served_by.as_mut().map_or(Ok(()), end_within_limit)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(e) = self.leave() {
            eprintln!("bench: ending the mount at '{}': {e}", self.point.display());
        }
    }
}

/// A command that a Ctrl-C in our terminal does not reach: its end is ours to make.
fn aside(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.process_group(0);
    command
}

fn end_within_limit(child: &mut Child) -> Result<()> {
    let until = Instant::now() + LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() > until {
            child.kill()?;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Read from the table, so that nothing waits for who serves it.
fn is_mounted(point: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4) == point.to_str())
}

/// Makes a session where it is not there yet.
pub(crate) fn make_session(store: &Store, session: &SessionId) -> Result<()> {
    if store.engine().entry(session, "")?.is_none() {
        let by = Caller::new(Author::default(), None);
        store.init(session, Attributes { mode: 0o755, ..way::attributes() }, &by)?;
    }
    Ok(())
}
