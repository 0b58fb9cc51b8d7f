//! Mounts from their start to their end, on the real kernel. What is read and written through them is tested beside
//! the mount; here it is who holds the store, who waits for whom, and what is left.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};

use batonfs::committer::Holder;

use crate::command::{Bench, Ran, feed};
use crate::committer::hold;

/// Long enough for a machine with better things to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// A store and a place to mount it, which is no mount any more when this goes.
pub(crate) struct Mount {
    pub(crate) bench: Bench,
    pub(crate) at: PathBuf,
}

/// `None`, said aloud, where nothing can be mounted.
pub(crate) fn bench() -> Option<Mount> {
    if !Path::new("/dev/fuse").exists() {
        eprintln!("SKIPPED: no /dev/fuse here");
        return None;
    }
    let bench = Bench::with_session();
    let at = bench.beside("at dir");
    std::fs::create_dir(&at).unwrap();
    Some(Mount { bench, at })
}

impl Mount {
    pub(crate) fn place(&self) -> &str {
        self.at.to_str().unwrap()
    }

    pub(crate) fn mount(&self, options: &[&str]) -> Ran {
        self.bench.run(&[&["mount", "@", self.place()], options].concat())
    }

    fn status(&self) -> serde_json::Value {
        self.bench.run(&["status", "@", "--json"]).done().json()
    }

    fn pid(&self) -> Pid {
        let pid = self.status()["pid"].as_i64().expect("mounted");
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }

    fn is_mounted(&self) -> bool {
        let place = self.place().replace(' ', "\\040");
        std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().any(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            fields[4] == place
        })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.bench.store().join(".baton/daemon.log")).unwrap_or_default()
    }

    /// Nothing of a mount is left, and the store is free.
    #[track_caller]
    fn is_over(&self) {
        assert!(!self.is_mounted());
        wait_for("the store to be free", || self.status()["pid"].is_null());
        assert!(!self.bench.store().join(".baton/socket").exists());
        self.bench.write("after", "v", "w").done();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let pid = batonfs::committer::client::holder(&self.bench.store()).filter(|holder| holder.mountpoint.is_some());
        // The device's minor number names the connection, which can be ended even when its daemon does not answer.
        let connection = self.at.metadata().ok().map(|at| rustix::fs::minor(at.dev()));
        let ended = pid.and_then(|holder| Pid::from_raw(i32::try_from(holder.pid).ok()?)).is_none_or(|pid| {
            let _ = kill_process(pid, Signal::TERM);
            let _ = kill_process(pid, Signal::TERM);
            let until = Instant::now() + PATIENCE;
            while is_alive(pid) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            Instant::now() < until || kill_process(pid, Signal::KILL).is_err()
        });
        if self.is_mounted() {
            if let Some(connection) = connection.filter(|_| !ended) {
                let _ = std::fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1");
            }
            let _ = rustix::mount::unmount(&self.at, UnmountFlags::DETACH);
        }
    }
}

/// A daemon whose parent has gone is reaped by somebody else, whenever they like: that is not its life.
fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

#[track_caller]
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the end of a process that this test started.
#[track_caller]
fn end(child: Child) -> Ran {
    child.wait_with_output().unwrap().into()
}

/// K33 K36
#[test]
fn a_mount_serves_when_the_command_returns_and_the_store_is_free_when_umount_does() {
    let Some(mount) = bench() else { return };
    mount.mount(&[]).done();
    assert!(mount.is_mounted());
    let status = mount.status();
    assert_eq!(status["mountpoint"], mount.place());
    assert_ne!(status["pid"], std::process::id());
    assert!(mount.log().contains("is mounted at"), "{}", mount.log());
    mount.bench.run(&["umount", mount.place()]).done();
    assert!(mount.status()["pid"].is_null());
    mount.is_over();
}

/// K28 K27
#[test]
fn the_operations_do_the_same_while_it_is_mounted_and_by_the_name_of_the_mountpoint() {
    let Some(mount) = bench() else { return };
    mount.mount(&["--conflict-policy", "error"]).done();
    mount.bench.write("k", "v", "a").done();
    mount
        .bench
        .feed(&["write", "@", "s", "k", "--writer-id", "b", "--policy", "ignore"], "x")
        .refused(3, &["'a'", "'b'"]);
    assert_eq!(mount.bench.run(&["read", mount.place(), "s", "k"]).done().text(), "v");
    let handle = mount.bench.run(&["resume", mount.place(), "s"]).done().json();
    assert_eq!(handle["root"], mount.bench.store().to_str().unwrap());
    assert_eq!(handle["conflict_policy"], "error");
    mount.bench.run(&["list", &format!("{}/s", mount.place()), "x"]).refused(2, &["inside the mount"]);
}

/// K39
#[test]
fn a_store_that_is_mounted_read_only_is_changed_by_no_operation_either() {
    let Some(mount) = bench() else { return };
    mount.bench.write("k", "v", "w").done();
    mount.mount(&["--read-only"]).done();
    let words = ["is mounted read-only"];
    mount.bench.write("k", "x", "w").refused(1, &words);
    mount.bench.feed(&["handoff", "@", "s"], "{}").refused(1, &words);
    let restore = ["restore", "@", "s", "k", "1"];
    for args in [&["delete", "@", "s", "k"][..], &restore, &["policy", "@", "s", "warn"], &["init", "@", "t"]] {
        mount.bench.run(args).refused(1, &words);
    }
    mount.bench.run(&["init", "@", "s", "--policy", "error"]).refused(1, &words);
    mount.bench.run(&["init", "@", "s"]).done();
    assert_eq!(mount.bench.run(&["policy", "@", "s"]).done().text(), "ignore\n");
    assert_eq!(mount.bench.value("k"), "v");
    assert_eq!(mount.bench.run(&["list", "@", "s"]).done().text(), "k\n");
    mount.bench.run(&["umount", mount.place()]).done();
    mount.is_over();
}

/// K13
#[test]
fn the_mounts_defaults_are_the_writer_of_those_who_declare_nothing() {
    let Some(mount) = bench() else { return };
    mount.mount(&["--writer-id", "house", "--stage-id", "st"]).done();
    let handle = mount.bench.run(&["resume", "@", "s"]).done().json();
    assert_eq!(handle["writer"]["writer_id"], "house");
    assert_eq!(handle["writer"]["stage_id"], "st");
    let handle = mount.bench.run(&["resume", "@", "s", "--writer-id", "guest"]).done().json();
    assert_eq!(handle["writer"]["writer_id"], "guest");
    assert_eq!(handle["writer"]["stage_id"], serde_json::Value::Null);
}

/// K32
#[test]
fn a_second_mount_of_the_store_or_at_the_place_is_refused_and_the_first_goes_on() {
    let Some(mount) = bench() else { return };
    mount.mount(&[]).done();
    let pid = mount.pid().as_raw_nonzero().to_string();
    mount.mount(&[]).refused(7, &["in use", mount.bench.store().to_str().unwrap()]);
    let other = mount.bench.beside("other");
    std::fs::create_dir(&other).unwrap();
    mount.bench.run(&["mount", "@", other.to_str().unwrap()]).refused(7, &["is held by", &pid, mount.place()]);
    assert_eq!(mount.pid().as_raw_nonzero().to_string(), pid);
}

/// K34 K35
#[test]
fn in_the_foreground_it_stays_until_a_signal_and_ends_with_0() {
    let Some(mount) = bench() else { return };
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let child = mount.bench.command(&["mount", "@", mount.place(), "--foreground"]).spawn().unwrap();
        wait_for("the mount", || mount.is_mounted());
        assert_eq!(mount.status()["pid"], child.id());
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ran = end(child);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.err.contains("is mounted at") && ran.err.contains("unmounted"), "{}", ran.err);
        mount.is_over();
    }
}

/// K35
#[test]
fn a_signal_ends_a_daemon_even_while_somebody_is_inside() {
    let Some(mount) = bench() else { return };
    mount.mount(&["--wait", "0"]).done();
    let inside = File::open(&mount.at).unwrap();
    let pid = mount.pid();
    kill_process(pid, Signal::TERM).unwrap();
    wait_for("the daemon's end", || !is_alive(pid));
    drop(inside);
    mount.is_over();
}

/// K35
#[test]
fn a_mount_ended_from_outside_closes_its_store() {
    let Some(mount) = bench() else { return };
    mount.mount(&[]).done();
    let pid = mount.pid();
    if rustix::mount::unmount(&mount.at, UnmountFlags::empty()).is_err() {
        return eprintln!("SKIPPED: unmounting needs privilege here");
    }
    wait_for("the daemon's end", || !is_alive(pid));
    mount.is_over();
}

/// K36
#[test]
fn umount_leaves_a_mount_that_somebody_is_in() {
    let Some(mount) = bench() else { return };
    mount.mount(&[]).done();
    let inside = File::open(&mount.at).unwrap();
    mount.bench.run(&["umount", mount.place()]).refused(7, &["in use", mount.place()]);
    assert!(mount.is_mounted());
    assert_eq!(mount.status()["mountpoint"], mount.place());
    drop(inside);
    mount.bench.run(&["umount", mount.place()]).done();
    mount.is_over();
}

/// K29 K36
#[test]
fn umount_waits_ten_seconds_for_a_daemon_that_does_not_answer_and_says_how_to_end_it() {
    let Some(mount) = bench() else { return };
    mount.mount(&[]).done();
    let pid = mount.pid();
    kill_process(pid, Signal::STOP).unwrap();
    let since = Instant::now();
    let ran = mount.bench.run(&["umount", mount.place()]);
    kill_process(pid, Signal::CONT).unwrap();
    ran.refused(7, &["does not answer", &format!("kill -KILL {pid}"), mount.place()]);
    assert!(since.elapsed() < 2 * PATIENCE, "{:?}", since.elapsed());
    mount.bench.run(&["umount", mount.place()]).done();
}

/// K37 K30
#[test]
fn what_a_killed_daemon_left_is_cleared_by_umount_and_by_the_next_mount() {
    let Some(mount) = bench() else { return };
    for clear_by_mounting in [false, true] {
        mount.mount(&[]).done();
        mount.bench.write("k", "v", "w").done();
        let pid = mount.pid();
        kill_process(pid, Signal::KILL).unwrap();
        wait_for("its end", || mount.at.metadata().is_err());
        // The store is free at once, though its mount is still there.
        assert_eq!(mount.bench.value("k"), "v");
        assert!(mount.is_mounted());
        if clear_by_mounting {
            let ran = mount.mount(&[]);
            assert_eq!(ran.code, 0, "{}", ran.err);
            assert!(ran.err.contains("cleared"), "{}", ran.err);
        }
        let ran = mount.bench.run(&["umount", mount.place()]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert_eq!(ran.err.contains("cleared"), !clear_by_mounting, "{}", ran.err);
        assert!(!mount.is_mounted());
    }
    mount.is_over();
}

/// K30
#[test]
fn a_mount_whose_daemon_is_gone_is_no_store_and_it_is_said_how_to_clear_it() {
    let Some(mount) = bench() else { return };
    mount.mount(&[]).done();
    kill_process(mount.pid(), Signal::KILL).unwrap();
    wait_for("its end", || mount.at.metadata().is_err());
    for args in [&["status", mount.place()][..], &["init", mount.place(), "s"], &["read", mount.place(), "s", "k"]] {
        mount.bench.run(args).refused(1, &["a mount without its daemon", "batonfs umount", mount.place()]);
    }
}

/// K33
#[test]
fn a_mount_whose_command_was_killed_before_it_served_is_undone() {
    let Some(mount) = bench() else { return };
    let lock = hold(&mount.bench.store(), &Holder::this("list", None));
    let mut command = mount.bench.command(&["mount", "@", mount.place()]).spawn().unwrap();
    // The daemon waits for the store, and nobody waits for the daemon any more.
    let children = format!("/proc/{0}/task/{0}/children", command.id());
    wait_for("the daemon", || std::fs::read_to_string(&children).is_ok_and(|children| !children.trim().is_empty()));
    command.kill().unwrap();
    command.wait().unwrap();
    drop(lock);
    wait_for("the daemon's last word", || mount.log().contains("saying that it serves"));
    mount.is_over();
}

/// K33
#[test]
fn a_daemon_keeps_nothing_open_that_its_starter_had_open() {
    let Some(mount) = bench() else { return };
    let (_reader, writer) = std::io::pipe().unwrap();
    // In a descriptor that passes through exec, as a shell's `9>` does.
    let mut command = mount.bench.command(&["mount", "@", mount.place()]);
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).unwrap();
    Ran::from(command.output().unwrap()).done();
    let ours = std::fs::read_link(format!("/proc/self/fd/{}", writer.as_raw_fd())).unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", mount.pid())).unwrap();
    let open: Vec<PathBuf> = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect();
    assert!(!open.is_empty() && !open.contains(&ours), "{open:?}");
    assert_eq!(std::fs::read_to_string(format!("/proc/{}/comm", mount.pid())).unwrap(), "batonfs\n");
}

/// K33
#[test]
fn a_large_log_is_kept_and_begun_anew() {
    let Some(mount) = bench() else { return };
    let log = mount.bench.beside("my.log");
    std::fs::write(&log, "x".repeat(5 * 1024 * 1024)).unwrap();
    mount.mount(&["--log", log.to_str().unwrap()]).done();
    assert_eq!(std::fs::metadata(mount.bench.beside("my.log.1")).unwrap().len(), 5 * 1024 * 1024);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.len() < 10_000 && text.contains("is mounted at"), "{} bytes", text.len());
    assert_eq!(mount.log(), "");
}

/// K16
#[test]
fn the_filter_of_the_log_is_chosen_by_a_variable() {
    let Some(mount) = bench() else { return };
    let mut command = mount.bench.command(&["mount", "@", mount.place()]);
    Ran::from(command.env("BATONFS_LOG", "error").output().unwrap()).done();
    assert_eq!(mount.log(), "");
}

/// K33
#[test]
fn relative_paths_mean_the_same_to_the_daemon() {
    let Some(mount) = bench() else { return };
    let mut command = mount.bench.command(&["mount", "--log", "there.log", "--", "store", "at dir"]);
    Ran::from(command.current_dir(mount.bench.beside("")).output().unwrap()).done();
    assert_eq!(mount.status()["mountpoint"], mount.place());
    assert!(mount.bench.beside("there.log").exists());
}

/// K35 K36
#[test]
fn umount_waits_for_what_is_being_written_and_says_who_holds_it() {
    let Some(mount) = bench() else { return };
    mount.mount(&[]).done();
    let mut writing = File::create(mount.at.join("s/k")).unwrap();
    writing.write_all(b"whole").unwrap();
    let pid = std::process::id().to_string();
    mount.bench.run(&["umount", mount.place(), "--wait", "0"]).refused(7, &["s/k (5 bytes)"]);
    assert!(mount.is_mounted());
    let mut umount = mount.bench.command(&["umount", mount.place(), "--wait", "60"]).spawn().unwrap();
    let mut words = std::io::BufReader::new(umount.stderr.take().unwrap());
    let mut line = String::new();
    // Other tests fork meanwhile: while their children flush what they inherited, the holder may not be known; it is
    // said as soon as it is.
    while !line.contains(&pid) {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut words, &mut line).unwrap(), 0, "ended, and never named {pid}");
        assert!(line.starts_with("batonfs: waiting: s/k (5 bytes)"), "{line}");
    }
    drop(writing);
    let code = end(umount).code;
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut words, &mut rest).unwrap();
    assert_eq!(code, 0, "after '{line}': '{rest}'; log: {}", mount.log());
    assert_eq!(mount.bench.value("k"), "whole");
    mount.is_over();
}

/// K35
#[test]
fn what_is_still_open_at_the_end_is_dropped_or_committed_as_chosen() {
    let Some(mount) = bench() else { return };
    for (on_kill, value) in [("drop", "old"), ("commit", "half")] {
        mount.bench.feed(&["write", "@", "s", "k"], "old").done();
        mount.mount(&["--on-kill", on_kill, "--wait", "600"]).done();
        let mut writing = File::create(mount.at.join("s/k")).unwrap();
        writing.write_all(b"half").unwrap();
        let pid = mount.pid();
        // The second one ends the waiting; a waiting daemon would not end within the test's patience.
        kill_process(pid, Signal::TERM).unwrap();
        wait_for("the first signal", || mount.log().contains("signal"));
        kill_process(pid, Signal::TERM).unwrap();
        wait_for("the daemon's end", || !is_alive(pid));
        drop(writing);
        assert_eq!(mount.bench.value("k"), value, "--on-kill {on_kill}");
        assert!(mount.log().contains("s/k"), "{}", mount.log());
        std::fs::remove_file(mount.bench.store().join(".baton/daemon.log")).unwrap();
        mount.is_over();
    }
}

/// K28
#[test]
fn a_close_on_the_mount_and_a_write_of_the_command_meet_the_same_rule() {
    let Some(mount) = bench() else { return };
    mount.mount(&["--conflict-policy", "error"]).done();
    std::fs::write(mount.at.join("s/k"), "by file").unwrap();
    mount.bench.write("k", "by command", "b").refused(3, &["'s'", "'b'"]);
    assert_eq!(mount.bench.value("k"), "by file");
    let child = mount.bench.command(&["write", "@", "s", "k2"]).stdin(Stdio::piped()).spawn().unwrap();
    feed(child, b"by command").done();
    assert_eq!(std::fs::read_to_string(mount.at.join("s/k2")).unwrap(), "by command");
}
