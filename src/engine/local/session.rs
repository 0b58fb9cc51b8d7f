//! What is in memory of one session: its locks, the order of its changes, and changes that are committed but could
//! not yet be put in their place. Knows when; must not know what a change does.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::Thread;

use super::super::value::Content;
use super::super::{Attributes, EngineError, Head, Receipt, Result, Snapshot, gather};
use super::disk::{Disk, Stat};
use super::lines::Lines;
use super::log::Log;
use super::mark::Mark;
use super::record::{Act, Record};
use super::replay::Replay;
use super::versions::{LastVersions, Versions};
use crate::words::{Key, LogLine, Policy, Seq, SessionId, Version};

/// Enough that two of the keys that are being changed rarely share a lock, which is held across the sync.
const SHARDS: usize = 256;
/// Receipts kept in memory of each session; older ones are found in its log.
const RECEIPTS_MAX: usize = 4096;

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// Held shared by changes of keys, alone by changes of directories: from decision to publication.
    tree: RwLock<()>,
    /// Held by a change of a key, from decision to publication.
    keys: Vec<Mutex<()>>,
    /// Held shared by readers of a key, alone while it is published: moments, never across a sync.
    values: Vec<RwLock<()>>,
    /// Held shared by all readers, alone while more than one name changes.
    names: RwLock<()>,
    order: Mutex<Order>,
    stuck: Mutex<Stuck>,
    is_stuck: AtomicBool,
    /// As it was read last; held while it is read, so that nobody keeps one that was replaced meanwhile.
    policy: Mutex<Option<Policy>>,
}

/// The order of a session's changes.
#[derive(Debug)]
pub(super) struct Order {
    log: Log,
    /// The number the next change gets.
    next: Seq,
    /// Lines not yet in the log, oldest first.
    pending: VecDeque<Pending>,
    versions: LastVersions,
    receipts: HashMap<String, Receipt>,
    recent: VecDeque<String>,
    /// Who waits for all changes before one to be in their place, by that one.
    waiting: BTreeMap<Seq, Thread>,
}

#[derive(Debug)]
struct Pending {
    line: LogLine,
    state: Progress,
}

/// How far a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its sync or its publication is under way.
    UnderWay,
    /// Committed and served from memory; its line waits, so that recovery publishes it.
    Stuck,
    /// In its place.
    Visible,
}

/// What readers see of a path while its change is stuck.
#[derive(Debug, Clone)]
pub(super) enum Shown {
    /// Nothing.
    Gone,
    /// A directory.
    Dir(Attributes),
    /// A value.
    Value(Box<Head>, Arc<dyn Content>),
}

/// A change that is committed but not in its place.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) record: Record,
    pub(super) body: Arc<Vec<u8>>,
    /// Where it ends in the journal, which is durable that far before the change is put in its place.
    pub(super) end: u64,
    /// What an append goes behind.
    pub(super) behind: Option<Snapshot>,
}

/// What readers see of a path, and the last change that made it so.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) seq: Seq,
    pub(super) shown: Shown,
    /// What the next change goes by, of a value that waits for its sync only.
    pub(super) late: Option<Late>,
}

/// The file of a value as it will be when it is in its place.
#[derive(Debug, Clone)]
pub(super) struct Late {
    pub(super) mark: Mark,
    /// It has no other xattrs, so that there is room for any mark of the usual length.
    pub(super) plain: bool,
}

/// Changes that are committed but not in their place.
#[derive(Debug, Default, Clone)]
pub(super) struct Stuck {
    pub(super) records: BTreeMap<Seq, Waiting>,
    pub(super) shown: BTreeMap<String, Seen>,
    /// One of them could not be put in its place. Else they all wait for a sync, and nothing is wrong.
    pub(super) failed: bool,
    pub(super) policy: Option<Policy>,
    /// What the journal said, where they come from a crash.
    pub(super) replay: Option<Arc<Replay>>,
    /// A directory is between two names: nothing below can be told until it is there.
    pub(super) blocked: bool,
}

/// The changes after one of them that readers could see at one moment: in the log then, or on their way there.
#[derive(Debug)]
pub(super) struct Changes {
    after: Seq,
    lines: Lines,
    pending: Vec<LogLine>,
}

/// What a change of keys holds from decision to publication.
#[derive(Debug)]
#[expect(dead_code, reason = "held for their drop")]
pub(super) enum Hold<'a> {
    Keys(RwLockReadGuard<'a, ()>, Option<MutexGuard<'a, ()>>, Option<MutexGuard<'a, ()>>),
    Tree(RwLockWriteGuard<'a, ()>),
}

/// What publication of a change holds.
#[derive(Debug)]
#[expect(dead_code, reason = "held for their drop")]
pub(super) enum Publishing<'a> {
    Value(RwLockReadGuard<'a, ()>, RwLockWriteGuard<'a, ()>),
    Names(RwLockWriteGuard<'a, ()>),
}

// The guarded values are () or stay whole at every step: poison is passed over.
fn held<T>(result: std::result::Result<T, PoisonError<T>>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}

fn shard_of(key: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as usize % SHARDS
}

#[expect(clippy::indexing_slicing, reason = "every list of locks has SHARDS of them, and the index is below that")]
fn lock_at<T>(of: &[T], shard: usize) -> &T {
    &of[shard]
}

impl Session {
    /// Reads a session's place in its order from its log. One that is longer than `tail_bytes` has a table of versions.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub(super) fn load(disk: &dyn Disk, id: &SessionId, tail_bytes: u64) -> Result<Self> {
        let log = Log::open(disk, id)?;
        let versions = LastVersions::open(disk, id, &log, tail_bytes);
        let order = Order {
            next: log.last() + 1,
            log,
            pending: VecDeque::new(),
            versions,
            receipts: HashMap::new(),
            recent: VecDeque::new(),
            waiting: BTreeMap::new(),
        };
        Ok(Self {
            id: id.clone(),
            tree: RwLock::default(),
            keys: (0..SHARDS).map(|_| Mutex::default()).collect(),
            values: (0..SHARDS).map(|_| RwLock::default()).collect(),
            names: RwLock::default(),
            order: Mutex::new(order),
            stuck: Mutex::default(),
            is_stuck: AtomicBool::new(false),
            policy: Mutex::default(),
        })
    }

    /// For a change of up to two keys; taken in one order, so that no two changes wait for each other.
    pub(super) fn hold_keys(&self, keys: &[&Key]) -> Hold<'_> {
        let tree = held(self.tree.read());
        let mut shards: Vec<usize> = keys.iter().map(|key| shard_of(key.as_str())).collect();
        shards.sort_unstable();
        shards.dedup();
        let mut locks = shards.into_iter().map(|shard| held(lock_at(&self.keys, shard).lock()));
        Hold::Keys(tree, locks.next(), locks.next())
    }

    /// For a change of directories.
    pub(super) fn hold_tree(&self) -> Hold<'_> {
        Hold::Tree(held(self.tree.write()))
    }

    /// For reading one key as one version.
    pub(super) fn reading(&self, path: &str) -> (RwLockReadGuard<'_, ()>, RwLockReadGuard<'_, ()>) {
        (held(self.names.read()), held(lock_at(&self.values, shard_of(path)).read()))
    }

    /// For reading names.
    pub(super) fn listing(&self) -> RwLockReadGuard<'_, ()> {
        held(self.names.read())
    }

    /// For publishing a change of one path.
    pub(super) fn publishing(&self, path: &str) -> Publishing<'_> {
        Publishing::Value(held(self.names.read()), held(lock_at(&self.values, shard_of(path)).write()))
    }

    /// For publishing a change of several names.
    pub(super) fn publishing_names(&self) -> Publishing<'_> {
        Publishing::Names(held(self.names.write()))
    }

    /// The policy, read where it is not known.
    ///
    /// # Errors
    /// As `read`.
    pub(super) fn policy(&self, read: impl FnOnce() -> Result<Policy>) -> Result<Policy> {
        let mut known = held(self.policy.lock());
        match *known {
            Some(policy) => Ok(policy),
            None => read().inspect(|policy| *known = Some(*policy)),
        }
    }

    /// It has been replaced, or taken away.
    pub(super) fn forget_policy(&self) {
        *held(self.policy.lock()) = None;
    }

    /// The order of changes; held while a change gets its number and its place in the journal, so that both agree.
    pub(super) fn order(&self) -> MutexGuard<'_, Order> {
        held(self.order.lock())
    }

    /// Changes that are committed but not in their place.
    pub(super) fn stuck(&self) -> MutexGuard<'_, Stuck> {
        held(self.stuck.lock())
    }

    /// Is there any?
    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Acquire)
    }

    /// Tells readers whether to look at [`Session::stuck`] before the disk.
    pub(super) fn set_stuck(&self, stuck: bool) {
        self.is_stuck.store(stuck, Ordering::Release);
    }

    /// A change is in its place, or (`stuck`) served from memory. Returns when all before it are too, so that whoever
    /// reads the log after this finds its line.
    pub(super) fn finished(&self, disk: &dyn Disk, seq: Seq, stuck: bool, closed: impl Fn() -> bool) {
        let mut order = self.order();
        order.progress(seq, if stuck { Progress::Stuck } else { Progress::Visible });
        order.drain(disk);
        order.wake();
        // Those before it have been synced with it or before it: what they wait for is their own publication.
        while order.under_way_before(seq) {
            if closed() {
                // They may wait for what will never be in its place.
                order.waiting.values().for_each(Thread::unpark);
                break;
            }
            order.waiting.insert(seq, std::thread::current());
            drop(order);
            std::thread::park();
            order = self.order();
        }
        order.waiting.remove(&seq);
    }

    /// A sync failed: nobody waits for those that will never be in their place.
    pub(super) fn abandoned(&self) {
        self.order().waiting.values().for_each(Thread::unpark);
    }

    /// Writes the lines of what is in its place, where that could not be done before.
    pub(super) fn catch_up(&self, disk: &dyn Disk) {
        self.order().drain(disk);
    }

    /// Changes that waited are in their place.
    pub(super) fn placed(&self, disk: &dyn Disk, changes: &[Seq]) {
        let mut order = self.order();
        for seq in changes {
            order.progress(*seq, Progress::Visible);
        }
        order.drain(disk);
    }

    /// The changes after `after` that readers can see now. They are read without the lock, which every change waits for.
    pub(super) fn changes(&self, after: Seq) -> Changes {
        self.order().changes(after)
    }

    /// The receipt of any operation.
    ///
    /// # Errors
    /// As [`Lines::receipt`].
    pub(super) fn receipt(&self, operation: &str) -> Result<Option<Receipt>> {
        let lines = {
            let order = self.order();
            if let Some(receipt) = order.recent(operation) {
                return Ok(Some(receipt));
            }
            order.log.lines().clone()
        };
        lines.receipt(operation)
    }

    /// Could one of them not be put in its place?
    pub(super) fn has_failed(&self) -> bool {
        self.is_stuck() && self.stuck().failed
    }

    /// Has this stranger's value its version, and could not be marked?
    pub(super) fn adopts(&self, adopted: &Key, stat: &Stat) -> bool {
        let adopts = |waiting: &Waiting| match &waiting.record.act {
            Act::Adopt { key, file, size, mtime_ns, .. } => {
                (key, *file, *size, *mtime_ns) == (adopted, stat.id, stat.size_bytes, stat.mtime_ns)
            }
            _ => false,
        };
        self.has_failed() && self.stuck().records.values().any(adopts)
    }

    /// What the next change of a key goes by whose value waits for its sync.
    pub(super) fn late(&self, key: &str) -> Option<Late> {
        if !self.is_stuck() {
            return None;
        }
        self.stuck().shown.get(key).and_then(|seen| seen.late.clone())
    }
}

impl Order {
    /// The number the next change gets.
    pub(super) fn next(&self) -> Seq {
        self.next
    }

    /// The last change that is in the log on disk.
    pub(super) fn logged(&self) -> Seq {
        self.log.last()
    }

    /// The lines from change `first` on are to be written again.
    ///
    /// # Errors
    /// As [`Log::rewind`].
    pub(super) fn rewind(&mut self, first: Seq) -> Result<()> {
        self.log.rewind(first)?;
        self.next = self.log.last() + 1;
        self.versions.rewound(&self.log);
        Ok(())
    }

    /// Refuses where the log has lost lines that were durable.
    ///
    /// # Errors
    /// As [`Log::check_end`].
    pub(super) fn check_end(&mut self) -> Result<()> {
        self.log.check_end()
    }

    /// As [`Log::note_end`].
    pub(super) fn note_end(&mut self) {
        self.log.note_end();
    }

    /// A change has its place in the journal; `state`: how far it is.
    pub(super) fn take(&mut self, line: LogLine, state: Progress) {
        self.next = line.seq + 1;
        let receipt = Receipt { seq: line.seq, version: line.version };
        if self.receipts.insert(line.operation.clone(), receipt).is_none() {
            self.recent.push_back(line.operation.clone());
        }
        if self.recent.len() > RECEIPTS_MAX
            && let Some(oldest) = self.recent.pop_front()
        {
            self.receipts.remove(&oldest);
        }
        self.versions.note(&line);
        self.pending.push_back(Pending { line, state });
    }

    /// The receipt of a recent operation; none while its sync may still fail.
    pub(super) fn recent(&self, operation: &str) -> Option<Receipt> {
        let receipt = self.receipts.get(operation)?;
        let mut under_way = self.pending.iter().filter(|pending| pending.state == Progress::UnderWay);
        (!under_way.any(|pending| pending.line.seq == receipt.seq)).then_some(*receipt)
    }

    /// The last version a key had, also when it is gone; 0 when it had none. What it costs does not grow with the log.
    ///
    /// # Errors
    /// As [`Lines::each`].
    pub(super) fn last_version(&mut self, key: &str) -> Result<Version> {
        self.versions.get(key, &self.log, self.pending.iter().map(|pending| &pending.line))
    }

    /// The last versions of all keys; read from the whole log the first time.
    ///
    /// # Errors
    /// As [`Lines::each`].
    pub(super) fn versions(&mut self) -> Result<&Versions> {
        self.versions.all(&self.log, self.pending.iter().map(|pending| &pending.line))
    }

    /// Will the table of versions be more than so many bytes behind the log unless there is a checkpoint?
    pub(super) fn is_waiting(&self, tail_bytes: u64) -> bool {
        self.versions.is_waiting(&self.log, tail_bytes)
    }

    /// Writes what the table of versions lacks; to be made durable before [`Order::saved`]. Without it more is read, so
    /// that a failure is no error. Nothing is on its way to the log.
    pub(super) fn save(&mut self, disk: &dyn Disk, tail_bytes: u64) {
        if let Err(e) = self.versions.save(disk, &self.log, tail_bytes) {
            tracing::warn!("the table of versions stays behind its log: {e}");
        }
    }

    /// What [`Order::save`] wrote is durable.
    pub(super) fn saved(&mut self, disk: &dyn Disk) {
        self.versions.saved(disk, &self.log);
    }

    /// The changes after `after` that readers can see now.
    fn changes(&self, after: Seq) -> Changes {
        let seen = self.pending.iter().take_while(|pending| pending.state != Progress::UnderWay);
        let pending = seen.map(|pending| &pending.line).filter(|line| line.seq > after).cloned().collect();
        Changes { after, lines: self.log.lines().clone(), pending }
    }

    /// Is nothing on its way to the log?
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    fn progress(&mut self, seq: Seq, state: Progress) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.line.seq == seq) {
            pending.state = state;
        }
    }

    fn first_under_way(&self) -> Option<Seq> {
        self.pending.iter().find(|pending| pending.state == Progress::UnderWay).map(|pending| pending.line.seq)
    }

    fn under_way_before(&self, seq: Seq) -> bool {
        self.first_under_way().is_some_and(|first| first < seq)
    }

    /// Wakes those whose wait is over, and nobody who would only look again.
    fn wake(&mut self) {
        let first = self.first_under_way().unwrap_or(Seq::MAX);
        while let Some(waiting) = self.waiting.first_entry().filter(|waiting| *waiting.key() < first) {
            waiting.remove().unpark();
        }
    }

    /// Writes the lines of all changes that are in their place, in order. A line that cannot be written now stays:
    /// the journal has it, and the next change tries again.
    pub(super) fn drain(&mut self, disk: &dyn Disk) {
        while let Some(first) = self.pending.front().filter(|pending| pending.state == Progress::Visible) {
            if let Err(e) = self.log.push(disk, &first.line) {
                tracing::warn!("the log line of change {} has to wait: {e}", first.line.seq);
                return;
            }
            self.pending.pop_front();
        }
    }
}

impl Changes {
    /// Gives them to `each`, oldest first, until it has enough.
    ///
    /// # Errors
    /// As [`Lines::each`].
    pub(super) fn each(self, each: &mut dyn FnMut(LogLine) -> ControlFlow<()>) -> Result<()> {
        if self.after < self.lines.last && self.lines.each(self.after, &mut *each)?.is_break() {
            return Ok(());
        }
        let _ = self.pending.into_iter().try_for_each(each);
        Ok(())
    }

    /// All of them.
    ///
    /// # Errors
    /// As [`Lines::each`].
    pub(super) fn all(self) -> Result<Vec<LogLine>> {
        gather(|each| self.each(each))
    }
}

impl Stuck {
    /// These are in their place now.
    pub(super) fn placed(&mut self, changes: &[Seq]) {
        for seq in changes {
            self.records.remove(seq);
        }
        let records = &self.records;
        self.shown.retain(|_, seen| records.contains_key(&seen.seq));
        if records.is_empty() {
            *self = Self::default();
        }
    }

    /// The value that readers see at a path.
    pub(super) fn value(&self, path: &str) -> Option<Snapshot> {
        match &self.shown.get(path)?.shown {
            Shown::Value(head, content) => Some(Snapshot { head: (**head).clone(), content: Arc::clone(content) }),
            Shown::Gone | Shown::Dir(_) => None,
        }
    }

    /// Refuses while nothing can be told.
    ///
    /// # Errors
    /// [`EngineError::Io`] with words.
    pub(super) fn refuse_blocked(&self) -> Result<()> {
        if self.blocked {
            let source = std::io::Error::from_raw_os_error(libc::EIO);
            return Err(EngineError::Io { doing: "a renamed directory is not in its place yet".to_owned(), source });
        }
        Ok(())
    }
}
