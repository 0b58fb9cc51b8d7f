//! The promise: what a store of sessions can do, at the height of a commit. Knows no policy, no process,
//! no kernel; who may change what is decided above, in [`crate::store`].
//!
//! Three engines fit this shape: the local one ([`local`], plain files and a journal), the one in memory
//! ([`memory`]), and one over a database for when a machine is not enough. So it asks only for what all can promise:
//! a commit names the version it expects and an operation id; the commits of a session have one order and
//! a sequence without gaps; large values are staged before the commit that mentions them; nothing spans two sessions.

pub mod error;
pub mod finding;
pub mod local;
pub mod memory;
pub mod recovery;
pub mod value;

use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

pub use error::EngineError;
pub use finding::{Checked, Finding, Harm, Report, Tell};
pub use recovery::Recovery;
pub use value::{
    AttributeChange, Attributes, Content, DirEntry, Entry, Head, Kind, Snapshot, Space, Stage, Staged, XATTRS_MAX_BYTES,
};

use crate::words::{Author, Dir, Key, LogLine, Lost, Past, Policy, Seq, SessionId, Version, Writer};

/// How many versions before the newest are kept of each key where nobody says how many.
pub const KEPT_VERSIONS: u64 = 32;
/// For how many days they are kept where nobody says how long.
pub const KEPT_DAYS: u64 = 30;

/// How much of the past is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// So many versions before the newest of each key, and so many drafts that became none; 0: any number.
    pub count: u64,
    /// What was replaced, deleted, dropped or refused no longer ago; `None`: however long ago. By the background alone.
    pub age: Option<Duration>,
}

impl Keep {
    /// Where nobody says how much.
    pub const USUAL: Self = Self { count: KEPT_VERSIONS, age: Some(Duration::from_secs(KEPT_DAYS * 24 * 60 * 60)) };

    /// All of it.
    pub const ALL: Self = Self { count: 0, age: None };

    /// Is a version too far before the newest one?
    #[must_use]
    pub fn is_past(&self, version: Version, newest: Version) -> bool {
        self.count > 0 && version.saturating_add(self.count) < newest
    }

    /// How many of so many drafts are too many.
    #[must_use]
    pub fn too_many(&self, drafts: usize) -> usize {
        let most = if self.count > 0 { usize::try_from(self.count).unwrap_or(usize::MAX) } else { usize::MAX };
        drafts.saturating_sub(most)
    }
}

impl Default for Keep {
    fn default() -> Self {
        Self::USUAL
    }
}

/// The result of every engine operation.
pub type Result<T> = std::result::Result<T, EngineError>;

/// One change of one session. Every road to a changed key ends in [`Engine::commit`] with one of these.
#[derive(Debug, Clone)]
pub enum Change {
    /// `key` gets a whole new value. Missing parent directories are made.
    Put {
        /// What is written.
        key: Key,
        /// The bytes.
        content: Staged,
        /// The current version it replaces; `None` when the key must not exist.
        expected: Option<Version>,
        /// Mode, owner, times and user xattrs of the new version.
        attributes: Attributes,
    },
    /// Bytes go after the current value of an existing key; costs what the bytes cost.
    Append {
        /// What is appended to.
        key: Key,
        /// The bytes.
        bytes: Vec<u8>,
        /// The current version.
        expected: Version,
        /// Modification time of the new version, milliseconds are kept at least.
        mtime: std::time::SystemTime,
    },
    /// The key and its writer go; its history and version count stay.
    Delete {
        /// What is deleted.
        key: Key,
        /// The current version.
        expected: Version,
    },
    /// `from` becomes the next version of `to`, and is gone itself, as one step.
    Rename {
        /// The source.
        from: Key,
        /// The destination. Its parent directory exists.
        to: Key,
        /// The current version of the source.
        expected_from: Version,
        /// The current version of the destination; `None` when it must not exist.
        expected_to: Option<Version>,
        /// Other bytes than the source's own (the handoff's envelope).
        content: Option<Staged>,
    },
    /// A directory and all below it gets another name. The destination may be an existing empty directory.
    RenameDir {
        /// The source, not the session itself.
        from: Dir,
        /// The destination, not below the source.
        to: Dir,
    },
    /// Makes a directory; the session itself when `dir` is the root. Its parent exists.
    MakeDir {
        /// What is made.
        dir: Dir,
        /// Mode and owner.
        attributes: Attributes,
    },
    /// Removes an empty directory; the session itself when `dir` is the root.
    RemoveDir {
        /// What is removed.
        dir: Dir,
    },
    /// Changes attributes in place; no version.
    Attributes {
        /// Key or directory, empty for the session itself.
        path: String,
        /// What changes.
        set: AttributeChange,
    },
    /// The neighbour's sidecar declares the writer of exactly this version.
    Declare {
        /// Whose writer.
        key: Key,
        /// The current version.
        expected: Version,
    },
    /// Sets the session's policy.
    SetPolicy(Policy),
    /// Records that a draft became no version, and keeps its bytes beside the versions; changes no key.
    Drop {
        /// The key the draft was for.
        key: Key,
        /// How many bytes it held.
        size_bytes: u64,
        /// What became of it.
        lost: Lost,
        /// Why, for a person.
        reason: String,
        /// The bytes, with the attributes they would have had; `None` where they cannot be kept.
        kept: Option<(Staged, Attributes)>,
    },
}

/// Who makes a change and under which name it can be asked for again.
#[derive(Debug, Clone)]
pub struct Context {
    /// Who.
    pub author: Author,
    /// A fresh UUID per operation; the same on a repeated request.
    pub operation: uuid::Uuid,
    /// The words of a conflict that was accepted under `warn`, for the log line.
    pub conflict: Option<String>,
}

/// What a commit made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Its place in the session's order.
    pub seq: Seq,
    /// The version made, where the change makes one.
    pub version: Option<Version>,
}

/// All lines that something gives one by one.
fn gather(give: impl FnOnce(&mut dyn FnMut(LogLine) -> ControlFlow<()>) -> Result<()>) -> Result<Vec<LogLine>> {
    let mut lines = Vec::new();
    give(&mut |line| {
        lines.push(line);
        ControlFlow::Continue(())
    })?;
    Ok(lines)
}

/// A store of sessions.
///
/// All methods may be called from several threads. `Key` and `SessionId` arguments are already of good form.
pub trait Engine: Send + Sync + Debug {
    /// The name handles show as `backend`: `filesystem` or `memory`.
    fn name(&self) -> &'static str;

    /// The sessions there are, sorted bytewise.
    ///
    /// # Errors
    /// Only what a read can meet: [`EngineError::Io`].
    fn sessions(&self) -> Result<Vec<SessionId>>;

    /// What is at a path of a session (empty: the session itself), without the cost of its head.
    /// Never shows the neighbour's reserved names.
    ///
    /// # Errors
    /// [`EngineError::Io`]. A missing session or path is `Ok(None)`.
    fn entry(&self, session: &SessionId, path: &str) -> Result<Option<Entry>>;

    /// The entries of one directory, sorted by name, reserved names left out.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when there is no such directory; [`EngineError::Io`].
    fn read_dir(&self, session: &SessionId, dir: &Dir) -> Result<Vec<DirEntry>>;

    /// Every key of the session, sorted bytewise as whole strings.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when there is no such session; [`EngineError::Io`].
    fn list(&self, session: &SessionId) -> Result<Vec<Key>>;

    /// The newest version of a key: number, writer, size, attributes. A value that a program beside the mount put
    /// there gets its version and log line here (or in [`Engine::open`]).
    ///
    /// # Errors
    /// [`EngineError::Io`], [`EngineError::Closed`] when a found value could not be recorded. A missing key is `Ok(None)`.
    fn head(&self, session: &SessionId, key: &Key) -> Result<Option<Head>>;

    /// The newest version with its bytes, pinned: later commits do not change what the snapshot reads.
    ///
    /// # Errors
    /// As [`Engine::head`].
    fn open(&self, session: &SessionId, key: &Key) -> Result<Option<Snapshot>>;

    /// The last version a key had, also after its delete; 0 when it never had one.
    ///
    /// # Errors
    /// As [`Engine::head`].
    fn last_version(&self, session: &SessionId, key: &Key) -> Result<Version>;

    /// What is kept of a key: the versions whose bytes are still there, oldest first, the newest one among them, then
    /// the drafts that became none. Versions that were only appended to live on in a later one and have none of their
    /// own.
    ///
    /// # Errors
    /// As [`Engine::head`].
    fn past(&self, session: &SessionId, key: &Key) -> Result<Vec<Past>>;

    /// The names in a directory under which something other than a newest version is kept, sorted: of keys, and of
    /// directories with such keys, whether or not they are there now.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    fn past_names(&self, session: &SessionId, dir: &Dir) -> Result<Vec<String>>;

    /// What `stat` needs of one of [`Engine::past`], without the cost of its bytes; `Ok(None)` when it is not kept.
    ///
    /// # Errors
    /// As [`Engine::head`].
    fn past_entry(&self, session: &SessionId, key: &Key, past: Past) -> Result<Option<Entry>>;

    /// What there is to say of one of [`Engine::past`], without the cost of its bytes, which are not checked; `Ok(None)`
    /// when it is not kept. A draft's head has version 0, and its writer is who wrote it.
    ///
    /// # Errors
    /// As [`Engine::head`].
    fn past_head(&self, session: &SessionId, key: &Key, past: Past) -> Result<Option<Head>>;

    /// One of [`Engine::past`] with its bytes, which are checked; `Ok(None)` when it is not kept. A draft's head has
    /// version 0.
    ///
    /// # Errors
    /// As [`Engine::head`]; [`EngineError::Damaged`] when the bytes are not those that were kept.
    fn open_past(&self, session: &SessionId, key: &Key, past: Past) -> Result<Option<Snapshot>>;

    /// The versions among [`Engine::past`].
    ///
    /// # Errors
    /// As [`Engine::past`].
    fn versions(&self, session: &SessionId, key: &Key) -> Result<Vec<Version>> {
        Ok(self.past(session, key)?.into_iter().filter_map(Past::version).collect())
    }

    /// One of [`Engine::versions`] with its bytes; `Ok(None)` when it is not kept.
    ///
    /// # Errors
    /// As [`Engine::open_past`].
    fn open_version(&self, session: &SessionId, key: &Key, version: Version) -> Result<Option<Snapshot>> {
        self.open_past(session, key, Past::Version(version))
    }

    /// An empty place for bytes that a later [`Change`] will carry. Small ones live in memory, larger ones
    /// spill to where only this engine can name them.
    fn stage(&self) -> Box<dyn Stage>;

    /// Makes one change: durable, then visible, with its author, as one step.
    ///
    /// # Errors
    /// [`EngineError::Stale`]: the expected version is not the current one; nothing changed, the change can be decided again.
    /// [`EngineError::NoSession`], [`EngineError::NotFound`], [`EngineError::Exists`], [`EngineError::NotADirectory`],
    /// [`EngineError::IsADirectory`], [`EngineError::NotEmpty`], [`EngineError::NoSpace`]: nothing changed.
    /// [`EngineError::Closed`]: an earlier sync failed, what this change left is unknown until the store is reopened.
    /// [`EngineError::Io`]: nothing changed.
    fn commit(&self, session: &SessionId, change: Change, context: &Context) -> Result<Receipt>;

    /// Makes durable everything committed so far, where the engine answers commits before they are.
    ///
    /// # Errors
    /// [`EngineError::Closed`]: the sync failed, here or before; what of it is durable is unknown.
    fn sync(&self) -> Result<()>;

    /// The receipt of an operation whose answer was lost; `None` when it was never committed.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    fn receipt(&self, session: &SessionId, operation: uuid::Uuid) -> Result<Option<Receipt>>;

    /// Gives the session's changes after sequence number `after` that there are now to `each`, oldest first, until it has
    /// enough ("what changed after N"). The session takes changes meanwhile, however long `each` takes. The changes of a
    /// session that was removed are there still.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when there is and was no such session; [`EngineError::Io`].
    fn each_change(
        &self,
        session: &SessionId,
        after: Seq,
        each: &mut dyn FnMut(LogLine) -> ControlFlow<()>,
    ) -> Result<()>;

    /// The same, all at once in memory: for logs that are known to be short.
    ///
    /// # Errors
    /// As [`Engine::each_change`].
    fn changes(&self, session: &SessionId, after: Seq) -> Result<Vec<LogLine>> {
        gather(|each| self.each_change(session, after, each))
    }

    /// The session's policy; `Ignore` when none was set.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when there is no such session; [`EngineError::Io`], [`EngineError::Damaged`].
    fn policy(&self, session: &SessionId) -> Result<Policy>;

    /// Space and names left, for `df`.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    fn space(&self) -> Result<Space>;

    /// Removes what is too old at this time: what other programs left half done and will not come back for, and what was
    /// kept of the past for long enough ([`Keep::age`]); how many things. Who reads one of them reads on. Nothing waits for
    /// it; `stop` ends it early.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    fn sweep(&self, now: SystemTime, stop: &AtomicBool) -> Result<u64>;

    /// Has everything committed so far in its place for good, so that no recovery comes back to it. Most of that is written
    /// while others go on; they wait for the rest.
    ///
    /// # Errors
    /// [`EngineError::Closed`]: a sync failed, and nothing is accepted any more. [`EngineError::Io`]: a recovery still
    /// has everything.
    fn checkpoint(&self) -> Result<()>;

    /// Checks all that is kept against the rules it is kept by, while others go on working; `tell` hears how far it is.
    /// With `repair`, what can be mended without losing a committed byte is, and all is checked once more.
    ///
    /// # Errors
    /// [`EngineError::Io`] when `tell` said to stop. What cannot be read is a finding, no error.
    fn verify(&self, repair: bool, tell: &mut Tell<'_>) -> Result<Report>;

    /// Brings everything committed to its final place and lets go of the store. Later commits are refused.
    ///
    /// # Errors
    /// [`EngineError::Io`]: nothing is lost, the next open finishes the work.
    fn close(&self) -> Result<()>;
}

/// The sidecar of a version, byte for byte as the neighbour writes it: pretty JSON, two spaces, no final newline.
#[must_use]
pub fn sidecar(writer: &Writer, updated_at_s: u64) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Sidecar<'a> {
        writer: &'a Writer,
        updated_at: u64,
    }
    // Serialising strings and a number into memory cannot fail.
    serde_json::to_vec_pretty(&Sidecar { writer, updated_at: updated_at_s }).unwrap_or_default()
}
