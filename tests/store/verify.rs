//! Every rule of the format that a disk can break is broken here once: the check sees exactly that, a repair mends what
//! it may, and no committed byte goes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use batonfs::engine::local::disk::Disk;
use batonfs::engine::local::{LocalEngine, verify_on};
use batonfs::engine::{Change, Engine, Finding, Harm, Report, Staged};
use batonfs::words::Policy;

use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;
use crate::lines::sealed;
use crate::sound::*;

const MARK: &str = "user.batonfs";
const JOURNAL: &str = ".baton/journal";
const LOG: &str = ".baton/sessions/s/log";

/// A copy of a store.
fn copy(of: &Path) -> tempfile::TempDir {
    let to = fresh();
    assert!(std::process::Command::new("cp").arg("-a").arg(of.join(".")).arg(to.path()).status().unwrap().success());
    to
}

/// A store with one of each thing: versions, appends, a writer who is nobody, a large value, a delete, a policy.
fn store(close: bool) -> tempfile::TempDir {
    let dir = fresh();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    engine.commit(&session(), put("nobody", b"n", None), &by("")).unwrap();
    commit(&engine, put("a", b"one", None));
    commit(&engine, put("a", b"two", Some(1)));
    commit(&engine, append("a", b" and more", 2));
    commit(&engine, put("gone", b"g", None));
    commit(&engine, delete("gone", 1));
    commit(&engine, put("d/e/b", b"b1", None));
    commit(&engine, Change::SetPolicy(Policy::Warn));
    let content = Staged::from(vec![1; 70_000]);
    commit(&engine, Change::Put { key: key("big"), content, expected: None, attributes: attributes() });
    if close {
        engine.close().unwrap();
    }
    dir
}

fn values(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: &str| (root.join(path), fs::read(root.join(path)).unwrap_or_default());
    ["s/nobody", "s/a", "s/d/e/b", "s/big"].into_iter().map(read).collect()
}

/// Everything in a store, with sizes, times, bytes: a check changes none of it.
fn everything(root: &Path) -> String {
    let listing =
        std::process::Command::new("find").arg(root).args(["-printf", "%P %s %T@ %i %m\\n"]).output().unwrap();
    let sums = std::process::Command::new("find").arg(root).args(["-type", "f", "-exec", "cksum", "{}", "+"]).output();
    String::from_utf8_lossy(&listing.stdout).into_owned() + &String::from_utf8_lossy(&sums.unwrap().stdout)
}

/// A way to break a store.
type Damage = fn(&Path);

struct Case {
    name: &'static str,
    rule: &'static str,
    place: &'static str,
    harm: Harm,
    repairable: bool,
    /// The journal still has the last changes.
    journaled: bool,
    /// It is found as well while an engine has the store open.
    live: bool,
    /// An open engine can mend it, or not, other than a closed store's repair.
    open_repairable: Option<bool>,
    damage: Damage,
}

fn case(name: &'static str, rule: &'static str, place: &'static str, harm: Harm, damage: Damage) -> Case {
    Case { name, rule, place, harm, repairable: false, journaled: false, live: true, open_repairable: None, damage }
}

impl Case {
    fn repairable(self) -> Self {
        Self { repairable: true, ..self }
    }

    fn journaled(self) -> Self {
        Self { journaled: true, ..self }
    }

    fn open_repairable(self, can: bool) -> Self {
        Self { open_repairable: Some(can), ..self }
    }

    fn closed_only(self) -> Self {
        Self { live: false, ..self }
    }
}

/// Changes a file's bytes and leaves its time.
fn quietly(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn mark_of(path: &Path) -> Vec<u8> {
    let mut mark = vec![0; 4096];
    let got = rustix::fs::getxattr(path, MARK, &mut mark[..]).unwrap();
    mark.truncate(got);
    mark
}

fn set_mark(path: &Path, mark: &[u8]) {
    rustix::fs::setxattr(path, MARK, mark, rustix::fs::XattrFlags::empty()).unwrap();
}

/// Changes one member of a mark.
fn remark(path: &Path, member: &str, to: serde_json::Value) {
    let mut mark: serde_json::Value = serde_json::from_slice(&mark_of(path)).unwrap();
    mark[member] = to;
    set_mark(path, mark.to_string().as_bytes());
}

fn lines(root: &Path) -> Vec<String> {
    fs::read_to_string(root.join(LOG)).unwrap().lines().map(str::to_owned).collect()
}

fn set_lines(root: &Path, lines: &[String]) {
    fs::write(root.join(LOG), lines.join("\n") + "\n").unwrap();
}

fn by_rename(root: &Path, path: &str, bytes: &[u8]) {
    fs::write(root.join("new"), bytes).unwrap();
    fs::rename(root.join("new"), root.join(path)).unwrap();
}

fn old(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(90_000)).unwrap();
}

fn number(journal: &[u8], at: usize) -> usize {
    u32::from_le_bytes(journal[at..at + 4].try_into().unwrap()) as usize
}

/// Where the records of a journal begin, and where the last one ends.
fn records(journal: &[u8]) -> Vec<usize> {
    let mut at = vec![8192];
    while let Some(last) = at.last().copied().filter(|last| journal[*last..].starts_with(b"bRec")) {
        at.push(last + (32 + number(journal, last + 24) + number(journal, last + 28)).next_multiple_of(8));
    }
    at
}

/// Puts a record of the journal's own generation behind its last one.
fn add_record(root: &Path, header: &str, whole: bool) {
    let place = root.join(JOURNAL);
    let mut journal = fs::read(&place).unwrap();
    let end = *records(&journal).last().unwrap();
    let mut frame = b"bRec\0\0\0\0".to_vec();
    frame.extend_from_slice(&journal[24..32]);
    frame.extend_from_slice(&(end as u64).to_le_bytes());
    frame.extend_from_slice(&(header.len() as u32).to_le_bytes());
    frame.extend_from_slice(&0_u32.to_le_bytes());
    frame.extend_from_slice(header.as_bytes());
    let crc = crc32c::crc32c(&frame[8..]) ^ u32::from(!whole);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    journal[end..end + frame.len()].copy_from_slice(&frame);
    fs::write(&place, journal).unwrap();
}

fn cases_of_our_own_files() -> Vec<Case> {
    use Harm::{Damage, Leftover, Note};
    vec![
        case("a marker that is none", "F4", ".baton/format", Damage, |r| {
            fs::write(r.join(".baton/format"), "x").unwrap()
        })
        .repairable(),
        case("no marker", "F4", ".baton/format", Damage, |r| fs::remove_file(r.join(".baton/format")).unwrap())
            .repairable(),
        case("no journal", "F35", JOURNAL, Damage, |r| fs::remove_file(r.join(JOURNAL)).unwrap())
            .repairable()
            .open_repairable(false),
        case("no header", "F19", JOURNAL, Damage, |r| quietly(&r.join(JOURNAL), |j| j[..8192].fill(7)))
            .open_repairable(true),
        case("a header that does not count", "F19", JOURNAL, Damage, |r| {
            quietly(&r.join(JOURNAL), |j| j[4096..4100].fill(7));
        })
        .journaled()
        .repairable(),
        case("the header that counts", "F19", JOURNAL, Damage, |r| {
            quietly(&r.join(JOURNAL), |j| j[4096..4100].fill(7))
        })
        .repairable(),
        case("the header that counts, and its records", "F19", JOURNAL, Damage, |r| {
            let engine = LocalEngine::open(r).unwrap();
            commit(&engine, put("more", &[7; 60_000], None));
            drop(engine);
            quietly(&r.join(JOURNAL), |j| j[4096..4100].fill(7));
        })
        .closed_only(),
        case("generations that do not follow", "F19", JOURNAL, Damage, |r| {
            quietly(&r.join(JOURNAL), |j| {
                j[4096 + 16] += 5;
                let crc = crc32c::crc32c(&j[4096 + 16..4096 + 80]);
                j[4096 + 12..4096 + 16].copy_from_slice(&crc.to_le_bytes());
            });
        })
        .open_repairable(true),
        case("a durable record", "F21", JOURNAL, Damage, |r| quietly(&r.join(JOURNAL), |j| j[8192 + 40] ^= 1))
            .journaled(),
        case("a torn record", "F20", JOURNAL, Leftover, |r| add_record(r, "{}", false))
            .journaled()
            .repairable()
            .closed_only(),
        case("a record that says nothing", "F14", JOURNAL, Damage, |r| add_record(r, "{}", true)).journaled(),
        case("a change whose line is missing", "journal", JOURNAL, Note, |r| set_lines(r, &lines(r)[..9]))
            .journaled()
            .repairable()
            .closed_only(),
        case("a draft nobody needs", "F17", ".baton/drafts/left", Leftover, |r| {
            fs::write(r.join(".baton/drafts/left"), "over").unwrap();
        })
        .repairable()
        .closed_only(),
        case("a name of nobody's", "unknown", ".baton/mine", Note, |r| fs::write(r.join(".baton/mine"), "").unwrap()),
        case("a name of nobody's beside a log", "unknown", ".baton/sessions/s/mine", Note, |r| {
            fs::write(r.join(".baton/sessions/s/mine"), "").unwrap();
        }),
        case("a policy that is none", "policy", ".baton/sessions/s/policy", Damage, |r| {
            fs::write(r.join(".baton/sessions/s/policy"), "harsh\n").unwrap();
        }),
        case("a policy that the journal has", "policy", ".baton/sessions/s/policy", Damage, |r| {
            fs::write(r.join(".baton/sessions/s/policy"), "").unwrap();
        })
        .journaled()
        .repairable(),
        case("a line that is none", "F5", LOG, Damage, |r| {
            let mut lines = lines(r);
            lines[3] = "garbage".to_owned();
            set_lines(r, &lines);
        }),
        case("a line that is missing", "F5", LOG, Damage, |r| {
            let mut lines = lines(r);
            lines.remove(3);
            set_lines(r, &lines);
        }),
        case("a torn line", "F5", LOG, Leftover, |r| {
            let text = fs::read_to_string(r.join(LOG)).unwrap();
            fs::write(r.join(LOG), text + "{\"seq\":11").unwrap();
        })
        .repairable()
        .closed_only(),
        case("no log", "F5", LOG, Damage, |r| fs::remove_file(r.join(LOG)).unwrap()),
        case("an operation twice", "operation", LOG, Damage, |r| {
            let mut lines = lines(r);
            let line: serde_json::Value = serde_json::from_str(&lines[8]).unwrap();
            let other: serde_json::Value = serde_json::from_str(&lines[7]).unwrap();
            let changed = lines[8].replace(line["operation"].as_str().unwrap(), other["operation"].as_str().unwrap());
            lines[8] = sealed(&changed);
            set_lines(r, &lines);
        }),
    ]
}

fn cases_of_values() -> Vec<Case> {
    use Harm::{Damage, Leftover, Note};
    vec![
        case("other bytes", "F1", "s/a", Damage, |r| quietly(&r.join("s/a"), |b| b[0] ^= 1)),
        case("other bytes that the journal has", "F1", "s/a", Damage, |r| quietly(&r.join("s/a"), |b| b[0] ^= 1))
            .journaled()
            .repairable(),
        case("fewer bytes", "F1", "s/a", Damage, |r| quietly(&r.join("s/a"), |b| b.truncate(4))),
        case("fewer bytes that the journal has", "F1", "s/a", Damage, |r| quietly(&r.join("s/a"), Vec::clear))
            .journaled()
            .repairable(),
        case("more bytes than the journal has", "F1", "s/a", Damage, |r| quietly(&r.join("s/a"), |b| b.push(0)))
            .journaled()
            .repairable(),
        case("other bytes of a large value", "F1", "s/big", Damage, |r| quietly(&r.join("s/big"), |b| b[9] ^= 1))
            .journaled(),
        case("a mark that cannot be read", "F9", "s/d/e/b", Damage, |r| set_mark(&r.join("s/d/e/b"), b"{\"form\":")),
        case("a mark that is lost, and the journal has", "F9", "s/d/e/b", Damage, |r| {
            rustix::fs::removexattr(r.join("s/d/e/b"), MARK).unwrap();
        })
        .journaled()
        .repairable(),
        case("a mark that is lost", "F11", "s/d/e/b", Note, |r| {
            rustix::fs::removexattr(r.join("s/d/e/b"), MARK).unwrap();
        }),
        case("a mark of another change", "F5", "s/a", Damage, |r| remark(&r.join("s/a"), "seq", 3.into())),
        case("a mark of another writer", "F5", "s/a", Damage, |r| {
            remark(&r.join("s/a"), "writer", serde_json::json!({"writer_id": "other"}));
        }),
        case("a version that the log does not know", "F5", "s/a", Damage, |r| {
            remark(&r.join("s/a"), "version", 9.into())
        }),
        case("a copy put back", "F10", "s/a", Note, |r| {
            let from = r.join(".baton/history/s/ka/1");
            let copied = std::process::Command::new("cp").arg("-a").args([from, r.join("s/a")]).status();
            assert!(copied.unwrap().success());
        }),
        case("a stranger's value", "F11", "s/a", Note, |r| by_rename(r, "s/a", b"theirs")),
        case("a stranger's new value", "F11", "s/x", Note, |r| by_rename(r, "s/x", b"theirs")),
        case("a value changed in place", "F11", "s/a", Note, |r| fs::write(r.join("s/a"), "theirs").unwrap()),
        case("a value deleted beside the mount", "F28", "s/a", Note, |r| {
            fs::remove_file(r.join("s/a")).unwrap();
            fs::remove_file(r.join("s/.agent_state_meta/a.json")).unwrap();
        }),
        case("a session removed beside the mount", "F28", "s", Note, |r| fs::remove_dir_all(r.join("s")).unwrap()),
        case("no sidecar", "F2", "s/.agent_state_meta/a.json", Damage, |r| {
            fs::remove_file(r.join("s/.agent_state_meta/a.json")).unwrap();
        })
        .repairable(),
        case("a torn sidecar", "F2", "s/.agent_state_meta/d/e/b.json", Damage, |r| {
            fs::write(r.join("s/.agent_state_meta/d/e/b.json"), "").unwrap();
        })
        .repairable(),
        case("a sidecar of nobody", "F3", "s/.agent_state_meta/nobody.json", Damage, |r| {
            let place = r.join("s/.agent_state_meta/nobody.json");
            fs::write(&place, "{}").unwrap();
            set_mark(&place, b" ");
        })
        .repairable(),
        case("a neighbour's sidecar of our value", "F12", "s/.agent_state_meta/a.json", Note, |r| {
            by_rename(r, "s/.agent_state_meta/a.json", b"{}");
        }),
        case("a sidecar without its value", "sidecar", "s/.agent_state_meta/x/y.json", Leftover, |r| {
            fs::create_dir(r.join("s/.agent_state_meta/x")).unwrap();
            fs::write(r.join("s/.agent_state_meta/x/y.json"), "{}").unwrap();
        })
        .repairable(),
        case("a sidecar that is none", "unknown", "s/.agent_state_meta/y", Note, |r| {
            fs::write(r.join("s/.agent_state_meta/y"), "{}").unwrap();
        }),
        case("an old temporary file", "temporary", "s/.a..agent_state_tmp.1", Leftover, |r| {
            fs::write(r.join("s/.a..agent_state_tmp.1"), "").unwrap();
            fs::write(r.join("s/.a..agent_state_tmp.2"), "of a program at work").unwrap();
            old(&r.join("s/.a..agent_state_tmp.1"));
        })
        .repairable(),
        case("an old temporary sidecar", "temporary", "s/.agent_state_meta/.a..agent_state_tmp.1", Leftover, |r| {
            fs::write(r.join("s/.agent_state_meta/.a..agent_state_tmp.1"), "").unwrap();
            old(&r.join("s/.agent_state_meta/.a..agent_state_tmp.1"));
        })
        .repairable(),
        case("other bytes in history", "F6", ".baton/history/s/ka/1", Damage, |r| {
            quietly(&r.join(".baton/history/s/ka/1"), |b| b[0] ^= 1);
        }),
        case("bytes in history that the journal has", "F6", ".baton/history/s/ka/1", Damage, |r| {
            quietly(&r.join(".baton/history/s/ka/1"), |b| b.truncate(1));
        })
        .journaled()
        .repairable(),
        case("a version without its mark", "F6", ".baton/history/s/ka/1", Damage, |r| {
            rustix::fs::removexattr(r.join(".baton/history/s/ka/1"), MARK).unwrap();
        }),
        case("a version under another number", "F6", ".baton/history/s/ka/2", Damage, |r| {
            fs::rename(r.join(".baton/history/s/ka/1"), r.join(".baton/history/s/ka/2")).unwrap();
        }),
        case("a later version than any", "F7", ".baton/history/s/kgone/5", Damage, |r| {
            remark(&r.join(".baton/history/s/kgone/1"), "version", 5.into());
            fs::rename(r.join(".baton/history/s/kgone/1"), r.join(".baton/history/s/kgone/5")).unwrap();
        }),
        case("a name of nobody's in history", "unknown", ".baton/history/s/ka/x", Note, |r| {
            fs::write(r.join(".baton/history/s/ka/x"), "").unwrap();
        }),
        case("a symlink", "F8", "s/link", Note, |r| std::os::unix::fs::symlink("a", r.join("s/link")).unwrap()),
        case("a pipe", "F8", "s/pipe", Note, |r| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, r.join("s/pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }),
        case("a name that is not UTF-8", "F8", "s/\u{fffd}", Note, |r| {
            fs::write(r.join("s").join(OsStr::from_bytes(b"\xff")), "").unwrap();
        }),
        case("a file that is no session", "F8", "file", Note, |r| fs::write(r.join("file"), "").unwrap()),
        case("a file named as the mount's own directory", "F8", "s/.baton", Note, |r| {
            fs::create_dir(r.join("s/.baton")).unwrap();
        }),
    ]
}

fn findings(report: &Report) -> Vec<&Finding> {
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
    let (mut wrong, closed, journaled) = (Vec::new(), store(true), store(false));
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

// F10
#[test]
fn a_number_that_a_copy_brought_back_is_noted() {
    let dir = fresh();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    commit(&engine, put("k", b"one", None));
    let (place, copy) = (dir.path().join("s/k"), dir.path().join("s/copy"));
    assert!(std::process::Command::new("cp").arg("-a").args([&place, &copy]).status().unwrap().success());
    commit(&engine, append("k", b"two", 1));
    fs::rename(&copy, &place).unwrap();
    // Its version has no file in history: appends left none.
    assert_eq!(commit(&engine, put("k", b"three", Some(1))).version, Some(2));
    engine.close().unwrap();
    let report = checked(dir.path(), false);
    let found = findings(&report);
    assert_eq!(found.iter().map(|it| (it.rule.as_str(), it.place.as_str())).collect::<Vec<_>>(), [("F10", LOG)]);
    assert!(!report.damaged && found[0].what.contains("version 2 of 'k', which had 2"), "{found:?}");
}

// F15
#[test]
fn a_staged_value_that_is_gone_before_it_was_in_its_place_is_found() {
    for (bytes, words) in [(None, "is not there"), (Some(&b"short"[..]), "has other bytes")] {
        let dir = store(false);
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
    let dir = store(false);
    quietly(&dir.path().join("s/a"), |bytes| bytes.truncate(2));
    let watch = Watch::default();
    watch.reboot("another boot");
    let disk: Arc<dyn Disk> = RecordingDisk::open(dir.path(), &watch);
    let check = |repair| verify_on(&disk, repair, &mut |_| ControlFlow::Continue(())).unwrap();
    let report = check(false);
    let found = findings(&report);
    assert!(!report.damaged && found.len() == 1 && found[0].rule == "journal", "{found:?}");
    assert!(found[0].what.contains("10 changes were made before the machine started"), "{found:?}");
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

#[test]
fn a_newer_versions_store_is_said_to_be_that_and_is_not_judged() {
    let dir = store(true);
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
    let dir = store(true);
    let checked = checked(dir.path(), false).checked;
    assert_eq!((checked.sessions, checked.keys, checked.versions), (1, 4, 6));
    assert_eq!(checked.bytes, (1 + 12 + 2 + 70_000) + (3 + 1));
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
    let dir = store(true);
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
    let report = checked(dir.path(), false);
    assert_eq!(told(&report.findings), ["leftover F6 .baton/history/s/kk: it has 69 versions"]);
    assert_eq!(told(&checked(dir.path(), true).findings), Vec::<String>::new());
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
