//! C8, C10: of many that race for a name, one has it; the ways to make a lock of a name.

use std::collections::HashMap;

use serde_json::Value;

use crate::harness::{self, Mount};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mount/exclusive.py");

fn race(mount: &Mount, rounds: usize, what: &str) -> String {
    mount.run(mount.command(&[harness::python(), PROGRAM, &rounds.to_string(), what])).ok()
}

/// The lines of the log by key, each key's in their order.
fn lines_by_key(mount: &Mount) -> HashMap<String, Vec<Value>> {
    let mut lines: HashMap<_, Vec<_>> = HashMap::new();
    for line in mount.log() {
        let key = line["key"].as_str().unwrap_or_default().to_owned();
        lines.entry(key).or_default().push(line);
    }
    lines
}

// C8
#[test]
fn every_race_for_a_new_name_has_one_winner_and_its_value_is_version_1() {
    let Some(mount) = Mount::new() else { return };
    let rounds = if harness::long() { 1000 } else { 150 };
    let won = race(&mount, rounds, "fresh");
    assert_eq!(won.lines().count(), rounds, "one winner a round:\n{won}");
    let mut lines = lines_by_key(&mount);
    for line in won.lines() {
        let [round, number, pid] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let key = format!("race-{round}");
        assert_eq!(mount.read(&key), number, "{key} is not its winner's");
        let [line] = &lines[&key][..] else { panic!("{key} has more than one line: {:?}", lines[&key]) };
        assert_eq!((line["version"].as_u64(), line["process"]["pid"].to_string().as_str()), (Some(1), pid), "{line}");
    }
    lines.retain(|key, _| key.starts_with("race-"));
    assert_eq!(lines.len(), rounds, "a race has one key");
}

/// Runs races for one name that its winner removes: whoever had it had it alone, and the log has them in turn.
fn nobody_shares(mount: &Mount, way: &str, rounds: usize) -> usize {
    let rounds = if harness::long() { rounds * 20 } else { rounds };
    let said = race(mount, rounds, way);
    let said: Vec<usize> = said.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    let [had, shared] = said[..] else { panic!("{said:?}") };
    assert!(had >= rounds && shared == 0, "of {had} that made the name by {way}, {shared} had not made it alone");
    had
}

fn they_took_turns(mount: &Mount, had: usize) {
    let of_lock = |line: &&Value| line["key"] == "lock" || line["to"] == "lock";
    let (made, removed): (Vec<_>, Vec<_>) =
        mount.log().into_iter().filter(|line| of_lock(&line)).enumerate().partition(|(turn, _)| turn % 2 == 0);
    assert!(removed.iter().all(|(_, line)| line["op"] == "delete"), "two had it at once: {removed:?}");
    let versions: Vec<_> = made.iter().filter_map(|(_, line)| line["version"].as_u64()).collect();
    assert_eq!(versions, (1..=had as u64).collect::<Vec<_>>(), "one version for each that had it");
    assert_eq!(removed.len(), had);
}

// C8, C11
#[test]
fn a_name_made_exclusively_is_a_lock() {
    let Some(mount) = Mount::new() else { return };
    let had = nobody_shares(&mount, "create", 25) + nobody_shares(&mount, "noclobber", 6);
    they_took_turns(&mount, had);
}

// C10
#[test]
fn a_rename_that_replaces_nothing_is_a_lock() {
    let Some(mount) = Mount::new() else { return };
    let had = nobody_shares(&mount, "rename", 15);
    they_took_turns(&mount, had);
}

// T2
#[test]
fn a_directory_is_a_lock() {
    let Some(mount) = Mount::new() else { return };
    nobody_shares(&mount, "mkdir", 40);
    assert_eq!(mount.names(""), [""; 0]);
}

/// A process makes a name, forks and is killed; its child closes the file, and makes the name anew. Prints how often it could
/// not.
const CLOSED_BY_A_CHILD: &str = r#"
import os, signal
failed = 0
for _ in range(60):
    (made, tell), (goes_on, go_on) = os.pipe(), os.pipe()
    first = os.fork()
    if first == 0:
        fd = os.open("k", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        if os.fork() == 0:
            os.read(goes_on, 1)
            os.close(fd)
            try:
                os.close(os.open("k", os.O_RDWR | os.O_CREAT | os.O_EXCL))
                os.unlink("k")
                os.write(tell, b"made")
            except OSError as e:
                os.write(tell, b"not made")
            os._exit(0)
        os.write(tell, b"ready")
        signal.pause()
    os.read(made, 9)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    os.write(go_on, b"g")
    failed += os.read(made, 9) != b"made"
    for fd in (made, tell, goes_on, go_on):
        os.close(fd)
open("stop", "w").close()
print(failed)
"#;

// C8
#[test]
fn a_name_whose_maker_was_killed_is_free_for_who_closes_it_last() {
    let Some(mount) = Mount::new() else { return };
    // Others keep the store busy: what becomes of the draft takes its time.
    let load = |n: usize| {
        let script = format!("until [ -e stop ]; do echo x > load{n}; done");
        mount.spawn(mount.command(&["bash", "-c", &script]))
    };
    let load: Vec<_> = (0..3).map(load).collect();
    let failed = mount.python(CLOSED_BY_A_CHILD).ok();
    load.into_iter().for_each(|load| drop(load.wait().ok()));
    assert_eq!(failed, "0\n");
}
