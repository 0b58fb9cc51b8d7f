//! What happens when one writer's key is written by another.

use crate::command::Bench;
use crate::committer::Daemon;

/// K7
#[test]
fn under_error_the_second_writer_is_refused_by_name_and_the_value_stays() {
    let bench = Bench::with_session();
    bench.write("k", "first", "a").done();
    let words = "key 'k' was previously written by 'a' and is now being written by 'b'";
    for served in [false, true] {
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        bench.feed(&["write", "@", "s", "k", "--writer-id", "b", "--policy", "error"], "second").refused(3, &[words]);
        assert_eq!(bench.value("k"), "first");
        bench.feed(&["write", "@", "s", "k", "--writer-id", "a", "--policy", "error"], "first").done();
    }
}

/// K7
#[test]
fn a_handoff_meets_the_same_rule() {
    let bench = Bench::with_session();
    bench.feed(&["handoff", "@", "s", "--writer-id", "a"], "{}").done();
    let refused = bench.feed(&["handoff", "@", "s", "--writer-id", "b", "--policy", "strict"], "{}");
    refused.refused(3, &["'a'", "'b'", "__handoff.json"]);
}

/// K21 K14
#[test]
fn under_warn_the_write_is_accepted_and_the_conflict_said() {
    let bench = Bench::with_session();
    bench.write("k", "first", "a").done();
    let ran = bench.feed(&["write", "@", "s", "k", "--writer-id", "b", "--policy", "WARNING", "--json"], "second");
    let words = "key 'k' was previously written by 'a' and is now being written by 'b'";
    assert_eq!((ran.code, ran.err.as_str()), (0, format!("batonfs: warning: {words}\n").as_str()));
    assert_eq!(ran.json()["warning"], words);
    assert_eq!(bench.value("k"), "second");
}

/// K14
#[test]
fn writers_that_declare_nothing_never_conflict_with_each_other() {
    let bench = Bench::with_session();
    for value in ["1", "2"] {
        bench.feed(&["write", "@", "s", "k", "--policy", "error"], value).done();
    }
    assert_eq!(bench.value("k"), "2");
}

/// K14
#[test]
fn the_strictest_policy_holds() {
    let bench = Bench::with_session();
    bench.write("k", "v", "a").done();
    assert_eq!(bench.run(&["policy", "@", "s", "error"]).done().text(), "error\n");
    bench.feed(&["write", "@", "s", "k", "--writer-id", "b", "--policy", "ignore"], "x").refused(3, &[]);
    assert_eq!(bench.run(&["policy", "@", "s", "ignore"]).done().text(), "ignore\n");
    let mut strict = bench.command(&["write", "@", "s", "k", "--writer-id", "b"]);
    assert_eq!(strict.env("BATON_CONFLICT_POLICY", "error").output().unwrap().status.code(), Some(3));
    // The option stands over the variable: both are the writer's own.
    let mut option = bench.command(&["write", "@", "s", "k", "--writer-id", "b", "--policy", "off"]);
    assert_eq!(option.env("BATON_CONFLICT_POLICY", "error").output().unwrap().status.code(), Some(0));
}

/// K18
#[test]
fn init_makes_a_sessions_policy_stricter_and_never_less_strict() {
    let bench = Bench::new();
    bench.run(&["init", "@", "s", "--conflict-policy", "warn"]).done();
    assert_eq!(bench.run(&["policy", "@", "s"]).done().text(), "warn\n");
    let handle = bench.run(&["init", "@", "s", "--conflict-policy", "ignore"]).done().json();
    assert_eq!(handle["conflict_policy"], "warn");
    assert_eq!(bench.run(&["policy", "@", "s"]).done().text(), "warn\n");
    let handle = bench.run(&["init", "@", "s", "--conflict-policy", "error"]).done().json();
    assert_eq!(handle["conflict_policy"], "error");
    assert_eq!(bench.run(&["resume", "@", "s"]).done().json()["conflict_policy"], "error");
}

/// K18
#[test]
fn a_policy_of_the_environment_is_the_callers_and_not_the_sessions() {
    let bench = Bench::new();
    let mut init = bench.command(&["init", "@", "s"]);
    let made = init.env("BATON_CONFLICT_POLICY", "error").output().unwrap();
    let handle: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(handle["conflict_policy"], "error");
    assert_eq!(bench.run(&["policy", "@", "s"]).done().text(), "ignore\n");
}
