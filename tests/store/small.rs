//! Every short sequence of changes out of a small alphabet, with a cut of the power, a death of the process or a failing
//! disk at each change and sync of its last step: what was acknowledged is there, and nothing else. The random workloads of
//! `power` are longer, but have one session, nobody beside the store and no disk that fails for a while.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use batonfs::engine::local::disk::Disk;
use batonfs::engine::local::{LocalEngine, Opening};
use batonfs::engine::{AttributeChange, Attributes, Change, Engine, EngineError, Keep, Kind, Staged};
use batonfs::words::{Lost, Policy, SessionId, Version};

use crate::engines::*;
use crate::power::sound;
use crate::power_disk::{Chance, PowerDisk, say};
use crate::table::ALWAYS;

const SESSIONS: [&str; 2] = ["s", "t"];
const KEYS: [&str; 6] = ["a", "b", "d/a", "d", "e/a", "e"];
const DIRS: [&str; 3] = ["", "d", "e"];

/// One letter of the alphabet. The first is the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Put(&'static str, &'static str),
    /// More than a record holds.
    Large(&'static str, &'static str),
    Append(&'static str, &'static str),
    Delete(&'static str, &'static str),
    Move(&'static str, &'static str, &'static str),
    Make(&'static str, &'static str),
    Remove(&'static str, &'static str),
    MoveDir(&'static str, &'static str, &'static str),
    Mode(&'static str, &'static str),
    Declare(&'static str, &'static str),
    Lose(&'static str, &'static str),
    Policy(&'static str),
    /// A program beside the store replaces a value, by its discipline.
    Theirs(&'static str, &'static str),
    /// It is closed and opened again.
    Reopen,
}

use Step::{Append, Declare, Delete, Large, Lose, Make, Mode, Move, MoveDir, Put, Remove, Reopen, Theirs};

/// Values in one directory, and those that change places.
const VALUES: &[Step] = &[
    Put("s", "a"),
    Large("s", "a"),
    Append("s", "a"),
    Delete("s", "a"),
    Move("s", "a", "b"),
    Move("s", "b", "a"),
    Put("s", "b"),
    Mode("s", "a"),
    Declare("s", "a"),
    Lose("s", "a"),
    Theirs("s", "a"),
    Theirs("s", "b"),
    Reopen,
];

/// Directories, what is in them, and keys that have their names.
const NAMES: &[Step] = &[
    Put("s", "d/a"),
    Append("s", "d/a"),
    Delete("s", "d/a"),
    Move("s", "a", "d/a"),
    Move("s", "d/a", "a"),
    Move("s", "a", "d"),
    Remove("s", "d"),
    Make("s", "d"),
    Make("s", "e"),
    Mode("s", "d"),
    Put("s", "d"),
    Put("s", "e/a"),
    Delete("s", "e/a"),
    MoveDir("s", "d", "e"),
    MoveDir("s", "e", "d"),
    Theirs("s", "d/a"),
    Theirs("s", "e/a"),
    Reopen,
];

/// Two sessions; one of them goes and comes.
const BOTH: &[Step] = &[
    Make("t", ""),
    Remove("t", ""),
    Put("t", "a"),
    Append("t", "a"),
    Delete("t", "a"),
    Step::Policy("t"),
    Put("s", "a"),
    Mode("t", ""),
    Make("t", "d"),
    Remove("t", "d"),
    Theirs("t", "a"),
    Reopen,
];

/// What happens at each change and sync of the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The power goes, or the process dies; so it does once more while the store is opened.
    Crash,
    /// The same where commits are answered before their sync.
    Late,
    /// Then a program beside the store puts a value at this key before the store is opened again.
    Then(&'static str),
    /// So many changes of the disk fail with this error.
    Fail(usize, i32),
}

/// A version: bytes, writer, and of the newest one the mode.
type Value = (Vec<u8>, Option<String>, Option<u32>);

/// What a session shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Seen {
    versions: BTreeMap<(String, Version), Value>,
    newest: BTreeMap<String, Version>,
    dirs: BTreeMap<String, u32>,
    changes: Vec<String>,
    policy: Option<Policy>,
}

/// What all sessions show.
type State = Vec<Seen>;

fn session_of(id: &str) -> SessionId {
    SessionId::parse(id).unwrap()
}

/// `count`: how many versions before the newest are kept; 0: all.
fn see(engine: &dyn Engine, id: &str, count: u64) -> Seen {
    let (session, mut seen) = (session_of(id), Seen::default());
    let newest = |path: &str| engine.head(&session, &key(path)).ok().flatten().map(|head| head.version);
    // Who looks finds what a program beside the store has put there.
    for path in KEYS {
        newest(path);
    }
    let Ok(lines) = engine.changes(&session, 0) else { return seen };
    assert_eq!(lines.iter().map(|line| line.seq).collect::<Vec<_>>(), (1..=lines.len() as u64).collect::<Vec<_>>());
    seen.changes = lines.iter().map(|line| format!("{:?} {} {:?}", line.op, line.key, line.version)).collect();
    // In which order strangers' values are found is nobody's promise.
    seen.changes.chunk_by_mut(|a, b| a.starts_with("Adopt ") && b.starts_with("Adopt ")).for_each(<[String]>::sort);
    seen.policy = engine.policy(&session).ok();
    for path in KEYS {
        let newest = newest(path);
        // Versions before those that are kept go some time.
        let last = engine.last_version(&session, &key(path)).unwrap_or_default();
        let goes = |version| count > 0 && version < last.saturating_sub(count);
        for past in engine.past(&session, &key(path)).unwrap_or_default() {
            if past.version().is_some_and(goes) {
                continue;
            }
            let Some(kept) = engine.open_past(&session, &key(path), past).unwrap() else { continue };
            let mode = (past.version().is_none() || newest == past.version()).then_some(kept.head.attributes.mode);
            let at = (past.version().map_or_else(|| format!("{path}/{past}"), |_| path.to_owned()), kept.head.version);
            seen.versions.insert(at, (kept.read_all().unwrap(), kept.head.writer.writer_id.clone(), mode));
        }
        newest.map(|newest| seen.newest.insert(path.to_owned(), newest));
    }
    for path in DIRS {
        let entry = engine.entry(&session, path).unwrap();
        let is_dir = entry.as_ref().is_some_and(|entry| entry.kind == Kind::Dir);
        entry.filter(|_| is_dir).map(|entry| seen.dirs.insert(path.to_owned(), entry.attributes.mode));
    }
    let listed: Vec<_> = engine.list(&session).unwrap_or_default().iter().map(ToString::to_string).collect();
    assert_eq!(listed, seen.newest.keys().cloned().collect::<Vec<_>>());
    seen
}

fn see_all(engine: &dyn Engine, opening: Opening<'_>) -> State {
    SESSIONS.iter().map(|id| see(engine, id, opening.keep.count)).collect()
}

/// The change of a step, the `n`th of its sequence.
fn change(engine: &dyn Engine, step: Step, n: usize) -> Option<(SessionId, Change)> {
    let now = |id: &str, path: &str| engine.head(&session_of(id), &key(path)).ok().flatten().map(|head| head.version);
    let value = |id: &str, path: &str, times: usize| {
        let attributes = Attributes { mtime: at(1_000_000 + n as u64), ..attributes() };
        let content = Staged::from(format!("{path} is {n}.").repeat(times).into_bytes());
        Some((session_of(id), Change::Put { key: key(path), content, expected: now(id, path), attributes }))
    };
    let of = |id: &str, change: Change| Some((session_of(id), change));
    match step {
        Put(id, path) => value(id, path, 1 + n),
        Large(id, path) => value(id, path, 12_000),
        Append(id, path) => {
            let (bytes, expected) = (format!(" and {n}").into_bytes(), now(id, path)?);
            of(id, Change::Append { key: key(path), bytes, expected, mtime: at(2_000_000 + n as u64) })
        }
        Delete(id, path) => of(id, delete(path, now(id, path)?)),
        Move(id, from, to) => of(id, rename(from, to, now(id, from)?, now(id, to))),
        Make(id, path) => of(id, make_dir(path)),
        Remove(id, path) => of(id, remove_dir(path)),
        MoveDir(id, from, to) => of(id, rename_dir(from, to)),
        Mode(id, path) => {
            let set = AttributeChange { mode: Some(0o700 + n as u32), ..Default::default() };
            of(id, Change::Attributes { path: path.to_owned(), set })
        }
        Declare(id, path) => of(id, Change::Declare { key: key(path), expected: now(id, path)? }),
        Lose(id, path) => of(id, lost(path, Lost::Dropped, format!("lost {n}").as_bytes())),
        Step::Policy(id) => of(id, Change::SetPolicy(if n.is_multiple_of(2) { Policy::Warn } else { Policy::Error })),
        Theirs(..) | Reopen => None,
    }
}

/// Every step of it is durable before the next.
fn theirs(disk: &PowerDisk, id: &str, path: &str, n: usize) -> std::io::Result<()> {
    let place = format!("{id}/{path}");
    let (dir, name) = place.rsplit_once('/').unwrap();
    let draft = format!("{dir}/.{name}..agent_state_tmp.{n}");
    let file = disk.create(&draft, 0o600)?;
    file.write_at(0, format!("theirs {n}").as_bytes())?;
    file.sync()?;
    disk.rename(&draft, &place)?;
    disk.sync_dir(dir)
}

/// A store that somebody works with.
struct Run {
    disk: PowerDisk,
    opening: Opening<'static>,
    late: bool,
    engine: LocalEngine,
}

impl Run {
    /// What there is before a sequence; `settled`: all of it is in its place for good.
    fn begin(opening: Opening<'static>, late: bool, settled: bool) -> Self {
        let disk = PowerDisk::new();
        let engine = open(&disk, opening, late).unwrap();
        make_session(&engine);
        engine.commit(&session_of("t"), make_dir(""), &by("w")).unwrap();
        commit(&engine, put("a", b"one", None));
        commit(&engine, make_dir("d"));
        commit(&engine, put("d/a", b"one below", None));
        engine.sync().unwrap();
        let mut run = Self { disk, opening, late, engine };
        if settled {
            run.reopen().unwrap();
        }
        run
    }

    fn reopen(&mut self) -> Result<(), EngineError> {
        self.engine.close()?;
        self.engine = open(&self.disk, self.opening, self.late)?;
        Ok(())
    }

    /// `None`: there is nothing that it could be done to.
    fn make(&mut self, step: Step, n: usize) -> Option<Result<(), EngineError>> {
        match step {
            Reopen => Some(self.reopen()),
            Theirs(id, path) => {
                self.disk.stat(id).ok()?;
                Some(theirs(&self.disk, id, path, n).map_err(|e| EngineError::Closed(e.to_string())))
            }
            _ => {
                let (session, change) = change(&self.engine, step, n)?;
                Some(self.engine.commit(&session, change, &by(&format!("w{n}"))).map(drop))
            }
        }
    }
}

fn open(disk: &PowerDisk, opening: Opening<'static>, late: bool) -> Result<LocalEngine, EngineError> {
    let engine = LocalEngine::open_with(Arc::new(disk.clone()), opening)?;
    Ok(if late { engine.deferring() } else { engine })
}

/// A sequence, and how it is looked at.
#[derive(Clone)]
struct Case {
    steps: Vec<Step>,
    opening: Opening<'static>,
    settled: bool,
    trouble: Trouble,
    cuts: u64,
    seed: u64,
}

impl Case {
    fn late(&self) -> bool {
        self.trouble == Trouble::Late
    }

    /// What is shown after so many steps; `None`: one of them is refused.
    fn after(&self, steps: usize) -> Option<State> {
        let mut run = Run::begin(self.opening, false, self.settled);
        for (n, step) in self.steps.iter().take(steps).enumerate() {
            run.make(*step, n)?.ok()?;
        }
        Some(see_all(&run.engine, self.opening))
    }

    fn states(&self) -> Option<Vec<State>> {
        (0..=self.steps.len()).map(|steps| self.after(steps)).collect()
    }

    /// Does it up to its last step, which `doing` does.
    fn prepared(&self) -> Option<Run> {
        let mut run = Run::begin(self.opening, self.late(), self.settled);
        let (_, before) = self.steps.split_last()?;
        for (n, step) in before.iter().enumerate() {
            run.make(*step, n)?.ok()?;
        }
        Some(run)
    }

    fn last(&self) -> (Step, usize) {
        (self.steps[self.steps.len() - 1], self.steps.len() - 1)
    }

    /// How many steps are durable for sure once so many were acknowledged.
    fn durable(&self, acknowledged: usize) -> usize {
        let waits = |step: &Step| matches!(step, Put(..) | Large(..) | Append(..) | Theirs(..));
        match self.late() {
            true => (1..=acknowledged).rev().find(|n| !waits(&self.steps[n - 1])).unwrap_or(0),
            false => acknowledged,
        }
    }
}

/// How many disks were looked at, and what was wrong.
fn look_at(case: &Case) -> (usize, Vec<String>) {
    let Some(states) = case.states() else { return (0, Vec::new()) };
    match case.trouble {
        Trouble::Fail(count, errno) => fail_everywhere(case, &states, count, errno),
        _ => crash_everywhere(case, &states),
    }
}

fn crash_everywhere(case: &Case, states: &[State]) -> (usize, Vec<String>) {
    let Some(mut run) = case.prepared() else { return (0, Vec::new()) };
    let left = Arc::<Mutex<Vec<_>>>::default();
    let ((step, n), taking, cuts) = (case.last(), Arc::clone(&left), case.cuts);
    let (mut seed, then) = (case.seed << 16, matches!(case.trouble, Trouble::Then(_)));
    let mut take = move |disk: &PowerDisk, what: &str, acknowledged: usize| {
        for _ in 0..cuts {
            seed += 1;
            // What a power cut brings back to its place, a program that replaces it there takes with it.
            let dies = then || seed % 3 == 0;
            let left = if dies { disk.after_death() } else { disk.after_cut(&mut Chance::new(seed)) };
            taking.lock().unwrap().push((left, what.to_owned(), acknowledged, seed, dies));
        }
    };
    let take = Arc::new(Mutex::new(move |disk: &PowerDisk, what: &str, done| take(disk, what, done)));
    let taking = Arc::clone(&take);
    run.disk.before(move |disk, what| taking.lock().unwrap()(disk, what, n));
    let made = run.make(step, n);
    run.disk.before(|_, _| {});
    if !matches!(made, Some(Ok(()))) {
        return (0, vec![format!("the last step was refused: {made:?}")]);
    }
    take.lock().unwrap()(&run.disk, "the end", n + 1);
    let all = std::mem::take(&mut *left.lock().unwrap());
    let looked = all.len();
    let mut wrong = Vec::new();
    for (disk, what, done, seed, dies) in all {
        let least = if dies { done } else { case.durable(done) };
        let expected = states.get(least..=(done + 1).min(states.len() - 1)).unwrap_or_default();
        let judging = std::panic::AssertUnwindSafe(|| judge(case, disk, expected, states, seed));
        let judged = std::panic::catch_unwind(judging);
        if let Err(e) = judged.unwrap_or_else(|e| Err(format!("panic {:?}", e.downcast_ref::<String>()))) {
            wrong.push(format!("before {what} (seed {seed}, death {dies}): {e}"));
        }
    }
    (looked, wrong)
}

/// A crash, and then everything that is promised of what it left.
fn judge(case: &Case, mut disk: PowerDisk, expected: &[State], before: &[State], seed: u64) -> Result<(), String> {
    let (mut chance, told) = (Chance::new(seed ^ 0xFACE), std::env::var_os("BATONFS_SMALL_TOLD").is_some());
    if let Trouble::Then(path) = case.trouble {
        disk = disk.settled(false);
        if disk.stat(format!("s/{path}").rsplit_once('/').unwrap().0).is_err() {
            return Ok(());
        }
        if theirs(&disk, "s", path, 99).is_err() {
            return Ok(());
        }
    }
    for _ in 0..chance.below(3) {
        if told {
            disk.tell();
        }
        disk.cut_after(chance.below(40) as usize);
        drop(open(&disk, case.opening, false));
        if told {
            say("--- again");
        }
        // What was not durable before the death of a process may go with the power now.
        disk = if chance.is(50) && !case.late() { disk.after_cut(&mut chance) } else { disk.after_death() };
    }
    if told {
        disk.tell();
    }
    let engine = open(&disk, case.opening, false).map_err(|e| format!("it cannot be opened: {e}"))?;
    let now = see_all(&engine, case.opening);
    let found = expected.iter().find(|expected| fits(case, &now, expected, before));
    if found.is_none() {
        let differences: Vec<_> = expected.iter().map(|expected| difference(&now, expected)).collect();
        return Err(differences.join("\nor"));
    }
    engine.close().map_err(|e| format!("it cannot be closed: {e}"))?;
    drop(engine);
    // What the program beside the store had not yet put in its place stays beside it.
    let whole = sound(&disk).or_else(|e| {
        let of_ours = e.lines().skip(1).any(|line| !line.contains("agent_state_tmp"));
        if of_ours { Err(e) } else { Ok(()) }
    });
    whole?;
    let engine = open(&disk.after_cut(&mut chance), case.opening, false).map_err(|e| format!("opened again: {e}"))?;
    let again = see_all(&engine, case.opening);
    if !is_or_has_more(case, &again, &now, before) {
        return Err(format!("closed and opened again{}", difference(&again, &now)));
    }
    commit(&engine, put("after", b"it goes on", None));
    Ok(())
}

/// Does it show what it should? What a program beside the store has replaced may be a version all the same, where a record
/// had it.
fn fits(case: &Case, now: &State, expected: &State, before: &[State]) -> bool {
    if let Trouble::Then(path) = case.trouble {
        return fits_then(path, now, expected, before);
    }
    is_or_has_more(case, now, expected, before)
}

fn is_or_has_more(case: &Case, now: &State, expected: &State, before: &[State]) -> bool {
    if now == expected {
        return true;
    }
    if !matches!(case.trouble, Trouble::Then(_)) && !case.steps.iter().any(|step| matches!(step, Theirs(..))) {
        return false;
    }
    now.iter().zip(expected).enumerate().all(|(at, (now, expected))| {
        let had = |key: &(String, Version), value: &Value| {
            before
                .iter()
                .any(|state| state[at].versions.get(key).is_some_and(|was| was.0 == value.0 && was.1 == value.1))
        };
        let mut less = now.clone();
        less.versions.retain(|key, value| {
            expected.versions.contains_key(key) || now.newest.get(&key.0) == Some(&key.1) || !had(key, value)
        });
        less == *expected
    })
}

/// Theirs is the newest, and all else is there but the value that it has replaced.
fn fits_then(path: &str, now: &State, expected: &State, before: &[State]) -> bool {
    // What was in its place at the death, of a change that was not yet made there.
    let was_there = |version: &Version| before.iter().any(|state| state[0].newest.get(path) == Some(version));
    let (now, expected) = (&now[0], &expected[0]);
    let newest = now.newest.get(path).copied();
    let is_theirs = newest.and_then(|newest| now.versions.get(&(path.to_owned(), newest)));
    let is_other = |key: &&(String, Version)| key.0 != path || !was_there(&key.1);
    is_theirs.is_some_and(|value| value.0 == b"theirs 99")
        && expected.versions.keys().filter(is_other).all(|key| {
            let (is, should) = (now.versions.get(key), expected.versions.get(key));
            is.map(|value| (&value.0, &value.1)) == should.map(|value| (&value.0, &value.1))
        })
        && expected.newest.iter().all(|(key, newest)| {
            if key == path { now.newest.get(key) > Some(newest) } else { now.newest.get(key) == Some(newest) }
        })
        && now.changes.starts_with(&expected.changes)
        && now.policy == expected.policy
}

/// Some changes of the disk fail in the last step: it is refused and nothing of it is there, or it is made; and so it is
/// after a crash.
fn fail_everywhere(case: &Case, states: &[State], count: usize, errno: i32) -> (usize, Vec<String>) {
    let ((step, n), mut wrong) = (case.last(), Vec::new());
    for moment in 0.. {
        let Some(mut run) = case.prepared() else { return (moment, wrong) };
        run.disk.fail_at(moment, count, errno);
        let made = run.make(step, n);
        if run.disk.fail_over() == Some(count) {
            return (moment, wrong);
        }
        let seed = case.seed << 16 | moment as u64;
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut chance = Chance::new(seed);
            // Then what the disk has is unknown until the store is opened again, and no stranger's value gets a number.
            let closed =
                matches!(run.engine.commit(&session(), remove_dir("none"), &by("w")), Err(EngineError::Closed(_)));
            let either = closed || matches!(step, Reopen | Theirs(..));
            let expected = match &made {
                Some(Ok(())) => &states[n + 1..],
                _ if either => &states[n..],
                _ => &states[n..=n],
            };
            if !either {
                let now = see_all(&run.engine, case.opening);
                if !expected.iter().any(|expected| fits(case, &now, expected, states)) {
                    return Err(format!("made {made:?}, then{}", difference(&now, &expected[0])));
                }
            }
            if chance.is(30) {
                drop(run.engine.close());
            }
            let left = if chance.is(40) { run.disk.after_death() } else { run.disk.after_cut(&mut chance) };
            judge(case, left, expected, states, seed).map_err(|e| format!("made {made:?}, then {e}"))
        }));
        if let Err(e) = judged.unwrap_or_else(|e| Err(format!("panic {:?}", e.downcast_ref::<String>()))) {
            wrong.push(format!("moment {moment} fails (seed {seed}): {e}"));
        }
    }
    (0, wrong)
}

fn difference(is: &State, should: &State) -> String {
    let text = |(key, version): &(String, Version), (bytes, writer, mode): &Value| {
        let start = String::from_utf8_lossy(bytes.get(..20).unwrap_or(bytes)).into_owned();
        format!("\n    {key}:{version} {start:?} of {} bytes by {writer:?} mode {mode:?}", bytes.len())
    };
    let one = |sign: &str, of: &Seen, other: &Seen| {
        let versions = of.versions.iter().filter(|(key, value)| other.versions.get(*key) != Some(*value));
        let versions: Vec<_> = versions.map(|(key, value)| text(key, value)).collect();
        let (changes, policy) = (&of.changes, &of.policy);
        format!("\n  {sign} {changes:?} {policy:?} {:?} {:?}{}", of.newest, of.dirs, versions.concat())
    };
    let differs = is.iter().zip(should).filter(|(is, should)| is != should);
    differs.map(|(is, should)| one("-", should, is) + &one("+", is, should)).collect()
}

/// All sequences of so many letters, of each `every`th one.
fn cases(alphabet: &[Step], len: usize, every: u64, trouble: Trouble, cuts: u64) -> Vec<Case> {
    let all = (alphabet.len() as u64).pow(len as u32);
    let mut chance = Chance::new(len as u64 * 77 + cuts);
    let mut cases = Vec::new();
    for number in 0..all {
        if every > 1 && chance.below(every) > 0 {
            continue;
        }
        let (mut steps, mut rest) = (Vec::new(), number);
        for _ in 0..len {
            steps.push(alphabet[(rest % alphabet.len() as u64) as usize]);
            rest /= alphabet.len() as u64;
        }
        let few = Opening { keep: Keep { count: 1, age: None }, ..ALWAYS };
        let opening = if number % 4 == 3 { few } else { Opening::USUAL };
        // What is let go of at one number and what is not differ only by luck where so few are kept.
        let others = steps.iter().any(|step| matches!(step, Theirs(..))) || matches!(trouble, Trouble::Then(_));
        let opening = if others { Opening::USUAL } else { opening };
        cases.push(Case { steps, opening, settled: number % 3 > 0, trouble, cuts, seed: number });
    }
    cases
}

/// How many disks were looked at, and what was wrong.
fn run_all(name: &str, cases: &[Case]) -> (usize, Vec<String>) {
    let (next, looked, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let (seen, found) = look_at(case);
                    looked.fetch_add(seen, Ordering::SeqCst);
                    if let Some(first) = found.first() {
                        let (steps, all) = (&case.steps, found.len());
                        let text = format!("{name} {steps:?} (settled {}, {all} of {seen}): {first}", case.settled);
                        if std::env::var_os("BATONFS_SMALL_SAY").is_some() {
                            say(&text);
                        }
                        wrong.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let (looked, wrong) = (looked.into_inner(), wrong.into_inner().unwrap());
    println!("{name}: {looked} disks of {} sequences", cases.len());
    (looked, wrong)
}

fn long() -> bool {
    std::env::var_os("BATONFS_LONG").is_some()
}

fn sweep(name: &str, alphabet: &[Step], trouble: Trouble) {
    // Of each length about so many sequences; `BATONFS_SMALL` for another number, for hours.
    let asked = std::env::var("BATONFS_SMALL").ok().and_then(|number| number.parse().ok());
    let (lens, most) = if long() { (1..=4, asked.unwrap_or(50)) } else { (2..=2, 8) };
    let cuts = if long() { 4 } else { 1 };
    let (mut looked, mut wrong) = (0, Vec::new());
    for len in lens {
        let all = (alphabet.len() as u64).pow(len as u32);
        let (more, found) = run_all(&format!("{name} {len}"), &cases(alphabet, len, all.div_ceil(most), trouble, cuts));
        looked += more;
        wrong.extend(found);
    }
    assert!(wrong.is_empty(), "{} sequences fail, the first:\n{}", wrong.len(), wrong[0]);
    assert!(looked > 0, "only {looked} disks");
}

/// The letters without those of the program beside the store.
fn ours(steps: &[Step]) -> Vec<Step> {
    steps.iter().copied().filter(|step| !matches!(step, Theirs(..))).collect()
}

/// Many cuts in one sequence.
fn one(steps: &[Step], settled: bool) {
    one_under(Trouble::Crash, steps, settled, (6, 1), 50);
}

/// One sequence, with so many cuts at each moment of this seed, on more than `least` disks.
fn one_under(trouble: Trouble, steps: &[Step], settled: bool, (cuts, seed): (u64, u64), least: usize) {
    let case = Case { steps: steps.to_vec(), opening: Opening::USUAL, settled, trouble, cuts, seed };
    let (looked, wrong) = run_all("one", &[case]);
    assert!(wrong.is_empty(), "{}", wrong[0]);
    assert!(looked > least, "only {looked} disks");
}

// F27
#[test]
fn the_policy_of_a_session_that_was_removed_does_not_come_back_with_another_of_its_name() {
    one(&[Step::Policy("t"), Remove("t", ""), Make("t", ""), Put("t", "a")], true);
}

// F27
#[test]
fn what_a_stranger_replaced_does_not_come_back_where_the_strangers_value_was_moved_away() {
    one(&[Theirs("s", "d/a"), Move("s", "d/a", "a")], false);
}

// F27
#[test]
fn the_attributes_of_a_directory_that_was_removed_do_not_come_back_with_another_of_its_name() {
    one(&[Delete("s", "d/a"), Remove("s", "d"), Put("s", "d/a")], false);
    one(&[Mode("s", "d"), Delete("s", "d/a"), Remove("s", "d"), Put("s", "d/a")], true);
}

// F33
#[test]
fn the_mark_of_a_large_value_that_went_to_history_beside_a_strangers_is_made_good() {
    one_under(Trouble::Then("a"), &[Move("s", "a", "b"), Large("s", "a")], false, (4, 15), 50);
}

// F32
#[test]
fn a_sidecar_of_ours_whose_mark_power_has_taken_does_not_name_the_writer_of_a_strangers_value() {
    let steps = [Append("s", "a"), Put("s", "a"), Theirs("s", "a"), Large("s", "a")];
    // Of ten seeds about one has such a cut.
    for seed in [3, 10, 26, 30] {
        one_under(Trouble::Crash, &steps, true, (4, seed), 50);
    }
}

// F32 F33
#[test]
fn a_sidecar_of_a_recovery_that_power_cut_off_names_nobody_for_a_strangers_value() {
    let mut run = Run::begin(Opening::USUAL, false, true);
    for (n, step) in [Put("s", "a"), Put("s", "a"), Put("s", "b")].into_iter().enumerate() {
        run.make(step, n).unwrap().unwrap();
    }
    let mut met = 0;
    for seed in if long() { 0..4000 } else { 1000..1300 } {
        let mut chance = Chance::new(seed);
        let disk = run.disk.after_cut(&mut chance);
        let (goes, mut came) = (chance.below(12) as usize, false);
        // Both values of `a` are in their places, and the sidecar of the first is free.
        disk.before(move |disk, what| {
            if !came && what.ends_with(" s/b") {
                came = true;
                theirs(disk, "s", "a", 9).unwrap();
                disk.cut_after(goes);
            }
        });
        drop(open(&disk, Opening::USUAL, false));
        disk.before(|_, _| {});
        let engine = open(&disk.after_cut(&mut chance), Opening::USUAL, false).unwrap();
        let found = engine.open(&session_of("s"), &key("a")).unwrap().unwrap();
        if found.read_all().unwrap() == b"theirs 9" {
            met += 1;
            assert_eq!(found.head.writer.writer_id, None, "seed {seed}");
        }
    }
    assert!(met > 100, "only {met} times");
}

// F25
#[test]
fn a_strangers_value_that_could_not_be_marked_gets_no_second_version() {
    for step in [Mode("s", "a"), Put("s", "a"), Delete("s", "a"), Move("s", "a", "b")] {
        one_under(Trouble::Fail(1, libc::EIO), &[Theirs("s", "a"), step], false, (1, 1), 3);
    }
}

#[test]
fn f27_a_crash_in_any_short_sequence_of_values_takes_nothing_acknowledged() {
    sweep("values", VALUES, Trouble::Crash);
}

#[test]
fn f27_a_crash_in_any_short_sequence_of_names_takes_nothing_acknowledged() {
    sweep("names", NAMES, Trouble::Crash);
}

#[test]
fn f27_a_crash_in_any_short_sequence_of_two_sessions_takes_nothing_acknowledged() {
    sweep("sessions", BOTH, Trouble::Crash);
}

#[test]
fn f52_a_power_cut_in_any_short_sequence_takes_an_end_of_what_waits() {
    sweep("late", &ours(&[VALUES, NAMES].concat()), Trouble::Late);
}

#[test]
fn f17_a_disk_that_fails_for_a_moment_in_any_short_sequence_leaves_a_change_whole_or_not_at_all() {
    let ways = [(3, libc::ENOSPC), (1, libc::EIO), (usize::MAX, libc::ENOSPC)];
    for (count, errno) in ways.into_iter().take(if long() { 3 } else { 1 }) {
        for (name, alphabet) in [("values", VALUES), ("names", NAMES), ("sessions", BOTH)] {
            sweep(&format!("{name}, {count} fail"), alphabet, Trouble::Fail(count, errno));
        }
    }
}

#[test]
fn f28_what_a_program_puts_after_a_crash_in_any_short_sequence_stays_and_ours_is_in_history() {
    sweep("values, then a", &ours(VALUES), Trouble::Then("a"));
    // What is put into a directory goes with it to its new name.
    let mut names = ours(NAMES);
    names.retain(|step| !matches!(step, MoveDir(..)));
    sweep("names, then d/a", &names, Trouble::Then("d/a"));
    sweep("names, then e/a", &names, Trouble::Then("e/a"));
}
