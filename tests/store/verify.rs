//! Every rule of the format that a disk can break is broken here once: the check sees exactly that, a repair mends what
//! it may, and no committed byte goes.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use batonfs::engine::local::disk::Disk;
use batonfs::engine::local::{LocalEngine, verify_on};
use batonfs::engine::{Engine, Finding, Harm, Report};

use crate::damage::*;
use crate::damage_cases::*;
use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;
use crate::sound::*;

pub(crate) fn findings(report: &Report) -> Vec<&Finding> {
    report.findings.iter().filter(|it| it.rule != "spare").collect()
}

#[track_caller]
fn assert_exactly(case: &Case, report: &Report, how: &str) {
    let found = findings(report);
    let repairable = case.open_repairable.filter(|_| how == "open").unwrap_or(case.repairable);
    let seen: Vec<_> = found.iter().map(|it| (it.rule.as_str(), it.place.as_str(), it.harm, it.repairable)).collect();
    let expected = [(case.rule, case.place, case.harm, repairable)];
    assert_eq!(seen, expected, "{} ({how}): {:#?}", case.name, told(&report.findings));
    assert_eq!(report.damaged, case.harm == Harm::Damage, "{}", case.name);
    assert!(found.iter().all(|it| !it.what.is_empty() && !it.remedy.is_empty()), "{}", case.name);
}

fn break_and_check(case: &Case, made: &Path) {
    let dir = copy(made);
    assert_sound(dir.path());
    (case.damage)(dir.path());
    let (before, values) = (everything(dir.path()), values(dir.path()));
    assert_exactly(case, &checked(dir.path(), false), "closed");
    assert_eq!(everything(dir.path()), before, "{}: a check changed something", case.name);
    let repaired = checked(dir.path(), true);
    if case.repairable {
        assert_eq!(told(&repaired.findings), Vec::<String>::new(), "{}: left after the repair", case.name);
        assert!(repaired.repaired.iter().any(|it| (it.rule.as_str(), it.place.as_str()) == (case.rule, case.place)));
        assert_sound(dir.path());
        if case.rule == "F2" {
            let sign = "a sidecar of ours tells itself from the neighbour's";
            assert_eq!(mark_of(&dir.path().join(case.place)), b" ", "{}: {sign}", case.name);
        }
        let engine = LocalEngine::open(dir.path()).unwrap();
        assert_eq!(value(&engine, "a").unwrap(), b"two and more", "{}", case.name);
        assert_eq!(engine.open_version(&session(), &key("a"), 1).unwrap().unwrap().read_all().unwrap(), b"one");
    } else {
        assert_exactly(case, &repaired, "after a repair that cannot mend it");
        assert_eq!(self::values(dir.path()), values, "{}: a repair changed a value", case.name);
    }
}

fn break_and_check_live(case: &Case, made: &Path) {
    // Opening starts the journal again, so what the journal is to have is not there.
    if case.journaled || !case.live {
        return;
    }
    let dir = copy(made);
    let engine = LocalEngine::open(dir.path()).unwrap();
    let check = |repair| engine.verify(repair, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(told(&check(false).findings), Vec::<String>::new(), "{}", case.name);
    (case.damage)(dir.path());
    assert_exactly(case, &check(false), "open");
    let repaired = check(true);
    if case.open_repairable.unwrap_or(case.repairable) {
        assert_eq!(told(&repaired.findings), Vec::<String>::new(), "{}: left after the repair", case.name);
    }
}

#[test]
fn each_damage_is_found_as_what_it_is_and_mended_where_that_loses_nothing() {
    let (mut wrong, closed, journaled) = (Vec::new(), one_of_each(true), one_of_each(false));
    for case in cases_of_our_own_files().into_iter().chain(cases_of_values()) {
        for (how, check) in [("closed", break_and_check as fn(&Case, &Path)), ("open", break_and_check_live)] {
            // All that is wrong is told at once.
            let made = if case.journaled { journaled.path() } else { closed.path() };
            if std::panic::catch_unwind(|| check(&case, made)).is_err() {
                wrong.push(format!("{} ({how})", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

// F7
#[test]
fn a_number_that_was_given_twice_is_noted() {
    let dir = fresh();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    for n in 0..3 {
        commit(&engine, put("k", b"", Some(n).filter(|n| *n > 0)));
    }
    engine.close().unwrap();
    drop(engine);
    let log = dir.path().join(LOG);
    let given = |line: &str| crate::lines::sealed(&line.replace("\"version\":2", "\"version\":1"));
    let lines: Vec<_> = fs::read_to_string(&log).unwrap().lines().map(given).collect();
    fs::write(&log, lines.join("\n") + "\n").unwrap();
    let report = checked(dir.path(), false);
    let found = findings(&report);
    assert_eq!(found.iter().map(|it| (it.rule.as_str(), it.place.as_str())).collect::<Vec<_>>(), [("F7", LOG)]);
    assert!(!report.damaged && found[0].what.contains("version 1 of 'k', which had 1"), "{found:?}");
}

// F15
#[test]
fn a_staged_value_that_is_gone_before_it_was_in_its_place_is_found() {
    for (bytes, words) in [(None, "is not there"), (Some(&b"short"[..]), "has other bytes")] {
        let dir = one_of_each(false);
        let draft = |root: &Path| {
            let log = lines(root);
            let line: serde_json::Value = serde_json::from_str(log.last().unwrap()).unwrap();
            root.join(".baton/drafts").join(line["operation"].as_str().unwrap())
        };
        let draft = draft(dir.path());
        set_lines(dir.path(), &lines(dir.path())[..9]);
        fs::rename(dir.path().join("s/big"), &draft).unwrap();
        assert_eq!(told(&checked(dir.path(), false).findings).len(), 1, "only that a change waits");
        match bytes {
            None => fs::remove_file(&draft).unwrap(),
            Some(bytes) => fs::write(&draft, bytes).unwrap(),
        }
        let report = checked(dir.path(), false);
        let found: Vec<_> = findings(&report).into_iter().filter(|it| it.rule == "F15").collect();
        assert!(report.damaged && found.len() == 1 && found[0].what.contains(words), "{:#?}", report.findings);
    }
}

// F1
#[test]
fn a_torn_value_is_mended_from_what_its_former_name_had_in_the_journal() {
    let dir = fresh();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    commit(&engine, put("from", b"one", None));
    commit(&engine, append("from", b" two", 1));
    commit(&engine, rename("from", "to", 2, None));
    commit(&engine, put("from", b"another", None));
    drop(engine);
    quietly(&dir.path().join("s/to"), Vec::clear);
    let report = checked(dir.path(), true);
    assert_eq!(told(&report.findings), Vec::<String>::new());
    assert_eq!(told(&report.repaired), ["damage F1 s/to: it has 0 bytes, version 1 has 7"]);
    assert_eq!(value(&LocalEngine::open(dir.path()).unwrap(), "to").unwrap(), b"one two");
}

// F27
#[test]
fn after_a_power_cut_a_check_judges_only_what_opening_will_not_write_again() {
    let dir = one_of_each(false);
    quietly(&dir.path().join("s/a"), |bytes| bytes.truncate(2));
    let watch = Watch::default();
    watch.reboot("another boot");
    let disk: Arc<dyn Disk> = RecordingDisk::open(dir.path(), &watch);
    let check = |repair| verify_on(&disk, repair, &mut |_| ControlFlow::Continue(())).unwrap();
    let report = check(false);
    let found = findings(&report);
    assert!(!report.damaged && found.len() == 1 && found[0].rule == "journal", "{found:?}");
    assert!(found[0].what.contains("11 changes were made before the machine started"), "{found:?}");
    assert_eq!(watch.take(), Vec::<String>::new(), "it changed something");
    assert_eq!(told(&check(true).findings), Vec::<String>::new());
    assert_eq!(value(&LocalEngine::open(dir.path()).unwrap(), "a").unwrap(), b"two and more");
}

// F1
#[test]
fn bytes_that_the_journal_has_of_another_version_mend_nothing() {
    let dir = fresh();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    commit(&engine, put("k", b"ours", None));
    by_rename(dir.path(), "s/k", b"them");
    assert_eq!(version(&engine, "k"), Some(2));
    drop(engine);
    quietly(&dir.path().join("s/k"), |bytes| bytes[0] = b'T');
    for repair in [false, true] {
        let report = checked(dir.path(), repair);
        assert_eq!(told(&report.findings).len(), 1, "{:#?}", report.findings);
        assert_eq!((report.findings[0].rule.as_str(), report.findings[0].repairable), ("F1", false));
        assert_eq!(fs::read(dir.path().join("s/k")).unwrap(), b"Them");
    }
}
