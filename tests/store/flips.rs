//! A disk that fails in silence: each byte of each file of ours is flipped, each file cut at each length, in turn.
//! Opening and reading afterwards show everything as it was, or refuse in words; what they cannot know is told here.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use batonfs::engine::local::LocalEngine;
use batonfs::engine::{Change, Engine, EngineError, Staged};
use batonfs::words::{Lost, Past, Policy, Writer};

use crate::engines::*;
use crate::power_disk::PowerDisk;
use crate::table::ALWAYS;

const MARK: &str = "user.batonfs";
const KEYS: &[&str] = &["a", "d/b", "big", "gone", "to", "from"];
/// Where records begin in the journal.
const FIRST: usize = 8192;

/// The change that lost a draft.
const LOST: u64 = 15;

/// A small store with something of everything.
fn fill(disk: &PowerDisk) -> LocalEngine {
    let engine = LocalEngine::open_with(Arc::new(disk.clone()), ALWAYS).unwrap();
    make_session(&engine);
    commit(&engine, put("a", b"a's first", None));
    commit(&engine, put("a", b"a's second", Some(1)));
    commit(&engine, append("a", b" and more", 2));
    commit(&engine, put("d/b", b"b's first", None));
    commit(&engine, Change::SetPolicy(Policy::Warn));
    let engine = {
        engine.close().unwrap();
        LocalEngine::open_with(Arc::new(disk.clone()), ALWAYS).unwrap()
    };
    commit(&engine, put("a", b"a's third", Some(3)));
    let large = Staged::from(vec![7; 66_000]);
    commit(&engine, Change::Put { key: key("big"), content: large, expected: None, attributes: attributes() });
    commit(&engine, put("gone", b"deleted", None));
    commit(&engine, delete("gone", 1));
    commit(&engine, put("from", b"moved", None));
    commit(&engine, rename("from", "to", 1, None));
    commit(&engine, put("d/b", b"b's second", Some(1)));
    commit(&engine, append("d/b", b" and more", 2));
    commit(&engine, lost("a", Lost::Dropped, b"half a value"));
    engine
}

/// Makes one more change, and gives the disk as it is right after the commit point, before anything is published.
fn killed_in_a_commit(disk: &PowerDisk, engine: &LocalEngine) -> PowerDisk {
    let (died, synced) = (Arc::<Mutex<Option<PowerDisk>>>::default(), AtomicBool::new(false));
    let dying = Arc::clone(&died);
    disk.before(move |disk, what| {
        if synced.load(Ordering::SeqCst) {
            dying.lock().unwrap().get_or_insert_with(|| disk.after_death());
        }
        synced.fetch_or(what == "sync_data .baton/journal", Ordering::SeqCst);
    });
    commit(engine, put("a", b"a's fourth", Some(4)));
    disk.before(|_, _| {});
    died.lock().unwrap().take().unwrap()
}

/// What a store shows, by what is asked; errors as their words.
type Shown = BTreeMap<String, Result<String, String>>;

fn text<T: std::fmt::Debug>(result: Result<T, EngineError>) -> Result<String, String> {
    result.map(|shown| format!("{shown:?}")).map_err(|e| e.to_string())
}

fn shown(engine: &dyn Engine) -> Shown {
    let mut shown = Shown::new();
    let mut show = |what: String, is: Result<String, String>| drop(shown.insert(what, is));
    show("sessions".to_owned(), text(engine.sessions()));
    show("keys".to_owned(), text(engine.list(&session())));
    show("policy".to_owned(), text(engine.policy(&session())));
    for path in KEYS {
        let path = key(path);
        let head = engine.head(&session(), &path).map(|head| head.map(|h| (h.version, h.writer, h.size_bytes, h.seq)));
        show(format!("{path}"), text(head));
        let value = engine.open(&session(), &path).and_then(|value| value.map(|value| value.read_all()).transpose());
        show(format!("{path}'s bytes"), text(value.map(|bytes| bytes.map(|bytes| crc32c::crc32c(&bytes)))));
        let versions = engine.versions(&session(), &path);
        for version in 1..=5 {
            let kept = engine
                .open_version(&session(), &path, version)
                .and_then(|kept| kept.map(|kept| Ok((kept.read_all()?, kept.head.writer))).transpose());
            let kept = kept.map_err(|e| e.to_string());
            let part = |of: fn(&(Vec<u8>, Writer)) -> String| {
                kept.clone().map(|kept| kept.as_ref().map_or("none".to_owned(), of))
            };
            show(
                format!("{path}:{version}'s bytes"),
                part(|(bytes, _)| format!("{} {}", bytes.len(), crc32c::crc32c(bytes))),
            );
            show(format!("{path}:{version}'s writer"), part(|(_, writer)| format!("{writer:?}")));
        }
        show(format!("{path}'s versions"), text(versions));
        let lost = engine.open_past(&session(), &path, Past::Draft(LOST, Lost::Dropped));
        let lost = lost.and_then(|kept| kept.map(|kept| kept.read_all()).transpose());
        show(format!("{path}'s lost draft"), text(lost));
        show(format!("{path}'s last version"), text(engine.last_version(&session(), &path)));
    }
    let lines = engine.changes(&session(), 0);
    let words = lines.as_ref().err().map(ToString::to_string);
    for seq in 1..=20_usize {
        let line = lines.as_ref().ok().and_then(|lines| lines.get(seq - 1));
        show(format!("line {seq}"), words.clone().map_or_else(|| Ok(format!("{line:?}")), Err));
    }
    shown
}

/// What a file of the store is.
fn kind(path: &str, at: usize, mark: bool) -> &'static str {
    match path {
        _ if mark && path.contains("/.agent_state_meta/") => "a sidecar's mark",
        _ if mark && path.starts_with(".baton/history/") => "a mark in history",
        _ if mark && path.starts_with(".baton/") => "a draft's mark",
        _ if mark => "a value's mark",
        ".baton/format" => "the marker",
        ".baton/journal" if at < 80 || (4096..4176).contains(&at) => "a header of the journal",
        ".baton/journal" if at < FIRST => "nothing of the journal",
        ".baton/journal" => "a record",
        _ if path.starts_with(".baton/history/") => "a version in history",
        _ if path.ends_with("/log") => "a log",
        _ if path.ends_with("/versions") => "a table",
        _ if path.ends_with("/policy") => "a policy",
        _ if path.starts_with(".baton/drafts/") => "a draft",
        _ => "a sidecar",
    }
}

/// What can be seen of a damage.
#[derive(Debug)]
enum Seen {
    /// The store is not opened.
    Refused,
    /// What is other than it was, of what is not refused in words.
    Other(Vec<String>),
}

fn see(disk: &PowerDisk, truth: &Shown, at: &str) -> Seen {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        LocalEngine::open_with(Arc::new(disk.clone()), ALWAYS).map(|engine| shown(&engine))
    }));
    match outcome.unwrap_or_else(|_| panic!("{at}: it panics")) {
        Err(e) => {
            let place = matches!(&e, EngineError::Damaged { place, .. } if !place.is_empty());
            assert!(place || matches!(e, EngineError::Io { .. }), "{at}: it is refused with: {e}");
            Seen::Refused
        }
        Ok(now) => {
            let other = truth.iter().filter(|(what, was)| now[*what].is_ok() && now[*what] != **was);
            let told = other.map(|(what, was)| {
                let short =
                    |is: &Result<String, String>| is.clone().unwrap_or_default().chars().take(200).collect::<String>();
                format!("{what} was {} and is {}", short(was), short(&now[what]))
            });
            Seen::Other(told.collect())
        }
    }
}

/// May a damage change this, unseen? Everything else it may not.
fn is_unknowable(damaged: &str, action: &str, at: usize, last: usize, other: &str) -> bool {
    let what = other.split(" was ").next().unwrap_or_default();
    match damaged {
        // A file whose mark is none is a stranger's (F10): it gets a version and a line, with the bytes that it has. The
        // mark has no checksum either.
        "a value's mark" => !what.starts_with("keys") && (!what.ends_with("'s bytes") || what.contains(':')),
        "a mark in history" => what.ends_with("'s writer"),
        // The end of the journal may have been torn by a crash: a journal that is shorter, and a last record that is
        // none, are no damage. The others are.
        "a record" => action == "cut" || at >= last,
        _ => false,
    }
}

/// Where the last record of the journal begins.
fn last_record(disk: &PowerDisk) -> usize {
    let (_, journal, _) = disk.files(MARK).into_iter().find(|(path, _, _)| path == ".baton/journal").unwrap();
    (FIRST..journal.len() - 8).rev().find(|at| journal[*at..].starts_with(b"bRec")).unwrap()
}

fn long() -> bool {
    std::env::var_os("BATONFS_LONG").is_some()
}

/// What came of each damage, by what was damaged: how often it was refused, seen to be as it was, other; and the first
/// that was other.
type Outcomes = BTreeMap<(&'static str, &'static str), ([usize; 3], String)>;

fn damage_each(disk: &PowerDisk, truth: &Shown, wrong: &mut Vec<String>) -> Outcomes {
    let (stride, mut turn, mut outcomes) = (if long() { 1 } else { 47 }, 0_usize, Outcomes::new());
    let last = last_record(disk);
    for (path, bytes, mark) in disk.files(MARK) {
        let is_ours = path.starts_with(".baton/") || path.contains("/.agent_state_meta/");
        let bytes = is_ours.then_some(bytes);
        for (xattr, bytes) in [(None, bytes), (Some(MARK), mark)] {
            for (at, (action, flips)) in
                (0..bytes.as_ref().map_or(0, Vec::len)).flat_map(|at| [(at, ("flipped", true)), (at, ("cut", false))])
            {
                let kind = kind(&path, at, xattr.is_some());
                turn += 1;
                // Zeros, and the 66,000 equal bytes of a large value.
                let zeros = kind == "nothing of the journal" || kind == "a table" && at % 4096 > 128;
                let rare = zeros || at > 20_000;
                if !turn.is_multiple_of(if rare { stride * 127 } else { stride }) {
                    continue;
                }
                let mut damaged = bytes.clone().unwrap_or_default();
                if flips {
                    damaged[at] ^= 1 << (at % 8)
                } else {
                    damaged.truncate(at)
                }
                let world = disk.after_death();
                world.damage(&path, xattr, damaged);
                let entry = outcomes.entry((kind, action)).or_default();
                match see(&world, truth, &format!("{path} {action} at {at}")) {
                    Seen::Refused => entry.0[0] += 1,
                    Seen::Other(other) if other.is_empty() => entry.0[1] += 1,
                    Seen::Other(other) => {
                        entry.0[2] += 1;
                        let bad = other.iter().find(|other| !is_unknowable(kind, action, at, last, other));
                        wrong.extend(bad.map(|bad| format!("{path} {action} at {at}: {bad}")));
                        if entry.1.is_empty() {
                            entry.1 = format!("{path} at {at}: {}", other[0]);
                        }
                    }
                }
            }
        }
    }
    outcomes
}

// F4 F5 F10 F11 F20 F21 F31
#[test]
fn what_a_disk_changes_in_silence_is_seen_or_changes_nothing_that_is_shown() {
    let disk = PowerDisk::new();
    let engine = fill(&disk);
    let killed = killed_in_a_commit(&disk, &engine);
    let truth = shown(&engine);
    engine.close().unwrap();
    let stores =
        [("closed", disk.settled(false)), ("killed", killed.settled(false)), ("rebooted", killed.settled(true))];
    let (mut wrong, mut all) = (Vec::new(), 0);
    for (name, store) in stores {
        // Zeros that no record is in only take time.
        let (_, journal, _) = store.files(MARK).into_iter().find(|(path, _, _)| path == ".baton/journal").unwrap();
        let end = journal.iter().rposition(|b| *b != 0).unwrap() + 1;
        store.damage(".baton/journal", None, journal[..end.max(FIRST).next_multiple_of(8) + 64].to_vec());
        assert!(matches!(see(&store.after_death(), &truth, name), Seen::Other(other) if other.is_empty()), "{name}");
        let outcomes = damage_each(&store, &truth, &mut wrong);
        for ((what, action), ([refused, same, other], first)) in outcomes {
            println!("{name}: {what} {action}: {refused} refused, {same} as it was, {other} other  {first}");
            all += refused + same + other;
        }
    }
    assert!(wrong.is_empty(), "{} of {all} were shown wrong without a word:\n{}", wrong.len(), wrong.join("\n"));
    assert!(all > 400, "only {all} damages");
}
