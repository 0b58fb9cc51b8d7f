//! Control files that are lines: they grow while they are open, and have their true size at every moment.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use batonfs::control::{ErrorLine, Errors};
use batonfs::words::{SessionId, Writer};
use serde_json::Value;

use crate::harness::{self, Mount, eventually};

fn keys(text: &str) -> Vec<String> {
    let line = |line| serde_json::from_str::<Value>(line).expect("a line of JSON");
    text.lines().map(|text| line(text)["key"].as_str().expect("a key").to_owned()).collect()
}

// E6
#[test]
fn who_follows_the_log_sees_each_change_once_and_whole() {
    let Some(mount) = Mount::new() else { return };
    let mut log = File::open(mount.path(".baton/log")).expect("the log");
    let mut tail = mount.command(&["tail", "-n", "+1", "-s", "0.05", "-f", ".baton/log"]);
    let out = mount.scratch().join("followed");
    tail.stdout(File::create(&out).expect("a file"));
    let mut tail = tail.spawn().expect("tail");
    let (mut expected, mut read) = (vec![String::new()], String::new());
    // More than one page, and more than one read.
    for round in 0..3 {
        for n in 0..if harness::long() { 1_000 } else { 250 } {
            let key = format!("k{round}-{n}");
            mount.write(&key, "x");
            expected.push(key);
        }
        log.read_to_string(&mut read).expect("reading");
        assert_eq!(keys(&read), expected);
        assert_eq!(log.metadata().expect("stat").len(), read.len() as u64);
    }
    let followed = || fs::read_to_string(&out).expect("what tail wrote");
    eventually("tail has seen all", || followed().len() >= read.len());
    tail.kill().and_then(|()| tail.wait()).expect("the end of tail");
    assert_eq!(followed(), read);
    assert_eq!(fs::read_to_string(mount.path(".baton/log")).expect("the log"), read);
    log.seek(SeekFrom::Start(0)).expect("seek");
    let mut again = String::new();
    log.read_to_string(&mut again).expect("reading");
    assert_eq!(again, read, "read once more from its start");
    let mut back = vec![0; read.len()];
    for (n, block) in back.chunks_mut(4096).enumerate().rev() {
        log.read_exact_at(block, n as u64 * 4096).expect("reading backwards");
    }
    assert!(back == read.as_bytes(), "read backwards");
    let (mut end, at) = ([0; 100], read.len() - 100);
    log.read_exact_at(&mut end, at as u64).expect("reading its end");
    assert!(end == read.as_bytes()[at..], "and forwards again");
    let tail = mount.bash("tail -n 2 .baton/log; wc -c < .baton/log; cp .baton/log \"$TMP/copy\"").ok();
    let lines: Vec<_> = read.lines().collect();
    assert_eq!(tail, format!("{}\n{}\n{}\n", lines[lines.len() - 2], lines[lines.len() - 1], read.len()));
    assert_eq!(fs::read_to_string(mount.scratch().join("copy")).expect("a copy"), read);
}

// E6
#[test]
fn who_follows_the_refusals_sees_those_to_come() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    mount.by("a", "/bin/echo x > k").ok();
    let mut errors = File::open(mount.path(".baton/errors")).expect("the refusals");
    let mut read = String::new();
    for n in 1..4 {
        mount.by("b", "/bin/echo y > k").refused("resource busy");
        errors.read_to_string(&mut read).expect("reading");
        assert_eq!(keys(&read), vec!["k"; n]);
        assert_eq!(errors.metadata().expect("stat").len(), read.len() as u64);
    }
}

// E6
#[test]
fn of_the_refusals_the_last_are_kept_and_who_reads_on_has_had_them_all() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    // Lines of several lengths: what comes is shorter or longer than what goes.
    let keys_of_a = ["k", "longer", "the-longest-of-all"];
    mount.by("a", "/bin/echo x | tee k longer the-longest-of-all").ok();
    let theirs = mount.point().join(".baton/as/b").join(harness::SESSION);
    let mut errors = File::open(mount.path(".baton/errors")).expect("the refusals");
    let mut read = String::new();
    let (mut before, mut shorter) = (0, 0);
    for n in 1..=1100 {
        harness::fails(fs::write(theirs.join(keys_of_a[n % 3]), "y"), libc::EBUSY);
        if n % 50 == 0 {
            errors.read_to_string(&mut read).expect("reading");
        }
        let size = errors.metadata().expect("stat").len();
        shorter += usize::from(size < before);
        before = size;
    }
    assert_eq!(keys(&read).len(), 1100, "each once");
    let kept = fs::read_to_string(mount.path(".baton/errors")).expect("the refusals");
    let lines = kept.lines().count();
    assert!((256..=512).contains(&lines) && read.ends_with(&kept), "{lines}");
    assert_eq!(before, kept.len() as u64);
    // Whoever follows it by its size begins anew each time.
    assert!(shorter <= 1100 / 256, "{shorter}");
}

// E6, V4
#[test]
fn in_a_view_the_log_that_is_followed_has_the_writers_own_lines() {
    let Some(mount) = Mount::new() else { return };
    let view = mount.point().join(".baton/as/a").join(harness::SESSION);
    let mut log = File::open(view.join(".baton/log")).expect("the log");
    let mut read = String::new();
    for n in 0..3 {
        fs::write(view.join(format!("own-{n}")), "x").expect("write");
        mount.write("other", "x");
        log.read_to_string(&mut read).expect("reading");
        assert_eq!(keys(&read).len(), n + 1, "{read}");
        assert_eq!(log.metadata().expect("stat").len(), read.len() as u64);
    }
}

// E9
#[test]
fn of_the_refusals_of_any_number_of_sessions_the_last_are_kept() {
    let session = |n: usize| SessionId::parse(&format!("s{n}")).expect("a session");
    let refusal = |key: String| ErrorLine {
        time_ms: 0,
        op: "open",
        key,
        errno: libc::EBUSY,
        words: String::new(),
        writer: Writer::default(),
        uid: None,
    };
    let errors = Errors::default();
    // Each session has one refusal at a time, so that none of them has too many of its own.
    let add = |from: usize, to: usize| (from..to).for_each(|n| errors.add(&session(n % 100), refusal(n.to_string())));
    let kept = || {
        let mut kept: Vec<usize> = errors.all().iter().map(|(_, line)| line.key.parse().expect("a number")).collect();
        kept.sort_unstable();
        kept
    };
    add(0, 8192);
    assert!(kept() == (0..8192).collect::<Vec<_>>());
    let (followed, _) = errors.after(&session(50), 0).pop().expect("a refusal");
    add(8192, 8193);
    assert!(kept() == (4096..8193).collect::<Vec<_>>(), "the older half is gone");
    add(8193, 12_000);
    let since = errors.after(&session(50), followed);
    assert_eq!(since.iter().map(|(_, line)| line.key.as_str()).next(), Some("8250"), "who follows misses none");
    (0..100).for_each(|n| errors.forget(&session(n)));
    assert_eq!(kept(), [0; 0]);
    add(0, 8192);
    assert_eq!(kept().len(), 8192, "what was forgotten takes no room");
    // A session for each: what is kept is bounded however many there are.
    (0..30_000).for_each(|n| errors.add(&session(n), refusal(n.to_string())));
    let kept = kept();
    assert!((4096..=8192).contains(&kept.len()), "{}", kept.len());
    assert!(kept == (30_000 - kept.len()..30_000).collect::<Vec<_>>(), "the last of all");
}
