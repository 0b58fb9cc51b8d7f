//! What a log shows of its own damage: each line has a checksum, and its end is noted.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use batonfs::engine::local::{LocalEngine, verify};
use batonfs::engine::{Engine, EngineError, Finding, Report};
use batonfs::words::{LogLine, SessionId};

use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;

const LOG: &str = ".baton/sessions/s/log";

/// A line of a log with the checksum that it has to have.
pub(crate) fn sealed(line: &str) -> String {
    let before = line.rsplit_once(",\"crc\":").unwrap().0;
    format!("{before},\"crc\":\"{:08x}\"}}", crc32c::crc32c(before.as_bytes()))
}

/// A closed store whose log has five lines, with everything in its place.
fn store() -> tempfile::TempDir {
    let dir = fresh();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    commit(&engine, put("a", b"one", None));
    commit(&engine, put("a", b"two", Some(1)));
    commit(&engine, put("b", b"b", None));
    commit(&engine, delete("b", 1));
    engine.close().unwrap();
    dir
}

fn checked(root: &Path, repair: bool) -> Report {
    verify(root, repair, &mut |_| std::ops::ControlFlow::Continue(())).unwrap()
}

fn rules(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.rule.as_str()).collect()
}

/// Other bytes, of which nothing but their checksum tells.
fn rot(value: &Path) {
    let modified = fs::metadata(value).unwrap().modified().unwrap();
    let size = fs::read(value).unwrap().len();
    fs::write(value, vec![b'?'; size]).unwrap();
    fs::File::options().write(true).open(value).unwrap().set_modified(modified).unwrap();
}

fn is_damaged<T: std::fmt::Debug>(result: Result<T, EngineError>) -> bool {
    matches!(result, Err(EngineError::Damaged { place, .. }) if place == LOG)
}

// F5
#[test]
fn a_digit_that_changed_in_a_line_is_no_other_line() {
    let dir = store();
    let text = fs::read_to_string(dir.path().join(LOG)).unwrap();
    let changed = text.replacen("\"version\":2", "\"version\":7", 1);
    assert_ne!(text, changed);
    fs::write(dir.path().join(LOG), &changed).unwrap();
    assert_eq!(rules(&checked(dir.path(), false).findings), ["F5"]);
    let engine = LocalEngine::open(dir.path()).unwrap();
    assert!(is_damaged(engine.changes(&session(), 0)));
}

// F43
#[test]
fn a_log_that_was_cut_is_not_gone_on_with_until_a_repair_allows_it() {
    for kept in 0..5 {
        let dir = store();
        let text = fs::read_to_string(dir.path().join(LOG)).unwrap();
        let lines: String = text.split_inclusive('\n').take(kept).collect();
        fs::write(dir.path().join(LOG), lines).unwrap();

        let engine = LocalEngine::open(dir.path()).unwrap();
        assert!(is_damaged(engine.changes(&session(), 0)), "{kept} lines");
        assert!(is_damaged(engine.commit(&session(), put("c", b"c", None), &by("w"))), "{kept} lines");
        assert_eq!(value(&engine, "a").unwrap(), b"two", "the values are read");
        engine.close().unwrap();
        drop(engine);

        let found = checked(dir.path(), false);
        assert!(found.damaged, "{kept} lines");
        assert_eq!((rules(&found.findings), found.findings[0].repairable), (vec!["F43"], true), "{kept} lines");
        let left = checked(dir.path(), true);
        assert_eq!(rules(&left.repaired), ["F43"], "{kept} lines");
        // What else the lost lines said is missed still.
        assert!(!rules(&left.findings).contains(&"F43"), "{:?}", left.findings);
        let engine = LocalEngine::open(dir.path()).unwrap();
        assert_eq!(engine.changes(&session(), 0).unwrap().len(), kept);
        assert_eq!(commit(&engine, put("c", b"c", None)).seq, kept as u64 + 1);
        engine.close().unwrap();
    }
}

// F43
#[test]
fn a_repair_beside_an_open_engine_lets_it_go_on() {
    let dir = store();
    let text = fs::read_to_string(dir.path().join(LOG)).unwrap();
    let engine = LocalEngine::open(dir.path()).unwrap();
    fs::write(dir.path().join(LOG), text.split_inclusive('\n').take(3).collect::<String>()).unwrap();
    assert!(is_damaged(engine.changes(&session(), 0)));
    let report = engine.verify(true, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert_eq!(rules(&report.repaired), ["F43"]);
    assert_eq!(commit(&engine, put("c", b"c", None)).seq, 4);
    engine.close().unwrap();
}

// F43
#[test]
fn a_log_that_is_cut_while_it_is_open_is_not_taken_for_a_shorter_one() {
    let dir = store();
    let engine = LocalEngine::open(dir.path()).unwrap();
    assert_eq!(engine.changes(&session(), 0).unwrap().len(), 5);
    let text = fs::read_to_string(dir.path().join(LOG)).unwrap();
    fs::write(dir.path().join(LOG), text.split_inclusive('\n').take(3).collect::<String>()).unwrap();
    assert!(is_damaged(engine.changes(&session(), 0)));
    assert!(is_damaged(engine.receipt(&session(), uuid::Uuid::now_v7())));
}

// F43
#[test]
fn what_goes_on_in_other_sessions_does_not_make_a_lost_end_the_end() {
    let dir = store();
    let text = fs::read_to_string(dir.path().join(LOG)).unwrap();
    fs::write(dir.path().join(LOG), text.split_inclusive('\n').take(3).collect::<String>()).unwrap();
    let other = SessionId::parse("t").unwrap();
    for n in 0..3 {
        let engine = LocalEngine::open(dir.path()).unwrap();
        assert!(is_damaged(engine.changes(&session(), 0)), "opened {n} times before");
        assert!(is_damaged(engine.commit(&session(), put("c", b"c", None), &by("w"))), "opened {n} times before");
        if n == 0 {
            engine.commit(&other, make_dir(""), &by("w")).unwrap();
        } else {
            engine.commit(&other, put(&format!("k{n}"), b"t", None), &by("w")).unwrap();
        }
        // It makes a checkpoint.
        engine.close().unwrap();
    }
    assert_eq!(rules(&checked(dir.path(), false).findings), ["F43"]);
}

// F43
#[test]
fn a_check_beside_an_open_engine_tells_of_a_lost_end_and_of_the_rest() {
    for kept in 0..5 {
        let dir = store();
        let engine = LocalEngine::open(dir.path()).unwrap();
        let text = fs::read_to_string(dir.path().join(LOG)).unwrap();
        fs::write(dir.path().join(LOG), text.split_inclusive('\n').take(kept).collect::<String>()).unwrap();
        rot(&dir.path().join("s/a"));
        let report = engine.verify(false, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
        let beside = checked(dir.path(), false);
        assert_eq!(report.findings, beside.findings, "{kept} lines");
        assert_eq!(rules(&report.findings), ["F43", "F1"], "{kept} lines");
    }
}

/// A log of so many lines, one of them longer than what is read at a time.
fn long_log(dir: &Path, lines: u64) {
    let mut text = fs::read_to_string(dir.join(LOG)).unwrap();
    for seq in text.lines().count() as u64 + 1..=lines {
        let words = "w".repeat(if seq == lines / 3 { 100_000 } else { (seq % 50) as usize });
        let line = format!(
            r#"{{"seq":{seq},"time_ms":1,"op":"drop","key":"k","writer":{{}},"conflict":"{words}","operation":"{seq}","crc":"}}"#
        );
        text.push_str(&sealed(&line));
        text.push('\n');
    }
    fs::write(dir.join(LOG), text).unwrap();
}

// F5
#[test]
fn what_came_after_a_change_is_found_without_reading_what_came_before_it() {
    const LINES: u64 = 50_000;
    let dir = store();
    long_log(dir.path(), LINES);
    let watch = Watch::default();
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    let first_after = |after| {
        let mut first = None;
        watch.take_looked();
        engine
            .each_change(&session(), after, &mut |line| {
                first = Some(line.seq);
                ControlFlow::Break(())
            })
            .unwrap();
        (first, watch.take_looked().1)
    };
    let around = |middle: u64| middle.saturating_sub(2)..middle + 2;
    for after in around(0).chain(around(LINES / 3)).chain(around(LINES / 2)).chain(around(LINES - 2)) {
        assert_eq!(first_after(after).0, Some(after + 1));
    }
    assert_eq!(first_after(LINES).0, None);
    let size = fs::metadata(dir.path().join(LOG)).unwrap().len();
    for after in [LINES / 2, LINES - 2] {
        let read = first_after(after).1;
        assert!(read < size / 5, "{read} of {size} bytes were read for what came after {after}");
    }
}

// E8
#[test]
fn who_stands_still_in_the_middle_of_a_log_keeps_no_change_waiting() {
    const LINES: u64 = 2_000;
    const LIMIT: Duration = Duration::from_secs(20);
    let mut engines = with_session();
    for subject in &engines {
        commit(&*subject.engine, put("d/k", b"v", None));
    }
    let dir = store();
    long_log(dir.path(), LINES);
    engines.push(Subject { engine: Arc::new(LocalEngine::open(dir.path()).unwrap()), dir: Some(dir) });
    for subject in engines {
        let engine = &*subject.engine;
        let there = engine.changes(&session(), 0).unwrap().len() as u64;
        let ((stands, standing), (go, going), (tell, told)) = (channel(), channel(), channel());
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let mut seqs = Vec::new();
                let each = &mut |line: LogLine| {
                    if seqs.is_empty() {
                        stands.send(()).unwrap();
                        going.recv().unwrap();
                    }
                    seqs.push(line.seq);
                    ControlFlow::Continue(())
                };
                engine.each_change(&session(), 0, each).unwrap();
                seqs
            });
            standing.recv().unwrap();
            scope.spawn(move || {
                commit(engine, put("other/k", b"v", None));
                commit(engine, rename_dir("other", "moved"));
                commit(engine, delete("moved/k", 1));
                tell.send(()).unwrap();
            });
            let made = told.recv_timeout(LIMIT);
            go.send(()).unwrap();
            assert_eq!(reader.join().unwrap(), (1..=there).collect::<Vec<_>>(), "those there were when it began");
            made.expect("the changes wait for who reads");
        });
        assert_eq!(engine.changes(&session(), there).unwrap().len(), 3);
    }
}
