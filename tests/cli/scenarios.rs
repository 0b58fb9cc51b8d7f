//! The neighbour's own four scenarios, through the command. They hold whoever commits: the command itself, or a
//! process that holds the store.

use crate::command::Bench;
use crate::committer::Daemon;

/// Runs a scenario on a free store, then on one that is held and served.
fn both_ways(scenario: impl Fn(&Bench)) {
    scenario(&Bench::new());
    let bench = Bench::new();
    let _daemon = Daemon::serve(&bench.store());
    scenario(&bench);
}

const TYPED: &str = r#"{"_type": "handoff_artifact", "source_persona": "planner", "task": "build", "reason": "planned",
    "target_persona_or_human": {"kind": "persona", "id": "builder"}, "status": "ready"}"#;

#[test]
fn a_round_trip_gives_back_what_was_written() {
    both_ways(|bench| {
        let by = ["--writer-id", "writer-a"];
        let session = "roundtrip-session";
        let handle = bench.run(&[&["init", "@", session], &by[..]].concat()).done().json();
        assert_eq!(handle["writer"]["writer_id"], "writer-a");
        for (key, value) in [("ledger.md", "# ledger\n"), ("evidence/b.json", "{\"b\":1}"), ("evidence/a.json", "{}")] {
            bench.feed(&[&["write", "@", session, key], &by[..]].concat(), value).done();
            assert_eq!(bench.run(&["read", "@", session, key]).done().text(), value);
        }
        bench.feed(&[&["handoff", "@", session], &by[..]].concat(), TYPED).done();
        let listed = bench.run(&["list", "@", session, "--json"]).done().json();
        assert_eq!(listed, serde_json::json!(["__handoff.json", "evidence/a.json", "evidence/b.json", "ledger.md"]));
        let envelope = bench.run(&["read", "@", session, "__handoff.json"]).done().json();
        assert_eq!(envelope["summary"]["status"], "ready");
        assert_eq!(envelope["handoff"]["source_persona"], "planner");
        bench.run(&["delete", "@", session, "evidence/a.json"]).done();
        bench.run(&["read", "@", session, "evidence/a.json"]).refused(4, &["evidence/a.json", session]);
    });
}

#[test]
fn the_third_of_three_writers_is_refused_and_the_second_ones_value_stays() {
    both_ways(|bench| {
        bench.run(&["init", "@", "s", "--writer-id", "stage-a"]).done();
        bench.write("plan.md", "from-a", "stage-a").done();
        bench.feed(&["write", "@", "s", "plan.md", "--writer-id", "stage-b", "--policy", "ignore"], "from-b").done();
        let third =
            bench.feed(&["write", "@", "s", "plan.md", "--writer-id", "stage-c", "--policy", "error"], "from-c");
        let words = "key 'plan.md' was previously written by 'stage-b' and is now being written by 'stage-c'";
        third.refused(3, &[words]);
        assert_eq!(bench.value("plan.md"), "from-b");
    });
}

#[test]
fn another_process_resumes_and_reads_value_and_handoff() {
    both_ways(|bench| {
        let session = "resume-session";
        bench.run(&["init", "@", session, "--writer-id", "first"]).done();
        bench.feed(&["write", "@", session, "state.json", "--writer-id", "first"], "{\"step\": 3}").done();
        bench.feed(&["handoff", "@", session, "--writer-id", "first"], r#"{"status": "paused"}"#).done();
        let handle = bench.run(&["resume", "@", session, "--writer-id", "second"]).done().json();
        assert_eq!(handle["writer"]["writer_id"], "second");
        let root = handle["root"].as_str().unwrap();
        let id = handle["session_id"].as_str().unwrap();
        assert_eq!(bench.run(&["read", root, id, "state.json"]).done().text(), "{\"step\": 3}");
        let key = handle["handoff_key"].as_str().unwrap();
        assert_eq!(bench.run(&["read", root, id, key]).done().json()["summary"]["status"], "paused");
    });
}

#[test]
fn a_writer_killed_before_its_end_leaves_the_old_value() {
    both_ways(|bench| {
        bench.run(&["init", "@", "s"]).done();
        bench.write("k", "old", "w").done();
        let mut writing = bench.command(&["write", "@", "s", "k", "--writer-id", "w"]);
        let mut writing = writing.stdin(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(writing.stdin.as_mut().unwrap(), b"half of the new").unwrap();
        writing.kill().unwrap();
        writing.wait().unwrap();
        assert_eq!(bench.value("k"), "old");
        assert_eq!(bench.run(&["list", "@", "s"]).done().text(), "k\n");
    });
}
