//! C1 to C6: which close makes the version, and which makes none.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;

use crate::harness::{self, Mount, eventually};

// C1
#[test]
fn closed_means_there_on_the_mount_in_the_store_and_in_the_record() {
    let Some(mount) = Mount::new() else { return };
    let mut file = File::create(mount.path("k")).expect("create");
    file.write_all(b"whole").expect("write");
    assert!(!mount.stored("k").exists(), "nothing is there before the close");
    drop(file);
    assert_eq!(mount.read("k"), "whole");
    assert_eq!(fs::read(mount.stored("k")).expect("in the store"), b"whole");
    assert_eq!(mount.writer_of("k"), harness::SESSION);
    assert_eq!(mount.versions("k"), [1]);
}

// C1, C3
#[test]
fn one_redirection_is_one_version_however_many_write_through_it() {
    let Some(mount) = Mount::new() else { return };
    for (key, script) in [
        ("builtin", "echo a > builtin"),
        ("program", "/bin/echo a > program"),
        ("group", "{ /bin/echo a; echo b; /bin/echo c; } > group"),
        ("subshell", "( echo a; /bin/echo b ) > subshell"),
        ("exec", "exec 3> exec; echo a >&3; echo b >&3; /bin/echo c >&3; exec 3>&-"),
        ("pipe", "echo a | cat > pipe"),
        ("both", "{ echo a; echo b >&2; } > both 2>&1"),
        ("heredoc", "cat > heredoc <<< a"),
    ] {
        mount.bash(script).ok();
        assert_eq!(mount.versions(key), [1], "{script}");
        assert!(mount.read(key).starts_with("a\n"), "{script}");
    }
    assert_eq!(mount.read("group"), "a\nb\nc\n");
    assert_eq!(mount.read("exec"), "a\nb\nc\n");
    assert_eq!(mount.read("both"), "a\nb\n");
}

// C1, C2
#[test]
fn a_background_child_that_holds_the_file_is_waited_for() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old\n");
    let script = "import os, sys\nf = open('k', 'wb', 0)\nf.write(b'half ')\n\
                  if os.fork() == 0:\n sys.stdin.readline()\n f.write(b'whole\\n')\n f.close()\n os._exit(0)\n\
                  f.close()\nprint('closed', flush=True)\nos.wait()";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(Stdio::piped());
    let mut writer = mount.spawn(command);
    writer.printed(1);
    assert_eq!(mount.read("k"), "old\n", "the parent's close is not the last one");
    writer.send("go on");
    writer.wait().ok();
    assert_eq!(mount.read("k"), "half whole\n");
    assert_eq!(mount.versions("k"), [1, 2]);
}

// C1
#[test]
fn a_silent_child_that_outlives_the_close_is_waited_for() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old\n");
    mount.bash("{ sleep 0.3 & echo new; } > k; [ \"$(cat k)\" = old ] && wait && cat k").ok();
    // The child's exit is the last close; reading after it is no race.
    assert_eq!(mount.read("k"), "new\n");
    assert_eq!(mount.versions("k"), [1, 2]);
}

// C1
#[test]
fn closing_a_duplicate_commits_nothing_yet() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old");
    let mut file = File::create(mount.path("k")).expect("create");
    let duplicate = file.try_clone().expect("dup");
    file.write_all(b"one ").expect("write");
    drop(duplicate);
    assert_eq!(mount.read("k"), "old");
    file.write_all(b"two").expect("write");
    drop(file);
    assert_eq!(mount.read("k"), "one two");
    assert_eq!(mount.versions("k"), [1, 2]);
}

// C1, C2
#[test]
fn the_status_counts_at_which_moment_drafts_were_committed() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("echo one > a; cp a b; { echo two; echo three; } > c; dd if=a of=d conv=fsync status=none").ok();
    assert_eq!(mount.committed_at("close"), 3);
    assert_eq!(mount.committed_at("fsync"), 1);
    assert_eq!(mount.committed_at("release"), 0);
    assert_eq!(mount.status()["unseen"], 0);
    mount.bash("exec 3> e; echo half >&3; kill -9 $$");
    eventually("the killed one's draft is gone", || mount.status()["drops"] == 1);
}

#[test]
fn two_handles_of_one_process_each_have_their_own_draft() {
    let Some(mount) = Mount::new() else { return };
    let (mut one, mut two) = (File::create(mount.path("k")).expect("one"), File::create(mount.path("k")).expect("two"));
    one.write_all(b"first handle").expect("write");
    two.write_all(b"second").expect("write");
    drop(one);
    assert_eq!(mount.read("k"), "first handle");
    drop(two);
    assert_eq!(mount.read("k"), "second");
    assert_eq!(mount.versions("k"), [1, 2]);
}

// C4
#[test]
fn a_file_opened_and_closed_without_a_write_is_empty_once() {
    let Some(mount) = Mount::new() else { return };
    mount.bash(": > colon; touch touched; python3 -c 'open(\"made\", \"w\").close()'").ok();
    drop(OpenOptions::new().read(true).custom_flags(libc::O_CREAT).open(mount.path("for-reading")).expect("open"));
    for key in ["colon", "touched", "made", "for-reading"] {
        assert_eq!(mount.read(key), "", "{key}");
        assert_eq!(mount.versions(key), [1], "{key}");
    }
}

// C4
#[test]
fn truncating_at_open_and_closing_commits_the_empty_value() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "something");
    mount.bash(": > k").ok();
    assert_eq!(mount.read("k"), "");
    assert_eq!(mount.versions("k"), [1, 2]);
    mount.bash(": > k").ok();
    assert_eq!(mount.versions("k"), [1, 2], "truncating an empty value makes no version");
}

// C4
#[test]
fn opening_for_update_and_closing_unchanged_makes_no_version_and_no_conflict() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    mount.by("a", "echo x > k").ok();
    mount.by("b", "python3 -c 'open(\"k\", \"r+\").close(); open(\"k\", \"r+\").read()'").ok();
    mount.by("a", "exec 3<> k; exec 3>&-; touch k").ok();
    assert_eq!(mount.versions("k"), [1]);
}

// C5
#[test]
fn fsync_commits_and_the_handle_stays_writable() {
    let Some(mount) = Mount::new() else { return };
    let mut file = File::create(mount.path("k")).expect("create");
    file.write_all(b"one").expect("write");
    file.sync_all().expect("fsync");
    assert_eq!(mount.read("k"), "one");
    assert_eq!(fs::read(mount.stored("k")).expect("in the store"), b"one");
    file.write_all(b" two").expect("write");
    assert_eq!(mount.read("k"), "one");
    file.sync_data().expect("fdatasync");
    assert_eq!(mount.read("k"), "one two");
    drop(file);
    assert_eq!(mount.versions("k"), [1, 2]);
}

// C6
#[test]
fn a_killed_writers_draft_is_dropped_and_recorded() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old");
    let script =
        "import sys\nf = open('k', 'wb', 0)\nf.write(b'half')\nprint('written', flush=True)\nsys.stdin.readline()";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(Stdio::piped());
    let mut writer = mount.spawn(command);
    writer.printed(1);
    assert_eq!(writer.kill().code, None);
    assert_eq!(mount.read("k"), "old");
    assert_eq!(mount.versions("k").iter().max(), Some(&1));
    assert!(mount.log().iter().any(|line| line["op"] == "drop" && line["key"] == "k"), "{:?}", mount.log());
}

// C6: Python's buffer dies with it; what the open has emptied was to be filled.
#[test]
fn a_writer_killed_before_its_first_write_leaves_what_was_there() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old");
    let buffered = "import os\nf = open('{}', 'w')\nf.write('lost')\nos.kill(os.getpid(), 9)";
    for key in ["k", "new"] {
        assert_eq!(mount.python(&buffered.replace("{}", key)).code, None);
    }
    mount.bash("timeout -s KILL 0.2 sleep 60 > k; ( sleep 60 & kill $!; wait; echo filled ) > filled");
    assert_eq!(mount.read("k"), "old");
    assert_eq!(mount.names(""), ["filled", "k"]);
    assert_eq!(mount.read("filled"), "filled\n");
    assert_eq!(mount.status()["drops"], 3);
}

// C6: the files that a dying process holds are closed one after the other, and each close may take its time.
#[test]
fn a_draft_is_dropped_also_when_another_holder_closes_before_the_killed_writer() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old");
    let script = "import os, signal, time\nwriter = os.fork()\nif writer == 0:\n k = os.open('k', os.O_WRONLY | os.O_TRUNC)\n \
                  os.write(k, b'half')\n os.dup2(k, 100)\n holder = os.fork()\n if holder == 0: signal.pause()\n os.close(k)\n \
                  logs = [os.open(f'log{n}', os.O_WRONLY | os.O_APPEND | os.O_CREAT) for n in range(40)]\n \
                  [os.write(log, b'x') for log in logs]\n os.symlink(str(holder), os.environ['TMP'] + '/holder')\n \
                  signal.pause()\nwhile not os.path.lexists(os.environ['TMP'] + '/holder'): time.sleep(0.01)\n\
                  holder = int(os.readlink(os.environ['TMP'] + '/holder'))\n\
                  os.kill(writer, 9)\ntime.sleep(0.004)\nos.kill(holder, 15)\nos.waitpid(writer, 0)";
    mount.python(script).ok();
    assert_eq!(mount.read("k"), "old");
    assert_eq!(mount.status()["drops"], 1);
}

// C6, C9: to cut is to write.
#[test]
fn who_cuts_the_file_after_a_killed_writer_is_the_last_to_write() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    mount.bash(
        "exec 3> k; bash -c 'echo lost >&3; kill -9 $$'; \
                python3 -c 'import os; os.ftruncate(3, 2)'; exec 3>&-",
    );
    assert_eq!(mount.read("k"), "lo");
    mount.by("a", "echo mine > owned").ok();
    mount.by("b", "python3 -c 'import os; os.ftruncate(os.open(\"owned\", os.O_WRONLY), 1)'").refused("busy");
    assert_eq!(mount.read("owned"), "mine\n");
}

#[test]
fn a_killed_writers_draft_is_kept_where_the_mount_says_so() {
    let Some(mount) = Mount::with(&["--on-kill", "commit"]) else { return };
    let script = "import os\nf = open('k', 'wb', 0)\nf.write(b'half')\nos.kill(os.getpid(), 9)";
    assert_eq!(mount.python(script).code, None);
    assert_eq!(mount.read("k"), "half");
}

#[test]
fn an_exit_without_a_close_still_commits() {
    let Some(mount) = Mount::new() else { return };
    mount.python("import os\nf = open('k', 'wb', 0)\nf.write(b'whole')\nos._exit(3)");
    assert_eq!(mount.read("k"), "whole");
}

// C19
#[test]
fn what_was_closed_survives_the_death_of_the_daemon() {
    let Some(mut mount) = Mount::new() else { return };
    mount
        .bash("mkdir -p d/e; for i in 1 2 3; do echo $i > d/e/$i; done; echo log >> d/log; rm d/e/1; mv d/e/2 d/two")
        .ok();
    mount.by("a", "echo x > k").ok();
    mount.crash();
    assert_eq!(mount.names("d"), ["e", "log", "two"]);
    assert_eq!(mount.names("d/e"), ["3"]);
    assert_eq!(mount.read("d/two"), "2\n");
    assert_eq!(mount.read("d/log"), "log\n");
    assert_eq!(mount.writer_of("k"), "a");
}

#[test]
fn a_large_value_comes_whole() {
    let Some(mount) = Mount::new() else { return };
    let script = "head -c 70000000 /dev/urandom > \"$TMP/big\"; cp \"$TMP/big\" big && cmp \"$TMP/big\" big && \
                  dd if=\"$TMP/big\" of=big2 bs=300001 status=none && cmp \"$TMP/big\" big2";
    mount.bash(script).ok();
    assert_eq!(mount.versions("big"), [1]);
}

// C1, C2: to a daemon in a pid namespace of its own every caller outside has the id 0.
#[test]
fn where_no_caller_can_be_seen_nothing_half_written_shows_and_nothing_closed_is_missed() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can make a pid namespace");
        return;
    }
    let Some(mut mount) = Mount::new() else { return };
    mount.unmount();
    let mut command = mount.command(&["unshare", "--pid", "--fork", harness::BATONFS, "mount", "--foreground"]);
    command.current_dir("/").arg(mount.store()).arg(mount.point());
    let daemon = mount.spawn(command);
    eventually("it is mounted", || mount.path("").exists());
    let script = "import os, subprocess\nfd = os.open('k', os.O_WRONLY | os.O_CREAT)\nos.write(fd, b'half ')\n\
                  if os.fork() == 0: os._exit(0)\nos.wait()\nprint(os.path.exists('k'), subprocess.run(['ls']).returncode)\n\
                  os.write(fd, b'whole')\nos.close(fd)\nprint(open('k').read())\nlost = []\n\
                  for i in range(50):\n subprocess.run(['touch', f't{i}'])\n if not os.path.exists(f't{i}'): lost.append(i)\nprint(lost)";
    assert_eq!(mount.python(script).ok(), "False 0\nhalf whole\n[]\n");
    rustix::mount::unmount(mount.point(), rustix::mount::UnmountFlags::empty()).expect("unmount");
    daemon.wait().ok();
}

// C1: such a descriptor cannot write and is not counted, so its handle must not be either.
#[test]
fn a_name_made_by_an_open_for_reading_makes_no_commit_early() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os, sys\nmade = os.open('k', os.O_CREAT | os.O_RDONLY)\nfd = os.open('k', os.O_WRONLY)\nos.write(fd, b'half ')\n\
                  if os.fork() == 0:\n sys.stdin.readline()\n os.write(fd, b'whole')\n os._exit(0)\n\
                  os.close(fd)\nprint('closed', flush=True)\nos.wait()";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(Stdio::piped());
    let mut writer = mount.spawn(command);
    writer.printed(1);
    assert_eq!(fs::read_to_string(mount.path("k")).unwrap_or_default(), "", "half of it");
    writer.send("go on");
    writer.wait().ok();
    assert_eq!(mount.read("k"), "half whole");
}
