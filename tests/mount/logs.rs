//! C7: many processes append to one key, in every way programs append. No line is lost, none comes twice, none is
//! torn, and each writer's are in the order in which it wrote them.

use std::collections::HashSet;
use std::fs;
use std::process::Stdio;
use std::time::Instant;

use crate::harness::{self, Mount, Running, eventually};

const WRITERS: usize = 16;

/// How a line `number` of a writer reads: of its own length, so that a part of it is no line.
fn line(writer: usize, number: usize) -> String {
    format!("{writer} {number} {}", "x".repeat((writer * 31 + number * 7) % 200))
}

/// The same in Python, as a function `line` of the number.
fn python_line(writer: usize) -> String {
    format!("line = lambda n: f'{writer} {{n}} ' + 'x' * (({writer} * 31 + n * 7) % 200) + '\\n'\n")
}

/// Asserts that a text is `lines` lines of each writer, whole, once, in order.
#[track_caller]
fn is_whole(text: &str, writers: usize, lines: usize) {
    let mut next = vec![0; writers];
    for found in text.lines() {
        let writer: usize = found.split(' ').next().and_then(|name| name.parse().ok()).unwrap_or(usize::MAX);
        let Some(number) = next.get_mut(writer) else { panic!("a torn line: {found:?}") };
        assert_eq!(found, line(writer, *number), "the next line of writer {writer} is another one");
        *number += 1;
    }
    assert!(text.ends_with('\n'), "the last line is torn");
    assert_eq!(next, vec![lines; writers]);
}

/// Starts as many writers, each a command with its script.
fn start(mount: &Mount, writers: usize, words: &[&str], script: impl Fn(usize) -> String) -> Vec<Running> {
    let command = |writer| {
        let script = script(writer);
        mount.command(&[words, &[script.as_str()]].concat())
    };
    (0..writers).map(|writer| mount.spawn(command(writer))).collect()
}

fn end(writers: Vec<Running>) {
    writers.into_iter().for_each(|writer| drop(writer.wait().ok()));
}

/// Runs 16 writers to their end and looks at what they have left.
fn append(words: &[&str], lines: usize, script: impl Fn(usize) -> String) {
    let Some(mount) = Mount::new() else { return };
    let since = Instant::now();
    end(start(&mount, WRITERS, words, script));
    eprintln!("  {} lines in {:?}", WRITERS * lines, since.elapsed());
    is_whole(&mount.read("log"), WRITERS, lines);
}

/// Lines a writer where each is a commit of its own.
fn committed_lines() -> usize {
    if harness::long() { 500 } else { 20 }
}

// C7
#[test]
fn lines_of_16_shells_that_open_the_log_for_each_are_all_there() {
    let lines = committed_lines();
    append(&["bash", "-c"], lines, |writer| {
        format!(
            "printf -v x %200s; x=${{x// /x}}; for ((n = 0; n < {lines}; n++)); do \
             echo \"{writer} $n ${{x:0:({writer} * 31 + n * 7) % 200}}\" >> log; done"
        )
    });
}

// C7
#[test]
fn lines_of_16_programs_that_open_the_log_for_each_are_all_there() {
    let lines = committed_lines();
    append(&[harness::python(), "-S", "-c"], lines, |writer| {
        python_line(writer) + &format!("for n in range({lines}):\n with open('log', 'a') as f: f.write(line(n))")
    });
}

// C7
#[test]
fn lines_of_16_long_lived_loggers_are_all_there() {
    append(&[harness::python(), "-S", "-c"], 500, |writer| {
        python_line(writer) + "f = open('log', 'ab', 0)\nfor n in range(500): f.write(line(n).encode())"
    });
}

// C5, C7
#[test]
fn lines_of_16_loggers_that_sync_each_are_all_there() {
    let lines = committed_lines();
    append(&[harness::python(), "-S", "-c"], lines, |writer| {
        let each =
            format!("import os\nf = open('log', 'ab', 0)\nfor n in range({lines}):\n f.write(line(n).encode())\n");
        python_line(writer) + &each + " os.fsync(f.fileno())"
    });
}

/// A buffer is written when it is full, wherever the lines in it end: what one write carries stays together, and
/// each program's bytes come in their order.
// C7
#[test]
fn buffers_with_lines_longer_than_a_page_stay_whole() {
    let Some(mount) = Mount::new() else { return };
    // 25 lines of 10,000 bytes in writes of 64 KiB: every block of that size is of one writer.
    let script = |writer: usize| {
        format!(
            "import io\nf = io.BufferedWriter(open('log', 'ab', 0), 65536)\nfor n in range(25):\n \
             for part in range(10): f.write(b'{writer}' * (999 if part == 9 else 1000))\n f.write(b'{writer}')\nf.close()"
        )
    };
    end(start(&mount, 8, &[harness::python(), "-S", "-c"], script));
    let text = mount.read("log");
    assert_eq!(text.len(), 8 * 250_000);
    let mut runs = [const { Vec::new() }; 8];
    for run in text.as_bytes().chunk_by(|a, b| a == b) {
        runs[usize::from(run[0] - b'0')].push(run.len());
    }
    for (writer, runs) in runs.iter().enumerate() {
        let cut = runs.iter().rev().skip(1).find(|len| *len % 65536 != 0);
        assert_eq!(cut, None, "a write of {writer} was split: {runs:?}");
        assert_eq!(runs.iter().sum::<usize>(), 250_000);
    }
}

// C7: the kernel sends such a write in several requests.
#[test]
fn an_append_of_many_mebibytes_is_not_split_by_those_that_come_meanwhile() {
    let Some(mount) = Mount::new() else { return };
    let small = "import os, time\nfd = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n\
                 while not os.path.exists(os.environ['TMP'] + '/stop'): os.write(fd, b'\\n'); os.close(os.dup(fd)); time.sleep(0.002)";
    let meanwhile = start(&mount, 3, &[harness::python(), "-S", "-c"], |_| small.to_owned());
    let rounds = if harness::long() { 40 } else { 3 };
    let script = "import os\nfd = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\nline = b'x' * (16 << 20)\n";
    mount.python(&format!("{script}for n in range({rounds}): assert os.write(fd, line) == len(line)")).ok();
    fs::write(mount.scratch().join("stop"), "").expect("a file");
    end(meanwhile);
    let log = fs::read(mount.path("log")).expect("the log");
    let runs: Vec<usize> = log.split(|byte| *byte == b'\n').map(<[u8]>::len).filter(|len| *len > 0).collect();
    assert_eq!(runs.iter().sum::<usize>(), rounds << 24);
    assert!(runs.iter().all(|len| len % (16 << 20) == 0), "a write was split: {runs:?}");
    let large = |byte: &u8| *byte != b'\n';
    let (first, last) = (log.iter().position(large), log.iter().rposition(large));
    let between =
        log.iter().skip(first.expect("a large one")).take(last.expect("a large one")).filter(|byte| !large(byte));
    assert!(between.count() > 0, "nothing came meanwhile: it was not tried");
}

// C7
#[test]
fn two_processes_with_one_descriptor_lose_no_line() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os\nfd = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\nwriter = 0 if os.fork() else 1\n\
                  line = lambda n: f'{writer} {n} ' + 'x' * ((writer * 31 + n * 7) % 200) + '\\n'\n\
                  for n in range(500):\n os.write(fd, line(n).encode())\n\
                  if n % 100 == 99: os.close(os.dup(fd))\nif writer == 0: os.wait()";
    mount.python(&script.replace("\nif n % 100", "\n if n % 100")).ok();
    is_whole(&mount.read("log"), 2, 500);
}

// C7
#[test]
fn a_line_of_a_logger_that_does_nothing_more_is_seen_within_a_second() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os, sys\nf = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n\
                  for text in sys.stdin: os.write(f, text.encode())";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(Stdio::piped());
    let mut logger = mount.spawn(command);
    let mut expected = String::new();
    for text in ["one", "two", "three"] {
        expected += &format!("{text}\n");
        let since = Instant::now();
        logger.send(text);
        eventually("the line is seen", || fs::read_to_string(mount.path("log")).is_ok_and(|log| log == expected));
        // Told, not asserted: what is measured here is also how busy the machine is.
        eprintln!("  seen after {:?}", since.elapsed());
        assert!(!logger.ended(), "the line was seen because the logger had ended");
    }
    logger.wait().ok();
    assert_eq!(mount.committed_at("age"), 3);
}

// C6, C7: every line it was told had been written is there, whatever killed it.
#[test]
fn what_a_killed_logger_has_written_is_there() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os, sys\nfd = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\nif '{n}' in '246': os.fork()\n\
                  n = 0\nwhile True:\n os.write(fd, f'{n} {os.getpid()} {n}\\n'.encode())\n os.write(1, f'{os.getpid()} {n}\\n'.encode())\n n += 1";
    let rounds = if harness::long() { 100 } else { 6 };
    let mut written = Vec::new();
    for round in 0..rounds {
        let script = script.replace("'{n}'", &format!("'{}'", round % 10));
        let mut logger = mount.spawn(mount.command(&[harness::python(), "-S", "-c", &script]));
        logger.printed(1 + 7 * round % 40);
        written.push(logger.kill_all().out);
    }
    let told = written.iter().flat_map(|out| out.lines()).filter_map(|line| line.split_once(' '));
    let mut missing: HashSet<String> = told.map(|(pid, number)| format!("{number} {pid} {number}")).collect();
    // What was forked dies a moment after the one that is waited for.
    eventually("every line that was written is there", || {
        let log = mount.read("log");
        missing.retain(|line| !log.lines().any(|there| there == line));
        missing.is_empty()
    });
    let log = mount.read("log");
    assert_eq!(log.lines().collect::<HashSet<_>>().len(), log.lines().count(), "a line came twice");
    assert_eq!(mount.status()["drops"], 0);
}

// C7, M2
#[test]
fn no_line_that_was_taken_is_lost_when_the_daemon_is_told_to_end() {
    for _ in 0..2 {
        let Some(mount) = Mount::with(&["--wait", "0"]) else { return };
        let script = "import os\nfd = os.open('log', os.O_CREAT | os.O_WRONLY | os.O_APPEND)\ntaken = 0\n\
                      try:\n while True:\n  os.write(fd, b'line\\n')\n  taken += 1\n  if taken == 200: print('going', flush=True)\n\
                      except OSError: print(taken, flush=True)\nos._exit(0)";
        let mut logger = mount.spawn(mount.command(&[harness::python(), "-c", script]));
        logger.printed(1);
        let daemon = mount.daemons().first().copied().expect("a daemon").to_string();
        mount.run(mount.command(&["kill", "-TERM", &daemon])).ok();
        let out = logger.wait().ok();
        let taken: usize = out.lines().last().and_then(|count| count.parse().ok()).expect("a count");
        eventually("the daemon has ended", || mount.daemons().is_empty());
        assert_eq!(fs::read_to_string(mount.stored("log")).expect("the log"), "line\n".repeat(taken));
    }
}
