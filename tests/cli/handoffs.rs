//! The latest handoff of every session, by the command and on the mount.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use serde_json::json;

use crate::command::{Bench, Ran};
use crate::committer::Daemon;
use crate::mounted;
use crate::past::objects;

const NOBODY: &str = "65534";

fn bench() -> Bench {
    let bench = Bench::new();
    for session in ["a", "b", "c", "d"] {
        bench.run(&["init", "@", session]).done();
    }
    for task in ["first", "second"] {
        bench.feed(&["handoff", "@", "c", "--writer-id", "w"], format!(r#"{{"task": "{task}", "n": 1}}"#)).done();
    }
    bench.feed(&["handoff", "@", "a", "--writer-id", "v"], format!(r#"{{"long": "{}"}}"#, "x".repeat(500))).done();
    bench
}

/// K57
#[test]
fn the_latest_handoff_of_each_session_that_has_one_is_a_line() {
    for served in [false, true] {
        let bench = bench();
        // A program beside the store has put there what is no envelope.
        fs::write(bench.store().join("d/__handoff.json"), "none").unwrap();
        // Logs are not read for it.
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        let told = objects(&bench.run(&["handoffs", "@", "--json"]).done());
        let shown: Vec<_> =
            told.iter().map(|line| json!([line["session_id"], line["version"], line["writer"]["writer_id"]])).collect();
        assert_eq!(shown, [json!(["a", 1, "v"]), json!(["c", 2, "w"]), json!(["d", 1, null])]);
        assert_eq!(told[1]["summary"], r#"{"n":1,"task":"second"}"#);
        assert_eq!(told[2]["summary"], json!(null));
        let long = told[0]["summary"].as_str().unwrap();
        assert!(long.starts_with(r#"{"long":"xxx"#) && long.ends_with("x\u{2026}"), "{long}");
        assert!(told[1]["committed_at_s"].as_u64().unwrap() > 1_700_000_000);
        let table = bench.run(&["handoffs", "@"]).done();
        assert_eq!(table.text().lines().count(), 4);
        assert!(table.text().lines().nth(2).unwrap().ends_with(r#"{"n":1,"task":"second"}"#), "{}", table.text());
    }
}

/// K57
#[test]
fn handoffs_are_told_without_a_look_at_any_log() {
    let bench = bench();
    for session in ["a", "b", "c", "d"] {
        fs::write(bench.store().join(format!(".baton/sessions/{session}/log")), "no line of a log\n").unwrap();
    }
    assert_eq!(objects(&bench.run(&["handoffs", "@", "--json"]).done()).len(), 2);
}

/// K57
#[test]
fn one_damaged_session_does_not_hide_the_handoffs_of_the_others() {
    let bench = bench();
    // What comes from beside the store is to be given a version, and the log that would tell which cannot be read.
    fs::write(bench.store().join("b/__handoff.json"), r#"{"summary": {"n": 3}}"#).unwrap();
    fs::write(bench.store().join(".baton/sessions/b/log"), "no line of a log\n").unwrap();
    let told = objects(&bench.run(&["handoffs", "@", "--json"]).done());
    assert_eq!(told.iter().map(|line| &line["session_id"]).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(told[1]["damage"].as_str().is_some_and(|words| words.contains("sessions/b/log")), "{told:?}");
    assert!(told[0].get("damage").is_none() && told[2]["writer"]["writer_id"] == "w", "{told:?}");
    assert!(bench.run(&["handoffs", "@"]).done().text().contains("damaged: .baton/sessions/b/log"));
}

/// K57
#[test]
fn the_mount_shows_the_handoffs_that_the_reader_may_read() {
    let Some(mount) = mounted::bench() else { return };
    for session in ["a", "b", "c"] {
        mount.bench.run(&["init", "@", session]).done();
        mount.bench.feed(&["handoff", "@", session], format!(r#"{{"of": "{session}"}}"#)).done();
    }
    let store = mount.bench.store();
    fs::set_permissions(store.join("b"), Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(store.join("c/__handoff.json"), Permissions::from_mode(0o640)).unwrap();
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    mount.mount(if root { &["--allow-other"] } else { &[] }).done();
    let place = mount.at.join(".baton/handoffs");
    let by_command = mount.bench.run(&["handoffs", "@", "--json"]).done();
    assert_eq!(fs::read_to_string(&place).unwrap(), by_command.text());
    assert_eq!(by_command.text().lines().count(), 3);
    assert_eq!(place.metadata().unwrap().len(), by_command.out.len() as u64, "its size is that of its bytes");
    if !root {
        return eprintln!("SKIPPED: only root can read as another user");
    }
    // The way to the mount is private to who runs the tests.
    fs::set_permissions(mount.at.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "cat"]).arg(&place);
    let told = objects(&Ran::from(command.output().unwrap()).done());
    assert_eq!(told.iter().map(|line| line["session_id"].clone()).collect::<Vec<_>>(), [json!("a")]);
}
