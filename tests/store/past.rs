//! What is kept beside the newest version: earlier ones, and drafts that became none.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use batonfs::engine::local::{LocalEngine, Opening};
use batonfs::engine::memory::MemoryEngine;
use batonfs::engine::{Change, Engine, EngineError, Keep, Kind, Staged};
use batonfs::store::{Base, Draft, Rule, StoreError, Write};
use batonfs::words::{Lost, Op, Past, Policy};

use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;

const LARGE_BYTES: usize = 200_000;

fn kept(engine: &dyn Engine, path: &str, past: Past) -> Vec<u8> {
    engine.open_past(&session(), &key(path), past).unwrap().unwrap().read_all().unwrap()
}

fn large(path: &str, byte: u8, expected: Option<u64>) -> Change {
    put(path, &[byte; LARGE_BYTES], expected)
}

fn names(engine: &dyn Engine, of: &str) -> Vec<String> {
    engine.past_names(&session(), &dir(of)).unwrap()
}

// F56
#[test]
fn f56_a_lost_draft_is_kept_beside_the_versions_of_its_key() {
    for subject in with_session() {
        let engine = &*subject.engine;
        commit(engine, put("d/k", b"one", None));
        let dropped = commit(engine, lost("d/k", Lost::Dropped, b"half"));
        commit(engine, put("d/k", b"two", Some(1)));
        let refused = commit(engine, lost("d/k", Lost::Refused, &[7; LARGE_BYTES]));
        commit(engine, delete("d/k", 2));
        let (dropped, refused) = (Past::Draft(dropped.seq, Lost::Dropped), Past::Draft(refused.seq, Lost::Refused));
        let path = key("d/k");
        let all = [Past::Version(1), Past::Version(2), dropped, refused];
        assert_eq!(engine.past(&session(), &path).unwrap(), all);
        assert_eq!(engine.versions(&session(), &path).unwrap(), [1, 2]);
        assert_eq!(kept(engine, "d/k", dropped), b"half");
        assert!(kept(engine, "d/k", refused) == [7; LARGE_BYTES]);
        assert_eq!(kept(engine, "d/k", Past::Version(1)), b"one");
        let entry = engine.past_entry(&session(), &path, refused).unwrap().unwrap();
        assert_eq!((entry.kind, entry.size_bytes), (Kind::File, LARGE_BYTES as u64));
        assert_eq!((entry.attributes.mode, entry.attributes.mtime), (0o640, attributes().mtime));
        let gone = Past::Draft(dropped_seq(dropped), Lost::Refused);
        assert!(engine.past_entry(&session(), &path, gone).unwrap().is_none());
        assert!(engine.open_past(&session(), &path, gone).unwrap().is_none());
        let lines = engine.changes(&session(), 0).unwrap();
        let told: Vec<_> = lines.iter().filter(|line| line.reason.is_some()).collect();
        assert_eq!(told.iter().map(|line| line.op).collect::<Vec<_>>(), [Op::Drop, Op::Refuse]);
        assert!(told.iter().all(|line| line.reason.as_deref() == Some("why it was lost") && line.version.is_none()));
        assert_eq!(commit(engine, put("d/k", b"three", None)).version, Some(3), "a draft takes no number");
    }
}

fn dropped_seq(past: Past) -> u64 {
    match past {
        Past::Draft(seq, _) => seq,
        Past::Version(version) => version,
    }
}

// F56
#[test]
fn names_of_which_something_is_kept_are_there_also_when_they_are_gone() {
    for subject in with_session() {
        let engine = &*subject.engine;
        assert_eq!(names(engine, ""), Vec::<String>::new());
        commit(engine, put("new", b"its only version", None));
        commit(engine, put("a", b"a key", None));
        commit(engine, delete("a", 1));
        commit(engine, put("a/3", b"below a directory of that name", None));
        commit(engine, put("a/3", b"again", Some(1)));
        commit(engine, lost("never/made", Lost::Dropped, b"half"));
        assert_eq!(names(engine, ""), ["a", "never"]);
        assert_eq!(
            (names(engine, "a"), names(engine, "never"), names(engine, "none")),
            (vec!["3".to_owned()], vec!["made".to_owned()], vec![])
        );
        assert_eq!(engine.past(&session(), &key("a")).unwrap(), [Past::Version(1)]);
        assert_eq!(kept(engine, "a", Past::Version(1)), b"a key");
        commit(engine, rename_dir("a", "b"));
        assert_eq!(names(engine, ""), ["a", "b", "never"]);
        assert_eq!(kept(engine, "b/3", Past::Version(1)), b"below a directory of that name");
        assert_eq!(engine.past(&session(), &key("a")).unwrap(), [Past::Version(1)], "the key's own history stays");
    }
}

// F56
#[test]
fn lost_drafts_go_with_a_renamed_directory_and_the_oldest_by_their_number() {
    for subject in with_session() {
        let engine = &*subject.engine;
        commit(engine, make_dir("d"));
        let seqs: Vec<_> =
            (0..40_u8).map(|n| commit(engine, lost("d/k", Lost::Refused, &[n])).seq).skip(40 - 32).collect();
        commit(engine, lost("d/other", Lost::Dropped, b"another key's"));
        commit(engine, rename_dir("d", "e"));
        let past: Vec<_> = engine.past(&session(), &key("e/k")).unwrap().into_iter().map(dropped_seq).collect();
        assert_eq!(past, seqs);
        assert_eq!(kept(engine, "e/k", Past::Draft(seqs[0], Lost::Refused)), [8]);
        assert_eq!(engine.past(&session(), &key("e/other")).unwrap().len(), 1);
        assert_eq!(engine.past(&session(), &key("d/k")).unwrap(), []);
    }
}

/// Every engine, with the session `s` made, that keeps so much.
fn keeping(keep: Keep) -> Vec<Subject> {
    let dir = tempfile::tempdir().unwrap();
    let engine = LocalEngine::open_at(dir.path(), Opening { keep, ..Opening::USUAL }).unwrap();
    let subjects = [
        Subject { engine: Arc::new(MemoryEngine::keeping(keep)), dir: None },
        Subject { engine: Arc::new(engine), dir: Some(dir) },
    ];
    subjects.into_iter().inspect(|subject| make_session(&*subject.engine)).collect()
}

fn versions(engine: &dyn Engine, path: &str) -> Vec<u64> {
    engine.versions(&session(), &key(path)).unwrap()
}

/// Gives a key the versions up to this one.
fn write_upto(engine: &dyn Engine, path: &str, last: u64) {
    let next = versions(engine, path).last().map_or(1, |newest| newest + 1);
    for n in next..=last {
        commit(engine, put(path, &[n as u8], Some(n - 1).filter(|n| *n > 0)));
    }
}

// F60
#[test]
fn f60_as_many_versions_and_drafts_are_kept_as_are_wanted() {
    for (count, least) in [(1, 39), (3, 37), (0, 1)] {
        for subject in keeping(Keep { count, ..Keep::USUAL }) {
            let engine = &*subject.engine;
            write_upto(engine, "k", 40);
            assert_eq!(versions(engine, "k"), (least..=40).collect::<Vec<_>>(), "{count}");
            let drafts: Vec<_> = (0..40).map(|_| commit(engine, lost("k", Lost::Refused, b"x")).seq).collect();
            let kept = engine.past(&session(), &key("k")).unwrap();
            let kept: Vec<_> = kept.into_iter().filter(|past| past.version().is_none()).map(dropped_seq).collect();
            assert_eq!(kept, drafts[(least as usize).min(40 - count as usize) * usize::from(count > 0)..], "{count}");
        }
    }
}

// F60
#[test]
fn whoever_opens_a_store_says_anew_how_much_is_kept() {
    let subject = local();
    let root = subject.dir.as_ref().unwrap().path();
    make_session(&*subject.engine);
    write_upto(&*subject.engine, "k", 30);
    subject.engine.close().unwrap();
    let keep = Keep { count: 2, age: None };
    let engine = LocalEngine::open_at(root, Opening { keep, ..Opening::USUAL }).unwrap();
    assert_eq!(versions(&engine, "k").len(), 30, "opening alone takes nothing");
    write_upto(&engine, "k", 32);
    assert_eq!(versions(&engine, "k"), [30, 31, 32]);
    engine.close().unwrap();
    crate::sound::assert_sound(root);
}

// F10 F60
#[test]
fn what_a_commit_looks_at_does_not_grow_with_what_is_kept() {
    let (dir, watch) = (tempfile::tempdir().unwrap(), Watch::default());
    let open = || {
        let opening = Opening { keep: Keep { count: 1000, age: None }, ..Opening::USUAL };
        LocalEngine::open_with(RecordingDisk::open(dir.path(), &watch), opening).unwrap()
    };
    let engine = open();
    make_session(&engine);
    let looks = |engine: &LocalEngine, last: u64| {
        write_upto(engine, "k", last);
        watch.take_looked();
        commit(engine, put("k", b"", Some(last)));
        watch.take_looked().0
    };
    let few = looks(&engine, 3);
    assert_eq!(few, looks(&engine, 90));
    engine.close().unwrap();
    let engine = open();
    watch.take_looked();
    commit(&engine, put("k", b"", Some(91)));
    // The log is opened and read, and its last versions.
    let first = watch.take_looked().0;
    assert!(first < few + 20, "{few} looks, and {first} after an opening");
}

// F61
#[test]
fn f61_what_came_to_history_long_ago_goes_and_who_reads_it_reads_on() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let sweep =
        |engine: &dyn Engine, days: u32| engine.sweep(SystemTime::now() + DAY * days, &AtomicBool::new(false)).unwrap();
    for subject in keeping(Keep::USUAL) {
        let engine = &*subject.engine;
        // They were last written in 1970, and replaced today.
        write_upto(engine, "d/k", 3);
        write_upto(engine, "gone/k", 2);
        commit(engine, delete("gone/k", 2));
        commit(engine, remove_dir("gone"));
        commit(engine, lost("never", Lost::Dropped, b"half"));
        let read = engine.open_version(&session(), &key("d/k"), 1).unwrap().unwrap();
        assert_eq!(sweep(engine, 29), 0);
        assert_eq!(
            (names(engine, ""), versions(engine, "d/k")),
            (["d", "gone", "never"].map(str::to_owned).to_vec(), vec![1, 2, 3])
        );
        assert_eq!(sweep(engine, 31), 5);
        assert_eq!((names(engine, ""), versions(engine, "d/k")), (vec![], vec![3]));
        assert_eq!(read.read_all().unwrap(), [1]);
        assert!(engine.open_version(&session(), &key("d/k"), 1).unwrap().is_none());
        assert_eq!(commit(engine, put("gone/k", b"", None)).version, Some(3), "a number is never given again");
        write_upto(engine, "d/k", 4);
        assert_eq!(versions(engine, "d/k"), [3, 4]);
        if let Some(dir) = &subject.dir {
            engine.close().unwrap();
            crate::sound::assert_sound(dir.path());
        }
    }
    for subject in keeping(Keep { age: None, ..Keep::USUAL }) {
        write_upto(&*subject.engine, "k", 3);
        assert_eq!(sweep(&*subject.engine, 100_000), 0);
    }
}

// F10 F61
#[test]
fn a_copy_put_back_is_a_strangers_value_also_when_history_has_forgotten_it() {
    let subject = local();
    let (engine, root) = (&*subject.engine, subject.dir.as_ref().unwrap().path());
    make_session(engine);
    write_upto(engine, "k", 1);
    back_up(&root.join("s/k"), &root.join("backup"));
    write_upto(engine, "k", 3);
    let later = SystemTime::now() + Duration::from_secs(31 * 24 * 60 * 60);
    assert_eq!(engine.sweep(later, &AtomicBool::new(false)).unwrap(), 2);
    std::fs::rename(root.join("backup"), root.join("s/k")).unwrap();
    let refused = refused(engine, put("k", b"new", Some(1)));
    assert!(matches!(refused, EngineError::Stale { current: Some(4) }), "{refused}");
    assert_eq!(commit(engine, put("k", b"new", Some(4))).version, Some(5));
}

// F57
#[test]
fn f57_a_copy_of_a_lost_draft_at_its_keys_path_is_a_strangers_value() {
    let subject = local();
    let (engine, root) = (&*subject.engine, subject.dir.as_ref().unwrap().path());
    make_session(engine);
    commit(engine, put("k", b"one", None));
    let seq = commit(engine, lost("k", Lost::Dropped, b"half")).seq;
    let place = root.join(format!(".baton/history/s/kk/d{seq}"));
    back_up(&place, &root.join("s/copy"));
    std::fs::rename(root.join("s/copy"), root.join("s/k")).unwrap();
    let head = engine.head(&session(), &key("k")).unwrap().unwrap();
    assert_eq!((head.version, value(engine, "k").unwrap()), (2, b"half".to_vec()));
    let mark: serde_json::Value = serde_json::from_slice(&crate::damage::mark_of(&place)).unwrap();
    assert_eq!((&mark["version"], &mark["seq"], &mark["size"]), (&0.into(), &seq.into(), &4.into()));
}

// F58
#[test]
fn f58_a_lost_draft_takes_the_road_of_a_value() {
    let dir = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let engine: Arc<dyn Engine> = Arc::new(LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap());
    make_session(&*engine);
    commit(&*engine, lost("k", Lost::Dropped, b"makes the directory"));
    let done_by = |content: Staged| {
        let (context, size_bytes) = (by("w"), content.len());
        let (reason, kept) = ("why".to_owned(), Some((content, attributes())));
        watch.take();
        let change = Change::Drop { key: key("k"), size_bytes, lost: Lost::Refused, reason, kept };
        let seq = engine.commit(&session(), change, &context).unwrap().seq;
        let operation = context.operation.to_string();
        let named = |what: &String| what.replace(&operation, "OP").replace(&format!("r{seq}"), "rSEQ");
        watch.take().iter().map(named).collect::<Vec<_>>()
    };
    let small = [
        "create .baton/drafts/OP",
        "write .baton/drafts/OP",
        "set_mode .baton/drafts/OP",
        "set_mtime .baton/drafts/OP",
        "write .baton/journal",
        "sync_data .baton/journal",
        "set_xattr user.batonfs .baton/drafts/OP",
        "rename .baton/drafts/OP .baton/history/s/kk/rSEQ",
        "write .baton/sessions/s/log",
    ];
    assert_eq!(done_by(Staged::from(b"small".to_vec())), small);
    let mut stage = engine.stage();
    stage.write_at(0, &[7; LARGE_BYTES]).unwrap();
    let done = done_by(stage.freeze());
    let at = |what: &str| done.iter().position(|d| d.starts_with(what)).unwrap_or_else(|| panic!("{what}: {done:#?}"));
    assert!(at("link_anonymous .baton/drafts/OP") < at("sync .baton/drafts/OP"));
    assert!(at("sync .baton/drafts/OP") < at("sync_dir .baton/drafts"));
    assert!(at("sync_dir .baton/drafts") < at("write .baton/journal"));
    assert!(at("sync_data .baton/journal") < at("rename .baton/drafts/OP .baton/history/s/kk/rSEQ"));
    assert!(!done.iter().any(|what| what.starts_with("create") || what.starts_with("write .baton/drafts")), "no copy");
}

// F58
#[test]
fn a_lost_draft_that_cannot_be_kept_leaves_nothing_and_its_line_can_still_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    make_session(&engine);
    let failing = watch.clone();
    watch.before(move |what| failing.fail(what.starts_with("create .baton/drafts").then_some((0, libc::ENOSPC))));
    let change = lost("k", Lost::Refused, b"whole");
    assert!(matches!(engine.commit(&session(), change.clone(), &by("w")), Err(batonfs::engine::EngineError::NoSpace)));
    let Change::Drop { key: path, size_bytes, lost, reason, .. } = change else { panic!("a drop") };
    let line = Change::Drop { key: path.clone(), size_bytes, lost, reason, kept: None };
    assert_eq!(engine.commit(&session(), line, &by("w")).unwrap().seq, 2);
    assert_eq!(engine.past(&session(), &path).unwrap(), []);
    let lines = engine.changes(&session(), 1).unwrap();
    assert_eq!((lines[0].op, lines[0].size_bytes), (Op::Refuse, Some(5)));
}

// F59
#[test]
fn f59_history_holds_the_file_of_a_large_value_and_no_second_copy() {
    let subject = local();
    let (engine, root) = (&*subject.engine, subject.dir.as_ref().unwrap().path());
    make_session(engine);
    commit(engine, large("k", 1, None));
    let file = |path: &str| std::fs::metadata(root.join(path)).unwrap();
    let (first, blocks) = (file("s/k").ino(), file("s/k").blocks());
    commit(engine, large("k", 2, Some(1)));
    let second = file("s/k").ino();
    assert_eq!((file(".baton/history/s/kk/1").ino(), file(".baton/history/s/kk/1").blocks()), (first, blocks));
    commit(engine, delete("k", 2));
    assert_eq!(file(".baton/history/s/kk/2").ino(), second);
    let mut stage = engine.stage();
    stage.write_at(0, &[7; LARGE_BYTES]).unwrap();
    let staged = stage.freeze();
    let Staged::File { file: draft, .. } = &staged else { panic!("a large draft is a file") };
    let draft = draft.metadata().unwrap().ino();
    let (size_bytes, kept) = (staged.len(), Some((staged, attributes())));
    let change = Change::Drop { key: key("k"), size_bytes, lost: Lost::Refused, reason: String::new(), kept };
    let seq = commit(engine, change).seq;
    assert_eq!(file(&format!(".baton/history/s/kk/r{seq}")).ino(), draft);
}

// F56
#[test]
fn of_a_refused_append_what_was_to_be_appended_is_kept() {
    for subject in with_session() {
        let (engine, session) = (&*subject.engine, session());
        let store = store(&subject.engine, Policy::Error);
        commit(engine, put("k", b"a value, ", None));
        let (path, draft) = (key("k"), Draft::Append(b"and more".to_vec()));
        let (base, fresh, rule) = (Base::Fresh, attributes(), Rule::Policy);
        let write =
            Write { session: &session, key: &path, draft, base, fresh, own: false, set: Default::default(), rule };
        assert!(matches!(store.write(&write, &caller("other")), Err(StoreError::Conflict { .. })));
        let past = store.lose(&write, Lost::Refused, "a conflict", &caller("other")).unwrap();
        assert_eq!(
            (kept(engine, "k", past), value(engine, "k").unwrap()),
            (b"and more".to_vec(), b"a value, ".to_vec())
        );
        assert_eq!(version(engine, "k"), Some(1));
    }
}
