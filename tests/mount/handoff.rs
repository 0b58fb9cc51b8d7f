//! Passing work on: what may be written to `__handoff.json`, and what readers then see.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{self, Mount, fails};

const KEY: &str = "__handoff.json";

fn envelope(mount: &Mount) -> Value {
    serde_json::from_str(&mount.read(KEY)).expect("JSON")
}

// H1
#[test]
fn an_object_becomes_the_summary_of_an_envelope() {
    let Some(mount) = Mount::new() else { return };
    mount.by("planner", r#"echo '{"status": "ready", "count": 1.50}' > __handoff.json"#).ok();
    let seen = envelope(&mount);
    assert_eq!(seen["_type"], "agent_state_handoff");
    assert_eq!(seen["version"], 1);
    assert_eq!(seen["session_id"], harness::SESSION);
    assert_eq!(seen["root"], *mount.store().canonicalize().expect("a path").to_string_lossy());
    assert_eq!(seen["key"], KEY);
    assert_eq!(seen["summary"]["status"], "ready");
    assert_eq!(seen["writer"]["writer_id"], "planner");
    assert_eq!(seen["writer"]["worker_id"], Value::Null);
    assert!(seen["written_at"].is_u64(), "{seen}");
    assert_eq!(seen["handoff"], Value::Null);
    assert!(mount.read(KEY).contains("1.50"), "numbers stay as they were written");
    assert_eq!(fs::read_to_string(mount.stored(KEY)).expect("the file in the store"), mount.read(KEY));
}

#[test]
fn a_typed_summary_is_also_given_as_a_handoff() {
    let Some(mount) = Mount::new() else { return };
    let summary = json!({"source_persona": " planner ", "task": "t", "reason": "r", "open_questions": ["q", " q ", ""],
        "target_persona_or_human": {"kind": "persona", "label": "implementer"}});
    mount.write(KEY, &summary.to_string());
    let seen = envelope(&mount);
    assert_eq!(seen["handoff"]["_type"], "handoff_artifact");
    assert_eq!(seen["handoff"]["source_persona"], "planner");
    assert_eq!(seen["handoff"]["open_questions"], json!(["q"]));
    assert_eq!(seen["summary"], summary);
}

// H1
#[test]
fn a_whole_envelope_gives_its_summary() {
    let Some(mount) = Mount::new() else { return };
    mount.by("planner", r#"echo '{"n": 1}' > __handoff.json"#).ok();
    mount
        .by(
            "implementer",
            "cp __handoff.json \"$TMP/h\"; sed -i 's/\"n\": 1/\"n\": 2/' \"$TMP/h\"; cp \"$TMP/h\" __handoff.json",
        )
        .ok();
    let seen = envelope(&mount);
    assert_eq!(seen["summary"], json!({"n": 2}));
    assert_eq!(seen["writer"]["writer_id"], "implementer");
}

#[test]
fn a_handoff_that_arrives_by_rename_is_one() {
    let Some(mount) = Mount::new() else { return };
    mount.by("planner", r#"echo '{"n": 1}' > draft.json && mv draft.json __handoff.json"#).ok();
    assert_eq!(envelope(&mount)["summary"], json!({"n": 1}));
    assert_eq!(mount.names(""), [KEY]);
    mount.write("draft.txt", "text");
    fails(fs::rename(mount.path("draft.txt"), mount.path(KEY)), libc::EINVAL);
    assert_eq!(mount.read("draft.txt"), "text");
    assert_eq!(envelope(&mount)["summary"], json!({"n": 1}));
}

// H1
#[test]
fn appending_starts_a_fresh_document() {
    let Some(mount) = Mount::new() else { return };
    mount.bash(r#"echo '{"n": 1}' > __handoff.json; echo '{"n": 2}' >> __handoff.json"#).ok();
    assert_eq!(envelope(&mount)["summary"], json!({"n": 2}));
    mount.python("import os\nf = open('__handoff.json', 'r+')\nf.write('{\"n\": 3}')\nf.close()").ok();
    assert_eq!(envelope(&mount)["summary"], json!({"n": 3}));
}

#[test]
fn a_document_may_come_in_pieces_and_with_white_space() {
    let Some(mount) = Mount::new() else { return };
    mount.bash(r#"{ echo; printf '  {"n"'; sleep 0.05; printf ': [1, {"m": "}"}]}'; echo; } > __handoff.json"#).ok();
    assert_eq!(envelope(&mount)["summary"], json!({"n": [1, {"m": "}"}]}));
    assert_eq!(mount.versions(KEY), [1]);
}

// H2
#[test]
fn whatever_is_no_object_is_refused_and_changes_nothing() {
    let Some(mount) = Mount::new() else { return };
    mount.write(KEY, r#"{"n": 1}"#);
    let before = mount.read(KEY);
    let brackets = vec![b'['; 64 << 20];
    let deep = [b"{\"a\":".as_slice(), &brackets].concat();
    let bad: [(&str, &[u8]); 11] = [
        ("text", b"done, over to you\n"),
        ("an array", b"[{\"n\": 2}]"),
        ("a number", b"42"),
        ("null", b"null"),
        ("nothing", b""),
        ("truncated JSON", b"{\"n\": 2"),
        ("something after the object", b"{\"n\": 2} and more"),
        ("invalid UTF-8", b"{\"n\": \"\xff\"}"),
        ("a half surrogate", b"{\"n\": \"\\ud800\"}"),
        ("open brackets", &brackets),
        ("an object of open brackets", &deep),
    ];
    for (what, bytes) in bad {
        fs::write(mount.scratch().join("bad"), bytes).expect("a file outside");
        mount.bash("cp \"$TMP/bad\" __handoff.json").refused("Invalid argument");
        assert_eq!(mount.read(KEY), before, "after {what}");
    }
    assert_eq!(mount.versions(KEY), [1]);
    assert!(mount.errors().lines().count() >= bad.len(), "{}", mount.errors());
}

// H2
#[test]
fn text_is_refused_by_the_write_itself() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os\nfd = os.open('__handoff.json', os.O_WRONLY | os.O_CREAT)\n\
                  try: os.write(fd, b'over to you')\nexcept OSError as e: print(e.errno)";
    assert_eq!(mount.python(script).ok().trim(), libc::EINVAL.to_string());
    assert_eq!(mount.names(""), [""; 0]);
}

#[test]
fn a_refused_first_handoff_leaves_no_file() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("/bin/echo text > __handoff.json").refused("Invalid argument");
    assert_eq!(mount.names(""), [""; 0]);
    assert!(!mount.stored(KEY).exists());
    mount.bash(r#"/bin/echo '{"n": 1}' > __handoff.json"#).ok();
    assert_eq!(envelope(&mount)["summary"], json!({"n": 1}));
}

#[test]
fn a_handoff_is_an_ordinary_key_to_list_and_delete() {
    let Some(mount) = Mount::new() else { return };
    mount.write(KEY, "{}");
    assert_eq!(mount.names(""), [KEY]);
    fs::remove_file(mount.path(KEY)).expect("rm");
    assert_eq!(mount.names(""), [""; 0]);
}

// H1
#[test]
fn no_directory_takes_the_place_of_the_handoff() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("mkdir __handoff.json").refused("not permitted");
    mount.bash("mkdir d; mv -T d __handoff.json").refused("not permitted");
    mount.bash("mkdir d/__handoff.json; echo '{}' > __handoff.json").ok();
}
