//! A store that has to be recovered first: who waits for it is told.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use batonfs::engine::local::LocalEngine;
use batonfs::engine::{Attributes, Change, Context, Engine, Staged};
use batonfs::words::{Author, Key, SessionId};

use crate::command::{Bench, batonfs};

/// Changes that the journal has, and that are not in the log, as after a crash.
const LOST: usize = 3;

/// A store of which a process that was killed has left changes under way, and a draft.
fn left() -> Bench {
    let bench = Bench::with_session();
    let engine = LocalEngine::open(&bench.store()).unwrap();
    for n in 0..5 {
        let attributes =
            Attributes { mode: 0o600, uid: 0, gid: 0, mtime: SystemTime::now(), xattrs: Default::default() };
        let key = Key::literal(&format!("k{n}")).unwrap();
        let change = Change::Put { key, content: Staged::from(b"v".to_vec()), expected: None, attributes };
        let context = Context { author: Author::default(), operation: uuid::Uuid::now_v7(), conflict: None };
        engine.commit(&SessionId::parse("s").unwrap(), change, &context).unwrap();
    }
    drop(engine);
    let log = bench.store().join(".baton/sessions/s/log");
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    fs::write(&log, lines[..lines.len() - LOST].concat()).unwrap();
    fs::write(bench.store().join(".baton/drafts/left"), "").unwrap();
    bench
}

#[track_caller]
fn is_told(err: &str) {
    let lines: Vec<_> = err.lines().collect();
    assert!(lines.contains(&"batonfs: recovering the store: 0 of 5 changes looked at"), "{err}");
    assert!(lines.contains(&"batonfs: recovering the store: 4 of 5 changes in place"), "{err}");
    let last = lines.last().copied().unwrap_or_default();
    assert!(
        last.starts_with(&format!("batonfs: the store is recovered: {LOST} changes put in place, 1 leftover file")),
        "{err}"
    );
}

/// The command in its store, with this patience.
fn run(bench: &Bench, arguments: &[&str], patience: &str) -> std::process::Output {
    let store = bench.store();
    let arguments =
        arguments.iter().map(|argument| if *argument == "@" { store.as_os_str() } else { argument.as_ref() });
    batonfs().env("BATONFS_PATIENCE", patience).args(arguments).output().unwrap()
}

// K45
#[test]
fn a_command_says_how_far_a_store_is_recovered_to_who_has_no_patience() {
    for arguments in [&["read", "@", "s", "k4"][..], &["init", "@", "t"], &["list", "@", "s"], &["status", "@"]] {
        let bench = left();
        let ran = run(&bench, arguments, "0");
        assert_eq!(ran.status.code(), Some(0));
        is_told(&String::from_utf8_lossy(&ran.stderr));
        let again = run(&bench, arguments, "0");
        assert_eq!(
            (again.status.code(), String::from_utf8_lossy(&again.stderr).as_ref()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
    let bench = left();
    let ran = run(&bench, &["read", "@", "s", "k4"], "1000");
    assert_eq!((ran.stdout.as_slice(), ran.stderr.as_slice()), (&b"v"[..], &b""[..]));
    let refused = run(&bench, &["read", "@", "s", "k4"], "long");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).starts_with("batonfs: BATONFS_PATIENCE: "));
}

/// A store that a crash has left, and where to mount it; `None` where nothing can be.
fn to_be_mounted() -> Option<(Bench, PathBuf)> {
    if !Path::new("/dev/fuse").exists() {
        eprintln!("SKIPPED: no /dev/fuse here");
        return None;
    }
    let bench = left();
    let at = bench.beside("at");
    fs::create_dir(&at).unwrap();
    Some((bench, at))
}

// K45
#[test]
fn a_mount_says_how_far_its_store_is_recovered_to_who_started_it() {
    let Some((bench, at)) = to_be_mounted() else { return };
    let place = at.to_str().unwrap();
    let ran = run(&bench, &["mount", "@", place], "0");
    let ended = run(&bench, &["umount", place], "0");
    assert_eq!((ran.status.code(), ended.status.code()), (Some(0), Some(0)));
    is_told(&String::from_utf8_lossy(&ran.stderr));
    let log = fs::read_to_string(bench.store().join(".baton/daemon.log")).unwrap();
    assert!(
        log.contains("recovering the store: 4 of 5 changes in place") && log.contains("3 changes put in place"),
        "{log}"
    );
}

// K45
#[test]
fn a_mount_in_the_foreground_says_it_too() {
    let Some((bench, at)) = to_be_mounted() else { return };
    let mut command = batonfs();
    command.env("BATONFS_PATIENCE", "0").env("BATONFS_LOG", "off");
    let mut child = command.arg("mount").arg(bench.store()).arg(&at).arg("--foreground").spawn().unwrap();
    let until = SystemTime::now() + Duration::from_secs(60);
    while !at.join("s").is_dir() && SystemTime::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = run(&bench, &["umount", at.to_str().unwrap()], "0");
    assert_eq!((ended.status.code(), child.wait().unwrap().code()), (Some(0), Some(0)));
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    is_told(&err);
}
