//! C7: appends from many processes are never lost and never split.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::Stdio;

use crate::harness::{self, Mount, eventually};

// C7
#[test]
fn appends_from_many_processes_lose_no_line_and_split_none() {
    let Some(mount) = Mount::new() else { return };
    mount.write("log", "first\n");
    let script = |n: usize| {
        format!(
            "import sys\nfor i in range(50):\n with open('log', 'a') as f: f.write(f'{n}-{{i}} ' + 'x' * 200 + '\\n')"
        )
    };
    let writers: Vec<_> = (0..6).map(|n| mount.spawn(mount.command(&[harness::python(), "-c", &script(n)]))).collect();
    writers.into_iter().for_each(|writer| drop(writer.wait().ok()));
    let text = mount.read("log");
    let lines: HashSet<&str> = text.lines().skip(1).collect();
    assert!(text.starts_with("first\n"));
    assert_eq!(text.lines().count(), 301);
    assert_eq!(lines.len(), 300, "a line was written twice");
    assert!(lines.iter().all(|line| line.ends_with(&"x".repeat(200)) && line.len() < 210), "a line was split");
}

#[test]
fn shell_appends_keep_what_was_there() {
    let Some(mount) = Mount::new() else { return };
    mount
        .bash("for i in 1 2 3; do echo $i >> k; done; /bin/echo 4 >> k; { echo 5; echo 6; } >> k; echo 7 | tee -a k")
        .ok();
    assert_eq!(mount.read("k"), "1\n2\n3\n4\n5\n6\n7\n");
}

#[test]
fn an_append_to_a_missing_key_makes_it() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("echo x >> k").ok();
    assert_eq!(mount.read("k"), "x\n");
    assert_eq!(mount.versions("k"), [1]);
}

// C7
#[test]
fn a_long_lived_logger_is_heard_while_it_holds_the_file() {
    let Some(mount) = Mount::new() else { return };
    let script =
        "import sys\nf = open('log', 'ab', 0)\nf.write(b'one\\n')\nprint('written', flush=True)\nsys.stdin.readline()";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(Stdio::piped());
    let mut logger = mount.spawn(command);
    logger.printed(1);
    eventually("the line is seen", || fs::read_to_string(mount.path("log")).unwrap_or_default() == "one\n");
    logger.send("end");
    logger.wait().ok();
    assert_eq!(mount.read("log"), "one\n");
}

// C4, C6, C7: however a log came to be empty.
#[test]
fn what_is_appended_to_what_was_emptied_is_heard_and_kept() {
    let Some(mount) = Mount::new() else { return };
    let keys = ["truncated", "cut", "set", "empty"];
    mount.bash("echo old > truncated; echo old > cut; : > empty").ok();
    let script = "import fcntl, os, signal\nW, A, T = os.O_WRONLY | os.O_CREAT, os.O_APPEND, os.O_TRUNC\n\
                  fds = [os.open('truncated', W | A | T), os.open('cut', W | A), os.open('set', W | T), os.open('empty', W | A | T)]\n\
                  os.ftruncate(fds[1], 0)\nfcntl.fcntl(fds[2], fcntl.F_SETFL, A)\nfor fd in fds: os.write(fd, b'one\\n')\n\
                  print('written', flush=True)\ninput()\nfor fd in fds: os.write(fd, b'three\\n')\nos.kill(os.getpid(), 9)";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(Stdio::piped());
    let mut logger = mount.spawn(command);
    logger.printed(1);
    for key in keys {
        eventually("the line is seen", || fs::read_to_string(mount.stored(key)).is_ok_and(|log| log == "one\n"));
        mount.bash(&format!("echo two >> {key}")).ok();
    }
    logger.send("go on");
    logger.wait();
    for key in keys {
        assert_eq!(mount.read(key), "one\ntwo\nthree\n", "{key}");
    }
}

// C7
#[test]
fn a_logger_that_never_pauses_is_heard_while_it_goes_on() {
    let Some(mount) = Mount::new() else { return };
    // A line every 50 ms, for 20 s at most: the file is open, and never still for as long as an append may wait.
    let script = "import os, time\nf = open('log', 'ab', 0)\nfor n in range(400):\n f.write(b'%d\\n' % n)\n \
                  if os.path.exists(os.environ['TMP'] + '/stop'): break\n time.sleep(0.05)";
    let mut logger = mount.spawn(mount.command(&[harness::python(), "-c", script]));
    eventually("a line is seen, or the logger has ended", || {
        fs::read_to_string(mount.path("log")).is_ok_and(|log| log.starts_with("0\n")) || logger.ended()
    });
    assert!(!logger.ended(), "nothing was seen of a busy log until its logger ended");
    fs::write(mount.scratch().join("stop"), "").expect("a file");
    logger.wait().ok();
}

#[test]
fn an_append_follows_a_rewrite_that_came_between() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old\n");
    let mut appender = OpenOptions::new().append(true).open(mount.path("k")).expect("open");
    mount.bash("echo new > k").ok();
    appender.write_all(b"appended\n").expect("append");
    drop(appender);
    assert_eq!(mount.read("k"), "new\nappended\n");
}

#[test]
fn two_open_appenders_do_not_overwrite_each_other() {
    let Some(mount) = Mount::new() else { return };
    let open = || OpenOptions::new().append(true).create(true).open(mount.path("k")).expect("open");
    let (mut one, mut two) = (open(), open());
    for n in 0..20 {
        // One write a line: a formatted line is several, and a commit may come between them.
        one.write_all(format!("one {n}\n").as_bytes()).expect("append");
        // Whoever asks for the size resets the kernel's idea of the offset.
        drop(fs::metadata(mount.path("k")));
        two.write_all(format!("two {n}\n").as_bytes()).expect("append");
    }
    drop((one, two));
    let text = mount.read("k");
    assert_eq!(text.lines().count(), 40, "{text}");
    let of = |who: &str| text.lines().filter(|line| line.starts_with(who)).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(of("one"), (0..20).map(|n| format!("one {n}")).collect::<Vec<_>>());
    assert_eq!(of("two"), (0..20).map(|n| format!("two {n}")).collect::<Vec<_>>());
}

// C7
#[test]
fn an_append_by_another_writer_meets_the_conflict_rule() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    mount.by("a", "echo 1 >> k; echo 2 >> k").ok();
    mount.by("b", "/bin/echo 3 >> k").refused("Device or resource busy");
    assert_eq!(mount.read("k"), "1\n2\n");
}

#[test]
fn appends_of_a_killed_process_are_kept() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "before\n");
    let script =
        "import sys\nf = open('k', 'ab', 0)\nf.write(b'kept\\n')\nprint('written', flush=True)\nsys.stdin.readline()";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(Stdio::piped());
    let mut logger = mount.spawn(command);
    logger.printed(1);
    logger.kill();
    assert_eq!(mount.read("k"), "before\nkept\n");
}

// C12
#[test]
fn tail_follows_a_growing_key() {
    let Some(mount) = Mount::new() else { return };
    mount.write("log", "one\n");
    let mut tail = mount.spawn(mount.command(&["tail", "-n", "+1", "-s", "0.05", "-f", "log"]));
    tail.printed(1);
    mount.bash("echo two >> log; echo three >> log").ok();
    tail.printed(3);
    assert_eq!(tail.kill().out, "one\ntwo\nthree\n");
}

// C7
#[test]
fn a_log_that_many_processes_have_held_costs_the_daemon_no_descriptors() {
    let Some(mount) = Mount::new() else { return };
    let daemon = mount.daemons()[0];
    let open = || fs::read_dir(format!("/proc/{daemon}/fd")).expect("descriptors").count();
    let before = open();
    let script =
        "exec 3>> log; for i in $(seq 60); do sleep 0.1 & /bin/echo $i >&3; done; wait; echo last >&3; read line";
    let mut command = mount.command(&["bash", "-c", script]);
    command.stdin(Stdio::piped());
    let mut logger = mount.spawn(command);
    eventually("the last line is there", || {
        fs::read_to_string(mount.path("log")).is_ok_and(|log| log.ends_with("last\n"))
    });
    // Who was seen lately is remembered for a moment, by descriptors.
    eventually("there are few descriptors again", || open() < before + 20);
    logger.send("go on");
    logger.wait().ok();
    assert_eq!(mount.read("log").lines().count(), 61);
}

// C7, C13
#[test]
fn the_end_of_an_append_not_yet_committed_is_behind_what_was_there() {
    let Some(mount) = Mount::new() else { return };
    mount.write("log", "0123456789");
    let script = "import os\nfd = os.open('log', os.O_RDWR | os.O_APPEND)\nos.write(fd, b'abc')\n\
                  print(os.lseek(fd, 0, os.SEEK_END))\nos.posix_fallocate(fd, 0, 12)";
    assert_eq!(mount.python(script).ok(), "13\n");
    assert_eq!(mount.read("log"), "0123456789abc");
}

// C7. How late the last one is, is printed and not judged: the machine decides that.
#[test]
fn hundreds_of_logs_that_are_held_open_are_heard() {
    let Some(mount) = Mount::new() else { return };
    let open = |n: usize| {
        let mut options = std::fs::OpenOptions::new();
        options.append(true).create(true).open(mount.path(&format!("log{n}"))).expect("open")
    };
    let mut logs: Vec<_> = (0..300).map(open).collect();
    for log in &mut logs {
        std::io::Write::write_all(log, b"line\n").expect("write");
    }
    // In the store: through the mount its creator sees what is not committed yet.
    let size = |n: usize| std::fs::metadata(mount.stored(&format!("log{n}"))).map_or(0, |there| there.len());
    let written = std::time::Instant::now();
    eventually("every line is there", || (0..logs.len()).all(|n| size(n) == 5));
    println!("the last of {} lines was seen {:?} after it was written", logs.len(), written.elapsed());
    assert_eq!(mount.committed_at("age"), 300);
}
