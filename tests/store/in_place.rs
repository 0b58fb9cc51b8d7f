//! Random changes of ours, and of a program beside the store that writes into the files that are there, durably, and is
//! found; then the power goes at each step of the last change, or the process dies: no version of anybody's is lost or
//! another's, and none was never there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use batonfs::engine::local::disk::{Access, Disk};
use batonfs::engine::local::{LocalEngine, Opening};
use batonfs::engine::{AttributeChange, Change, Engine, Keep, Staged};

use crate::engines::*;
use crate::power::sound;
use crate::power_disk::{Chance, PowerDisk};

/// The bytes that each version has ever shown.
type Ever = BTreeMap<(String, u64), Vec<Vec<u8>>>;

/// What the session shows.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Now {
    versions: BTreeMap<(String, u64), Vec<u8>>,
    newest: BTreeMap<String, u64>,
    changes: Vec<String>,
}

/// `count`: how many versions before the newest are kept; 0: all.
fn now(engine: &dyn Engine, count: u64) -> Result<Now, String> {
    let mut now = Now::default();
    for path in ["a", "b"] {
        let head = engine.head(&session(), &key(path)).map_err(|e| e.to_string())?;
        head.map(|head| now.newest.insert(path.to_owned(), head.version));
        let last = engine.last_version(&session(), &key(path)).map_err(|e| e.to_string())?;
        let least = last.saturating_sub(if count > 0 { count } else { u64::MAX });
        for version in engine.versions(&session(), &key(path)).map_err(|e| e.to_string())? {
            if version < least {
                continue;
            }
            let kept =
                engine.open_version(&session(), &key(path), version).map_err(|e| format!("{path}:{version}: {e}"))?;
            let Some(kept) = kept else { return Err(format!("{path}:{version} is listed and not there")) };
            now.versions.insert((path.to_owned(), version), kept.read_all().map_err(|e| e.to_string())?);
        }
    }
    now.changes = engine
        .changes(&session(), 0)
        .map_err(|e| e.to_string())?
        .iter()
        .map(|line| format!("{:?} {} {:?}", line.op, line.key, line.version))
        .collect();
    Ok(now)
}

fn short(bytes: &[u8]) -> String {
    format!("{:?}/{}", String::from_utf8_lossy(&bytes[..bytes.len().min(30)]), bytes.len())
}

fn told(now: &Now) -> String {
    let versions: Vec<_> = now.versions.iter().map(|((k, v), b)| format!("{k}:{v}={}", short(b))).collect();
    format!("{:?} {:?} {versions:?}", now.newest, now.changes)
}

/// A shell's `>`, `>>` and `1<>`.
fn in_place(disk: &PowerDisk, path: &str, n: u64, chance: &mut Chance) {
    let place = format!("s/{path}");
    let Ok(file) = disk.open(&place, Access::Write) else { return };
    let size = disk.stat(&place).unwrap().size_bytes;
    match chance.below(4) {
        0 => {
            file.set_len(0).unwrap();
            file.write_at(0, format!("IN PLACE {n}").as_bytes()).unwrap();
        }
        1 => file.write_at(0, format!("IN PLACE {n} longer than it may have been before {n}").as_bytes()).unwrap(),
        2 => file.write_at(size, format!("APPENDED IN PLACE {n}").as_bytes()).unwrap(),
        _ => file.write_at(0, format!("{n}").as_bytes()).unwrap(),
    }
    file.sync().unwrap();
    disk.sync_dir("s").unwrap();
}

struct Run {
    seed: u64,
    disk: PowerDisk,
    engine: LocalEngine,
    chance: Chance,
    log: Vec<String>,
    keys: u64,
}

impl Run {
    fn step(&mut self, n: u64, ours: bool) {
        let Self { disk, engine, chance, .. } = self;
        let path = if chance.below(10) < self.keys { "b" } else { "a" };
        let other = if path == "a" { "b" } else { "a" };
        let there = version(&*engine, path);
        let what = chance.below(if ours { 10 } else { 15 });
        let change = match (what, there) {
            (0..=2, _) | (4..=9, None) => {
                Some(put(path, format!("put {n} of {path}").repeat(1 + chance.below(4) as usize).as_bytes(), there))
            }
            (3, _) => Some(Change::Put {
                key: key(path),
                content: Staged::from(format!("large {n}").repeat(10_000).into_bytes()),
                expected: there,
                attributes: attributes(),
            }),
            (4..=5, Some(v)) => Some(append(path, format!(" +{n}").as_bytes(), v)),
            (6, Some(v)) => Some(delete(path, v)),
            (7, Some(v)) => Some(rename(path, other, v, version(&*engine, other))),
            (8, Some(v)) => Some(Change::Declare { key: key(path), expected: v }),
            (9, Some(_)) => {
                let mtime = chance.is(50).then(|| at(3_000_000 + n));
                let set = AttributeChange { mode: Some(0o700), mtime, ..Default::default() };
                Some(Change::Attributes { path: path.to_owned(), set })
            }
            _ => None,
        };
        match change {
            Some(change) => {
                self.log.push(format!("{change:?}").chars().take(60).collect());
                commit(engine, change);
                engine.sync().unwrap();
            }
            None if what == 14 => {
                self.log.push("checkpoint".into());
                engine.checkpoint().unwrap();
            }
            None => {
                self.log.push(format!("in place {path}"));
                in_place(disk, path, n, chance);
                engine.sync().unwrap();
                engine.head(&session(), &key(path)).unwrap();
            }
        }
    }
}

fn run(seed: u64) -> (usize, Option<String>) {
    let mut chance = Chance::new(seed);
    let count = [0, 2, 1][chance.below(3) as usize];
    let opening = Opening { keep: Keep { count, age: None }, ..Opening::USUAL };
    let disk = PowerDisk::new();
    let engine = LocalEngine::open_with(Arc::new(disk.clone()), opening).unwrap();
    make_session(&engine);
    engine.close().unwrap();
    let engine = LocalEngine::open_with(Arc::new(disk.clone()), opening).unwrap();
    let engine = if chance.is(25) { engine.deferring() } else { engine };
    let keys = [0, 3][chance.below(2) as usize];
    let mut run = Run { seed, disk, engine, chance, log: vec![format!("keeps {count}")], keys };
    let mut ever = Ever::new();
    let steps = 2 + run.chance.below(7);
    let mut states = Vec::new();
    let left = Arc::<Mutex<Vec<_>>>::default();
    let done = Arc::new(AtomicUsize::new(0));
    for n in 0..=steps {
        if n > 0 {
            if n == steps {
                let (taking, mut seed, cd) = (Arc::clone(&left), seed * 1000, Arc::clone(&done));
                run.disk.before(move |disk, what| {
                    seed += 1;
                    let left = if seed % 6 == 0 { disk.after_death() } else { disk.after_cut(&mut Chance::new(seed)) };
                    taking.lock().unwrap().push((left, what.to_owned(), cd.load(Ordering::SeqCst), seed));
                });
            }
            run.step(n, n == steps);
            run.disk.before(|_, _| {});
        }
        let state = match now(&run.engine, count) {
            Ok(state) => state,
            Err(e) => return (0, Some(format!("live: {e} {:?}", run.log))),
        };
        for (at, bytes) in &state.versions {
            let all = ever.entry(at.clone()).or_default();
            if !all.contains(bytes) {
                all.push(bytes.clone());
            }
        }
        states.push(state);
    }
    for i in 1..9 {
        let seed = seed * 1000 + 500 + i;
        let cut = if i == 8 { run.disk.after_death() } else { run.disk.after_cut(&mut Chance::new(seed)) };
        left.lock().unwrap().push((cut, "the end".into(), 1, seed));
    }
    let left = std::mem::take(&mut *left.lock().unwrap());
    let looked = left.len();
    for (mut disk, what, end, seed) in left {
        let at = format!("seed {} before {what} (cut {seed}) after {:?}", run.seed, run.log);
        let mut chance = Chance::new(seed ^ 0xFACE);
        for _ in 0..chance.below(3) {
            disk.cut_after(chance.below(40) as usize);
            drop(LocalEngine::open_with(Arc::new(disk.clone()), opening));
            disk = if chance.is(70) { disk.after_cut(&mut chance) } else { disk.after_death() };
        }
        let engine = match LocalEngine::open_with(Arc::new(disk.clone()), opening) {
            Ok(engine) => engine,
            Err(e) => return (looked, Some(format!("{at}: it cannot be opened: {e}"))),
        };
        let is = match now(&engine, count) {
            Ok(is) => is,
            Err(e) => return (looked, Some(format!("{at}: {e}"))),
        };
        let expected = if end == 1 { &states[steps as usize..] } else { &states[steps as usize - 1..] };
        let fits = |should: &Now| {
            is.newest == should.newest
                && is.changes == should.changes
                && should.versions.iter().all(|(at, bytes)| is.versions.get(at) == Some(bytes))
                && is.versions.iter().all(|(at, bytes)| ever.get(at).is_some_and(|ever| ever.contains(bytes)))
        };
        if !expected.iter().any(fits) {
            let should: Vec<_> = expected.iter().map(told).collect();
            return (looked, Some(format!("{at}:\n is {}\n should {}", told(&is), should.join("\n or     "))));
        }
        engine.close().unwrap();
        if let Err(e) = sound(&disk) {
            return (looked, Some(format!("{at}: {e}")));
        }
    }
    (looked, None)
}

// F11 F27 F32 F33
#[test]
fn what_a_program_wrote_in_place_and_was_found_outlives_a_crash_as_a_version_of_its_own() {
    let many = if std::env::var_os("BATONFS_LONG").is_some() { 400 } else { 60 };
    let (mut all, mut wrong) = (0, Vec::new());
    for seed in 1..=many {
        let (looked, found) = run(seed);
        all += looked;
        wrong.extend(found);
    }
    println!("{all} crashes of {many} workloads");
    assert!(wrong.is_empty(), "{} of {many} workloads, the first: {}", wrong.len(), wrong[0]);
    assert!(all > 1_000, "only {all} crashes");
}
