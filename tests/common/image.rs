//! A small file system of a test's own: an ext4 image on a loop device or one in memory, taken away when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::UnmountFlags;
use tempfile::TempDir;

/// A mounted image.
#[derive(Debug)]
pub(crate) struct Image(TempDir);

impl Image {
    /// A fresh one of so many MiB; `None`, said aloud, where the machine cannot have one.
    pub(crate) fn new(size_mib: u64) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can mount a file system of its own");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("batonfs-image-").tempdir().expect("a temporary directory");
        let image = Self(dir);
        fs::create_dir(image.path()).expect("mkdir");
        let file = image.0.path().join("image");
        fs::File::create(&file).and_then(|file| file.set_len(size_mib << 20)).expect("a file");
        // No blocks that only root may fill: the daemon of the test is root's.
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&file));
        let mounted = made.and_then(|()| run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(image.path())));
        match mounted {
            Ok(()) => Some(image),
            Err(words) => {
                eprintln!("SKIPPED: no file system of its own here: {words}");
                None
            }
        }
    }

    /// A fresh one in memory, which gives its last byte to a file and keeps nothing back.
    pub(crate) fn in_memory(size_mib: u64) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("batonfs-image-").tempdir().expect("a temporary directory");
        let image = Self(dir);
        fs::create_dir(image.path()).expect("mkdir");
        let size = format!("size={size_mib}m");
        match run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(image.path())) {
            Ok(()) => Some(image),
            Err(words) => {
                eprintln!("SKIPPED: no file system of its own here: {words}");
                None
            }
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("fs")
    }

    /// Sets or clears the attribute that lets nobody change a file, not even root.
    pub(crate) fn freeze(file: &Path, frozen: bool) {
        run(Command::new("chattr").arg(if frozen { "+i" } else { "-i" }).arg(file)).expect("chattr");
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let at = self.path();
        if rustix::mount::unmount(&at, UnmountFlags::empty()).is_err() {
            let _ = rustix::mount::unmount(&at, UnmountFlags::DETACH);
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let ran = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    let said = String::from_utf8_lossy(&ran.stderr);
    if ran.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", said.trim())) }
}
