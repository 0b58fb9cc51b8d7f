//! Who is recorded, for every way to start a writer: the writer it declares and the process that it was, or that neither
//! is known; never somebody else.

mod ways;

use std::process::Command;

use serde_json::Value;

use crate::harness::{self, Mount, Sight, eventually};

/// One way to write the key `k` of a directory of its own.
#[derive(Debug)]
struct Way {
    /// A bash script. A value that is a number is the id of the process that wrote it.
    script: &'static str,
    /// The writer id recorded; `None` for a writer that declares nothing the daemon can see: it is the session.
    writer: Option<&'static str>,
    /// The name of the process that wrote last; `None` where the script's value tells its id.
    comm: Option<&'static str>,
    /// What else is to be true of the log's line.
    also: Option<fn(&Value) -> bool>,
}

const fn way(script: &'static str, writer: &'static str, comm: &'static str) -> Way {
    Way { script, writer: Some(writer), comm: Some(comm), also: None }
}

/// Its value is the id of the process that wrote it.
const fn told(script: &'static str, writer: &'static str) -> Way {
    Way { script, writer: Some(writer), comm: None, also: None }
}

impl Way {
    const fn of_nobody(self) -> Self {
        Self { writer: None, ..self }
    }

    const fn and(self, also: fn(&Value) -> bool) -> Self {
        Self { also: Some(also), ..self }
    }

    /// Starts it in a directory of its own.
    fn command(&self, mount: &Mount, dir: &str) -> Command {
        std::fs::create_dir(mount.path(dir)).expect("a directory for it");
        // Other users write here too.
        rustix::fs::chmod(mount.path(dir), rustix::fs::Mode::from_raw_mode(0o777)).expect("chmod");
        let mut command = mount.command(&["bash", "-c", self.script]);
        command.current_dir(mount.path(dir)).env("PYTHON", harness::python());
        command
    }

    /// Looks whether the newest version of its key is recorded as what it was.
    #[track_caller]
    fn check(&self, mount: &Mount, dir: &str) {
        let key = format!("{dir}/k");
        eventually("it is written", || mount.path(&key).exists());
        let value = mount.read(&key);
        let log = mount.log();
        let of_key = |line: &&Value| line.get("to").or(line.get("key")).and_then(Value::as_str) == Some(&*key);
        let line = log.iter().rfind(of_key).unwrap_or_else(|| panic!("no line about {key}: {}", self.script));
        let said = format!("{}\nwrote {value:?}, and the log has {line}", self.script);
        let writer = self.writer.unwrap_or(harness::SESSION);
        assert_eq!(line["writer"]["writer_id"], writer, "{said}");
        assert_eq!(mount.writer_of(&key), writer, "the sidecar: {said}");
        assert_eq!(mount.xattr(&key, "user.baton.writer_id").as_deref(), Some(writer), "the attribute: {said}");
        let process = &line["process"];
        match (self.comm, value.trim().parse::<u64>()) {
            (Some(comm), _) => assert_eq!(process["comm"], comm, "{said}"),
            (None, Ok(pid)) => assert_eq!(process["pid"], pid, "{said}"),
            (None, Err(e)) => panic!("it is to tell its id: {e}: {said}"),
        }
        assert!(process["start_ticks"].is_u64() && process["exe"].is_string(), "{said}");
        if let Some(also) = self.also {
            assert!(also(line), "{said}");
        }
    }
}

fn mounted() -> Option<Mount> {
    let mount = Mount::with(&["--allow-other"])?;
    rustix::fs::chmod(mount.path(""), rustix::fs::Mode::from_raw_mode(0o777)).expect("chmod");
    Some(mount)
}

// W1, W2, W3
#[test]
fn whoever_writes_is_recorded_as_itself_however_it_was_started() {
    let Some(mount) = mounted() else { return };
    for (n, way) in ways::WAYS.iter().enumerate() {
        let dir = format!("way-{n}");
        mount.run(way.command(&mount, &dir)).ok();
        way.check(&mount, &dir);
    }
}

// W1, W2
#[test]
fn of_all_ways_to_write_at_once_none_is_recorded_as_another() {
    let Some(mount) = mounted() else { return };
    for round in 0..if harness::long() { 20 } else { 1 } {
        let dir = |n: usize| format!("round-{round}-{n}");
        let commands = ways::WAYS.iter().enumerate().map(|(n, way)| way.command(&mount, &dir(n)));
        let running: Vec<_> = commands.map(|command| mount.spawn(command)).collect();
        running.into_iter().for_each(|running| drop(running.wait().ok()));
        for (n, way) in ways::WAYS.iter().enumerate() {
            way.check(&mount, &dir(n));
        }
    }
}

// W4
#[test]
fn who_cannot_be_read_is_named_neither_as_process_nor_as_a_writer_of_its_own() {
    for sight in [Sight::Outside, Sight::Hidden] {
        let Some(mount) = Mount::seen_by(sight, &["--writer-id", "mount"]) else { return };
        mount.bash("BATON_WRITER_ID=a /bin/echo x > k").ok();
        let log = mount.log();
        let line = log.iter().find(|line| line["key"] == "k").expect("a line");
        assert_eq!(line["writer"]["writer_id"], "mount", "{sight:?}: {line}");
        // What the request itself says of who sent it is no guess.
        let known = line.get("process").is_none_or(|process| process.get("exe").is_none() && process["comm"].is_null());
        assert!(known, "{sight:?}: {line}");
    }
}
