//! C6: every way to end, times every kind of write, times who else has the file. Half a value is dropped, a whole one kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{self, Mount, eventually};

const SCRIPT: &str = include_str!("deaths.py");

/// How a process ends, and what `wait` says of it: a signal, or an exit code times 256.
const ENDS: [(&str, i32); 15] = [
    ("KILL", libc::SIGKILL),
    ("TERM", libc::SIGTERM),
    ("HUP", libc::SIGHUP),
    ("fault", libc::SIGSEGV),
    ("abort", libc::SIGABRT),
    ("broken pipe", libc::SIGPIPE),
    ("Ctrl-C", libc::SIGINT),
    ("TERM raised again", libc::SIGTERM),
    ("killed while it writes", libc::SIGKILL),
    ("TERM handled", 0),
    ("_exit", 0),
    ("_exit 3", 3 << 8),
    ("sys.exit", 1 << 8),
    ("exception", 1 << 8),
    ("MemoryError", 1 << 8),
];
const KINDS: [&str; 7] = ["new", "emptied", "edited", "appended", "handoff", "temporary", "moved"];
const SHAPES: [&str; 8] = [
    "alone",
    "silent",
    "child of a shell",
    "written by a thread",
    "another thread ends it",
    "opener ends first",
    "parent writes the rest",
    "bystander ends",
];
/// So many play at one time, each cell in one of them: their commits share the disk's syncs.
const LANES: usize = 4;
const OLD: &str = "the old value";

/// One row of the table. It has a key of its own, with the value that "before" wrote.
#[derive(Debug, Clone, Copy)]
struct Cell {
    number: usize,
    kind: &'static str,
    shape: &'static str,
    end: &'static str,
    status: i32,
    /// The mount was told to commit what a killed writer left.
    commits: bool,
}

/// What a key is to be, in words a failed test can show.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// The names of the key and of its temporary file that are listed.
    names: Vec<String>,
    value: Option<String>,
    /// Who wrote each version.
    writers: Vec<String>,
    /// Key and size of each draft the log says was dropped, and what is kept of it.
    dropped: Vec<(String, u64, Option<String>)>,
    ended: i32,
}

impl Cell {
    /// Every kind with every end, and with every shape one end of each sort.
    fn is_of_the_short_round(&self) -> bool {
        self.shape == "alone"
            || ["KILL", "_exit"].contains(&self.end)
            || (self.shape == "another thread ends it" && self.end == "fault")
    }

    fn is_handoff(&self) -> bool {
        self.kind == "handoff"
    }

    /// Each handoff has a session of its own, since a session has only one.
    fn session(&self) -> String {
        if self.is_handoff() { format!("handoff-{}", self.number) } else { harness::SESSION.to_owned() }
    }

    fn key(&self) -> String {
        if self.is_handoff() { "__handoff.json".to_owned() } else { format!("k{}", self.number) }
    }

    /// The name of the draft when its writer ends.
    fn draft_name(&self) -> String {
        if self.kind == "temporary" { format!("{}.tmp", self.key()) } else { self.key() }
    }

    /// Was there a value before?
    fn had_value(&self) -> bool {
        self.kind != "new"
    }

    /// What is written first, and what another process puts behind it in one of the shapes.
    fn texts(&self) -> (&'static str, &'static str) {
        match (self.kind, self.shape) {
            ("handoff", "parent writes the rest") => ("{\"half\":", " 1}"),
            ("handoff", _) => ("{\"half\": 1}", ""),
            (_, "parent writes the rest") => ("half ", "whole"),
            _ => ("half", ""),
        }
    }

    /// The cell as the script takes it.
    fn told(&self, dir: &Path) -> String {
        let (first, rest) = self.texts();
        let Self { kind, shape, end, .. } = self;
        json!({ "dir": dir, "key": self.key(), "kind": kind, "shape": shape, "end": end, "first": first, "rest": rest })
            .to_string()
    }

    /// Did the process that wrote last (where none has, any that held the file) end by its own will?
    fn ended_well(&self) -> bool {
        let dies = ["alone", "silent", "child of a shell", "written by a thread", "another thread ends it"];
        self.status & 0x7f == 0 || !dies.contains(&self.shape)
    }

    /// Is there anything for a commit to make?
    fn changes(&self) -> bool {
        self.shape != "silent" || !["edited", "appended"].contains(&self.kind)
    }

    /// The whole of the draft.
    fn draft(&self) -> String {
        let (first, rest) = self.texts();
        let written = if self.shape == "silent" { String::new() } else { format!("{first}{rest}") };
        match self.kind {
            "edited" => format!("{written}{}", &OLD[written.len()..]),
            "appended" => format!("{OLD}{written}"),
            _ => written,
        }
    }

    fn expected(&self) -> Outcome {
        let kept = self.changes() && (self.ended_well() || self.commits || self.kind == "appended");
        let dropped = self.changes() && !kept;
        // No value at all is no document, whoever ends how.
        let kept = kept && !(self.is_handoff() && self.shape == "silent");
        let at_key = kept && self.kind != "temporary";
        let names = [(self.had_value() || at_key, self.key()), (kept && !at_key, self.draft_name())];
        let old = self.had_value().then(|| OLD.to_owned());
        let writers = [(self.had_value(), "before"), (at_key, "worker")];
        let size_bytes = self.draft().len() as u64;
        Outcome {
            names: names.into_iter().filter_map(|(there, name)| there.then_some(name)).collect(),
            value: if at_key { Some(self.draft()) } else { old },
            writers: writers.into_iter().filter(|(wrote, _)| *wrote).map(|(_, who)| who.to_owned()).collect(),
            dropped: dropped.then(|| (self.draft_name(), size_bytes, Some(self.draft()))).into_iter().collect(),
            ended: self.status,
        }
    }
}

/// The mount, with what the table needs of it.
#[derive(Debug)]
struct Stage {
    mount: Mount,
}

impl Stage {
    fn path(&self, cell: &Cell) -> PathBuf {
        self.mount.point().join(cell.session()).join(cell.key())
    }

    /// Starts the same Python script some times, as a declared writer, and deals these lines out. What they print.
    fn share(&self, writer: &str, script: &str, lines: &[String]) -> Vec<String> {
        let file = self.mount.scratch().join("script.py");
        fs::write(&file, script).expect("the script");
        let lanes = (0..LANES).map(|lane| {
            let mut command = self.mount.command(&[harness::python(), &file.to_string_lossy()]);
            command.stdin(Stdio::piped()).current_dir(self.mount.scratch()).env("BATON_WRITER_ID", writer);
            let mut running = self.mount.spawn(command);
            lines.iter().skip(lane).step_by(LANES).for_each(|line| running.send(line));
            running
        });
        let lanes: Vec<_> = lanes.collect();
        let lanes: Vec<String> = lanes.into_iter().map(|running| running.wait().ok()).collect();
        let mut printed: Vec<_> = lanes.iter().map(|lane| lane.lines()).collect();
        (0..lines.len()).map(|n| printed[n % LANES].next().expect("a line for each line").to_owned()).collect()
    }

    /// Writes a value to each of these keys.
    fn write_as<'a>(&self, writer: &str, values: impl Iterator<Item = (&'a Cell, Value)>) {
        let script = "import json, sys\nfor line in sys.stdin:\n path, value = json.loads(line)\n \
                      with open(path, 'w') as f: f.write(value if type(value) == str else json.dumps(value))\n \
                      print('written', flush=True)";
        let lines: Vec<_> = values.map(|(cell, value)| json!([self.path(cell), value]).to_string()).collect();
        self.share(writer, script, &lines);
    }

    /// Makes what each cell needs, plays it, and says how the process that had to end did end.
    fn play(&self, cells: &[Cell]) -> Vec<i32> {
        let sessions = cells.iter().filter(|cell| cell.is_handoff());
        sessions.for_each(|cell| fs::create_dir(self.mount.point().join(cell.session())).expect("a session"));
        let old = |cell: &Cell| if cell.is_handoff() { json!({ "is": OLD }) } else { json!(OLD) };
        self.write_as("before", cells.iter().filter(|cell| cell.had_value()).map(|cell| (cell, old(cell))));
        let lines: Vec<_> = cells.iter().map(|cell| cell.told(&self.mount.point().join(cell.session()))).collect();
        let ended = self.share("worker", SCRIPT, &lines);
        ended.iter().map(|line| line.parse().expect("a status")).collect()
    }

    fn log(&self, session: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.mount.point().join(session).join(".baton/log")).expect("the log");
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    fn names(&self, session: &str) -> Vec<String> {
        let entries = fs::read_dir(self.mount.point().join(session)).expect("the session");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
    }

    /// What became of each cell.
    fn outcomes(&self, cells: &[Cell], ended: &[i32]) -> Vec<Outcome> {
        let (names, log) = (self.names(harness::SESSION), self.log(harness::SESSION));
        let one = |(cell, ended): (&Cell, &i32)| match cell.is_handoff() {
            true => self.outcome(cell, *ended, &self.names(&cell.session()), &self.log(&cell.session())),
            false => self.outcome(cell, *ended, &names, &log),
        };
        cells.iter().zip(ended).map(one).collect()
    }

    fn outcome(&self, cell: &Cell, ended: i32, names: &[String], log: &[Value]) -> Outcome {
        let (key, tmp) = (cell.key(), format!("{}.tmp", cell.key()));
        let value = fs::read_to_string(self.path(cell)).ok();
        let stored = fs::read_to_string(self.mount.store().join(cell.session()).join(&key)).ok();
        assert_eq!(value, stored, "{cell:?}: the store and the mount differ");
        let text = |line: &Value| line.as_str().unwrap_or_default().to_owned();
        let of_cell = |line: &&Value| line["key"] == *key || line["key"] == *tmp;
        let (dropped, rest): (Vec<_>, Vec<_>) = log.iter().filter(of_cell).partition(|line| line["op"] == "drop");
        let mut writers: Vec<_> =
            rest.iter().filter(|line| line["key"] == *key).map(|line| text(&line["writer"]["writer_id"])).collect();
        if cell.kind == "appended" {
            writers.dedup();
        }
        Outcome {
            names: [&key, &tmp].into_iter().filter(|name| names.contains(name)).cloned().collect(),
            value: value.map(|value| summary(cell, &value)),
            writers,
            dropped: dropped
                .iter()
                .map(|line| {
                    let key = text(&line["key"]);
                    let kept = self.mount.point().join(cell.session()).join(".baton/history").join(&key);
                    let kept = fs::read_to_string(kept.join(format!("{}.dropped", line["seq"]))).ok();
                    (key, line["size_bytes"].as_u64().expect("a size"), kept)
                })
                .collect(),
            ended,
        }
    }
}

/// A handoff's summary as it was written; a value as it is.
fn summary(cell: &Cell, value: &str) -> String {
    if !cell.is_handoff() {
        // Who appends until it is killed has appended more than once.
        let (first, rest) = cell.texts();
        let more = value.strip_prefix(OLD).and_then(|more| more.strip_suffix(rest)).filter(|more| !more.is_empty());
        let repeated =
            cell.end == "killed while it writes" && more.is_some_and(|more| more.replace(first, "").is_empty());
        return if repeated { format!("{OLD}{first}{rest}") } else { value.to_owned() };
    }
    let envelope: Value = serde_json::from_str(value).expect("an envelope");
    match &envelope["summary"]["is"] {
        Value::String(old) => old.clone(),
        _ => envelope["summary"].to_string().replace(':', ": "),
    }
}

fn cells(wanted: impl Fn(&Cell) -> bool, commits: bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    for kind in KINDS {
        for shape in SHAPES {
            for (end, status) in ENDS {
                let cell = Cell { number: cells.len(), kind, shape, end, status, commits };
                let by_a_handler = ["broken pipe", "Ctrl-C", "TERM raised again", "TERM handled"].contains(&end);
                let possible = match (shape, end) {
                    // Signals are handled in the first thread, and what a thread raises ends that thread alone.
                    ("another thread ends it", "sys.exit" | "exception" | "MemoryError") => false,
                    ("another thread ends it", _) => !by_a_handler,
                    ("silent" | "bystander ends" | "opener ends first", "killed while it writes") => false,
                    _ => true,
                };
                cells.extend((possible && wanted(&cell)).then_some(cell));
            }
        }
    }
    cells
}

/// Plays the cells and compares each with what C6 says.
fn play(cells: &[Cell], options: &[&str]) {
    let Some(mount) = Mount::with(options) else { return };
    let stage = Stage { mount };
    let ended = stage.play(cells);
    // Who was killed beside the one that was waited for may still be closing its files.
    eventually("nothing is open", || stage.mount.status()["drafts"] == 0);
    let mut wrong = Vec::new();
    for (cell, outcome) in cells.iter().zip(stage.outcomes(cells, &ended)) {
        if outcome != cell.expected() {
            wrong.push(format!("{cell:?}\n  expected {:?}\n  found    {outcome:?}", cell.expected()));
        }
    }
    stage.write_as("later", cells.iter().map(|cell| (cell, json!({ "later": 1 }))));
    for cell in cells {
        if !fs::read_to_string(stage.path(cell)).is_ok_and(|value| value.contains("\"later\"")) {
            wrong.push(format!("{cell:?}: a later writer's value is not there"));
        }
    }
    assert_eq!(stage.mount.status()["drafts"], 0);
    assert!(wrong.is_empty(), "{} of {} cells are wrong:\n{}", wrong.len(), cells.len(), wrong.join("\n"));
}

// C6, C7, C10, P4
#[test]
fn half_a_value_is_dropped_and_a_whole_one_kept_however_its_writers_end() {
    play(&cells(|cell| harness::long() || cell.is_of_the_short_round(), false), &[]);
}

// C6
#[test]
fn where_the_mount_says_so_half_a_value_is_kept() {
    let short = |cell: &Cell| ["KILL", "_exit"].contains(&cell.end) && SHAPES[..3].contains(&cell.shape);
    play(&cells(|cell| harness::long() || short(cell), true), &["--on-kill", "commit"]);
}
