//! C1 to C13, C18: random steps of several processes on the mount, each compared with a reference model.
//! The model is `model/world.rs`; what processes do is in `model/steps.rs`.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use serde_json::Value as Json;

use self::agents::{Agent, Agents};
use self::steps::{Act, Op, Step, resolve};
use self::world::{Answer, Key, Line, Proc, World};
use crate::harness::{self, Mount};

mod agents;
mod found;
mod plain;
mod steps;
mod world;

/// One processor makes the steps of one lane while another decides on those of the other.
const LANES: u64 = 4;
const STEPS_MAX: usize = 35;
/// So often a case is tried again in which the clock committed an append, before it is left unjudged.
const TRIES: usize = 20;

// C1, C4, C5, C6, C7, C8, C9, C10, C11, C12, C13, C18
#[test]
fn several_processes_meet_what_the_model_says_at_every_step() {
    let Some(mount) = Mount::in_memory(&["--conflict-policy", "warn"]) else { return };
    let cases = number("BATONFS_MODEL_CASES").unwrap_or(if harness::long() { 100_000 } else { 2_000 });
    // A gate should say the same twice; the long rounds look for what it has not seen.
    let fresh = || u64::from(std::process::id()) ^ mount.status()["nodes"].as_u64().unwrap_or(0) << 32;
    let seed = number("BATONFS_MODEL_SEED").unwrap_or_else(|| if harness::long() { fresh() } else { 1 });
    println!("BATONFS_MODEL_SEED={seed}");
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        let (mount, failed) = (&mount, &failed);
        let lane = |lane| scope.spawn(move || run(mount, lane, seed, cases / LANES, failed));
        let lanes: Vec<_> = (0..LANES).map(lane).collect();
        for lane in lanes {
            lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

#[test]
fn what_random_steps_have_found_stays_mended() {
    let Some(mount) = Mount::in_memory(&["--conflict-policy", "warn"]) else { return };
    let mut lane = Lane::new(&mount, LANES);
    let judged = found::CASES.iter().filter_map(|(name, processes, ops)| {
        let judged = lane.judge(*processes, true, true, ops);
        judged.err().map(|story| format!("{name}:\n{story}"))
    });
    let wrong: Vec<_> = judged.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(lane.unjudged, 0);
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// One lane's cases, each in a session of its own.
fn run(mount: &Mount, lane: u64, seed: u64, cases: u64, failed: &AtomicBool) {
    let lane = RefCell::new(Lane::new(mount, lane));
    let name = lane.borrow().name;
    // Reading the log costs more than most cases: every fourth compares it.
    let strategy =
        (1..4_usize, any::<bool>(), prop::bool::weighted(0.25), prop::collection::vec(steps::op(), 1..STEPS_MAX));
    let mine = Cell::new(false);
    let judged = runner(cases, seed, name).run(&strategy, |(processes, seeded, logged, ops)| {
        // What another lane has found is shown alone.
        if failed.load(Ordering::Relaxed) && !mine.get() {
            return Ok(());
        }
        let judged = lane.borrow_mut().judge(processes, seeded, logged, &ops);
        mine.set(mine.get() || (judged.is_err() && !failed.swap(true, Ordering::Relaxed)));
        judged.map_err(TestCaseError::fail)
    });
    let lane = lane.into_inner();
    match judged {
        Ok(()) => {}
        Err(TestError::Fail(reason, case)) => panic!("{reason}from {case:?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let Lane { steps, looked, unjudged, replayed, .. } = lane;
    println!("{} cases, {steps} steps, {looked} looks, {unjudged} not judged, {replayed} played again", lane.cases);
    assert!(lane.unjudged * 10 < cases.max(100), "{} of {cases} cases were not judged", lane.unjudged);
}

/// Of one seed, each lane has its own cases. Nothing is kept from one run to the next.
fn runner(cases: u64, seed: u64, lane: u64) -> TestRunner {
    let cases = u32::try_from(cases).expect("a number of cases");
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 3_000, ..Config::default() };
    let seed = [seed.to_le_bytes(), lane.to_le_bytes(), [0; 8], [0; 8]].concat();
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

/// What the cases of one thread share.
struct Lane<'a> {
    mount: &'a Mount,
    agents: Agents,
    name: u64,
    cases: u64,
    steps: u64,
    looked: u64,
    unjudged: u64,
    replayed: u64,
}

impl<'a> Lane<'a> {
    fn new(mount: &'a Mount, name: u64) -> Self {
        let socket = mount.scratch().join(format!("agents-{name}"));
        let agents = Agents::start(|words| mount.command(words), &socket);
        Self { mount, agents, name, cases: 0, steps: 0, looked: 0, unjudged: 0, replayed: 0 }
    }

    /// Plays a case until its outcome has nothing to do with the clock. Appends are committed within a second of
    /// their write (C7): the model does not guess when.
    fn judge(&mut self, processes: usize, seeded: bool, logged: bool, ops: &[Op]) -> Result<(), String> {
        for _ in 0..TRIES {
            let aged = self.mount.committed_at("age");
            let outcome = Case::new(self, processes, seeded).play(ops, logged);
            // Where nobody else is at work here, an append that the clock has committed was this case's.
            if outcome.is_ok() || self.mount.committed_at("age") == aged {
                return outcome;
            }
            self.replayed += 1;
            eprintln!("played again, since the clock has committed an append: {}", outcome.unwrap_err());
        }
        self.unjudged += 1;
        Ok(())
    }
}

/// A case at work.
struct Case<'l, 'a> {
    lane: &'l mut Lane<'a>,
    dir: PathBuf,
    session: String,
    agents: Vec<Option<Agent>>,
    world: World,
    story: String,
}

impl<'l, 'a> Case<'l, 'a> {
    fn new(lane: &'l mut Lane<'a>, processes: usize, seeded: bool) -> Self {
        lane.cases += 1;
        let session = format!("case-{}-{}", lane.name, lane.cases);
        let dir = lane.mount.point().join(&session);
        fs::create_dir(&dir).expect("a session");
        let mut case = Self { lane, dir, session, agents: Vec::new(), world: World::default(), story: String::new() };
        if seeded {
            fs::write(case.dir.join("k0"), "0123456789").expect("a value");
            case.world.put("put", 0, b"0123456789".to_vec(), false);
            case.story += "k0 is there, of ten bytes\n";
        }
        (0..processes).for_each(|_| case.start());
        case
    }

    fn start(&mut self) {
        self.agents.push(Some(self.lane.agents.spawn()));
        self.world.start(None);
    }

    fn play(mut self, ops: &[Op], logged: bool) -> Result<(), String> {
        for (number, op) in ops.iter().enumerate() {
            let Some(act) = resolve(op, &self.world, number) else { continue };
            self.act(act)?;
            if self.world.undecided {
                self.lane.unjudged += 1;
                return Ok(());
            }
        }
        for process in self.world.alive() {
            self.act(Act::End(process, false))?;
        }
        self.lane.looked += self.world.looked;
        if self.world.undecided { Ok(()) } else { self.compare(logged) }
    }

    fn act(&mut self, act: Act) -> Result<(), String> {
        self.lane.steps += 1;
        let Self { dir, world, .. } = self;
        let mut look = |key: Key| version(&dir.join(format!("k{key}")));
        match act {
            Act::Start => {
                self.story += "start\n";
                self.start();
            }
            Act::Fork(parent) => {
                let agent = self.agents[parent].as_mut().expect("alive").fork(&self.lane.agents);
                self.agents.push(Some(agent));
                let child = self.world.start(Some(parent));
                self.story += &format!("p{parent} fork = p{child}\n");
            }
            Act::End(process, killed) => {
                self.agents[process].take().expect("alive").end(killed);
                self.story += &format!("p{process} {}\n", if killed { "is killed" } else { "exits" });
                world.end(process, killed, &mut look);
            }
            Act::Step(step) => {
                let process = step.process();
                let line = step.line(&dir.to_string_lossy());
                let answer = self.agents[process].as_mut().expect("alive").ask(&line);
                let makes = matches!(step, Step::Open { .. } | Step::Dup { .. });
                let fd = answer.as_ref().ok().filter(|_| makes).and_then(|fd| fd.parse().ok());
                let expected = world.step(&step, fd, &mut look);
                self.tell(process, &step, &answer);
                if answer != expected {
                    return Err(format!("{}the model says {}\n", self.story, shown(&expected)));
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, process: Proc, step: &Step, answer: &Answer) {
        let flags = if let Step::Open { flags, .. } = step { format!(" ({flags})") } else { String::new() };
        let line: String = step.line("s").chars().take(60).collect();
        self.story += &format!("p{process} {line}{flags} = {}\n", shown(answer));
    }

    /// Names, values, versions and the log, as a stranger sees them when all is over.
    fn compare(mut self, logged: bool) -> Result<(), String> {
        let wrong = |what: &str, is: String, model: String| {
            Err(format!("{}at the end, {what}: {is}\nthe model says {model}\n", self.story))
        };
        let entries = fs::read_dir(&self.dir).expect("a directory");
        let mut names: Vec<_> =
            entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        let expected: Vec<_> = self.world.values().keys().map(|key| format!("k{key}")).collect();
        if names != expected {
            return wrong("names", format!("{names:?}"), format!("{expected:?}"));
        }
        for (key, value) in self.world.values() {
            let path = self.dir.join(format!("k{key}"));
            let (is, number) = (fs::read(&path).expect("a value"), version(&path));
            if is != value.bytes {
                return wrong(&format!("k{key}"), text(&is), text(&value.bytes));
            }
            if number != Some(value.version) {
                return wrong(&format!("the version of k{key}"), format!("{number:?}"), format!("{}", value.version));
            }
        }
        if logged {
            let log = fs::read_to_string(self.dir.join(".baton/log")).expect("the log");
            let mut log: Vec<Line> = log.lines().filter_map(line).collect();
            if self.world.looked > 0 {
                // A commit that a limit has delayed comes after others, of other keys.
                let target = |line: &Line| line.to.unwrap_or(line.key);
                log.sort_by_key(target);
                self.world.log.sort_by_key(target);
            }
            if log != self.world.log {
                let lines = |log: &[Line]| log.iter().map(|line| format!("\n  {line:?}")).collect::<String>();
                return wrong("the log", lines(&log), lines(&self.world.log));
            }
        }
        // What a few thousand cases leave goes with the store.
        if harness::long() {
            fs::remove_dir_all(&self.dir).unwrap_or_else(|e| panic!("{}removing {}: {e}", self.story, self.session));
        }
        Ok(())
    }
}

fn version(path: &std::path::Path) -> Option<u64> {
    let mut buffer = [0; 24];
    let len = rustix::fs::getxattr(path, "user.baton.version", &mut buffer[..]).ok()?;
    std::str::from_utf8(&buffer[..len]).ok()?.parse().ok()
}

/// A line of the log as the model tells it; `None` for what is no step of a case.
fn line(text: &str) -> Option<Line> {
    let line: Json = serde_json::from_str(text).expect("JSON");
    let key = |name: &str| line[name].as_str().and_then(|key| key.strip_prefix('k')?.parse().ok());
    let op = ["put", "append", "delete", "rename", "drop"].into_iter().find(|&op| line["op"] == op)?;
    Some(Line {
        op,
        key: key("key").expect("a key"),
        to: key("to"),
        version: line["version"].as_u64(),
        size: line["size_bytes"].as_u64(),
        conflict: line["conflict"].is_string(),
    })
}

fn text(bytes: &[u8]) -> String {
    format!("{} bytes {:?}", bytes.len(), String::from_utf8_lossy(&bytes[..bytes.len().min(60)]))
}

fn shown(answer: &Answer) -> String {
    match answer {
        Ok(result) if result.len() > 80 => format!("{}... ({} digits)", &result[..80], result.len()),
        Ok(result) => result.clone(),
        Err(errno) => std::io::Error::from_raw_os_error(*errno).to_string(),
    }
}
