//! The power goes at any moment, and takes any part of what was not synced: what was acknowledged is there, with its
//! writer and with the versions before it, and the change that was under way is there whole or not at all.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use batonfs::engine::local::disk::Disk;
use batonfs::engine::local::{LocalEngine, Opening, verify_on};
use batonfs::engine::memory::MemoryEngine;
use batonfs::engine::{AttributeChange, Attributes, Change, Engine, EngineError, Keep, Staged};
use batonfs::words::{Lost, Policy};

use crate::engines::*;
use crate::power_disk::{Chance, Deaf, PowerDisk, say};
use crate::sound::told;
use crate::table::ALWAYS;

/// Every key that a workload uses.
pub(crate) const KEYS: &[&str] = &["a", "b", "d/a", "d/e/b", "d/n/k", "m/k", "n/k", "m"];

/// What is done to a store.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Make(Change, String),
    /// It is closed and opened again: a checkpoint.
    Reopen,
    /// Everything so far is to be durable.
    Sync,
}

/// When a commit is answered, and what happens to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// After its sync; the power goes.
    Synced,
    /// Before it, where that can be; the power goes.
    Late,
    /// Likewise; the process dies.
    LateDeath,
    /// After its sync; the process dies.
    Death,
}

impl Way {
    fn is_late(self) -> bool {
        matches!(self, Self::Late | Self::LateDeath)
    }

    fn is_death(self) -> bool {
        matches!(self, Self::Death | Self::LateDeath)
    }
}

/// How many steps were acknowledged, and how many of them are durable for sure.
#[derive(Debug, Default)]
struct Done {
    acknowledged: AtomicUsize,
    durable: AtomicUsize,
}

/// A version: bytes, writer, and of the newest one the mode.
type Value = (Vec<u8>, Option<String>, Option<u32>);

/// Everything that a session shows: each version of each key, which one is the newest, and how many changes there were.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Shown {
    versions: BTreeMap<(String, u64), Value>,
    newest: BTreeMap<String, u64>,
    changes: usize,
    policy: Option<Policy>,
}

/// `count`: how many versions before the newest are kept; 0: all.
pub(crate) fn shown(engine: &dyn Engine, count: u64) -> Shown {
    let Ok(lines) = engine.changes(&session(), 0) else { return Shown::default() };
    assert_eq!(lines.iter().map(|line| line.seq).collect::<Vec<_>>(), (1..=lines.len() as u64).collect::<Vec<_>>());
    let mut shown = Shown { changes: lines.len(), policy: engine.policy(&session()).ok(), ..Shown::default() };
    for path in KEYS {
        let path = key(path);
        let newest = engine.head(&session(), &path).unwrap().map(|head| head.version);
        // Versions before those that are kept go some time.
        let kept =
            engine.last_version(&session(), &path).unwrap().saturating_sub(if count > 0 { count } else { u64::MAX });
        for version in engine.versions(&session(), &path).unwrap().into_iter().filter(|version| *version >= kept) {
            let snapshot = engine.open_version(&session(), &path, version).unwrap().unwrap();
            let bytes = snapshot.read_all().unwrap();
            assert_eq!(bytes.len() as u64, snapshot.head.size_bytes);
            let mode = (newest == Some(version)).then_some(snapshot.head.attributes.mode);
            shown.versions.insert((path.to_string(), version), (bytes, snapshot.head.writer.writer_id, mode));
        }
        for draft in engine.past(&session(), &path).unwrap().into_iter().filter(|past| past.version().is_none()) {
            let kept = engine.open_past(&session(), &path, draft).unwrap().unwrap();
            let value = (kept.read_all().unwrap(), kept.head.writer.writer_id, Some(kept.head.attributes.mode));
            shown.versions.insert((format!("{path}/{draft}"), 0), value);
        }
        newest.map(|newest| shown.newest.insert(path.to_string(), newest));
    }
    let listed: Vec<_> = engine.list(&session()).unwrap_or_default().iter().map(ToString::to_string).collect();
    assert_eq!(listed, shown.newest.keys().cloned().collect::<Vec<_>>());
    shown
}

/// What one shows and the other does not.
pub(crate) fn difference(is: &Shown, should: &Shown) -> String {
    let lines = |shown: &Shown, not: &Shown, sign: &str| {
        let other = |(at, value): &(&(String, u64), &Value)| not.versions.get(*at) != Some(*value);
        let text = |((key, version), (bytes, writer, mode)): (&(String, u64), &Value)| {
            let start = String::from_utf8_lossy(bytes.get(..12).unwrap_or(bytes)).into_owned();
            format!("\n {sign} {key}:{version} {start:?} of {} bytes by {writer:?} mode {mode:?}", bytes.len())
        };
        let lines: Vec<_> = shown.versions.iter().filter(other).map(text).collect();
        let (newest, policy) = (&shown.newest, &shown.policy);
        format!("\n {sign} {} changes, {policy:?}, {newest:?}{}", shown.changes, lines.concat())
    };
    lines(should, is, "-") + &lines(is, should, "+")
}

/// Steps that all succeed, and what is shown after each.
pub(crate) fn workload(seed: u64, steps: usize, keep: Keep) -> (Vec<Step>, Vec<Shown>) {
    let mut chance = Chance::new(seed);
    let engine = MemoryEngine::keeping(keep);
    let (mut done, mut states) = (Vec::new(), vec![Shown::default()]);
    let mut take = |engine: &MemoryEngine, change: Change, n: usize| {
        if engine.commit(&session(), change.clone(), &by(&format!("w{n}"))).is_ok() {
            done.push(Step::Make(change, format!("w{n}")));
            states.push(shown(engine, keep.count));
        }
        for step in
            [n.is_multiple_of(17).then_some(Step::Reopen), (n % 13 == 5).then_some(Step::Sync)].into_iter().flatten()
        {
            done.push(step);
            states.push(shown(engine, keep.count));
        }
    };
    take(&engine, make_dir(""), 1);
    for n in 2..steps {
        let change = random_change(&engine, &mut chance, n);
        take(&engine, change, n);
    }
    (done, states)
}

fn random_change(engine: &MemoryEngine, chance: &mut Chance, n: usize) -> Change {
    let any = |chance: &mut Chance| KEYS[chance.below(KEYS.len() as u64) as usize];
    // One key gets most of it, so that its old versions fall out of history and their files are written again.
    let path = if chance.is(60) { "a" } else { any(chance) };
    let there = |path: &str| engine.head(&session(), &key(path)).ok().flatten().map(|head| head.version);
    let (now, text) = (there(path), format!("{path} is {n}."));
    match (chance.below(20), now) {
        (0..=9, _) => {
            let times = if chance.is(10) { 70_000 / text.len() + 1 } else { 1 + chance.below(40) as usize };
            let attributes = Attributes { mtime: at(1_000_000 + n as u64), ..attributes() };
            let content = Staged::from(text.repeat(times).into_bytes());
            Change::Put { key: key(path), content, expected: now, attributes }
        }
        (10..=12, Some(now)) => {
            let bytes = format!(" and {n}").repeat(1 + chance.below(90) as usize).into_bytes();
            Change::Append { key: key(path), bytes, expected: now, mtime: at(1_000_000 + n as u64) }
        }
        (13, Some(now)) => delete(path, now),
        (14 | 15, Some(now)) => {
            let to = any(chance);
            rename(path, to, now, there(to))
        }
        (16, Some(_)) => {
            let set = AttributeChange { mode: Some(0o600 + chance.below(64) as u32), ..Default::default() };
            Change::Attributes { path: path.to_owned(), set }
        }
        (17, Some(now)) => Change::Declare { key: key(path), expected: now },
        (18, _) => match chance.below(6) {
            0 => Change::SetPolicy(if chance.is(50) { Policy::Warn } else { Policy::Error }),
            1 | 2 => rename_dir(if chance.is(50) { "m" } else { "n" }, if chance.is(50) { "n" } else { "d/n" }),
            3 => remove_dir(if chance.is(50) { "m" } else { "n" }),
            _ => make_dir(if chance.is(50) { "m" } else { "n" }),
        },
        _ => {
            let times = if chance.is(10) { 70_000 / text.len() + 1 } else { chance.below(40) as usize };
            let how = if chance.is(50) { Lost::Dropped } else { Lost::Refused };
            lost(path, how, text.repeat(times).as_bytes())
        }
    }
}

/// Does the steps until one is refused; `acknowledged` counts.
fn run(disk: &PowerDisk, opening: Opening<'static>, steps: &[Step], way: Way, done: &Done) {
    let open = || {
        let engine = LocalEngine::open_with(Arc::new(disk.clone()), opening)?;
        Ok::<_, EngineError>(if way.is_late() { engine.deferring() } else { engine })
    };
    let Ok(mut engine) = open() else { return };
    for step in steps {
        match step {
            Step::Make(change, writer) => {
                if engine.commit(&session(), change.clone(), &by(writer)).is_err() {
                    return;
                }
            }
            Step::Reopen => {
                if engine.close().is_err() {
                    return;
                }
                match open() {
                    Ok(opened) => engine = opened,
                    Err(_) => return,
                }
            }
            Step::Sync => {
                if engine.sync().is_err() {
                    return;
                }
            }
        }
        let so_far = done.acknowledged.fetch_add(1, Ordering::SeqCst) + 1;
        // What names or attributes are changed by is durable at once in every way, and all before it with it.
        if !way.is_late() || !matches!(step, Step::Make(Change::Put { .. } | Change::Append { .. }, _)) {
            done.durable.store(so_far, Ordering::SeqCst);
        }
    }
}

/// A disk as power has left it, and how many steps were acknowledged before.
struct Left {
    disk: PowerDisk,
    opening: Opening<'static>,
    acknowledged: usize,
    durable: usize,
    way: Way,
    seed: u64,
    at: String,
}

/// Disks that wait to be looked at.
const WAITING_MAX: usize = 8;

/// Does a workload and cuts the power at every change and sync of it, `cuts` times each. How many disks were looked at,
/// and what was wrong with the first.
fn cut_everywhere(
    seed: u64,
    steps: usize,
    cuts: u64,
    (opening, way, broken): (Opening<'static>, Way, Option<Deaf>),
) -> (usize, Option<String>) {
    let (steps, states) = workload(seed, steps, opening.keep);
    let disk = PowerDisk::new();
    if let Some(broken) = broken {
        disk.ignore_syncs(broken);
    }
    let (send, receive) = sync_channel(WAITING_MAX);
    let receive = Mutex::new(receive);
    let (looked, wrong, mut all) = (AtomicUsize::new(0), Mutex::new(None), 0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| look_at_each(&receive, &states, &looked, &wrong));
        }
        let done = Arc::new(Done::default());
        let (mut moment, so_far) = (0, Arc::clone(&done));
        disk.before(move |disk, what| {
            for cut in 0..cuts {
                let seed = seed << 40 | moment << 8 | cut;
                let left = if way.is_death() { disk.after_death() } else { disk.after_cut(&mut Chance::new(seed)) };
                let acknowledged = so_far.acknowledged.load(Ordering::SeqCst);
                let durable = so_far.durable.load(Ordering::SeqCst);
                let at = format!("moment {moment}, before {what}");
                drop(send.send(Left { disk: left, opening, acknowledged, durable, way, seed, at }));
            }
            moment += 1;
        });
        run(&disk, opening, &steps, way, &done);
        disk.before(|_, _| {});
        all = done.acknowledged.load(Ordering::SeqCst);
    });
    assert_eq!(all, steps.len(), "the workload itself");
    let wrong = wrong.into_inner().unwrap();
    (looked.into_inner(), wrong)
}

fn look_at_each(left: &Mutex<Receiver<Left>>, states: &[Shown], looked: &AtomicUsize, wrong: &Mutex<Option<String>>) {
    loop {
        let Ok(left) = left.lock().unwrap().recv() else { return };
        if wrong.lock().unwrap().is_some() {
            continue;
        }
        if let Err(what) = judge(&left, states, false) {
            if std::env::var_os("BATONFS_POWER_TOLD").is_some() && wrong.lock().unwrap().is_none() {
                drop(judge(&left, states, true));
            }
            wrong.lock().unwrap().get_or_insert(format!("{} (seed {}): {what}", left.at, left.seed));
        }
        looked.fetch_add(1, Ordering::SeqCst);
    }
}

/// Everything that is promised of a store that power has left: also when it goes again while the store is opened.
fn judge(left: &Left, states: &[Shown], told: bool) -> Result<(), String> {
    // Who recovers may be to keep more than who committed, or less.
    let keep = [left.opening.keep, Keep::ALL, Keep { count: 1, age: None }][left.seed as usize % 3];
    let (mut chance, opening) = (Chance::new(left.seed ^ 0xFACE), Opening { keep, ..left.opening });
    let mut disk = left.disk.after_death();
    let mut lost = !left.way.is_death();
    for _ in 0..chance.below(3) {
        if told {
            disk.tell();
        }
        disk.cut_after(chance.below(60) as usize);
        drop(LocalEngine::open_with(Arc::new(disk.clone()), opening));
        if told {
            say("--- the power goes, or the process dies");
        }
        let cut = chance.is(50);
        lost |= cut;
        disk = if cut { disk.after_cut(&mut chance) } else { disk.after_death() };
    }
    let open = |disk: &PowerDisk| {
        LocalEngine::open_with(Arc::new(disk.clone()), opening).map_err(|e| format!("it cannot be opened: {e}"))
    };
    if told {
        disk.tell();
    }
    let engine = open(&disk)?;
    // Of what was not durable any end may be lost by power, and nothing else; the end of a process loses nothing.
    let least = if lost { left.durable } else { left.acknowledged };
    let expected = states.get(least..).unwrap_or_default().iter().take(left.acknowledged + 2 - least);
    let now = shown(&engine, left.opening.keep.count);
    let differences: Vec<_> = expected.clone().map(|expected| difference(&now, expected)).collect();
    let Some(expected) = expected.into_iter().find(|expected| **expected == now) else {
        let steps = format!("{least} to {} steps", left.acknowledged);
        return Err(format!("after {steps}{}", differences.join("\nand")));
    };
    engine.close().map_err(|e| format!("it cannot be closed: {e}"))?;
    drop(engine);
    sound(&disk)?;
    let engine = open(&disk.after_cut(&mut chance))?;
    let now = shown(&engine, left.opening.keep.count);
    if now != *expected {
        return Err(format!("closed and opened again{}", difference(&now, expected)));
    }
    if expected.changes > 0 && engine.list(&session()).is_ok() {
        let put = engine.commit(&session(), put("after", b"it goes on", None), &by("w"));
        let seq = put.map_err(|e| format!("it does not go on: {e}"))?.seq;
        if seq != expected.changes as u64 + 1 {
            return Err(format!("change {seq} follows {}", expected.changes));
        }
    }
    Ok(())
}

/// A check finds nothing that is wrong.
pub(crate) fn sound(disk: &PowerDisk) -> Result<(), String> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let report = verify_on(&disk, false, &mut |_| ControlFlow::Continue(())).map_err(|e| e.to_string())?;
    match told(&report.findings).as_slice() {
        [] => Ok(()),
        found => Err(format!("it is not sound:\n{}", found.join("\n"))),
    }
}

fn long() -> bool {
    std::env::var_os("BATONFS_LONG").is_some()
}

#[test]
fn f27_no_power_cut_takes_what_was_acknowledged() {
    // F32
    // F33
    // F34
    let (seeds, steps) = if long() { (20, 160) } else { (2, 70) };
    let mut all = 0;
    for seed in 1..=seeds {
        let seed: u64 = std::env::var("BATONFS_POWER_SEED").map_or(seed, |seed| seed.parse().unwrap());
        let opening = opening_of(seed);
        let (looked, wrong) = cut_everywhere(seed, steps, 2, (opening, Way::Synced, None));
        assert!(wrong.is_none(), "seed {seed}: {}", wrong.unwrap_or_default());
        all += looked;
    }
    println!("{all} power cuts survived");
    assert!(all > 1_000, "only {all} power cuts");
}

/// Every second workload has a table of versions, and keeps so few that many files of old ones are written again.
fn opening_of(seed: u64) -> Opening<'static> {
    if seed.is_multiple_of(2) { Opening { keep: Keep { count: 2, age: None }, ..ALWAYS } } else { Opening::USUAL }
}

fn survives(way: Way, seeds: std::ops::RangeInclusive<u64>, steps: usize, cuts: u64, least: usize) {
    let mut all = 0;
    for seed in seeds {
        let seed = std::env::var("BATONFS_POWER_SEED").map_or(seed, |seed| seed.parse().unwrap());
        let opening = opening_of(seed);
        let (looked, wrong) = cut_everywhere(seed, steps, cuts, (opening, way, None));
        assert!(wrong.is_none(), "{way:?}, seed {seed}: {}", wrong.unwrap_or_default());
        all += looked;
    }
    println!("{all} crashes survived ({way:?})");
    assert!(all > least, "only {all} crashes");
}

// D3
#[test]
fn f52_a_power_cut_takes_an_end_of_what_was_not_synced_and_nothing_else() {
    let (seeds, steps, cuts) = if long() { (20, 160, 2) } else { (1, 70, 1) };
    survives(Way::Late, 1..=seeds, steps, cuts, 400);
}

#[test]
fn f53_the_end_of_the_process_takes_nothing_that_was_not_synced() {
    let (seeds, steps, cuts) = if long() { (20, 160, 2) } else { (1, 60, 1) };
    survives(Way::LateDeath, 1..=seeds, steps, cuts, 250);
}

#[test]
fn f54_a_power_cut_in_the_recovery_from_an_end_of_the_process_leaves_each_change_whole_or_not_at_all() {
    let (seeds, steps, cuts) = if long() { (20, 160, 2) } else { (1, 60, 1) };
    survives(Way::Death, 1..=seeds, steps, cuts, 250);
}

/// Each sync there is, but that of the store's own directory: there a name comes with the directory it is in.
const SYNCS: &[(&str, Deaf)] = &[
    ("of a commit's record", |last, what| what == JOURNAL_SYNC && last[0] != "sync_everything"),
    ("of a large value", |_, what| what.starts_with("sync .baton/drafts/") && is_operation(what)),
    ("of a large value's name", |_, what| what == "sync_dir .baton/drafts"),
    ("of a checkpoint", |_, what| what == "sync_everything"),
    ("of the next generation", |last, what| what == JOURNAL_SYNC && last[0] == "sync_everything"),
    ("of a fresh journal", |_, what| what == "sync .baton/drafts/journal"),
    ("of the names of journal and marker", |_, what| what == "sync_dir .baton"),
];
const JOURNAL_SYNC: &str = "sync_data .baton/journal";

fn is_operation(what: &str) -> bool {
    what.rsplit('/').next().is_some_and(|name| uuid::Uuid::parse_str(name).is_ok())
}

#[test]
fn f15_f16_f19_without_any_one_sync_a_power_cut_takes_something() {
    // F15
    // F16
    // F19
    for (name, broken) in SYNCS {
        let found = (1..=60).find_map(|seed| {
            let cut = cut_everywhere(seed, 36, 1, (Opening::USUAL, Way::Synced, Some(*broken)));
            cut.1.map(|wrong| (seed, wrong))
        });
        let (seed, wrong) = found.unwrap_or_else(|| panic!("without the sync {name} nothing is lost"));
        println!("without the sync {name}: seed {seed}, {}", wrong.lines().next().unwrap_or_default());
    }
}
