//! The disk fails, the process dies, the power goes: what was acknowledged is there, the rest whole or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use batonfs::engine::local::disk::Disk;
use batonfs::engine::local::{LocalEngine, verify_on};
use batonfs::engine::{AttributeChange, Change, Engine, EngineError, Harm, Result, Staged};
use batonfs::words::{Lost, Op, Policy};

use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;
use crate::sound::{assert_sound, assert_sound_but};

/// A copy of a store as it is now, with xattrs and times.
pub(crate) fn copy(from: &Path) -> tempfile::TempDir {
    let to = fresh();
    let source = format!("{}/.", from.display());
    assert!(Command::new("cp").args(["-a", &source]).arg(to.path()).status().unwrap().success());
    to
}

/// What a session shows: keys with bytes, versions and writers.
pub(crate) type Shown = BTreeMap<String, (u64, Vec<u8>, Option<String>)>;

pub(crate) fn shown(engine: &dyn Engine) -> Shown {
    let Ok(keys) = engine.list(&session()) else { return Shown::new() };
    let read = |key: batonfs::words::Key| {
        let snapshot = engine.open(&session(), &key).unwrap().unwrap();
        let bytes = snapshot.read_all().unwrap();
        assert_eq!(bytes.len() as u64, snapshot.head.size_bytes);
        (key.to_string(), (snapshot.head.version, bytes, snapshot.head.writer.writer_id))
    };
    let mut shown: Shown = keys.into_iter().map(read).collect();
    for path in ["x", "big"].map(key) {
        let past = engine.past(&session(), &path).unwrap();
        for draft in past.into_iter().filter(|past| past.version().is_none()) {
            let kept = engine.open_past(&session(), &path, draft).unwrap().unwrap();
            shown.insert(format!("{path}/{draft}"), (0, kept.read_all().unwrap(), kept.head.writer.writer_id));
        }
    }
    shown
}

/// One of each change. Each expects what those before it made.
pub(crate) fn workload() -> Vec<Change> {
    let large = |byte: u8| Staged::from(vec![byte; 70_000]);
    let change =
        |path: &str, content, expected| Change::Put { key: key(path), content, expected, attributes: attributes() };
    vec![
        make_dir(""),
        put("a", b"a1", None),
        put("a", b"a2", Some(1)),
        append("a", b" more", 2),
        append("a", b" and more", 3),
        put("d/e/b", b"b1", None),
        change("big", large(1), None),
        change("big", large(2), Some(1)),
        rename("a", "d/a", 4, None),
        rename("d/a", "big", 1, Some(2)),
        Change::Declare { key: key("big"), expected: 3 },
        Change::Attributes {
            path: "big".to_owned(),
            set: AttributeChange { mode: Some(0o600), mtime: Some(at(7)), ..Default::default() },
        },
        make_dir("m"),
        put("m/k", b"k1", None),
        rename_dir("m", "n"),
        append("n/k", b"+", 1),
        delete("n/k", 2),
        remove_dir("n"),
        Change::SetPolicy(Policy::Warn),
        lost("x", Lost::Dropped, b"half"),
        put("n/k", b"k3", None),
        put("d/e/b", b"", Some(1)),
        lost("big", Lost::Refused, &[3; 70_000]),
    ]
}

/// What each step of the workload shows, by running it in memory.
pub(crate) fn expected() -> Vec<Shown> {
    let engine = batonfs::engine::memory::MemoryEngine::new();
    let mut states = vec![Shown::new()];
    for change in workload() {
        commit(&engine, change);
        states.push(shown(&engine));
    }
    states
}

/// Runs the workload until it is refused; how many changes were acknowledged.
fn run(engine: &dyn Engine) -> usize {
    workload().into_iter().take_while(|change| engine.commit(&session(), change.clone(), &by("w")).is_ok()).count()
}

pub(crate) fn open(root: &Path, boot: Option<&str>) -> Result<LocalEngine> {
    let watch = Watch::default();
    if let Some(boot) = boot {
        watch.reboot(boot);
    }
    LocalEngine::open_on(RecordingDisk::open(root, &watch))
}

/// Everything that is promised of an opened store after `acknowledged` changes of the workload.
fn check(engine: &dyn Engine, acknowledged: usize, states: &[Shown], at: &str) {
    let now = shown(engine);
    let next = states.get(acknowledged + 1);
    assert!(
        now == states[acknowledged] || Some(&now) == next,
        "{at}: after {acknowledged} changes\n{:?}\nnot\n{:?}",
        brief(&now),
        brief(&states[acknowledged])
    );
    if let Ok(lines) = engine.changes(&session(), 0) {
        let seqs: Vec<_> = lines.iter().map(|line| line.seq).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "{at}");
        assert!(seqs.len() == acknowledged || seqs.len() == acknowledged + 1, "{at}: {} lines", seqs.len());
    }
}

pub(crate) fn brief(shown: &Shown) -> Vec<(&String, u64, usize)> {
    shown.iter().map(|(key, (version, bytes, _))| (key, *version, bytes.len())).collect()
}

// F17 F25
#[test]
fn f27_what_was_acknowledged_is_there_wherever_the_disk_fails() {
    // F17
    // F25
    let states = expected();
    let mut survived = 0;
    for n in 0.. {
        let dir = fresh();
        let watch = Watch::default();
        let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
        watch.fail(Some((n, libc::EIO)));
        let acknowledged = run(&engine);
        // Served while it is stuck.
        if !matches!(engine.commit(&session(), make_dir("probe"), &by("w")), Err(EngineError::Closed(_))) {
            let renaming = engine.list(&session()).is_err() && acknowledged > 0;
            if !renaming {
                assert_eq!(brief(&shown(&engine)), brief(&states[acknowledged]), "served after {n} operations");
            }
        }
        drop(engine);
        let died = copy(dir.path());
        for (root, boot) in [(died.path(), None), (dir.path(), Some("another boot"))] {
            let engine = open(root, boot).unwrap();
            check(&engine, acknowledged, &states, &format!("failed after {n} operations, boot {boot:?}"));
            engine.close().unwrap();
            assert_sound(root);
            survived += 1;
        }
        if acknowledged == states.len() - 1 {
            break;
        }
    }
    assert!(survived > 300, "only {survived} crashes");
}

#[test]
fn f26_publishing_again_changes_nothing() {
    let states = expected();
    let dir = tempfile::tempdir().unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    let all = run(&engine);
    drop(engine);
    // Not closed: the journal is as a crash leaves it. After a boot everything in it is published again.
    let mut recovered = Vec::new();
    for round in 0..2 {
        let again = copy(dir.path());
        let watch = Watch::default();
        watch.reboot("another boot");
        // The checkpoint fails, so the journal stays and is published once more.
        let (failing, mut syncs) = (watch.clone(), 0);
        watch.before(move |what| {
            syncs += usize::from(what == "sync_everything");
            if syncs == 2 {
                failing.fail(Some((0, libc::EIO)));
            }
        });
        assert!(LocalEngine::open_on(RecordingDisk::open(again.path(), &watch)).is_err());
        let engine = open(again.path(), Some("another boot")).unwrap();
        check(&engine, all, &states, &format!("round {round}"));
        recovered.push((shown(&engine), engine.versions(&session(), &key("big")).unwrap()));
        drop(engine);
        assert_sound(again.path());
    }
    assert_eq!(recovered[0], recovered[1]);
}

#[test]
fn f20_a_journal_torn_at_any_byte_loses_only_what_was_torn() {
    let dir = tempfile::tempdir().unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    let before = copy(dir.path());
    commit(&engine, put("k", b"torn", None));
    let journal = fs::read(dir.path().join(".baton/journal")).unwrap();
    let len = |at: usize| u32::from_le_bytes(journal[at..at + 4].try_into().unwrap()) as usize;
    let first = 8192;
    let second = first + (32 + len(first + 24) + len(first + 28)).next_multiple_of(8);
    let end = second + 32 + len(second + 24) + len(second + 28);
    for cut in second..=end {
        let root = copy(before.path());
        let mut torn = journal.clone();
        torn[cut..].fill(0);
        fs::write(root.path().join(".baton/journal"), &torn).unwrap();
        let engine = LocalEngine::open(root.path()).unwrap();
        let there = value(&engine, "k");
        // The body ends in no zero, so only the whole record is whole.
        assert_eq!(there.is_some(), cut == end, "cut at {cut} of {second}..{end}");
        assert_eq!(commit(&engine, put("l", b"", None)).seq, if cut == end { 3 } else { 2 });
        drop(engine);
        assert_sound(root.path());
    }
    // Cut off, not zeroed.
    for cut in [second + 1, second + 31, second + 33, end - 1] {
        let root = copy(before.path());
        fs::write(root.path().join(".baton/journal"), &journal[..cut]).unwrap();
        assert_eq!(value(&LocalEngine::open(root.path()).unwrap(), "k"), None);
    }
}

#[test]
fn f21_an_unreadable_record_before_a_durable_one_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    commit(&engine, put("k", b"1", None));
    commit(&engine, put("k", b"2", Some(1)));
    drop(engine);
    let place = dir.path().join(".baton/journal");
    let mut journal = fs::read(&place).unwrap();
    journal[8192 + 40] ^= 1;
    fs::write(&place, &journal).unwrap();
    let error = LocalEngine::open(dir.path()).unwrap_err();
    assert!(matches!(&error, EngineError::Damaged { .. }) && error.to_string().contains("byte 8192"), "{error}");
    journal[8192 + 40] ^= 1;
    journal[..80].fill(0);
    fs::write(&place, &journal).unwrap();
    assert!(matches!(LocalEngine::open(dir.path()), Err(EngineError::Damaged { .. })));
}

/// Journal records of every generation that is likely, made by somebody who knows the format.
fn forged(shift: usize) -> Vec<u8> {
    let header = serde_json::json!({
        "session": "s", "seq": 3, "time_ms": 0, "operation": "x",
        "act": {"drop": {"key": "victim", "size": 1}},
    })
    .to_string();
    let mut bytes = vec![0; shift];
    for generation in 1..=100_u64 {
        let mut frame = b"bRec\0\0\0\0".to_vec();
        frame.extend(generation.to_le_bytes());
        frame.extend((1_u64 << 40).to_le_bytes());
        frame.extend((header.len() as u32).to_le_bytes());
        frame.extend(0_u32.to_le_bytes());
        frame.extend(header.as_bytes());
        let crc = crc32c::crc32c(&frame[8..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        frame.resize(frame.len().next_multiple_of(8), 0);
        bytes.extend(frame);
    }
    bytes
}

#[test]
fn f31_a_value_that_looks_like_the_journal_is_not_taken_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    for shift in 0..8 {
        commit(&engine, put(&format!("k{shift}"), &forged(shift), None));
    }
    // The next generation begins before those bytes.
    engine.close().unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    commit(&engine, put("small", b"", None));
    drop(engine);
    let engine = LocalEngine::open(dir.path()).unwrap();
    assert_eq!(engine.changes(&session(), 9).unwrap().len(), 1);
    drop(engine);
    assert_sound(dir.path());
}

#[test]
fn f18_after_a_failed_sync_nothing_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    make_session(&engine);
    commit(&engine, put("k", b"old", None));
    let failing = watch.clone();
    watch.before(move |what| failing.fail((what == "sync_data .baton/journal").then_some((0, libc::EIO))));
    let context = by("w");
    let error = engine.commit(&session(), put("k", b"new", Some(1)), &context).unwrap_err();
    assert!(matches!(error, EngineError::Closed(_)), "{error}");
    watch.before(|_| {});
    watch.fail(None);
    assert_eq!(value(&engine, "k").unwrap(), b"old");
    assert_eq!(engine.receipt(&session(), context.operation).unwrap(), None);
    assert!(matches!(refused(&engine, put("l", b"", None)), EngineError::Closed(_)));
    engine.close().unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    assert!([&b"old"[..], b"new"].contains(&value(&engine, "k").unwrap().as_slice()));
    commit(&engine, put("l", b"", None));
    drop(engine);
    assert_sound(dir.path());
}

#[test]
fn f18_a_failed_sync_ends_the_wait_of_all() {
    let (dir, watch) = (tempfile::tempdir().unwrap(), Watch::default());
    let engine = Arc::new(LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap());
    make_session(&*engine);
    watch.take();
    // The sync that fails is held until all have appended: some wait for it, the others for the next.
    let ((go_on, goes_on), (tell, told)) = (channel::<()>(), channel());
    let failing = watch.clone();
    watch.before_each("sync_data .baton/journal", move || {
        goes_on.recv().unwrap();
        failing.fail(Some((0, libc::EIO)));
    });
    for n in 0..4 {
        let (engine, tell) = (Arc::clone(&engine), tell.clone());
        std::thread::spawn(move || {
            let made = engine.commit(&session(), put(&format!("k{n}"), b"", None), &by("w"));
            tell.send(matches!(made, Err(EngineError::Closed(_))))
        });
    }
    while watch.count("write .baton/journal") < 4 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // So that the last one waits too.
    std::thread::sleep(Duration::from_millis(50));
    go_on.send(()).unwrap();
    for n in 0..4 {
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(true), "after {n} were told");
    }
}

#[test]
fn a_full_disk_leaves_the_old_value() {
    let mut refusals = 0;
    for n in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::default();
        let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
        make_session(&engine);
        commit(&engine, put("k", b"old", None));
        watch.fail(Some((n, libc::ENOSPC)));
        match engine.commit(&session(), put("k", b"new", Some(1)), &by("w")) {
            Err(EngineError::NoSpace) => {
                refusals += 1;
                watch.fail(None);
                assert_eq!(value(&engine, "k").unwrap(), b"old");
                assert_eq!(engine.changes(&session(), 0).unwrap().len(), 2);
                assert_eq!(commit(&engine, put("k", b"newer", Some(1))).version, Some(2));
                drop(engine);
                // What could not be written could not be removed either, until the store is opened again.
                assert_sound_but(dir.path(), &["F17"]);
            }
            Err(other) => assert!(matches!(other, EngineError::Closed(_)), "{other}"),
            Ok(_) => break,
        }
    }
    assert!(refusals >= 6, "{refusals}");
}

#[test]
fn f25_a_change_that_could_not_be_published_is_served_and_finished_later() {
    let states = expected();
    let workload = workload();
    for step in 1..workload.len() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::default();
        let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
        for change in &workload[..step] {
            commit(&engine, change.clone());
        }
        let failing = watch.clone();
        watch.before(move |what| {
            if what == "sync_data .baton/journal" {
                failing.fail(Some((1, libc::EIO)));
            }
        });
        let renames = matches!(workload[step], Change::RenameDir { .. });
        if renames {
            // Its first sync is a checkpoint's: it may be refused, but not half done.
            continue;
        }
        commit(&engine, workload[step].clone());
        assert_eq!(brief(&shown(&engine)), brief(&states[step + 1]), "served after step {step}");
        assert_eq!(shown(&engine), states[step + 1], "served after step {step}");
        assert_eq!(engine.changes(&session(), 0).unwrap().len(), step + 1);
        watch.before(|_| {});
        watch.fail(None);
        assert_eq!(shown(&engine), states[step + 1], "in its place after step {step}");
        for (change, state) in workload[step + 1..].iter().zip(&states[step + 2..]) {
            commit(&engine, change.clone());
            assert_eq!(&shown(&engine), state);
        }
        drop(engine);
        check(&open(dir.path(), Some("b")).unwrap(), workload.len(), &states, &format!("reopened after step {step}"));
        assert_sound(dir.path());
    }
}

#[test]
fn f28_what_a_neighbour_deleted_does_not_come_back_after_the_process_died() {
    let dir = tempfile::tempdir().unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    commit(&engine, put("gone", b"1", None));
    commit(&engine, put("kept", b"1", None));
    drop(engine);
    fs::remove_file(dir.path().join("s/gone")).unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    assert_eq!(keys(&engine), ["kept"]);
    drop(engine);
    // What it deleted is noted, and its writer is left over.
    assert_sound_but(dir.path(), &["F28", "sidecar"]);
}

#[test]
fn f29_a_directory_is_renamed_alone() {
    let dir = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    make_session(&engine);
    commit(&engine, put("a/k", b"moved", None));
    watch.take();
    commit(&engine, rename_dir("a", "b"));
    let done = watch.take();
    let at = |what: &str| done.iter().position(|d| d.starts_with(what)).unwrap();
    let last = done.iter().rposition(|what| what == "sync_everything").unwrap();
    assert!(at("sync_everything") < at("rename s/a s/b") && at("rename s/a s/b") < last);
    commit(&engine, put("a/k", b"new", None));
    drop(engine);
    let engine = open(dir.path(), Some("another boot")).unwrap();
    assert_eq!(value(&engine, "a/k").unwrap(), b"new");
    assert_eq!(value(&engine, "b/k").unwrap(), b"moved");
    drop(engine);
    assert_sound(dir.path());
}

/// Puts back what a power cut takes: the bytes of a file, not its name, mark and time.
fn tear(path: &Path, len: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let (time, size) = (file.metadata().unwrap().modified().unwrap(), file.metadata().unwrap().len());
    file.set_len(len.min(size)).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn a_torn_value_is_made_whole_from_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    commit(&engine, put("put", b"a whole value", None));
    commit(&engine, put("log", b"one ", None));
    commit(&engine, append("log", b"two ", 1));
    commit(&engine, append("log", b"three", 2));
    commit(&engine, put("moved", b"renamed", None));
    commit(&engine, rename("moved", "to", 1, None));
    drop(engine);
    for len in [0, 1, 4, 5, 8, 10] {
        let dir = copy(dir.path());
        for path in ["put", "log", "to"] {
            tear(&dir.path().join("s").join(path), len);
        }
        fs::write(dir.path().join("s/.agent_state_meta/put.json"), b"").unwrap();
        let log = dir.path().join(".baton/sessions/s/log");
        tear(&log, len * 30);
        let engine = open(dir.path(), Some("another boot")).unwrap();
        assert_eq!(value(&engine, "put").unwrap(), b"a whole value", "torn to {len}");
        assert_eq!(value(&engine, "log").unwrap(), b"one two three", "torn to {len}");
        assert_eq!(version(&engine, "log"), Some(3));
        assert_eq!(engine.changes(&session(), 0).unwrap().len(), 7);
        assert!(!fs::read(dir.path().join("s/.agent_state_meta/put.json")).unwrap().is_empty());
        assert_eq!(value(&engine, "to").unwrap(), b"renamed");
        drop(engine);
        assert_sound(dir.path());
    }
}

#[test]
fn a_crash_in_an_append_leaves_it_whole() {
    let dir = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    make_session(&engine);
    commit(&engine, put("log", b"one ", None));
    let failing = watch.clone();
    watch.before(move |what| {
        if what == "set_mtime s/log" {
            failing.fail(Some((0, libc::EIO)));
        }
    });
    commit(&engine, append("log", b"two", 1));
    drop(engine);
    assert_eq!(fs::read(dir.path().join("s/log")).unwrap(), b"one two");
    for (len, boot) in [(7, None), (7, Some("b")), (5, Some("b")), (4, Some("b")), (0, Some("b"))] {
        let dir = copy(dir.path());
        fs::OpenOptions::new().write(true).open(dir.path().join("s/log")).unwrap().set_len(len).unwrap();
        let engine = open(dir.path(), boot).unwrap();
        assert_eq!(value(&engine, "log").unwrap(), b"one two", "torn to {len}");
        assert_eq!(version(&engine, "log"), Some(2));
        drop(engine);
        assert_sound(dir.path());
    }
}

#[test]
fn a_strangers_value_after_a_crash_stays_and_ours_is_in_history() {
    let dir = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    make_session(&engine);
    commit(&engine, put("k", b"one", None));
    let failing = watch.clone();
    watch.before(move |what| {
        if what.starts_with("exchange") {
            failing.fail(Some((0, libc::EIO)));
        }
    });
    commit(&engine, put("k", b"two", Some(1)));
    drop(engine);
    fs::write(dir.path().join("new"), b"theirs").unwrap();
    fs::rename(dir.path().join("new"), dir.path().join("s/k")).unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    assert_eq!(value(&engine, "k").unwrap(), b"theirs");
    assert_eq!(version(&engine, "k"), Some(3));
    assert_eq!(engine.open_version(&session(), &key("k"), 2).unwrap().unwrap().read_all().unwrap(), b"two");
    let ops: Vec<_> = engine.changes(&session(), 0).unwrap().into_iter().map(|line| line.op).collect();
    assert_eq!(ops, [Op::Mkdir, Op::Put, Op::Put, Op::Adopt]);
    drop(engine);
    assert_sound(dir.path());
}

#[test]
fn drafts_left_over_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    LocalEngine::open(dir.path()).unwrap();
    fs::write(dir.path().join(".baton/drafts/left"), b"over").unwrap();
    LocalEngine::open(dir.path()).unwrap();
    assert_eq!(fs::read_dir(dir.path().join(".baton/drafts")).unwrap().count(), 0);
}

#[test]
fn a_version_in_history_that_power_took_is_made_whole_from_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    commit(&engine, put("k", b"one ", None));
    commit(&engine, append("k", b"two ", 1));
    commit(&engine, append("k", b"three", 2));
    commit(&engine, put("k", b"four", Some(3)));
    commit(&engine, put("k", b"five", Some(4)));
    commit(&engine, put("k", b"six", Some(5)));
    drop(engine);
    for len in [0, 2, 4, 6, 8, 13] {
        let dir = copy(dir.path());
        for version in ["3", "4", "5"] {
            tear(&dir.path().join(".baton/history/s/kk").join(version), len);
        }
        let engine = open(dir.path(), Some("another boot")).unwrap();
        let read = |version| engine.open_version(&session(), &key("k"), version).unwrap().unwrap().read_all().unwrap();
        assert_eq!(engine.versions(&session(), &key("k")).unwrap(), [3, 4, 5, 6], "torn to {len}");
        assert_eq!(
            (read(3), read(4), read(5)),
            (b"one two three".to_vec(), b"four".to_vec(), b"five".to_vec()),
            "{len}"
        );
        assert_eq!(value(&engine, "k").unwrap(), b"six");
        drop(engine);
        assert_sound(dir.path());
    }
}

#[test]
fn f25_what_cannot_be_put_in_its_place_at_opening_is_served_and_keeps_nobody_else() {
    // F36
    for boot in [None, Some("another boot")] {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::default();
        let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
        make_session(&engine);
        commit(&engine, put("k", b"one", None));
        commit(&engine, put("log", b"line\n", None));
        engine.close().unwrap();
        let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
        watch.bar(Some(" s/"));
        commit(&engine, put("k", b"two", Some(1)));
        assert!(engine.commit(&session(), append("log", b"more\n", 1), &by("w")).is_err());
        drop(engine);
        for _ in 0..2 {
            if let Some(boot) = boot {
                watch.reboot(boot);
            }
            let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
            assert_eq!((value(&engine, "k").unwrap(), version(&engine, "k")), (b"two".to_vec(), Some(2)), "{boot:?}");
            assert_eq!(value(&engine, "log").unwrap(), b"line\n");
            assert_eq!(engine.changes(&session(), 0).unwrap().len(), 4);
            let refused = engine.commit(&session(), put("l", b"", None), &by("w")).unwrap_err();
            assert!(matches!(refused, EngineError::Io { .. }), "{refused}");
            let other = batonfs::words::SessionId::parse("other").unwrap();
            drop(engine.commit(&other, make_dir(""), &by("w")));
            let next = engine.last_version(&other, &key("k")).unwrap();
            let change = put("k", b"goes on", (next > 0).then_some(next));
            engine.commit(&other, change, &by("w")).unwrap();
            assert!(engine.close().is_err());
        }
        watch.bar(None);
        let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
        assert_eq!(fs::read(dir.path().join("s/k")).unwrap(), b"two");
        assert_eq!(engine.open_version(&session(), &key("k"), 1).unwrap().unwrap().read_all().unwrap(), b"one");
        assert_eq!(commit(&engine, put("k", b"three", Some(2))).seq, 5);
        engine.close().unwrap();
        assert_eq!(value(&open(dir.path(), None).unwrap(), "k").unwrap(), b"three");
    }
}

#[test]
fn f35_a_store_without_its_journal_or_its_marker_is_not_opened() {
    for (gone, place) in [(".baton/journal", ".baton/journal"), (".baton/format", ".baton/format")] {
        let dir = tempfile::tempdir().unwrap();
        let engine = LocalEngine::open(dir.path()).unwrap();
        make_session(&engine);
        drop(engine);
        fs::remove_file(dir.path().join(gone)).unwrap();
        let error = LocalEngine::open(dir.path()).unwrap_err();
        assert!(matches!(&error, EngineError::Damaged { .. }) && error.to_string().contains(place), "{error}");
        assert!(!dir.path().join(gone).exists());
    }
}

#[test]
fn f34_lines_that_power_took_from_the_middle_of_a_log_are_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    commit(&engine, put("before", b"", None));
    engine.close().unwrap();
    let place = dir.path().join(".baton/sessions/s/log");
    let durable = fs::read(&place).unwrap().len();
    let engine = LocalEngine::open(dir.path()).unwrap();
    for n in 0..4 {
        commit(&engine, put(&format!("k{n}"), b"", None));
    }
    drop(engine);
    let whole = fs::read(&place).unwrap();
    for (from, to) in [(durable, durable + 40), (durable + 60, durable + 500), (durable, whole.len() - 3)] {
        let dir = copy(dir.path());
        let place = dir.path().join(".baton/sessions/s/log");
        let mut torn = whole.clone();
        torn[from..to].fill(0);
        fs::write(&place, &torn).unwrap();
        let engine = open(dir.path(), Some("another boot")).unwrap();
        assert_eq!(fs::read(&place).unwrap(), whole, "{from} to {to}");
        assert_eq!(engine.changes(&session(), 0).unwrap().len(), 6);
    }
}

#[test]
fn f38_a_journal_whose_newer_header_is_lost_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    engine.close().unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    commit(&engine, put("k", b"only in the journal for sure", None));
    drop(engine);
    let place = dir.path().join(".baton/journal");
    let whole = fs::read(&place).unwrap();
    for header in [0, 4096] {
        let mut journal = whole.clone();
        journal[header + 30] ^= 1;
        fs::write(&place, &journal).unwrap();
        match LocalEngine::open(dir.path()) {
            Ok(engine) => assert_eq!(header, 0, "{:?}", value(&engine, "k")),
            Err(e) => assert!(header == 4096 && e.to_string().contains("generation 2"), "{e}"),
        }
    }
}

#[test]
fn f39_a_journal_that_ends_before_a_log_does_is_damaged() {
    let dir = fresh();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    commit(&engine, put("k", b"one", None));
    commit(&engine, put("k", b"two", Some(1)));
    drop(engine);
    let place = dir.path().join(".baton/journal");
    let journal = fs::read(&place).unwrap();
    let len = |at: usize| u32::from_le_bytes(journal[at..at + 4].try_into().unwrap()) as usize;
    let next = |at: usize| at + (32 + len(at + 24) + len(at + 28)).next_multiple_of(8);
    let last = next(next(8192));
    let mut cut = journal.clone();
    cut[last..].fill(0);
    fs::write(&place, &cut).unwrap();
    // What was published is on the disk for sure only as long as nothing was lost.
    assert_eq!(value(&open(copy(dir.path()).path(), None).unwrap(), "k").unwrap(), b"two");
    let error = open(dir.path(), Some("another boot")).unwrap_err();
    assert!(error.to_string().contains(".baton/journal") && error.to_string().contains("change 2"), "{error}");
    // A check says the same, and what can be done.
    let watch = Watch::default();
    watch.reboot("another boot");
    let disk: Arc<dyn Disk> = RecordingDisk::open(dir.path(), &watch);
    let found = verify_on(&disk, true, &mut |_| ControlFlow::Continue(())).unwrap().findings;
    let damage: Vec<_> = found.iter().filter(|it| it.harm == Harm::Damage).map(|it| (&*it.rule, &*it.place)).collect();
    assert_eq!(damage, [("F39", ".baton/journal")], "{found:#?}");
    fs::rename(&place, dir.path().join(".baton/journal.old")).unwrap();
    verify_on(&disk, true, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(value(&open(dir.path(), Some("another boot")).unwrap(), "k").unwrap(), b"two");
}
