//! Values as every engine shows them: head, snapshot, stage, attributes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Result;
use crate::words::{Seq, Version, Writer};

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A key.
    File,
    /// A directory.
    Dir,
}

/// Attributes that survive commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Permission bits (0o7777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last write, or as set.
    pub mtime: SystemTime,
    /// User xattrs, by name with `user.` before it; ours (`user.baton.`) are not among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What the user's xattrs of one key may take together: the smallest room that common file systems have (a block of
/// 4 KiB), less what our own need.
pub const XATTRS_MAX_BYTES: usize = 2048;
/// What a file system needs beside the name and the value of each, rounding included.
const XATTR_OVERHEAD_BYTES: usize = 24;

impl Attributes {
    /// Do the mode bits let this user and group do what `bit` says (4 read, 2 write, 1 search)? The user's further groups
    /// are not known here: what only they allow is not allowed.
    #[must_use]
    pub fn allows(&self, (uid, gid): (u32, u32), bit: u32) -> bool {
        let shift = match () {
            () if uid == 0 => return true,
            () if uid == self.uid => 6,
            () if gid == self.gid => 3,
            () => 0,
        };
        self.mode >> shift & bit == bit
    }

    fn xattrs_fit(&self) -> bool {
        let sizes = self.xattrs.iter().map(|(name, value)| name.len() + value.len() + XATTR_OVERHEAD_BYTES);
        sizes.sum::<usize>() <= XATTRS_MAX_BYTES
    }

    /// Refuses xattrs that there is no room for: a change that is committed must not fail when it is published.
    /// Removing some is never refused.
    ///
    /// # Errors
    /// [`super::EngineError::NoSpace`].
    pub fn room_for(&self, set: &AttributeChange) -> Result<()> {
        let mut after = self.clone();
        set.apply(&mut after);
        let adds = set.xattrs.values().any(Option::is_some);
        if adds && !after.xattrs_fit() { Err(super::EngineError::NoSpace) } else { Ok(()) }
    }
}

/// A change of attributes; `None` and empty leave as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeChange {
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New modification time.
    pub mtime: Option<SystemTime>,
    /// User xattrs to set, or to remove where `None`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, Option<Vec<u8>>>,
}

impl AttributeChange {
    /// Applies the change to attributes not yet committed.
    pub fn apply(&self, to: &mut Attributes) {
        to.mode = self.mode.unwrap_or(to.mode);
        to.uid = self.uid.unwrap_or(to.uid);
        to.gid = self.gid.unwrap_or(to.gid);
        to.mtime = self.mtime.unwrap_or(to.mtime);
        for (name, value) in &self.xattrs {
            match value {
                Some(value) => to.xattrs.insert(name.clone(), value.clone()),
                None => to.xattrs.remove(name),
            };
        }
    }
}

/// What `stat` needs of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Key or directory.
    pub kind: Kind,
    /// Committed size; 0 for a directory.
    pub size_bytes: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Mode, owner, mtime; `xattrs` is left empty here.
    pub attributes: Attributes,
}

/// One name of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, one component.
    pub name: String,
    /// Key or directory.
    pub kind: Kind,
}

/// The newest version of a key, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub version: Version,
    /// The oldest version this one only appended to; itself when it was a put. A reader pinned at `v` may follow to
    /// this version when `appends_since <= v <= version`.
    pub appends_since: Version,
    /// Its place in the session's order.
    pub seq: Seq,
    /// Its size.
    pub size_bytes: u64,
    /// Who made it; empty when unknown.
    pub writer: Writer,
    /// Seconds since 1970 of its commit (the sidecar's `updated_at`).
    pub committed_at_s: u64,
    /// Mode, owner, mtime, user xattrs.
    pub attributes: Attributes,
}

/// Bytes of one version, unchanging.
pub trait Content: Send + Sync + Debug {
    /// Reads at most `buffer.len()` bytes from `offset`; short only at the end.
    ///
    /// # Errors
    /// [`super::EngineError::Io`].
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;
}

/// One version with its bytes.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Number, writer, size and so on.
    pub head: Head,
    /// The first `head.size_bytes` bytes of this are the value.
    pub content: Arc<dyn Content>,
}

impl Snapshot {
    /// The key has another name, and there the version `before` is `now`.
    pub fn renumber(&mut self, before: Version, now: Version) {
        self.head.version = renumbered(self.head.version, before, now);
    }

    /// Reads at most `size` bytes from `offset`, never past the end of the version.
    ///
    /// # Errors
    /// [`super::EngineError::Io`].
    pub fn read(&self, offset: u64, size: usize) -> Result<Vec<u8>> {
        let left = self.head.size_bytes.saturating_sub(offset);
        let mut buffer = vec![0; size.min(usize::try_from(left).unwrap_or(usize::MAX))];
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.content.read_at(offset + done as u64, rest)? {
                0 => break,
                n => done += n,
            }
        }
        buffer.truncate(done);
        Ok(buffer)
    }

    /// The whole value.
    ///
    /// # Errors
    /// [`super::EngineError::Io`].
    pub fn read_all(&self) -> Result<Vec<u8>> {
        self.read(0, usize::try_from(self.head.size_bytes).unwrap_or(usize::MAX))
    }
}

/// The number of a version after a rename that made `before` to `now`; 0, which is no version's, for one before that.
#[must_use]
pub fn renumbered(version: Version, before: Version, now: Version) -> Version {
    if version == before { now } else { 0 }
}

/// Bytes that a commit carries: frozen, cheap to clone, so that a commit can be decided again.
#[derive(Debug, Clone)]
pub enum Staged {
    /// In memory.
    Memory(Arc<Vec<u8>>),
    /// In a file without a name, in the store's own file system.
    File {
        /// The file; nobody writes it any more.
        file: Arc<std::fs::File>,
        /// How many of its bytes count.
        len: u64,
        /// Their CRC-32C, where it was reckoned as they were written.
        crc: Option<u32>,
    },
}

impl Staged {
    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At most `size` bytes from `offset`; short only at the end.
    ///
    /// # Errors
    /// [`super::EngineError::Io`].
    pub fn read(&self, offset: u64, size: usize) -> Result<Vec<u8>> {
        let left = self.len().saturating_sub(offset);
        let size = size.min(usize::try_from(left).unwrap_or(usize::MAX));
        match self {
            Self::Memory(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                Ok(bytes.get(from..from.saturating_add(size)).unwrap_or_default().to_vec())
            }
            Self::File { file, .. } => {
                let mut bytes = vec![0; size];
                std::os::unix::fs::FileExt::read_exact_at(&**file, &mut bytes, offset)
                    .map_err(|e| super::EngineError::io("reading a draft", e))?;
                Ok(bytes)
            }
        }
    }

    /// All bytes, in memory.
    ///
    /// # Errors
    /// [`super::EngineError::Io`].
    pub fn read_all(&self) -> Result<Vec<u8>> {
        self.read(0, usize::try_from(self.len()).unwrap_or(usize::MAX))
    }
}

impl From<Vec<u8>> for Staged {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Memory(Arc::new(bytes))
    }
}

/// Bytes on their way to a commit; nobody else sees them.
pub trait Stage: Send + Sync + Debug {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Are there none?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads at most `buffer.len()` bytes from `offset`; short only at the end.
    ///
    /// # Errors
    /// [`super::EngineError::Io`].
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Writes all of `bytes` at `offset`; a gap before it reads as zeros.
    ///
    /// # Errors
    /// [`super::EngineError::NoSpace`], [`super::EngineError::Io`]; the stage is then to be thrown away.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Cuts, or lengthens with zeros.
    ///
    /// # Errors
    /// As [`Stage::write_at`].
    fn set_len(&mut self, len: u64) -> Result<()>;

    /// Makes the stage a copy of a version of the same engine, without holding it in memory.
    ///
    /// # Errors
    /// As [`Stage::write_at`].
    fn copy_from(&mut self, snapshot: &Snapshot) -> Result<()>;

    /// Ends the writing; what comes out can be committed.
    fn freeze(self: Box<Self>) -> Staged;
}

/// Space and names left, in the units of `statvfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Size of a block.
    pub block_bytes: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks free.
    pub blocks_free: u64,
    /// Blocks free for others than root.
    pub blocks_available: u64,
    /// File nodes in all.
    pub files: u64,
    /// File nodes free.
    pub files_free: u64,
}
