//! The words behind an errno, for who was refused.

use std::process::Command;

use serde_json::{Value, json};

use crate::command::{Bench, Ran};
use crate::committer::Daemon;
use crate::mounted::{self, Mount};

const WORDS: &str = "key 'k' was previously written by 'a' and is now being written by 'b'";

/// A script in the session, on the mount, by a writer; nobody declared for the empty one.
fn script(mount: &Mount, writer: &str, script: &str) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(mount.at.join("s"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BATON")) {
        command.env_remove(name);
    }
    if !writer.is_empty() {
        command.env("BATON_WRITER_ID", writer);
    }
    command.output().unwrap().into()
}

fn why(mount: &Mount, args: &[&str]) -> Ran {
    mount.bench.run(&[&["why", "@"], args].concat())
}

/// K56
#[test]
fn who_was_refused_hears_why_and_what_can_be_done() {
    let Some(mount) = mounted::bench() else { return };
    mount.mount(&["--conflict-policy", "error"]).done();
    mount.bench.write("k", "v", "a").done();
    assert_ne!(script(&mount, "b", "/bin/echo x > k").code, 0);
    for args in [&["--writer-id", "b"][..], &["s", "--writer-id", "b"]] {
        let ran = why(&mount, args).done();
        let lines: Vec<&str> = ran.text().lines().collect();
        assert_eq!(lines[0], WORDS);
        assert!(lines[1].contains("s/k by 'b'") && lines[1].contains("resource busy"), "{}", lines[1]);
        assert!(lines[2].starts_with("hint: ") && lines[2].contains("BATON_CONFLICT_POLICY"), "{}", lines[2]);
    }
    let told = why(&mount, &["--writer-id", "b", "--json"]).done().json();
    assert_eq!((&told["session_id"], &told["key"], &told["errno"]), (&json!("s"), &json!("k"), &json!(16)));
    assert_eq!((&told["words"], &told["writer"]["writer_id"]), (&json!(WORDS), &json!("b")));
    assert!(told["hint"].is_string() && told["time_ms"].is_u64() && told["op"].is_string(), "{told}");
    // The environment declares as the option does.
    let mut command = mount.bench.command(&["why", "@"]);
    assert!(Ran::from(command.env("BATON_WRITER_ID", "b").output().unwrap()).done().text().starts_with(WORDS));
    why(&mount, &["--writer-id", "c"]).refused(4, &["nothing was refused to this writer"]);
    why(&mount, &["t", "--writer-id", "b"]).refused(4, &["nothing was refused", "'t'"]);
}

/// K56
#[test]
fn who_declares_nothing_hears_what_was_refused_to_their_user_last() {
    let Some(mount) = mounted::bench() else { return };
    mount.mount(&["--conflict-policy", "error"]).done();
    mount.bench.write("k", "v", "a").done();
    assert_ne!(script(&mount, "b", "/bin/echo x > k").code, 0);
    assert!(why(&mount, &[]).done().text().starts_with(WORDS));
    assert_ne!(script(&mount, "", "ln -s k link").code, 0);
    let told = why(&mount, &["--json"]).done().json();
    if told["errno"] == 16 {
        // A symbolic link is refused by the kernel's own table of calls, and never comes to us.
        assert_ne!(script(&mount, "", "mkfifo pipe").code, 0);
    }
    let told = why(&mount, &["--json"]).done().json();
    assert_eq!(told["errno"], 1, "{told}");
    assert!(told["hint"].as_str().unwrap().contains("regular files"), "{told}");
    assert!(why(&mount, &["--writer-id", "b"]).done().text().starts_with(WORDS));
}

/// K56
#[test]
fn a_refusal_at_close_is_the_writers_whoever_closes() {
    let Some(mount) = mounted::bench() else { return };
    mount.mount(&[]).done();
    assert_ne!(script(&mount, "b", "printf '{\"n\": ' | dd of=__handoff.json status=none").code, 0);
    let told = why(&mount, &["--writer-id", "b", "--json"]).done().json();
    assert_eq!((&told["key"], &told["errno"]), (&json!("__handoff.json"), &json!(22)), "{told}");
    assert!(told["words"].as_str().unwrap().contains("summary must be a JSON object"), "{told}");
    // Long after its last write, by a shell that ignores what its close is told.
    script(&mount, "late", "{ printf '{\"n\": '; sleep 0.3; } > __handoff.json");
    let told = why(&mount, &["--writer-id", "late", "--json"]).done().json();
    assert_eq!(told["errno"], 22, "{told}");
    let errors = std::fs::read_to_string(mount.at.join("s/.baton/errors")).unwrap();
    let line: Value = serde_json::from_str(errors.lines().last().unwrap()).unwrap();
    assert_eq!(line["writer"]["writer_id"], "late", "{line}");
    assert_eq!(line["uid"], told["uid"]);
}

/// K56
#[test]
fn refusals_are_kept_by_a_mount_and_by_nothing_else() {
    let bench = Bench::with_session();
    bench.run(&["why", "@"]).refused(4, &["is not mounted", "refusals are kept by a mount"]);
    let fresh = Bench::new();
    fresh.run(&["why", "@", "s"]).refused(4, &["is not mounted"]);
    assert!(crate::command::is_empty(&fresh.store()));
    let _daemon = Daemon::serve(&bench.store());
    bench.run(&["why", "@"]).refused(4, &["not mounted"]);
    bench.run(&["why", "@", ".."]).refused(2, &["session"]);
}
