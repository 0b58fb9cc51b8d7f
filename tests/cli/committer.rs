//! One committer a store: the lock, the socket, and what happens when either fails.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batonfs::committer::perform::{Committer, execute};
use batonfs::committer::{
    Attempt, Call, Holder, Lock, Peer, Place, Refusal, RefusalKind, Reply, Request, Server, Service, client,
    open_store, protocol, spool,
};
use batonfs::engine::Staged;
use batonfs::engine::local::Opening;
use batonfs::identity::Resolver;
use batonfs::store::Store;
use batonfs::words::{Claim, Policy, SessionId};

use crate::command::{Bench, Ran, feed};

const LIMIT: Duration = Duration::from_secs(1);

/// What a mounted daemon is to other processes, without a mount: it holds the store and serves its socket.
pub(crate) struct Daemon {
    server: Option<Server>,
    store: Arc<Store>,
    _lock: Lock,
}

impl Daemon {
    pub(crate) fn serve(root: &Path) -> Self {
        let lock = hold(root, &Holder::this("test", Some(Path::new("/nowhere"))));
        let store = Arc::new(open_store(root, Policy::Ignore, Opening::USUAL).unwrap());
        let resolver = Arc::new(Resolver::new(Claim::default(), LIMIT));
        let service = Service { store: Arc::clone(&store), resolver, host: Mutex::new(None), read_only: false };
        Self { server: Some(Server::start(root, service).unwrap()), store, _lock: lock }
    }

    /// What it answers this peer.
    pub(crate) fn execute(&self, peer: Peer, call: &Call) -> Result<Reply, Refusal> {
        self.answer(peer, call, false)
    }

    /// What it would answer if it had the store mounted read-only.
    pub(crate) fn execute_read_only(&self, peer: Peer, call: &Call) -> Result<Reply, Refusal> {
        self.answer(peer, call, true)
    }

    fn answer(&self, peer: Peer, call: &Call, read_only: bool) -> Result<Reply, Refusal> {
        let resolver = Resolver::new(Claim::default(), LIMIT);
        execute(Committer { store: &self.store, resolver: &resolver, host: None, read_only }, peer, call, None)
            .map(|it| it.reply)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.server.take());
        self.store.engine().close().unwrap();
    }
}

pub(crate) fn hold(root: &Path, holder: &Holder) -> Lock {
    match Lock::attempt(&Place::make(root).unwrap(), holder).unwrap() {
        Attempt::Taken(lock) => lock,
        Attempt::Held(by) => panic!("held by {by:?}"),
    }
}

fn socket(bench: &Bench) -> PathBuf {
    bench.store().join(".baton/socket")
}

/// K28
#[test]
fn of_sixteen_writers_racing_for_a_fresh_key_under_error_one_is_accepted() {
    for served in [false, true] {
        let bench = Bench::with_session();
        let daemon = served.then(|| Daemon::serve(&bench.store()));
        let racers: Vec<_> = (0..16)
            .map(|n| {
                let writer = format!("w{n}");
                let args = ["write", "@", "s", "fresh", "--policy", "error", "--writer-id", &writer];
                bench.command(&args).stdin(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        // All are started before the first is fed, so that they meet.
        let feeders: Vec<_> = racers.into_iter().map(|racer| std::thread::spawn(move || feed(racer, b"v"))).collect();
        let ran: Vec<Ran> = feeders.into_iter().map(|feeder| feeder.join().unwrap()).collect();
        let mut codes: Vec<i32> = ran.iter().map(|ran| ran.code).collect();
        codes.sort_unstable();
        let one_of_sixteen = [&[0][..], &[3; 15][..]].concat();
        assert_eq!(codes, one_of_sixteen, "served: {served}; {ran:?}");
        drop(daemon);
    }
}

/// K28
#[test]
fn two_commands_at_once_both_come_through() {
    let bench = Bench::with_session();
    let started: Vec<_> = (0..8)
        .map(|n| bench.command(&["write", "@", "s", &format!("k{n}")]).stdin(Stdio::piped()).spawn().unwrap())
        .collect();
    let feeders: Vec<_> = started.into_iter().map(|child| std::thread::spawn(move || feed(child, b"v"))).collect();
    feeders.into_iter().for_each(|feeder| drop(feeder.join().unwrap().done()));
    assert_eq!(bench.run(&["list", "@", "s"]).done().text().lines().count(), 8);
}

/// K28
#[test]
fn a_served_store_answers_over_a_path_longer_than_a_sockets_address() {
    let bench = Bench::new();
    let deep = bench.store().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    let _daemon = Daemon::serve(&deep);
    let deep = deep.to_str().unwrap();
    bench.run(&["init", deep, "s"]).done();
    bench.feed(&["write", deep, "s", "k"], "v").done();
    assert_eq!(bench.run(&["read", deep, "s", "k"]).done().text(), "v");
}

/// K28
#[test]
fn a_command_waits_for_another_that_holds_the_store() {
    let bench = Bench::with_session();
    let lock = hold(&bench.store(), &Holder::this("list", None));
    let writing = bench.command(&["write", "@", "s", "k"]).stdin(Stdio::piped()).spawn().unwrap();
    let writing = std::thread::spawn(move || feed(writing, b"v"));
    std::thread::sleep(Duration::from_millis(50));
    assert!(!bench.store().join("s/k").exists());
    drop(lock);
    writing.join().unwrap().done();
    assert_eq!(bench.value("k"), "v");
}

/// K29 K11
#[test]
fn a_wait_that_is_too_long_ends_in_words_that_name_the_holder() {
    let bench = Bench::with_session();
    let _lock = hold(&bench.store(), &Holder::this("mount", Some(Path::new("/mnt/state"))));
    let none = Staged::from(Vec::new());
    let refusal =
        client::perform(&bench.store(), Call::new(Request::Status), &none, Duration::from_millis(60), Opening::USUAL);
    let refusal = refusal.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::InUse);
    for word in [&std::process::id().to_string(), "/mnt/state", bench.store().to_str().unwrap()] {
        assert!(refusal.words.contains(word), "{}", refusal.words);
    }
    assert_eq!(client::LIMIT, Duration::from_secs(10));
}

/// K29
#[test]
fn a_holder_that_listens_and_does_not_answer_is_waited_for_no_longer() {
    let bench = Bench::with_session();
    let _lock = hold(&bench.store(), &Holder::this("mount", Some(Path::new("/mnt/state"))));
    // As a stopped daemon has it: the kernel goes on taking connections in, until the queue is full.
    let listener = UnixListener::bind(socket(&bench)).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let limit = Duration::from_millis(300);
    for queue in ["empty", "full"] {
        let since = std::time::Instant::now();
        let none = Staged::from(Vec::new());
        let refusal =
            client::perform(&bench.store(), Call::new(Request::Status), &none, limit, Opening::USUAL).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::InUse, "{refusal:?}");
        assert!(refusal.words.contains("/mnt/state"), "{}", refusal.words);
        assert!(since.elapsed() < limit * 20, "{queue}: {:?}", since.elapsed());
    }
    let heard = listener.accept().unwrap();
    drop(heard);
}

/// K30
#[test]
fn a_killed_holder_leaves_a_lock_and_a_socket_that_hinder_nobody() {
    let bench = Bench::with_session();
    // What it leaves: the file with its name in it, unlocked, and a socket nobody listens to.
    let holder = Holder { pid: 999_999, ..Holder::this("mount", Some(Path::new("/mnt"))) };
    std::fs::write(bench.store().join(".baton/lock"), serde_json::to_vec(&holder).unwrap()).unwrap();
    drop(UnixListener::bind(socket(&bench)).unwrap());
    assert!(socket(&bench).exists());
    bench.write("k", "v", "w").done();
    assert_eq!(bench.value("k"), "v");
    let _daemon = Daemon::serve(&bench.store());
    assert_eq!(bench.value("k"), "v");
}

/// K30
#[test]
fn a_server_that_ends_takes_its_socket_with_it() {
    let bench = Bench::with_session();
    let daemon = Daemon::serve(&bench.store());
    let mode = std::os::unix::fs::PermissionsExt::mode(&socket(&bench).metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    drop(daemon);
    assert!(!socket(&bench).exists());
    bench.write("k", "v", "w").done();
}

/// K31
#[test]
fn a_write_whose_answer_was_lost_is_asked_for_again_and_makes_one_version() {
    let bench = Bench::with_session();
    let root = bench.store();
    let lock = hold(&root, &Holder::this("mount", Some(Path::new("/mnt"))));
    let store = open_store(&root, Policy::Ignore, Opening::USUAL).unwrap();
    let listener = UnixListener::bind(socket(&bench)).unwrap();
    let writing = bench.command(&["write", "@", "s", "k", "--json"]).stdin(Stdio::piped()).spawn().unwrap();
    let writing = std::thread::spawn(move || feed(writing, b"once"));
    // Does what is asked, and dies before it can say so.
    let (mut stream, _) = listener.accept().unwrap();
    let (call, len): (Call, u64) = protocol::receive(&mut stream, protocol::QUESTION_MAX_BYTES).unwrap();
    protocol::send(&mut stream, &Reply::Heard, 0).unwrap();
    let body = spool::take_exactly(&mut stream, len, &root).unwrap();
    let resolver = Resolver::new(Claim::default(), LIMIT);
    let at = Committer { store: &store, resolver: &resolver, host: None, read_only: false };
    execute(at, Peer::this(), &call, Some(body)).unwrap();
    drop(listener);
    drop(stream);
    store.engine().close().unwrap();
    drop(store);
    drop(lock);
    let made = writing.join().unwrap().done().json();
    assert_eq!(made["version"], 1);
    let again = bench.feed(&["write", "@", "s", "k", "--json"], "twice").done().json();
    assert_eq!(again["version"], 2);
}

/// K31 K59
#[test]
fn what_was_refused_is_kept_once_when_the_answer_was_lost() {
    let bench = Bench::with_session();
    bench.write("k", "from a", "a").done();
    let session = SessionId::parse("s").unwrap();
    let mut call = Call::new(Request::Write { session, key: batonfs::words::Key::parse("k").unwrap() });
    (call.claim.writer_id, call.policy) = (Some("b".to_owned()), Some(Policy::Error));
    let resolver = Resolver::new(Claim::default(), LIMIT);
    let answers = [false, true].map(|again| {
        call.again = again;
        // Another holder of the store is asked the second time.
        let store = open_store(&bench.store(), Policy::Ignore, Opening::USUAL).unwrap();
        let at = Committer { store: &store, resolver: &resolver, host: None, read_only: false };
        let refusal = execute(at, Peer::this(), &call, Some(Staged::from(b"from b".to_vec()))).unwrap_err();
        store.engine().close().unwrap();
        refusal
    });
    assert!(answers[0].words.ends_with("kept in .baton/history/k/3.refused"), "{:?}", answers[0]);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(bench.run(&["log", "@", "s", "--json"]).done().text().lines().count(), 3);
}

/// K31
#[test]
fn a_delete_whose_answer_was_lost_is_no_missing_key_the_second_time() {
    let bench = Bench::with_session();
    bench.write("k", "v", "w").done();
    let store = open_store(&bench.store(), Policy::Ignore, Opening::USUAL).unwrap();
    let resolver = Resolver::new(Claim::default(), LIMIT);
    let at = Committer { store: &store, resolver: &resolver, host: None, read_only: false };
    let session = SessionId::parse("s").unwrap();
    let mut call = Call::new(Request::Delete { session, key: batonfs::words::Key::parse("k").unwrap() });
    execute(at, Peer::this(), &call, None).unwrap();
    assert_eq!(execute(at, Peer::this(), &call, None).unwrap_err().kind, RefusalKind::NotFound);
    call.again = true;
    execute(at, Peer::this(), &call, None).unwrap();
    store.engine().close().unwrap();
}

/// K28
#[test]
fn a_peer_that_says_nonsense_is_told_so_and_hinders_nobody() {
    let bench = Bench::with_session();
    let _daemon = Daemon::serve(&bench.store());
    for nonsense in [&b"\x05\0\0\0hello"[..], b"\xff\xff\xff\xff", b"\x0e\0\0\0{\"protocol\":9}", b"\x01", b""] {
        let mut stream = std::os::unix::net::UnixStream::connect(socket(&bench)).unwrap();
        std::io::Write::write_all(&mut stream, nonsense).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut heard);
        assert_eq!(nonsense.len() < 2, heard.is_empty(), "{}", String::from_utf8_lossy(&heard));
    }
    bench.write("k", "v", "w").done();
}

/// K28
#[test]
fn a_peer_that_says_nothing_keeps_nobody_waiting() {
    let bench = Bench::with_session();
    let _daemon = Daemon::serve(&bench.store());
    let silent: Vec<_> = (0..10).map(|_| std::os::unix::net::UnixStream::connect(socket(&bench)).unwrap()).collect();
    bench.write("k", "v", "w").done();
    assert_eq!(bench.value("k"), "v");
    drop(silent);
}
