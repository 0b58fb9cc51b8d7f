//! Open files: a table of handles, each in one state that keeps answering its failure.
//! Knows drafts and who took part in them; what the kernel asks is in the `ops_` files.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use super::draft::Draft;
use super::errno::Refusal;
use super::fs::Asker;
use super::inodes::Ino;
use crate::engine::{AttributeChange, DirEntry, Snapshot, Staged};
use crate::identity::Observed;
use crate::identity::holders::Holder;
use crate::store::PrefixCheck;

/// So far apart are the places of a log that a reader remembers.
const PAGES_APART_BYTES: u64 = 64 << 10;

/// A handle's number.
pub type HandleId = u64;

/// An open file or directory.
#[derive(Debug)]
pub struct Handle {
    /// Its number.
    pub id: HandleId,
    /// Its node.
    pub ino: Ino,
    /// Opened for writing (or a new name, also when opened for reading): it may have something to commit.
    pub writes: bool,
    /// Its descriptors can write: they are counted where holders are looked for.
    pub descriptors_write: bool,
    /// Its open made the name, and its draft is still to be committed: the attributes the name was made with are its own.
    pub makes: AtomicBool,
    /// A FLUSH left a commit waiting for other holders.
    pub waiting: AtomicBool,
    /// Its last FLUSH found no descriptor left that can write, or its RELEASE has come.
    pub closed: AtomicBool,
    /// Size of the draft, kept here so that `stat` of a hidden name waits for nobody.
    pub draft_size_bytes: AtomicU64,
    /// The process that opened it for writing; 0 when that is not known.
    pub opener: u32,
    /// The processes that may hold it, kept here so that another handle's FLUSH waits for nobody.
    pids: Mutex<Vec<u32>>,
    state: Mutex<State>,
}

/// What the handle is for.
#[derive(Debug)]
pub enum State {
    /// Reads one version, pinned at its first read.
    Reader(Option<Snapshot>),
    /// Writes a draft.
    Writer(Box<Writer>),
    /// Reads what is kept of a key.
    Kept(Snapshot),
    /// Reads bytes made at open (a sidecar, a control file, a temporary file of the neighbour's).
    Fixed(Staged),
    /// Reads lines that others come after.
    Lines(Box<Lines>),
    /// Takes the text of a switch, set at the next FLUSH by who wrote it.
    Switch {
        /// What was written since it was last set.
        text: Vec<u8>,
        /// Who opened it, or wrote to it last.
        by: Observed,
    },
    /// Lists a directory as it was at open, or when it was last listed again from the start (`rewinddir`).
    Directory {
        /// Its entries then.
        entries: Vec<DirEntry>,
        /// Its first entries were read since.
        begun: bool,
    },
}

/// A reader of lines that others come after. It holds those around its last read.
#[derive(Debug)]
pub struct Lines {
    /// Who opened it, as it was seen then.
    pub(super) by: (Asker, Observed),
    /// Where `text` begins, in bytes from the first line.
    pub(super) start: u64,
    /// Lines.
    pub(super) text: Vec<u8>,
    /// The number of the last of them.
    pub(super) last: u64,
    /// Where some pages that were read begin, and the number of the line before each: who reads backwards need not begin
    /// anew.
    pub(super) pages: Vec<(u64, u64)>,
}

impl Lines {
    /// A page begins there, after the line of this number. Who follows line by line makes many small pages.
    pub(super) fn begins(&mut self, at: u64, after: u64) {
        if self.pages.last().is_none_or(|&(before, _)| at >= before + PAGES_APART_BYTES) {
            self.pages.push((at, after));
        }
    }
}

/// The state of a handle that writes.
#[derive(Debug)]
pub struct Writer {
    /// The bytes.
    pub draft: Draft,
    /// Who opened it.
    pub opener: Observed,
    /// Who wrote since the last commit, the last one last.
    pub writers: Vec<Observed>,
    /// The thread whose process is last in `writers`.
    pub last_thread: u32,
    /// That process, to be asked how it has ended where no FLUSH of it tells.
    pub last: Option<Holder>,
    /// Lock owners (descriptor tables) that wrote since the last commit.
    pub owners: HashSet<u64>,
    /// Something was written since by a call that names no table: a copy inside the mount, `ftruncate`.
    pub unowned: bool,
    /// Tables that closed a descriptor of it.
    pub flushers: HashSet<u64>,
    /// Processes seen to hold a writable descriptor of it.
    pub holders: Vec<Holder>,
    /// Attributes set on the draft.
    pub set: AttributeChange,
    /// When it was last written.
    pub written_at: SystemTime,
    /// Since when bytes that are an append wait for their commit: those written first, however many follow.
    pub append_since: Option<Instant>,
    /// The last append filled a request: more of the same write may follow, and nothing may come between.
    pub goes_on: bool,
    /// A FLUSH was seen since it was last written to: without one, RELEASE asks how the writer has ended.
    pub flushed: bool,
    /// Processes that have closed it by ending: nothing more of them is awaited.
    pub ended: HashSet<u32>,
    /// The process that wrote last, or one that held the file before anyone wrote, was killed by this signal.
    pub killed: Option<u32>,
    /// Its draft was dropped: what is written now would be the rest of it alone.
    pub dropped: bool,
    /// It was refused; every later call is answered the same.
    pub failed: Option<Refusal>,
    /// Watches a document being written from its start; `None` when it is not written in order.
    pub check: Option<(u64, Box<dyn PrefixCheck>)>,
}

impl Writer {
    /// A writer with nothing written.
    #[must_use]
    pub fn new(draft: Draft, opener: Observed, check: Option<Box<dyn PrefixCheck>>) -> Self {
        Self {
            draft,
            opener,
            writers: Vec::new(),
            last_thread: 0,
            last: None,
            owners: HashSet::new(),
            unowned: false,
            flushers: HashSet::new(),
            holders: Vec::new(),
            set: AttributeChange::default(),
            written_at: SystemTime::now(),
            append_since: None,
            goes_on: false,
            flushed: false,
            ended: HashSet::new(),
            killed: None,
            dropped: false,
            failed: None,
            check: check.map(|check| (0, check)),
        }
    }

    /// The processes that may hold the file: who opened it, who wrote, who was seen holding it.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let observed = std::iter::once(&self.opener).chain(&self.writers);
        let mut pids: Vec<u32> = observed.filter_map(|seen| seen.process.as_ref().map(|p| p.pid)).collect();
        pids.extend(self.holders.iter().filter(|holder| holder.is_alive()).map(|holder| holder.pid));
        pids.retain(|&pid| pid != 0);
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Notes who wrote last.
    pub fn wrote(&mut self, seen: Observed, thread: u32) {
        self.writers.retain(|other| other.process != seen.process || seen.process.is_none());
        if seen.process.is_none() {
            // Processes that cannot be seen are one: nothing tells them apart.
            self.writers.retain(|other| other.process.is_some());
        }
        self.last = seen.process.as_ref().and_then(|process| Holder::of(process.pid));
        self.writers.push(seen);
        self.last_thread = thread;
    }

    /// A table closes a descriptor: may it be one that wrote? What no table is named for was written by one that closes
    /// for the first time while none else has (`cp`), or by one that has closed before (a child, which closed what its
    /// redirection left over); not by a parent that lets go of what its child goes on writing.
    pub fn closed_by(&mut self, owner: u64) -> bool {
        let wrote_unowned = self.unowned && (self.flushers.is_empty() || self.flushers.contains(&owner));
        self.flushers.insert(owner);
        wrote_unowned || self.owners.contains(&owner)
    }

    /// Answers a handle that was refused before.
    ///
    /// # Errors
    /// The refusal, again.
    pub fn still_good(&self) -> Result<(), Refusal> {
        self.failed.as_ref().map_or(Ok(()), |refusal| Err(refusal.repeated()))
    }

    /// Is there something that no commit has made and none has refused?
    #[must_use]
    pub fn has_draft(&self) -> bool {
        self.draft.is_dirty() && self.failed.is_none()
    }

    /// Has an append waited for longer than `age`, with no write in its middle?
    #[must_use]
    pub fn has_append_older_than(&self, age: Duration) -> bool {
        let still = !self.goes_on || self.written_at.elapsed().is_ok_and(|elapsed| elapsed >= age);
        still && self.draft.is_append() && self.append_since.is_some_and(|since| since.elapsed() >= age)
    }
}

impl Handle {
    /// The state, for this call alone. Held across the disk's work of one commit, never across a wait for a process.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state if nobody else has it now.
    pub fn try_state(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(std::sync::TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// Keeps what others may ask of a handle that is busy.
    pub fn note(&self, writer: &Writer) {
        self.draft_size_bytes.store(writer.draft.size_bytes(), Ordering::Relaxed);
        *self.pids.lock().unwrap_or_else(PoisonError::into_inner) = writer.pids();
    }

    /// Did its last FLUSH find no descriptor left that can write, or has its RELEASE come?
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Has its open made a name, and no commit of its own yet?
    #[must_use]
    pub fn makes(&self) -> bool {
        self.makes.load(Ordering::Relaxed)
    }

    /// Is this one of the processes that may hold it, as last noted?
    #[must_use]
    pub fn may_be_held_by(&self, pid: u32) -> bool {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
    }

    /// The processes that may hold it, as last noted.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All handles.
#[derive(Debug, Default)]
pub struct Handles {
    table: RwLock<HashMap<HandleId, Arc<Handle>>>,
    last: AtomicU64,
}

impl Handles {
    /// Opens a handle. What others may ask of it is noted before anyone can find it.
    pub fn open(&self, ino: Ino, descriptors_write: bool, state: State) -> Arc<Handle> {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (draft_size_bytes, pids, opener) = match &state {
            State::Writer(writer) => (writer.draft.size_bytes(), writer.pids(), writer.opener.process.as_ref()),
            _ => (0, Vec::new(), None),
        };
        let opener = opener.map_or(0, |process| process.pid);
        let handle = Arc::new(Handle {
            id,
            ino,
            writes: descriptors_write || matches!(state, State::Writer(_)),
            descriptors_write,
            makes: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            draft_size_bytes: AtomicU64::new(draft_size_bytes),
            opener,
            pids: Mutex::new(pids),
            state: Mutex::new(state),
        });
        self.table.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&handle));
        handle
    }

    /// The handle of a number.
    ///
    /// # Errors
    /// EBADF for a number that is not open.
    pub fn get(&self, id: HandleId) -> Result<Arc<Handle>, Refusal> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&id).cloned().ok_or_else(|| Refusal::new(libc::EBADF, format!("handle {id} is not open")))
    }

    /// Takes a handle out of the table.
    pub fn close(&self, id: HandleId) -> Option<Arc<Handle>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }

    /// All handles that may have something to commit.
    #[must_use]
    pub fn writing(&self) -> Vec<Arc<Handle>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.values().filter(|handle| handle.writes).cloned().collect()
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Is none open?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
