//! History where numbers leave gaps, names come with directories, and programs beside the store bring old copies back: no
//! number is given twice, and what was replaced is there.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use batonfs::engine::local::{LocalEngine, Opening};
use batonfs::engine::memory::MemoryEngine;
use batonfs::engine::{Change, Engine, EngineError, KEPT_VERSIONS, Keep};
use batonfs::words::{Lost, Op, Past};

use crate::beside::moments;
use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;
use crate::full::quick_dir;
use crate::sound::assert_sound;
use crate::table::ALWAYS;

fn watched(keep: Keep) -> (tempfile::TempDir, Watch, Arc<LocalEngine>) {
    let (dir, watch) = (quick_dir(), Watch::default());
    let disk = RecordingDisk::open(dir.path(), &watch);
    let engine = Arc::new(LocalEngine::open_with(disk, Opening { keep, ..Opening::USUAL }).unwrap());
    make_session(&*engine);
    (dir, watch, engine)
}

const ALL: Opening<'static> = Opening { keep: Keep::ALL, ..ALWAYS };

fn text(engine: &dyn Engine, path: &str, version: u64) -> Option<String> {
    let snapshot = engine.open_version(&session(), &key(path), version).unwrap()?;
    Some(String::from_utf8(snapshot.read_all().unwrap()).unwrap())
}

/// Gives a key the versions up to this one, each saying its number.
fn write_upto(engine: &dyn Engine, path: &str, last: u64) {
    let mut now = version(engine, path);
    while now != Some(last) {
        let next = engine.last_version(&session(), &key(path)).unwrap() + 1;
        now = commit(engine, put(path, format!("{path} {next}").as_bytes(), now)).version;
    }
}

/// Puts the directory `m` with two versions of `m/k` in the place of `n`, whose key `k` had versions up to `last`.
fn replace_dir(engine: &dyn Engine, last: u64) {
    write_upto(engine, "n/k", last);
    commit(engine, delete("n/k", last));
    commit(engine, remove_dir("n"));
    write_upto(engine, "m/k", 2);
    commit(engine, rename_dir("m", "n"));
}

/// The versions that the log gave a key under its last name, in their order.
fn given(engine: &dyn Engine, path: &str) -> Vec<u64> {
    let lines = engine.changes(&session(), 0).unwrap().into_iter();
    lines.filter(|line| line.key == path).filter_map(|line| line.version).collect()
}

// F60
#[test]
fn the_value_that_a_change_replaces_is_kept_however_far_before_it_its_number_is() {
    for subject in with_session() {
        let engine = &*subject.engine;
        replace_dir(engine, KEPT_VERSIONS + 20);
        let next = commit(engine, put("n/k", b"over it", Some(2))).version.unwrap();
        assert_eq!(next, KEPT_VERSIONS + 21);
        assert_eq!(text(engine, "n/k", 2).as_deref(), Some("m/k 2"), "{}", engine.name());
        if let Some(dir) = &subject.dir {
            engine.close().unwrap();
            assert_sound(dir.path());
        }
    }
}

// F10
#[test]
fn a_copy_put_back_below_a_renamed_directory_takes_no_number_that_was_given() {
    let subject = local();
    let (engine, root) = (&*subject.engine, subject.dir.as_ref().unwrap().path());
    make_session(engine);
    replace_dir(engine, 3);
    back_up(&root.join("s/n/k"), &root.join("backup"));
    write_upto(engine, "n/k", 5);
    fs::rename(root.join("backup"), root.join("s/n/k")).unwrap();
    let refused = refused(engine, put("n/k", b"new", Some(2)));
    assert!(matches!(refused, EngineError::Stale { current: Some(6) }), "{refused}");
    assert_eq!(commit(engine, put("n/k", b"new", Some(6))).version, Some(7));
    assert_eq!(text(engine, "n/k", 4).as_deref(), Some("n/k 4"));
}

// F10
#[test]
fn a_copy_put_back_below_a_renamed_directory_after_its_delete_is_a_version_of_its_own() {
    let subject = local();
    let (engine, root) = (&*subject.engine, subject.dir.as_ref().unwrap().path());
    make_session(engine);
    replace_dir(engine, 3);
    back_up(&root.join("s/n/k"), &root.join("backup"));
    commit(engine, delete("n/k", 2));
    fs::rename(root.join("backup"), root.join("s/n/k")).unwrap();
    let refused = refused(engine, put("n/k", b"new", Some(2)));
    assert!(matches!(refused, EngineError::Stale { current: Some(4) }), "{refused}");
    assert_eq!(engine.changes(&session(), 0).unwrap().last().unwrap().op, Op::Adopt);
    assert_eq!(commit(engine, put("n/k", b"new", Some(4))).version, Some(5));
    for version in [2, 4] {
        assert_eq!(text(engine, "n/k", version).as_deref(), Some("m/k 2"));
    }
    engine.close().unwrap();
    assert_sound(root);
}

// F10
#[test]
fn a_copy_of_what_was_only_appended_to_since_takes_no_number_that_was_given() {
    let subject = local();
    let (engine, root) = (&*subject.engine, subject.dir.as_ref().unwrap().path());
    make_session(engine);
    write_upto(engine, "k", 2);
    back_up(&root.join("s/k"), &root.join("backup"));
    commit(engine, append("k", b" and more", 2));
    fs::rename(root.join("backup"), root.join("s/k")).unwrap();
    let refused = refused(engine, put("k", b"new", Some(2)));
    assert!(matches!(refused, EngineError::Stale { current: Some(4) }), "{refused}");
    commit(engine, put("k", b"new", Some(4)));
    assert_eq!(given(engine, "k"), [1, 2, 3, 4, 5]);
}

// F60
#[test]
fn a_commit_and_a_recovery_cost_the_same_however_many_versions_of_a_key_are_kept() {
    let cost = |versions: u64| {
        let (dir, watch, engine) = watched(Keep::ALL);
        write_upto(&*engine, "k", versions);
        engine.close().unwrap();
        drop(engine);
        let open = || LocalEngine::open_with(RecordingDisk::open(dir.path(), &watch), ALL).unwrap();
        let engine = open();
        watch.take();
        watch.take_looked();
        commit(&engine, put("k", b"one more", Some(versions)));
        commit(&engine, append("k", b"+", versions + 1));
        let of_commits = (watch.take().len(), watch.take_looked().0);
        engine.close().unwrap();
        drop(engine);
        // Nothing of the records that were: the journals of both stores are as long.
        let journal = fs::OpenOptions::new().write(true).open(dir.path().join(".baton/journal")).unwrap();
        journal.set_len(8192).unwrap();
        write_upto(&open(), "k", versions + 12);
        watch.reboot("another boot");
        watch.take();
        watch.take_looked();
        drop(open());
        (of_commits, watch.take().len(), watch.take_looked().0)
    };
    // Lines with longer numbers change nothing.
    assert_eq!(cost(110), cost(300));
}

// P1
#[test]
fn p1_the_bytes_of_the_newest_version_are_checked_too_when_it_is_asked_for_by_its_number() {
    let subject = local();
    let (engine, root) = (&*subject.engine, subject.dir.as_ref().unwrap().path());
    make_session(engine);
    write_upto(engine, "k", 2);
    for (place, version) in [("s/k", 2), (".baton/history/s/kk/1", 1)] {
        let file = fs::OpenOptions::new().write(true).open(root.join(place)).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"K", 0).unwrap();
        file.set_modified(modified).unwrap();
        let opened = engine.open_version(&session(), &key("k"), version).map(|it| it.map(|it| it.head.version));
        assert!(matches!(opened, Err(EngineError::Damaged { .. })), "version {version}: {opened:?}");
    }
}

// F6
#[test]
fn a_file_of_another_version_under_a_number_is_damage() {
    let subject = local();
    let (engine, root) = (&*subject.engine, subject.dir.as_ref().unwrap().path());
    make_session(engine);
    write_upto(engine, "k", 4);
    let seq = commit(engine, lost("k", Lost::Dropped, b"half")).seq;
    let place = |name: &str| root.join(".baton/history/s/kk").join(name);
    fs::rename(place("2"), place("1")).unwrap();
    fs::rename(place(&format!("d{seq}")), place("d2")).unwrap();
    for past in [Past::Version(1), Past::Draft(2, Lost::Dropped)] {
        let opened = engine.open_past(&session(), &key("k"), past).map(|it| it.map(|it| it.head.version));
        assert!(matches!(opened, Err(EngineError::Damaged { .. })), "{past}: {opened:?}");
    }
}

// F29
#[test]
fn a_renamed_directory_comes_to_its_place_whatever_lies_among_the_sidecars() {
    type Left = fn(&Path);
    let lefts: [(&str, Left); 3] = [
        ("a name that is not UTF-8", |meta| {
            fs::create_dir_all(meta.join("n")).unwrap();
            fs::write(meta.join("m").join(std::ffi::OsStr::from_bytes(b"\xff")), b"").unwrap();
        }),
        ("a directory where a sidecar is to go", |meta| fs::create_dir_all(meta.join("n/k.json")).unwrap()),
        ("a sidecar where a directory is to go", |meta| {
            fs::create_dir_all(meta.join("n")).unwrap();
            fs::write(meta.join("n/d"), b"").unwrap();
        }),
    ];
    for (what, leave) in lefts {
        let (dir, watch, engine) = watched(Keep::USUAL);
        write_upto(&*engine, "m/k", 2);
        write_upto(&*engine, "m/d/k", 2);
        leave(&dir.path().join("s/.agent_state_meta"));
        commit(&*engine, rename_dir("m", "n"));
        for boot in [None, Some("another boot")] {
            boot.iter().for_each(|boot| watch.reboot(boot));
            let listed = engine.list(&session());
            assert!(listed.is_ok(), "{what}: {listed:?}");
            assert_eq!(text(&*engine, "n/k", 1).as_deref(), Some("m/k 1"), "{what}");
            let made = engine.commit(&session(), put("other", b"", version(&*engine, "other")), &by("w"));
            assert!(made.is_ok(), "{what}: {made:?}");
        }
    }
}

// F61
#[test]
fn one_file_that_cannot_be_removed_keeps_no_other_in_history() {
    let (dir, watch, engine) = watched(Keep::USUAL);
    for path in ["a", "b", "c", "d"] {
        write_upto(&*engine, path, 3);
    }
    watch.bar(Some("unlink .baton/history/s/kb/1"));
    let later = SystemTime::now() + Duration::from_secs(31 * 24 * 60 * 60);
    assert_eq!(engine.sweep(later, &AtomicBool::new(false)).unwrap(), 7);
    watch.bar(None);
    assert_eq!(engine.sweep(later, &AtomicBool::new(false)).unwrap(), 1);
    engine.close().unwrap();
    assert_sound(dir.path());
}

// F7
#[test]
fn keys_of_the_greatest_length_and_names_of_the_greatest_have_histories() {
    let dir = quick_dir();
    let engine = Arc::new(LocalEngine::open(dir.path()).unwrap());
    make_session(&*engine);
    for subject in with_session().into_iter().take(1).chain([Subject { engine, dir: Some(dir) }]) {
        let engine = &*subject.engine;
        // In history it is longer than what one call of the system takes.
        let deep = vec!["dir"; 950].join("/");
        let wide = ["n".repeat(250).as_str(); 15].join("/");
        let numbers = ["3", "3/3", "r3", "d3/k3", "k3/3.refused"];
        for path in [deep.as_str(), wide.as_str()].into_iter().chain(numbers) {
            if path == "3" {
                // It makes room for a directory of its name.
                write_upto(engine, path, 2);
                commit(engine, delete(path, 2));
            } else {
                write_upto(engine, path, 3);
            }
            let seq = commit(engine, lost(path, Lost::Refused, path.as_bytes())).seq;
            assert!(text(engine, path, 1).is_some(), "{path}");
            let kept = engine.open_past(&session(), &key(path), Past::Draft(seq, Lost::Refused)).unwrap().unwrap();
            assert_eq!(kept.read_all().unwrap(), path.as_bytes());
        }
        assert_eq!(engine.past(&session(), &key("3/3")).unwrap().len(), 4);
        if let Some(dir) = &subject.dir {
            engine.close().unwrap();
            assert_sound(dir.path());
        }
    }
}

// F60
#[test]
fn recovery_lets_go_of_what_the_commit_let_go_of_and_of_nothing_else_whoever_recovers() {
    for (commits, recovers) in [(2, 0), (0, 2), (2, 1)] {
        for boot in [None, Some("another boot")] {
            let (dir, watch, engine) = watched(Keep { count: commits, age: None });
            write_upto(&*engine, "k", 8);
            for n in 8..12 {
                commit(&*engine, append("k", b"+", n));
            }
            for n in 0..6 {
                commit(&*engine, lost("k", Lost::Dropped, &[n]));
            }
            let before = engine.past(&session(), &key("k")).unwrap();
            drop(engine);
            boot.iter().for_each(|boot| watch.reboot(boot));
            let opening = Opening { keep: Keep { count: recovers, age: None }, ..Opening::USUAL };
            let engine = LocalEngine::open_with(RecordingDisk::open(dir.path(), &watch), opening).unwrap();
            let after = engine.past(&session(), &key("k")).unwrap();
            assert_eq!(after, before, "{commits} kept by who commits, {recovers} by who recovers, boot {boot:?}");
            engine.close().unwrap();
        }
    }
}

// F11 F60
#[test]
fn of_a_key_of_which_one_version_is_kept_it_is_the_one_before_also_beside_the_neighbour() {
    let one = Keep { count: 1, age: None };
    for n in 0_usize.. {
        let (dir, watch, engine) = watched(one);
        write_upto(&*engine, "k", 5);
        let (root, mut left) = (dir.path().to_owned(), n);
        let (tell, told) = std::sync::mpsc::channel();
        let mut in_place = false;
        watch.before(move |what| {
            if left == 0 {
                crate::neighbour::neighbour_writes(&root, "k", b"theirs", "neighbour");
                drop(tell.send((what.to_owned(), in_place)));
            }
            in_place |= what.starts_with("exchange") && what.ends_with(" s/k");
            left = left.wrapping_sub(1);
        });
        let made = engine.commit(&session(), put("k", b"ours", Some(5)), &by("w"));
        watch.before(|_| {});
        let Ok((moment, in_place)) = told.recv() else { break };
        let newest = version(&*engine, "k").unwrap();
        assert_eq!(value(&*engine, "k").unwrap(), b"theirs", "before {moment}");
        match made {
            Ok(receipt) => {
                assert_eq!((receipt.version, newest), (Some(6), 7), "before {moment}");
                // What was in its place went with the neighbour's rename.
                let ours = (!in_place).then_some("ours");
                assert_eq!(text(&*engine, "k", 6).as_deref(), ours, "before {moment}");
            }
            Err(e) => assert!(matches!(e, EngineError::Stale { .. }), "before {moment}: {e}"),
        }
        commit(&*engine, put("k", b"ours again", Some(newest)));
        assert_eq!(text(&*engine, "k", newest).as_deref(), Some("theirs"), "before {moment}");
        let ops: Vec<_> = engine.changes(&session(), 0).unwrap().into_iter().map(|line| line.op).collect();
        assert!(ops.contains(&Op::Adopt));
        engine.close().unwrap();
        assert_sound(dir.path());
    }
}

const FEW: Keep = Keep { count: 2, age: None };

/// What is done to histories, in an order in which each is possible.
fn history_of_histories() -> Vec<Change> {
    let large = |path: &str, byte: u8, expected| put(path, &[byte; 70_000], expected);
    let mut all = vec![make_dir("n"), make_dir("m")];
    all.extend((1..8).map(|n| put("n/k", format!("n {n}").as_bytes(), Some(n - 1).filter(|n| *n > 0))));
    all.push(lost("n/k", Lost::Refused, b"first of n/k"));
    all.extend([delete("n/k", 7), remove_dir("n"), large("m/k", 1, None), large("m/k", 2, Some(1))]);
    all.extend([append("m/k", b"+", 2), lost("m/k", Lost::Dropped, &[3; 70_000]), rename_dir("m", "n")]);
    all.extend([put("n/k", b"over a gap", Some(3)), lost("n/k", Lost::Dropped, b"half")]);
    all.extend([put("a", b"1", None), put("a", b"2", Some(1)), rename("n/k", "a", 8, Some(2))]);
    all.extend([put("n/k", b"made again", None), rename("a", "n/k", 3, Some(9)), put("a", b"again", None)]);
    all.extend([put("n/k", b"small", Some(10)), append("n/k", b"+", 11), delete("n/k", 12)]);
    all.extend([put("n/k", b"once more", None), put("n/k", b"and more", Some(13)), lost("n/k", Lost::Refused, b"")]);
    all
}

/// Everything that is to be kept of the keys it speaks of.
fn all_kept(engine: &dyn Engine) -> Vec<String> {
    let mut all = Vec::new();
    for path in ["n/k", "m/k", "a"].map(key) {
        let least = engine.last_version(&session(), &path).unwrap().saturating_sub(FEW.count);
        let past = engine.past(&session(), &path).unwrap();
        for past in past.into_iter().filter(|past| past.version().is_none_or(|version| version >= least)) {
            let kept = engine.open_past(&session(), &path, past).unwrap().unwrap();
            let (crc, by) = (crc32c::crc32c(&kept.read_all().unwrap()), kept.head.writer.writer_id);
            all.push(format!("{path} {past}: {crc:08x} of {} bytes by {by:?}", kept.head.size_bytes));
        }
        all.push(format!("{path} is {:?}", version(engine, path.as_str())));
    }
    all
}

/// The disk fails `fails` times from the operation `n` on, and is well again; a closed store is opened again. `false`: there
/// were not so many operations.
fn fails_for_a_moment(n: usize, fails: usize, errno: i32, boot: Option<&str>) -> bool {
    let at = format!("{fails} failures after {n} operations, boot {boot:?}");
    let (dir, watch, mut engine) = watched(FEW);
    let model = MemoryEngine::keeping(FEW);
    make_session(&model);
    let (failing, seen) = (watch.clone(), Arc::new(AtomicUsize::new(0)));
    let doing = Arc::clone(&seen);
    watch.before(move |_| {
        let done = doing.fetch_add(1, Ordering::SeqCst);
        failing.fail((n..n + fails).contains(&done).then_some((0, errno)));
    });
    for change in history_of_histories() {
        for tried in 0.. {
            assert!(tried < 2 * fails + 3, "{at}: {change:?} never comes to be");
            let Err(e) = engine.commit(&session(), change.clone(), &by("w")) else { break };
            if matches!(e, EngineError::Closed(_)) {
                drop(engine);
                boot.iter().for_each(|boot| watch.reboot(boot));
                engine = (0..2 * fails + 3)
                    .find_map(|_| {
                        let opening = Opening { keep: FEW, ..Opening::USUAL };
                        LocalEngine::open_with(RecordingDisk::open(dir.path(), &watch), opening).ok().map(Arc::new)
                    })
                    .unwrap_or_else(|| panic!("{at}: it cannot be opened"));
                let lines = |engine: &dyn Engine| engine.changes(&session(), 0).unwrap().len();
                if (0..fails + 1).find_map(|_| engine.list(&session()).ok()).is_some()
                    && lines(&*engine) > lines(&model)
                {
                    break;
                }
            }
        }
        commit(&model, change);
    }
    watch.before(|_| {});
    watch.fail(None);
    assert_eq!(all_kept(&*engine), all_kept(&model), "{at}");
    drop(engine);
    boot.iter().for_each(|boot| watch.reboot(boot));
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    assert_eq!(all_kept(&engine), all_kept(&model), "{at}, opened again");
    engine.close().unwrap();
    assert_sound(dir.path());
    seen.load(Ordering::SeqCst) > n
}

// F25 F60
#[test]
fn a_disk_that_fails_for_a_moment_takes_nothing_from_any_history() {
    let mut failures = 0;
    for (fails, errno, boot) in [(1, libc::EIO, None), (1, libc::ENOSPC, Some("b")), (3, libc::EIO, Some("b"))] {
        failures += moments(11).take_while(|n| fails_for_a_moment(*n, fails, errno, boot)).count();
    }
    println!("{failures} failures");
    assert!(failures > 20, "only {failures} failures");
}

// F10
#[test]
fn a_mark_with_the_last_number_there_is_is_none_of_ours() {
    let subject = local();
    let (engine, root) = (&*subject.engine, subject.dir.as_ref().unwrap().path());
    make_session(engine);
    write_upto(engine, "k", 2);
    let mark = crate::damage::mark_of(&root.join("s/k"));
    let mark = String::from_utf8(mark).unwrap().replace("\"version\":2", "\"version\":18446744073709551615");
    rustix::fs::setxattr(root.join("s/k"), "user.batonfs", mark.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
    assert_eq!(version(engine, "k"), Some(3));
    commit(engine, put("k", b"four", Some(3)));
    assert_eq!(given(engine, "k"), [1, 2, 3, 4]);
}

// F7 F43
#[test]
fn a_session_that_goes_on_after_its_log_has_lost_lines_gives_no_number_again_that_history_has() {
    let dir = quick_dir();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    write_upto(&engine, "k", 2);
    let log = dir.path().join(".baton/sessions/s/log");
    let len = fs::metadata(&log).unwrap().len();
    write_upto(&engine, "k", 5);
    commit(&engine, delete("k", 5));
    engine.close().unwrap();
    drop(engine);
    fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(len).unwrap();
    crate::sound::checked(dir.path(), true);
    let engine = LocalEngine::open(dir.path()).unwrap();
    assert_eq!(commit(&engine, put("k", b"goes on", None)).version, Some(6));
    assert_eq!(commit(&engine, put("k", b"and on", Some(6))).version, Some(7));
    for version in 3..6 {
        assert_eq!(text(&engine, "k", version), Some(format!("k {version}")));
    }
    assert_eq!(engine.head(&session(), &key("k")).unwrap().unwrap().writer, writer("w"));
}

/// Every text that a key has, or has had and that is kept, under either name.
fn texts(engine: &dyn Engine) -> Vec<String> {
    let mut all = Vec::new();
    for path in ["m/k", "n/k"] {
        all.extend(value(engine, path));
        for version in engine.versions(&session(), &key(path)).unwrap() {
            all.extend(text(engine, path, version).map(String::into_bytes));
        }
    }
    all.into_iter().map(|text| String::from_utf8(text).unwrap()).collect()
}

// F29
#[test]
fn the_neighbour_writes_at_any_moment_of_the_renaming_of_a_directory_and_every_version_is_kept() {
    let mut met = 0;
    for target in ["m/k", "n/k"] {
        for n in 0_usize.. {
            let (dir, watch, engine) = watched(Keep::USUAL);
            write_upto(&*engine, "n/k", 4);
            commit(&*engine, delete("n/k", 4));
            commit(&*engine, remove_dir("n"));
            write_upto(&*engine, "m/k", 2);
            let (root, mut left) = (dir.path().to_owned(), n);
            let (tell, told) = std::sync::mpsc::channel();
            watch.before(move |what| {
                if left == 0 {
                    let replaced = root.join("s").join(target).exists();
                    crate::neighbour::neighbour_writes(&root, target, b"theirs", "neighbour");
                    drop(tell.send((what.to_owned(), replaced)));
                }
                left = left.wrapping_sub(1);
            });
            let made = engine.commit(&session(), rename_dir("m", "n"), &by("w"));
            watch.before(|_| {});
            let Ok((moment, replaced)) = told.recv() else { break };
            met += 1;
            let mut engine = engine;
            for boot in [None, Some(None), Some(Some("another boot"))] {
                let at = format!("{target} before {moment}, {boot:?}, {made:?}");
                if let Some(boot) = boot {
                    drop(engine);
                    boot.iter().for_each(|boot| watch.reboot(boot));
                    engine = Arc::new(LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap());
                }
                if made.is_ok() {
                    assert_eq!(text(&*engine, "n/k", 1).as_deref(), Some("m/k 1"), "{at}: history goes along");
                }
                let there = texts(&*engine);
                // The others of n/k have numbers that come along.
                let ours = ["m/k 1", "n/k 3", "n/k 4"].into_iter().chain((!replaced).then_some("m/k 2"));
                for text in ours.chain(["theirs"]) {
                    assert!(there.iter().any(|it| it == text), "{at}: {text} is not in {there:?}");
                }
            }
            let now = version(&*engine, target);
            commit(&*engine, put(target, b"on it goes", now));
            engine.close().unwrap();
        }
    }
    assert!(met > 15, "only {met} moments");
}

// F7 F29
#[test]
fn a_death_at_any_moment_takes_no_version_for_another_that_had_its_number_before_a_directory_was_renamed() {
    type Made = fn() -> Change;
    let changes: [(&str, Made); 3] = [
        ("delete", || delete("n/k", 2)),
        ("put", || put("n/k", b"over it", Some(2))),
        ("rename over it", || rename("other", "n/k", 1, Some(2))),
    ];
    let mut died = 0;
    for (what, change) in changes {
        for boot in [None, Some("another boot")] {
            for n in 0_usize.. {
                let (dir, watch, engine) = watched(Keep::USUAL);
                write_upto(&*engine, "m/k", 2);
                write_upto(&*engine, "n/k", 3);
                commit(&*engine, put("other", b"other", None));
                commit(&*engine, delete("n/k", 3));
                commit(&*engine, remove_dir("n"));
                commit(&*engine, rename_dir("m", "n"));
                watch.take();
                watch.fail(Some((n, libc::EIO)));
                let made = engine.commit(&session(), change(), &by("w"));
                let done = watch.take();
                drop(engine);
                watch.fail(None);
                if done.len() < n {
                    break;
                }
                died += 1;
                boot.iter().for_each(|boot| watch.reboot(boot));
                let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
                let at = format!("{what}, dead after {:?}, boot {boot:?}, {made:?}", done.last());
                assert_eq!(text(&engine, "n/k", 2).as_deref(), Some("m/k 2"), "{at}");
                assert_eq!(text(&engine, "n/k", 1).as_deref(), Some("m/k 1"), "{at}");
                engine.close().unwrap();
                assert_sound(dir.path());
            }
        }
    }
    assert!(died > 60, "only {died} deaths");
}
