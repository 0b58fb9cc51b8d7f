//! The store's own directory, `.baton`, as the committer uses it: opened once, its names reached through the open
//! directory, so that neither a symbolic link nor a long path leads elsewhere.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open, openat};

use super::refusal::{Refusal, RefusalKind};
use crate::words::key::BATON_DIR;

/// An open `.baton` directory.
#[derive(Debug)]
pub struct Place {
    dir: OwnedFd,
}

impl Place {
    /// Opens `<root>/.baton`, making it where it is missing; only its owner may look in.
    ///
    /// # Errors
    /// The system's; a symbolic link in its place is one.
    pub fn make(root: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(root.join(BATON_DIR)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Self::open(root),
        }
    }

    /// Opens `<root>/.baton`.
    ///
    /// # Errors
    /// The system's; NotFound when nothing has used the store yet.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { dir: open(root.join(BATON_DIR), flags, Mode::empty())? })
    }

    /// Opens a file of it, not following a link.
    ///
    /// # Errors
    /// The system's.
    pub fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.dir, name, flags, Mode::from_raw_mode(0o600))?))
    }

    /// A short path of a name in it, for calls that take no directory: a socket's address holds 107 bytes at most.
    /// True for as long as this value lives, in this process.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()))
    }
}

/// The canonical path of a store that exists.
///
/// # Errors
/// Not found, not a directory, not to be reached: each in words.
pub fn canonical(store: &Path) -> Result<PathBuf, Refusal> {
    let shown = store.display();
    // A mount without its daemon still has a path; only looking at what is there fails.
    let found = store.canonicalize().and_then(|root| Ok((root.metadata()?.is_dir(), root)));
    let (is_dir, root) = found.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Refusal::new(RefusalKind::NotFound, format!("store '{shown}' does not exist"))
            .with_hint("'batonfs init' makes a store; any directory is one"),
        _ if e.raw_os_error() == Some(libc::ENOTCONN) => {
            Refusal::failed(format!("store '{shown}'"), "a mount without its daemon is there")
                .with_hint(format!("'batonfs umount {shown}' clears it"))
        }
        _ => Refusal::failed(format!("store '{shown}'"), e),
    })?;
    if is_dir {
        Ok(root)
    } else {
        Err(Refusal::new(RefusalKind::Failed, format!("store '{shown}' is not a directory")))
    }
}
