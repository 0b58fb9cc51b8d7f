//! A program beside the store writes a key at every moment of a commit of ours to it, and between a crash of ours and
//! the recovery: its value is the newest version, with its writer, and ours is there too, as a version before it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use batonfs::engine::local::LocalEngine;
use batonfs::engine::{Change, Engine, EngineError};
use batonfs::words::Op;

use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;
use crate::full::quick_dir;
use crate::neighbour::{neighbour_writes, place};

const THEIRS: &[u8] = b"what the neighbour wrote";

/// A commit of ours that meets the neighbour.
struct Case {
    name: &'static str,
    change: fn() -> Change,
    /// The key that the neighbour writes, and what of ours is to be a version of it: number and bytes.
    key: &'static str,
    ours: Option<(u64, &'static [u8])>,
    /// What the log says of ours.
    op: Op,
    /// The operation of the disk from which on ours is in its place, and the neighbour replaces it like anything else.
    placed: &'static str,
}

/// What is there: `k` and `l`, and a directory.
fn cases() -> Vec<Case> {
    let case = |name, key, op, placed, ours, change| Case { name, change, key, ours, op, placed };
    vec![
        case("put over a value", "k", Op::Put, "exchange", Some((2, &b"ours"[..])), || put("k", b"ours", Some(1))),
        case("put to a fresh key", "d/new", Op::Put, "rename_new", Some((1, b"ours")), || put("d/new", b"ours", None)),
        case("append", "k", Op::Append, "write s/k", Some((2, b"one and ours")), || append("k", b" and ours", 1)),
        case("delete", "k", Op::Delete, "rename_new", None, || delete("k", 1)),
        case("rename onto a value", "l", Op::Rename, "exchange", Some((2, b"one")), || rename("k", "l", 1, Some(1))),
        case("rename to a fresh key", "d/new", Op::Rename, "rename_new", Some((1, b"one")), || {
            rename("k", "d/new", 1, None)
        }),
    ]
}

fn other_writes(root: &Path, key: &str) {
    neighbour_writes(root, key, THEIRS, "neighbour");
}

/// A store at rest, and what is done to its disk from then on, oldest first.
fn store() -> (tempfile::TempDir, Watch, LocalEngine) {
    let (dir, watch) = (quick_dir(), Watch::default());
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    make_session(&engine);
    commit(&engine, make_dir("d"));
    commit(&engine, put("k", b"one", None));
    commit(&engine, put("l", b"el", None));
    (dir, watch, engine)
}

/// Is every version told that must be there? `placed`: ours was in its place before the neighbour wrote.
fn check(engine: &dyn Engine, case: &Case, committed: bool, placed: bool, at: &str) {
    let at = format!("{}, {at}", case.name);
    let head = engine.head(&session(), &key(case.key)).unwrap();
    let head = head.unwrap_or_else(|| panic!("{at}: the neighbour's value is gone"));
    assert_eq!(value(engine, case.key).unwrap(), THEIRS, "{at}");
    // Looking whose it is and removing it are two calls: what comes between them goes.
    if !at.contains("before unlink s/.agent_state_meta/") {
        assert_eq!(head.writer, writer("neighbour"), "{at}");
    }
    let lines = engine.changes(&session(), 0).unwrap();
    assert_eq!(lines.iter().map(|line| line.seq).collect::<Vec<_>>(), (1..=lines.len() as u64).collect::<Vec<_>>());
    let adopted = lines.iter().any(|l| l.op == Op::Adopt && l.key == case.key && l.version == Some(head.version));
    assert!(adopted, "{at}: the log does not tell the neighbour's value: {lines:#?}");
    // The fourth is the last that was there before.
    let told = lines.iter().skip(4).any(|line| line.op == case.op);
    assert!(told || !committed, "{at}: the log does not tell our change");
    if let (true, false, Some((version, bytes))) = (told, placed, case.ours) {
        assert!(head.version > version, "{at}: theirs has version {}", head.version);
        let ours = engine.open_version(&session(), &key(case.key), version).unwrap();
        let ours = ours.unwrap_or_else(|| panic!("{at}: our version {version} is lost"));
        assert_eq!(String::from_utf8_lossy(&ours.read_all().unwrap()), String::from_utf8_lossy(bytes), "{at}");
        assert_eq!(ours.head.writer, writer("w"), "{at}");
    }
    if case.op == Op::Rename && told {
        assert_eq!(value(engine, "k"), None, "{at}: what was moved is still where it was");
    }
}

/// The neighbour writes before the operation `n` of our commit. `None`: there are not so many.
fn meet(case: &Case, n: usize, waits: bool) -> Option<()> {
    let (dir, watch, engine) = store();
    let engine = if waits { engine.deferring() } else { engine };
    watch.take();
    let (root, target, seen) = (dir.path().to_owned(), case.key, Arc::<Mutex<Vec<String>>>::default());
    let doing = Arc::clone(&seen);
    watch.before(move |what| {
        let mut doing = doing.lock().unwrap();
        if doing.len() == n {
            other_writes(&root, target);
        }
        doing.push(what.to_owned());
    });
    let made = engine.commit(&session(), (case.change)(), &by("w"));
    engine.sync().unwrap();
    watch.before(|_| {});
    let seen = seen.lock().unwrap().clone();
    let moment = seen.get(n)?.clone();
    let placed = seen[..n].iter().any(|what| what.starts_with(case.placed));
    let committed = match made {
        Ok(_) => true,
        Err(EngineError::Stale { .. }) => false,
        Err(e) => panic!("{}, before {moment}: {e}", case.name),
    };
    check(&engine, case, committed, placed, &format!("before {moment}"));
    drop(engine);
    for boot in [None, Some("another boot")] {
        boot.iter().for_each(|boot| watch.reboot(boot));
        let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
        check(&engine, case, committed, placed, &format!("before {moment}, opened again, boot {boot:?}"));
    }
    Some(())
}

/// We die before the operation `n` of our commit, and the neighbour writes before the store is opened again; it has put
/// its sidecar in place by then, or only its value. `None`: there are not so many.
fn die(case: &Case, n: usize, boot: Option<&str>, late: bool) -> Option<()> {
    let (dir, watch, engine) = store();
    watch.take();
    watch.fail(Some((n, libc::EIO)));
    let acknowledged = engine.commit(&session(), (case.change)(), &by("w")).is_ok();
    let done = watch.take();
    drop(engine);
    watch.fail(None);
    if done.len() < n {
        return None;
    }
    boot.iter().for_each(|boot| watch.reboot(boot));
    let at = format!("dead after {:?}, boot {boot:?}, its sidecar comes late: {late}", done.last());
    if late {
        place(&dir.path().join("s").join(case.key), THEIRS);
    } else {
        other_writes(dir.path(), case.key);
    }
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    if late {
        other_sidecar(dir.path(), case.key);
    }
    // What our append was to go behind went with the neighbour's rename, if no record that is published again has it.
    let nowhere = case.op == Op::Append && boot.is_none();
    let placed = nowhere || done.iter().any(|what| what.starts_with(case.placed));
    check(&engine, case, acknowledged, placed, &at);
    engine.close().unwrap();
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    check(&engine, case, acknowledged, placed, &format!("{at}, closed and opened again"));
    Some(())
}

// F25
#[test]
fn a_value_that_replaces_one_whose_adoption_is_stuck_gets_a_version_of_its_own() {
    let (dir, watch, engine) = store();
    watch.bar(Some("s/l"));
    commit(&engine, put("l", b"ours", Some(1)));
    // Nothing of the session comes to its place from here on but what is adopted, and that cannot be marked once.
    place(&dir.path().join("s/k"), THEIRS);
    let failing = watch.clone();
    watch.before_each("sync_data .baton/journal", move || failing.fail(Some((1, libc::EIO))));
    let _ = engine.head(&session(), &key("k"));
    watch.before(|_| {});
    watch.fail(None);
    assert_eq!(
        engine.changes(&session(), 0).unwrap().last().map(|line| (line.op, line.version)),
        Some((Op::Adopt, Some(2)))
    );
    place(&dir.path().join("s/k"), b"another");
    assert_eq!((value(&engine, "k").unwrap(), version(&engine, "k")), (b"another".to_vec(), Some(3)));
    watch.bar(None);
    assert_eq!((value(&engine, "l").unwrap(), version(&engine, "l")), (b"ours".to_vec(), Some(2)));
    assert_eq!(version(&engine, "k"), Some(3));
    engine.close().unwrap();
}

fn other_sidecar(root: &Path, key: &str) {
    let place_at = root.join(format!("s/.agent_state_meta/{key}.json"));
    place(&place_at, &batonfs::engine::sidecar(&writer("neighbour"), 1));
}

/// Every so many moments, or each of them.
pub(crate) fn moments(every: usize) -> impl Iterator<Item = usize> {
    (0..).step_by(if std::env::var_os("BATONFS_LONG").is_some() { 1 } else { every })
}

// F11 F12 F23
#[test]
fn f23_the_neighbour_writes_at_any_moment_of_a_commit_and_both_values_are_versions() {
    let mut met = 0;
    for case in cases() {
        met += (0..).take_while(|n| meet(&case, *n, false).is_some()).count();
        if matches!(case.op, Op::Put | Op::Append) {
            met += (0..).take_while(|n| meet(&case, *n, true).is_some()).count();
        }
    }
    println!("{met} moments");
    assert!(met > 35, "only {met} moments");
}

// F11 F23 F28
#[test]
fn the_neighbour_writes_between_a_death_at_any_moment_and_the_recovery_and_both_values_are_versions() {
    let mut died = 0;
    for case in cases() {
        for (boot, late) in [(None, false), (Some("another boot"), true), (None, true), (Some("another boot"), false)] {
            died += moments(5).take_while(|n| die(&case, *n, boot, late).is_some()).count();
        }
    }
    println!("{died} deaths");
    assert!(died > 60, "only {died} deaths");
}
