//! One committer a store: its lock, its socket, and the operations that go over it. Knows stores and engines, not the
//! kernel's door and not the terminal.
//!
//! Whoever holds `<store>/.baton/lock` commits: a mounted daemon for as long as it serves, else a command for as long
//! as it runs. A command that finds the lock held sends its operation over `<store>/.baton/socket`. Both ways end in
//! [`perform::execute`], so an operation means the same wherever it runs. Waits are bounded, and the words of a wait
//! that was too long name the holder.

pub mod client;
pub mod lock;
mod past;
pub mod perform;
pub mod place;
pub mod protocol;
pub mod refusal;
pub mod request;
pub mod server;
pub mod spool;
pub mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use client::{ask_daemon, perform, verify};
pub use lock::{Attempt, Holder, Lock};
pub use perform::{Host, Peer};
pub use place::Place;
pub use refusal::{Refusal, RefusalKind};
pub use request::{Call, Declared, HeldDraft, Refused, Reply, Request, Shown, Status, Wanted};
pub use server::{Server, Service};
pub use watch::{LOOK_EVERY, Watch, Woken};

use crate::engine::local::{LocalEngine, Opening};
use crate::engine::{self, Engine, Report, Tell};
use crate::handoff::HandoffDocument;
use crate::store::Store;
use crate::words::Policy;

/// Opens the engine of a store; `opening` tells who waits for it. Only for the holder of its lock.
///
/// # Errors
/// As the engine's own opening: a damaged store, a disk that fails.
pub fn open_engine(root: &Path, opening: Opening<'_>) -> engine::Result<Arc<dyn Engine>> {
    Ok(Arc::new(LocalEngine::open_at(root, opening)?))
}

/// Opens a store with its documents; `root` is its canonical path, `policy` the least strict policy a write gets.
/// Only for the holder of its lock.
///
/// # Errors
/// As [`open_engine`].
pub fn open_store(root: &Path, policy: Policy, opening: Opening<'_>) -> engine::Result<Store> {
    Ok(store_over(open_engine(root, opening)?, root, policy))
}

/// The same, of which values are answered for before they are durable ([`Engine::sync`]).
///
/// # Errors
/// As [`open_engine`].
pub fn open_deferring_store(root: &Path, policy: Policy, opening: Opening<'_>) -> engine::Result<Store> {
    Ok(store_over(Arc::new(LocalEngine::open_at(root, opening)?.deferring()), root, policy))
}

fn store_over(engine: Arc<dyn Engine>, root: &Path, policy: Policy) -> Store {
    Store::new(engine, PathBuf::from(root), vec![Box::new(HandoffDocument::new())], policy)
}

/// Checks a store that nobody has open. Only for the holder of its lock.
///
/// # Errors
/// As the engine's own check.
pub fn verify_free(root: &Path, repair: bool, tell: &mut Tell<'_>) -> engine::Result<Report> {
    engine::local::verify(root, repair, tell)
}
