//! Files that are open without being a descriptor of any process: no close of theirs sends a FLUSH.

use std::fs;
use std::process::Stdio;

use crate::harness::{Mount, Running, eventually};

/// `direct.c`, compiled; `None` where there is no io_uring.
fn program(mount: &Mount) -> Option<String> {
    let (source, program) = (mount.scratch().join("direct.c"), mount.scratch().join("direct"));
    fs::write(&source, include_str!("direct.c")).expect("the source");
    let (source, program) = (source.to_string_lossy(), program.to_string_lossy().into_owned());
    mount.run(mount.command(&["cc", "-O1", "-o", &program, &source])).ok();
    if mount.run(mount.command(&[&program])).code == Some(77) {
        eprintln!("SKIPPED: no io_uring");
        return None;
    }
    Some(program)
}

/// Has written and closed, and is still there.
fn closed(mount: &Mount, program: &str, key: &str) -> Running {
    let mut command = mount.command(&[program, key, "whole"]);
    command.stdin(Stdio::piped());
    let mut writer = mount.spawn(command);
    writer.printed(1);
    writer
}

// C2
#[test]
fn what_was_written_through_a_direct_descriptor_is_committed() {
    let Some(mount) = Mount::new() else { return };
    let Some(program) = program(&mount) else { return };
    mount.write("old", "old");
    for (key, versions) in [("new", 1), ("old", 2)] {
        let writer = closed(&mount, &program, key);
        eventually("the value is there", || fs::read(mount.path(key)).is_ok_and(|value| value == b"whole"));
        writer.wait().ok();
        assert_eq!(mount.versions(key), (1..=versions).collect::<Vec<_>>());
    }
}

// C2: the kernel releases it when its writer has long ended.
#[test]
fn what_a_writer_leaves_by_ending_at_once_is_committed() {
    let Some(mount) = Mount::new() else { return };
    let Some(program) = program(&mount) else { return };
    for round in 0..12 {
        mount.run(mount.command(&[&program, &format!("k{round}"), "whole"])).ok();
    }
    let told = || mount.log().into_iter().filter(|line| line["op"] != "mkdir").collect::<Vec<_>>();
    eventually("the log tells of each", || told().len() == 12);
    assert!(told().iter().all(|line| line["op"] == "put"), "{:?}", told());
}

// C6
#[test]
fn what_a_killed_writer_left_behind_a_direct_descriptor_is_dropped() {
    let Some(mount) = Mount::new() else { return };
    let Some(program) = program(&mount) else { return };
    // The close of a registered one's descriptor has committed what its open has emptied.
    for (how, value, versions) in [("killed", "old", vec![1]), ("registered", "", vec![1, 2])] {
        mount.write(how, "old");
        assert_eq!(mount.run(mount.command(&[&program, how, "half", how])).code, None);
        let dropped = |line: &serde_json::Value| line["op"] == "drop" && line["key"] == how;
        let ended = || mount.log().iter().any(dropped) || mount.versions(how).len() > versions.len();
        eventually("the log tells of it", ended);
        assert_eq!((mount.read(how).as_str(), mount.versions(how)), (value, versions), "{how}");
    }
}
