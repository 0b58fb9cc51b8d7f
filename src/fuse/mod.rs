//! The kernel's door: the tree, the handles and the moment of commit. Only `adapter` names fuser's types.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::identity::Resolver;
use crate::store::Store;
use crate::words::{Key, SessionId};

/// What happens to drafts that are open when the mount has to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnKill {
    /// They are dropped; the old versions stay.
    #[default]
    Drop,
    /// They are committed as they are.
    Commit,
}

/// How to mount.
#[derive(Debug, Clone)]
pub struct Options {
    /// Let other users in.
    pub allow_other: bool,
    /// Refuse every change with EROFS.
    pub read_only: bool,
    /// What becomes of drafts whose writer was killed, and of those open at the end.
    pub on_kill: OnKill,
}

/// A draft that is open now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenDraft {
    /// Its session.
    pub session: SessionId,
    /// Its key.
    pub key: Key,
    /// Bytes in it.
    pub size_bytes: u64,
    /// The processes known to hold it.
    pub pids: Vec<u32>,
}

/// A mounted store.
#[derive(Debug)]
pub struct Mounted {
    mountpoint: PathBuf,
}

impl Mounted {
    /// Mounts `store` at `mountpoint` and serves it from threads of its own; when this returns, it serves.
    ///
    /// # Errors
    /// The system's error of the mount; nothing is left mounted.
    pub fn start(store: Arc<Store>, resolver: Arc<Resolver>, mountpoint: &Path, options: &Options) -> io::Result<Self> {
        let _ = (store, resolver, options);
        Ok(Self { mountpoint: mountpoint.to_owned() })
    }

    /// The drafts open now: handles with something that no commit has made yet.
    #[must_use]
    pub fn open_drafts(&self) -> Vec<OpenDraft> {
        Vec::new()
    }

    /// Waits until no draft is open, at most `limit`; what is still open then.
    #[must_use]
    pub fn drain(&self, limit: Duration) -> Vec<OpenDraft> {
        let _ = limit;
        self.open_drafts()
    }

    /// Ends every open draft as [`Options::on_kill`] says, and tells what it did to each (`true`: committed).
    #[must_use]
    pub fn settle(&self) -> Vec<(OpenDraft, bool)> {
        Vec::new()
    }

    /// Takes the mount away: at once where nobody is in it, else (`lazy`) as soon as the last one leaves.
    ///
    /// # Errors
    /// EBUSY when somebody is in it and `lazy` is false.
    pub fn unmount(&self, lazy: bool) -> io::Result<()> {
        let _ = (lazy, &self.mountpoint);
        Ok(())
    }

    /// Waits until the mount has ended, by [`Mounted::unmount`] or from outside.
    ///
    /// # Errors
    /// The last error of the session with the kernel.
    pub fn wait(&self) -> io::Result<()> {
        Ok(())
    }
}
