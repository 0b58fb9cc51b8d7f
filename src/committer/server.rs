//! The socket of the process that holds a store: each connection asks one operation. No peer can hold the server:
//! connections are counted, and a peer that neither sends nor takes for [`PATIENCE`] is let go.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

use super::perform::{Committer, Host, Peer, execute_telling, not_mounted_here};
use super::place::Place;
use super::protocol::{self, QUESTION_MAX_BYTES};
use super::refusal::{Refusal, RefusalKind};
use super::request::{Call, HeldDraft, Reply, Request};
use super::spool;
use crate::engine::Checked;
use crate::identity::Resolver;
use crate::store::Store;

pub(super) const NAME: &str = "socket";
const CONNECTIONS_MAX: usize = 64;
const BACKLOG: i32 = 128;
/// How long a peer may neither send nor take.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long the server looks away when it can take nobody in.
const ROOM_CHECK: Duration = Duration::from_millis(50);
/// How often someone who waits for a mount to end is told what it waits for.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long the end of a server waits for operations under way.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// What a server answers with.
#[derive(Debug)]
pub struct Service {
    /// The store.
    pub store: Arc<Store>,
    /// Reads who asks.
    pub resolver: Arc<Resolver>,
    /// The mount; none while it is being made.
    pub host: Mutex<Option<Arc<dyn Host>>>,
    /// Refuses every change.
    pub read_only: bool,
}

impl Service {
    fn host(&self) -> Option<Arc<dyn Host>> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A serving socket; dropping it ends the serving, after the operations under way, and removes the socket.
#[derive(Debug)]
pub struct Server {
    place: Place,
    listener: UnixListener,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    service: Service,
    closing: AtomicBool,
    /// Connections that are being answered.
    active: Mutex<usize>,
    fewer: Condvar,
}

impl Shared {
    /// Waits until the number of connections is as wanted, at most `limit`; whether it is.
    fn wait_for(&self, limit: Duration, wanted: impl Fn(usize) -> bool) -> bool {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.fewer.wait_timeout_while(active, limit, |active| !wanted(*active));
        wanted(*waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl Server {
    /// Serves the store at `root`, whose lock this process holds: a socket found there was left by a killed holder.
    ///
    /// # Errors
    /// The system's.
    pub fn start(root: &Path, service: Service) -> io::Result<Self> {
        let place = Place::open(root)?;
        let listener = listen(&place)?;
        let (closing, active) = (AtomicBool::new(false), Mutex::new(0));
        let shared = Arc::new(Shared { service, closing, active, fewer: Condvar::new() });
        let (accepting, shared_too) = (listener.try_clone()?, Arc::clone(&shared));
        let accepting =
            std::thread::Builder::new().name("socket".to_owned()).spawn(move || accept(&accepting, &shared_too))?;
        Ok(Self { place, listener, shared, accepting: Some(accepting) })
    }

    /// Says where the store is mounted.
    pub fn set_host(&self, host: Arc<dyn Host>) {
        *self.shared.service.host.lock().unwrap_or_else(PoisonError::into_inner) = Some(host);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // The name goes first, so that who comes now waits for the lock instead of a server that ends.
        let _ = std::fs::remove_file(self.place.path(NAME));
        let _ = rustix::net::shutdown(&self.listener, Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.shared.wait_for(LAST_ANSWERS, |active| active == 0);
    }
}

fn listen(place: &Place) -> io::Result<UnixListener> {
    let path = place.path(NAME);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Before the bind, so that the name is never there with another mode.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    while !shared.closing.load(Ordering::SeqCst) {
        // Not accepted is not refused: who comes while all places are taken waits in the socket's queue.
        if !shared.wait_for(ROOM_CHECK, |active| active < CONNECTIONS_MAX) {
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) => answer_on_a_thread(stream, shared),
            Err(_) if shared.closing.load(Ordering::SeqCst) => break,
            Err(e) => {
                tracing::warn!("socket: {e}");
                // Out of descriptors, most likely: without a pause this would only burn.
                std::thread::sleep(ROOM_CHECK);
            }
        }
    }
}

fn answer_on_a_thread(stream: UnixStream, shared: &Arc<Shared>) {
    let place = Active::take(shared);
    let spawned = std::thread::Builder::new().name("operation".to_owned()).spawn(move || {
        if let Err(e) = answer(&stream, &place.0) {
            tracing::debug!("a connection was lost: {e}");
        }
    });
    if let Err(e) = spawned {
        tracing::warn!("socket: {e}");
    }
}

/// One connection among those counted.
struct Active(Arc<Shared>);

impl Active {
    fn take(shared: &Arc<Shared>) -> Self {
        *shared.active.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(Arc::clone(shared))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        *self.0.active.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.fewer.notify_all();
    }
}

fn answer(stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let peer = peer(stream)?;
    if let Err(refusal) = admit(peer) {
        return protocol::send(&mut &*stream, &Reply::Refused(refusal), 0);
    }
    let (call, body_bytes): (Call, u64) = match protocol::receive(&mut &*stream, QUESTION_MAX_BYTES) {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            let refusal = Refusal::failed("the daemon did not understand", e)
                .with_hint("it may be of another version of batonfs: unmount and mount again");
            return protocol::send(&mut &*stream, &Reply::Refused(refusal), 0);
        }
        other => other?,
    };
    // Who has gone by now, because its limit passed, does not hear it, and then nothing is done.
    protocol::send(&mut &*stream, &Reply::Heard, 0)?;
    if let Request::Unmount { mountpoint, wait_ms } = &call.request {
        return unmount(stream, shared, mountpoint, Duration::from_millis(*wait_ms));
    }
    let body = spool::take_exactly(&mut &*stream, body_bytes, shared.service.store.root())?;
    let host = shared.service.host();
    let Service { store, resolver, read_only, .. } = &shared.service;
    let at = Committer { store, resolver, host: host.as_deref(), read_only: *read_only };
    // Who has gone does not want to know any more, and who is about to let go of the store must not touch it.
    let mut tell = |checked: &Checked| {
        let on = !shared.closing.load(Ordering::SeqCst)
            && protocol::send(&mut &*stream, &Reply::Verifying(*checked), 0).is_ok();
        if on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    match execute_telling(at, peer, &call, Some(body), &mut tell) {
        Err(refusal) => protocol::send(&mut &*stream, &Reply::Refused(refusal), 0),
        Ok(answer) => {
            let size_bytes = answer.value.as_ref().map_or(0, |value| value.head.size_bytes);
            let mut to = io::BufWriter::new(stream);
            protocol::send(&mut to, &answer.reply, size_bytes)?;
            answer.value.iter().try_for_each(|value| spool::give_snapshot(value, &mut to))?;
            to.flush()
        }
    }
}

/// Only the owner of the process, and root, may ask: the file's mode says so too, where modes hold.
fn admit(peer: Peer) -> Result<(), Refusal> {
    let ours = rustix::process::geteuid().as_raw();
    if peer.uid == ours || peer.uid == 0 {
        return Ok(());
    }
    let words = format!("the store is held by user {ours}; user {} may not ask it", peer.uid);
    Err(Refusal::new(RefusalKind::Failed, words))
}

fn unmount(mut stream: &UnixStream, shared: &Shared, mountpoint: &Path, wait: Duration) -> io::Result<()> {
    let host = shared.service.host().filter(|host| host.mountpoint() == mountpoint);
    let Some(host) = host else {
        return protocol::send(&mut stream, &Reply::Refused(not_mounted_here(mountpoint)), 0);
    };
    let until = Instant::now() + wait;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let drafts = host.drain(left.min(TELL_EVERY));
        if drafts.is_empty() {
            break;
        }
        if left.is_zero() || shared.closing.load(Ordering::SeqCst) {
            return protocol::send(&mut stream, &Reply::Refused(still_open(mountpoint, &drafts)), 0);
        }
        protocol::send(&mut stream, &Reply::Waiting(drafts), 0)?;
    }
    let reply = match host.unmount() {
        Ok(()) => Reply::Unmounted,
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Reply::Refused(somebody_inside(mountpoint)),
        Err(e) => Reply::Refused(Refusal::failed(format!("unmounting '{}'", mountpoint.display()), e)),
    };
    protocol::send(&mut stream, &reply, 0)
}

fn still_open(mountpoint: &Path, drafts: &[HeldDraft]) -> Refusal {
    let drafts: Vec<String> = drafts.iter().map(HeldDraft::to_string).collect();
    let words = format!("'{}' is in use: still being written: {}", mountpoint.display(), drafts.join("; "));
    Refusal::new(RefusalKind::InUse, words).with_hint("it stays mounted; --wait SECONDS waits longer")
}

pub(super) fn somebody_inside(mountpoint: &Path) -> Refusal {
    let words = format!("'{}' is in use: a process has a file or its working directory in it", mountpoint.display());
    Refusal::new(RefusalKind::InUse, words).with_hint("it stays mounted; 'fuser -vm' or 'lsof' names the process")
}

fn peer(stream: &UnixStream) -> io::Result<Peer> {
    // Not rustix's: it has no value for pid 0, which is what a peer outside our pid namespace has.
    let mut seen = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the pointers are to a ucred and to its length, both alive and writable during the call.
    let failed = unsafe {
        let to = (&raw mut seen).cast();
        libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, to, &raw mut length)
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer { pid: u32::try_from(seen.pid).unwrap_or(0), uid: seen.uid, gid: seen.gid })
}
