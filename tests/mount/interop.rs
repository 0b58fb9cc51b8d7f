//! The neighbour's scenarios: by plain file I/O, by its own system calls on the mount, and beside it in the store.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{self, Mount, Ran, eventually};

/// The neighbour's program, working on the mount or on the backing directory.
#[derive(Debug)]
struct Neighbour<'a> {
    mount: &'a Mount,
    root: PathBuf,
}

impl Neighbour<'_> {
    fn run(&self, session: &str, writer: &str, policy: &str, words: &[&str]) -> Ran {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/neighbour.py");
        let root = self.root.to_string_lossy();
        let mut command = self.mount.command(&[harness::python(), script, &root, session, writer, policy]);
        command.args(words);
        self.mount.run(command)
    }

    fn keys(&self, session: &str) -> Vec<String> {
        serde_json::from_str(&self.run(session, "reader", "ignore", &["list"]).ok()).expect("JSON")
    }
}

/// The neighbour on the mount, then beside it.
fn both_sides(claim: impl Fn(&Mount, &Neighbour<'_>)) {
    for on_mount in [true, false] {
        let Some(mount) = Mount::new() else { return };
        let root = if on_mount { mount.point() } else { mount.store() };
        claim(&mount, &Neighbour { mount: &mount, root });
    }
}

const LISTED: [&str; 4] = ["__handoff.json", "evidence/a.json", "evidence/b.json", "ledger.md"];

#[test]
fn a_round_trip_by_plain_files() {
    let Some(mount) = Mount::new() else { return };
    let script = "mkdir -p roundtrip-session/evidence && cd roundtrip-session && echo ledger > ledger.md && \
                  echo '{\"n\":2}' > evidence/b.json && echo '{\"n\":1}' > evidence/a.json && echo '{}' > __handoff.json && \
                  find . -type f | cut -c3- | LC_ALL=C sort && rm ledger.md && cat ledger.md";
    let mut command = mount.command(&["bash", "-c", script]);
    command.current_dir(mount.point()).env("BATON_WRITER_ID", "writer-a");
    let ran = mount.run(command);
    assert_eq!(ran.out.lines().collect::<Vec<_>>(), LISTED);
    ran.refused("No such file or directory");
}

#[test]
fn the_neighbours_round_trip_works_unchanged() {
    both_sides(|mount, neighbour| {
        let session = "roundtrip-session";
        let by = |words: &[&str]| neighbour.run(session, "writer-a", "error", words);
        by(&["write", "ledger.md", "ledger"]).ok();
        by(&["write", "evidence/b.json", "{}"]).ok();
        by(&["write", "evidence/a.json", "{}"]).ok();
        by(&["handoff", r#"{"status": "ready"}"#]).ok();
        assert_eq!(neighbour.keys(session), LISTED);
        assert_eq!(by(&["read", "ledger.md"]).ok(), "ledger");
        let seen = fs::read_to_string(mount.point().join(session).join("ledger.md")).expect("through the mount");
        assert_eq!(seen, "ledger");
        by(&["delete", "ledger.md"]).ok();
        by(&["read", "ledger.md"]).refused("No such file");
        by(&["delete", "evidence/a.json"]).ok();
        by(&["delete", "evidence/b.json"]).ok();
        assert!(!mount.point().join(session).join("evidence").exists(), "an empty parent goes with its last key");
        assert_eq!(neighbour.keys(session), ["__handoff.json"]);
    });
}

#[test]
fn the_neighbours_two_writers_see_each_other() {
    both_sides(|mount, neighbour| {
        let session = harness::SESSION;
        neighbour.run(session, "stage-a", "error", &["write", "plan", "from-a"]).ok();
        neighbour.run(session, "stage-b", "ignore", &["write", "plan", "from-b"]).ok();
        let words = "key 'plan' was previously written by 'stage-b' and is now being written by 'stage-c'";
        neighbour.run(session, "stage-c", "error", &["write", "plan", "from-c"]).refused(words);
        assert_eq!(mount.read("plan"), "from-b");
        assert_eq!(mount.writer_of("plan"), "stage-b");
    });
}

#[test]
fn the_neighbours_writer_is_the_one_ours_meets() {
    both_sides(|mount, neighbour| {
        neighbour.run(harness::SESSION, "stage-a", "error", &["write", "plan", "from-a"]).ok();
        assert_eq!(mount.read("plan"), "from-a");
        mount.write(".baton/policy", "error");
        mount.by("stage-b", "echo from-b | cat > plan").refused("Device or resource busy");
        assert!(mount.errors().contains("previously written by 'stage-a'"), "{}", mount.errors());
        mount.by("stage-a", "echo mine | cat > plan").ok();
        assert_eq!(mount.read("plan"), "mine\n");
        assert_eq!(mount.writer_of("plan"), "stage-a");
    });
}

#[test]
fn our_writer_is_the_one_the_neighbour_meets() {
    both_sides(|mount, neighbour| {
        mount.by("stage-a", "echo from-a > plan").ok();
        let refused = neighbour.run(harness::SESSION, "stage-b", "error", &["write", "plan", "from-b"]);
        refused.refused("previously written by 'stage-a'");
        assert_eq!(neighbour.run(harness::SESSION, "stage-b", "error", &["read", "plan"]).ok(), "from-a\n");
    });
}

#[test]
fn another_process_resumes_and_reads_the_value_and_the_handoff() {
    both_sides(|mount, neighbour| {
        let by = |words: &[&str]| neighbour.run("resume-session", "writer-a", "error", words);
        by(&["write", "ledger.md", "resumed"]).ok();
        by(&["handoff", r#"{"status": "ready"}"#]).ok();
        let script = "import json, os\nos.chdir(os.environ['MNT'] + '/resume-session')\n\
                      print(open('ledger.md').read(), json.load(open('__handoff.json'))['summary']['status'])";
        assert_eq!(mount.python(script).ok(), "resumed ready\n");
    });
}

#[test]
fn a_neighbour_aborted_before_its_rename_leaves_the_old_value() {
    both_sides(|mount, neighbour| {
        neighbour.run(harness::SESSION, "a", "error", &["write", "k", "old"]).ok();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/neighbour.py");
        let root = neighbour.root.to_string_lossy();
        let words = [harness::python(), script, &root, harness::SESSION, "a", "error", "write", "k", "new"];
        let mut command = mount.command(&words);
        command.env("ABORT_BEFORE_RENAME", "1");
        assert_eq!(mount.run(command).code, None, "it was to die of a signal");
        assert_eq!(mount.read("k"), "old");
        assert_eq!(mount.names(""), ["k"], "its temporary file is not listed");
        neighbour.run(harness::SESSION, "a", "error", &["write", "k", "new"]).ok();
        assert_eq!(mount.read("k"), "new");
    });
}

// N2
#[test]
fn a_neighbours_write_on_the_mount_is_one_version_with_its_declared_writer() {
    let Some(mount) = Mount::new() else { return };
    let neighbour = Neighbour { mount: &mount, root: mount.point() };
    for value in ["one", "two", "three"] {
        neighbour.run(harness::SESSION, value, "ignore", &["write", "dir/k", value]).ok();
    }
    assert_eq!(mount.versions("dir/k").iter().max(), Some(&3));
    assert_eq!(mount.xattr("dir/k", "user.baton.version").as_deref(), Some("3"));
    assert_eq!(mount.xattr("dir/k", "user.baton.writer_id").as_deref(), Some("three"));
    let mentions = |line: &Value| line.to_string().contains("agent_state");
    assert!(!mount.log().iter().any(mentions), "reserved names are no keys: {:?}", mount.log());
}

// C17
#[test]
fn a_value_put_beside_the_mount_gets_a_version_and_its_sidecars_writer() {
    let Some(mount) = Mount::new() else { return };
    let neighbour = Neighbour { mount: &mount, root: mount.store() };
    mount.by("a", "echo ours > k").ok();
    neighbour.run(harness::SESSION, "stranger", "ignore", &["write", "k", "theirs"]).ok();
    assert_eq!(mount.read("k"), "theirs");
    assert_eq!(mount.xattr("k", "user.baton.version").as_deref(), Some("2"));
    assert_eq!(mount.xattr("k", "user.baton.writer_id").as_deref(), Some("stranger"));
    mount.by("a", "echo again > k").ok();
    assert_eq!(mount.versions("k"), [1, 2, 3], "what a stranger wrote is a version of its own");
}

// N1
#[test]
fn reserved_names_can_be_used_by_name_and_are_never_listed() {
    let Some(mount) = Mount::new() else { return };
    let temporary = mount.path(".k..agent_state_tmp.0190");
    fs::write(&temporary, "x").expect("a reserved name is created");
    assert_eq!(fs::read_to_string(&temporary).expect("and read by name"), "x");
    assert_eq!(mount.names(""), [""; 0]);
    fs::write(&temporary, "longer").and_then(|()| fs::write(&temporary, "anew")).expect("and written anew");
    assert_eq!(fs::read_to_string(&temporary).expect("and read by name"), "anew");
    fs::remove_file(&temporary).expect("and removed");
    assert!(!temporary.exists());
    assert!(mount.log().iter().all(|line| line["key"] == ""), "{:?}", mount.log());
}

// N2
#[test]
fn a_sidecar_cannot_be_forged() {
    let Some(mount) = Mount::new() else { return };
    mount.by("a", "echo x > k").ok();
    let sidecar = Path::new(".agent_state_meta/k.json");
    mount
        .by(
            "b",
            "sed 's/\"a\"/\"b\"/' .agent_state_meta/k.json > \"$TMP/s\"; cat \"$TMP/s\" > .agent_state_meta/k.json",
        )
        .refused("Operation not permitted");
    mount.by("b", "cp \"$TMP/s\" .agent_state_meta/.k.json..agent_state_tmp.1; mv .agent_state_meta/.k.json..agent_state_tmp.1 .agent_state_meta/k.json")
        .refused("Operation not permitted");
    assert_eq!(mount.writer_of("k"), "a");
    assert!(fs::read_to_string(mount.path("").join(sidecar)).expect("readable").contains("\"a\""));
}

#[test]
fn the_commands_see_what_the_mount_wrote() {
    let Some(mount) = Mount::new() else { return };
    mount.by("a", "mkdir evidence; echo 1 > evidence/1.json; echo plan > plan.md").ok();
    let store = mount.store().to_string_lossy().into_owned();
    assert_eq!(mount.batonfs(&["read", &store, harness::SESSION, "plan.md"]).ok(), "plan\n");
    let listed = mount.batonfs(&["list", &store, harness::SESSION]).ok();
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["evidence/1.json", "plan.md"]);
    let handle: Value = serde_json::from_str(&mount.batonfs(&["resume", &store, harness::SESSION]).ok()).expect("JSON");
    assert_eq!(handle["_type"], "state_handle");
    assert_eq!(handle["session_id"], harness::SESSION);
    assert_eq!(mount.batonfs(&["resume", &store, "nowhere"]).code, Some(4), "not found");
    assert_eq!(mount.batonfs(&["read", &store, harness::SESSION, "nothing"]).code, Some(4), "not found");
}

// N1
#[test]
fn a_temporary_name_longer_than_a_keys_can_be_made() {
    let Some(mount) = Mount::new() else { return };
    let key = "k".repeat(198);
    let script = format!(
        "t='.{key}..agent_state_tmp.01900000-0000-7000-8000-000000000000'; echo x > \"$t\" && mv -T \"$t\" {key} && cat {key}"
    );
    assert_eq!(mount.bash(&script).ok(), "x\n");
}

#[test]
fn what_a_dead_neighbour_left_is_gone_some_time_after_the_store_is_mounted() {
    let Some(mut mount) = Mount::new() else { return };
    mount.unmount();
    let left = mount.stored(".k..agent_state_tmp.1");
    let file = std::fs::File::create(&left).expect("create");
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(48 * 3600)).expect("a time");
    drop(file);
    mount.again(&[]);
    eventually("it is gone", || !left.exists());
}
