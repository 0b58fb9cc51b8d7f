//! Mounts that cannot be: each refused in words, with its code, and nothing left behind.

use std::path::Path;
use std::process::Command;

use batonfs::committer::{Attempt, Holder, Lock, Place};

use crate::command::{Bench, is_empty};

/// A store and an empty directory to mount it at.
fn bench() -> (Bench, String) {
    let bench = Bench::new();
    let at = bench.beside("at");
    std::fs::create_dir(&at).unwrap();
    (bench, at.to_str().unwrap().to_owned())
}

#[track_caller]
fn refused(bench: &Bench, args: &[&str], code: i32, words: &[&str]) {
    for more in [&[][..], &["--foreground"]] {
        bench.run(&[&["mount"], args, more].concat()).refused(code, words);
        assert!(is_empty(&bench.store()), "{args:?} left something in the store");
    }
}

/// K32
#[test]
fn a_store_or_mountpoint_that_does_not_exist_is_not_found() {
    let (bench, at) = bench();
    let missing = bench.beside("missing");
    let missing = missing.to_str().unwrap();
    refused(&bench, &[missing, &at], 4, &["store", "does not exist", missing]);
    refused(&bench, &["@", missing], 4, &["mountpoint", "does not exist", missing]);
    assert!(!Path::new(missing).exists());
}

/// K32
#[test]
fn a_store_or_mountpoint_that_is_no_directory_fails() {
    let (bench, at) = bench();
    let file = bench.beside("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    refused(&bench, &[file, &at], 1, &["store", "is not a directory", file]);
    refused(&bench, &["@", file], 1, &["mountpoint", "is not a directory", file]);
}

/// K32
#[test]
fn a_mountpoint_that_is_not_empty_fails_and_keeps_what_is_in_it() {
    let (bench, at) = bench();
    let file = Path::new(&at).join("mine");
    std::fs::write(&file, "kept").unwrap();
    refused(&bench, &["@", &at], 1, &["mountpoint", "is not empty", &at]);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "kept");
}

/// K32
#[test]
fn one_inside_the_other_is_a_usage_error_also_through_a_link() {
    let (bench, at) = bench();
    refused(&bench, &["@", bench.store().to_str().unwrap()], 2, &["inside"]);
    let inner = Path::new(&at).join("inner");
    std::fs::create_dir(&inner).unwrap();
    let link = bench.beside("link");
    std::os::unix::fs::symlink(&at, &link).unwrap();
    refused(&bench, &[inner.to_str().unwrap(), link.to_str().unwrap()], 2, &["inside the mountpoint"]);
    refused(&bench, &[link.to_str().unwrap(), inner.to_str().unwrap()], 2, &["inside the store"]);
}

/// K32
#[test]
fn one_inside_the_other_is_a_usage_error_also_through_a_bind_mount() {
    let (bench, at) = bench();
    std::fs::create_dir(bench.store().join("inner")).unwrap();
    // In a mount namespace of its own; that needs privilege.
    let inside = r#"mount --bind "$1" "$2" 2>/dev/null && shift 2 && exec "$@""#;
    let inner = Path::new(&at).join("inner");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", inside, "sh"]).arg(bench.store()).arg(&at);
    command.args([env!("CARGO_BIN_EXE_batonfs"), "mount"]).arg(bench.store()).arg(inner);
    match command.output() {
        Ok(output) if output.stderr.starts_with(b"batonfs") || output.status.success() => {
            crate::command::Ran::from(output).refused(2, &["inside the store"]);
        }
        _ => eprintln!("SKIPPED: no mount namespace of one's own here"),
    }
    assert!(!bench.store().join(".baton").exists());
}

/// K32
#[test]
fn a_path_that_is_not_utf8_is_a_usage_error() {
    use std::os::unix::ffi::OsStrExt;

    let (bench, at) = bench();
    let odd = bench.beside("odd").join(std::ffi::OsStr::from_bytes(b"\xff"));
    std::fs::create_dir_all(&odd).unwrap();
    for (store, at) in [(bench.store(), odd.clone()), (odd.clone(), at.into())] {
        let ran = bench.command(&["mount"]).arg(store).arg(at).output().unwrap();
        crate::command::Ran::from(ran).refused(2, &["is not UTF-8"]);
    }
    assert!(is_empty(&bench.store()) && is_empty(&odd));
}

/// K32
#[test]
fn wrong_words_are_usage_errors() {
    let (bench, at) = bench();
    refused(&bench, &["@", &at, "--conflict-policy", "harsh"], 2, &["unknown conflict policy 'harsh'"]);
    refused(&bench, &["@", &at, "--on-kill", "weep"], 2, &["--on-kill"]);
    for odd in
        ["", "now", "interval", "interval=", "interval=0", "interval=-5", "interval=60001", "interval=1s", "Commit"]
    {
        refused(&bench, &["@", &at, &format!("--durability={odd}")], 2, &["--durability", "interval="]);
    }
    refused(&bench, &["@", &at, "--wait=-1"], 2, &["--wait"]);
    refused(&bench, &["@", &at, "--wait=inf"], 2, &["--wait"]);
    refused(&bench, &["@", &at, "--wait=1e18"], 2, &["--wait"]);
    refused(&bench, &["@", &at, "--writer-id", &"i".repeat(257)], 2, &["--writer-id has 257 bytes"]);
    bench.run(&["mount", "@", &at, "--foreground", "--log", "x"]).refused(2, &["--log"]);
}

/// K32
#[test]
fn a_place_where_something_is_mounted_is_in_use() {
    let bench = Bench::new();
    // Only where nothing could be mounted: whatever is there answers for itself.
    refused(&bench, &["@", "/proc"], 7, &["in use", "/proc", "proc"]);
}

/// K32
#[test]
fn a_store_that_is_mounted_already_names_its_holder() {
    let (bench, at) = bench();
    if !Path::new("/dev/fuse").exists() {
        return eprintln!("SKIPPED: no /dev/fuse");
    }
    let holder = Holder::this("mount", Some(Path::new("/mnt/state")));
    let Attempt::Taken(_lock) = Lock::attempt(&Place::make(&bench.store()).unwrap(), &holder).unwrap() else {
        panic!("held");
    };
    let pid = std::process::id().to_string();
    for more in [&[][..], &["--foreground"]] {
        let ran = bench.run(&[&["mount", "@", &at], more].concat());
        ran.refused(7, &["is held by", &pid, "/mnt/state"]);
    }
}

/// K32
#[test]
fn a_system_without_its_device_says_how_to_get_it() {
    let (bench, at) = bench();
    // In a mount namespace of its own, where /dev is empty; that needs privilege.
    let inside = r#"mount -t tmpfs none /dev 2>/dev/null && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", inside, "sh", env!("CARGO_BIN_EXE_batonfs"), "mount"]).arg(bench.store()).arg(&at);
    match command.output() {
        Ok(output) if output.stderr.starts_with(b"batonfs") => {
            crate::command::Ran::from(output).refused(1, &["/dev/fuse", "modprobe fuse"]);
        }
        _ => eprintln!("SKIPPED: no mount namespace of one's own here"),
    }
    assert!(is_empty(&bench.store()));
}

/// K36
#[test]
fn unmounting_what_is_not_mounted_is_not_found() {
    let (bench, at) = bench();
    bench.run(&["umount", &at]).refused(4, &["no batonfs is mounted", &at]);
    bench.run(&["umount", "/proc"]).refused(4, &["no batonfs is mounted", "/proc"]);
    bench.run(&["umount", bench.beside("missing").to_str().unwrap()]).refused(4, &["missing"]);
}
