//! C1, C5, C7, C10, C19: the daemon is killed at any moment, also while it recovers, with eight writers at work. What was
//! acknowledged to them is there, with its writer; of what was under way each is there whole or not at all.
//! The writers are in `kill_loop.py`. 200 kills under the long rounds, or `BATONFS_KILLS` of them; `BATONFS_KILL_SEED`
//! gives the times again, though not what the processes were at by then.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{self, Mount, Running};

const WRITERS: usize = 8;
const SESSIONS: [&str; 3] = ["s", "s1", "s2"];
/// The longest time from the first change of a writer to the kill, and from an opening to the next.
const WORK_MAX_MS: u64 = 300;
const OPENING_MAX_MS: u64 = 60;
/// Versions before the newest that are looked at in the history of a key: those that one kill can have touched last.
const LOOKED_AT: u64 = 3;

/// What a writer does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Put,
    Append,
    Move(String),
    Delete,
}

/// A step that a writer has begun.
#[derive(Debug, Clone)]
struct Step {
    what: What,
    number: u64,
    size: usize,
    session: String,
    key: String,
    acknowledged: bool,
}

impl Step {
    fn read(line: &str) -> Self {
        let words: Vec<_> = line.split(' ').collect();
        let (session, key) = words[3].split_once('/').expect("a session and a key");
        let what = match words[0] {
            "put" => What::Put,
            "append" => What::Append,
            "move" => What::Move(words[4].split_once('/').expect("a session and a key").1.to_owned()),
            "delete" => What::Delete,
            other => panic!("a writer said {other}"),
        };
        let (number, size) = (words[1].parse().expect("a number"), words[2].parse().expect("a size"));
        Self { what, number, size, session: session.to_owned(), key: key.to_owned(), acknowledged: false }
    }

    /// The bytes it writes: who, the number and the size, and then what tells both anywhere.
    fn text(&self, writer: &str) -> Vec<u8> {
        let head = format!("{writer} {} {}\n", self.number, self.size);
        let len = self.size.max(head.len());
        let mut text = head + &format!("{writer}.{}/", self.number).repeat(self.size / 4 + 1);
        text.truncate(len);
        text.into_bytes()
    }
}

/// The newest version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Newest {
    bytes: Vec<u8>,
    version: u64,
    writer: String,
}

/// What a session is to show.
#[derive(Debug, Default)]
struct Session {
    values: BTreeMap<String, Newest>,
    /// The last version of each key that ever was.
    last: BTreeMap<String, u64>,
    /// The versions that others have replaced.
    history: BTreeMap<(String, u64), Vec<u8>>,
    /// The bytes of the log that were looked at, and its last number.
    log: (u64, u64),
}

impl Session {
    /// Another version than an append's takes the place of what is there.
    fn replace(&mut self, key: &str) {
        if let Some(old) = self.values.remove(key) {
            self.history.insert((key.to_owned(), old.version), old.bytes);
        }
    }

    fn make(&mut self, key: &str, bytes: Vec<u8>, writer: &str) -> u64 {
        let version = self.last.entry(key.to_owned()).or_default();
        *version += 1;
        self.values.insert(key.to_owned(), Newest { bytes, version: *version, writer: writer.to_owned() });
        *version
    }

    /// Takes a step that the log tells; the line must tell it as it was.
    fn take(&mut self, step: &Step, writer: &str, line: &Value) {
        let (op, key, to) = (line["op"].as_str().expect("an op"), line["key"].as_str(), line["to"].as_str());
        assert_eq!(key, Some(step.key.as_str()), "{writer}'s step {step:?} is {line}");
        let text = step.text(writer);
        let version = match &step.what {
            What::Put => {
                assert_eq!(op, "put", "{step:?}");
                self.replace(&step.key);
                Some(self.make(&step.key, text, writer))
            }
            What::Append => {
                let before = self.values.get(&step.key);
                assert!(op == "append" || (before.is_none() && op == "put"), "{step:?} is {line}");
                let bytes = [before.map(|value| value.bytes.clone()).unwrap_or_default(), text].concat();
                Some(self.make(&step.key, bytes, writer))
            }
            What::Move(new) => {
                assert_eq!((op, to), ("rename", Some(new.as_str())), "{step:?}");
                let moved = self.values.remove(&step.key).expect("what is moved is there");
                self.replace(new);
                Some(self.make(new, moved.bytes, writer))
            }
            What::Delete => {
                assert_eq!(op, "delete", "{step:?}");
                self.replace(&step.key);
                None
            }
        };
        assert_eq!(line["version"].as_u64(), version, "{step:?} is {line}");
        let made = version.and_then(|_| self.values.get(to.unwrap_or(&step.key)));
        assert_eq!(line["size_bytes"].as_u64(), made.map(|value| value.bytes.len() as u64), "{step:?} is {line}");
    }
}

/// What was done so far, and what became of it.
#[derive(Debug, Default)]
struct Loop {
    sessions: BTreeMap<String, Session>,
    /// The last number of each writer.
    numbers: [u64; WRITERS],
    kills: u64,
    acknowledged: u64,
    /// Steps that were under way at a kill: there are these, and these are not.
    kept: u64,
    gone: u64,
}

fn name(writer: usize) -> String {
    format!("w{writer}")
}

impl Loop {
    /// Lets the writers work for a time, kills, and looks at everything.
    fn round(&mut self, mount: &mut Mount, chance: &mut Chance, seed: u64) {
        let mut writers: Vec<_> = (0..WRITERS).map(|writer| start(mount, writer, self.numbers[writer], seed)).collect();
        writers.iter_mut().for_each(|writer| writer.printed(1));
        std::thread::sleep(Duration::from_millis(chance.below(WORK_MAX_MS)));
        let openings = if chance.below(3) == 0 { 1 + chance.below(2) } else { 0 };
        let times: Vec<_> = (0..openings).map(|_| Duration::from_millis(chance.below(OPENING_MAX_MS))).collect();
        mount.crash_and_again(&times);
        self.kills += 1 + openings;
        nothing_is_left_over(mount);
        let steps: Vec<_> = writers.into_iter().map(|writer| steps(&writer.wait().ok())).collect();
        self.judge(mount, steps);
    }

    fn judge(&mut self, mount: &Mount, mut steps: Vec<VecDeque<Step>>) {
        for (writer, steps) in steps.iter().enumerate() {
            self.numbers[writer] = steps.back().map_or(self.numbers[writer], |step| step.number);
            self.acknowledged += steps.iter().filter(|step| step.acknowledged).count() as u64;
        }
        for session in SESSIONS {
            self.read_log(mount, session, &mut steps);
        }
        for (writer, steps) in steps.iter().enumerate() {
            let lost: Vec<_> = steps.iter().filter(|step| step.acknowledged).collect();
            assert!(lost.is_empty(), "acknowledged to {} and lost: {lost:?}", name(writer));
            self.gone += steps.len() as u64;
        }
        for session in SESSIONS {
            let shows = self.sessions.get(session).expect("a session");
            look(mount, session, shows);
        }
        for session in self.sessions.values_mut() {
            let last = &session.last;
            session.history.retain(|(key, version), _| version + LOOKED_AT >= last[key]);
        }
    }

    /// Takes in the lines that came to a session's log. Each must be the next step of its writer there.
    fn read_log(&mut self, mount: &Mount, session: &str, steps: &mut [VecDeque<Step>]) {
        let shows = self.sessions.entry(session.to_owned()).or_default();
        let mut file = fs::File::open(in_session(mount, session, ".baton/log")).expect("the log");
        file.seek(SeekFrom::Start(shows.log.0)).expect("what was in the log stays");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("the log");
        shows.log.0 += text.len() as u64;
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert_eq!(line["seq"].as_u64(), Some(shows.log.1 + 1), "the log has no gaps: {line}");
            shows.log.1 += 1;
            if line["op"] == "mkdir" {
                continue;
            }
            let writer = line["writer"]["writer_id"].as_str().unwrap_or_default();
            let of = (0..WRITERS).find(|of| name(*of) == writer).unwrap_or_else(|| panic!("nobody did {line}"));
            let next = steps[of].iter().position(|step| step.session == session);
            let step = next.and_then(|next| steps[of].remove(next)).unwrap_or_else(|| panic!("nobody did {line}"));
            self.kept += u64::from(!step.acknowledged);
            shows.take(&step, writer, &line);
        }
    }
}

fn in_session(mount: &Mount, session: &str, path: &str) -> std::path::PathBuf {
    mount.point().join(session).join(path)
}

fn start(mount: &Mount, writer: usize, number: u64, seed: u64) -> Running {
    let (name, program) = (name(writer), include_str!("kill_loop.py"));
    let words = [harness::python(), "-S", "-c", program, &name, &number.to_string(), &format!("{seed}-{number}")];
    let mut command = mount.command(&words);
    command.env("BATON_WRITER_ID", &name);
    mount.spawn(command)
}

/// The steps that a writer said it took. The last one may have been under way when the mount went.
fn steps(said: &str) -> VecDeque<Step> {
    let mut steps = VecDeque::<Step>::new();
    for line in said.lines() {
        match line.split_once(' ') {
            None if line == "ok" => steps.back_mut().expect("a step").acknowledged = true,
            Some(("failed", errno)) => {
                let gone = [libc::ENOTCONN, libc::ECONNABORTED].map(|errno| errno.to_string());
                assert!(gone.contains(&errno.to_owned()), "errno {errno} after {:?}", steps.back());
            }
            _ => steps.push_back(Step::read(line)),
        }
    }
    let refused = steps.iter().rev().skip(1).find(|step| !step.acknowledged);
    assert!(refused.is_none(), "{refused:?} was refused");
    steps
}

/// No draft, no temporary file is left of those that died.
fn nothing_is_left_over(mount: &Mount) {
    let drafts = fs::read_dir(mount.store().join(".baton/drafts")).expect("drafts").flatten();
    let drafts: Vec<_> = drafts.map(|entry| entry.file_name()).collect();
    assert!(drafts.is_empty(), "drafts are left: {drafts:?}");
}

/// Files below a directory by their paths from it. Of hidden directories only if `hidden`.
fn files(at: &Path, below: &str, hidden: bool, found: &mut Vec<String>) {
    for entry in fs::read_dir(at.join(below)).into_iter().flatten() {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        assert!(!name.contains(".agent_state_tmp"), "a temporary file is left: {below}/{name}");
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        if !entry.file_type().expect("a type").is_dir() {
            found.push(path);
        } else if hidden || !name.starts_with('.') {
            files(at, &path, hidden, found);
        }
    }
    found.sort();
}

/// Everything that a session shows is as it is to be: keys, bytes, versions, writers, sidecars, history.
fn look(mount: &Mount, session: &str, shows: &Session) {
    let at = in_session(mount, session, "");
    let (mut keys, mut stored, mut sidecars) = (Vec::new(), Vec::new(), Vec::new());
    let store = mount.store().join(session);
    files(&at, "", false, &mut keys);
    files(&store, "", false, &mut stored);
    files(&store.join(".agent_state_meta"), "", true, &mut sidecars);
    let expected: Vec<_> = shows.values.keys().cloned().collect();
    assert_eq!((&keys, &stored), (&expected, &expected), "the keys of {session}");
    let with_json: Vec<_> = expected.iter().map(|key| format!("{key}.json")).collect();
    let mut with_json_sorted = with_json.clone();
    with_json_sorted.sort();
    assert_eq!(sidecars, with_json_sorted, "the sidecars of {session}");
    for ((key, value), sidecar) in shows.values.iter().zip(with_json) {
        let bytes = fs::read(at.join(key)).expect("a value");
        assert!(bytes == value.bytes, "{session}/{key}: {} bytes, not {}", bytes.len(), value.bytes.len());
        let text = fs::read(store.join(".agent_state_meta").join(sidecar)).expect("a sidecar");
        let sidecar: Value = serde_json::from_slice(&text).expect("a sidecar");
        assert_eq!(sidecar["writer"]["writer_id"], value.writer.as_str(), "{session}/{key}");
        assert_eq!(attribute(&at.join(key), "user.baton.writer_id"), value.writer, "{session}/{key}");
        assert_eq!(attribute(&at.join(key), "user.baton.version"), value.version.to_string(), "{session}/{key}");
    }
    for ((key, version), bytes) in &shows.history {
        let kept = fs::read(history(mount, session, key).join(version.to_string()));
        let kept = kept
            .unwrap_or_else(|e| panic!("version {version} of {session}/{key}: {e}\n{}", story(mount, session, key)));
        assert!(kept == *bytes, "version {version} of {session}/{key}: {} bytes, not {}", kept.len(), bytes.len());
    }
}

/// Where the history of a key is.
fn history(mount: &Mount, session: &str, key: &str) -> std::path::PathBuf {
    let (dirs, name) = key.rsplit_once('/').unwrap_or(("", key));
    let mut at = mount.store().join(".baton/history").join(session);
    at.extend(dirs.split('/').filter(|dir| !dir.is_empty()).map(|dir| format!("d{dir}")));
    at.join(format!("k{name}"))
}

/// What the log says of a key, and what its history has on the disk.
fn story(mount: &Mount, session: &str, key: &str) -> String {
    let log = fs::read_to_string(in_session(mount, session, ".baton/log")).expect("the log");
    let lines: Vec<_> = log.lines().filter(|line| line.contains(&format!("\"{key}\""))).collect();
    let mut kept = Vec::new();
    files(&mount.store().join(".baton/history").join(session), "", true, &mut kept);
    format!("{}\n{kept:?}", lines.join("\n"))
}

fn attribute(path: &Path, name: &str) -> String {
    let mut buffer = vec![0; 256];
    let len = rustix::fs::getxattr(path, name, &mut buffer[..]).expect("an attribute");
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

/// A source of chance that says the same twice.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn kill(mut mount: Mount, kills: u64) {
    let seed = number("BATONFS_KILL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("BATONFS_KILL_SEED={seed}");
    for session in SESSIONS {
        fs::create_dir_all(in_session(&mount, session, "d")).expect("a directory");
    }
    let (mut all, mut chance) = (Loop::default(), Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1));
    while all.kills < kills {
        all.round(&mut mount, &mut chance, seed);
    }
    println!(
        "{} kills survived: {} changes acknowledged, all there; of those under way {} are there whole and {} not at all",
        all.kills, all.acknowledged, all.kept, all.gone
    );
    assert!(all.acknowledged > 4 * kills, "only {} changes were acknowledged", all.acknowledged);
}

fn kills() -> u64 {
    number("BATONFS_KILLS").unwrap_or(if harness::long() { 200 } else { 10 })
}

// C1 C5 C7 C10 C19
#[test]
fn what_was_acknowledged_outlives_every_kill_of_the_daemon() {
    let kills = kills().div_ceil(2);
    let Some(mount) = Mount::lasting(Duration::from_secs(5 * kills)) else { return };
    kill(mount, kills);
}

// C1 C5 C7 C10 C19: without the disk's own time many more changes come between two kills.
#[test]
fn the_same_where_nothing_waits_for_a_disk() {
    let Some(mount) = Mount::in_memory(&[]) else { return };
    kill(mount, kills() / 2);
}
