//! An operation on a store that somebody else may hold: done here when the lock is free, else asked of its holder,
//! else waited for, within a limit.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::lock::{self, Attempt, Holder, Lock};
use super::perform::{Answer, Committer, Peer, execute};
use super::place::Place;
use super::protocol::{self, ANSWER_MAX_BYTES};
use super::refusal::{Refusal, RefusalKind};
use super::request::{Call, Reply, Request};
use super::server::{self, PATIENCE};
use super::{open_store, spool, verify_free};
use crate::engine::local::Opening;
use crate::engine::{self, EngineError, Report, Snapshot, Staged};
use crate::identity::Resolver;
use crate::words::key::BATON_DIR;
use crate::words::{Claim, Policy};

/// How long an operation waits for a store that is held by a command, or by a daemon that does not yet serve.
pub const LIMIT: Duration = Duration::from_secs(10);
/// How long the environment of a process may take to be read.
pub const IDENTITY_LIMIT: Duration = Duration::from_secs(1);
/// So much of a value is compared at a time.
const PART_BYTES: usize = 256 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(40);

/// Hears answers after which another one comes.
pub type Meanwhile<'a> = dyn FnMut(&Reply) + 'a;

/// The bytes of a value that was read. Whole: nothing of it comes from a connection that may still break.
#[derive(Debug)]
pub enum Value {
    /// A version of an engine that was opened here.
    Pinned(Snapshot),
    /// Received from the holder.
    Received(Staged),
}

impl Value {
    /// How many bytes there are.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Pinned(snapshot) => snapshot.head.size_bytes,
            Self::Received(staged) => staged.len(),
        }
    }

    /// Has the other one the same bytes? Neither is read into memory as a whole.
    ///
    /// # Errors
    /// Reading a value.
    pub fn is_same(&self, other: &Self) -> io::Result<bool> {
        if self.size_bytes() != other.size_bytes() {
            return Ok(false);
        }
        for at in (0..self.size_bytes()).step_by(PART_BYTES) {
            if self.part(at)? != other.part(at)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn part(&self, at: u64) -> io::Result<Vec<u8>> {
        match self {
            Self::Pinned(snapshot) => snapshot.read(at, PART_BYTES),
            Self::Received(staged) => staged.read(at, PART_BYTES),
        }
        .map_err(io::Error::other)
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// The stream's, or reading the value.
    pub fn give(&self, to: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Pinned(snapshot) => spool::give_snapshot(snapshot, to),
            Self::Received(staged) => spool::give(staged, to),
        }
    }
}

/// Does an operation on the store at `root` (canonical), whoever holds it, within `limit`. The value of a write is
/// `body`, complete: nothing is waited for while the store is held. A store that nobody holds is opened as `opening` says.
///
/// # Errors
/// [`Refusal`]; InUse when the limit passed, with words that name the holder.
pub fn perform(
    root: &Path,
    call: Call,
    body: &Staged,
    limit: Duration,
    opening: Opening<'_>,
) -> Result<(Reply, Option<Value>), Refusal> {
    perform_telling(root, call, body, (limit, opening), &mut |_| {})
}

/// Checks the store at `root` (canonical), whoever holds it; also one that is too damaged to be opened. `tell` hears how
/// far it is.
///
/// # Errors
/// As [`perform`].
pub fn verify(root: &Path, repair: bool, tell: &mut Meanwhile<'_>) -> Result<Report, Refusal> {
    if matches!(Place::open(root), Err(e) if e.kind() == io::ErrorKind::NotFound) {
        // Nothing of ours is there, and asking makes nothing.
        return Ok(verify_here(root, false, tell)?);
    }
    let call = Call::new(Request::Verify { repair });
    match perform_telling(root, call, &Staged::from(Vec::new()), (LIMIT, Opening::USUAL), tell)?.0 {
        Reply::Verified(report) => Ok(report),
        other => Err(Refusal::new(RefusalKind::Failed, format!("the daemon did not check the store: {other:?}"))),
    }
}

fn verify_here(root: &Path, repair: bool, tell: &mut Meanwhile<'_>) -> engine::Result<Report> {
    verify_free(root, repair, &mut |checked| {
        tell(&Reply::Verifying(*checked));
        ControlFlow::Continue(())
    })
}

fn perform_telling(
    root: &Path,
    mut call: Call,
    body: &Staged,
    (limit, opening): (Duration, Opening<'_>),
    tell: &mut Meanwhile<'_>,
) -> Result<(Reply, Option<Value>), Refusal> {
    if let Some(missing) = certainly_missing(root, &call) {
        return Err(missing);
    }
    let place = Place::make(root).map_err(|e| cannot_open(root, e))?;
    let holder = Holder::this(call.request.name(), None);
    let mut wait = Wait::new(limit);
    let mut why = None;
    loop {
        let held = match Lock::attempt(&place, &holder).map_err(|e| cannot_lock(root, &e))? {
            Attempt::Taken(lock) => return here(root, &call, body.clone(), (lock, opening), tell),
            Attempt::Held(held) => held,
        };
        match ask(&place, &call, body, wait.left(), tell) {
            Asked::Answered(answer) => return Ok(*answer),
            Asked::Refused(refusal) => return Err(refusal),
            Asked::NobodyServes => {}
            Asked::Lost(e) => {
                call.again = true;
                why = Some(e);
            }
        }
        wait.pause().map_err(|Over| in_use(root, held.as_ref(), why.as_ref()))?;
    }
}

/// Asks the daemon that holds the store at `root`; `tell` hears what it waits for. `None` when no daemon serves there.
///
/// # Errors
/// [`Refusal`]; InUse when it does not answer within [`LIMIT`]; Failed when the connection broke, which leaves unknown
/// whether it was done.
pub fn ask_daemon(root: &Path, call: &Call, tell: &mut Meanwhile<'_>) -> Result<Option<Reply>, Refusal> {
    let Ok(place) = Place::open(root) else { return Ok(None) };
    match ask(&place, call, &Staged::from(Vec::new()), LIMIT, tell) {
        Asked::Answered(answer) => Ok(Some(answer.0)),
        Asked::Lost(e) if e.kind() == io::ErrorKind::WouldBlock => {
            let held = holder(root);
            let refusal = in_use(root, held.as_ref(), None);
            Err(match held {
                Some(held) => {
                    refusal.with_hint(format!("'kill -KILL {}' ends it; what is being written is lost", held.pid))
                }
                None => refusal,
            })
        }
        Asked::Refused(refusal) => Err(refusal),
        Asked::NobodyServes => Ok(None),
        Asked::Lost(e) => Err(Refusal::failed("the daemon's answer was lost", e)),
    }
}

/// Who holds the store at `root` (canonical) now; `None` also when that cannot be seen.
#[must_use]
pub fn holder(root: &Path) -> Option<Holder> {
    lock::holder(&Place::open(root).ok()?).ok()?
}

/// Waits until `held` no longer holds the store at `root`, at most `limit`: `false` when it still does.
#[must_use]
pub fn wait_released(root: &Path, held: &Holder, limit: Duration) -> bool {
    let mut wait = Wait::new(limit);
    while holder(root).as_ref() == Some(held) {
        if wait.pause().is_err() {
            return false;
        }
    }
    true
}

/// A session that is not there needs no committer to be missed: a wrong path is not made a store by asking.
fn certainly_missing(root: &Path, call: &Call) -> Option<Refusal> {
    let session = call.request.session().filter(|_| !matches!(call.request, Request::Init { .. }))?;
    let unused = matches!(Place::open(root), Err(e) if e.kind() == io::ErrorKind::NotFound);
    let missing = unused && root.join(session.as_str()).symlink_metadata().is_err();
    missing.then(|| EngineError::NoSession(session.to_string()).into())
}

fn here(
    root: &Path,
    call: &Call,
    body: Staged,
    (lock, opening): (Lock, Opening<'_>),
    tell: &mut Meanwhile<'_>,
) -> Result<(Reply, Option<Value>), Refusal> {
    if let Request::Verify { repair } = call.request {
        // Opening the store would finish, and so hide, what a crash interrupted.
        let report = verify_here(root, repair, tell)?;
        drop(lock);
        return Ok((Reply::Verified(report), None));
    }
    let store = open_store(root, Policy::default(), opening)?;
    let resolver = Resolver::new(Claim::default(), IDENTITY_LIMIT);
    let done = execute(
        Committer { store: &store, resolver: &resolver, host: None, read_only: false },
        Peer::this(),
        call,
        Some(body),
    );
    // What was committed stands; the next open finishes what closing could not.
    if let Err(e) = store.engine().close() {
        tracing::warn!("closing the store: {e}");
    }
    drop((store, lock));
    done.map(|Answer { reply, value }| (reply, value.map(Value::Pinned)))
}

enum Asked {
    Answered(Box<(Reply, Option<Value>)>),
    Refused(Refusal),
    /// No socket, or nobody behind it: nothing was sent.
    NobodyServes,
    /// It may have been done.
    Lost(io::Error),
}

fn ask(place: &Place, call: &Call, body: &Staged, limit: Duration, tell: &mut Meanwhile<'_>) -> Asked {
    // The system takes no time at all for no limit.
    let limit = limit.max(FIRST_PAUSE);
    let stream = match connect(place, limit) {
        Ok(stream) => stream,
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            return Asked::Refused(Refusal::failed("asking the process that holds the store", e));
        }
        Err(_) => return Asked::NobodyServes,
    };
    converse(&stream, call, body, limit, tell).unwrap_or_else(Asked::Lost)
}

/// The limit counts for the connection too: who holds the store and takes nobody in has a queue that fills.
fn connect(place: &Place, limit: Duration) -> io::Result<UnixStream> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(place.path(server::NAME))?)?;
    Ok(UnixStream::from(socket))
}

fn converse(
    mut stream: &UnixStream,
    call: &Call,
    body: &Staged,
    limit: Duration,
    tell: &mut Meanwhile<'_>,
) -> io::Result<Asked> {
    stream.set_read_timeout(Some(limit))?;
    let mut sent = protocol::send(&mut stream, call, body.len());
    // A refusal may come before the body was taken; then it is what counts.
    loop {
        let (reply, size_bytes) = match protocol::receive(&mut stream, ANSWER_MAX_BYTES) {
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                return Ok(Asked::Refused(Refusal::failed("the daemon was not understood", e)));
            }
            other => other?,
        };
        match reply {
            Reply::Heard => {
                // It works within its own limits from here on, or it tells that it waits.
                stream.set_read_timeout(Some(PATIENCE * 2))?;
                stream.set_write_timeout(Some(PATIENCE * 2))?;
                sent = sent.and_then(|()| spool::give(body, &mut stream));
            }
            Reply::Waiting(_) | Reply::Verifying(_) => tell(&reply),
            Reply::Refused(refusal) => return Ok(Asked::Refused(refusal)),
            Reply::Value => {
                let value = spool::take_exactly(&mut stream, size_bytes, &std::env::temp_dir())?;
                return Ok(Asked::Answered(Box::new((Reply::Value, Some(Value::Received(value))))));
            }
            reply => return sent.map(|()| Asked::Answered(Box::new((reply, None)))),
        }
    }
}

/// Words for a store whose own directory cannot be opened or made.
#[must_use]
pub fn cannot_open(root: &Path, error: io::Error) -> Refusal {
    let dir = root.join(BATON_DIR);
    let owner = dir.symlink_metadata().map(|found| found.uid());
    let refusal = Refusal::failed(format!("opening '{}'", dir.display()), &error);
    match owner {
        Ok(owner) if error.kind() == io::ErrorKind::PermissionDenied => refusal.with_hint(format!(
            "the store is user {owner}'s, who alone may use it by the command; others use it where it is mounted"
        )),
        _ => refusal,
    }
}

fn cannot_lock(root: &Path, error: &io::Error) -> Refusal {
    Refusal::failed(format!("locking the store '{}'", root.display()), error)
}

fn in_use(root: &Path, holder: Option<&Holder>, lost: Option<&io::Error>) -> Refusal {
    let by = holder.map_or_else(|| "another process".to_owned(), Holder::to_string);
    let words = format!("the store '{}' is held by {by}, which does not answer", root.display());
    match lost {
        None => Refusal::new(RefusalKind::InUse, words),
        Some(e) => Refusal::new(RefusalKind::InUse, format!("{words}: {e}"))
            .with_hint("it is not known whether the operation was done"),
    }
}

/// Growing pauses within a limit.
struct Wait {
    until: Instant,
    next: Duration,
}

/// The limit has passed.
struct Over;

impl Wait {
    fn new(limit: Duration) -> Self {
        Self { until: Instant::now() + limit, next: FIRST_PAUSE }
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    fn pause(&mut self) -> Result<(), Over> {
        let left = self.left();
        if left.is_zero() {
            return Err(Over);
        }
        // Uneven, so that those who wait together do not come together: the process id is as good as chance.
        let uneven = Duration::from_micros(u64::from(std::process::id() % 1000));
        std::thread::sleep((self.next + uneven).min(left));
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
