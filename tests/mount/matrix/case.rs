//! One case: what is there, what a program does, which versions that makes. Runs it twice, alone and watched.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::watch::{Seen, Watch};
use crate::harness::{self, Mount, eventually};

/// Stands for a value that is whatever is there in the end, where its bytes are a program's own business.
pub(super) const ANY: &str = "\0any";

/// Stands for a value of more than one of the kernel's requests.
pub(super) const MUCH: &str = "\0much";

/// The value that a case speaks of.
pub(super) fn bytes(value: &str) -> Vec<u8> {
    if value == MUCH { vec![b'y'; 1_200_000] } else { value.into() }
}

/// A version: its key (`x*` for a name that begins so), the operation and the name of the process that wrote it (`$`
/// for the program that runs the script), and the whole value. Of a dropped draft: what was dropped.
pub(super) type Made = (&'static str, &'static str, &'static str);

/// One way to write.
#[derive(Debug)]
pub(super) struct Case {
    given: &'static [(&'static str, &'static str)],
    script: &'static str,
    made: &'static [Made],
    released: u64,
}

/// A case: over what is there already, this script makes these versions and no others.
pub(super) const fn case(
    given: &'static [(&'static str, &'static str)],
    script: &'static str,
    made: &'static [Made],
) -> Case {
    Case { given, script, made, released: 0 }
}

/// What runs the scripts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Program {
    /// An interpreter and its option that takes a script; its name in the log.
    Given(&'static [&'static str], &'static str),
    Python,
    /// The test's own process, in place of a script.
    Here(fn(&Path)),
}

pub(super) const BASH: Program = Program::Given(&["bash", "-c"], "bash");
const DASH: Program = Program::Given(&["dash", "-c"], "dash");

/// What came of a script.
#[derive(Debug)]
pub(super) struct Played {
    /// The log's lines about its keys.
    pub(super) lines: Vec<Value>,
    /// What a stranger saw, if one was watching.
    pub(super) seen: Option<Seen>,
    /// How many drafts were committed at the RELEASE, and by a stranger's look.
    pub(super) late: (u64, u64),
}

/// Runs every case watched; in the long rounds alone too.
#[track_caller]
pub(super) fn run(mount: &Mount, program: Program, cases: &[Case]) {
    for case in cases {
        case.run(mount, program, true);
        if harness::long() {
            case.run(mount, program, false);
        }
    }
}

/// Runs every case in bash and in dash, one of them watched; in the long rounds both ways in both.
#[track_caller]
pub(super) fn run_in_both_shells(mount: &Mount, cases: &[Case]) {
    for case in cases {
        case.run(mount, BASH, true);
        case.run(mount, DASH, false);
        if harness::long() {
            case.run(mount, BASH, false);
            case.run(mount, DASH, true);
        }
    }
}

/// Runs a script in a directory of its own until `versions` lines about it are in the log and nothing is open.
#[track_caller]
pub(super) fn play(mount: &Mount, program: Program, case: &Case, dir: &str, watched: bool) -> Played {
    let place = mount.path(dir);
    std::fs::create_dir(&place).expect("a directory for the case");
    for (key, value) in case.given {
        mount.write(&format!("{dir}/{key}"), value);
    }
    settled(mount);
    let late = || (mount.committed_at("release"), mount.committed_at("look"));
    let (before, log) = (late(), mount.log().len());
    let keys = case.made.iter().map(|(key, ..)| (*key).to_owned()).filter(|key| !key.ends_with('*'));
    let watch = watched.then(|| Watch::start(place.clone(), keys.collect()));
    program.run(mount, &place, case.script);
    let of_case = |line: &Value| {
        let bytes_changed = !matches!(line["op"].as_str(), Some("mkdir" | "rmdir" | "attributes"));
        bytes_changed && line["key"].as_str().is_some_and(|key| key.starts_with(&format!("{dir}/")))
    };
    let lines = || mount.log().into_iter().skip(log).filter(of_case).collect::<Vec<_>>();
    // What is still missing after that is told better by a comparison.
    let until = Instant::now() + Duration::from_secs(15);
    eventually("all is written", || lines().len() >= case.made.len() || Instant::now() > until);
    let seen = watch.map(Watch::stop);
    settled(mount);
    let after = late();
    Played { lines: lines(), seen, late: (after.0 - before.0, after.1 - before.1) }
}

/// The name of a directory that no case has had.
pub(super) fn fresh_dir() -> String {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    format!("case-{}", LAST.fetch_add(1, Ordering::Relaxed))
}

/// Waits until every RELEASE has come.
fn settled(mount: &Mount) {
    eventually("nothing is open", || mount.status()["open_handles"] == 0);
}

impl Program {
    pub(super) fn comm(self) -> String {
        match self {
            Program::Given(_, comm) => comm.to_owned(),
            Program::Python => "python3".to_owned(),
            Program::Here(_) => std::fs::read_to_string("/proc/self/comm").expect("a name").trim_end().to_owned(),
        }
    }

    fn command(self, mount: &Mount, script: &str) -> Option<Command> {
        let words = match self {
            Program::Given(words, _) => words,
            Program::Python => &[harness::python(), "-c"],
            Program::Here(_) => return None,
        };
        let mut command = mount.command(words);
        command.arg(script).env("BATON_WRITER_ID", "w");
        Some(command)
    }

    #[track_caller]
    fn run(self, mount: &Mount, place: &Path, script: &str) {
        match (self, self.command(mount, script)) {
            (Program::Here(writes), _) => writes(place),
            (_, Some(mut command)) => {
                command.current_dir(place);
                mount.run(command).ok();
            }
            _ => {}
        }
    }

    fn writer(self) -> &'static str {
        if matches!(self, Program::Here(_)) { harness::SESSION } else { "w" }
    }
}

impl Case {
    /// The last of its handles are committed when the kernel releases them, not at their close.
    pub(super) const fn released(mut self, handles: u64) -> Self {
        self.released = handles;
        self
    }

    #[track_caller]
    fn run(&self, mount: &Mount, program: Program, watched: bool) {
        let dir = fresh_dir();
        let played = play(mount, program, self, &dir, watched);
        let what = format!("{} {}: {}", program.comm(), if watched { "watched" } else { "alone" }, self.script);
        let states = self.check_log(mount, program, &dir, &played.lines, &what);
        let (released, looked) = played.late;
        if let Some(seen) = &played.seen {
            // A watcher can come between the end of a descriptor and the call that tells of it.
            assert!(released <= self.released, "{released} left to the RELEASE: {what}");
            check_seen(&states, seen, &what);
        } else {
            assert_eq!(
                (released, looked),
                (self.released, 0),
                "left to the RELEASE, and until somebody looked: {what}"
            );
        }
    }

    /// The log has exactly the versions of the case, per key in order. The states each key has had, in order.
    #[track_caller]
    fn check_log(
        &self,
        mount: &Mount,
        program: Program,
        dir: &str,
        lines: &[Value],
        what: &str,
    ) -> BTreeMap<String, States> {
        let mut made: BTreeMap<&str, Vec<(String, &str)>> = BTreeMap::new();
        for &(key, how, value) in self.made {
            made.entry(key).or_default().push((how.replace('$', &program.comm()), value));
        }
        let mut expected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut logged: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut states: BTreeMap<String, States> = BTreeMap::new();
        let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
        for (key, value) in self.given {
            states.insert((*key).to_owned(), vec![Some(value.as_bytes().to_vec())]);
            numbers.insert((*key).to_owned(), 1);
        }
        for line in lines {
            let name = |field: &str| Some(line[field].as_str()?.strip_prefix(dir)?.trim_start_matches('/').to_owned());
            let (from, to) = (name("key").expect("a key"), name("to"));
            let key = to.clone().unwrap_or_else(|| from.clone());
            let how =
                format!("{} {}", line["op"].as_str().unwrap_or("?"), line["process"]["comm"].as_str().unwrap_or("?"));
            let size = line["size_bytes"].as_u64().unwrap_or(0);
            let pattern = made.keys().find(|pattern| matches(pattern, &key)).copied().unwrap_or("?");
            let done = logged.entry(pattern).or_default();
            let value = made.get(pattern).and_then(|made| Some(made.get(done.len())?.1)).unwrap_or_default();
            done.push(format!("{how} {size}"));
            let value =
                if value == ANY { std::fs::read(mount.path(dir).join(&key)).expect("a value") } else { bytes(value) };
            let all = states.entry(key.clone()).or_insert_with(|| vec![None]);
            match line["op"].as_str() {
                Some("delete") => all.push(None),
                Some("drop") => {}
                _ => all.push(Some(value)),
            }
            if to.is_some() {
                states.entry(from).or_insert_with(|| vec![None]).push(None);
            }
            if let Some(version) = line["version"].as_u64() {
                let last = numbers.insert(key.clone(), version).unwrap_or(0);
                assert_eq!(version, last + 1, "the version of {key}: {what}");
            }
            assert_eq!(line["writer"]["writer_id"], program.writer(), "who wrote {key}: {what}\n{line}");
        }
        for (pattern, made) in made {
            let sizes = |at: usize, value: &str| match states.iter().find(|(key, _)| matches(pattern, key)) {
                Some((_, states)) if value == ANY => {
                    states.get(at + 1).and_then(|s| Some(s.as_ref()?.len())).unwrap_or(0)
                }
                _ => bytes(value).len(),
            };
            let lines = made.iter().enumerate().map(|(at, (how, value))| format!("{how} {}", sizes(at, value)));
            expected.insert(pattern, lines.collect());
        }
        assert_eq!(logged, expected, "the versions made: {what}");
        for (key, states) in &states {
            let last = std::fs::read(mount.path(dir).join(key)).ok();
            let clip = |value: Option<&Vec<u8>>| value.map(|value| shown(value));
            assert_eq!(clip(last.as_ref()), clip(states.last().and_then(Option::as_ref)), "{key} in the end: {what}");
            assert!(states.last() == Some(&last), "{key} in the end: {what}");
        }
        states
    }
}

/// The values a key has had, `None` where it was not there.
type States = Vec<Option<Vec<u8>>>;

fn matches(pattern: &str, key: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == key, |start| key.starts_with(start))
}

/// Nothing was seen that no version made, and no state after a later one.
#[track_caller]
pub(super) fn check_seen(states: &BTreeMap<String, States>, seen: &Seen, what: &str) {
    let never = vec![None];
    for name in seen.names.iter().flatten().chain(seen.values.keys()) {
        let states = states.get(name).unwrap_or(&never);
        let values = seen.values.get(name).into_iter().flatten().cloned();
        in_order(values, states.iter().cloned(), |v| v.as_ref().map(|v| shown(v)), &format!("read of {name}: {what}"));
        let size_of = |value: &Option<Vec<u8>>| value.as_ref().map(|value| value.len() as u64);
        let sizes = seen.sizes.get(name).into_iter().flatten().copied();
        in_order(sizes, states.iter().map(size_of), Clone::clone, &format!("stat of {name}: {what}"));
        let listed = seen.names.iter().map(|names| names.contains(name));
        in_order(listed, states.iter().map(Option::is_some), Clone::clone, &format!("listing of {name}: {what}"));
    }
}

/// Each of `seen` is one of `states`, and none comes before one that was seen earlier.
#[track_caller]
fn in_order<T: PartialEq, S: std::fmt::Debug>(
    seen: impl Iterator<Item = T>,
    states: impl Iterator<Item = T>,
    show: impl Fn(&T) -> S,
    what: &str,
) {
    let (seen, states): (Vec<T>, Vec<T>) = (seen.collect(), states.collect());
    let mut at = 0;
    for state in &seen {
        let next = states.iter().skip(at).position(|other| other == state);
        let all = |all: &[T]| all.iter().map(&show).collect::<Vec<_>>();
        at += next.unwrap_or_else(|| panic!("{what}\nsaw {:?}\nof {:?}", all(&seen), all(&states)));
    }
}

/// A value as failures show it.
fn shown(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let start: String = text.chars().take(60).collect();
    if start == text { start } else { format!("{start}... ({} bytes)", value.len()) }
}
