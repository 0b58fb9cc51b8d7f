//! What a check says of a whole store, also while others write to it; and what it must not judge.

use std::fs;
use std::ops::ControlFlow;
use std::time::SystemTime;

use batonfs::engine::local::LocalEngine;
use batonfs::engine::{Change, Engine, Harm};

use crate::damage::*;
use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;
use crate::lines::sealed;
use crate::sound::*;
use crate::verify::findings;

#[test]
fn a_newer_versions_store_is_said_to_be_that_and_is_not_judged() {
    let dir = one_of_each(true);
    fs::write(dir.path().join(".baton/format"), "batonfs store format 2\n").unwrap();
    fs::write(dir.path().join(LOG), "of another form").unwrap();
    let before = everything(dir.path());
    for repair in [false, true] {
        let report = checked(dir.path(), repair);
        assert_eq!(report.findings.iter().map(|it| it.rule.as_str()).collect::<Vec<_>>(), ["newer"]);
        assert!(report.damaged);
    }
    assert_eq!(everything(dir.path()), before);
}

#[test]
fn a_check_counts_what_it_looked_at() {
    let dir = one_of_each(true);
    let checked = checked(dir.path(), false).checked;
    assert_eq!((checked.sessions, checked.keys, checked.versions), (1, 4, 6));
    assert_eq!(checked.bytes, (1 + 12 + 2 + 70_000) + (3 + 1) + 7);
    let engine = LocalEngine::open(dir.path()).unwrap();
    assert_eq!(engine.verify(false, &mut |_| ControlFlow::Continue(())).unwrap().checked, checked);
    let memory = batonfs::engine::memory::MemoryEngine::new();
    make_session(&memory);
    commit(&memory, put("a", b"1", None));
    commit(&memory, put("a", b"2", Some(1)));
    let report = memory.verify(true, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.checked.sessions, report.checked.keys, report.checked.versions), (1, 1, 2));
}

#[test]
fn a_check_that_is_told_to_stop_stops() {
    let dir = one_of_each(true);
    let place = dir.path().join("s/sparse");
    fs::File::create(&place).unwrap().set_len(1 << 40).unwrap();
    let mark = mark_of(&dir.path().join("s/a"));
    let mut mark: serde_json::Value = serde_json::from_slice(&mark).unwrap();
    let time = fs::metadata(&place).unwrap().modified().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    mark["size"] = (1_u64 << 40).into();
    mark["mtime_ns"] = (time.as_nanos() as u64).into();
    mark["place"] = crc32c::crc32c(b"s/sparse").into();
    set_mark(&place, mark.to_string().as_bytes());
    let mut told = 0;
    let error = batonfs::engine::local::verify(dir.path(), false, &mut |_| {
        told += 1;
        ControlFlow::Break(())
    });
    assert!(error.unwrap_err().to_string().contains("checking the store"));
    assert_eq!(told, 1);
}

/// One round of a writer: a value, appends, another name, a delete, and a directory that goes there and back.
fn one_round(engine: &dyn Engine, n: usize) -> u64 {
    let (k, r, d) = (format!("m/k{n}"), format!("m/r{n}"), format!("d{n}"));
    let last = |path: &str| engine.last_version(&session(), &key(path)).unwrap();
    commit(engine, put(&k, b"value", None));
    commit(engine, append(&k, b" and", last(&k)));
    commit(engine, append(&k, b" more", last(&k)));
    commit(engine, rename(&k, &r, last(&k), None));
    commit(engine, put(&r, b"again", Some(last(&r))));
    commit(engine, delete(&r, last(&r)));
    commit(engine, put(&format!("{d}/k"), b"there", version(engine, &format!("{d}/k"))));
    commit(engine, rename_dir(&d, &format!("{d}x")));
    commit(engine, append(&format!("{d}x/k"), b" and back", version(engine, &format!("{d}x/k")).unwrap()));
    commit(engine, rename_dir(&format!("{d}x"), &d));
    10
}

#[test]
fn a_check_beside_writers_finds_nothing_and_loses_nothing() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = fresh();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    commit(&engine, make_dir("m"));
    let (done, rounds) = (AtomicBool::new(false), if std::env::var_os("BATONFS_LONG").is_some() { 500 } else { 20 });
    let checks = std::thread::scope(|scope| {
        let (engine, done) = (&engine, &done);
        let writer = |n| scope.spawn(move || (0..rounds).map(|_| one_round(engine, n)).sum::<u64>());
        let writers: Vec<_> = (0..3).map(writer).collect();
        let checker = scope.spawn(move || {
            let mut checks = 0;
            while !done.load(Ordering::Relaxed) || checks == 0 {
                let report = engine.verify(checks % 2 == 1, &mut |_| ControlFlow::Continue(())).unwrap();
                assert_eq!(told(&report.findings), Vec::<String>::new());
                assert_eq!(told(&report.repaired), Vec::<String>::new());
                checks += 1;
            }
            checks
        });
        let changes: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        done.store(true, Ordering::Relaxed);
        assert_eq!(engine.changes(&session(), 0).unwrap().len() as u64, 2 + changes);
        checker.join().unwrap()
    });
    assert!(checks > 0);
    engine.close().unwrap();
    assert_sound(dir.path());
}

#[test]
fn a_session_whose_changes_are_not_in_their_place_is_not_judged() {
    let dir = fresh();
    let watch = Watch::default();
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    make_session(&engine);
    let failing = watch.clone();
    watch.before(move |what| {
        if what.starts_with("rename_new") {
            failing.fail(Some((0, libc::EIO)));
        }
    });
    commit(&engine, put("k", b"stuck", None));
    let report = engine.verify(false, &mut |_| ControlFlow::Continue(())).unwrap();
    let found: Vec<_> = report.findings.iter().map(|it| (it.rule.as_str(), it.place.as_str(), it.harm)).collect();
    assert_eq!(found, [("F25", "s", Harm::Note)]);
    watch.before(|_| {});
    watch.fail(None);
    assert_eq!(value(&engine, "k").unwrap(), b"stuck");
    let report = engine.verify(false, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(told(&report.findings), Vec::<String>::new());
}

// F6
#[test]
fn history_that_nobody_prunes_is_found_and_pruned_to_what_is_kept() {
    let dir = fresh();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    for n in 1..=70_u64 {
        commit(&engine, put("k", b"", Some(n - 1).filter(|n| *n > 0)));
    }
    engine.close().unwrap();
    let past = dir.path().join(".baton/history/s/kk");
    for n in 1..38 {
        fs::copy(past.join("40"), past.join(n.to_string())).unwrap();
        set_mark(&past.join(n.to_string()), &mark_of(&past.join("40")));
        remark(&past.join(n.to_string()), "version", n.into());
        remark(&past.join(n.to_string()), "since", n.into());
    }
    // How many are kept is for who opens the store: nobody has it open now.
    assert_eq!(told(&checked(dir.path(), false).findings), Vec::<String>::new());
    let engine = LocalEngine::open(dir.path()).unwrap();
    let check = |repair| told(&engine.verify(repair, &mut |_| std::ops::ControlFlow::Continue(())).unwrap().findings);
    assert_eq!(check(false), ["leftover F6 .baton/history/s/kk: it has 69 versions"]);
    assert_eq!(check(true), Vec::<String>::new());
    assert_eq!(fs::read_dir(&past).unwrap().count(), 32);
}

// F6
#[test]
fn history_is_pruned_whatever_comes_between_two_values() {
    // Numbers come in steps of one more than the appends between; no step may pass by the ones that are too old.
    for appends in [0, 1, 4, 5, 11, 31, 33] {
        let dir = fresh();
        let engine = LocalEngine::open(dir.path()).unwrap();
        make_session(&engine);
        let mut version = None;
        for _ in 0..50 {
            version = commit(&engine, put("k", b"", version)).version;
            for _ in 0..appends {
                version = commit(&engine, append("k", b"+", version.unwrap())).version;
            }
        }
        engine.close().unwrap();
        let kept = fs::read_dir(dir.path().join(".baton/history/s/kk")).unwrap().count();
        assert!(kept <= 33, "{kept} versions are kept with {appends} appends between two values");
        assert_sound(dir.path());
    }
}

// F2 F12
#[test]
fn the_second_of_a_declared_writer_is_that_of_its_declaration() {
    let dir = fresh();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    by_rename(dir.path(), "s/k", b"theirs");
    assert_eq!(version(&engine, "k"), Some(1));
    commit(&engine, Change::Declare { key: key("k"), expected: 1 });
    engine.close().unwrap();
    assert_sound(dir.path());
    // As if it had been declared five seconds later.
    let mut lines = lines(dir.path());
    let declared: serde_json::Value = serde_json::from_str(&lines[2]).unwrap();
    let time_ms = declared["time_ms"].as_u64().unwrap();
    lines[2] = sealed(&lines[2].replace(&time_ms.to_string(), &(time_ms + 5000).to_string()));
    set_lines(dir.path(), &lines);
    let sidecar = dir.path().join("s/.agent_state_meta/k.json");
    let text = fs::read_to_string(&sidecar).unwrap();
    fs::write(&sidecar, text.replace(&(time_ms / 1000).to_string(), &(time_ms / 1000 + 5).to_string())).unwrap();
    assert_sound(dir.path());
    fs::write(&sidecar, text).unwrap();
    let report = checked(dir.path(), false);
    assert_eq!(findings(&report).iter().map(|it| it.rule.as_str()).collect::<Vec<_>>(), ["F2"]);
}
