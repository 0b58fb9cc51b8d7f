//! What an operation does to a store: the same in the daemon and in a command. Knows rules and identities, no socket
//! and no terminal.

use std::fmt::Debug;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::refusal::{Refusal, RefusalKind};
use super::request::{Call, HeldDraft, Refused, Reply, Request, Status};
use super::{past, spool};
use crate::engine::{AttributeChange, Attributes, EngineError, Receipt, Snapshot, Staged, Tell};
use crate::handoff;
use crate::identity::{Resolver, Who};
use crate::store::{Base, Caller, Draft, Rule, Store, StoreError, Write};
use crate::words::{Claim, Handle, Key, Lost, Past, Policy, SessionId, Version};

/// Who asks, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id in our pid namespace; 0 when it is outside of it.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Peer {
    /// This process.
    #[must_use]
    pub fn this() -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { pid: std::process::id(), uid, gid }
    }
}

/// What only a process that has the store mounted can answer.
pub trait Host: Send + Sync + Debug {
    /// Where the store is mounted.
    fn mountpoint(&self) -> &Path;

    /// The drafts open now.
    fn open_drafts(&self) -> Vec<HeldDraft>;

    /// Waits until no draft is open, at most `limit`; what is open then.
    fn drain(&self, limit: Duration) -> Vec<HeldDraft>;

    /// What the mount has refused lately, in one session or in all, the newest of each last.
    fn refusals(&self, session: Option<&SessionId>) -> Vec<Refused>;

    /// Takes the mount away, unless somebody is in it.
    ///
    /// # Errors
    /// EBUSY when somebody is; the system's.
    fn unmount(&self) -> io::Result<()>;
}

/// An answer, and the value that follows it.
#[derive(Debug)]
pub struct Answer {
    /// The answer.
    pub reply: Reply,
    /// The version that was read; it stays readable after the engine is closed.
    pub value: Option<Snapshot>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, value: None }
    }
}

/// A store with what is needed to answer for it.
#[derive(Debug, Clone, Copy)]
pub struct Committer<'a> {
    /// The store.
    pub store: &'a Store,
    /// Reads who asks.
    pub resolver: &'a Resolver,
    /// The mount, where there is one.
    pub host: Option<&'a dyn Host>,
    /// Refuses every change.
    pub read_only: bool,
}

/// As [`execute_telling`], for who waits for nothing but the end.
///
/// # Errors
/// As there.
pub fn execute(at: Committer<'_>, peer: Peer, call: &Call, body: Option<Staged>) -> Result<Answer, Refusal> {
    execute_telling(at, peer, call, body, &mut |_| ControlFlow::Continue(()))
}

/// Does what is asked; `body` is the value of a write, and `tell` hears how far a check is. Ending a mount is not done here: it answers more than once.
///
/// # Errors
/// [`Refusal`]: nothing changed, unless its words say that this is unknown.
pub fn execute_telling(
    at: Committer<'_>,
    peer: Peer,
    call: &Call,
    body: Option<Staged>,
    tell: &mut Tell<'_>,
) -> Result<Answer, Refusal> {
    if at.read_only && changes(at.store, call)? {
        let words = format!("the store '{}' is mounted read-only", at.store.root().display());
        return Err(Refusal::new(RefusalKind::Failed, words));
    }
    match &call.request {
        Request::Init { session } => init(at, peer, call, session),
        Request::Resume { session } => resume(at, peer, call, session),
        Request::Read { session, key } => read(at.store, session, key),
        Request::ReadVersion { session, key, version } => {
            let value = past::version(at.store, session, key, *version)?;
            Ok(Answer { reply: Reply::Value, value: Some(value) })
        }
        Request::Write { session, key } => {
            let written = write(at, peer, call, (session, key), body)?;
            at.store.engine().sync()?;
            Ok(written)
        }
        Request::Restore { session, key, version } => {
            let written = restore(at, peer, call, (session, key), *version)?;
            at.store.engine().sync()?;
            Ok(written)
        }
        Request::Head { session, key } => past::head(at.store, session, key),
        Request::Kept { session, key } => past::kept(at.store, session, key),
        Request::Changes { session, after, wanted, removed } => {
            if !removed {
                at.store.resume(session)?;
            }
            past::changes(at.store, session, *after, wanted)
        }
        Request::Handoffs => Ok(Reply::Handoffs(handoff::latest(at.store, |_, _| true)?).into()),
        Request::Why { session } => past::refusal(at, peer, call, session.as_ref()),
        Request::Delete { session, key } => delete(at, peer, call, session, key),
        Request::List { session } => {
            at.store.resume(session)?;
            Ok(Reply::Keys(at.store.engine().list(session)?).into())
        }
        Request::Policy { session, set } => policy(at, peer, call, session, *set),
        Request::Status => status(at),
        Request::Verify { repair } => Ok(Reply::Verified(at.store.engine().verify(*repair, tell)?).into()),
        Request::Unmount { mountpoint, .. } => Err(not_mounted_here(mountpoint)),
    }
}

/// Would this change anything? Finding a session made does not.
fn changes(store: &Store, call: &Call) -> Result<bool, Refusal> {
    Ok(match &call.request {
        Request::Write { .. } | Request::Restore { .. } | Request::Delete { .. } => true,
        Request::Policy { set, .. } => set.is_some(),
        Request::Verify { repair } => *repair,
        Request::Init { session } => {
            store.engine().entry(session, "")?.is_none() || call.policy > Some(store.engine().policy(session)?)
        }
        Request::Resume { .. }
        | Request::Read { .. }
        | Request::ReadVersion { .. }
        | Request::Head { .. }
        | Request::Kept { .. }
        | Request::Changes { .. }
        | Request::List { .. }
        | Request::Handoffs
        | Request::Why { .. }
        | Request::Status
        | Request::Unmount { .. } => false,
    })
}

pub(super) fn not_mounted_here(mountpoint: &Path) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("this store is not mounted at '{}'", mountpoint.display()))
}

fn init(at: Committer<'_>, peer: Peer, call: &Call, session: &SessionId) -> Result<Answer, Refusal> {
    let caller = caller(at, peer, call, session)?;
    at.store.init(session, attributes(peer, 0o777, call), &caller)?;
    // Never made less strict here: another program may count on what it is.
    if let Some(policy) = call.policy.filter(|policy| at.store.engine().policy(session).is_ok_and(|p| p < *policy)) {
        at.store.set_policy(session, policy, &caller.again())?;
    }
    handle(at, session, caller)
}

fn resume(at: Committer<'_>, peer: Peer, call: &Call, session: &SessionId) -> Result<Answer, Refusal> {
    at.store.resume(session)?;
    let caller = caller(at, peer, call, session)?;
    handle(at, session, caller)
}

fn handle(at: Committer<'_>, session: &SessionId, caller: Caller) -> Result<Answer, Refusal> {
    let policy = at.store.policy_for(session, caller.policy)?;
    let (backend, root) = (at.store.engine().name(), at.store.root());
    Ok(Reply::Handle(Handle::new(backend, root, session, policy, caller.author.writer)).into())
}

fn read(store: &Store, session: &SessionId, key: &Key) -> Result<Answer, Refusal> {
    store.resume(session)?;
    let value = store.engine().open(session, key)?.ok_or_else(|| no_key(session, key))?;
    Ok(Answer { reply: Reply::Value, value: Some(value) })
}

pub(super) fn no_key(session: &SessionId, key: &Key) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("key '{key}' not found in session '{session}'"))
}

fn write(
    at: Committer<'_>,
    peer: Peer,
    call: &Call,
    (session, key): (&SessionId, &Key),
    body: Option<Staged>,
) -> Result<Answer, Refusal> {
    at.store.resume(session)?;
    if let Some(receipt) = done_before(at.store, call, session)? {
        return Ok(Reply::Written { version: receipt.version, seq: receipt.seq, warning: None }.into());
    }
    let caller = caller(at, peer, call, session)?;
    let content = spool::stage(body.unwrap_or_else(|| Staged::from(Vec::new())), at.store.engine().as_ref())?;
    let write = Write {
        session,
        key,
        draft: Draft::Whole(content),
        base: Base::Fresh,
        fresh: attributes(peer, 0o666, call),
        own: false,
        set: AttributeChange { mtime: Some(SystemTime::now()), ..AttributeChange::default() },
        rule: Rule::Policy,
    };
    commit(at.store, &write, &caller).or_else(|error| Err(keep_refused(at.store, call, &write, error, &caller)?))
}

/// Keeps the value of a refused write as a refused close does; the refusal then says where it is.
fn keep_refused(
    store: &Store,
    call: &Call,
    write: &Write<'_>,
    error: StoreError,
    by: &Caller,
) -> Result<Refusal, Refusal> {
    let (session, key) = (write.session, write.key);
    let before = if call.again { store.engine().receipt(session, by.refused().operation)? } else { None };
    let full = matches!(error, StoreError::Engine(EngineError::NoSpace));
    let told = match before {
        Some(receipt) => Some(store.kept_words(session, key, Past::Draft(receipt.seq, Lost::Refused))),
        None => store.keep_refused(write, &error.to_string(), full, by),
    };
    let mut refusal = Refusal::from(error);
    refusal.words.extend(told.map(|told| format!("; {told}")));
    Ok(refusal)
}

/// Makes an earlier version the next one. Its bytes never leave the store, and its attributes come with them.
fn restore(
    at: Committer<'_>,
    peer: Peer,
    call: &Call,
    (session, key): (&SessionId, &Key),
    version: Version,
) -> Result<Answer, Refusal> {
    at.store.resume(session)?;
    if let Some(receipt) = done_before(at.store, call, session)? {
        return Ok(Reply::Written { version: receipt.version, seq: receipt.seq, warning: None }.into());
    }
    let caller = caller(at, peer, call, session)?;
    at.store.check(session, key, &caller)?;
    let earlier = past::version(at.store, session, key, version)?;
    let mut stage = at.store.engine().stage();
    stage.copy_from(&earlier)?;
    let write = Write {
        session,
        key,
        draft: Draft::Whole(stage.freeze()),
        base: Base::Fresh,
        set: AttributeChange::default(),
        fresh: earlier.head.attributes,
        own: true,
        rule: Rule::Policy,
    };
    Ok(commit(at.store, &write, &caller)?)
}

fn commit(store: &Store, write: &Write<'_>, caller: &Caller) -> Result<Answer, StoreError> {
    let made = store.write(write, caller)?;
    Ok(Reply::Written { version: Some(made.version), seq: made.seq, warning: made.warning }.into())
}

fn delete(at: Committer<'_>, peer: Peer, call: &Call, session: &SessionId, key: &Key) -> Result<Answer, Refusal> {
    at.store.resume(session)?;
    if done_before(at.store, call, session)?.is_some() {
        return Ok(Reply::Deleted.into());
    }
    let caller = caller(at, peer, call, session)?;
    if at.store.delete(session, key, &caller, true)? { Ok(Reply::Deleted.into()) } else { Err(no_key(session, key)) }
}

fn policy(
    at: Committer<'_>,
    peer: Peer,
    call: &Call,
    session: &SessionId,
    set: Option<Policy>,
) -> Result<Answer, Refusal> {
    at.store.resume(session)?;
    if let Some(policy) = set.filter(|_| !matches!(done_before(at.store, call, session), Ok(Some(_)))) {
        let caller = caller(at, peer, call, session)?;
        at.store.set_policy(session, policy, &caller)?;
    }
    Ok(Reply::Policy(at.store.engine().policy(session)?).into())
}

fn status(at: Committer<'_>) -> Result<Answer, Refusal> {
    let status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store: at.store.root().to_owned(),
        engine: at.store.engine().name().to_owned(),
        mountpoint: at.host.map(|host| host.mountpoint().to_owned()),
        pid: at.host.map(|_| std::process::id()),
        sessions: at.store.engine().sessions()?.len(),
        drafts: at.host.map(Host::open_drafts).unwrap_or_default(),
    };
    Ok(Reply::Status(status).into())
}

/// The receipt of an operation that is asked for again and was already done.
fn done_before(store: &Store, call: &Call, session: &SessionId) -> Result<Option<Receipt>, EngineError> {
    if call.again { store.engine().receipt(session, call.operation) } else { Ok(None) }
}

/// Who writes: options stand over the variables of the process's own environment, which the same person set for the
/// same program. Over another process's they would make a writer that nobody declared.
fn caller(at: Committer<'_>, peer: Peer, call: &Call, session: &SessionId) -> Result<Caller, Refusal> {
    let mut seen = at.resolver.observe(&Who::new(peer.pid, peer.uid, peer.gid))?;
    let environment = if call.environment.claim.is_empty() { seen.own } else { call.environment.claim.clone() };
    seen.own = over(&call.claim, environment);
    seen.policy = call.policy.or(call.environment.policy).or(seen.policy);
    let (author, policy) = at.resolver.author(session, &seen, std::slice::from_ref(&seen));
    Ok(Caller { author, policy, operation: call.operation })
}

pub(super) fn over(options: &Claim, environment: Claim) -> Claim {
    Claim {
        writer_id: options.writer_id.clone().or(environment.writer_id),
        stage_id: options.stage_id.clone().or(environment.stage_id),
        session_id: options.session_id.clone().or(environment.session_id),
        worker_id: options.worker_id.clone().or(environment.worker_id),
    }
}

fn attributes(peer: Peer, mode: u32, call: &Call) -> Attributes {
    let mode = mode & !(call.umask & 0o777);
    Attributes { mode, uid: peer.uid, gid: peer.gid, mtime: SystemTime::now(), xattrs: Default::default() }
}
