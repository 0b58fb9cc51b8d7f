//! A program started by a test: its input, its output so far, its end under a deadline.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdin, Command};
use std::thread;
use std::time::Instant;

use super::{STEP, abort, deadline, kill};

/// A program at work on the mount.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    out: File,
    err: File,
    connection: u32,
    what: String,
}

impl Running {
    /// Starts it; `connection` is aborted when it does not end in time.
    pub(crate) fn start(mut command: Command, connection: u32) -> Self {
        let (out, err) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
        command.stdout(out.try_clone().expect("dup")).stderr(err.try_clone().expect("dup"));
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let stdin = child.stdin.take();
        Self { child, stdin, out, err, connection, what: format!("{command:?}") }
    }

    /// Its process id, and that of its process group.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a line to its standard input, which must be piped.
    pub(crate) fn send(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("a piped standard input");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).unwrap_or_else(|e| panic!("{}: {e}", self.what));
    }

    /// What it has written to its standard error so far.
    pub(crate) fn said(&self) -> String {
        text_of(&self.err)
    }

    /// Is it over by itself?
    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_some()
    }

    /// Waits until it has printed `lines` lines.
    pub(crate) fn printed(&mut self, lines: usize) {
        let until = Instant::now() + deadline();
        while text_of(&self.out).lines().count() < lines {
            if (self.ended() && text_of(&self.out).lines().count() < lines) || Instant::now() > until {
                let (out, err) = (text_of(&self.out), text_of(&self.err));
                panic!("{} did not print {lines} lines:\n{out}\n{err}", self.what);
            }
            thread::sleep(STEP);
        }
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(mut self) -> Ran {
        kill(self.child.id());
        self.stdin = None;
        self.wait()
    }

    /// Kills it and all it has started, at one moment.
    pub(crate) fn kill_all(mut self) -> Ran {
        let group = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        self.stdin = None;
        self.wait()
    }

    /// Closes its input and waits for its end; kills it, and whatever it started, when that takes too long.
    pub(crate) fn wait(mut self) -> Ran {
        self.stdin = None;
        let until = Instant::now() + deadline();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            if Instant::now() > until {
                abort(self.connection);
                let _ = rustix::process::kill_process_group(
                    rustix::process::Pid::from_child(&self.child),
                    rustix::process::Signal::KILL,
                );
                drop(self.child.wait());
                panic!("{} did not end in time:\n{}", self.what, text_of(&self.err));
            }
            thread::sleep(STEP);
        };
        let (out, err) = (text_of(&self.out), text_of(&self.err));
        Ran { code: status.code(), out, err, what: std::mem::take(&mut self.what) }
    }
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// Its standard output.
    pub(crate) out: String,
    /// Its standard error.
    pub(crate) err: String,
    what: String,
}

impl Ran {
    /// It has succeeded; what it printed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}\n{}", self.what, self.out, self.err);
        self.out
    }

    /// It has failed, and said why with these words.
    #[track_caller]
    pub(crate) fn refused(self, words: &str) {
        assert!(self.code.is_some_and(|code| code != 0), "{} was not refused\n{}", self.what, self.out);
        assert!(self.err.contains(words), "{}\nexpected '{words}' in:\n{}", self.what, self.err);
    }
}

/// Looks again until it holds; the harness's deadline ends what never does.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + deadline();
    while !holds() {
        assert!(Instant::now() < until, "it never came true that {what}");
        thread::sleep(STEP);
    }
}

/// All a program has printed so far. Reads by position: the program shares the file's own offset.
fn text_of(file: &File) -> String {
    let mut bytes = vec![0; usize::try_from(file.metadata().expect("stat").len()).expect("a size")];
    let len = file.read_at(&mut bytes, 0).expect("the output of a program");
    bytes.truncate(len);
    String::from_utf8_lossy(&bytes).into_owned()
}
