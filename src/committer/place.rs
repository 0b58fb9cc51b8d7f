//! The store's own directory, `.baton`, as the committer uses it: opened once, its names reached through the open
//! directory, so that neither a symbolic link nor a long path leads elsewhere.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, fstat, open, openat};

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
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let place = Self::open(root)?;
        place.give(&place.dir, root)?;
        Ok(place)
    }

    /// What root makes in the store of another user is given to that user, who could not go on with it otherwise.
    fn give(&self, made: impl AsFd, like: &Path) -> io::Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let (owner, made_by) = (std::fs::metadata(like)?, fstat(&made)?);
        if owner.uid() != 0 && made_by.st_uid == 0 {
            fchown(&made, Some(Uid::from_raw(owner.uid())), Some(Gid::from_raw(owner.gid())))?;
        }
        Ok(())
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
        let file = openat(&self.dir, name, flags, Mode::from_raw_mode(0o600))?;
        if flags.contains(OFlags::CREATE) {
            self.give(&file, &self.path("."))?;
        }
        Ok(File::from(file))
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
