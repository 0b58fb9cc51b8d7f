//! C16, C18: a counter, read and rewritten by many processes: under a lock nothing is lost, without one no edit is lost
//! in silence.

use std::collections::{HashMap, VecDeque};

use crate::harness::{self, Mount};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mount/locked.py");
const PROCESSES: u64 = 8;

/// All processes increment the counter `n` times each; what the program says.
fn run(mount: &Mount, way: &str, n: u64) -> String {
    mount.run(mount.command(&[harness::python(), PROGRAM, way, &n.to_string()])).ok()
}

/// The same; how often they were told that it was done.
fn increment(mount: &Mount, way: &str, n: u64) -> u64 {
    run(mount, way, n).lines().last().and_then(|line| line.parse().ok()).expect("a number")
}

fn counter(mount: &Mount) -> u64 {
    mount.read("k").trim().parse().expect("a number")
}

/// The versions of the counter after the first whose commit was a conflict.
fn conflicts(mount: &Mount) -> Vec<u64> {
    let log = mount.log();
    let lines = log.iter().filter(|line| line["key"] == "k" && line["conflict"].is_string());
    lines.filter_map(|line| line["version"].as_u64()).collect()
}

fn nothing_is_lost(ways: &[&str], n: u64) {
    let n = if harness::long() { n * 20 } else { n };
    // Whatever went on from an old value would be refused.
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    for way in ways {
        mount.write("k", "0\n");
        let succeeded = increment(&mount, way, n);
        assert_eq!((succeeded, counter(&mount)), (PROCESSES * n, PROCESSES * n), "{way}");
    }
    let versions: Vec<_> = (1..=ways.len() as u64 * (PROCESSES * n + 1)).collect();
    assert_eq!(mount.versions("k"), versions, "a version each");
}

// C12, C16
#[test]
fn no_increment_under_a_lock_on_the_key_is_lost() {
    nothing_is_lost(
        &[
            "own handle, flock",
            "own handle, lockf",
            "opened before the lock",
            "flock on the key, edit",
            "flock on the key, rewrite",
        ],
        3,
    );
}

// C8, C16
#[test]
fn no_increment_of_a_counter_that_all_have_created_is_lost() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    assert_eq!(increment(&mount, "created before the lock", 1), PROCESSES);
    assert_eq!(counter(&mount), PROCESSES);
    let versions: Vec<_> = (1..=PROCESSES).collect();
    assert_eq!(mount.versions("k"), versions, "a version each");
}

// C10, C16
#[test]
fn no_increment_under_a_lock_beside_the_key_is_lost() {
    nothing_is_lost(
        &[
            "flock beside, edit",
            "flock beside, rewrite",
            "flock beside, rename",
            "lockf beside, rewrite",
            "lockf beside, rename",
        ],
        3,
    );
}

// C16
#[test]
fn no_increment_under_the_command_flock_is_lost() {
    nothing_is_lost(&["shell, rewrite", "shell, edit", "shell, rename"], 2);
}

// C5, C16
#[test]
fn a_lock_given_back_before_the_close_loses_nothing_after_an_fsync() {
    nothing_is_lost(&["unlocked early, synced"], 5);
}

#[test]
fn a_lock_given_back_before_the_close_hands_on_the_old_value() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    let script = |mode: &str| {
        format!(
            "import fcntl, subprocess\nlock = open('lock', 'a')\nfcntl.flock(lock, fcntl.LOCK_EX)\n\
             n = int(open('k').read())\nf = open('k', '{mode}')\nf.write(str(n + 1))\nf.flush()\nfcntl.flock(lock, fcntl.LOCK_UN)\n\
             subprocess.run(['flock', 'lock', 'dash', '-c', 'n=$(cat k); echo $((n + 10)) > k'], check=True)\n\
             try: f.close()\nexcept OSError as e: print(e.errno)"
        )
    };
    mount.write("k", "0");
    assert_eq!(mount.python(&script("r+")).ok(), format!("{}\n", libc::EBUSY));
    assert_eq!(counter(&mount), 10, "an edit of what was the value is refused");
    mount.write("k", "0");
    mount.python(&script("w")).ok();
    assert_eq!(counter(&mount), 1, "a rewrite is not: the later close wins, as without a lock");
}

// C18
#[test]
fn without_a_lock_under_error_who_is_not_refused_has_counted() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    let n = if harness::long() { 200 } else { 5 };
    mount.write("k", "0\n");
    assert_eq!(increment(&mount, "together", n), n, "one of those that have read the same");
    assert_eq!(counter(&mount), n);
    for way in ["no lock", "unlocked early"] {
        mount.write("k", "0\n");
        let succeeded = increment(&mount, way, n);
        assert_eq!(counter(&mount), succeeded, "{way}");
    }
    assert!(mount.errors().contains("read it again and repeat the edit"), "{}", mount.errors());
}

// C18
#[test]
fn without_a_lock_under_warn_every_lost_update_is_a_conflict_in_the_log() {
    let Some(mount) = Mount::with(&["--conflict-policy", "warn"]) else { return };
    let n = if harness::long() { 200 } else { 5 };
    mount.write("k", "0\n");
    assert_eq!(increment(&mount, "together", n), n * PROCESSES);
    assert_eq!(counter(&mount), n);
    assert_eq!(
        conflicts(&mount).len() as u64,
        n * (PROCESSES - 1),
        "all but the first of those that have read the same"
    );

    mount.write("k", "0\n");
    let known = mount.versions("k").len();
    let said = run(&mount, "no lock", n);
    let mut values_of = values_by_process(&said);
    let (mut before, conflicts) = (0, conflicts(&mount));
    for line in mount.log().iter().filter(|line| line["key"] == "k").skip(known) {
        let pid = line["process"]["pid"].as_u64().expect("a pid");
        let after = values_of.get_mut(&pid).and_then(VecDeque::pop_front).expect("a value for every version");
        let told = conflicts.contains(&line["version"].as_u64().expect("a version"));
        assert!(after == before + 1 || told, "{after} after {before}: {line}");
        before = after;
    }
    assert_eq!(before, counter(&mount));
}

/// What each process has written, in its order.
fn values_by_process(said: &str) -> HashMap<u64, VecDeque<u64>> {
    let lines = said.lines().filter_map(|line| line.split_once(' '));
    let values = |list: &str| serde_json::from_str(list).expect("a list of numbers");
    lines.map(|(pid, list)| (pid.parse().expect("a pid"), values(list))).collect()
}
