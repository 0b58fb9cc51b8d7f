//! How many versions a command lets go of.

use crate::command::Bench;
use crate::mounted;
use crate::past::objects;

/// The versions of a key whose bytes are there, oldest first.
fn kept(bench: &Bench) -> Vec<u64> {
    let mut lines = objects(&bench.run(&["history", "@", "s", "k", "--json"]).done());
    lines.retain(|line| line["kept"] == true);
    lines.iter().rev().filter_map(|line| line["version"].as_u64()).collect()
}

fn write(bench: &Bench, times: usize, more: &[&str]) {
    for _ in 0..times {
        bench.feed(&[&["write", "@", "s", "k"], more].concat(), b"x").done();
    }
}

/// K58
#[test]
fn commands_let_nothing_go_unless_they_are_told_to() {
    let bench = Bench::with_session();
    write(&bench, 40, &[]);
    assert_eq!(kept(&bench), (1..=40).collect::<Vec<_>>());
    bench.run(&["restore", "@", "s", "k", "1"]).done();
    assert_eq!(kept(&bench).len(), 41);
    bench.run(&["write", "@", "s", "k", "--keep", "few"]).refused(2, &["invalid value 'few' for '--keep <N>'"]);
    let fresh = Bench::with_session();
    write(&fresh, 9, &["--keep", "3"]);
    assert_eq!(kept(&fresh), [6, 7, 8, 9]);
}

/// K58
#[test]
fn on_a_mounted_store_the_mounts_number_holds() {
    let Some(mount) = mounted::bench() else { return };
    mount.mount(&["--keep", "2"]).done();
    write(&mount.bench, 6, &["--keep", "5"]);
    assert_eq!(kept(&mount.bench), [4, 5, 6]);
    mount.bench.run(&["umount", mount.place()]).done();
}
