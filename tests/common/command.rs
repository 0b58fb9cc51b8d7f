//! Runs the real command on stores of its own, in an environment that declares nobody.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// A store in a temporary directory, which goes with it.
pub(crate) struct Bench {
    dir: TempDir,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ran {
    /// Stdout as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    /// Stdout as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.out)))
    }

    /// It was done, with nothing to say.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", String::from_utf8_lossy(&self.out));
        self
    }

    /// It was refused with this code and these words, and gave no data.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}", self.err);
        assert!(self.err.starts_with("batonfs: "), "{}", self.err);
        assert!(self.out.is_empty(), "{}", String::from_utf8_lossy(&self.out));
        for word in words {
            assert!(self.err.contains(word), "'{word}' is not in: {}", self.err);
        }
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        // A death by signal shows as a negative code.
        let code = output.status.code().unwrap_or(-1);
        Self { code, out: output.stdout, err: String::from_utf8_lossy(&output.stderr).into_owned() }
    }
}

/// The command, with no `BATON_*` of whoever runs the tests.
pub(crate) fn batonfs() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_batonfs"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BATON") {
            command.env_remove(name);
        }
    }
    // Nothing is said of how long the machine takes.
    command.env("BATONFS_PATIENCE", "1000");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Gives `input` to a started command and waits for its end.
pub(crate) fn feed(mut child: Child, input: &[u8]) -> Ran {
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // A command that refuses early takes nothing.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output.into()
}

impl Bench {
    /// An empty store.
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// An empty store below a directory.
    pub(crate) fn below(dir: &Path) -> Self {
        let bench = Self { dir: tempfile::tempdir_in(dir).unwrap() };
        std::fs::create_dir(bench.store()).unwrap();
        bench
    }

    /// An empty store with session `s` in it.
    pub(crate) fn with_session() -> Self {
        let bench = Self::new();
        bench.run(&["init", "@", "s"]).done();
        bench
    }

    /// The store.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("store")
    }

    /// A place beside the store.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    /// The command with these arguments; `@` stands for the store.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = batonfs();
        for arg in args {
            match *arg {
                "@" => command.arg(self.store()),
                arg => command.arg(arg),
            };
        }
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// Runs it to its end, `input` on its stdin.
    pub(crate) fn feed(&self, args: &[&str], input: impl AsRef<[u8]>) -> Ran {
        feed(self.command(args).stdin(Stdio::piped()).spawn().unwrap(), input.as_ref())
    }

    /// Writes a value to session `s` by this writer.
    pub(crate) fn write(&self, key: &str, value: &str, writer: &str) -> Ran {
        self.feed(&["write", "@", "s", key, "--writer-id", writer], value)
    }

    /// Reads a value of session `s`.
    #[track_caller]
    pub(crate) fn value(&self, key: &str) -> String {
        self.run(&["read", "@", "s", key]).done().text().to_owned()
    }
}

/// Is nothing in this directory?
pub(crate) fn is_empty(dir: &Path) -> bool {
    dir.read_dir().unwrap().next().is_none()
}
