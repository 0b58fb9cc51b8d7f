//! Commits that are answered before their sync: what readers see of them, what makes them durable, and what a program
//! beside the store sees. What a crash leaves of them is in `power`.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use batonfs::engine::local::LocalEngine;
use batonfs::engine::memory::MemoryEngine;
use batonfs::engine::{Attributes, Change, Engine, EngineError, Keep, Staged};
use batonfs::handoff::HandoffDocument;
use batonfs::store::{Document, Store};
use batonfs::words::{Key, Policy, SessionId};

use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;
use crate::power::{KEYS, Step, workload};
use crate::power_disk::{Chance, PowerDisk};
use crate::sound::{assert_sound, told};

const JOURNAL_SYNC: &str = "sync_data .baton/journal";

/// An open store that answers before its syncs, with the session `s` and the directory `d`.
fn late() -> (tempfile::TempDir, Watch, LocalEngine) {
    let (dir, watch) = (fresh(), Watch::default());
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap().deferring();
    make_session(&engine);
    commit(&engine, make_dir("d"));
    watch.take();
    (dir, watch, engine)
}

/// The bytes of a key as a program beside the store sees them.
fn beside(root: &Path, path: &str) -> Option<Vec<u8>> {
    std::fs::read(root.join("s").join(path)).ok()
}

fn reopened(root: &Path) -> LocalEngine {
    LocalEngine::open(root).unwrap()
}

// F50
#[test]
fn f50_one_sync_makes_all_values_durable_that_were_committed_before_it_and_puts_them_in_their_places() {
    let (dir, watch, engine) = late();
    for n in 0..40 {
        let path = format!("d/k{}", n % 8);
        let now = version(&engine, &path);
        commit(
            &engine,
            now.filter(|_| n % 3 == 2).map_or_else(|| put(&path, b"value", now), |now| append(&path, b"+", now)),
        );
    }
    assert_eq!(watch.count(JOURNAL_SYNC), 0);
    assert_eq!(beside(dir.path(), "d/k0"), None);
    engine.sync().unwrap();
    assert_eq!(watch.count(JOURNAL_SYNC), 1);
    assert_eq!(beside(dir.path(), "d/k0"), value(&engine, "d/k0"));
    // With nothing to make durable it does nothing.
    watch.take();
    engine.sync().unwrap();
    assert_eq!(watch.take(), Vec::<String>::new());
    engine.close().unwrap();
    assert_sound(dir.path());
}

// F50
#[test]
fn f50_a_change_of_names_or_attributes_is_durable_when_it_is_answered_and_so_is_all_before_it() {
    let changes = [
        ("delete", delete("old", 1)),
        ("rename", rename("old", "new", 1, None)),
        ("make a directory", make_dir("e")),
        ("remove a directory", remove_dir("d")),
        ("rename a directory", rename_dir("d", "e")),
        ("policy", Change::SetPolicy(Policy::Warn)),
        ("a value in a directory that it makes", put("x/y/z", b"made", None)),
    ];
    for (name, change) in changes {
        let (dir, watch, engine) = late();
        commit(&engine, put("old", b"old", None));
        commit(&engine, put("k", b"late", None));
        assert_eq!((watch.count(JOURNAL_SYNC), beside(dir.path(), "k")), (0, None), "{name}");
        commit(&engine, change);
        assert!(watch.count(JOURNAL_SYNC) > 0, "{name}");
        assert_eq!(beside(dir.path(), "k").as_deref(), Some(&b"late"[..]), "{name}");
        engine.close().unwrap();
        assert_sound(dir.path());
    }
}

/// Everything that readers see of a session but the versions before the newest.
fn seen(engine: &dyn Engine) -> Vec<String> {
    let mut seen = Vec::new();
    for path in KEYS {
        let path: Key = key(path);
        let head = engine.head(&session(), &path).unwrap();
        let bytes = engine.open(&session(), &path).unwrap().map(|value| {
            assert_eq!(Some(&value.head), head.as_ref());
            value.read_all().unwrap()
        });
        let entry =
            engine.entry(&session(), path.as_str()).unwrap().map(|it| (it.kind, it.size_bytes, it.attributes.mode));
        let last = engine.last_version(&session(), &path).unwrap();
        let head = head.map(|it| (it.version, it.appends_since, it.seq, it.size_bytes, it.writer, it.attributes.mode));
        // A directory's own size and mode are each file system's.
        let entry = entry.filter(|_| head.is_some());
        seen.push(format!("{path}: {head:?} {bytes:?} {entry:?} {last}"));
    }
    for path in ["", "d", "d/e", "m"] {
        seen.push(format!("{path}/: {:?}", engine.read_dir(&session(), &dir(path)).ok()));
    }
    seen.push(format!("{:?} {:?}", engine.list(&session()).ok(), engine.policy(&session()).ok()));
    let lines = engine.changes(&session(), 0).unwrap_or_default();
    seen.extend(lines.into_iter().map(|l| format!("{} {:?} {} {:?} {:?}", l.seq, l.op, l.key, l.to, l.version)));
    seen
}

// F51
#[test]
fn f51_what_waits_for_its_sync_is_read_as_if_it_were_in_its_place() {
    let mut late = 0;
    for seed in 1..=12 {
        let disk = PowerDisk::new();
        let engine = LocalEngine::open_on(Arc::new(disk.clone())).unwrap().deferring();
        let model = MemoryEngine::new();
        for (n, step) in workload(seed, 60, Keep::USUAL).0.into_iter().enumerate() {
            let Step::Make(change, by_whom) = step else { continue };
            let context = by(&by_whom);
            let receipt = engine.commit(&session(), change.clone(), &context).unwrap();
            assert_eq!(receipt, model.commit(&session(), change.clone(), &context).unwrap());
            late += usize::from(disk.files("").iter().any(|(path, ..)| path.contains("drafts/")));
            assert_eq!(seen(&engine), seen(&model), "seed {seed}, step {n}: {change:?}");
            // The same operation asked again is the same commit.
            assert_eq!(engine.receipt(&session(), context.operation).unwrap(), Some(receipt));
            if n % 11 == 10 {
                engine.sync().unwrap();
                assert_eq!(seen(&engine), seen(&model), "seed {seed}, step {n}, synced");
            }
        }
        for path in KEYS {
            let versions = |of: &dyn Engine| of.versions(&session(), &key(path)).unwrap();
            let kept = versions(&model);
            let least = kept.last().copied().unwrap_or(0).saturating_sub(batonfs::engine::KEPT_VERSIONS);
            let of_late: Vec<_> = versions(&engine).into_iter().filter(|version| *version >= least).collect();
            assert_eq!(of_late, kept.into_iter().filter(|version| *version >= least).collect::<Vec<_>>(), "{path}");
        }
    }
    println!("{late} looks while something waited");
    assert!(late > 200, "only {late} looks while something waited");
}

// F51
#[test]
fn f51_nothing_that_is_said_of_a_value_changes_when_it_comes_to_its_place() {
    let (dir, _watch, engine) = late();
    let said = |path: &str| {
        let head = engine.head(&session(), &key(path)).unwrap().unwrap();
        let entry = engine.entry(&session(), path).unwrap().unwrap();
        (head, entry.kind, entry.size_bytes, entry.attributes)
    };
    let xattrs = [("user.colour".to_owned(), b"blue".to_vec())].into();
    let attributes =
        Attributes { mode: 0o640, mtime: at(77) + Duration::from_nanos(123_456_789), xattrs, ..attributes() };
    let content = Staged::from(b"value".to_vec());
    commit(&engine, Change::Put { key: key("k"), content, expected: None, attributes });
    commit(&engine, put("l", b"one", None));
    commit(&engine, append("l", b" and two", 1));
    commit(&engine, put("large", &[3; 80_000], None));
    let paths = ["k", "l", "large"];
    let before = paths.map(said);
    assert_eq!(beside(dir.path(), "k"), None);
    engine.sync().unwrap();
    assert!(paths.iter().all(|path| beside(dir.path(), path).is_some()));
    assert_eq!(before, paths.map(said));
}

// F51
#[test]
fn f51_who_asks_for_the_versions_of_a_key_finds_those_that_waited() {
    let (dir, _watch, engine) = late();
    for n in 1..=3 {
        commit(&engine, put("k", format!("{n}").as_bytes(), (n > 1).then(|| n - 1)));
    }
    let pinned = engine.open(&session(), &key("k")).unwrap().unwrap();
    assert_eq!(beside(dir.path(), "k"), None);
    let read = |version| engine.open_version(&session(), &key("k"), version).unwrap().map(|it| it.read_all().unwrap());
    assert_eq!(read(2).as_deref(), Some(&b"2"[..]));
    assert_eq!(beside(dir.path(), "k").as_deref(), Some(&b"3"[..]));
    commit(&engine, put("k", b"4", Some(3)));
    assert_eq!(engine.versions(&session(), &key("k")).unwrap(), [1, 2, 3, 4]);
    // Who had it open while it waited reads on.
    assert_eq!(pinned.read_all().unwrap(), b"3");
}

// F51
#[test]
fn f51_a_check_finds_nothing_while_values_wait_and_leaves_none_waiting() {
    let (dir, _watch, engine) = late();
    commit(&engine, put("k", b"one", None));
    commit(&engine, append("k", b" and two", 1));
    let report = engine.verify(false, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(told(&report.findings), Vec::<String>::new());
    assert_eq!(beside(dir.path(), "k").as_deref(), Some(&b"one and two"[..]));
    commit(&engine, put("l", b"again late", None));
    assert_eq!(beside(dir.path(), "l"), None);
}

// F50
// F51
#[test]
fn f51_nobody_sees_a_version_go_back_while_others_write_and_sync() {
    const WRITERS: u64 = 4;
    const ROUNDS: u64 = 150;
    let (dir, _watch, engine) = late();
    let (engine, writing) = (&engine, &AtomicU64::new(WRITERS));
    let look = |engine: &LocalEngine, before: &mut [u64; 3]| {
        for (n, before) in before.iter_mut().enumerate() {
            let Some(value) = engine.open(&session(), &key(&format!("k{n}"))).unwrap() else { continue };
            let text = String::from_utf8(value.read_all().unwrap()).unwrap();
            let first: u64 = text.split('+').next().unwrap().parse().unwrap();
            // It begins with the version that was put, and has one more sign for each that was appended.
            assert_eq!(
                (first, first + text.matches('+').count() as u64),
                (value.head.appends_since, value.head.version)
            );
            assert!(*before <= value.head.version, "{before} comes before {}", value.head.version);
            *before = value.head.version;
        }
    };
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                let mut chance = Chance::new(writer + 1);
                for _ in 0..ROUNDS {
                    let path = format!("k{}", chance.below(3));
                    let now = version(engine, &path);
                    let change = match now {
                        Some(now) if chance.is(50) => append(&path, b"+", now),
                        _ => put(&path, (now.unwrap_or(0) + 1).to_string().as_bytes(), now),
                    };
                    match engine.commit(&session(), change, &by("w")) {
                        Ok(_) | Err(EngineError::Stale { .. }) => {}
                        Err(e) => panic!("{e}"),
                    }
                    if chance.is(3) {
                        commit(engine, make_dir(&format!("d/{}", uuid::Uuid::now_v7())));
                    }
                }
                writing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        scope.spawn(|| {
            while writing.load(Ordering::SeqCst) > 0 {
                engine.sync().unwrap();
            }
        });
        scope.spawn(|| {
            let mut before = [0; 3];
            while writing.load(Ordering::SeqCst) > 0 {
                look(engine, &mut before);
            }
        });
    });
    let lines = engine.changes(&session(), 0).unwrap();
    assert_eq!(lines.iter().map(|line| line.seq).collect::<Vec<_>>(), (1..=lines.len() as u64).collect::<Vec<_>>());
    let made = lines.iter().filter(|line| line.version.is_some()).count();
    let last: u64 = (0..3).map(|n| version(engine, &format!("k{n}")).unwrap_or(0)).sum();
    assert_eq!(made as u64, last, "each line is a version, and each version has a line");
    engine.close().unwrap();
    assert_sound(dir.path());
}

// F50
#[test]
fn f50_files_that_many_commits_free_at_one_time_serve_the_next_ones() {
    let (_dir, watch, engine) = late();
    for round in 0..3 {
        watch.take();
        for n in 0..200_u64 {
            let now = round * 200 + n;
            commit(&engine, put("k", b"value", (now > 0).then_some(now)));
        }
        engine.sync().unwrap();
    }
    let made: Vec<_> = watch.take().into_iter().filter(|what| what.starts_with("create")).collect();
    assert!(made.len() < 20, "{} files were made anew for 200 values and their sidecars", made.len());
}

// F50
#[test]
fn f50_what_waits_is_bounded_by_number_and_by_bytes() {
    let (dir, watch, engine) = late();
    for n in 0..1500_u64 {
        commit(&engine, put("k", b"small", (n > 0).then_some(n)));
    }
    assert_eq!(watch.count(JOURNAL_SYNC), 1, "1500 small values");
    watch.take();
    for n in 0..100 {
        commit(&engine, put(&format!("d/{n}"), &[7; 60_000], None));
    }
    assert_eq!(watch.count(JOURNAL_SYNC), 1, "6 MB");
    drop(engine);
    assert_eq!(version(&reopened(dir.path()), "k"), Some(1500));
}

// F53: the process ends without a word, and the machine goes on.
#[test]
fn f53_what_waited_when_the_process_ended_is_there_and_goes_on() {
    let (dir, _watch, engine) = late();
    commit(&engine, put("k", b"one", None));
    commit(&engine, append("k", b" two", 1));
    commit(&engine, append("k", b" three", 2));
    commit(&engine, put("big", &[1; 100_000], None));
    drop(engine);
    let engine = reopened(dir.path());
    assert_eq!(value(&engine, "k").as_deref(), Some(&b"one two three"[..]));
    assert_eq!(value(&engine, "big").map(|bytes| bytes.len()), Some(100_000));
    commit(&engine, append("k", b" four", 3));
    engine.close().unwrap();
    assert_sound(dir.path());
}

// F50
#[test]
fn f50_a_clean_end_makes_durable_what_waited() {
    let disk = PowerDisk::new();
    let engine = LocalEngine::open_on(Arc::new(disk.clone())).unwrap().deferring();
    make_session(&engine);
    commit(&engine, put("k", b"kept", None));
    engine.close().unwrap();
    for seed in 1..=20 {
        let engine = LocalEngine::open_on(Arc::new(disk.after_cut(&mut Chance::new(seed)))).unwrap();
        assert_eq!(value(&engine, "k").as_deref(), Some(&b"kept"[..]));
    }
}

// F18
// F55
// D4
#[test]
fn f55_a_failed_sync_closes_the_store_and_what_waited_is_still_served_and_put_nowhere() {
    let (dir, watch, engine) = late();
    commit(&engine, put("k", b"late", None));
    watch.fail(Some((0, libc::EIO)));
    let error = engine.sync().unwrap_err();
    watch.fail(None);
    assert!(matches!(error, EngineError::Closed(_)), "{error}");
    assert!(error.to_string().contains("syncing the journal failed"), "{error}");
    for change in [put("l", b"more", None), append("k", b"more", 1), make_dir("e"), delete("k", 1)] {
        assert!(matches!(refused(&engine, change), EngineError::Closed(_)));
    }
    assert!(matches!(engine.sync(), Err(EngineError::Closed(_))), "a sync after a failed one");
    assert_eq!(value(&engine, "k").as_deref(), Some(&b"late"[..]));
    assert_eq!(keys(&engine), ["k"]);
    assert_eq!(engine.versions(&session(), &key("k")).unwrap(), [1]);
    assert_eq!(engine.open_version(&session(), &key("k"), 2).unwrap().map(|value| value.head.version), None);
    assert_eq!(beside(dir.path(), "k"), None);
    assert!(matches!(engine.close(), Err(EngineError::Closed(_))), "an end that could not make it durable");
    drop(engine);
    // The machine goes on: the page cache has it.
    let engine = reopened(dir.path());
    assert_eq!(value(&engine, "k").as_deref(), Some(&b"late"[..]));
    assert_eq!(version(&engine, "l"), None);
    engine.close().unwrap();
    assert_sound(dir.path());
}

// F25
// F51
#[test]
fn f51_what_is_durable_but_cannot_be_put_in_its_place_is_served_and_put_there_later() {
    let (dir, watch, engine) = late();
    commit(&engine, put("k", b"one", None));
    commit(&engine, put("k", b"two", Some(1)));
    commit(&engine, put("l", b"other", None));
    watch.bar(Some("s/k"));
    engine.sync().unwrap();
    assert_eq!(value(&engine, "k").as_deref(), Some(&b"two"[..]));
    assert_eq!(value(&engine, "l").as_deref(), Some(&b"other"[..]));
    refused(&engine, put("l", b"no", Some(1)));
    watch.bar(None);
    assert_eq!(value(&engine, "k").as_deref(), Some(&b"two"[..]));
    commit(&engine, put("l", b"yes", Some(1)));
    assert_eq!(engine.versions(&session(), &key("k")).unwrap(), [1, 2]);
    assert_eq!(beside(dir.path(), "k").as_deref(), Some(&b"two"[..]));
    engine.close().unwrap();
    assert_sound(dir.path());
}

// F50
#[test]
fn f50_a_handoff_is_durable_when_it_is_answered_and_so_is_all_before_it() {
    let (dir, watch, engine) = late();
    let engine: Arc<dyn Engine> = Arc::new(engine);
    let documents: Vec<Box<dyn Document>> = vec![Box::new(HandoffDocument::new())];
    let store = Store::new(Arc::clone(&engine), "/store".into(), documents, Policy::Ignore);
    write(&store, "k", b"what it speaks of", &caller("w")).unwrap();
    assert_eq!((watch.count(JOURNAL_SYNC), beside(dir.path(), "k")), (0, None));
    write(&store, "__handoff.json", b"{\"status\":\"done\"}", &caller("w")).unwrap();
    assert_eq!(watch.count(JOURNAL_SYNC), 1);
    assert_eq!(beside(dir.path(), "k").as_deref(), Some(&b"what it speaks of"[..]));
    assert!(beside(dir.path(), "__handoff.json").is_some());
}

// F51
#[test]
fn f51_who_has_versions_put_in_their_places_is_in_no_checkpoints_way() {
    let (dir, _watch, engine) = late();
    let other = SessionId::parse("t").unwrap();
    let at_other = |change| engine.commit(&other, change, &by("w"));
    at_other(make_dir("")).unwrap();
    at_other(make_dir("one")).unwrap();
    let stopped = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !stopped.load(Ordering::Relaxed) {
                let now = version(&engine, "k");
                commit(&engine, put("k", b"value", now));
                engine.versions(&session(), &key("k")).unwrap();
            }
        });
        // Each makes two checkpoints.
        let renamed: Vec<_> = (0..40)
            .map(|n| at_other(if n % 2 == 0 { rename_dir("one", "two") } else { rename_dir("two", "one") }))
            .collect();
        stopped.store(true, Ordering::Relaxed);
        renamed.into_iter().for_each(|renamed| assert!(renamed.is_ok(), "{renamed:?}"));
    });
    engine.close().unwrap();
    assert_sound(dir.path());
}
