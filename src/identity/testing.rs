//! Shell children for the tests here: they say something, then wait until they are let go. Always reaped.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A running script. `$w` in it waits until [`Script::let_go`].
pub(super) struct Script {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Script {
    /// Starts `sh -c script` with our variables taken out of its environment and `vars` put in.
    pub(super) fn start(script: &str, vars: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sh");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BATON_")) {
            command.env_remove(name);
        }
        command.arg("-c").arg(script).env("w", "read x").envs(vars.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The shell's own process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line it says, as a number.
    pub(super) fn number(&mut self) -> u32 {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }

    /// Answers one `read` of it.
    pub(super) fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Ends every `$w`, and waits for the shell.
    pub(super) fn let_go(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }

    /// Kills the shell and leaves it unwaited for.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Killed or done: either way it is reaped, and its own children end with the pipe they read.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
