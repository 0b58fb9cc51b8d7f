#![doc = include_str!("../FORMAT.md")]
//!
//! # Rooms
//!
//! The local engine: values as plain files, made durable by a journal. Knows the store's directory; must not know who
//! may change what. The road of a commit: `commit` judges and journals, `journal` syncs, `publish` renames;
//! what may be answered before its sync is in `late`. `verify` reads all of it and judges it by the rules of this page, whose numbers its findings name.

mod commit;
pub mod disk;
mod draft;
mod forget;
mod history;
mod journal;
mod late;
mod lines;
mod log;
mod look;
mod lost;
mod mark;
mod marker;
mod paths;
mod publish;
mod publish_aside;
mod publish_dir;
mod read;
mod record;
mod recover;
mod replay;
mod session;
mod spare;
mod stage;
mod sweep;
mod table;
mod time;
mod tree;
mod unpublished;
mod verify;
mod versions;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use self::disk::{Access, Disk, Form, LocalDisk};
use self::journal::Journal;
use self::look::Look;
use self::session::Session;
use self::spare::Spares;
pub use self::verify::{verify, verify_on};
use super::{
    Change, Context, DirEntry, Engine, EngineError, Entry, Head, Keep, Receipt, Recovery, Report, Result, Snapshot,
    Space, Stage, Tell,
};
use crate::words::{Dir, Key, LogLine, Past, Policy, Seq, SessionId, Version};

/// How often a place is looked at again when programs beside the store replace what is there.
const ROUNDS_MAX: usize = 64;
/// A journal longer than this is followed by a checkpoint.
const JOURNAL_MAX_BYTES: u64 = 32 << 20;
/// On a full disk a journal longer than this is worth starting again.
const JOURNAL_WORTH_BYTES: u64 = 512 << 10;
/// Sessions kept in memory; each has its log open.
const SESSIONS_MAX: usize = 128;
/// So much of a log is read, where the last version of a key is asked for, before a table of versions is worth it.
const TAIL_BYTES: u64 = 64 << 10;

/// Where a session's log is, below the store: whoever waits for a change may watch it, and asks when it was written to.
#[must_use]
pub fn log_place(session: &SessionId) -> String {
    paths::log(session)
}

/// What whoever opens a store may choose.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    /// A session whose log is longer gets a table of versions, which is then never further behind.
    pub tail_bytes: u64,
    /// A recovery that takes longer is told of, and again whenever so much time has passed.
    pub patience: Duration,
    /// How much of the past is kept.
    pub keep: Keep,
    /// Who hears how far it is, and at the end what was done.
    pub tell: &'a (dyn Fn(&Recovery) + Sync),
}

impl Opening<'static> {
    /// As a store is opened where nobody waits for it.
    pub const USUAL: Self =
        Self { tail_bytes: TAIL_BYTES, patience: Duration::from_secs(1), keep: Keep::USUAL, tell: &|_| {} };
}

/// A store in a directory of the local file system.
#[derive(Debug)]
pub struct LocalEngine {
    disk: Arc<dyn Disk>,
    journal: Journal,
    /// Held shared from a record's place in the journal to its publication, alone by a checkpoint.
    gate: RwLock<()>,
    /// Held while the file system is synced, until the store is closed where that failed.
    syncing: Mutex<()>,
    sessions: Mutex<HashMap<SessionId, Arc<Session>>>,
    /// Files for values and for sidecars; apart, as only values have marks.
    spare_values: Spares,
    spare_sidecars: Spares,
    tail_bytes: u64,
    keep: Keep,
    /// A value may be answered for before its sync.
    defers: bool,
    /// How many changes wait for their sync.
    late: AtomicUsize,
    /// How many want nothing to wait while they look.
    at_once: AtomicUsize,
}

impl LocalEngine {
    /// Opens the store in the existing directory `root`, and finishes what a crash interrupted. The caller holds the
    /// store's lock: two open engines on one store destroy each other's work.
    ///
    /// # Errors
    /// [`EngineError::Damaged`]: what was durable cannot be read, or a newer version wrote the store.
    /// [`EngineError::Io`]: also when the file system keeps no user xattrs. Nothing is lost in either case.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_at(root, Opening::USUAL)
    }

    /// As [`LocalEngine::open`], in a chosen way.
    ///
    /// # Errors
    /// As [`LocalEngine::open`].
    pub fn open_at(root: &Path, opening: Opening<'_>) -> Result<Self> {
        let disk = LocalDisk::open_at(root).map_err(|e| EngineError::io(format!("opening {}", root.display()), e))?;
        Self::open_with(Arc::new(disk), opening)
    }

    /// Opens the store on any disk.
    ///
    /// # Errors
    /// As [`LocalEngine::open`].
    pub fn open_on(disk: Arc<dyn Disk>) -> Result<Self> {
        Self::open_with(disk, Opening::USUAL)
    }

    /// Opens the store on any disk, in a chosen way.
    ///
    /// # Errors
    /// As [`LocalEngine::open`].
    pub fn open_with(disk: Arc<dyn Disk>, opening: Opening<'_>) -> Result<Self> {
        let fresh = recover::prepare(&*disk)?;
        let (journal, contents) = Journal::open(&*disk, fresh)?;
        if fresh {
            recover::finish(&*disk, &journal)?;
        }
        let engine = Self {
            disk,
            journal,
            gate: RwLock::default(),
            syncing: Mutex::default(),
            sessions: Mutex::default(),
            spare_values: Spares::default(),
            spare_sidecars: Spares::default(),
            tail_bytes: opening.tail_bytes,
            keep: opening.keep,
            defers: false,
            late: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
        };
        engine.recover(contents, opening)?;
        Ok(engine)
    }

    /// Makes everything published durable and starts the journal again. While a change cannot be put in its place,
    /// nothing happens: the journal keeps it.
    ///
    /// # Errors
    /// [`EngineError::Closed`]: a sync failed. [`EngineError::Io`]: the journal still has everything.
    fn checkpoint_all(&self) -> Result<()> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.checkpoint_alone()
    }

    /// A failed one may have taken what was written long ago: nothing is accepted after it. The system tells a failure once:
    /// who syncs meanwhile would not hear of it, and drop the records of what is lost.
    fn sync_store(&self) -> Result<()> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.disk.sync_everything().map_err(|e| {
            let words = format!("syncing the store failed: {e}");
            self.journal.close(&words);
            EngineError::Closed(words)
        })
    }

    fn checkpoint_alone(&self) -> Result<()> {
        self.journal.check_open()?;
        let sessions: Vec<_> = self.all().values().cloned().collect();
        for session in &sessions {
            self.settle(session, true)?;
            session.catch_up(&*self.disk);
            if !session.order().is_settled() {
                let doing = format!("the log of session '{}' cannot be written", session.id);
                return Err(EngineError::io(doing, std::io::Error::from_raw_os_error(libc::EIO)));
            }
        }
        for session in &sessions {
            session.order().save(&*self.disk, self.tail_bytes);
            session.order().note_end();
        }
        self.sync_store()?;
        self.journal.restart()?;
        for session in &sessions {
            session.order().saved(&*self.disk);
        }
        Ok(())
    }

    /// A renamed directory is alone in its generation of the journal: run again among changes before or after it,
    /// it would take them for what it moves.
    fn make_alone(&self, session: &Session, change: Change, context: &Context) -> Result<Receipt> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.settle(session, true)?;
        if self.journal.len() > 0 {
            self.checkpoint_alone()?;
        }
        let receipt = self.make(session, change, context)?;
        if let Err(e) = self.checkpoint_alone() {
            // It is committed. Nothing may follow it in the journal until it is in its place for good.
            tracing::error!("a renamed directory is not durable in its place: {e}");
            self.journal.close(&format!("a renamed directory could not be made durable in its place: {e}"));
        }
        Ok(receipt)
    }

    fn pass_and_make(&self, session: &Session, change: Change, context: &Context) -> Result<Receipt> {
        let _gate = self.pass();
        self.settle_failed(session)?;
        self.make(session, change, context)
    }

    fn pass(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session's state in memory, if it has one: one without has nothing on its way.
    fn known(&self, id: &SessionId) -> Option<Arc<Session>> {
        self.all().get(id).cloned()
    }

    /// A session's state in memory, read from its log where there is none.
    fn session(&self, id: &SessionId) -> Result<Arc<Session>> {
        let session = self.loaded(id)?;
        session.order().check_end()?;
        Ok(session)
    }

    /// The same where the log may lack lines, those that the journal has still, or for good.
    fn loaded(&self, id: &SessionId) -> Result<Arc<Session>> {
        let mut all = self.all();
        if let Some(session) = all.get(id) {
            return Ok(Arc::clone(session));
        }
        if all.len() >= SESSIONS_MAX {
            // All that is dropped can be read again. Whoever uses one has it from here, under this lock.
            all.retain(|_, session| {
                let mut order = session.order();
                // Only the checkpoint after its changes keeps a table of versions from being left behind.
                let waits = !order.is_settled() || order.is_waiting(self.tail_bytes);
                let stays = Arc::strong_count(session) > 1 || session.is_stuck() || waits;
                if !stays {
                    order.note_end();
                }
                stays
            });
        }
        let session = Arc::new(Session::load(&*self.disk, id, self.tail_bytes)?);
        all.insert(id.clone(), Arc::clone(&session));
        Ok(session)
    }

    fn read_policy(&self, session: &SessionId) -> Result<Policy> {
        let place = paths::policy(session);
        let Look::File(found) = look::look_at(&*self.disk, &place, Access::Read)? else {
            return Ok(Policy::default());
        };
        let text = stage::read_whole(&*found.file, &place)?;
        if text.is_empty() {
            return Err(EngineError::Damaged { place, what: "it is empty".to_owned() });
        }
        Policy::parse(&String::from_utf8_lossy(&text)).map_err(|e| EngineError::Damaged { place, what: e.to_string() })
    }

    fn require(&self, id: &SessionId) -> Result<()> {
        match self.read_entry(id, "")? {
            Some(_) => Ok(()),
            None => Err(EngineError::NotFound(id.to_string())),
        }
    }
}

impl Engine for LocalEngine {
    fn name(&self) -> &'static str {
        "filesystem"
    }

    fn sessions(&self) -> Result<Vec<SessionId>> {
        let names = self.disk.read_dir("").map_err(|e| EngineError::io("listing the store", e))?;
        let dirs = names.into_iter().filter(|(_, form)| *form == Form::Dir);
        let mut ids: Vec<_> = dirs.filter_map(|(name, _)| SessionId::parse(name.to_str()?).ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn entry(&self, session: &SessionId, path: &str) -> Result<Option<Entry>> {
        self.read_entry(session, path)
    }

    fn read_dir(&self, session: &SessionId, dir: &Dir) -> Result<Vec<DirEntry>> {
        self.read_names(session, dir)
    }

    fn list(&self, session: &SessionId) -> Result<Vec<Key>> {
        self.read_list(session)
    }

    fn head(&self, session: &SessionId, key: &Key) -> Result<Option<Head>> {
        self.read_head(session, key)
    }

    fn open(&self, session: &SessionId, key: &Key) -> Result<Option<Snapshot>> {
        self.read_snapshot(session, key)
    }

    fn last_version(&self, session: &SessionId, key: &Key) -> Result<Version> {
        let current = self.read_head(session, key)?.map_or(0, |head| head.version);
        let known = self.session(session)?.order().last_version(key.as_str())?;
        Ok(current.max(known))
    }

    fn past(&self, session: &SessionId, key: &Key) -> Result<Vec<Past>> {
        // The newest one first: what replaces it meanwhile takes it to where is looked next.
        let newest = self.read_head(session, key)?.map(|head| Past::Version(head.version));
        self.past_in_place(session);
        let mut past = self.kept_past(session, key)?;
        past.extend(newest);
        past.sort_unstable();
        past.dedup();
        Ok(past)
    }

    fn past_names(&self, session: &SessionId, dir: &Dir) -> Result<Vec<String>> {
        self.past_in_place(session);
        self.kept_names(session, dir)
    }

    fn past_entry(&self, session: &SessionId, key: &Key, past: Past) -> Result<Option<Entry>> {
        let newest = self.read_head(session, key)?.filter(|head| past == Past::Version(head.version));
        match newest {
            Some(head) => Ok(Some(read::entry_of(head))),
            None => {
                self.past_in_place(session);
                self.kept_entry(session, key, past)
            }
        }
    }

    fn past_head(&self, session: &SessionId, key: &Key, past: Past) -> Result<Option<Head>> {
        let newest = self.read_head(session, key)?.filter(|head| past == Past::Version(head.version));
        if newest.is_some() {
            return Ok(newest);
        }
        self.past_in_place(session);
        self.kept_head(session, key, past)
    }

    fn open_past(&self, session: &SessionId, key: &Key, past: Past) -> Result<Option<Snapshot>> {
        if let Some(newest) = self.read_newest(session, key, past)? {
            return Ok(Some(newest));
        }
        self.past_in_place(session);
        self.open_kept(session, key, past)
    }

    fn stage(&self) -> Box<dyn Stage> {
        Box::new(stage::LocalStage::new(Arc::clone(&self.disk)))
    }

    fn commit(&self, session: &SessionId, change: Change, context: &Context) -> Result<Receipt> {
        self.journal.check_open()?;
        let makes = matches!(&change, Change::MakeDir { dir, .. } if dir.is_root());
        if !makes && self.known(session).is_none() && self.read_entry(session, "")?.is_none() {
            return Err(EngineError::NoSession(session.to_string()));
        }
        let session = self.session(session)?;
        if matches!(change, Change::RenameDir { .. }) {
            return self.make_alone(&session, change, context);
        }
        if session.is_stuck() && session.stuck().blocked {
            // It can only be put in its place with the gate held alone.
            self.try_again(&session)?;
        }
        let made = self.pass_and_make(&session, change.clone(), context);
        let receipt = match made {
            // The journal itself may be what fills the disk.
            Err(EngineError::NoSpace) if self.journal.len() > JOURNAL_WORTH_BYTES && self.checkpoint_all().is_ok() => {
                self.pass_and_make(&session, change, context)?
            }
            // It may be its own adoption of a stranger's value that could not be put in its place.
            Err(EngineError::Stale { .. }) if session.has_failed() => {
                self.settle_failed(&session)?;
                self.pass_and_make(&session, change, context)?
            }
            other => other?,
        };
        if self.journal.len() > JOURNAL_MAX_BYTES
            && let Err(e) = self.checkpoint_all()
        {
            tracing::warn!("the journal cannot start again and grows: {e}");
        }
        self.bound_late();
        Ok(receipt)
    }

    fn sync(&self) -> Result<()> {
        self.sync_late()
    }

    fn receipt(&self, session: &SessionId, operation: uuid::Uuid) -> Result<Option<Receipt>> {
        self.session(session)?.receipt(&operation.to_string())
    }

    fn each_change(
        &self,
        session: &SessionId,
        after: Seq,
        each: &mut dyn FnMut(LogLine) -> ControlFlow<()>,
    ) -> Result<()> {
        match self.require(session) {
            Err(EngineError::NotFound(_)) if self.disk.stat(&paths::log(session)).is_ok() => {}
            other => other?,
        }
        let session = self.session(session)?;
        // Its lines are told where they are, in the log or not.
        let _ = self.try_again(&session);
        session.changes(after).each(each)
    }

    fn policy(&self, session: &SessionId) -> Result<Policy> {
        self.require(session)?;
        let Some(known) = self.known(session) else { return self.read_policy(session) };
        if self.try_again(&known).is_err()
            && let Some(policy) = known.stuck().policy
        {
            return Ok(policy);
        }
        known.policy(|| self.read_policy(session))
    }

    fn space(&self) -> Result<Space> {
        self.disk.space().map_err(|e| EngineError::io("asking for free space", e))
    }

    fn sweep(&self, now: SystemTime, stop: &AtomicBool) -> Result<u64> {
        let abandoned = sweep::sweep(&*self.disk, &self.sessions()?, now, stop);
        Ok(abandoned + self.forget(now, stop)?)
    }

    fn checkpoint(&self) -> Result<()> {
        if self.journal.len() == 0 {
            return Ok(());
        }
        self.journal.check_open()?;
        self.sync_late()?;
        self.sync_store()?;
        self.checkpoint_all()
    }

    fn verify(&self, repair: bool, tell: &mut Tell<'_>) -> Result<Report> {
        self.at_once(|| self.check(repair, tell))
    }

    fn close(&self) -> Result<()> {
        let synced = self.sync_late();
        let checkpointed = if self.journal.len() > 0 { self.checkpoint_all() } else { Ok(()) };
        self.journal.close("it was closed");
        match checkpointed {
            // Closed before, by a failed sync or by an earlier call: what is committed is in the journal.
            Err(EngineError::Closed(_)) | Ok(()) => synced,
            Err(e) => Err(e),
        }
    }
}
