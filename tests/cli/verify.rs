//! `batonfs verify`: what it prints, how it ends, what it mends; free, held by a daemon, and damaged.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use batonfs::committer::{Call, Peer, Reply, Request};

use crate::command::{Bench, Ran};
use crate::committer::Daemon;

const SIDECAR: &str = "s/.agent_state_meta/k.json";

fn with_values() -> Bench {
    let bench = Bench::with_session();
    bench.write("k", "one", "w").done();
    bench.write("k", "two", "w").done();
    bench.write("d/other", "three", "w").done();
    bench
}

/// Changes a value's bytes and leaves its time.
fn rot(path: &Path) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, "2wo").unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// The command ended with this code and had nothing to say on stderr.
#[track_caller]
fn ended(ran: Ran, code: i32) -> Ran {
    assert_eq!((ran.code, ran.err.as_str()), (code, ""), "{}", ran.text());
    ran
}

/// K40 K41
#[test]
fn a_line_for_each_finding_and_one_that_counts() {
    for served in [false, true] {
        let bench = with_values();
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        if served {
            let text = "nothing found: checked 1 session, 2 keys, 3 versions, 11 bytes\n";
            assert_eq!(bench.run(&["verify", "@"]).done().text(), text);
        }
        fs::remove_file(bench.store().join(SIDECAR)).unwrap();
        fs::write(bench.store().join("s/new\nline"), "theirs").unwrap();
        let ran = ended(bench.run(&["verify", "@"]), 6);
        let lines: Vec<_> = ran.text().lines().filter(|line| !line.contains("(spare)")).collect();
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert!(lines[0].starts_with(&format!("damage: {SIDECAR}: it is not there")), "{lines:#?}");
        assert!(lines[0].contains("'w' wrote the value (F2); ") && lines[0].ends_with("--repair does"), "{lines:#?}");
        assert!(
            lines[1].starts_with(r"note: s/new\nline: a program beside the mount put it there (F11); "),
            "{lines:#?}"
        );
        assert!(lines[2].contains("findings: checked 1 session, 3 keys, 4 versions, "), "{lines:#?}");
        assert!(!bench.store().join(SIDECAR).exists(), "it changed something");
    }
}

/// K41
#[test]
fn what_is_no_damage_ends_with_0() {
    for served in [false, true] {
        let bench = with_values();
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        fs::write(bench.store().join("s/theirs"), "theirs").unwrap();
        fs::write(bench.store().join("s/.agent_state_meta/gone.json"), "{}").unwrap();
        let ran = bench.run(&["verify", "@"]).done();
        assert!(ran.text().contains("note: s/theirs") && ran.text().contains("leftover: "), "{}", ran.text());
    }
}

/// K41 K10
#[test]
fn a_store_that_cannot_be_opened_is_checked() {
    let bench = with_values();
    fs::write(bench.store().join(".baton/format"), "batonfs store format 7\n").unwrap();
    bench.run(&["list", "@", "s"]).refused(6, &["format 7"]);
    assert!(ended(bench.run(&["verify", "@"]), 6).text().contains("the store has format 7"));
    fs::write(bench.store().join(".baton/format"), "garbage\n").unwrap();
    bench.run(&["list", "@", "s"]).refused(6, &["not the marker"]);
    assert!(
        ended(bench.run(&["verify", "@"]), 6).text().contains("damage: .baton/format: 'garbage' is not the marker")
    );
    ended(bench.run(&["verify", "@", "--repair"]), 0);
    assert_eq!(bench.run(&["list", "@", "s"]).done().text(), "d/other\nk\n");
    let mut journal = fs::read(bench.store().join(".baton/journal")).unwrap();
    journal[..8192].fill(1);
    fs::write(bench.store().join(".baton/journal"), journal).unwrap();
    bench.run(&["list", "@", "s"]).refused(6, &["neither header is whole"]);
    assert!(ended(bench.run(&["verify", "@"]), 6).text().contains("neither header is whole (F19)"));
    assert!(ended(bench.run(&["verify", "@", "--repair"]), 6).text().contains("neither header is whole (F19)"));
}

/// K42 K38
#[test]
fn findings_are_data() {
    for served in [false, true] {
        let bench = with_values();
        bench.run(&["verify", "@", "--repair"]).done();
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        let clean = json!({
            "findings": [], "repaired": [], "left_off": 0, "damaged": false,
            "checked": {"sessions": 1, "keys": 2, "versions": 3, "bytes": 11},
        });
        assert_eq!(bench.run(&["verify", "@", "--json"]).done().json(), clean);
        rot(&bench.store().join("s/k"));
        let report = ended(bench.run(&["verify", "--json", "@"]), 6).json();
        assert_eq!((&report["damaged"], report["findings"].as_array().unwrap().len()), (&json!(true), 1));
        let finding = &report["findings"][0];
        assert_eq!((&finding["rule"], &finding["place"]), (&json!("F1"), &json!("s/k")));
        assert_eq!((&finding["harm"], &finding["repairable"]), (&json!("damage"), &json!(false)));
        assert!(finding["what"].is_string() && finding["remedy"].is_string(), "{finding}");
    }
}

/// K43
#[test]
fn a_repair_mends_what_loses_nothing_and_says_what_is_left() {
    for served in [false, true] {
        let bench = with_values();
        bench.run(&["verify", "@", "--repair"]).done();
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        let sidecar = fs::read(bench.store().join(SIDECAR)).unwrap();
        fs::write(bench.store().join(SIDECAR), "").unwrap();
        let ran = ended(bench.run(&["verify", "@", "--repair"]), 0);
        let (first, rest) = ran.text().split_once('\n').unwrap();
        assert!(
            first.starts_with(&format!("mended: {SIDECAR}: ")) && rest.starts_with("nothing found: "),
            "{}",
            ran.text()
        );
        assert_eq!(fs::read(bench.store().join(SIDECAR)).unwrap(), sidecar);
        rot(&bench.store().join("s/k"));
        fs::write(bench.store().join("s/.agent_state_meta/d/other.json"), "").unwrap();
        let report = ended(bench.run(&["verify", "@", "--repair", "--json"]), 6).json();
        let rules = |list: &str| {
            report[list]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["rule"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!((rules("repaired"), rules("findings")), (vec!["F2".to_owned()], vec!["F1".to_owned()]));
        assert_eq!(fs::read(bench.store().join("s/k")).unwrap(), b"2wo", "what cannot be proven is not overwritten");
    }
}

/// K43
#[test]
fn a_repair_finishes_what_a_crash_interrupted() {
    let bench = with_values();
    let daemon = Daemon::serve(&bench.store());
    bench.write("late", "in the journal", "w").done();
    // As a kill leaves it: the last line did not reach the log, and the store was not closed.
    let (log, copy) = (bench.store().join(".baton/sessions/s/log"), bench.beside("copy"));
    assert!(std::process::Command::new("cp").arg("-a").args([&bench.store(), &copy]).status().unwrap().success());
    drop(daemon);
    let text = fs::read_to_string(log).unwrap();
    let cut = text.trim_end().rfind('\n').unwrap() + 1;
    fs::write(copy.join(".baton/sessions/s/log"), &text[..cut]).unwrap();
    let copy = copy.to_str().unwrap();
    let ran = bench.run(&["verify", copy]).done();
    assert!(ran.text().contains("1 committed changes are not in their places yet"), "{}", ran.text());
    assert!(bench.run(&["verify", copy, "--repair"]).done().text().ends_with(" 4 versions, 25 bytes\n"));
    assert_eq!(bench.run(&["read", copy, "s", "late"]).done().text(), "in the journal");
}

/// K39 K43
#[test]
fn a_store_that_is_mounted_read_only_is_checked_and_not_mended() {
    let bench = with_values();
    let daemon = Daemon::serve(&bench.store());
    for (repair, refused) in [(false, false), (true, true)] {
        let answer = daemon.execute_read_only(Peer::this(), &Call::new(Request::Verify { repair }));
        match answer {
            Ok(Reply::Verified(report)) => assert!(!refused && !report.damaged),
            Err(refusal) => assert!(refused && refusal.words.contains("read-only"), "{refusal}"),
            other => panic!("{other:?}"),
        }
    }
}

/// K40
#[test]
fn a_place_that_is_no_store_is_not_made_one() {
    let bench = Bench::new();
    fs::create_dir(bench.store().join("s")).unwrap();
    fs::write(bench.store().join("s/k"), "theirs").unwrap();
    for args in [&["verify", "@"][..], &["verify", "@", "--repair"]] {
        assert!(bench.run(args).done().text().contains("note: s/k: "));
        assert!(!bench.store().join(".baton").exists());
    }
    bench.run(&["verify", bench.beside("missing").to_str().unwrap()]).refused(4, &["does not exist"]);
}

/// K44
#[test]
fn a_long_check_tells_a_terminal_how_far_it_is() {
    let bench = with_values();
    // More zeros than a second can read, under a mark that says so.
    let (place, whole) = (bench.store().join("s/k"), 64_u64 << 30);
    let mut mark = vec![0; 4096];
    let got = rustix::fs::getxattr(&place, "user.batonfs", &mut mark[..]).unwrap();
    let mut mark: serde_json::Value = serde_json::from_slice(&mark[..got]).unwrap();
    let file = fs::File::options().write(true).open(&place).unwrap();
    file.set_len(whole).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    (mark["size"], mark["mtime_ns"]) = (whole.into(), 0.into());
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&place, "user.batonfs", mark.to_string().as_bytes(), flags).unwrap();
    for served in [false, true] {
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        let (terminal, said) = terminal();
        let mut check = bench.command(&["verify", "@"]).stderr(terminal).spawn().unwrap();
        let told = read_until(said, "checked 1 session");
        check.kill().unwrap();
        check.wait().unwrap();
        assert!(told.contains("\rbatonfs: checked 1 session") || told.contains("\x1b[Kbatonfs: checked 1"), "{told:?}");
    }
}

/// A terminal for a command, and what is shown on it.
fn terminal() -> (std::process::Stdio, fs::File) {
    use std::os::fd::AsRawFd;
    let shown = fs::File::options().read(true).write(true).open("/dev/ptmx").unwrap();
    let unlocked: libc::c_int = 0;
    let mut number: libc::c_int = 0;
    // SAFETY: both calls read or write one int that lives here.
    let made = unsafe {
        (
            libc::ioctl(shown.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked),
            libc::ioctl(shown.as_raw_fd(), libc::TIOCGPTN, &raw mut number),
        )
    };
    assert_eq!(made, (0, 0));
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::File::options();
    let options = options.read(true).write(true).custom_flags(libc::O_NOCTTY);
    (options.open(format!("/dev/pts/{number}")).unwrap().into(), shown)
}

fn read_until(mut from: fs::File, words: &str) -> String {
    use std::io::Read;
    let (until, mut told, mut part) = (Instant::now() + Duration::from_secs(60), String::new(), [0; 4096]);
    while !told.contains(words) && Instant::now() < until {
        match from.read(&mut part) {
            Ok(got) => told.push_str(&String::from_utf8_lossy(&part[..got])),
            Err(_) => break,
        }
    }
    told
}
