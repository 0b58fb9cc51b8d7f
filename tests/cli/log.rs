//! What happened in a session, told afterwards and as it happens.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use batonfs::committer::{client, open_store};
use batonfs::engine::local::Opening;
use batonfs::store::Caller;
use batonfs::words::{Author, Dir, Policy, SessionId};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::command::{Bench, Ran};
use crate::committer::Daemon;
use crate::mounted;
use crate::past::objects;

/// Long enough for a machine with better things to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// A command that goes on, and the lines that it prints; it is ended with this.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(bench: &Bench, args: &[&str]) -> Self {
        let mut child = bench.command(args).spawn().unwrap();
        let lines = lines(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line it prints, as JSON.
    #[track_caller]
    fn next(&self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(PATIENCE).expect("a line")).unwrap()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (tell, lines) = channel();
    std::thread::spawn(move || {
        BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
    });
    lines
}

/// Waits for the end of a command that nothing may keep; one that is kept is killed.
#[track_caller]
pub(crate) fn ended(child: Child) -> Ran {
    let (tell, told) = channel();
    let pid = Pid::from_child(&child);
    std::thread::spawn(move || tell.send(Ran::from(child.wait_with_output().unwrap())));
    told.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ = kill_process(pid, Signal::KILL);
        panic!("it does not end: {:?}", told.recv());
    })
}

/// How often a process has given up the processor of its own will.
pub(crate) fn sleeps(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// Does a process sleep? One that only waits for its turn does not.
fn is_asleep(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('S'))
}

/// Waits until a process sleeps and has nothing to do.
pub(crate) fn wait_until_idle(pid: u32) {
    let until = Instant::now() + PATIENCE;
    let mut before = (sleeps(pid), Instant::now());
    while before.1.elapsed() < Duration::from_millis(300) {
        assert!(Instant::now() < until, "it is never idle");
        std::thread::sleep(Duration::from_millis(10));
        if sleeps(pid) != before.0 || !is_asleep(pid) {
            before = (sleeps(pid), Instant::now());
        }
    }
}

/// K50
#[test]
fn the_log_is_told_oldest_first_with_the_members_that_the_store_keeps() {
    for served in [false, true] {
        let bench = Bench::with_session();
        bench.write("d/k", "one", "a").done();
        bench.write("k", "two", "b").done();
        assert_eq!(bench.feed(&["write", "@", "s", "k", "--writer-id", "a", "--policy", "warn"], "three").code, 0);
        bench.run(&["delete", "@", "s", "d/k"]).done();
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        let kept = std::fs::read_to_string(bench.store().join(".baton/sessions/s/log")).unwrap();
        let kept: Vec<Value> = kept
            .lines()
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).unwrap();
                line.as_object_mut().unwrap().remove("crc");
                line
            })
            .collect();
        assert!(kept.len() >= 5, "{kept:?}");
        assert_eq!(objects(&bench.run(&["log", "@", "s", "--json"]).done()), kept);
        let table = bench.run(&["log", "@", "s"]).done();
        let lines: Vec<&str> = table.text().lines().collect();
        assert_eq!(lines.len(), kept.len() + 1, "a head and a line each");
        for (line, kept) in lines[1..].iter().zip(&kept) {
            for member in ["seq", "version", "size_bytes"] {
                let shown = kept.get(member).map_or("-".to_owned(), Value::to_string);
                assert!(line.split_whitespace().any(|word| word == shown), "{member} {shown} is not in: {line}");
            }
            assert!(line.contains(kept["op"].as_str().unwrap()), "{line}");
        }
        assert!(lines[4].ends_with("k  (key 'k' was previously written by 'b' and is now being written by 'a')"));
        assert!(!table.text().contains('\x1b'), "colours where there is no terminal");
        bench.run(&["log", "@", "t"]).refused(4, &["session 't' not found"]);
    }
}

/// K50
#[test]
fn the_log_of_a_key_or_of_a_writer_has_no_other_lines() {
    let bench = Bench::with_session();
    for (key, writer) in [("k", "a"), ("d/k", "a"), ("k", "b"), ("kk", "b")] {
        bench.write(key, "v", writer).done();
    }
    let seqs = |args: &[&str]| -> Vec<u64> {
        let ran = bench.run(&[&["log", "@", "s", "--json"], args].concat()).done();
        objects(&ran).iter().map(|line| line["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(seqs(&["k"]), [2, 4]);
    assert_eq!(seqs(&["./k/", "--writer", "b"]), [4]);
    assert_eq!(seqs(&["--writer", "b"]), [4, 5]);
    assert_eq!(seqs(&["--writer", "nobody"]), [0; 0]);
    bench.run(&["log", "@", "s", "../k"]).refused(2, &["must not escape"]);
}

/// K51
#[test]
fn since_takes_a_number_a_time_or_a_duration_and_refuses_what_is_none() {
    let bench = Bench::with_session();
    bench.write("k", "1", "w").done();
    bench.write("k", "2", "w").done();
    let all = objects(&bench.run(&["log", "@", "s", "--json"]).done());
    let since = |since: &str| objects(&bench.run(&["log", "@", "s", "--json", "--since", since]).done());
    assert_eq!(since("0"), all);
    assert_eq!(since("2"), all[2..]);
    assert_eq!(since("99"), [json!(null); 0]);
    assert_eq!(since("2020-01-01T00:00:00Z"), all);
    assert_eq!(since("2999-01-01T00:00:00+01:00"), [json!(null); 0]);
    assert_eq!(since("3650d"), all);
    // The table's own times can be given back.
    let table = bench.run(&["log", "@", "s"]).done();
    let time = table.text().lines().nth(3).unwrap().split_whitespace().nth(1).unwrap();
    assert!(since(time).contains(&all[2]));
    for bad in ["yesterday", "10 parsecs", "2026-11-22", "-1", "-10m"] {
        bench.run(&["log", "@", "s", &format!("--since={bad}")]).refused(2, &["--since", bad, "a sequence number"]);
    }
}

/// A log of so many lines; the last one is of the key `rare`.
fn long_log(bench: &Bench, lines: u64) {
    let log = std::fs::File::options().append(true).open(bench.store().join(".baton/sessions/s/log")).unwrap();
    let mut log = std::io::BufWriter::new(log);
    for seq in 2..=lines {
        let key = if seq == lines { "rare".to_owned() } else { format!("k{}", seq % 7) };
        let line = format!(
            r#"{{"seq":{seq},"time_ms":{seq},"op":"put","key":"{key}","version":{seq},"size_bytes":1,"writer":{{}},"operation":"{seq}""#
        );
        writeln!(log, r#"{line},"crc":"{:08x}"}}"#, crc32c::crc32c(line.as_bytes())).unwrap();
    }
    log.flush().unwrap();
}

/// K50
#[test]
fn a_log_of_many_answers_is_told_without_a_gap() {
    const LINES: u64 = 40_000;
    let bench = Bench::with_session();
    long_log(&bench, LINES);
    for served in [false, true] {
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        let ran = bench.run(&["log", "@", "s", "--json"]).done();
        assert_eq!(ran.text().lines().count() as u64, LINES);
        for (before, line) in ran.text().lines().enumerate() {
            assert!(line.starts_with(&format!("{{\"seq\":{},", before + 1)), "line {before}: {line}");
        }
        // All lines before it are looked at in more than one part, none of which has a line that is wanted.
        let rare = objects(&bench.run(&["log", "@", "s", "rare", "--json"]).done());
        assert_eq!(rare.len(), 1);
        assert_eq!(rare[0]["seq"], LINES);
    }
}

/// K3 K50
#[test]
fn a_reader_that_has_enough_of_a_long_log_ends_it() {
    let bench = Bench::with_session();
    long_log(&bench, 20_000);
    let mut child = bench.command(&["log", "@", "s", "--json"]).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("{\"seq\":1,"), "{first}");
    ended(child).done();
}

/// K52
#[test]
fn a_follower_is_told_of_each_change_as_it_is_made() {
    for served in [false, true] {
        let bench = Bench::with_session();
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        let following = Following::start(&bench, &["log", "@", "s", "--follow", "--json"]);
        assert_eq!(following.next()["op"], "mkdir");
        for n in 1..=5u64 {
            bench.write("k", "v", "w").done();
            let line = following.next();
            assert_eq!((&line["seq"], &line["version"]), (&json!(n + 1), &json!(n)), "served: {served}");
        }
    }
}

/// K52
#[test]
fn a_follower_of_one_key_and_writer_is_told_of_nothing_else() {
    let bench = Bench::with_session();
    let args = ["log", "@", "s", "k", "--follow", "--json", "--writer", "b", "--since", "0"];
    let following = Following::start(&bench, &args);
    for (key, writer) in [("k", "a"), ("x", "b"), ("k", "b"), ("x", "b"), ("k", "b")] {
        bench.write(key, "v", writer).done();
    }
    assert_eq!(following.next()["seq"], 4);
    assert_eq!(following.next()["seq"], 6);
}

/// K52
#[test]
fn a_follower_sleeps_until_something_happens_and_holds_nothing() {
    let bench = Bench::with_session();
    let following = Following::start(&bench, &["log", "@", "s", "--follow", "--json"]);
    assert_eq!(following.next()["seq"], 1);
    wait_until_idle(following.child.id());
    assert_eq!(client::holder(&bench.store()), None);
    let before = sleeps(following.child.id());
    // What looks from time to time would have looked meanwhile.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(sleeps(following.child.id()), before);
    bench.write("k", "v", "w").done();
    assert_eq!(following.next()["seq"], 2);
}

/// K52 K3
#[test]
fn a_follower_ends_when_nobody_reads_it_any_more() {
    let bench = Bench::with_session();
    let mut child = bench.command(&["log", "@", "s", "--follow", "--json"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    drop(out);
    ended(child).done();
}

/// K52
#[test]
fn a_follower_of_a_session_that_is_removed_ends_with_4() {
    let Some(mount) = mounted::bench() else { return };
    mount.mount(&[]).done();
    let mut child = mount.bench.command(&["log", "@", "s", "--follow", "--json"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    std::fs::remove_dir(mount.at.join("s")).unwrap();
    ended(child).refused(4, &["session 's' not found"]);
}

/// K52
#[test]
fn a_follower_that_is_late_is_told_all_that_happened_before_the_removal() {
    for served in [false, true] {
        let bench = Bench::with_session();
        let mut following = Following::start(&bench, &["log", "@", "s", "--follow", "--json"]);
        assert_eq!(following.next()["op"], "mkdir");
        let pid = following.child.id();
        wait_until_idle(pid);
        let stopped = Pid::from_child(&following.child);
        kill_process(stopped, Signal::STOP).unwrap();
        bench.write("k", "v", "w").done();
        bench.run(&["delete", "@", "s", "k"]).done();
        let store = open_store(&bench.store(), Policy::Ignore, Opening::USUAL).unwrap();
        let by = Caller::new(Author::default(), None);
        store.remove_dir(&SessionId::parse("s").unwrap(), &Dir::root(), &by).unwrap();
        store.engine().close().unwrap();
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        kill_process(stopped, Signal::CONT).unwrap();
        let ops: Vec<_> = (0..3).map(|_| following.next()["op"].clone()).collect();
        assert_eq!(ops, ["put", "delete", "rmdir"], "served: {served}");
        assert_eq!(following.lines.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected), "nothing more");
        assert_eq!(following.child.wait().unwrap().code(), Some(4));
        bench.run(&["log", "@", "s"]).refused(4, &["session 's' not found"]);
    }
}

/// K50
#[test]
fn a_terminal_is_shown_colours_unless_it_wants_none() {
    let bench = Bench::with_session();
    let shown = |before: &str| {
        let line = format!("{before} '{}' log '{}' s", env!("CARGO_BIN_EXE_batonfs"), bench.store().display());
        let mut command = std::process::Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env_remove("NO_COLOR").stdin(std::process::Stdio::null());
        command.output().map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let Ok(coloured) = shown("env") else { return eprintln!("SKIPPED: no 'script' here, which makes a terminal") };
    assert!(coloured.contains("mkdir") && coloured.contains("\x1b[36m"), "{coloured:?}");
    let plain = shown("env NO_COLOR=1").unwrap();
    assert!(plain.contains("mkdir") && !plain.contains('\x1b'), "{plain:?}");
}

/// K52
#[test]
fn a_follower_goes_on_through_a_mount_from_its_start_to_its_end() {
    let Some(mount) = mounted::bench() else { return };
    let following = Following::start(&mount.bench, &["log", "@", "s", "--follow", "--json"]);
    assert_eq!(following.next()["seq"], 1);
    mount.bench.write("k", "free", "w").done();
    assert_eq!(following.next()["seq"], 2);
    mount.mount(&[]).done();
    std::fs::write(mount.at.join("s/k"), "mounted").unwrap();
    assert_eq!(following.next()["seq"], 3);
    std::fs::File::options().append(true).open(mount.at.join("s/k")).unwrap().write_all(b" more").unwrap();
    let appended = following.next();
    assert_eq!((&appended["op"], &appended["seq"]), (&json!("append"), &json!(4)));
    mount.bench.run(&["umount", mount.place()]).done();
    mount.bench.write("k", "free again", "w").done();
    assert_eq!(following.next()["seq"], 5);
}
