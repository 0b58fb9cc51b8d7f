//! Options that several commands take, and the reading of their words.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::{mounts, output};
use crate::committer::{Call, Declared, Refusal, RefusalKind, Reply, Request, client};
use crate::engine::local::Opening;
use crate::engine::{KEPT_DAYS, KEPT_VERSIONS, Keep, Staged};
use crate::identity::environ;
use crate::store::StoreError;
use crate::words::{Claim, Key, Policy, SessionId};

/// A store.
#[derive(Debug, Args)]
pub(super) struct StoreArg {
    /// The store: any directory, or the directory where it is mounted
    #[arg(value_name = "STORE")]
    path: PathBuf,
}

impl StoreArg {
    /// The canonical path of the store, which exists.
    pub(super) fn root(&self) -> Result<PathBuf, Refusal> {
        mounts::store_at(&self.path)
    }

    /// As it was given.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// A session of a store.
#[derive(Debug, Args)]
pub(super) struct SessionArg {
    /// The session's id
    #[arg(value_name = "SESSION", allow_hyphen_values = false)]
    session: String,
}

impl SessionArg {
    /// The id, of good form.
    pub(super) fn id(&self) -> Result<SessionId, Refusal> {
        session(&self.session)
    }
}

/// A key of a session.
#[derive(Debug, Args)]
pub(super) struct KeyArg {
    /// The key: a relative path
    #[arg(value_name = "KEY")]
    key: String,
}

impl KeyArg {
    /// The key, normalised.
    pub(super) fn key(&self) -> Result<Key, Refusal> {
        key(&self.key)
    }
}

/// A key, the session it is in, and the store.
#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    session: SessionArg,
    #[command(flatten)]
    key: KeyArg,
}

impl PlaceArgs {
    /// All three, of good form; the store exists.
    pub(super) fn all(&self) -> Result<(PathBuf, SessionId, Key), Refusal> {
        let (session, key) = (self.session.id()?, self.key.key()?);
        Ok((self.store.root()?, session, key))
    }
}

/// Who writes, where the environment does not say.
#[derive(Debug, Default, Args)]
pub(super) struct WriterArgs {
    /// Who writes; the only id that decides conflicts
    #[arg(long, value_name = "ID")]
    pub(super) writer_id: Option<String>,
    /// The stage of a pipeline
    #[arg(long, value_name = "ID")]
    pub(super) stage_id: Option<String>,
    /// The worker that runs it
    #[arg(long, value_name = "ID")]
    pub(super) worker_id: Option<String>,
}

impl WriterArgs {
    /// The claim these make.
    pub(super) fn claim(&self) -> Result<Claim, Refusal> {
        Ok(Claim {
            writer_id: id("--writer-id", self.writer_id.as_deref())?,
            stage_id: id("--stage-id", self.stage_id.as_deref())?,
            session_id: None,
            worker_id: id("--worker-id", self.worker_id.as_deref())?,
        })
    }
}

/// Who writes and how strict they are.
#[derive(Debug, Default, Args)]
pub(super) struct CallerArgs {
    #[command(flatten)]
    pub(super) writer: WriterArgs,
    /// The session the writer itself belongs to
    #[arg(long, value_name = "ID")]
    pub(super) session_id: Option<String>,
    /// What a write over another writer's value does: ignore, warn or error
    #[arg(long, visible_alias = "policy", value_name = "POLICY")]
    pub(super) conflict_policy: Option<String>,
}

/// `--keep` of a command, which lets nothing go unless it is told to: how much is kept is for mounts to say.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct KeepArg {
    /// Where the store is not mounted, let go of what is more than N versions before the newest; 0: of nothing
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep: u64,
}

impl KeepArg {
    /// What it says.
    pub(super) fn keep(self) -> Keep {
        Keep { count: self.keep, ..Keep::ALL }
    }
}

/// `--keep` and `--keep-days` of a mount.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct KeepArgs {
    /// How many versions before the newest are kept of a key, and how many dropped or refused drafts; 0: all
    #[arg(long, value_name = "N", default_value_t = KEPT_VERSIONS)]
    keep: u64,
    /// For how many days; a mount looks once a day. 0: for ever
    #[arg(long, value_name = "D", default_value_t = KEPT_DAYS)]
    keep_days: u64,
}

impl KeepArgs {
    /// What they say.
    pub(super) fn keep(self) -> Keep {
        let age = Duration::from_secs(self.keep_days.saturating_mul(24 * 60 * 60));
        Keep { count: self.keep, age: Some(age).filter(|age| !age.is_zero()) }
    }
}

impl CallerArgs {
    /// The claim these make.
    pub(super) fn claim(&self) -> Result<Claim, Refusal> {
        Ok(Claim { session_id: id("--session-id", self.session_id.as_deref())?, ..self.writer.claim()? })
    }

    /// The policy they name.
    pub(super) fn policy(&self) -> Result<Option<Policy>, Refusal> {
        self.conflict_policy.as_deref().map(policy).transpose()
    }

    /// A fresh operation by this caller.
    pub(super) fn call(&self, request: Request) -> Result<Call, Refusal> {
        let (claim, policy) = environ::own()?;
        let environment = Declared { claim, policy };
        Ok(Call { claim: self.claim()?, environment, policy: self.policy()?, ..Call::new(request) })
    }
}

/// Does an operation; a store that has to be recovered first says how far that is.
pub(super) fn perform_with(root: &Path, call: Call, body: &Staged) -> Result<(Reply, Option<client::Value>), Refusal> {
    perform_within(root, call, body, client::LIMIT)
}

/// The same for who waits less long for a store that is held.
pub(super) fn perform_within(
    root: &Path,
    call: Call,
    body: &Staged,
    limit: Duration,
) -> Result<(Reply, Option<client::Value>), Refusal> {
    let opening = Opening { patience: patience()?, keep: call.keep, tell: &output::recovery, ..Opening::USUAL };
    client::perform(root, call, body, limit, opening)
}

/// How long a recovery may take before a person hears of it.
///
/// # Errors
/// Usage: the variable is no number of seconds.
pub(super) fn patience() -> Result<Duration, Refusal> {
    let Some(raw) = std::env::var_os(PATIENCE) else { return Ok(Opening::USUAL.patience) };
    let words = |e| Refusal::new(RefusalKind::Usage, format!("{PATIENCE}: {e}"));
    seconds(raw.to_str().unwrap_or_default()).map_err(words)
}

/// Does an operation that carries no value.
pub(super) fn perform(root: &Path, call: Call) -> Result<(Reply, Option<client::Value>), Refusal> {
    perform_with(root, call, &Staged::from(Vec::new()))
}

/// A daemon of another version may answer what no question of ours asks.
pub(super) fn unexpected(reply: &Reply) -> Refusal {
    Refusal::new(RefusalKind::Failed, format!("the daemon answered something else than was asked: {reply:?}"))
}

/// A session id, of good form.
pub(super) fn session(raw: &str) -> Result<SessionId, Refusal> {
    Ok(SessionId::parse(raw).map_err(StoreError::from)?)
}

/// A key, normalised.
pub(super) fn key(raw: &str) -> Result<Key, Refusal> {
    Ok(Key::parse(raw).map_err(StoreError::from)?)
}

/// A policy.
pub(super) fn policy(raw: &str) -> Result<Policy, Refusal> {
    Ok(Policy::parse(raw).map_err(StoreError::from)?)
}

fn id(name: &str, raw: Option<&str>) -> Result<Option<String>, Refusal> {
    let Some(raw) = raw else { return Ok(None) };
    Ok(Claim::id(name, raw).map_err(StoreError::from)?)
}

/// The variable that says how long a recovery may take before it is told.
const PATIENCE: &str = "BATONFS_PATIENCE";

/// The longest time that a commit may wait for its sync.
const INTERVAL_MAX_MS: u64 = 60_000;

/// When a close is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Durability {
    /// So long after it returns, at most; when it returns where there is none.
    pub(super) interval: Option<Duration>,
}

impl std::str::FromStr for Durability {
    type Err = String;

    fn from_str(raw: &str) -> Result<Self, String> {
        if raw == "commit" {
            return Ok(Self { interval: None });
        }
        let ms = raw.strip_prefix("interval=").and_then(|ms| ms.parse().ok());
        match ms.filter(|ms| (1..=INTERVAL_MAX_MS).contains(ms)) {
            Some(ms) => Ok(Self { interval: Some(Duration::from_millis(ms)) }),
            None => Err(format!("'commit', or 'interval=' and 1 to {INTERVAL_MAX_MS} milliseconds")),
        }
    }
}

/// The longest wait that can be asked for: about thirty years, which adds to any clock.
const WAIT_MAX_S: f64 = 1e9;

/// Seconds, also parts of them.
pub(super) fn seconds(raw: &str) -> Result<Duration, String> {
    let seconds: f64 = raw.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if seconds > WAIT_MAX_S {
        return Err(format!("at most {WAIT_MAX_S} seconds"));
    }
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}
