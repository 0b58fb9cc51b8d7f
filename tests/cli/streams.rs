//! Data, talk, and pipes that are slow, large or closed.

use std::io::Write;
use std::process::Stdio;

use crate::command::{Bench, Ran, feed};
use crate::committer::Daemon;

/// More than a pipe holds, and more than is kept in memory.
fn large() -> Vec<u8> {
    (0..3_000_000_u32).flat_map(u32::to_le_bytes).take(3_000_001).collect()
}

/// K4 K20
#[test]
fn a_value_larger_than_pipe_and_memory_goes_in_and_out_whole() {
    for served in [false, true] {
        let bench = Bench::with_session();
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        bench.feed(&["write", "@", "s", "large"], large()).done();
        assert!(bench.run(&["read", "@", "s", "large"]).done().out == large());
        bench.feed(&["write", "@", "s", "large"], "small").done();
        assert_eq!(bench.value("large"), "small");
    }
}

/// K4
#[test]
fn a_slow_producer_keeps_nobody_waiting() {
    let bench = Bench::with_session();
    let mut slow = bench.command(&["write", "@", "s", "slow"]).stdin(Stdio::piped()).spawn().unwrap();
    slow.stdin.as_mut().unwrap().write_all(b"begun, ").unwrap();
    bench.write("quick", "v", "w").done();
    assert_eq!(bench.run(&["list", "@", "s"]).done().text(), "quick\n");
    feed(slow, b"ended").done();
    assert_eq!(bench.value("slow"), "begun, ended");
}

/// K3
#[test]
fn a_reader_that_closes_early_is_no_error() {
    let bench = Bench::with_session();
    bench.feed(&["write", "@", "s", "large"], large()).done();
    for args in [&["read", "@", "s", "large"][..], &["list", "@", "s"], &["--help"], &["init", "@", "s"]] {
        let mut child = bench.command(args).spawn().unwrap();
        drop(child.stdout.take());
        Ran::from(child.wait_with_output().unwrap()).done();
    }
}

/// K3
#[test]
fn a_stdout_that_takes_nothing_is_an_error() {
    let bench = Bench::with_session();
    bench.write("k", "v", "w").done();
    for args in [&["read", "@", "s", "k"][..], &["list", "@", "s"], &["--version"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = bench.command(args).stdout(full).output().unwrap();
        Ran::from(output).refused(1, &["stdout"]);
    }
}

/// K1 K2
#[test]
fn help_that_was_asked_for_is_data_and_a_wrong_argument_is_talk() {
    let bench = Bench::new();
    for args in [&["--help"][..], &["mount", "--help"], &["--version"]] {
        assert!(!bench.run(args).done().out.is_empty());
    }
    bench.run(&["list", "--nonsense"]).refused(2, &["--nonsense"]);
    let ran = bench.run(&["nonsense"]).refused(2, &["nonsense"]);
    assert!(!ran.err.contains("error:"), "{}", ran.err);
}

/// K50 K7
#[test]
fn names_that_others_chose_reach_a_terminal_as_escapes() {
    let bench = Bench::with_session();
    let key = "k\u{1b}[2J\u{202e}";
    bench.write(key, "v", "a\nbatonfs: done\u{1b}[1A").done();
    let write = |policy| bench.feed(&["write", "@", "s", key, "--writer-id", "b", "--policy", policy], "v");
    let words = r"key 'k\u{1b}[2J\u{202e}' was previously written by 'a\nbatonfs: done\u{1b}[1A' and is now being written by 'b'";
    let refused = write("error").refused(3, &[]);
    let kept = format!("batonfs: {words}; what was written is kept in .baton/history/");
    assert!(refused.err.starts_with(&kept), "{}", refused.err);
    assert!(!refused.err.contains(['\u{1b}', '\u{202e}']), "{}", refused.err);
    let warned = write("warn");
    assert_eq!((warned.code, warned.err), (0, format!("batonfs: warning: {words}\n")));
    for (command, lines) in [("log", 4), ("history", 3)] {
        let ran = bench.run(&[command, "@", "s", key]).done();
        assert!(!ran.text().contains(['\u{1b}', '\u{202e}']), "{}", ran.text());
        assert_eq!(ran.text().lines().count(), lines, "a head and a line each: {}", ran.text());
    }
}
