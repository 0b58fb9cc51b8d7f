//! The engine in memory: the whole promise without a disk, for tests and for stores that end with their process.
//! Must not know files; what it leaves out is only durability.

mod past;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::value::{AttributeChange, Content};
use super::{
    Attributes, Change, Checked, Context, DirEntry, Engine, EngineError, Entry, Head, Keep, Kind, Receipt, Report,
    Result, Snapshot, Space, Stage, Staged, Tell,
};
use crate::words::{Dir, Key, LogLine, Lost, Op, Past, Policy, Seq, SessionId, Version, Writer};

/// Sessions in memory.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    state: Mutex<State>,
    keep: Keep,
}

#[derive(Debug, Default)]
struct State {
    sessions: BTreeMap<SessionId, Session>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Session {
    /// `None`: the session is removed; what follows outlives it.
    root: Option<Attributes>,
    dirs: BTreeMap<String, Attributes>,
    values: BTreeMap<String, Value>,
    last: HashMap<String, Version>,
    history: HashMap<String, VecDeque<(Version, Value)>>,
    keep: Keep,
    /// Drafts that became no version.
    lost: BTreeMap<String, BTreeMap<Past, Value>>,
    log: Vec<LogLine>,
    receipts: HashMap<uuid::Uuid, Receipt>,
    policy: Policy,
}

#[derive(Debug, Clone)]
struct Value {
    head: Head,
    bytes: Arc<Vec<u8>>,
    /// When it became something of the past.
    kept_at: Option<SystemTime>,
}

/// Bytes that nobody changes.
#[derive(Debug)]
struct Bytes(Arc<Vec<u8>>);

impl Content for Bytes {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        Ok(copy_out(&self.0, offset, buffer))
    }
}

fn copy_out(bytes: &[u8], offset: u64, buffer: &mut [u8]) -> usize {
    let from = usize::try_from(offset).ok().and_then(|from| bytes.get(from..)).unwrap_or_default();
    let n = from.len().min(buffer.len());
    if let (Some(to), Some(from)) = (buffer.get_mut(..n), from.get(..n)) {
        to.copy_from_slice(from);
    }
    n
}

/// A stage in memory.
#[derive(Debug, Default)]
struct MemoryStage(Vec<u8>);

impl MemoryStage {
    fn resize(&mut self, len: u64) -> Result<()> {
        let len = usize::try_from(len).map_err(|_| EngineError::NoSpace)?;
        self.0.try_reserve(len.saturating_sub(self.0.len())).map_err(|_| EngineError::NoSpace)?;
        self.0.resize(len, 0);
        Ok(())
    }
}

impl Stage for MemoryStage {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        Ok(copy_out(&self.0, offset, buffer))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(EngineError::NoSpace)?;
        if end > self.len() {
            self.resize(end)?;
        }
        let from = usize::try_from(offset).map_err(|_| EngineError::NoSpace)?;
        if let Some(place) = self.0.get_mut(from..from + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> Result<()> {
        self.resize(len)
    }

    fn copy_from(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.0 = snapshot.read_all()?;
        Ok(())
    }

    fn freeze(self: Box<Self>) -> Staged {
        Staged::Memory(Arc::new(self.0))
    }
}

impl MemoryEngine {
    /// An engine without sessions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that keeps so much of the past.
    #[must_use]
    pub fn keeping(keep: Keep) -> Self {
        Self { keep, ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A change is checked whole before it is made, so a panicking holder leaves nothing half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, session: &SessionId, read: impl FnOnce(&Session) -> T) -> Option<T> {
        self.state().sessions.get(session).map(read)
    }
}

/// What a change did, for its log line.
struct Done {
    op: Op,
    key: String,
    to: Option<String>,
    version: Option<Version>,
    size_bytes: Option<u64>,
    reason: Option<String>,
}

impl Done {
    fn new(op: Op, key: impl Into<String>) -> Self {
        Self { op, key: key.into(), to: None, version: None, size_bytes: None, reason: None }
    }

    fn version(self, version: Version, size_bytes: u64) -> Self {
        Self { version: Some(version), size_bytes: Some(size_bytes), ..self }
    }
}

fn entry_of(value: &Value) -> Entry {
    Entry {
        kind: Kind::File,
        size_bytes: value.head.size_bytes,
        blocks: value.head.size_bytes.div_ceil(512),
        attributes: Attributes { xattrs: BTreeMap::new(), ..value.head.attributes.clone() },
    }
}

fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn below<'a, T>(map: &'a BTreeMap<String, T>, dir: &Dir) -> Vec<&'a String> {
    let prefix = if dir.is_root() { String::new() } else { format!("{dir}/") };
    map.keys().filter(|path| path.starts_with(&prefix)).collect()
}

impl Session {
    fn next_seq(&self) -> Seq {
        self.log.last().map_or(1, |line| line.seq + 1)
    }

    fn next_version(&self, key: &Key) -> Version {
        let current = self.values.get(key.as_str()).map_or(0, |value| value.head.version);
        self.last.get(key.as_str()).copied().unwrap_or(0).max(current) + 1
    }

    fn expect(&self, key: &Key, expected: Option<Version>) -> Result<()> {
        if self.dirs.contains_key(key.as_str()) {
            return Err(EngineError::IsADirectory(key.to_string()));
        }
        let current = self.values.get(key.as_str()).map(|value| value.head.version);
        if current == expected { Ok(()) } else { Err(EngineError::Stale { current }) }
    }

    /// A value that is there by an earlier check of its version.
    fn current(&self, key: &Key) -> Result<&Value> {
        self.values.get(key.as_str()).ok_or(EngineError::Stale { current: None })
    }

    fn is_dir(&self, dir: &Dir) -> bool {
        dir.is_root() || self.dirs.contains_key(dir.as_str())
    }

    /// The first directory of a path that is a key.
    fn require_no_key_above(&self, dir: &Dir) -> Result<()> {
        let mut at = Some(dir.clone());
        while let Some(dir) = at.filter(|dir| !dir.is_root()) {
            if self.values.contains_key(dir.as_str()) {
                return Err(EngineError::NotADirectory(dir.to_string()));
            }
            at = dir.parent();
        }
        Ok(())
    }

    fn require_parent(&self, parent: Option<&Dir>) -> Result<()> {
        let Some(parent) = parent else { return Ok(()) };
        self.require_no_key_above(parent)?;
        if self.is_dir(parent) { Ok(()) } else { Err(EngineError::NotFound(parent.to_string())) }
    }

    fn require_empty(&self, dir: &Dir, name: &str) -> Result<()> {
        if self.values.contains_key(dir.as_str()) {
            return Err(EngineError::NotADirectory(name.to_owned()));
        }
        if !self.is_dir(dir) {
            return Err(EngineError::NotFound(name.to_owned()));
        }
        if below(&self.values, dir).is_empty() && below(&self.dirs, dir).is_empty() {
            return Ok(());
        }
        Err(EngineError::NotEmpty(name.to_owned()))
    }

    fn publish(&mut self, key: &Key, value: Value) {
        let version = value.head.version;
        self.last.insert(key.to_string(), version);
        if let Some(replaced) = self.values.insert(key.to_string(), value) {
            self.remember(key, replaced, version);
        }
    }

    fn make_parents(&mut self, key: &Key, attributes: &Attributes) {
        let mut at = Some(key.parent());
        while let Some(dir) = at.filter(|dir| !dir.is_root()) {
            let made = Attributes { mode: 0o755, xattrs: BTreeMap::new(), ..attributes.clone() };
            self.dirs.entry(dir.to_string()).or_insert(made);
            at = dir.parent();
        }
    }

    fn put(&mut self, key: &Key, content: &Staged, attributes: Attributes, writer: &Writer) -> Result<Done> {
        let bytes = Arc::new(content.read_all()?);
        let version = self.next_version(key);
        let size_bytes = bytes.len() as u64;
        self.make_parents(key, &attributes);
        let head = Head {
            version,
            appends_since: version,
            seq: self.next_seq(),
            size_bytes,
            writer: writer.clone(),
            committed_at_s: now().as_secs(),
            attributes,
        };
        self.publish(key, Value { head, bytes, kept_at: None });
        Ok(Done::new(Op::Put, key.as_str()).version(version, size_bytes))
    }

    fn append(&mut self, key: &Key, more: &[u8], mtime: SystemTime, writer: &Writer) -> Result<Done> {
        let (seq, version) = (self.next_seq(), self.next_version(key));
        let mut value = self.current(key)?.clone();
        // The old version lives on in the new one. Its bytes are copied only where a reader holds them.
        self.values.remove(key.as_str());
        Arc::make_mut(&mut value.bytes).extend_from_slice(more);
        if version != value.head.version + 1 {
            value.head.appends_since = version;
        }
        value.head.version = version;
        value.head.seq = seq;
        value.head.size_bytes = value.bytes.len() as u64;
        value.head.writer = writer.clone();
        value.head.committed_at_s = now().as_secs();
        value.head.attributes.mtime = mtime;
        let done = Done::new(Op::Append, key.as_str()).version(version, value.head.size_bytes);
        self.publish(key, value);
        Ok(done)
    }

    fn delete(&mut self, key: &Key) -> Done {
        if let Some(value) = self.values.remove(key.as_str()) {
            let version = value.head.version;
            self.remember(key, value, version);
        }
        Done::new(Op::Delete, key.as_str())
    }

    fn rename(&mut self, from: &Key, to: &Key, content: Option<Staged>, writer: &Writer) -> Result<Done> {
        let source = self.current(from)?.clone();
        let content = content.unwrap_or(Staged::Memory(source.bytes));
        let done = self.put(to, &content, source.head.attributes, writer)?;
        if from == to {
            return Ok(done);
        }
        self.values.remove(from.as_str());
        Ok(Done { op: Op::Rename, key: from.to_string(), to: Some(to.to_string()), ..done })
    }

    fn check_rename_dir(&self, from: &Dir, to: &Dir, name: &str) -> Result<()> {
        if from.is_root() || (from != to && format!("{to}/").starts_with(&format!("{from}/"))) {
            return Err(EngineError::IntoItself(from.to_string()));
        }
        self.require_no_key_above(from)
            .and_then(|()| if self.is_dir(from) { Ok(()) } else { Err(EngineError::NotFound(from.to_string())) })?;
        self.require_parent(to.parent().as_ref())?;
        if to.is_root() {
            return Err(EngineError::NotEmpty(name.to_owned()));
        }
        let exists = self.is_dir(to) || self.values.contains_key(to.as_str());
        if from != to && exists { self.require_empty(to, to.as_str()) } else { Ok(()) }
    }

    fn rename_dir(&mut self, from: &Dir, to: &Dir) -> Done {
        let moved = |path: &str| {
            let rest = path.strip_prefix(from.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{to}{rest}"))
        };
        let dirs = std::mem::take(&mut self.dirs);
        self.dirs = dirs.into_iter().map(|(path, dir)| (moved(&path).unwrap_or(path), dir)).collect();
        let values = std::mem::take(&mut self.values);
        self.values = values.into_iter().map(|(path, value)| (moved(&path).unwrap_or(path), value)).collect();
        // A key that once had the directory's own name does not go with it.
        let moved = |path: &str| moved(path).filter(|_| path != from.as_str());
        let last: Vec<_> = self.last.iter().filter_map(|(path, last)| Some((moved(path)?, *last))).collect();
        for (path, version) in last {
            let last = self.last.entry(path).or_default();
            *last = version.max(*last);
        }
        let going: Vec<_> = self.history.keys().filter_map(|path| Some((path.clone(), moved(path)?))).collect();
        for (path, to) in going {
            let comes = self.history.remove(&path).unwrap_or_default();
            let there = self.history.entry(to).or_default();
            // A version that comes along takes the place of one of its number.
            there.retain(|(version, _)| !comes.iter().any(|(number, _)| number == version));
            there.extend(comes);
            there.make_contiguous().sort_by_key(|(version, _)| *version);
        }
        for (path, kept) in std::mem::take(&mut self.lost) {
            self.lost.entry(moved(&path).unwrap_or(path)).or_default().extend(kept);
        }
        Done { to: Some(to.to_string()), ..Done::new(Op::Rename, from.as_str()) }
    }

    fn change_attributes(&mut self, path: &str, set: &AttributeChange) -> Result<bool> {
        let attributes = match (path, self.values.get_mut(path)) {
            ("", _) => self.root.as_mut(),
            (_, Some(value)) => Some(&mut value.head.attributes),
            (_, None) => self.dirs.get_mut(path),
        };
        let Some(attributes) = attributes else { return Ok(false) };
        attributes.room_for(set)?;
        set.apply(attributes);
        Ok(true)
    }

    fn make(&mut self, id: &SessionId, change: Change, writer: &Writer) -> Result<Done> {
        let name = |dir: &Dir| if dir.is_root() { id.to_string() } else { dir.to_string() };
        match change {
            Change::Put { key, content, expected, attributes } => {
                self.require_no_key_above(&key.parent())?;
                self.expect(&key, expected)?;
                self.put(&key, &content, attributes, writer)
            }
            Change::Append { key, bytes, expected, mtime } => {
                self.expect(&key, Some(expected))?;
                self.append(&key, &bytes, mtime, writer)
            }
            Change::Delete { key, expected } => {
                self.expect(&key, Some(expected))?;
                Ok(self.delete(&key))
            }
            Change::Rename { from, to, expected_from, expected_to, content } => {
                self.expect(&from, Some(expected_from))?;
                self.require_parent(Some(&to.parent()))?;
                self.expect(&to, expected_to)?;
                self.rename(&from, &to, content, writer)
            }
            Change::RenameDir { from, to } => {
                self.check_rename_dir(&from, &to, id.as_str())?;
                Ok(self.rename_dir(&from, &to))
            }
            Change::MakeDir { dir, attributes } => {
                self.require_parent(dir.parent().as_ref())?;
                if (dir.is_root() && self.root.is_some())
                    || self.dirs.contains_key(dir.as_str())
                    || self.values.contains_key(dir.as_str())
                {
                    return Err(EngineError::Exists(name(&dir)));
                }
                if dir.is_root() {
                    self.root = Some(attributes);
                } else {
                    self.dirs.insert(dir.to_string(), attributes);
                }
                Ok(Done::new(Op::Mkdir, dir.as_str()))
            }
            Change::RemoveDir { dir } => {
                self.require_empty(&dir, &name(&dir))?;
                self.dirs.remove(dir.as_str());
                if dir.is_root() {
                    self.root = None;
                    self.policy = Policy::default();
                }
                Ok(Done::new(Op::Rmdir, dir.as_str()))
            }
            Change::Attributes { path, set } => {
                if self.change_attributes(&path, &set)? {
                    return Ok(Done::new(Op::Attributes, path));
                }
                Err(EngineError::NotFound(path))
            }
            Change::Declare { key, expected } => {
                self.expect(&key, Some(expected))?;
                if let Some(value) = self.values.get_mut(key.as_str()) {
                    value.head.writer = writer.clone();
                }
                Ok(Done::new(Op::Declare, key.as_str()))
            }
            Change::SetPolicy(policy) => {
                self.policy = policy;
                Ok(Done::new(Op::Policy, ""))
            }
            Change::Drop { key, size_bytes, lost, reason, kept } => {
                if let Some((content, attributes)) = kept {
                    self.keep_lost(&key, Past::Draft(self.next_seq(), lost), &content, attributes, writer)?;
                }
                let op = if lost == Lost::Dropped { Op::Drop } else { Op::Refuse };
                Ok(Done { size_bytes: Some(size_bytes), reason: Some(reason), ..Done::new(op, key.as_str()) })
            }
        }
    }

    fn record(&mut self, done: Done, context: &Context) -> Receipt {
        let receipt = Receipt { seq: self.next_seq(), version: done.version };
        self.log.push(LogLine {
            seq: receipt.seq,
            time_ms: u64::try_from(now().as_millis()).unwrap_or(u64::MAX),
            op: done.op,
            key: done.key,
            to: done.to,
            version: done.version,
            size_bytes: done.size_bytes,
            writer: context.author.writer.clone(),
            process: context.author.process.clone(),
            others: context.author.others.clone(),
            conflict: context.conflict.clone(),
            reason: done.reason,
            operation: context.operation.to_string(),
        });
        self.receipts.insert(context.operation, receipt);
        receipt
    }

    fn entry(&self, path: &str) -> Option<Entry> {
        let root = self.root.as_ref()?;
        let dir = |attributes: &Attributes| Entry {
            kind: Kind::Dir,
            size_bytes: 0,
            blocks: 0,
            attributes: Attributes { xattrs: BTreeMap::new(), ..attributes.clone() },
        };
        if path.is_empty() {
            return Some(dir(root));
        }
        let value = self.values.get(path).map(entry_of);
        value.or_else(|| self.dirs.get(path).map(dir))
    }

    fn names(&self, dir: &Dir) -> Vec<DirEntry> {
        let kinds = |paths: Vec<&String>, kind| {
            let prefix = if dir.is_root() { 0 } else { dir.as_str().len() + 1 };
            let names = paths.into_iter().filter_map(|path| path.get(prefix..).map(str::to_owned));
            names.filter(|name| !name.contains('/')).map(|name| DirEntry { name, kind }).collect::<Vec<_>>()
        };
        let mut names = kinds(below(&self.values, dir), Kind::File);
        names.extend(kinds(below(&self.dirs, dir), Kind::Dir));
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        names
    }
}

impl Engine for MemoryEngine {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn sessions(&self) -> Result<Vec<SessionId>> {
        let state = self.state();
        Ok(state.sessions.iter().filter(|(_, s)| s.root.is_some()).map(|(id, _)| id.clone()).collect())
    }

    fn entry(&self, session: &SessionId, path: &str) -> Result<Option<Entry>> {
        Ok(self.read(session, |s| s.entry(path)).flatten())
    }

    fn read_dir(&self, session: &SessionId, dir: &Dir) -> Result<Vec<DirEntry>> {
        let names = self.read(session, |s| (s.root.is_some() && s.is_dir(dir)).then(|| s.names(dir))).flatten();
        let name = if dir.is_root() { session.as_str() } else { dir.as_str() };
        names.ok_or_else(|| EngineError::NotFound(name.to_owned()))
    }

    fn list(&self, session: &SessionId) -> Result<Vec<Key>> {
        let keys =
            |s: &Session| s.root.is_some().then(|| s.values.keys().filter_map(|k| Key::literal(k).ok()).collect());
        self.read(session, keys).flatten().ok_or_else(|| EngineError::NotFound(session.to_string()))
    }

    fn head(&self, session: &SessionId, key: &Key) -> Result<Option<Head>> {
        Ok(self.read(session, |s| s.values.get(key.as_str()).map(|value| value.head.clone())).flatten())
    }

    fn open(&self, session: &SessionId, key: &Key) -> Result<Option<Snapshot>> {
        let value = self.read(session, |s| s.values.get(key.as_str()).cloned()).flatten();
        Ok(value.map(|value| Snapshot { head: value.head, content: Arc::new(Bytes(value.bytes)) }))
    }

    fn last_version(&self, session: &SessionId, key: &Key) -> Result<Version> {
        Ok(self.read(session, |s| s.next_version(key) - 1).unwrap_or(0))
    }

    fn past(&self, session: &SessionId, key: &Key) -> Result<Vec<Past>> {
        Ok(self.read(session, |s| s.past(key)).unwrap_or_default())
    }

    fn past_names(&self, session: &SessionId, dir: &Dir) -> Result<Vec<String>> {
        Ok(self.read(session, |s| s.past_names(dir)).unwrap_or_default())
    }

    fn past_entry(&self, session: &SessionId, key: &Key, past: Past) -> Result<Option<Entry>> {
        Ok(self.read(session, |s| s.kept(key, past).map(entry_of)).flatten())
    }

    fn past_head(&self, session: &SessionId, key: &Key, past: Past) -> Result<Option<Head>> {
        Ok(self.read(session, |s| s.kept(key, past).map(|value| value.head.clone())).flatten())
    }

    fn open_past(&self, session: &SessionId, key: &Key, past: Past) -> Result<Option<Snapshot>> {
        let value = self.read(session, |s| s.kept(key, past).cloned()).flatten();
        Ok(value.map(|value| Snapshot { head: value.head, content: Arc::new(Bytes(value.bytes)) }))
    }

    fn stage(&self) -> Box<dyn Stage> {
        Box::new(MemoryStage::default())
    }

    fn commit(&self, session: &SessionId, change: Change, context: &Context) -> Result<Receipt> {
        let mut state = self.state();
        if state.closed {
            return Err(EngineError::Closed("it was closed".to_owned()));
        }
        let makes = matches!(&change, Change::MakeDir { dir, .. } if dir.is_root());
        let known = match makes {
            true => Some(state.sessions.entry(session.clone()).or_default()),
            false => state.sessions.get_mut(session),
        };
        let Some(known) = known else { return Err(EngineError::NoSession(session.to_string())) };
        if let Some(receipt) = known.receipts.get(&context.operation) {
            return Ok(*receipt);
        }
        if !makes && known.root.is_none() {
            return Err(EngineError::NoSession(session.to_string()));
        }
        known.keep = self.keep;
        let done = known.make(session, change, &context.author.writer)?;
        Ok(known.record(done, context))
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn receipt(&self, session: &SessionId, operation: uuid::Uuid) -> Result<Option<Receipt>> {
        Ok(self.read(session, |s| s.receipts.get(&operation).copied()).flatten())
    }

    fn each_change(
        &self,
        session: &SessionId,
        after: Seq,
        each: &mut dyn FnMut(LogLine) -> ControlFlow<()>,
    ) -> Result<()> {
        let there = self.read(session, |s| s.log.len());
        let there = there.ok_or_else(|| EngineError::NotFound(session.to_string()))?;
        let first = self.read(session, |s| s.log.partition_point(|line| line.seq <= after)).unwrap_or(there);
        // One at a time, so that nobody waits for `each`; a log only grows.
        let lines = (first..there).map_while(|at| self.read(session, |s| s.log.get(at).cloned()).flatten());
        let _ = lines.into_iter().try_for_each(each);
        Ok(())
    }

    fn policy(&self, session: &SessionId) -> Result<Policy> {
        let policy = self.read(session, |s| s.root.is_some().then_some(s.policy)).flatten();
        policy.ok_or_else(|| EngineError::NotFound(session.to_string()))
    }

    fn space(&self) -> Result<Space> {
        Ok(Space { block_bytes: 4096, ..Space::default() })
    }

    fn sweep(&self, now: SystemTime, _: &AtomicBool) -> Result<u64> {
        // Nobody else can put anything here.
        let Some(before) = self.keep.age.and_then(|age| now.checked_sub(age)) else { return Ok(0) };
        Ok(self.state().sessions.values_mut().map(|session| session.forget(before)).sum())
    }

    fn checkpoint(&self) -> Result<()> {
        Ok(())
    }

    fn verify(&self, _: bool, _: &mut Tell<'_>) -> Result<Report> {
        // There is no disk that could hold anything else than what was committed.
        let state = self.state();
        let (mut checked, sessions) = (Checked::default(), state.sessions.values());
        for session in sessions.filter(|session| session.root.is_some()) {
            checked.sessions += 1;
            checked.keys += session.values.len() as u64;
        }
        checked.versions = checked.keys
            + state.sessions.values().flat_map(|it| it.history.values()).map(|kept| kept.len() as u64).sum::<u64>();
        Ok(Report { checked, ..Report::default() })
    }

    fn close(&self) -> Result<()> {
        self.state().closed = true;
        Ok(())
    }
}
