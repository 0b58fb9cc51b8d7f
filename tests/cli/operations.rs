//! Each operation of the command: what it prints, what it changes, how it is refused.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::command::{Bench, Ran, batonfs, feed};
use crate::committer::Daemon;

/// K17 K38
#[test]
fn init_prints_the_handle_byte_for_byte() {
    let bench = Bench::new();
    let options = ["--writer-id", "w1", "--stage-id", "build", "--policy", "warn"];
    let ran = bench.run(&[&["init", "@", "s"], &options[..]].concat()).done();
    let expected = format!(
        r#"{{
  "_type": "state_handle",
  "backend": "filesystem",
  "root": "{}",
  "session_id": "s",
  "handoff_key": "__handoff.json",
  "conflict_policy": "warn",
  "writer": {{
    "writer_id": "w1",
    "stage_id": "build",
    "session_id": "s",
    "worker_id": null
  }}
}}
"#,
        bench.store().display()
    );
    assert_eq!(ran.text(), expected);
    assert!(bench.store().join("s").is_dir());
}

/// K5
#[test]
fn a_store_that_is_another_users_is_said_to_be_theirs() {
    let bench = Bench::with_session();
    let dir = bench.store().join(".baton");
    let owner = std::fs::metadata(&dir).unwrap().uid();
    std::fs::set_permissions(&dir, Permissions::from_mode(0o000)).unwrap();
    // Root may look in all the same, unless it gives that up.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", env!("CARGO_BIN_EXE_batonfs")]);
    if owner != 0 {
        command = batonfs();
    }
    let ran = command.args(["list".as_ref(), bench.store().as_os_str(), "s".as_ref()]).output().unwrap();
    std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    Ran::from(ran).refused(1, &[dir.to_str().unwrap(), "Permission denied", &format!("user {owner}'s")]);
}

/// K17
#[test]
fn init_without_a_session_makes_a_fresh_one_each_time() {
    let bench = Bench::new();
    let ids: Vec<String> =
        (0..2).map(|_| bench.run(&["init", "@"]).done().json()["session_id"].as_str().unwrap().to_owned()).collect();
    assert_ne!(ids[0], ids[1]);
    for id in &ids {
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'7'), "{id}");
        assert!(bench.store().join(id).is_dir());
    }
}

/// K17
#[test]
fn init_makes_the_store_and_finds_both_made_the_second_time() {
    let bench = Bench::new();
    let fresh = bench.beside("a/new/store");
    let fresh = fresh.to_str().unwrap();
    let first = bench.run(&["init", fresh, "s"]).done();
    bench.feed(&["write", fresh, "s", "k"], "v").done();
    assert_eq!(bench.run(&["init", fresh, "s"]).done().text(), first.text());
    assert_eq!(bench.run(&["read", fresh, "s", "k"]).done().text(), "v");
}

/// K19 K8
#[test]
fn resume_gives_the_same_handle_or_finds_nothing() {
    let bench = Bench::new();
    let made = bench.run(&["init", "@", "s", "--writer-id", "w"]).done();
    assert_eq!(bench.run(&["resume", "@", "s", "--writer-id", "w"]).done().text(), made.text());
    bench.run(&["resume", "@", "other"]).refused(4, &["session 'other' not found"]);
    assert!(!bench.store().join("other").exists());
}

/// K20 K21
#[test]
fn any_bytes_come_back_as_they_were() {
    let bench = Bench::with_session();
    let every_byte: Vec<u8> = (0..=255).cycle().take(5000).collect();
    for value in [&b""[..], b"\0", b"no newline", &every_byte] {
        bench.feed(&["write", "@", "s", "k"], value).done();
        assert_eq!(bench.run(&["read", "@", "s", "k"]).done().out, value);
        assert_eq!(std::fs::read(bench.store().join("s/k")).unwrap(), value);
    }
}

/// K21 K38
#[test]
fn write_says_as_json_what_it_made() {
    let bench = Bench::with_session();
    let first = bench.feed(&["write", "@", "s", "./d//k/", "--json"], "1").done().json();
    assert_eq!((&first["session_id"], &first["key"]), (&json!("s"), &json!("d/k")));
    assert_eq!((&first["version"], &first["warning"]), (&json!(1), &json!(null)));
    let second = bench.feed(&["write", "@", "s", "d/k", "--json"], "2").done().json();
    assert_eq!(second["version"], 2);
    assert!(second["seq"].as_u64() > first["seq"].as_u64(), "{first} {second}");
    assert_eq!(bench.feed(&["write", "@", "s", "d/k"], "3").done().text(), "");
}

/// K8 K21
#[test]
fn write_makes_no_session() {
    let bench = Bench::new();
    for served in [false, true] {
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        bench.feed(&["write", "@", "none", "k"], "v").refused(4, &["session 'none' not found"]);
        bench.feed(&["handoff", "@", "none"], "{}").refused(4, &["session 'none' not found"]);
        assert!(!bench.store().join("none").exists());
    }
}

/// K2 K8
#[test]
fn what_does_not_exist_is_not_found_and_gives_no_data() {
    let bench = Bench::with_session();
    bench.run(&["read", "@", "s", "k"]).refused(4, &["key 'k' not found in session 's'"]);
    bench.run(&["read", "@", "t", "k"]).refused(4, &["session 't' not found"]);
    bench.run(&["list", "@", "t"]).refused(4, &["session 't' not found"]);
    bench.run(&["list", "@", "t", "--json"]).refused(4, &["session 't' not found"]);
    bench.run(&["delete", "@", "s", "k"]).refused(4, &["key 'k' not found"]);
    bench.run(&["policy", "@", "t"]).refused(4, &["session 't' not found"]);
    let missing = bench.beside("missing");
    let missing = missing.to_str().unwrap();
    for args in
        [&["read", missing, "s", "k"][..], &["list", missing, "s"], &["resume", missing, "s"], &["status", missing]]
    {
        bench.run(args).refused(4, &["does not exist", missing]);
    }
    bench.feed(&["write", missing, "s", "k"], "v").refused(4, &["does not exist"]);
    assert!(!std::path::Path::new(missing).exists());
}

/// K2 K8
#[test]
fn asking_for_a_session_in_a_wrong_place_leaves_nothing_there() {
    let bench = Bench::new();
    bench.run(&["read", "@", "s", "k"]).refused(4, &["session 's' not found"]);
    bench.feed(&["write", "@", "s", "k"], "v").refused(4, &["session 's' not found"]);
    assert!(crate::command::is_empty(&bench.store()));
}

/// K5
#[test]
fn a_store_that_is_no_directory_fails() {
    let bench = Bench::new();
    let file = bench.beside("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    bench.run(&["list", file, "s"]).refused(1, &["is not a directory", file]);
    bench.run(&["init", file, "s"]).refused(1, &["is not a directory", file]);
}

/// K5
#[test]
fn a_key_where_a_directory_is_and_the_other_way_round_fail_and_change_nothing() {
    let bench = Bench::with_session();
    bench.write("d/k", "v", "w").done();
    bench.write("d", "v", "w").refused(1, &["d"]);
    bench.write("d/k/x", "v", "w").refused(1, &["d/k"]);
    assert_eq!(bench.run(&["list", "@", "s"]).done().text(), "d/k\n");
    assert_eq!(bench.value("d/k"), "v");
}

/// K22
#[test]
fn delete_takes_the_key_and_the_directories_it_leaves_empty() {
    let bench = Bench::with_session();
    for key in ["a/b/c", "a/d"] {
        bench.write(key, "v", "w").done();
    }
    bench.run(&["delete", "@", "s", "a/b/c", "--writer-id", "x", "--policy", "error"]).done();
    assert!(!bench.store().join("s/a/b").exists());
    assert_eq!(bench.run(&["list", "@", "s"]).done().text(), "a/d\n");
    bench.run(&["delete", "@", "s", "a/d"]).done();
    assert!(!bench.store().join("s/a").exists());
    assert!(bench.store().join("s").exists());
}

/// K23
#[test]
fn list_sorts_whole_keys_bytewise_and_leaves_reserved_names_out() {
    let bench = Bench::with_session();
    let keys = ["a b", "a-b", "a.b", "a/b", "a/b-c", "a0", ".hidden", "\u{e4}"];
    for key in keys {
        bench.write(key, "v", "w").done();
    }
    std::fs::write(bench.store().join("s/.x..agent_state_tmp.0190"), "").unwrap();
    std::fs::create_dir(bench.store().join("s/empty")).unwrap();
    let sorted = [".hidden", "a b", "a-b", "a.b", "a/b", "a/b-c", "a0", "\u{e4}"];
    assert_eq!(bench.run(&["list", "@", "s"]).done().text(), format!("{}\n", sorted.join("\n")));
    assert_eq!(bench.run(&["list", "@", "s", "--json"]).done().json(), json!(sorted));
    bench.run(&["init", "@", "empty"]).done();
    assert_eq!(bench.run(&["list", "@", "empty"]).done().text(), "");
    assert_eq!(bench.run(&["list", "@", "empty", "--json"]).done().text(), "[]\n");
}

/// K24
#[test]
fn a_handoff_is_an_envelope_around_the_object() {
    let bench = Bench::with_session();
    let object = json!({"status": "done", "n": 1});
    for (command, writer) in [(&["handoff", "@", "s"][..], "w1"), (&["write", "@", "s", "__handoff.json"], "w2")] {
        let args = [command, &["--writer-id", writer]].concat();
        bench.feed(&args, object.to_string()).done();
        let envelope = bench.run(&["read", "@", "s", "__handoff.json"]).done().json();
        assert_eq!(envelope["_type"], "agent_state_handoff");
        assert_eq!(envelope["summary"], object);
        assert_eq!((&envelope["session_id"], &envelope["key"]), (&json!("s"), &json!("__handoff.json")));
        assert_eq!(envelope["root"], json!(bench.store().to_str().unwrap()));
        assert_eq!(envelope["writer"]["writer_id"], writer);
    }
}

/// K9
#[test]
fn what_is_no_handoff_is_refused_and_the_previous_one_stays() {
    let bench = Bench::with_session();
    bench.feed(&["handoff", "@", "s"], r#"{"n": 1}"#).done();
    for bad in ["", "[]", "1", "{", "{} x", "\u{feff}{}x", "null"] {
        bench.feed(&["handoff", "@", "s"], bad).refused(5, &[]);
        bench.feed(&["write", "@", "s", "__handoff.json"], bad).refused(5, &[]);
    }
    bench.feed(&["handoff", "@", "s"], "[]").refused(5, &["summary must be a JSON object"]);
    let envelope = bench.run(&["read", "@", "s", "__handoff.json"]).done().json();
    assert_eq!(envelope["summary"], json!({"n": 1}));
}

/// K25 K38
#[test]
fn status_says_what_the_store_is() {
    let bench = Bench::with_session();
    let status = bench.run(&["status", "@", "--json"]).done().json();
    let expected = json!({
        "version": env!("CARGO_PKG_VERSION"), "store": bench.store(), "engine": "filesystem",
        "mountpoint": null, "pid": null, "sessions": 1, "drafts": [],
    });
    assert_eq!(status, expected);
    let text = bench.run(&["status", "@"]).done();
    assert!(text.text().contains("mounted at: nowhere"), "{}", text.text());
}

/// K26 K6
#[test]
fn keys_are_refused_in_the_neighbours_words() {
    let bench = Bench::with_session();
    let cases = [
        ("", "key must be a non-empty relative path"),
        (" \u{2003}\n", "key must be a non-empty relative path"),
        (".", "key must contain at least one path component"),
        ("./.", "key must contain at least one path component"),
        ("/a", "key '/a' must be relative"),
        ("..", "key '..' must not escape the session root"),
        ("a/../b", "key 'a/../b' must not escape the session root"),
        ("a/.agent_state_meta/b", "key 'a/.agent_state_meta/b' uses a reserved internal path"),
        ("x.agent_state_tmp.1", "key 'x.agent_state_tmp.1' uses a reserved internal path"),
        (".baton/log", "key '.baton/log' uses a reserved internal path"),
    ];
    for (key, words) in cases {
        bench.feed(&["write", "@", "s", key], "v").refused(2, &[words]);
        bench.run(&["read", "@", "s", key]).refused(2, &[words]);
        bench.run(&["delete", "@", "s", key]).refused(2, &[words]);
    }
    bench.run(&["read", "@", "s", &"n".repeat(251)]).refused(2, &["too long"]);
    assert_eq!(bench.run(&["list", "@", "s"]).done().text(), "");
}

/// K26
#[test]
fn keys_are_trimmed_and_normalised() {
    let bench = Bench::with_session();
    bench.write("  ./a//b/ ", "v", "w").done();
    assert_eq!(bench.run(&["list", "@", "s"]).done().text(), "a/b\n");
    assert_eq!(bench.value("a/./b"), "v");
    let longest = "n".repeat(250);
    bench.write(&longest, "long", "w").done();
    assert_eq!(bench.value(&longest), "long");
}

/// K6
#[test]
fn session_ids_of_bad_form_are_usage_errors() {
    let bench = Bench::new();
    for id in ["", ".", "..", "a/b", "/a", ".baton", ".agent_state_meta", "x.agent_state_tmp.y"] {
        bench.run(&["init", "@", id]).refused(2, &["session"]);
        bench.run(&["list", "@", id]).refused(2, &["session"]);
    }
    bench.run(&["init", "@", &"s".repeat(251)]).refused(2, &["too long"]);
}

/// K6
#[test]
fn wrong_options_and_missing_arguments_are_usage_errors() {
    let bench = Bench::with_session();
    for args in [&["frobnicate"][..], &["read", "@"], &["list", "@", "s", "--yaml"], &[], &["mount", "@"]] {
        assert_eq!(bench.run(args).code, 2, "{args:?}");
    }
    bench.run(&["list", "@", "s", "--yaml"]).refused(2, &["--yaml"]);
    let long = "i".repeat(257);
    bench.feed(&["write", "@", "s", "k", "--writer-id", &long], "v").refused(2, &["--writer-id has 257 bytes"]);
    bench.feed(&["write", "@", "s", "k", "--policy", "harsh"], "v").refused(2, &["unknown conflict policy 'harsh'"]);
    bench.run(&["policy", "@", "s", "harsh"]).refused(2, &["unknown conflict policy 'harsh'"]);
}

/// K27
#[test]
fn a_store_that_another_program_made_is_a_store() {
    let bench = Bench::new();
    let session = bench.store().join("theirs");
    std::fs::create_dir_all(session.join(".agent_state_meta/evidence")).unwrap();
    std::fs::create_dir(session.join("evidence")).unwrap();
    std::fs::write(session.join("evidence/a.json"), "{}").unwrap();
    let sidecar = "{\n  \"writer\": {\n    \"writer_id\": \"them\"\n  },\n  \"updated_at\": 1795332960\n}";
    std::fs::write(session.join(".agent_state_meta/evidence/a.json.json"), sidecar).unwrap();
    assert_eq!(bench.run(&["list", "@", "theirs"]).done().text(), "evidence/a.json\n");
    assert_eq!(bench.run(&["read", "@", "theirs", "evidence/a.json"]).done().text(), "{}");
    let args = ["write", "@", "theirs", "evidence/a.json", "--writer-id", "us", "--policy", "error"];
    bench.feed(&args, "x").refused(3, &["'them'", "'us'"]);
}

/// K10
#[test]
fn a_damaged_store_is_said_to_be_damaged() {
    let refusal = batonfs::committer::Refusal::from(batonfs::engine::EngineError::Damaged {
        place: "/store/.baton/journal/3".to_owned(),
        what: "record 7 has another checksum".to_owned(),
    });
    assert_eq!(refusal.words, "/store/.baton/journal/3 is damaged: record 7 has another checksum");
    assert_eq!(batonfs::cli::Exit::from(refusal.kind) as u8, 6);
}

#[test]
fn what_root_does_in_another_users_store_leaves_it_to_that_user() {
    const NOBODY: u32 = 65_534;
    // Without root there is nobody whose store it could be.
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("SKIPPED: only root can act in another user's store");
        return;
    }
    let bench = Bench::new();
    let (top, program) = (bench.beside(""), bench.beside("batonfs"));
    std::fs::copy(env!("CARGO_BIN_EXE_batonfs"), &program).unwrap();
    std::fs::set_permissions(&top, Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(bench.store(), Some(NOBODY), Some(NOBODY)).unwrap();
    let as_owner = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.uid(NOBODY).gid(NOBODY).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        feed(command.spawn().unwrap(), b"the owner's\n")
    };
    let store = bench.store();
    let store = store.to_str().unwrap();
    as_owner(&["init", store, "s"]).done();
    bench.feed(&["write", "@", "s", "root/key"], "root's\n").done();
    as_owner(&["write", store, "s", "mine"]).done();
    as_owner(&["write", store, "s", "root/key"]).done();
    assert_eq!(bench.value("root/key"), "the owner's\n");
    assert_eq!(std::fs::metadata(bench.store().join("s/.agent_state_meta")).unwrap().uid(), NOBODY);
}
