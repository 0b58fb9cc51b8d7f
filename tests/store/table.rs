//! The table of versions: the first change after an opening costs with a long log what it costs with a short one, and gets
//! the number that the log tells, whatever became of the table.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use batonfs::engine::local::disk::LocalDisk;
use batonfs::engine::local::{LocalEngine, Opening};
use batonfs::engine::{Change, Engine};
use batonfs::words::{Lost, SessionId};

use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;
use crate::lines::sealed;
use crate::power_disk::{Chance, PowerDisk};
use crate::sound::{assert_sound, assert_sound_but, checked};

const LOG: &str = ".baton/sessions/s/log";
const TABLE: &str = ".baton/sessions/s/versions";

/// Every checkpoint brings the table up to the end of the log.
pub(crate) const ALWAYS: Opening<'static> = Opening { tail_bytes: 0, ..Opening::USUAL };
/// There is no table.
const NEVER: Opening<'static> = Opening { tail_bytes: u64::MAX, ..Opening::USUAL };

fn open(root: &Path, opening: Opening<'_>) -> LocalEngine {
    LocalEngine::open_with(Arc::new(LocalDisk::open_at(root).unwrap()), opening).unwrap()
}

/// A closed store in which keys have gone in each of the ways there are, with `lines` more lines in its log: as of many
/// commits, which would take their time.
fn with_log(lines: u64) -> tempfile::TempDir {
    let dir = fresh();
    let engine = open(dir.path(), NEVER);
    make_session(&engine);
    for path in ["here", "deleted", "moved", "removed", "replaced"] {
        commit(&engine, put(path, b"1", None));
        commit(&engine, put(path, b"2", Some(1)));
    }
    commit(&engine, delete("deleted", 2));
    commit(&engine, rename("moved", "to", 2, None));
    engine.close().unwrap();
    fs::remove_file(dir.path().join("s/removed")).unwrap();
    let log = dir.path().join(LOG);
    let text = fs::read_to_string(&log).unwrap();
    let (line, last) = (text.lines().nth(1).unwrap(), text.lines().count() as u64);
    let mut to = std::io::BufWriter::new(fs::OpenOptions::new().append(true).open(&log).unwrap());
    for n in 0..lines {
        let line = line.replace("\"seq\":2,", &format!("\"seq\":{},", last + n + 1));
        writeln!(to, "{}", sealed(&line.replace("\"here\"", &format!("\"k{n:05}\"")))).unwrap();
    }
    to.into_inner().unwrap();
    dir
}

/// The same with a table of it.
fn with_table(lines: u64) -> tempfile::TempDir {
    let dir = with_log(lines);
    let engine = open(dir.path(), ALWAYS);
    commit(&engine, put("last", b"", None));
    engine.close().unwrap();
    dir
}

/// What a change does, how often it looks, how many bytes it reads, and the version it makes.
type Cost = (Vec<String>, (u64, u64), Option<u64>);

/// The first change of each kind after an opening.
fn first_changes(root: &Path) -> BTreeMap<&'static str, Cost> {
    let changes: [(&str, Change); 7] = [
        ("a fresh key", put("fresh", b"1", None)),
        ("a key that was deleted", put("deleted", b"3", None)),
        ("a key that was moved away", put("moved", b"3", None)),
        ("a key that was removed beside the store", put("removed", b"3", None)),
        ("a key that is there", put("here", b"3", Some(2))),
        ("a move to a key that was deleted", rename("here", "deleted", 2, None)),
        ("a stranger's value", put("replaced", b"4", Some(3))),
    ];
    let first = |(what, change): (&'static str, Change)| {
        let copy = crate::crash::copy(root);
        fs::write(copy.path().join("new"), b"theirs").unwrap();
        fs::rename(copy.path().join("new"), copy.path().join("s/replaced")).unwrap();
        let watch = Watch::default();
        let engine = LocalEngine::open_with(RecordingDisk::open(copy.path(), &watch), ALWAYS).unwrap();
        watch.take();
        watch.take_looked();
        let made = commit(&engine, change).version;
        let kind = |what: String| what.split(' ').next().unwrap_or_default().to_owned();
        (what, (watch.take().into_iter().map(kind).collect(), watch.take_looked(), made))
    };
    changes.into_iter().map(first).collect()
}

// F41
#[test]
fn the_first_change_after_an_opening_costs_with_a_long_log_what_it_costs_with_a_short_one() {
    let [short, long] = [1_100, 9_900].map(|lines| {
        let dir = with_log(lines);
        let built = open(dir.path(), ALWAYS);
        commit(&built, lost("x", Lost::Dropped, b""));
        built.close().unwrap();
        first_changes(dir.path())
    });
    for (what, cost) in &long {
        println!("{what}: {} changes, {:?} looks and bytes read", cost.0.len(), cost.1);
    }
    assert_eq!(short, long);
    let versions: Vec<_> = long.values().map(|(_, _, version)| version.unwrap()).collect();
    assert_eq!(versions, [1, 3, 3, 3, 3, 3, 4], "{:?}", long.keys());
}

/// Where a key's history and its last number may come from.
const KEYS: &[&str] = &["a", "b", "d/a", "d/b", "e/a", "e/b"];

/// Makes a change that is right in every store that is like this one, if it can be made.
fn random_change(engine: &dyn Engine, chance: &mut Chance, root: &Path) {
    let any = |chance: &mut Chance| KEYS[chance.below(KEYS.len() as u64) as usize];
    let (path, other) = (any(chance), any(chance));
    let (now, there) = (version(engine, path), version(engine, other));
    let change = match (chance.below(12), now) {
        (0..=3, _) | (_, None) => put(path, b"put", now),
        (4, Some(now)) => append(path, b"+", now),
        (5 | 6, Some(now)) => delete(path, now),
        (7 | 8, Some(now)) => rename(path, other, now, there),
        (9, Some(_)) => {
            fs::remove_file(root.join("s").join(path)).unwrap();
            return;
        }
        (10, Some(_)) => {
            fs::write(root.join("new"), b"theirs").unwrap();
            fs::rename(root.join("new"), root.join("s").join(path)).unwrap();
            return;
        }
        _ => {
            let _ = engine.commit(&session(), remove_dir("e"), &by("w"));
            rename_dir("d", "e")
        }
    };
    let _ = engine.commit(&session(), change, &by("w"));
}

fn last_versions(engine: &dyn Engine) -> Vec<(&'static str, u64)> {
    KEYS.iter().map(|path| (*path, engine.last_version(&session(), &key(path)).unwrap())).collect()
}

// F7
// F40
#[test]
fn the_numbers_of_versions_are_the_same_with_a_table_and_without_one() {
    let mut tables = 0;
    for seed in 1..=6 {
        let (dir, mut chance) = (fresh(), Chance::new(seed));
        let mut engine = open(dir.path(), ALWAYS);
        make_session(&engine);
        for round in 0..120_u64 {
            random_change(&engine, &mut chance, dir.path());
            if !round.is_multiple_of(5) {
                continue;
            }
            if chance.is(70) {
                engine.close().unwrap();
            }
            drop(engine);
            let copy = crate::crash::copy(dir.path());
            engine = open(dir.path(), ALWAYS);
            let known = last_versions(&engine);
            tables += usize::from(dir.path().join(TABLE).exists());
            let without = crate::crash::copy(copy.path());
            let _ = fs::remove_file(without.path().join(TABLE));
            assert_eq!(known, last_versions(&open(without.path(), NEVER)), "seed {seed}, round {round}");
        }
        engine.close().unwrap();
        drop(engine);
        // What went beside the store is noted, and is no damage.
        let damaged: Vec<_> =
            checked(dir.path(), false).findings.into_iter().filter(|found| found.rule == "F40").collect();
        assert!(damaged.is_empty(), "{damaged:?}");
    }
    assert!(tables > 100, "only {tables} tables");
}

// F40
#[test]
fn a_table_that_is_damaged_anywhere_is_found_and_is_not_believed() {
    let dir = with_table(300);
    let whole = fs::read(dir.path().join(TABLE)).unwrap();
    let asked = ["fresh", "deleted", "moved", "removed", "to", "last", "k00007", "k00299"];
    let numbers = |root: &Path| {
        let engine = open(root, ALWAYS);
        asked.map(|path| engine.last_version(&session(), &key(path)).unwrap())
    };
    let truth = numbers(dir.path());
    assert_eq!(truth, [0, 2, 2, 2, 1, 1, 1, 1]);
    let mut seen = 0;
    for at in (0..64).chain((4096..whole.len()).step_by(331)) {
        for cut in [false, true] {
            let mut bytes = whole.clone();
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << (at % 8);
            }
            fs::write(dir.path().join(TABLE), &bytes).unwrap();
            assert_eq!(numbers(dir.path()), truth, "byte {at}, cut: {cut}");
            if at.is_multiple_of(16) {
                let found = checked(dir.path(), false).findings;
                assert!(found.iter().any(|found| found.place == TABLE && found.rule == "F40"), "byte {at}, cut: {cut}");
                seen += 1;
            }
        }
    }
    assert!(seen > 8, "only {seen}");
}

// F40
#[test]
fn a_damaged_table_is_mended_and_the_next_checkpoint_makes_it_anew() {
    let dir = with_table(300);
    let whole = fs::read(dir.path().join(TABLE)).unwrap();
    // Every page but the header's.
    let broken: Vec<u8> = whole.iter().enumerate().map(|(at, b)| b ^ u8::from(at % 4096 == 99 && at > 4096)).collect();
    fs::write(dir.path().join(TABLE), &broken).unwrap();
    let engine = open(dir.path(), ALWAYS);
    assert_eq!(commit(&engine, put("moved", b"3", None)).version, Some(3));
    engine.close().unwrap();
    drop(engine);
    assert_ne!(fs::read(dir.path().join(TABLE)).unwrap(), broken);
    fs::write(dir.path().join(TABLE), &broken).unwrap();
    assert!(checked(dir.path(), true).repaired.iter().any(|found| found.rule == "F40"));
    assert!(!dir.path().join(TABLE).exists());
    // A log that is another's, or that lost lines, is not the table's.
    fs::write(dir.path().join(TABLE), &whole).unwrap();
    let log = fs::read_to_string(dir.path().join(LOG)).unwrap();
    let changed = log.lines().map(|line| sealed(&line.replace("\"last\"", "\"lost\"")) + "\n").collect::<String>();
    fs::write(dir.path().join(LOG), changed).unwrap();
    let engine = open(dir.path(), ALWAYS);
    assert_eq!(engine.last_version(&session(), &key("lost")).unwrap(), 1);
}

// F42
#[test]
fn a_table_whose_bytes_say_less_than_its_header_is_found() {
    let dir = fresh();
    let engine = open(dir.path(), ALWAYS);
    make_session(&engine);
    commit(&engine, put("a", b"1", None));
    engine.close().unwrap();
    drop(engine);
    let before = fs::read(dir.path().join(TABLE)).unwrap();
    let engine = open(dir.path(), ALWAYS);
    commit(&engine, put("a", b"2", Some(1)));
    engine.close().unwrap();
    drop(engine);
    assert_sound(dir.path());
    let mut after = fs::read(dir.path().join(TABLE)).unwrap();
    assert_ne!(before, after);
    after[4096..].copy_from_slice(&before[4096..]);
    fs::write(dir.path().join(TABLE), &after).unwrap();
    assert_sound_but(dir.path(), &["F40"]);
}

#[test]
fn a_table_grows_with_its_keys_and_none_of_them_gets_lost() {
    let dir = with_table(3_000);
    let small = fs::metadata(dir.path().join(TABLE)).unwrap().len();
    let log = dir.path().join(LOG);
    let text = fs::read_to_string(&log).unwrap();
    let (line, last) = (text.lines().nth(1).unwrap(), text.lines().count() as u64);
    let more: String = (0..9_000)
        .map(|n| {
            let line = line.replace("\"seq\":2,", &format!("\"seq\":{},", last + n + 1));
            sealed(&line.replace("\"here\"", &format!("\"more{n}\""))) + "\n"
        })
        .collect();
    fs::write(&log, text + &more).unwrap();
    let engine = open(dir.path(), ALWAYS);
    commit(&engine, put("very_last", b"", None));
    engine.close().unwrap();
    drop(engine);
    assert!(fs::metadata(dir.path().join(TABLE)).unwrap().len() > small);
    // What is asked after is the table alone.
    let watch = Watch::default();
    let engine = LocalEngine::open_with(RecordingDisk::open(dir.path(), &watch), ALWAYS).unwrap();
    engine.last_version(&session(), &key("last")).unwrap();
    watch.take_looked();
    for path in ["k00000", "k02999", "more0", "more4567", "more8999", "removed", "never"] {
        let known = engine.last_version(&session(), &key(path)).unwrap();
        assert_eq!(
            known,
            [("removed", 2), ("never", 0)].iter().find(|(p, _)| *p == path).map_or(1, |(_, n)| *n),
            "{path}"
        );
    }
    assert!(watch.take_looked().1 < 7 * 5_000);
    // Neither has a file: the log says more of them than the store has.
    assert!(checked(dir.path(), false).findings.iter().all(|found| found.rule != "F40"));
}

// F42
#[test]
fn a_power_cut_at_any_moment_of_a_checkpoint_leaves_a_table_that_is_right() {
    let mut cuts = 0;
    for seed in 1..=6 {
        let disk = PowerDisk::new();
        let engine = LocalEngine::open_with(Arc::new(disk.clone()), ALWAYS).unwrap();
        make_session(&engine);
        for n in 0..30 {
            commit(&engine, put(&format!("k{n}"), b"1", None));
            if n % 3 == 0 {
                commit(&engine, rename(&format!("k{n}"), "to", 1, version(&engine, "to")));
            }
        }
        engine.close().unwrap();
        drop(engine);
        // The journal has either these changes, which are then made again, or only that the log is not the table's end.
        let own = seed % 2 == 0;
        let opening = if own { ALWAYS } else { NEVER };
        let mut engine = LocalEngine::open_with(Arc::new(disk.clone()), opening).unwrap();
        for n in (0..30).step_by(3) {
            commit(&engine, put(&format!("k{n}"), b"2", None));
            commit(&engine, rename(&format!("k{n}"), "to", 2, version(&engine, "to")));
        }
        if !own {
            engine.close().unwrap();
            engine = LocalEngine::open_with(Arc::new(disk.clone()), ALWAYS).unwrap();
            assert_eq!(engine.last_version(&session(), &key("k0")).unwrap(), 2);
            engine.commit(&SessionId::parse("t").unwrap(), make_dir(""), &by("w")).unwrap();
        }
        let left = Arc::<std::sync::Mutex<Vec<PowerDisk>>>::default();
        let cut = Arc::clone(&left);
        let mut moment = 0;
        disk.before(move |disk, _| {
            moment += 1;
            cut.lock().unwrap().extend((0..3).map(|n| disk.after_cut(&mut Chance::new(seed << 20 | moment << 4 | n))));
        });
        engine.close().unwrap();
        disk.before(|_, _| {});
        let left = std::mem::take(&mut *left.lock().unwrap());
        cuts += left.len();
        for disk in left.into_iter().chain([disk.after_death()]) {
            // The power goes once more while it is opened.
            let mut chance = Chance::new(cuts as u64);
            let disk = if chance.is(50) {
                disk.cut_after(chance.below(80) as usize);
                drop(LocalEngine::open_with(Arc::new(disk.clone()), ALWAYS));
                disk.after_cut(&mut chance)
            } else {
                disk
            };
            let engine = LocalEngine::open_with(Arc::new(disk.clone()), ALWAYS).unwrap();
            for n in 0..30_u64 {
                let last = engine.last_version(&session(), &key(&format!("k{n}"))).unwrap();
                assert_eq!(last, if n % 3 == 0 { 2 } else { 1 }, "k{n}");
            }
            engine.close().unwrap();
        }
    }
    println!("{cuts} power cuts");
    assert!(cuts > 30, "only {cuts} cuts");
}

// F29
// F40
#[test]
fn a_directory_that_is_renamed_when_the_process_dies_takes_the_numbers_of_its_keys_along() {
    let disk = PowerDisk::new();
    let open = |disk: &PowerDisk| LocalEngine::open_with(Arc::new(disk.clone()), ALWAYS).unwrap();
    let engine = open(&disk);
    make_session(&engine);
    for version in 1..=3 {
        commit(&engine, put("d/gone", b"", Some(version - 1).filter(|v| *v > 0)));
    }
    commit(&engine, delete("d/gone", 3));
    commit(&engine, put("d/here", b"", None));
    engine.close().unwrap();
    let engine = open(&disk);
    let left = Arc::<std::sync::Mutex<Vec<PowerDisk>>>::default();
    let dying = Arc::clone(&left);
    disk.before(move |disk, _| dying.lock().unwrap().push(disk.after_death()));
    commit(&engine, rename_dir("d", "e"));
    disk.before(|_, _| {});
    let mut renamed = 0;
    for disk in left.lock().unwrap().drain(..) {
        let engine = open(&disk);
        let is_renamed = version(&engine, "e/here").is_some();
        renamed += usize::from(is_renamed);
        for again in [false, true] {
            let engine = if again { open(&disk) } else { open(&disk.after_death()) };
            let last = |path: &str| engine.last_version(&session(), &key(path)).unwrap();
            assert_eq!((last("d/gone"), last("e/gone")), (3, if is_renamed { 3 } else { 0 }));
            engine.close().unwrap();
        }
    }
    assert!(renamed > 5, "only {renamed} moments after it");
}
