//! Earlier versions: read, listed, compared, made the newest again.

use std::fs::{self, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Child;

use rustix::fs::XattrFlags;
use serde_json::{Value, json};

use crate::command::{Bench, Ran};
use crate::committer::Daemon;
use crate::mounted;

/// What a command printed as a JSON object a line.
pub(crate) fn objects(ran: &Ran) -> Vec<Value> {
    ran.text().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Does the same with the store free and with the store served.
fn both(claim: impl Fn(&Bench)) {
    for served in [false, true] {
        let bench = Bench::with_session();
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        claim(&bench);
    }
}

/// K46
#[test]
fn a_version_that_is_kept_is_read_byte_for_byte_also_when_its_key_is_gone() {
    let large: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    both(|bench| {
        for value in [&b""[..], &large, b"third\0"] {
            bench.feed(&["write", "@", "s", "k"], value).done();
        }
        let read = |version: &str| bench.run(&["read", "@", "s", "k", "--version", version]);
        assert_eq!(read("1").done().out, b"");
        assert!(read("2").done().out == large);
        assert_eq!(read("3").done().out, b"third\0");
        bench.run(&["delete", "@", "s", "k"]).done();
        assert!(read("2").done().out == large);
        assert_eq!(read("3").done().out, b"third\0");
    });
}

/// K46
#[test]
fn a_version_that_is_not_kept_is_not_found_and_those_that_are_are_named() {
    both(|bench| {
        for value in ["1", "2", "3"] {
            bench.write("k", value, "w").done();
        }
        for version in ["0", "4", "18446744073709551615"] {
            let words = format!("version {version} of key 'k' is not kept; kept: 1-3");
            bench.run(&["read", "@", "s", "k", "--version", version]).refused(4, &[&words]);
            bench.run(&["restore", "@", "s", "k", version]).refused(4, &[&words]);
            bench.run(&["diff", "@", "s", "k", version]).refused(4, &[&words]);
        }
        bench.run(&["read", "@", "s", "none", "--version", "1"]).refused(4, &["key 'none' not found"]);
        bench.run(&["restore", "@", "s", "none", "1"]).refused(4, &["key 'none' not found"]);
        bench.run(&["read", "@", "t", "k", "--version", "1"]).refused(4, &["session 't' not found"]);
        bench.run(&["read", "@", "s", "k", "--version=-1"]).refused(2, &["--version"]);
        assert_eq!(bench.value("k"), "3");
    });
}

/// K47
#[test]
fn history_tells_of_every_version_the_newest_first_and_whether_its_bytes_are_there() {
    both(|bench| {
        bench.write("k", "one", "a").done();
        bench.write("other", "x", "a").done();
        bench.write("k", "second", "b").done();
        bench.run(&["delete", "@", "s", "k", "--writer-id", "c"]).done();
        bench.write("k", "3", "a").done();
        fs::remove_file(bench.store().join(".baton/history/s/kk/1")).unwrap();
        let ran = bench.run(&["history", "@", "s", "k", "--json"]).done();
        let told: Vec<_> = objects(&ran)
            .into_iter()
            .map(|row| {
                assert_eq!(row["process"]["comm"], "batonfs");
                assert!(row["time_ms"].as_u64().unwrap() > 1_700_000_000_000);
                json!([row["op"], row["version"], row["size_bytes"], row["writer"]["writer_id"], row["kept"]])
            })
            .collect();
        let expected = [
            json!(["put", 3, 1, "a", true]),
            json!(["delete", null, null, "c", false]),
            json!(["put", 2, 6, "b", true]),
            json!(["put", 1, 3, "a", false]),
        ];
        assert_eq!(told, expected);
        let table = bench.run(&["history", "@", "s", "k"]).done();
        let lines: Vec<_> = table.text().lines().skip(1).collect();
        assert_eq!(lines.len(), 4);
        assert!(
            lines[2].contains("  put ") && lines[2].contains("  yes ") && lines[2].contains("  b "),
            "{}",
            lines[2]
        );
        assert!(lines[3].contains("  no "), "{}", lines[3]);
        bench.run(&["history", "@", "s", "none"]).refused(4, &["key 'none' not found in session 's'"]);
        bench.run(&["history", "@", "t", "k"]).refused(4, &["session 't' not found"]);
    });
}

/// K47
#[test]
fn history_goes_back_through_renames_of_the_key_and_of_the_directories_it_is_in() {
    let Some(mount) = mounted::bench() else { return };
    mount.mount(&[]).done();
    let session = mount.at.join("s");
    fs::create_dir_all(session.join("d/e")).unwrap();
    fs::write(session.join("d/e/tmp"), "one").unwrap();
    fs::rename(session.join("d/e/tmp"), session.join("d/e/k")).unwrap();
    fs::rename(session.join("d/e"), session.join("d/f")).unwrap();
    fs::rename(session.join("d"), session.join("g")).unwrap();
    fs::write(session.join("g/f/k"), "second").unwrap();
    for mounted in [true, false] {
        let told: Vec<_> = objects(&mount.bench.run(&["history", "@", "s", "g/f/k", "--json"]).done())
            .into_iter()
            .map(|row| json!([row["op"], row["key"], row["to"], row["version"], row["kept"]]))
            .collect();
        let expected = [json!(["put", "g/f/k", null, 2, true]), json!(["rename", "d/e/tmp", "d/e/k", 1, true])];
        assert_eq!(told, expected, "mounted: {mounted}");
        let left = objects(&mount.bench.run(&["history", "@", "s", "d/e/tmp", "--json"]).done());
        assert_eq!((&left[0]["op"], &left[0]["version"]), (&json!("rename"), &json!(null)), "mounted: {mounted}");
        if mounted {
            mount.bench.run(&["umount", mount.place()]).done();
        }
    }
}

/// K47
#[test]
fn history_tells_when_a_key_went_with_a_directory_and_whose_bytes_are_kept_of_two_that_had_its_name() {
    let Some(mount) = mounted::bench() else { return };
    mount.mount(&[]).done();
    let session = mount.at.join("s");
    let history = |key: &str| -> Vec<Value> {
        let told = objects(&mount.bench.run(&["history", "@", "s", key, "--json"]).done());
        told.iter().map(|row| json!([row["op"], row["key"], row["version"], row["size_bytes"], row["kept"]])).collect()
    };
    for dir in ["d", "g"] {
        fs::create_dir(session.join(dir)).unwrap();
        fs::write(session.join(dir).join("k"), format!("of {dir}{}", if dir == "g" { ", longer" } else { "" }))
            .unwrap();
    }
    fs::remove_file(session.join("g/k")).unwrap();
    fs::remove_dir(session.join("g")).unwrap();
    fs::rename(session.join("d"), session.join("g")).unwrap();
    assert_eq!(mount.bench.run(&["read", "@", "s", "g/k", "--version", "1"]).done().text(), "of d");
    let expected = [
        json!(["delete", "g/k", null, null, false]),
        json!(["put", "g/k", 1, 12, false]),
        json!(["put", "d/k", 1, 4, true]),
    ];
    assert_eq!(history("g/k"), expected);
    assert_eq!(history("d/k"), [json!(["rename", "d", null, null, false]), json!(["put", "d/k", 1, 4, false])]);
    // What was not in it did not go with it.
    fs::write(session.join("g/other"), "").unwrap();
    fs::remove_file(session.join("g/other")).unwrap();
    fs::rename(session.join("g"), session.join("h")).unwrap();
    let ops: Vec<Value> = history("g/other").iter().map(|row| row[0].clone()).collect();
    assert_eq!(ops, [json!("delete"), json!("put")]);
}

/// K48
#[test]
fn a_restored_version_comes_back_with_its_bytes_mode_time_and_xattrs_as_the_next_one() {
    both(|bench| {
        let file = bench.store().join("s/d/k");
        bench.write("d/k", "one\n", "a").done();
        fs::set_permissions(&file, Permissions::from_mode(0o750)).unwrap();
        rustix::fs::setxattr(&file, "user.note", b"first", XattrFlags::empty()).unwrap();
        let first = fs::metadata(&file).unwrap();
        bench.write("d/k", "second\n", "a").done();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        rustix::fs::setxattr(&file, "user.other", b"second", XattrFlags::empty()).unwrap();
        rustix::fs::removexattr(&file, "user.note").unwrap();
        let made = bench.run(&["restore", "@", "s", "d/k", "1", "--writer-id", "r", "--json"]).done().json();
        assert_eq!((&made["session_id"], &made["key"]), (&json!("s"), &json!("d/k")));
        assert_eq!((&made["version"], &made["warning"]), (&json!(3), &json!(null)));
        assert_eq!(bench.value("d/k"), "one\n");
        let restored = fs::metadata(&file).unwrap();
        assert_eq!(restored.mode() & 0o7777, 0o750);
        assert_eq!((restored.mtime(), restored.mtime_nsec()), (first.mtime(), first.mtime_nsec()));
        let mut value = [0; 16];
        let len = rustix::fs::getxattr(&file, "user.note", &mut value).unwrap();
        assert_eq!(value[..len], *b"first");
        assert!(rustix::fs::getxattr(&file, "user.other", &mut value).is_err());
        let newest = objects(&bench.run(&["history", "@", "s", "d/k", "--json"]).done()).remove(0);
        assert_eq!((&newest["writer"]["writer_id"], &newest["seq"]), (&json!("r"), &made["seq"]));
        assert_eq!(bench.run(&["read", "@", "s", "d/k", "--version", "2"]).done().text(), "second\n");
    });
}

/// K48
#[test]
fn a_restored_version_has_the_owner_it_had() {
    const NOBODY: u32 = 65_534;
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return eprintln!("SKIPPED: only root can give a file away");
    }
    both(|bench| {
        let file = bench.store().join("s/k");
        bench.write("k", "one", "a").done();
        std::os::unix::fs::chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
        bench.write("k", "second", "a").done();
        std::os::unix::fs::chown(&file, Some(0), Some(0)).unwrap();
        bench.run(&["restore", "@", "s", "k", "1"]).done();
        let restored = fs::metadata(&file).unwrap();
        assert_eq!((restored.uid(), restored.gid()), (NOBODY, NOBODY));
    });
}

/// K48 K7
#[test]
fn a_restore_meets_the_conflict_rule_as_any_write_does() {
    both(|bench| {
        bench.write("k", "one", "a").done();
        bench.write("k", "two", "a").done();
        let by_b = ["restore", "@", "s", "k", "1", "--writer-id", "b", "--policy"];
        let words = "key 'k' was previously written by 'a' and is now being written by 'b'";
        bench.run(&[&by_b[..], &["error"]].concat()).refused(3, &[words]);
        assert_eq!(bench.value("k"), "two");
        let warned = bench.run(&[&by_b[..], &["warn"]].concat());
        assert_eq!((warned.code, warned.err), (0, format!("batonfs: warning: {words}\n")));
        assert_eq!(bench.value("k"), "one");
    });
}

/// K48
#[test]
fn a_restored_handoff_is_made_anew_around_the_summary_it_had() {
    both(|bench| {
        bench.feed(&["handoff", "@", "s", "--writer-id", "a"], r#"{"n": 1}"#).done();
        bench.feed(&["handoff", "@", "s", "--writer-id", "a"], r#"{"n": 2}"#).done();
        bench.run(&["restore", "@", "s", "__handoff.json", "1", "--writer-id", "b"]).done();
        let envelope = bench.run(&["read", "@", "s", "__handoff.json"]).done().json();
        assert_eq!((&envelope["summary"], &envelope["writer"]["writer_id"]), (&json!({"n": 1}), &json!("b")));
    });
}

/// K48
#[test]
fn a_deleted_key_comes_back_by_a_restore_and_its_versions_go_on() {
    both(|bench| {
        bench.write("d/k", "one", "a").done();
        bench.run(&["delete", "@", "s", "d/k"]).done();
        assert_eq!(bench.run(&["restore", "@", "s", "d/k", "1", "--json"]).done().json()["version"], 2);
        assert_eq!(bench.value("d/k"), "one");
    });
}

/// K46 K48 K49
#[test]
fn what_was_closed_on_a_mount_is_read_compared_and_restored_while_it_is_mounted() {
    let Some(mount) = mounted::bench() else { return };
    mount.mount(&["--conflict-policy", "error", "--writer-id", "house"]).done();
    let (bench, file) = (&mount.bench, mount.at.join("s/k"));
    fs::write(&file, "one\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    fs::write(&file, "second\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(bench.run(&["read", "@", "s", "k", "--version", "1"]).done().text(), "one\n");
    assert!(bench.run(&["diff", "@", "s", "k"]).done().text().ends_with("-one\n+second\n"));
    let restore = |writer| bench.run(&["restore", mount.place(), "s", "k", "1", "--writer-id", writer]);
    restore("guest").refused(3, &["'house'", "'guest'"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "second\n");
    restore("house").done();
    assert_eq!(fs::read_to_string(&file).unwrap(), "one\n");
    bench.run(&["umount", mount.place()]).done();
    assert_eq!(fs::metadata(bench.store().join("s/k")).unwrap().mode() & 0o7777, 0o640);
}

/// K49
#[test]
fn diff_shows_what_is_different_between_two_versions_and_ends_with_0() {
    both(|bench| {
        for value in ["a\nb\nc\n", "a\nB\nc\n", "a\nB\nc\nd"] {
            bench.write("k", value, "w").done();
        }
        let diff = |args: &[&str]| bench.run(&[&["diff", "@", "s", "k"], args].concat()).done().text().to_owned();
        let newest =
            "--- k (version 2)\n+++ k (version 3)\n@@ -1,3 +1,4 @@\n a\n B\n c\n+d\n\\ No newline at end of file\n";
        assert_eq!(diff(&[]), newest);
        assert_eq!(diff(&["2"]), newest);
        let first = "--- k (version 1)\n+++ k (version 2)\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n";
        assert_eq!(diff(&["1", "2"]), first);
        assert_eq!(diff(&["3", "3"]), "");
        bench.feed(&["write", "@", "s", "k"], b"a\0b").done();
        assert_eq!(diff(&[]), "binary versions 3 (7 bytes) and 4 (3 bytes) of 'k' differ\n");
        bench.run(&["diff", "@", "s", "none"]).refused(4, &["key 'none' not found"]);
        bench.write("once", "v", "w").done();
        bench.run(&["diff", "@", "s", "once"]).refused(4, &["version 1 alone"]);
    });
}

/// K49
#[test]
fn a_line_of_a_diff_ends_with_its_newline_and_with_nothing_else() {
    let bench = Bench::with_session();
    for value in ["a\rb\nend\r", "a\rc\nend\r", "a\rc\nEND\r"] {
        bench.write("k", value, "w").done();
    }
    let diff = |a: &str, b: &str| bench.run(&["diff", "@", "s", "k", a, b]).done().text().to_owned();
    let none = "\\ No newline at end of file\n";
    let first = "--- k (version 1)\n+++ k (version 2)\n@@ -1,2 +1,2 @@\n-a\rb\n+a\rc\n end\r\n";
    assert_eq!(diff("1", "2"), format!("{first}{none}"));
    let last = format!("@@ -1,2 +1,2 @@\n a\rc\n-end\r\n{none}+END\r\n{none}");
    assert!(diff("2", "3").ends_with(&last), "{}", diff("2", "3"));
}

/// K49
#[test]
fn large_values_are_compared_without_being_held_in_memory() {
    const SIZE_BYTES: u64 = 96 << 20;
    let bench = Bench::with_session();
    let place = bench.beside("large");
    for end in ["a", "b"] {
        let mut file = fs::File::create(&place).unwrap();
        file.seek(std::io::SeekFrom::Start(SIZE_BYTES - 1)).unwrap();
        file.write_all(end.as_bytes()).unwrap();
        let input = fs::File::open(&place).unwrap();
        Ran::from(bench.command(&["write", "@", "s", "k"]).stdin(input).output().unwrap()).done();
    }
    for served in [false, true] {
        let _daemon = served.then(|| Daemon::serve(&bench.store()));
        let ran = bench.command(&["diff", "@", "s", "k"]).spawn().unwrap();
        let (out, peak_bytes) = peak_bytes(ran);
        assert_eq!(out, format!("binary versions 1 ({SIZE_BYTES} bytes) and 2 ({SIZE_BYTES} bytes) of 'k' differ\n"));
        assert!(peak_bytes < SIZE_BYTES, "served: {served}: {peak_bytes} bytes of memory");
    }
}

/// What a command prints, and the most memory it had.
fn peak_bytes(mut child: Child) -> (String, u64) {
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    // SAFETY: all-zero is a value of this struct of numbers.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    // SAFETY: the pointers are to a status and a usage, both alive and writable during the call; the process is our
    // child, and nobody else waits for it.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut used) };
    assert_eq!((waited, status), (pid, 0));
    (out, u64::try_from(used.ru_maxrss).unwrap() * 1024)
}

/// K59 K7 K9
#[test]
fn what_a_write_was_refused_is_kept_where_its_words_say() {
    let large = "x".repeat(200_000);
    both(|bench| {
        bench.write("d/k", "from a", "a").done();
        let refused = |key: &str, value: &str, code: i32, words: &[&str]| {
            let args = ["write", "@", "s", key, "--writer-id", "b", "--policy", "error"];
            bench.feed(&args, value).refused(code, words).err
        };
        let kept = |key: &str, of: &str, seq: u64| {
            let said = format!("what was written is kept in .baton/history/{key}/{seq}.refused");
            (said, fs::read_to_string(bench.store().join(format!(".baton/history/s/{of}/r{seq}"))))
        };
        for (seq, value) in [(3, "from b"), (4, large.as_str())] {
            let words = refused("d/k", value, 3, &["'a'", "'b'"]);
            let (said, there) = kept("d/k", "dd/kk", seq);
            assert!(words.contains(&said), "{words}");
            assert!(there.unwrap() == value);
        }
        let words = refused("__handoff.json", "[1, 2", 5, &["JSON"]);
        let (said, there) = kept("__handoff.json", "k__handoff.json", 5);
        assert!(words.contains(&said), "{words}");
        assert_eq!(there.unwrap(), "[1, 2");
        let words = refused("d", "a directory has that name", 1, &[]);
        assert!(words.contains(&kept("d", "", 6).0), "{words}");
        for (key, value, code) in [("d/k", "", 3), ("../k", "none", 2)] {
            assert!(!refused(key, value, code, &[]).contains("kept"));
        }
        bench.run(&["restore", "@", "s", "d/k", "1", "--writer-id", "b", "--policy", "error"]).refused(3, &["'a'"]);
        assert_eq!(bench.value("d/k"), "from a");
        let log = objects(&bench.run(&["log", "@", "s", "--json"]).done());
        let lines: Vec<_> = log.iter().filter(|line| line["op"] == "refuse").collect();
        assert_eq!(lines.iter().map(|line| &line["seq"]).collect::<Vec<_>>(), [3, 4, 5, 6]);
        let reason = "key 'd/k' was previously written by 'a' and is now being written by 'b'";
        assert_eq!((&lines[0]["reason"], &lines[0]["writer"]["writer_id"]), (&json!(reason), &json!("b")));
    });
}
