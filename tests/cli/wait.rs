//! Waiting for a version: nothing that comes is missed, and nothing is asked meanwhile.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use batonfs::committer::client::LIMIT;
use batonfs::committer::{Holder, Watch, Woken};
use serde_json::json;

use crate::command::{Bench, Ran};
use crate::committer::{Daemon, hold};
use crate::log::{ended, sleeps, wait_until_idle};
use crate::mounted;

/// K53
#[test]
fn what_is_there_already_is_not_waited_for() {
    for served in [false, true] {
        let bench = Bench::with_session();
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        bench.write("k", "one", "a").done();
        bench.write("k", "second", "b").done();
        assert_eq!(bench.run(&["wait", "@", "s", "k"]).done().text(), "2\n");
        assert_eq!(bench.run(&["wait", "@", "s", "k", "--after", "1"]).done().text(), "2\n");
        let found = bench.run(&["wait", "@", "s", "./k", "--json"]).done().json();
        assert!(found["committed_at_s"].as_u64().unwrap() > 1_700_000_000);
        let expected = json!({
            "session_id": "s", "key": "k", "version": 2, "seq": 3, "size_bytes": 6,
            "committed_at_s": found["committed_at_s"], "writer": {"writer_id": "b", "session_id": "s"},
        });
        assert_eq!(found, expected);
        bench.feed(&["handoff", "@", "s"], "{}").done();
        assert_eq!(bench.run(&["wait", "@", "s"]).done().text(), "1\n");
    }
}

/// K53
#[test]
fn a_session_that_does_not_exist_yet_is_waited_for() {
    for served in [false, true] {
        // One has never been used, so that even its own directory is still to come.
        let bench = Bench::new();
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        let waiting = bench.command(&["wait", "@", "s", "d/e/k"]).spawn().unwrap();
        let handoff = bench.command(&["wait", "@", "s"]).spawn().unwrap();
        wait_until_idle(waiting.id());
        assert!(served || !bench.store().join(".baton").exists(), "waiting made something");
        bench.run(&["init", "@", "s"]).done();
        bench.write("d/e/k", "v", "w").done();
        bench.feed(&["handoff", "@", "s"], "{}").done();
        for waiting in [waiting, handoff] {
            assert_eq!(ended(waiting).done().text(), "1\n");
        }
    }
}

/// K53
#[test]
fn no_version_is_missed_however_the_look_and_the_write_fall() {
    for served in [false, true] {
        let bench = Bench::with_session();
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        for round in 1..=8u64 {
            let after = (round - 1).to_string();
            let waiting = bench.command(&["wait", "@", "s", "k", "--after", &after]).spawn().unwrap();
            // Each round at another moment of the other's start.
            std::thread::sleep(Duration::from_millis(5 * (round - 1)));
            bench.write("k", "v", "w").done();
            assert_eq!(ended(waiting).done().text(), format!("{round}\n"));
        }
    }
}

/// K53
#[test]
fn a_key_that_is_gone_is_waited_for_until_it_comes_back_with_a_later_version() {
    let bench = Bench::with_session();
    bench.write("d/k", "v", "w").done();
    bench.run(&["delete", "@", "s", "d/k"]).done();
    let waiting = bench.command(&["wait", "@", "s", "d/k"]).spawn().unwrap();
    wait_until_idle(waiting.id());
    bench.write("d/other", "v", "w").done();
    bench.write("d/k", "v", "w").done();
    assert_eq!(ended(waiting).done().text(), "2\n");
}

/// K53
#[test]
fn what_a_program_beside_the_store_puts_in_place_is_waited_for_too() {
    let bench = Bench::with_session();
    let waiting = bench.command(&["wait", "@", "s", "k"]).spawn().unwrap();
    wait_until_idle(waiting.id());
    let temporary = bench.store().join("s/.k..agent_state_tmp.0190");
    fs::write(&temporary, "theirs").unwrap();
    fs::rename(temporary, bench.store().join("s/k")).unwrap();
    assert_eq!(ended(waiting).done().text(), "1\n");
}

/// K53
#[test]
fn who_waits_sleeps_and_other_keys_do_not_wake_them() {
    let bench = Bench::with_session();
    bench.write("other", "v", "w").done();
    let mut waiting = bench.command(&["wait", "@", "s", "k"]).spawn().unwrap();
    wait_until_idle(waiting.id());
    // Who asks while nobody answers tries again and again.
    let lock = hold(&bench.store(), &Holder::this("test", None));
    let before = sleeps(waiting.id());
    fs::write(bench.store().join("s/other"), "beside").unwrap();
    std::thread::sleep(Duration::from_millis(1300));
    let woken = sleeps(waiting.id()) - before;
    assert!(woken <= 4, "it was woken {woken} times");
    drop(lock);
    assert_eq!(waiting.try_wait().unwrap(), None);
    bench.write("k", "v", "w").done();
    assert_eq!(ended(waiting).done().text(), "1\n");
}

/// K53
#[test]
fn a_close_on_the_mount_ends_the_wait() {
    let Some(mount) = mounted::bench() else { return };
    for options in [&[][..], &["--durability", "interval=50"]] {
        mount.mount(options).done();
        let before = mount.bench.run(&["wait", "@", "s", "k", "--timeout", "0"]);
        let after = before.text().trim().to_owned();
        let after = if after.is_empty() { "0" } else { &after };
        let waiting = mount.bench.command(&["wait", mount.place(), "s", "k", "--after", after]).spawn().unwrap();
        wait_until_idle(waiting.id());
        fs::write(mount.at.join("s/k"), "v").unwrap();
        let version = after.parse::<u64>().unwrap() + 1;
        assert_eq!(ended(waiting).done().text(), format!("{version}\n"));
        mount.bench.run(&["umount", mount.place()]).done();
    }
}

/// K53
#[test]
fn a_version_that_comes_with_a_directory_far_above_its_key_is_not_missed() {
    let Some(mount) = mounted::bench() else { return };
    mount.mount(&[]).done();
    let session = mount.at.join("s");
    fs::create_dir_all(session.join("d/e/f")).unwrap();
    fs::create_dir_all(session.join("new/e/f")).unwrap();
    fs::write(session.join("new/e/f/k"), "v").unwrap();
    let waiting = mount.bench.command(&["wait", mount.place(), "s", "d/e/f/k", "--timeout", "20"]).spawn().unwrap();
    wait_until_idle(waiting.id());
    fs::rename(session.join("d"), session.join("old")).unwrap();
    fs::rename(session.join("new"), session.join("d")).unwrap();
    assert_eq!(Ran::from(waiting.wait_with_output().unwrap()).done().text(), "1\n");
}

/// K53
#[test]
fn the_going_of_a_directory_far_above_wakes_and_what_comes_and_goes_in_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    fs::create_dir_all(at("a/b/c/d/e")).unwrap();
    fs::create_dir_all(at("other/c/d/e/f")).unwrap();
    let mut watch = Watch::new(dir.path(), "a/b/c/d/e/f");
    let woken = |watch: &Watch, limit| watch.wait(Some(Instant::now() + limit), None).unwrap();
    watch.arm().unwrap();
    fs::rename(at("a/b"), at("gone")).unwrap();
    fs::rename(at("other"), at("a/b")).unwrap();
    assert_eq!(woken(&watch, LIMIT), Woken::Changed);
    watch.arm().unwrap();
    assert_eq!(woken(&watch, Duration::from_millis(20)), Woken::TimedOut);
    fs::write(at("a/x"), "").unwrap();
    assert_eq!(woken(&watch, Duration::from_millis(20)), Woken::TimedOut);
}

/// K54 K55
#[test]
fn a_store_that_is_held_is_asked_again_until_the_time_is_over() {
    let bench = Bench::with_session();
    bench.write("k", "v", "w").done();
    let _lock = hold(&bench.store(), &Holder::this("test", None));
    let ran = bench.run(&["wait", "@", "s", "k", "--timeout", "0.1"]);
    ran.refused(8, &["does not answer: it is asked once a second", "got no version within 0.1 seconds"]);
}

/// K55
#[test]
fn who_waits_or_follows_outlasts_a_store_that_is_held_for_long() {
    if std::env::var_os("BATONFS_LONG").is_none() {
        return eprintln!("SKIPPED: BATONFS_LONG=1 holds a store for longer than a command waits");
    }
    let bench = Bench::with_session();
    let lock = hold(&bench.store(), &Holder::this("test", None));
    let waiting = bench.command(&["wait", "@", "s", "k"]).spawn().unwrap();
    let mut following = bench.command(&["log", "@", "s", "--follow", "--json"]).spawn().unwrap();
    std::thread::sleep(LIMIT + Duration::from_secs(2));
    drop(lock);
    bench.write("k", "v", "w").done();
    let ran = Ran::from(waiting.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.text()), (0, "1\n"), "{}", ran.err);
    let lines: Vec<_> = BufReader::new(following.stdout.take().unwrap()).lines().take(2).map(Result::unwrap).collect();
    assert!(lines[1].starts_with("{\"seq\":2,"), "{lines:?}");
    following.kill().unwrap();
    following.wait().unwrap();
}

/// K54
#[test]
fn a_wait_whose_time_is_over_has_a_code_of_its_own() {
    for served in [false, true] {
        let bench = Bench::with_session();
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        bench.write("k", "v", "w").done();
        let wait = |args: &[&str]| bench.run(&[&["wait", "@", "s"], args].concat());
        wait(&["--timeout", "0.1"]).refused(8, &["key '__handoff.json' got no version within 0.1 seconds"]);
        wait(&["k", "--after", "1", "--timeout", "0"]).refused(8, &["got no version after 1 within 0 seconds"]);
        bench.run(&["wait", "@", "none", "--timeout", "0"]).refused(8, &["got no version"]);
        wait(&["k", "--timeout", "soon"]).refused(2, &["--timeout"]);
        wait(&["k", "--after", "x"]).refused(2, &["--after"]);
        wait(&[".."]).refused(2, &["must not escape"]);
        bench.run(&["wait", "/nowhere/at/all", "s", "--timeout", "0"]).refused(4, &["does not exist"]);
    }
}

/// K55
#[test]
fn where_nothing_can_be_watched_it_is_said_and_asked_once_a_second() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return eprintln!("SKIPPED: only root can be another user to its own store");
    }
    let bench = Bench::with_session();
    let _daemon = Daemon::serve(&bench.store());
    let sessions = bench.store().join(".baton/sessions");
    fs::set_permissions(&sessions, Permissions::from_mode(0o000)).unwrap();
    // It has the user's id, and none of root's powers.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", env!("CARGO_BIN_EXE_batonfs"), "log"]);
    command.arg(bench.store()).args(["s", "--follow", "--json"]);
    let mut following = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(following.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["seq"].take()
    };
    assert_eq!(next(), 1);
    bench.write("k", "v", "w").done();
    assert_eq!(next(), 2);
    following.kill().unwrap();
    let err = following.wait_with_output().unwrap().stderr;
    fs::set_permissions(&sessions, Permissions::from_mode(0o700)).unwrap();
    let err = String::from_utf8(err).unwrap();
    assert!(err.starts_with("batonfs: the store cannot be watched (Permission denied"), "{err}");
    assert_eq!(err.matches("once a second").count(), 1, "{err}");
}
