//! The bytes on disk are those that FORMAT.md tells of.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batonfs::engine::local::LocalEngine;
use batonfs::engine::{Change, Engine, EngineError, KEPT_VERSIONS, Staged};
use batonfs::words::{Dir, SessionId};

use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;

fn watched() -> (tempfile::TempDir, Watch, Arc<dyn Engine>) {
    let dir = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let engine = Arc::new(LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap());
    make_session(&*engine);
    (dir, watch, engine)
}

fn mark(path: &Path) -> serde_json::Value {
    let file = fs::File::open(path).unwrap();
    let mut bytes = vec![0; 4096];
    let got = rustix::fs::fgetxattr(&file, "user.batonfs", &mut bytes[..]).unwrap();
    assert_eq!(got % 128, 0);
    serde_json::from_slice(&bytes[..got]).unwrap()
}

#[test]
fn f1_f9_a_value_is_a_plain_file_with_its_mark() {
    // F1
    // F9
    let (dir, watch, engine) = watched();
    watch.take();
    commit(&*engine, put("d/k", b"hello", None));
    let place = dir.path().join("s/d/k");
    assert_eq!(fs::read(&place).unwrap(), b"hello");
    let mark = mark(&place);
    assert_eq!((mark["version"].as_u64(), mark["size"].as_u64(), mark["seq"].as_u64()), (Some(1), Some(5), Some(2)));
    assert_eq!(mark["crc"].as_u64(), Some(crc32c::crc32c(b"hello").into()));
    assert_eq!(mark["place"].as_u64(), Some(crc32c::crc32c(b"s/d/k").into()));
    assert_eq!(mark["writer"]["writer_id"], "w");
    let done = watch.take();
    let marked = done.iter().position(|what| what.starts_with("set_xattr user.batonfs .baton/drafts/")).unwrap();
    let renamed = done.iter().position(|what| what.starts_with("rename_new") && what.ends_with(" s/d/k")).unwrap();
    assert!(marked < renamed, "{done:#?}");
}

#[test]
fn f4_a_store_of_another_format_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    LocalEngine::open(dir.path()).unwrap().close().unwrap();
    let marker = dir.path().join(".baton/format");
    assert_eq!(fs::read_to_string(&marker).unwrap(), "batonfs store format 1\n");
    for (text, word) in [("batonfs store format 2\n", "format 2"), ("something else", "not the marker")] {
        fs::write(&marker, text).unwrap();
        let error = LocalEngine::open(dir.path()).unwrap_err();
        assert!(matches!(&error, EngineError::Damaged { .. }) && error.to_string().contains(word), "{error}");
        assert_eq!(fs::read_to_string(&marker).unwrap(), text);
    }
}

#[test]
fn f5_the_log_is_lines_of_json_and_a_torn_one_is_cut() {
    let (dir, _, engine) = watched();
    for n in 0..5 {
        commit(&*engine, put(&format!("k{n}"), b"", None));
    }
    engine.close().unwrap();
    let log = dir.path().join(".baton/sessions/s/log");
    let whole = fs::read(&log).unwrap();
    let lines: Vec<serde_json::Value> =
        whole.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
    assert_eq!(lines.iter().map(|l| l["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    for tail in [&b"{\"seq\":7"[..], b"\0\0\0\0", b"\n", b"garbage\n", b"{}\n\0\n"] {
        fs::write(&log, [&whole, tail].concat()).unwrap();
        rustix::fs::removexattr(&log, "user.batonfs.end").unwrap();
        let engine = LocalEngine::open(dir.path()).unwrap();
        assert_eq!(engine.changes(&session(), 0).unwrap().len(), 6, "{tail:?}");
        engine.close().unwrap();
        let engine = LocalEngine::open(dir.path()).unwrap();
        assert_eq!(commit(&engine, make_dir("d")).seq, 7);
        commit(&engine, remove_dir("d"));
        engine.close().unwrap();
        assert_eq!(fs::read(&log).unwrap()[..whole.len()], whole);
    }
}

#[test]
fn f6_f7_history_has_a_file_for_each_version_that_was_replaced() {
    // F6
    // F7
    let (dir, _, engine) = watched();
    for n in 1..=40_u64 {
        commit(&*engine, put("d/k", &n.to_le_bytes(), Some(n - 1).filter(|n| *n > 0)));
    }
    commit(&*engine, append("d/k", b"+", 40));
    commit(&*engine, delete("d/k", 41));
    let mut kept: Vec<u64> = fs::read_dir(dir.path().join(".baton/history/s/dd/kk"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    kept.sort_unstable();
    let mut expected: Vec<u64> = (9..=39).collect();
    expected.push(41);
    assert_eq!(kept.iter().filter(|v| **v >= 9).copied().collect::<Vec<_>>(), expected);
    assert!(kept[0] >= 8);
    assert_eq!(commit(&*engine, put("d/k", b"", None)).version, Some(42));
}

#[test]
fn f13_a_file_system_without_xattrs_is_refused_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let disk = RecordingDisk::open(dir.path(), &watch);
    let failing = watch.clone();
    watch.before(move |what| {
        failing.fail(what.starts_with("set_xattr").then_some((0, libc::EOPNOTSUPP)));
    });
    let error = LocalEngine::open_on(disk).unwrap_err();
    assert!(error.to_string().contains("keeps no user xattrs"), "{error}");
}

#[test]
fn f13_a_file_system_that_knows_no_exchange_is_refused_with_words() {
    for kind in ["exchange", "rename_new"] {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::default();
        let disk = RecordingDisk::open(dir.path(), &watch);
        let failing = watch.clone();
        watch.before(move |what| failing.fail(what.starts_with(kind).then_some((0, libc::EINVAL))));
        let error = LocalEngine::open_on(disk).unwrap_err();
        assert!(error.to_string().contains("cannot exchange two names"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path().join(".baton/drafts")).unwrap().count(), 0);
    }
}

#[test]
fn f13_a_file_system_with_short_names_is_refused_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let disk = RecordingDisk::open(dir.path(), &watch);
    let failing = watch.clone();
    watch.before(move |what| {
        let long = what.split(['/', ' ']).any(|name| name.len() > 143);
        failing.fail(long.then_some((0, libc::ENAMETOOLONG)));
    });
    let error = LocalEngine::open_on(disk).unwrap_err();
    assert!(error.to_string().contains("no names of 255 bytes"), "{error}");
}

#[test]
fn f14_the_journal_is_what_the_page_says() {
    let (dir, _, engine) = watched();
    commit(&*engine, put("a", b"hello", None));
    let journal = fs::read(dir.path().join(".baton/journal")).unwrap();
    assert_eq!(&journal[..8], b"batonjnl");
    let number = |at: usize| u32::from_le_bytes(journal[at..at + 4].try_into().unwrap()) as usize;
    let long = |at: usize| u64::from_le_bytes(journal[at..at + 8].try_into().unwrap());
    assert_eq!((number(8), long(16)), (1, 1));
    assert_eq!(number(12), crc32c::crc32c(&journal[16..80]) as usize);
    let first = 8192;
    let second = first + (32 + number(first + 24) + number(first + 28)).next_multiple_of(8);
    assert_eq!(&journal[second..second + 4], b"bRec");
    assert_eq!(
        (long(second + 8), long(second + 16)),
        (long(24), second as u64),
        "the tag; the first record was durable"
    );
    let (header, body) = (number(second + 24), number(second + 28));
    let end = second + 32 + header + body;
    assert_eq!(number(second + 4), crc32c::crc32c(&journal[second + 8..end]) as usize);
    assert_eq!(&journal[end - body..end], b"hello");
    let record: serde_json::Value = serde_json::from_slice(&journal[second + 32..second + 32 + header]).unwrap();
    assert_eq!((&record["session"], &record["seq"]), (&"s".into(), &2.into()));
    let put = &record["act"]["put"];
    assert_eq!((&put["key"], &put["version"], &put["over"]), (&"a".into(), &1.into(), &serde_json::Value::Null));
    assert_eq!((&put["size"], &put["crc"], &put["body"]), (&5.into(), &2_591_144_780_u64.into(), &"inline".into()));
    assert!(journal[end..].iter().all(|b| *b == 0));
}

#[test]
fn f15_a_large_value_is_durable_before_its_record() {
    let (_dir, watch, engine) = watched();
    let mut stage = engine.stage();
    stage.write_at(0, &[7; 100_000]).unwrap();
    let content = stage.freeze();
    watch.take();
    commit(&*engine, Change::Put { key: key("big"), content, expected: None, attributes: attributes() });
    let done = watch.take();
    let at = |what: &str| done.iter().position(|d| d.starts_with(what)).unwrap_or_else(|| panic!("{what}: {done:#?}"));
    assert!(at("link_anonymous .baton/drafts/") < at("sync .baton/drafts/"));
    assert!(at("sync .baton/drafts/") < at("sync_dir .baton/drafts"));
    assert!(at("sync_dir .baton/drafts") < at("write .baton/journal"));
    assert!(!done.iter().any(|what| what.starts_with("create .baton/drafts/") && !what.ends_with(".meta")), "no copy");
}

#[test]
fn f16_many_commits_share_a_sync() {
    let (_dir, watch, engine) = watched();
    watch.take();
    // The first sync is held until all have appended: one more is then enough for the rest.
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let mut first = true;
    watch.before_each("sync_data .baton/journal", move || {
        if std::mem::take(&mut first) {
            receiver.recv().unwrap();
        }
    });
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let engine = Arc::clone(&engine);
            std::thread::spawn(move || commit(&*engine, put(&format!("k{n}"), b"", None)))
        })
        .collect();
    while watch.count("write .baton/journal") < 4 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    sender.send(()).unwrap();
    threads.into_iter().for_each(|thread| assert!(thread.join().unwrap().version.is_some()));
    let syncs = watch.take().iter().filter(|what| *what == "sync_data .baton/journal").count();
    assert_eq!(syncs, 2, "syncs for 4 commits");
}

#[test]
fn f19_zeros_are_written_ahead_and_a_checkpoint_starts_again() {
    let (dir, watch, engine) = watched();
    let journal = dir.path().join(".baton/journal");
    assert_eq!(fs::metadata(&journal).unwrap().len(), 1 << 20);
    let mut n = 1;
    commit(&*engine, put("k", &[0; 60_000], None));
    watch.take();
    while !watch.take().contains(&"sync_everything".to_owned()) {
        commit(&*engine, put("k", &[n as u8; 60_000], Some(n)));
        n += 1;
        assert!(n < 1000, "no checkpoint");
    }
    let bytes = fs::read(&journal).unwrap();
    assert_eq!(u64::from_le_bytes(bytes[4096 + 16..4096 + 24].try_into().unwrap()), 2, "the other header");
    assert!(bytes.len() <= 4 << 20);
    commit(&*engine, put("k", b"after", Some(n)));
    drop(engine);
    let engine = LocalEngine::open(dir.path()).unwrap();
    assert_eq!(value(&engine, "k").unwrap(), b"after");
}

fn spare_renamed(what: &str) -> String {
    let words = what.split(' ').map(|word| match word {
        _ if word.ends_with(".spare") => "SPARE",
        _ if word.ends_with(".meta") && !word.ends_with("OP.meta") => "LEFT",
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_new_store_and_a_checkpoint_are_durable_before_anything_is_built_on_them() {
    let dir = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    let done: Vec<_> = watch.take().into_iter().filter(|what| !what.contains("probe")).collect();
    let expected = [
        "sync .baton/drafts/journal",
        "rename .baton/drafts/journal .baton/journal",
        "sync_dir .baton",
        "unlink .baton/drafts/format",
        "create .baton/drafts/format",
        "write .baton/drafts/format",
        "sync .baton/drafts/format",
        "rename .baton/drafts/format .baton/format",
        "sync_dir .baton",
        "sync_dir ",
    ];
    assert!(done.ends_with(&expected.map(str::to_owned)), "{done:#?}");
    make_session(&engine);
    watch.take();
    engine.close().unwrap();
    let noted = "set_xattr user.batonfs.end .baton/sessions/s/log";
    assert_eq!(watch.take(), [noted, "sync_everything", "write .baton/journal", "sync_data .baton/journal"]);
}

#[test]
fn f22_a_small_commit_takes_the_documented_steps() {
    let (_dir, watch, engine) = watched();
    commit(&*engine, put("k", b"zero", None));
    commit(&*engine, put("k", b"one", Some(1)));
    watch.take();
    let steps = |n: u64, bytes: &[u8]| -> Vec<String> {
        let context = by("w");
        engine.commit(&session(), put("k", bytes, Some(n)), &context).unwrap();
        let operation = context.operation.to_string();
        watch.take().iter().map(|what| what.replace(&operation, "OP")).collect()
    };
    let first = steps(2, b"two");
    // The old sidecar stays where it came out, to be written again for the next commit.
    let left = |what: &str| what.replace(first[0].split(' ').nth(1).unwrap(), "LEFT");
    let done: Vec<String> = first.iter().map(|what| left(what)).collect();
    let expected = [
        "rename LEFT .baton/drafts/OP.meta",
        "write .baton/drafts/OP.meta",
        "create .baton/drafts/OP",
        "write .baton/drafts/OP",
        "set_mode .baton/drafts/OP",
        "set_mtime .baton/drafts/OP",
        "write .baton/journal",
        "sync_data .baton/journal",
        "set_xattr user.batonfs .baton/drafts/OP",
        "exchange .baton/drafts/OP s/k",
        "rename .baton/drafts/OP .baton/history/s/kk/2",
        "exchange .baton/drafts/OP.meta s/.agent_state_meta/k.json",
        "write .baton/sessions/s/log",
    ];
    assert_eq!(done, expected);
    (3..=KEPT_VERSIONS + 2).for_each(|n| drop(steps(n, b"more")));
    // The version that is too old is the next value's file.
    let done: Vec<String> = steps(KEPT_VERSIONS + 3, b"last").iter().map(|what| spare_renamed(what)).collect();
    let renamed = [
        "rename LEFT .baton/drafts/OP.meta",
        "rename SPARE .baton/drafts/OP",
        "exchange .baton/drafts/OP s/k",
        "rename .baton/drafts/OP .baton/history/s/kk/35",
        "rename .baton/history/s/kk/3 SPARE",
        "exchange .baton/drafts/OP.meta s/.agent_state_meta/k.json",
    ];
    let is_name = |what: &&String| what.starts_with("rename") || what.starts_with("exchange");
    assert_eq!(done.iter().filter(is_name).collect::<Vec<_>>(), renamed.iter().collect::<Vec<_>>(), "{done:#?}");
}

#[test]
fn a_file_that_is_written_again_is_nobody_elses() {
    let (dir, _, engine) = watched();
    let mut pinned = Vec::new();
    let write = |n: u64| commit(&*engine, put("k", format!("{n:04}").as_bytes(), Some(n - 1).filter(|n| *n > 0)));
    for n in 1..=20 {
        write(n);
        if n % 2 == 0 {
            pinned.push((n, engine.open(&session(), &key("k")).unwrap().unwrap()));
        } else {
            fs::hard_link(dir.path().join("s/k"), dir.path().join(format!("backup{n}"))).unwrap();
        }
    }
    (21..=120).for_each(|n| assert_eq!(write(n).version, Some(n)));
    for (n, snapshot) in pinned {
        assert_eq!(snapshot.read_all().unwrap(), format!("{n:04}").as_bytes());
    }
    for n in (1..=20).step_by(2) {
        assert_eq!(fs::read(dir.path().join(format!("backup{n}"))).unwrap(), format!("{n:04}").as_bytes());
    }
    for n in 88..=120_u64 {
        let kept = engine.open_version(&session(), &key("k"), n).unwrap().unwrap();
        assert_eq!((kept.read_all().unwrap(), kept.head.version), (format!("{n:04}").into_bytes(), n));
    }
}

// F22 F25
#[test]
fn a_sidecar_that_an_operation_has_left_is_not_taken_from_under_it_when_it_is_tried_again() {
    let (dir, watch, engine) = watched();
    commit(&*engine, put("a", b"moved", None));
    commit(&*engine, put("b", b"replaced", None));
    let other = SessionId::parse("other").unwrap();
    let made = Change::MakeDir { dir: Dir::root(), attributes: attributes() };
    engine.commit(&other, made, &by("w")).unwrap();
    // The value and its sidecar are in their places, the source stays: with each look it is tried again.
    watch.bar(Some("unlink s/a"));
    let context = by("mover");
    let left = format!("rename .baton/drafts/{}.meta", context.operation);
    let rename = Change::Rename { from: key("a"), to: key("b"), expected_from: 1, expected_to: Some(1), content: None };
    engine.commit(&session(), rename, &context).unwrap();
    let (again, tried) = (Arc::clone(&engine), Arc::new(Mutex::new(None)));
    let trying = Arc::clone(&tried);
    watch.before(move |what| {
        if what.starts_with(&left) && trying.lock().unwrap().is_none() {
            let (again, (done, waits)) = (Arc::clone(&again), std::sync::mpsc::channel());
            *trying.lock().unwrap() = Some(std::thread::spawn(move || {
                let head = again.head(&session(), &key("b")).unwrap().unwrap();
                let _ = done.send(());
                head.version
            }));
            // It may have to wait for this.
            let _ = waits.recv_timeout(Duration::from_millis(300));
        }
    });
    engine.commit(&other, put("k", b"theirs", None), &by("taker")).unwrap();
    assert_eq!(tried.lock().unwrap().take().expect("it was written again").join().unwrap(), 2);
    watch.bar(None);
    assert_eq!(value(&*engine, "b").unwrap(), b"moved");
    for (place, id) in [("other/.agent_state_meta/k.json", "taker"), ("s/.agent_state_meta/b.json", "mover")] {
        let text = fs::read_to_string(dir.path().join(place)).unwrap();
        assert!(text.contains(&format!("\"{id}\"")), "{place}: {text}");
    }
}

#[test]
fn f24_an_append_costs_what_its_bytes_cost() {
    let mut costs = Vec::new();
    for size in [0, 8 << 20] {
        let (_dir, watch, engine) = watched();
        let content = Staged::from(vec![1; size]);
        commit(&*engine, Change::Put { key: key("k"), content, expected: None, attributes: attributes() });
        commit(&*engine, append("k", &[2; 100], 1));
        let pinned = engine.open(&session(), &key("k")).unwrap().unwrap();
        watch.take();
        watch.take_written_bytes();
        commit(&*engine, append("k", &[3; 100], 2));
        let done: Vec<_> = watch.take().into_iter().filter(|what| !what.contains("drafts")).collect();
        let steps = [
            "write .baton/journal",
            "sync_data .baton/journal",
            "write s/k",
            "set_mtime s/k",
            "set_xattr user.batonfs s/k",
            "write .baton/sessions/s/log",
        ];
        assert_eq!(done, steps);
        costs.push(watch.take_written_bytes());
        assert_eq!(pinned.read_all().unwrap().len(), size + 100);
        assert_eq!(engine.head(&session(), &key("k")).unwrap().unwrap().size_bytes, size as u64 + 200);
        let crc = crc32c::crc32c(&value(&*engine, "k").unwrap());
        assert_eq!(mark(&_dir.path().join("s/k"))["crc"].as_u64(), Some(crc.into()));
    }
    assert!(costs[1] < costs[0] + 100, "{costs:?}");
}
