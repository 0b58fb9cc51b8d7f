//! C7, C12: who follows a log sees every line once, and where lines go when a log is rotated while it is written.

use std::fs;
use std::process::Stdio;

use crate::harness::{self, Mount, Running, eventually};

/// Reads on through one handle until a line says `end`.
const READ_ON: &str = "import os, time\nfd = os.open('log', os.O_RDONLY)\nlast = b''\nwhile not last.endswith(b'end\\n'):\n \
                       part = os.read(fd, 1000)\n os.write(1, part)\n last = (last + part)[-10:]\n if not part: time.sleep(0.01)";

fn tail(mount: &Mount, how: &str) -> Running {
    // As at a terminal, where each block is written as it is read.
    mount.spawn(mount.command(&["tail", "-n", "+1", "-s", "0.05", how, "log"]))
}

/// A logger that writes each line it is sent, through one descriptor.
fn logger(mount: &Mount) -> Running {
    let script = "import os, sys\nfd = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n\
                  for line in sys.stdin:\n os.write(fd, line.encode())\n print('written', flush=True)";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(Stdio::piped());
    mount.spawn(command)
}

fn writers(mount: &Mount, script: impl Fn(usize) -> String) -> Vec<Running> {
    (0..8).map(|writer| mount.spawn(mount.command(&["bash", "-c", &script(writer)]))).collect()
}

fn stop(mount: &Mount, running: Vec<Running>) {
    fs::write(mount.scratch().join("stop"), "").expect("a file");
    running.into_iter().for_each(|running| drop(running.wait().ok()));
}

// C12
#[test]
fn followers_of_a_log_with_many_writers_see_each_line_once_and_whole() {
    let Some(mount) = Mount::new() else { return };
    mount.write("log", "begin\n");
    let mut tails = [tail(&mount, "-f"), tail(&mount, "-F")];
    let reader = mount.spawn(mount.command(&[harness::python(), "-c", READ_ON]));
    let lines = if harness::long() { 500 } else { 20 };
    let script = |writer: usize| {
        // Half of them open the log for each line, half hold it.
        let to = if writer.is_multiple_of(2) { "echo \"$line\" >> log" } else { "echo \"$line\" >&3" };
        format!("exec 3>> log; for ((n = 0; n < {lines}; n++)); do printf -v line '%0200d' \"{writer}$n\"; {to}; done")
    };
    writers(&mount, script).into_iter().for_each(|writer| drop(writer.wait().ok()));
    mount.bash("echo end >> log").ok();
    let log = mount.read("log");
    assert_eq!(log.lines().count(), 8 * lines + 2);
    assert_eq!(reader.wait().ok(), log);
    for tail in &mut tails {
        tail.printed(8 * lines + 2);
    }
    for tail in tails {
        assert_eq!(tail.kill().out, log);
    }
}

// C10
#[test]
fn a_logger_whose_log_is_renamed_goes_on_in_the_renamed_one() {
    let Some(mount) = Mount::new() else { return };
    mount.write("log", "");
    let (mut old, mut new) = (logger(&mount), None);
    let say = |logger: &mut Running, line: &str, nth: usize| {
        logger.send(line);
        logger.printed(nth);
    };
    // Each rename comes before the line is committed: it is part of what is renamed, or goes after it.
    say(&mut old, "old 1", 1);
    mount.bash("mv log log.1").ok();
    say(&mut old, "old 2", 2);
    say(new.insert(logger(&mount)), "new 1", 1);
    mount.bash("echo opened >> log; mv log.1 log.2; mv log log.1; echo last >> log").ok();
    say(&mut old, "old 3", 3);
    let mut new = new.expect("a logger");
    say(&mut new, "new 2", 2);
    for logger in [old, new] {
        logger.wait().ok();
    }
    assert_eq!(mount.names(""), ["log", "log.1", "log.2"]);
    assert_eq!(mount.read("log.2"), "old 1\nold 2\nold 3\n");
    let mut lines: Vec<_> = mount.read("log.1").lines().map(str::to_owned).collect();
    assert!(lines.iter().position(|line| line == "new 1") < lines.iter().position(|line| line == "new 2"), "{lines:?}");
    lines.sort();
    assert_eq!(lines, ["new 1", "new 2", "opened"]);
    assert_eq!(mount.read("log"), "last\n");
}

// C7, C10
#[test]
fn no_line_is_lost_while_a_log_is_rotated_under_its_writers() {
    let Some(mount) = Mount::new() else { return };
    let rotations = if harness::long() { 100 } else { 5 };
    // Half of them open the log for each line, half hold it with lines not committed yet, and open it again now and
    // then, as a logger does that is told of the rotation.
    let opening = "n=0; while [ ! -e $TMP/stop ]; do echo \"WRITER $n\" >> log || exit; ((++n)); done; echo $n";
    let holding = "import os, time\nn = 0\nwhile not os.path.exists(os.environ['TMP'] + '/stop'):\n \
                   f = open('log', 'ab', 0)\n for _ in range(50):\n  f.write(b'WRITER %d\\n' % n)\n  n += 1\n  \
                   time.sleep(0.002)\n f.close()\nprint(n)";
    let words = |writer: usize| if writer.is_multiple_of(2) { ["bash", opening] } else { [harness::python(), holding] };
    let start = |writer| {
        let [program, script] = words(writer);
        mount.spawn(mount.command(&[program, "-c", &script.replace("WRITER", &writer.to_string())]))
    };
    let writers: Vec<_> = (0..8).map(start).collect();
    for n in 0..rotations {
        eventually("there is a log again", || mount.path("log").exists());
        mount.bash(&format!("mv log log.{n}; sleep 0.1")).ok();
    }
    fs::write(mount.scratch().join("stop"), "").expect("a file");
    let written: Vec<usize> = writers.into_iter().map(|w| w.wait().ok().trim().parse().expect("a count")).collect();
    let logs = (0..rotations).map(|n| format!("log.{n}")).chain(mount.path("log").exists().then(|| "log".to_owned()));
    let mut lines: Vec<String> = Vec::new();
    for log in logs {
        lines.extend(mount.read(&log).lines().map(str::to_owned));
    }
    let mut expected: Vec<String> =
        written.iter().enumerate().flat_map(|(writer, &n)| (0..n).map(move |n| format!("{writer} {n}"))).collect();
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected, "of {} lines {} are there", expected.len(), lines.len());
    eventually("no handle is open", || mount.status()["open_handles"] == 0);
}

// C12
#[test]
fn tail_by_name_follows_a_log_across_its_rotation() {
    let Some(mount) = Mount::new() else { return };
    mount.write("log", "one\n");
    let mut tail = tail(&mount, "-F");
    tail.printed(1);
    mount.bash("echo two >> log").ok();
    tail.printed(2);
    mount.bash("mv log log.1; echo three >> log").ok();
    tail.printed(3);
    mount.bash("echo four >> log").ok();
    tail.printed(4);
    assert_eq!(tail.kill().out, "one\ntwo\nthree\nfour\n");
}

// C7, C9: copytruncate.
#[test]
fn a_logger_whose_log_is_emptied_goes_on_at_its_start() {
    let Some(mount) = Mount::new() else { return };
    let mut logger = logger(&mount);
    logger.send("one");
    eventually("the line is seen", || fs::read_to_string(mount.path("log")).is_ok_and(|log| log == "one\n"));
    mount.bash("cp log copy; truncate -s 0 log").ok();
    assert_eq!(mount.read("log"), "");
    logger.send("two");
    logger.printed(2);
    // Not committed yet: it goes after what is current then.
    mount.bash(": > log").ok();
    logger.send("three");
    logger.wait().ok();
    assert_eq!(mount.read("copy"), "one\n");
    assert!(["two\nthree\n", "three\n"].contains(&&*mount.read("log")), "{:?}", mount.read("log"));
}

// C7, C9
#[test]
fn emptying_a_log_under_its_writers_tears_no_line_and_loses_none_that_comes_after() {
    let Some(mount) = Mount::new() else { return };
    let script = |writer: usize| {
        let to = if writer.is_multiple_of(2) { ">> log" } else { ">&3" };
        format!(
            "n=0; exec 3>> log; while [ ! -e $TMP/stop ]; do echo \"{writer} $n {writer}\" {to}; ((++n)); done\n\
             for n in 1 2 3; do echo \"{writer} last $n\" {to}; done"
        )
    };
    let writers = writers(&mount, script);
    let mut copies = Vec::new();
    for _ in 0..(if harness::long() { 200 } else { 10 }) {
        copies.push(mount.bash("cat log; truncate -s 0 log").ok());
    }
    stop(&mount, writers);
    copies.push(mount.read("log"));
    for line in copies.iter().flat_map(|copy| copy.lines()) {
        let words: Vec<&str> = line.split(' ').collect();
        let whole = words.len() == 3 && (words[0] == words[2] || words[1] == "last");
        assert!(whole && words[0].parse::<usize>().is_ok_and(|writer| writer < 8), "a torn line: {line:?}");
    }
    let last = copies.last().map(String::as_str).unwrap_or_default();
    assert_eq!(last.lines().filter(|line| line.contains("last")).count(), 24, "{last}");
}
