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
