//! Real processes that take one step at a time (`tests/common/agent.py`).

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::world::Answer;

/// Guards against hanging alone: the harness aborts a mount that hangs before.
const HANG: Duration = Duration::from_secs(100);
const AGENT: &str = include_str!("../../common/agent.py");

/// Where agents come from: a process that forks one for each asking.
#[derive(Debug)]
pub(super) struct Agents {
    parent: Child,
    asking: Option<ChildStdin>,
    listener: UnixListener,
}

/// One process.
#[derive(Debug)]
pub(super) struct Agent {
    pidfd: OwnedFd,
    stream: BufReader<UnixStream>,
}

impl Agents {
    /// Starts the parent; `command` makes a command of words, `socket` is where its children find the test.
    pub(super) fn start(command: impl Fn(&[&str]) -> Command, socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket");
        let path = socket.to_str().expect("UTF-8");
        let mut command = command(&[crate::harness::python(), "-S", "-E", "-c", AGENT, path]);
        // Its place is not the mount, or nobody could take that away.
        let mut parent = command.current_dir("/").stdin(Stdio::piped()).spawn().expect("the parent of all agents");
        let asking = parent.stdin.take();
        Self { parent, asking, listener }
    }

    pub(super) fn spawn(&mut self) -> Agent {
        let asking = self.asking.as_mut().expect("a parent");
        asking.write_all(b"\n").and_then(|()| asking.flush()).expect("the parent of all agents lives");
        self.accept()
    }

    /// Takes the connection of the process that was started last.
    fn accept(&self) -> Agent {
        assert!(ready(&self.listener), "no agent came");
        let (stream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(HANG)).expect("a timeout");
        let mut stream = BufReader::new(stream);
        let pid: i32 = read(&mut stream).and_then(|line| line.parse().ok()).expect("a pid");
        let pid = Pid::from_raw(pid).expect("a pid");
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd");
        Agent { pidfd, stream }
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        // Without its input it ends, and an agent without its connection does.
        self.asking = None;
        drop(self.parent.wait());
    }
}

impl Agent {
    /// Lets it make one system call.
    pub(super) fn ask(&mut self, line: &str) -> Answer {
        self.send(line);
        let answer = read(&mut self.stream).unwrap_or_else(|| panic!("an agent ended at: {line}"));
        match answer.split_once(' ').expect("two words") {
            ("ok", result) => Ok(result.trim().to_owned()),
            (_, errno) => Err(errno.trim().parse().expect("an errno")),
        }
    }

    /// Lets it fork.
    pub(super) fn fork(&mut self, agents: &Agents) -> Self {
        self.ask("fork").expect("fork");
        agents.accept()
    }

    /// Lets it end, or kills it; returns when its files are closed.
    pub(super) fn end(mut self, killed: bool) {
        if killed {
            rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL).expect("a signal");
        } else {
            self.send("exit");
        }
        assert!(ready(&self.pidfd), "an agent did not end");
    }

    fn send(&mut self, line: &str) {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{line}\n").as_bytes()).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
}

fn ready(fd: &impl std::os::fd::AsFd) -> bool {
    let limit = Timespec { tv_sec: HANG.as_secs().try_into().expect("seconds"), tv_nsec: 0 };
    let mut ready = [PollFd::new(fd, PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut ready, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.is_ok_and(|ready| ready == 1),
        }
    }
}

fn read(stream: &mut BufReader<UnixStream>) -> Option<String> {
    let mut line = String::new();
    loop {
        match stream.read_line(&mut line) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            read => return read.ok().filter(|&read| read > 0).map(|_| line.trim_end_matches('\n').to_owned()),
        }
    }
}
