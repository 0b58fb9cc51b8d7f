//! Who a command says it is: options, variables, and `run`, which sets them.

use std::os::unix::fs::PermissionsExt;

use batonfs::committer::{Call, Declared, Peer, Request};
use batonfs::words::{Claim, Key, Policy, SessionId};
use serde_json::{Value, json};

use crate::command::{Bench, Ran};
use crate::committer::Daemon;

/// The writer that `resume` shows for these options and variables.
fn writer(bench: &Bench, options: &[&str], variables: &[(&str, &str)]) -> Value {
    let mut command = bench.command(&[&["resume", "@", "s"], options].concat());
    Ran::from(command.envs(variables.iter().copied()).output().unwrap()).done().json()["writer"].take()
}

/// K13
#[test]
fn options_stand_over_variables_and_missing_ids_are_filled_in() {
    let bench = Bench::with_session();
    for served in [false, true] {
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        let none = json!({"writer_id": "s", "stage_id": null, "session_id": "s", "worker_id": null});
        assert_eq!(writer(&bench, &[], &[]), none);
        let variables = [("BATON_WRITER_ID", "w"), ("BATON_STAGE_ID", "build"), ("BATON_SESSION_ID", "p1")];
        let declared = json!({"writer_id": "w", "stage_id": "build", "session_id": "p1", "worker_id": null});
        assert_eq!(writer(&bench, &[], &variables), declared);
        let over = json!({"writer_id": "x", "stage_id": "build", "session_id": "p1", "worker_id": null});
        assert_eq!(writer(&bench, &["--writer-id", "x"], &variables), over);
        let worker = json!({"writer_id": "k", "stage_id": "k", "session_id": "s", "worker_id": "k"});
        assert_eq!(writer(&bench, &[], &[("BATON_WORKER_ID", "k")]), worker);
        assert_eq!(writer(&bench, &["--worker-id", "k", "--stage-id", " "], &[("BATON_WRITER_ID", " ")]), worker);
    }
}

/// K13
#[test]
fn the_declared_writer_is_recorded_beside_the_value() {
    let bench = Bench::with_session();
    let mut write = bench.command(&["write", "@", "s", "k"]);
    Ran::from(write.env("BATON_WRITER_ID", "w9").output().unwrap()).done();
    let sidecar = std::fs::read(bench.store().join("s/.agent_state_meta/k.json")).unwrap();
    let sidecar: Value = serde_json::from_slice(&sidecar).unwrap();
    assert_eq!(sidecar["writer"], json!({"writer_id": "w9", "session_id": "s"}));
}

/// K13 K14
#[test]
fn variables_count_also_where_the_holder_cannot_see_the_process() {
    let bench = Bench::with_session();
    let daemon = Daemon::serve(&bench.store());
    bench.write("k", "v", "a").done();
    // A peer of another pid namespace has the number 0.
    let (session, key) = (SessionId::parse("s").unwrap(), Key::parse("k").unwrap());
    let claim = Claim { writer_id: Some("b".to_owned()), ..Claim::default() };
    let environment = Declared { claim, policy: Some(Policy::Error) };
    let call = Call { environment, ..Call::new(Request::Write { session, key }) };
    let refusal = daemon.execute(Peer { pid: 0, uid: 0, gid: 0 }, &call).unwrap_err();
    assert_eq!(refusal.words, "key 'k' was previously written by 'a' and is now being written by 'b'");
    assert_eq!(bench.value("k"), "v");
}

/// K6
#[test]
fn a_variable_that_cannot_be_used_makes_no_store() {
    let bench = Bench::new();
    let missing = bench.beside("missing");
    let mut init = bench.command(&["init", missing.to_str().unwrap(), "s"]);
    Ran::from(init.env("BATON_CONFLICT_POLICY", "harsh").output().unwrap()).refused(2, &["BATON_CONFLICT_POLICY"]);
    assert!(!missing.exists());
}

/// K6
#[test]
fn a_variable_that_cannot_be_used_is_a_usage_error() {
    let bench = Bench::with_session();
    for served in [false, true] {
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        let long = "i".repeat(257);
        for (name, value) in [("BATON_CONFLICT_POLICY", "harsh"), ("BATON_WRITER_ID", long.as_str())] {
            let mut write = bench.command(&["write", "@", "s", "k"]);
            Ran::from(write.env(name, value).output().unwrap()).refused(2, &[name]);
        }
    }
    assert_eq!(bench.run(&["list", "@", "s"]).done().text(), "");
}

/// K15
#[test]
fn run_sets_what_it_was_given_and_leaves_the_rest() {
    let bench = Bench::new();
    let show = r#"printf '%s|' "$BATON_WRITER_ID" "$BATON_STAGE_ID" "$BATON_WORKER_ID" "$BATON_CONFLICT_POLICY" "$@""#;
    let options = ["run", "--writer-id", "w", "--stage-id", "st", "--policy", "Strict"];
    let mut run = bench.command(&[&options[..], &["--", "sh", "-c", show, "sh", "--json", "a b"]].concat());
    let ran = Ran::from(run.env("BATON_WORKER_ID", "kept").output().unwrap()).done();
    assert_eq!(ran.text(), "w|st|kept|error|--json|a b|");
    bench.run(&["run", "--", "true"]).refused(2, &["--writer-id"]);
    bench.run(&["run", "--writer-id", " ", "--", "true"]).refused(2, &["--writer-id"]);
    bench.run(&["run", "--writer-id", "w"]).refused(2, &[]);
}

/// K15
#[test]
fn what_run_starts_writes_as_that_writer() {
    let bench = Bench::with_session();
    let (store, program) = (bench.store(), env!("CARGO_BIN_EXE_batonfs"));
    let script = format!("echo v | '{program}' write '{}' s k", store.display());
    bench.run(&["run", "--writer-id", "w5", "--", "sh", "-c", &script]).done();
    bench.feed(&["write", "@", "s", "k", "--writer-id", "x", "--policy", "error"], "").refused(3, &["'w5'"]);
}

/// K12
#[test]
fn run_ends_as_its_command_does_or_as_a_shell_would() {
    let bench = Bench::new();
    let run = |program: &str| bench.run(&["run", "--writer-id", "w", "--", program]);
    assert_eq!(bench.run(&["run", "--writer-id", "w", "--", "sh", "-c", "exit 42"]).code, 42);
    run("there-is-no-such-command").refused(127, &["there-is-no-such-command"]);
    let file = bench.beside("script");
    std::fs::write(&file, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    run(file.to_str().unwrap()).refused(126, &["script"]);
}
