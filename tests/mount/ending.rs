//! M2: what programs meet that go on working while the mount ends under them.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::harness::{self, Mount, Running, eventually};

/// Starts a script in the session, and once it has said "ready" and `before` is done, tells the daemon to end and the
/// script to go on.
fn ended_under(mount: &Mount, script: &str, before: impl FnOnce()) -> Running {
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(Stdio::piped());
    let mut program = mount.spawn(command);
    program.printed(1);
    before();
    let daemon = mount.daemons().first().copied().expect("a daemon").to_string();
    mount.run(mount.command(&["kill", "-TERM", &daemon])).ok();
    program.send("go on");
    program
}

// C7, M2, E2: the end takes its while where it drops many drafts.
#[test]
fn what_the_end_of_the_mount_refuses_to_fill_is_neither_emptied_nor_made() {
    let Some(mount) = Mount::with(&["--wait", "0"]) else { return };
    let keys = ["open", "emptied", "cut", "by_path", "half"];
    keys.iter().for_each(|key| mount.write(key, "old value"));
    let script = "import os\nopened = os.open('open', os.O_RDWR)\nhalf = os.open('half', os.O_WRONLY | os.O_TRUNC)\nos.write(half, b'new ')\n\
                  for n in range(300): os.write(os.open(f'draft{n}', os.O_WRONLY | os.O_CREAT), b'draft')\n\
                  logs = {os.open(f'log{n}', os.O_WRONLY | os.O_CREAT | os.O_APPEND): 1 for n in range(20)}\nfor log in logs: os.write(log, b'line\\n')\n\
                  print('ready', flush=True)\ninput()\n\
                  def taken(work, *given):\n try: return work(*given) is not False\n except OSError: return False\n\
                  while taken(os.pwrite, opened, b'O', 0):\n for log in logs: logs[log] += taken(os.write, log, b'line\\n')\n\
                  for log in logs: logs[log] += taken(os.write, log, b'line\\n')\n\
                  for key, flags in ('emptied', os.O_TRUNC), ('new', os.O_CREAT), ('cut', 0):\n \
                  try: fd = os.open(key, os.O_WRONLY | flags)\n except OSError: continue\n \
                  print(key, taken(os.write, fd, b'new value'), taken(os.close, fd), flush=True)\n\
                  print(taken(os.ftruncate, opened, 0), taken(os.close, opened), taken(os.truncate, 'by_path', 0),\n \
                  taken(os.write, half, b'value'), taken(os.close, half))\nprint(*logs.values(), flush=True)\nos._exit(0)";
    let said = ended_under(&mount, script, || ()).wait().ok();
    assert!(!said.contains("True"), "{said}");
    eventually("the daemon has ended", || mount.daemons().is_empty());
    for key in keys {
        assert_eq!(fs::read_to_string(mount.stored(key)).expect("a value"), "old value", "{key}");
    }
    assert!(!mount.stored("new").exists());
    for (log, lines) in said.lines().last().expect("the counts").split(' ').enumerate() {
        let log = fs::read_to_string(mount.stored(&format!("log{log}"))).unwrap_or_default();
        assert_eq!(log.lines().count().to_string(), lines, "a line that was taken is kept, and no other");
    }
}

// C8, M2: a lock file that one has made and another filled.
#[test]
fn what_another_commit_has_made_needless_is_neither_waited_for_nor_dropped() {
    let Some(mut mount) = Mount::with(&["--wait", "0"]) else { return };
    let script = "import os\nfd = os.open('lock', os.O_RDWR | os.O_CREAT)\nos.system('echo filled > lock')\n\
                  print('ready', flush=True)\ninput()\ninput()";
    let mut holder = ended_under(&mount, script, || assert_eq!(mount.status()["drafts"], 0));
    eventually("the daemon has ended", || mount.daemons().is_empty());
    holder.send("end");
    holder.wait().ok();
    mount.again(&[]);
    assert_eq!(mount.read("lock"), "filled\n");
    assert!(mount.log().iter().all(|line| line["op"] != "drop"), "{:?}", mount.log());
}

/// Of the journal.
fn generation(mount: &Mount) -> u64 {
    let journal = fs::read(mount.store().join(".baton/journal")).expect("the journal");
    let at = |at: usize| u64::from_le_bytes(journal[at..at + 8].try_into().expect("eight bytes"));
    at(16).max(at(4096 + 16))
}

// F62
#[test]
fn f62_what_was_committed_is_in_its_place_for_good_before_the_mount_ends() {
    // Where it takes long until the value is there, the second one is waited for.
    let Some(mount) = Mount::lasting(Duration::from_secs(60)) else { return };
    let before = generation(&mount);
    mount.write("k", "a value");
    assert_eq!(generation(&mount), before, "a commit makes none");
    eventually("a checkpoint is made", || generation(&mount) > before);
    assert_eq!(mount.bash("cat k; echo more >> k; cat k").ok(), "a valuea valuemore\n");
}
