//! C6 as people meet it: supervisors, terminals and pipelines that end a writer, and the death of the daemon itself.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::harness::{self, Mount, Running, eventually};

/// Waits until the writer has written and said so by a file; `$m` names it.
const WRITTEN: &str = "until [ -e \"$m\" ]; do sleep 0.01; done";

/// Plays a script on a key that holds "old", named by `$k`. The value afterwards, and how many drafts were dropped.
fn play(mount: &Mount, script: &str) -> (String, u64) {
    let before = drops(mount);
    mount.write("k", "old\n");
    let marker = mount.scratch().join("written");
    drop(fs::remove_file(&marker));
    let mut command = mount.command(&["bash", "-c", script]);
    command.env("k", "k").env("m", &marker).env("python", harness::python());
    mount.run(command);
    // Who was killed beside the one that was waited for may still be closing its files.
    eventually("nothing is open", || mount.status()["drafts"] == 0);
    (mount.read("k"), drops(mount) - before)
}

fn drops(mount: &Mount) -> u64 {
    mount.status()["drops"].as_u64().expect("a counter")
}

// C6
#[test]
fn what_a_supervisor_or_a_terminal_ends_is_dropped() {
    let Some(mount) = Mount::new() else { return };
    for script in [
        "timeout 0.2 bash -c 'echo half; exec sleep 60' > $k",
        "timeout 0.2 bash -c 'echo half; sleep 60; :' > $k",
        "timeout -s KILL 0.2 bash -c 'echo half; exec sleep 60' > $k",
        "timeout -k 0.1 0.1 bash -c 'trap \"\" TERM; echo half; while :; do :; done' > $k",
        "$python -c 'import subprocess\nwith open(\"k\", \"w\") as f:\n try: subprocess.run([\"bash\", \"-c\", \
         \"echo half; exec sleep 60\"], stdout=f, timeout=0.2)\n except subprocess.TimeoutExpired: pass'",
        "set -m; { echo half; : > $m; exec sleep 60; } > $k & WRITTEN; kill %1; wait",
        "set -m; { echo half; : > $m; sleep 60; :; } > $k & WRITTEN; kill -INT -- -$!; wait",
        "set -m; { echo half; : > $m; sleep 60; :; } > $k & WRITTEN; kill -HUP -- -$!; wait",
        "mkfifo $TMP/p; exec 4<> $TMP/p; cat $TMP/p > $k & echo half >&4; sleep 0.3; kill $!; wait; exec 4>&-; rm $TMP/p",
        "yes | tee $k | head -n 1",
        "{ bash -c 'echo half; kill -9 $$'; true; } > $k",
        "bash -c 'ulimit -f 1; trap - XFSZ; echo half; head -c 100000 /dev/zero' > $k",
    ] {
        let outcome = play(&mount, &script.replace("WRITTEN", WRITTEN));
        assert_eq!(outcome, ("old\n".to_owned(), 1), "{script}");
    }
}

// C6: their files are closed in any order, and whoever comes first finds that nobody has a descriptor any more.
#[test]
fn a_writer_killed_together_with_everyone_who_holds_the_file_leaves_the_old_value() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old");
    let script = "import os, signal\nfor n in range(40):\n top = os.fork()\n if top == 0:\n  os.setpgrp()\n  \
                  fd = os.open('k', os.O_WRONLY | os.O_TRUNC)\n  read, write = os.pipe()\n  \
                  for child in range(4):\n   if os.fork() == 0:\n    if child == n % 4: os.write(fd, b'half')\n    \
                  os.write(write, b'.')\n    signal.pause()\n  \
                  for child in range(4): os.read(read, 1)\n  os.killpg(0, signal.SIGKILL if n % 2 else signal.SIGTERM)\n os.wait()\n";
    mount.python(script).ok();
    eventually("every draft is gone", || mount.status()["drafts"] == 0);
    assert_eq!((mount.read("k"), mount.versions("k"), drops(&mount)), ("old".to_owned(), vec![1], 40));
}

// C6
#[test]
fn what_a_writer_ends_by_itself_stays_whatever_becomes_of_it_or_of_others() {
    let Some(mount) = Mount::new() else { return };
    for (script, value) in [
        ("bash -c 'echo whole > $k; kill -9 $$'", "whole\n"),
        ("bash -c 'exec 3> $k; echo whole >&3; exec 3>&-; kill -9 $$'", "whole\n"),
        ("(echo whole > $k; : > $m; exec sleep 60) & WRITTEN; kill -9 $!; wait", "whole\n"),
        (
            "bash -c 'trap \"echo whole; exit\" TERM; echo half; : > $m; while :; do sleep 0.01; done' > $k & \
             WRITTEN; kill $!; wait",
            "half\nwhole\n",
        ),
        ("bash -c 'trap \"\" TERM INT; kill -TERM $$; kill -INT $$; echo whole' > $k", "whole\n"),
        ("yes | head -n 1 > $k", "y\n"),
        ("{ bash -c 'echo half; kill -9 $$'; echo rest; } > $k", "half\nrest\n"),
        ("{ echo whole; bash -c 'kill -9 $$'; } > $k", "whole\n"),
        ("{ echo whole; sleep 60 & kill $!; wait; } > $k", "whole\n"),
        ("timeout 60 bash -c 'echo whole' > $k", "whole\n"),
        ("bash -c 'kill -9 $$'; echo whole > $k", "whole\n"),
        ("{ echo whole; timeout 0.1 sleep 60; } > $k", "whole\n"),
        ("bash -c 'echo whole > $k.tmp; mv $k.tmp $k; kill -9 $$'", "whole\n"),
        (
            "$python -c 'import os\nfd = os.open(\"k\", os.O_WRONLY | os.O_TRUNC)\nos.write(fd, b\"whole\\n\")\n\
             os.fsync(fd)\nos.kill(os.getpid(), 9)'",
            "whole\n",
        ),
    ] {
        let outcome = play(&mount, &script.replace("WRITTEN", WRITTEN));
        assert_eq!(outcome, (value.to_owned(), 0), "{script}");
    }
}

// C6: a signal is all that tells half from whole, so these are what the rule gets wrong.
#[test]
fn the_signal_decides_and_not_what_was_meant() {
    let Some(mount) = Mount::new() else { return };
    // All of it was there, but nobody had closed the file.
    let whole = "bash -c 'exec 3> $k; echo whole >&3; kill -9 $$'";
    assert_eq!(play(&mount, whole), ("old\n".to_owned(), 1));
    // Python closes its files on the way out, and then ends itself by the signal.
    let half = "$python -c 'import os, signal\nf = open(\"k\", \"w\")\nf.write(\"half\")\n\
                signal.raise_signal(signal.SIGINT)'; [ $? = 130 ]";
    assert_eq!(play(&mount, half), ("half".to_owned(), 0));
    let half = "$python -c 'with open(\"k\", \"w\") as f:\n f.write(\"half\")\n raise ValueError'";
    assert_eq!(play(&mount, half), ("half".to_owned(), 0));
}

// C1, C6
#[test]
fn a_child_that_outlives_its_killed_parent_is_waited_for_and_the_half_value_is_dropped_then() {
    let Some(mount) = Mount::new() else { return };
    let script = "(echo half; sleep 60 & echo $! > $m.pid; mv $m.pid $m; wait) > $k & WRITTEN; kill -9 $!; wait; \
                  [ \"$(cat $k)\" = old ] && [ $(jq .mount.drafts $MNT/.baton/status) = 1 ] && kill $(cat $m); \
                  until [ $(jq .mount.drafts $MNT/.baton/status) = 0 ]; do sleep 0.01; done";
    assert_eq!(play(&mount, &script.replace("WRITTEN", WRITTEN)), ("old\n".to_owned(), 1));
}

// C6, H2
#[test]
fn half_a_handoff_is_refused_even_where_half_a_value_is_kept() {
    let Some(mount) = Mount::with(&["--on-kill", "commit"]) else { return };
    mount.bash("echo '{\"a\": 1}' > __handoff.json; bash -c 'exec 3> __handoff.json; echo \"{\" >&3; kill -9 $$'");
    assert!(mount.read("__handoff.json").contains("\"a\""), "the previous handoff stays");
    assert!(mount.errors().contains("__handoff.json"), "{}", mount.errors());
    assert_eq!(mount.status()["drafts"], 0);
}

// C6
#[test]
fn a_core_dump_onto_the_mount_hangs_nobody_and_the_draft_is_dropped() {
    let Some(mount) = Mount::new() else { return };
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.starts_with(['|', '/']) {
        eprintln!("SKIPPED: core dumps go to {pattern}");
        return;
    }
    let script = "bash -c 'ulimit -c unlimited; exec 3> $k; echo half >&3; kill -SEGV $$'; ls core*";
    assert_eq!(play(&mount, script), ("old\n".to_owned(), 1));
    let names = mount.names("");
    let dumped = names.iter().find(|name| name.starts_with("core")).expect("a core dump");
    assert!(fs::read(mount.path(dumped)).expect("the core").starts_with(b"\x7fELF"));
}

// C6
#[test]
fn a_writer_that_runs_out_of_its_groups_memory_leaves_the_old_value() {
    let Some(mount) = Mount::new() else { return };
    let Some(group) = Group::new(&format!("batonfs-{}", std::process::id())) else {
        eprintln!("SKIPPED: no memory control group can be made here");
        return;
    };
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec $python -c 'import os\nfd = os.open(\"k\", os.O_WRONLY | os.O_TRUNC)\nhold = []\n\
         while True: os.write(fd, b\"half\"); hold.append(b\"x\" * (1 << 20))'",
        group.0
    );
    assert_eq!(play(&mount, &script), ("old\n".to_owned(), 1));
}

/// A memory control group with little memory, removed when dropped.
#[derive(Debug)]
struct Group(String);

impl Group {
    fn new(name: &str) -> Option<Self> {
        let settings = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.swappiness"),
            ("/sys/fs/cgroup", "memory.max", "memory.swap.max"),
        ];
        settings.into_iter().find_map(|(root, limit, swap)| {
            let group = Self(format!("{root}/{name}"));
            fs::create_dir(&group.0).ok()?;
            drop(fs::write(format!("{}/{swap}", group.0), "0"));
            // An ordinary directory would take it too, so the limit must have been there.
            let limit = format!("{}/{limit}", group.0);
            (Path::new(&limit).exists() && fs::write(&limit, "67108864").is_ok()).then_some(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        eventually("the control group is empty", || match fs::remove_dir(&self.0) {
            Ok(()) => true,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        });
    }
}

/// A process that has written to a key by each kind of open, and holds them all until it is sent a line. Then it prints
/// which of its closes failed.
fn holder_of_every_kind(mount: &Mount) -> Running {
    let script = "import os, sys\nfds = {}\ndef hold(key, flags, text):\n fds[key] = os.open(key, flags)\n os.write(fds[key], text)\n\
                  hold('new', os.O_WRONLY | os.O_CREAT | os.O_EXCL, b'draft')\nhold('emptied', os.O_WRONLY | os.O_TRUNC, b'draft')\n\
                  hold('edited', os.O_RDWR, b'draft')\nhold('large', os.O_WRONLY | os.O_TRUNC, b'draft' * 8000000)\n\
                  hold('__handoff.json', os.O_WRONLY | os.O_TRUNC, b'{\"draft\": 1}')\n\
                  hold('half.tmp', os.O_WRONLY | os.O_CREAT | os.O_EXCL, b'draft')\n\
                  hold('moved.tmp', os.O_WRONLY | os.O_CREAT | os.O_EXCL, b'draft')\nos.rename('moved.tmp', 'moved')\n\
                  hold('synced', os.O_WRONLY | os.O_TRUNC, b'kept')\nos.fsync(fds['synced'])\nos.write(fds['synced'], b' draft')\n\
                  hold('log', os.O_WRONLY | os.O_APPEND, b'kept\\n')\nos.fsync(fds['log'])\n\
                  print('written', flush=True)\nsys.stdin.readline()\nfailed = []\n\
                  for key, fd in fds.items():\n try: os.close(fd)\n except OSError: failed.append(key)\nprint(len(fds), *failed)";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(Stdio::piped()).env("BATON_WRITER_ID", "holder");
    let mut holder = mount.spawn(command);
    holder.printed(1);
    holder
}

// C5, C6, C8, C10, C19
#[test]
fn drafts_die_with_the_daemon_and_every_committed_value_is_there() {
    let Some(mut mount) = Mount::new() else { return };
    let keys = ["edited", "emptied", "large", "log", "moved", "synced"];
    let old = format!(
        "for key in {}; do echo old $key > $key; done; echo '{{\"is\": \"old\"}}' > __handoff.json",
        keys.join(" ")
    );
    mount.by("before", &old).ok();
    let mut holder = holder_of_every_kind(&mount);
    mount.crash();
    holder.send("go on");
    let closed = holder.wait().ok();
    let failed = closed.lines().last().expect("a line");
    assert_eq!(
        failed, "9 new emptied edited large __handoff.json half.tmp moved.tmp synced log",
        "a close that kept nothing was told so"
    );
    let mut names = keys.map(str::to_owned).to_vec();
    names.insert(0, "__handoff.json".to_owned());
    assert_eq!(mount.names(""), names, "no name is left of what was new");
    for key in ["edited", "emptied", "large", "moved"] {
        assert_eq!((mount.read(key), mount.versions(key)), (format!("old {key}\n"), vec![1]));
        assert_eq!(mount.writer_of(key), "before");
    }
    assert_eq!((mount.read("synced"), mount.versions("synced")), ("kept".to_owned(), vec![1, 2]));
    assert_eq!(mount.writer_of("synced"), "holder");
    assert_eq!(mount.read("log"), "old log\nkept\n");
    assert!(mount.read("__handoff.json").contains("old"));
    mount.by("later", "for key in new half.tmp moved large; do echo later > $key; done").ok();
    for key in ["new", "half.tmp", "moved", "large"] {
        assert_eq!((mount.read(key), mount.writer_of(key)), ("later\n".to_owned(), "later".to_owned()));
    }
    assert_eq!(mount.status()["drafts"], 0);
}
