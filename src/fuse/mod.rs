//! The kernel's door: the tree, the handles and the moment of commit. Only `adapter` names fuser's types.
#![doc = include_str!("SEMANTICS.md")]

mod adapter;
mod at_once;
mod closing;
mod counters;
mod device;
pub mod draft;
pub mod errno;
pub mod fs;
pub mod handles;
pub mod inodes;
mod mounted;
mod names;
mod opening;
mod ops_attributes;
mod ops_control;
mod ops_file;
mod ops_names;
mod ops_past;
mod ops_tree;
mod pins;
mod special;
mod views;

pub use fs::{Asker, Filesystem, Stat};
pub use mounted::{Mounted, unmount};
pub use ops_file::WriteAt;
pub use views::View;

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
    /// How often to make durable what was closed since; before the close returns where it is `None`.
    pub sync_every: Option<std::time::Duration>,
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
