//! C14: mode, owner, times and user xattrs live on across versions; and the attributes that are ours.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, UNIX_EPOCH};

use crate::harness::{Mount, fails};

#[test]
fn the_mode_survives_a_rewrite() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("echo one > k; chmod 640 k; echo two > k; echo three >> k").ok();
    assert_eq!(fs::metadata(mount.path("k")).expect("stat").mode() & 0o7777, 0o640);
    assert_eq!(fs::metadata(mount.stored("k")).expect("stat").mode() & 0o7777, 0o640);
    assert_eq!(mount.versions("k"), [1, 2, 3], "chmod makes no version");
}

#[test]
fn the_umask_is_heard() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("umask 077; echo x > k; mkdir d; umask 002; echo x > group").ok();
    let mode = |key: &str| fs::metadata(mount.path(key)).expect("stat").mode() & 0o7777;
    assert_eq!((mode("k"), mode("d"), mode("group")), (0o600, 0o700, 0o664));
}

#[test]
fn user_xattrs_survive_a_rewrite() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os\nopen('k', 'w').write('one')\nos.setxattr('k', 'user.color', b'blue')\n\
                  open('k', 'w').write('two')\nprint(os.getxattr('k', 'user.color'), os.listxattr('k'))\n\
                  os.removexattr('k', 'user.color')\nprint(os.listxattr('k'))";
    assert_eq!(mount.python(script).ok(), "b'blue' ['user.color']\n[]\n");
}

// E3
#[test]
fn our_xattrs_are_read_only_and_not_listed() {
    let Some(mount) = Mount::new() else { return };
    mount.by("a", "echo one > k; echo two > k").ok();
    assert_eq!(mount.xattr("k", "user.baton.version").as_deref(), Some("2"));
    assert_eq!(mount.xattr("k", "user.baton.writer_id").as_deref(), Some("a"));
    assert_eq!(mount.xattr("k", "user.baton.session_id").as_deref(), Some("s"));
    assert!(mount.xattr("k", "user.baton.committed_at").is_some());
    let set = rustix::fs::setxattr(mount.path("k"), "user.baton.writer_id", b"b", rustix::fs::XattrFlags::empty());
    fails(set.map_err(std::io::Error::from), libc::ENOTSUP);
    assert_eq!(mount.python("import os\nprint(os.listxattr('k'))").ok(), "[]\n");
}

// C14
#[test]
fn the_time_is_that_of_the_last_write_unless_set_afterwards() {
    let Some(mount) = Mount::new() else { return };
    let old = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let mut file = File::create(mount.path("k")).expect("create");
    file.write_all(b"x").expect("write");
    file.set_times(FileTimes::new().set_modified(old)).expect("futimens");
    drop(file);
    let modified = || fs::metadata(mount.path("k")).expect("stat").modified().expect("mtime");
    assert_eq!(modified(), old, "a time set on the draft is the version's");
    mount.write("k", "y");
    assert!(modified() > old, "a write is newer than a time set before it");
    mount.bash("touch -d @1000000000 k").ok();
    assert_eq!(modified(), old);
    assert_eq!(mount.versions("k"), [1, 2], "touch makes no version of an existing key");
}

#[test]
fn cp_a_keeps_mode_and_time() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("echo x > \"$TMP/f\"; chmod 604 \"$TMP/f\"; touch -d @1000000000.5 \"$TMP/f\"; cp -a \"$TMP/f\" k").ok();
    let stat = fs::metadata(mount.path("k")).expect("stat");
    assert_eq!((stat.mode() & 0o7777, stat.mtime(), stat.mtime_nsec()), (0o604, 1_000_000_000, 500_000_000));
    mount.bash("cp -a k \"$TMP/back\"; cmp k \"$TMP/back\"; [ $(stat -c %Y \"$TMP/back\") = 1000000000 ]").ok();
}

#[test]
fn attributes_survive_a_remount() {
    let Some(mut mount) = Mount::new() else { return };
    mount.bash("mkdir d; chmod 750 d; echo x > d/k; chmod 600 d/k").ok();
    mount.python("import os\nos.setxattr('d/k', 'user.color', b'blue')").ok();
    mount.again(&[]);
    let mode = |key: &str| fs::metadata(mount.path(key)).expect("stat").permissions();
    assert_eq!(mode("d").mode() & 0o7777, 0o750);
    assert_eq!(mode("d/k"), Permissions::from_mode(0o100_600));
    assert_eq!(mount.xattr("d/k", "user.color").as_deref(), Some("blue"));
}

#[test]
fn owners_can_be_given_where_the_kernel_lets_them() {
    let Some(mount) = Mount::new() else { return };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give files away");
        return;
    }
    mount.bash("echo x > k; chown 1234:2345 k; echo y > k").ok();
    for path in [mount.path("k"), mount.stored("k")] {
        let stat = fs::metadata(path).expect("stat");
        assert_eq!((stat.uid(), stat.gid()), (1234, 2345));
    }
}

// E3, C14: a change that is committed and then does not fit would stand in the way of all that follow.
#[test]
fn more_xattrs_than_a_file_has_room_for_are_refused_and_harm_nothing() {
    let Some(mut mount) = Mount::new() else { return };
    let script = "import os\nopen('k', 'w').close()\nos.mkdir('d')\nfd = os.open('new', os.O_CREAT | os.O_WRONLY)\n\
                  def refusal(at, name, size):\n try: os.setxattr(at, name, b'v' * size)\n \
                  except OSError as e: return e.errno\n\
                  print([refusal('k', f'user.k{i}', 600) for i in range(4)], [refusal(fd, f'user.{i}', 600) for i in range(4)],\n \
                  refusal('k', 'user.', 1), refusal('k', 'user.big', 5000), refusal('d', 'user.x', 1))\n\
                  os.removexattr('k', 'user.k0')\nos.close(fd)";
    let (full, none) = (libc::ENOSPC, libc::ENOTSUP);
    let each = format!("[None, None, None, {full}]");
    assert_eq!(mount.python(script).ok(), format!("{each} {each} {none} {} {none}\n", libc::E2BIG));
    mount.write("other", "x");
    mount.again(&[]);
    assert_eq!(mount.read("other"), "x");
    assert_eq!(mount.xattr("k", "user.k2").map(|value| value.len()), Some(600));
}

// E3
#[test]
fn foreign_namespaces_are_not_supported_rather_than_forbidden() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "x");
    let script = "import os\nfor name in 'trusted.x', 'security.x':\n \
                  try: os.setxattr('k', name, b'x')\n except OSError as e: print(e.errno)";
    assert_eq!(mount.python(script).ok(), format!("{0}\n{0}\n", libc::ENOTSUP));
}

// C11, C14: a lock file is looked at this way: is the one I hold still the one that has the name?
#[test]
fn fstat_shows_that_a_file_has_lost_its_name_and_nothing_else_of_it() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os\nfd = os.open('k', os.O_RDWR | os.O_CREAT, 0o600)\nnew = os.open('n', os.O_RDWR | os.O_CREAT, 0o640)\n\
                  os.write(fd, b'x')\nos.fsync(fd)\nseen = lambda fd: (oct(os.fstat(fd).st_mode), os.fstat(fd).st_nlink)\n\
                  print(seen(fd), seen(new))\nos.unlink('k')\nos.unlink('n')\nprint(seen(fd), seen(new), os.fstat(fd).st_size)";
    assert_eq!(mount.python(script).ok(), "('0o100600', 1) ('0o100640', 1)\n('0o100600', 0) ('0o100640', 0) 1\n");
}
