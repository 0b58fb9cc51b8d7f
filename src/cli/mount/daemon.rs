//! A mount from its start to its end: lock, engine, socket, mount; then, in the other order, the way out.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::checks::Plan;
use super::log;
use super::signals::Signals;
use crate::committer::{
    Attempt, HeldDraft, Holder, Host, Lock, Place, Refusal, RefusalKind, Refused, Server, Service, client,
    open_deferring_store, open_store,
};
use crate::control::ErrorLine;
use crate::engine::Recovery;
use crate::engine::local::Opening;
use crate::fuse::{Mounted, OpenDraft};
use crate::identity::Resolver;
use crate::words::SessionId;

/// How often the end looks for a second signal while it waits for drafts.
const GLANCE: Duration = Duration::from_millis(100);
/// How often a start tries again for a store that a command holds.
const RETRY: Duration = Duration::from_millis(20);

/// What ends a mount.
enum Event {
    /// A signal.
    Signal(i32),
    /// It was unmounted.
    Ended(io::Result<()>),
}

/// Serves until the mount ends; `recovery` hears how far the store is recovered, `ready` that it serves. `file` is where
/// stderr leads in a daemon.
///
/// # Errors
/// Why it could not start; nothing is left mounted, held or listening. Once it serves its end is no error.
pub(super) fn serve(
    plan: &Plan,
    file: Option<&Path>,
    recovery: &(dyn Fn(&Recovery) + Sync),
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), Refusal> {
    let signals = Signals::block().map_err(|e| Refusal::failed("keeping signals", e))?;
    let lock = take_lock(plan)?;
    log::start(file);
    raise_file_limit();
    let opening = Opening { patience: plan.patience, keep: plan.keep, tell: recovery, ..Opening::USUAL };
    let open = if plan.options.sync_every.is_some() { open_deferring_store } else { open_store };
    let store = Arc::new(open(&plan.root, plan.policy, opening)?);
    let resolver = Arc::new(Resolver::new(plan.defaults.clone(), client::IDENTITY_LIMIT));
    let served = {
        let (host, read_only) = (Mutex::new(None), plan.options.read_only);
        let service = Service { store: Arc::clone(&store), resolver: Arc::clone(&resolver), host, read_only };
        let server = Server::start(&plan.root, service).map_err(|e| Refusal::failed("serving the socket", e))?;
        mount(plan, &store, &resolver).and_then(|mounted| {
            server.set_host(Arc::new(MountHost { mounted: Arc::clone(&mounted), at: plan.mountpoint.clone() }));
            tracing::info!("'{}' is mounted at '{}'", plan.root.display(), plan.mountpoint.display());
            if let Err(e) = ready() {
                // Who asked for it is gone and will not end it either.
                leave(plan, &mounted);
                return Err(Refusal::failed("saying that it serves", e));
            }
            stay(plan, &mounted, signals)
        })
    };
    if let Err(e) = store.engine().close() {
        tracing::error!("closing the store: {e}; the next start finishes it");
    }
    drop(lock);
    served
}

fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("raising the limit of open files: {e}");
    }
}

/// A command lets go soon; another mount does not.
fn take_lock(plan: &Plan) -> Result<Lock, Refusal> {
    let failed = |e| Refusal::failed(format!("locking the store '{}'", plan.root.display()), e);
    let place = Place::make(&plan.root).map_err(|e| client::cannot_open(&plan.root, e))?;
    let until = Instant::now() + client::LIMIT;
    let mut before = None;
    loop {
        let holder = Holder::this("mount", Some(&plan.mountpoint));
        let held = match Lock::attempt(&place, &holder).map_err(failed)? {
            Attempt::Taken(lock) => return Ok(lock),
            Attempt::Held(held) => held,
        };
        if is_another_mount(before.as_ref(), held.as_ref()) || Instant::now() >= until {
            let by = held.map_or_else(|| "another process".to_owned(), |held| held.to_string());
            let words = format!("the store '{}' is held by {by}", plan.root.display());
            return Err(Refusal::new(RefusalKind::InUse, words));
        }
        before = held;
        std::thread::sleep(RETRY);
    }
}

/// It is believed when it says so twice: a killed one's words stay in the lock until the next holder, which has it
/// already, has written its own.
fn is_another_mount(before: Option<&Holder>, held: Option<&Holder>) -> bool {
    held.is_some_and(|held| held.mountpoint.is_some()) && held == before
}

fn mount(plan: &Plan, store: &Arc<crate::store::Store>, resolver: &Arc<Resolver>) -> Result<Arc<Mounted>, Refusal> {
    Mounted::start(Arc::clone(store), Arc::clone(resolver), &plan.mountpoint, &plan.options)
        .map(Arc::new)
        .map_err(|e| Refusal::failed(format!("mounting at '{}'", plan.mountpoint.display()), e))
}

fn stay(plan: &Plan, mounted: &Arc<Mounted>, signals: Signals) -> Result<(), Refusal> {
    let (tell, events) = channel();
    let threads = signals.forward(tell.clone(), Event::Signal).and_then(|()| {
        let waited = Arc::clone(mounted);
        let wait = move || drop(tell.send(Event::Ended(waited.wait())));
        std::thread::Builder::new().name("mount".to_owned()).spawn(wait).map(drop)
    });
    if let Err(e) = threads {
        leave(plan, mounted);
        return Err(Refusal::failed("starting threads", e));
    }
    match events.recv() {
        Ok(Event::Ended(Ok(()))) => tracing::info!("unmounted"),
        Ok(Event::Ended(Err(e))) => tracing::error!("the mount ended: {e}"),
        Ok(Event::Signal(signal)) => {
            tracing::info!("signal {signal}: ending");
            drain(plan, mounted, &events);
            leave(plan, mounted);
        }
        Err(_) => leave(plan, mounted),
    }
    Ok(())
}

/// Waits for open drafts, until a second signal or the end of the mount says not to.
fn drain(plan: &Plan, mounted: &Mounted, events: &Receiver<Event>) {
    let until = Instant::now() + plan.wait;
    loop {
        let drafts = mounted.drain(GLANCE.min(until.saturating_duration_since(Instant::now())));
        if drafts.is_empty() || Instant::now() >= until {
            return;
        }
        match events.recv_timeout(Duration::ZERO) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return tracing::info!("not waiting for {} open drafts", drafts.len()),
        }
    }
}

fn leave(plan: &Plan, mounted: &Mounted) {
    for (draft, committed) in mounted.settle() {
        let done = if committed { "committed as it was" } else { "dropped" };
        tracing::warn!("still open at the end, {done}: {}", held(draft));
    }
    let gone = mounted.unmount(false).or_else(|_| mounted.unmount(true));
    match gone {
        Ok(()) => tracing::info!("unmounted"),
        Err(e) => tracing::error!("unmounting '{}': {e}", plan.mountpoint.display()),
    }
}

fn held(draft: OpenDraft) -> HeldDraft {
    let OpenDraft { session, key, size_bytes, pids } = draft;
    HeldDraft { session, key, size_bytes, pids }
}

/// The mount as the socket's peers may ask of it.
#[derive(Debug)]
struct MountHost {
    mounted: Arc<Mounted>,
    at: PathBuf,
}

impl Host for MountHost {
    fn mountpoint(&self) -> &Path {
        &self.at
    }

    fn open_drafts(&self) -> Vec<HeldDraft> {
        self.mounted.open_drafts().into_iter().map(held).collect()
    }

    fn drain(&self, limit: Duration) -> Vec<HeldDraft> {
        self.mounted.drain(limit).into_iter().map(held).collect()
    }

    fn refusals(&self, session: Option<&SessionId>) -> Vec<Refused> {
        let refused = |(session_id, line): (SessionId, ErrorLine)| Refused {
            session_id,
            time_ms: line.time_ms,
            op: line.op.to_owned(),
            key: line.key,
            errno: line.errno,
            words: line.words,
            writer: line.writer,
            uid: line.uid,
        };
        self.mounted.refusals(session).into_iter().map(refused).collect()
    }

    fn unmount(&self) -> io::Result<()> {
        self.mounted.unmount(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_killed_mount_keep_no_other_mount_away() {
        let mount = Holder::this("mount", Some(Path::new("/mnt")));
        let command = Holder::this("list", None);
        assert!(!is_another_mount(None, Some(&mount)));
        assert!(!is_another_mount(Some(&mount), Some(&command)));
        assert!(!is_another_mount(Some(&command), Some(&command)));
        assert!(is_another_mount(Some(&mount), Some(&mount)));
    }
}
