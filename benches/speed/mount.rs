//! Mounts of a run, each with its daemon: ours as users mount it, and the filesystems of this program. Ended when
//! dropped, also on the way out of an error.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use batonfs::committer::Holder;

use super::{Result, nothing, slow_disk};

const BATONFS: &str = env!("CARGO_BIN_EXE_batonfs");
/// Longer than any start or end takes.
const LIMIT: Duration = Duration::from_secs(20);

/// A mount with its daemon, ended when dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    point: PathBuf,
    served_by: Daemon,
    ended: bool,
}

#[derive(Debug)]
enum Daemon {
    /// Ours, in the background.
    Ours { pid: u32 },
    /// One of this program, a child of ours.
    Child(Child),
}

impl Mount {
    /// Mounts a store by the command, which returns when it serves.
    pub(crate) fn ours(store: &Path, point: PathBuf) -> Result<Self> {
        let mut command = aside(BATONFS);
        let mounted = command.arg("mount").arg(store).arg(&point).status()?;
        if !mounted.success() {
            return Err("`batonfs mount` failed".into());
        }
        let mut mount = Self { point, served_by: Daemon::Ours { pid: 0 }, ended: false };
        let holder: Holder = serde_json::from_slice(&std::fs::read(store.join(".baton/lock"))?)?;
        mount.served_by = Daemon::Ours { pid: holder.pid };
        Ok(mount)
    }

    /// Mounts the filesystem that does nothing; its directories list so many keys.
    pub(crate) fn nothing(point: PathBuf, keys: usize) -> Result<Self> {
        Self::nothing_but(point, keys, None)
    }

    /// The same, but that a close is durable, in a file that is made at `kept`.
    pub(crate) fn one_sync(point: PathBuf, kept: &Path) -> Result<Self> {
        Self::nothing_but(point, 0, Some(kept))
    }

    fn nothing_but(point: PathBuf, keys: usize, kept: Option<&Path>) -> Result<Self> {
        let keys = keys.to_string();
        let kept = kept.map(Path::as_os_str);
        Self::served_by_child(nothing::WORD, point, [OsStr::new(&keys)].into_iter().chain(kept))
    }

    /// Mounts the image of a disk whose flushes take so long.
    pub(crate) fn slow_disk(point: PathBuf, sync: Duration) -> Result<Self> {
        let sync_ms = (sync.as_secs_f64() * 1000.0).to_string();
        Self::served_by_child(slow_disk::WORD, point, [OsStr::new(&sync_ms)])
    }

    fn served_by_child<'a>(word: &str, point: PathBuf, words: impl IntoIterator<Item = &'a OsStr>) -> Result<Self> {
        let mut command = aside(std::env::current_exe()?);
        let child = command.arg(word).arg(&point).args(words).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut mount = Self { point, served_by: Daemon::Child(child), ended: false };
        let until = Instant::now() + LIMIT;
        while !is_mounted(&mount.point) {
            let Daemon::Child(child) = &mut mount.served_by else { break };
            if child.try_wait()?.is_some() || Instant::now() > until {
                return Err(format!("nothing could be mounted at '{}'", mount.point.display()).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(mount)
    }

    /// What it shows of a session.
    pub(crate) fn session(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// A figure of the daemon's memory in MiB, by the name that the kernel gives it.
    pub(crate) fn memory_mib(&self, name: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("the kernel tells no memory")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }

    /// From here on the peak of its memory (`VmHWM`) is a new one.
    pub(crate) fn forget_peak(&self) -> Result<()> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5")?)
    }

    fn pid(&self) -> u32 {
        match &self.served_by {
            Daemon::Ours { pid } => *pid,
            Daemon::Child(child) => child.id(),
        }
    }

    /// Unmounts it, and says what did not end well.
    pub(crate) fn end(mut self) -> Result<()> {
        self.leave()
    }

    fn leave(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let left = match &self.served_by {
            Daemon::Ours { .. } => {
                aside(BATONFS).arg("umount").arg(&self.point).status().is_ok_and(|ended| ended.success())
            }
            Daemon::Child(_) => batonfs::fuse::unmount(&self.point, false).is_ok(),
        };
        if !left && is_mounted(&self.point) {
            batonfs::fuse::unmount(&self.point, true)?;
        }
        match &mut self.served_by {
            Daemon::Ours { .. } => Ok(()),
            Daemon::Child(child) => end_within_limit(child),
        }
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
pub(crate) fn aside(program: impl AsRef<OsStr>) -> Command {
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
pub(crate) fn is_mounted(point: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4) == point.to_str())
}
