//! M2: what programs meet that go on working while the mount ends under them.

use std::fs;
use std::process::Stdio;

use crate::harness::{self, Mount, Running, eventually};

/// Starts a script in the session, and once it has said "ready", ends the mount. It keeps the session with the kernel
/// while it is there; on from `input()` it works in a mount that is ending.
fn ended_under(mount: &Mount, script: &str) -> Running {
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(Stdio::piped());
    let mut program = mount.spawn(command);
    program.printed(1);
    let daemon = mount.daemons().first().copied().expect("a daemon").to_string();
    mount.run(mount.command(&["kill", "-TERM", &daemon])).ok();
    eventually("nothing is mounted any more", || !mount.path("").exists());
    program
}

// M2, E2
#[test]
fn what_the_end_of_the_mount_refuses_to_fill_is_neither_emptied_nor_made() {
    let Some(mount) = Mount::with(&["--wait", "0"]) else { return };
    let keys = ["open", "emptied", "cut", "by_path", "half"];
    keys.iter().for_each(|key| mount.write(key, "old value"));
    let script = "import errno, os\nopened = os.open('open', os.O_RDWR)\nhalf = os.open('half', os.O_WRONLY | os.O_TRUNC)\n\
                  os.write(half, b'new ')\nprint('ready', flush=True)\ninput()\n\
                  def says(work, *given):\n try: return work(*given)\n except OSError as e: return errno.errorcode[e.errno]\n\
                  def rewrite(key, flags):\n fd = says(os.open, key, os.O_WRONLY | flags)\n \
                  print(key, fd if isinstance(fd, str) else (says(os.write, fd, b'new value'), says(os.close, fd)))\n\
                  rewrite('emptied', os.O_TRUNC)\nrewrite('new', os.O_CREAT)\nrewrite('cut', 0)\n\
                  print('open', says(os.ftruncate, opened, 0), says(os.close, opened))\n\
                  print('by_path', says(os.truncate, 'by_path', 0))\nprint('half', says(os.write, half, b'value'), says(os.close, half))";
    let mut program = ended_under(&mount, script);
    program.send("go on");
    let said = "ready\nemptied EIO\nnew EIO\ncut ('EIO', 'EIO')\nopen EIO EIO\nby_path EIO\nhalf EIO EIO\n";
    assert_eq!(program.wait().ok(), said);
    eventually("the daemon has ended", || mount.daemons().is_empty());
    for key in keys {
        assert_eq!(fs::read_to_string(mount.stored(key)).expect("a value"), "old value", "{key}");
    }
    assert!(!mount.stored("new").exists());
}
