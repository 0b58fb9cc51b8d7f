//! Whose mount it is: read-only mounts, other users, owners on disk, refusals of the command.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::harness::{self, Mount, Ran, fails};

/// Runs a bash script in the session as an unprivileged user.
fn as_nobody(mount: &Mount, script: &str) -> Ran {
    let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", script];
    let mut command = mount.command(&words);
    command.current_dir("/").env("S", mount.path(""));
    mount.run(command)
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only root can act as another user");
    }
    root
}

// E4
#[test]
fn a_read_only_mount_refuses_every_change() {
    let Some(mut mount) = Mount::new() else { return };
    mount.bash("mkdir d; echo x > k").ok();
    mount.again(&["--read-only"]);
    assert_eq!(mount.read("k"), "x\n");
    fails(File::create(mount.path("new")), libc::EROFS);
    fails(OpenOptions::new().write(true).open(mount.path("k")), libc::EROFS);
    fails(OpenOptions::new().append(true).open(mount.path("k")), libc::EROFS);
    fails(fs::remove_file(mount.path("k")), libc::EROFS);
    fails(fs::rename(mount.path("k"), mount.path("l")), libc::EROFS);
    fails(fs::create_dir(mount.path("e")), libc::EROFS);
    fails(fs::create_dir(mount.point().join("t")), libc::EROFS);
    fails(fs::remove_dir(mount.path("d")), libc::EROFS);
    fails(
        fs::set_permissions(mount.path("k"), fs::metadata(mount.path("k")).expect("stat").permissions()),
        libc::EROFS,
    );
    mount.bash("truncate -s 0 k").refused("Read-only file system");
    mount.bash("cat \"$MNT/.baton/new\"").refused("Read-only file system");
    assert_eq!(mount.names(""), ["d", "k"]);
    assert_eq!(mount.read("k"), "x\n");
}

// M1
#[test]
fn others_stay_out_unless_they_are_let_in() {
    if !is_root() {
        return;
    }
    let Some(mount) = Mount::new() else { return };
    mount.bash("echo x > k; chmod 666 k").ok();
    as_nobody(&mount, "cat \"$S/k\"").refused("Permission denied");
}

#[test]
fn modes_hold_for_others_that_were_let_in() {
    if !is_root() {
        return;
    }
    let Some(mount) = Mount::with(&["--allow-other"]) else { return };
    mount.bash("echo secret > private; chmod 600 private; echo open > public; chmod 644 public").ok();
    as_nobody(&mount, "cat \"$S/private\"").refused("Permission denied");
    as_nobody(&mount, "/bin/echo mine > \"$S/public\"").refused("Permission denied");
    as_nobody(&mount, "/bin/echo mine > \"$S/new\"").refused("Permission denied");
    as_nobody(&mount, "rm -f \"$S/public\"").refused("Permission denied");
    assert_eq!(as_nobody(&mount, "cat \"$S/public\"").ok(), "open\n");
    assert_eq!(mount.read("public"), "open\n");
}

// M1
#[test]
fn new_keys_belong_to_the_caller_on_disk_too() {
    if !is_root() {
        return;
    }
    let Some(mount) = Mount::with(&["--allow-other"]) else { return };
    mount.bash("mkdir shared; chmod 1777 shared").ok();
    as_nobody(&mount, "cd \"$S/shared\"; echo x > k; mkdir d; echo y > d/k; echo z >> d/k").ok();
    for path in ["shared/k", "shared/d", "shared/d/k"] {
        assert_eq!(fs::metadata(mount.path(path)).expect("stat").uid(), 65534, "{path}");
        assert_eq!(fs::metadata(mount.stored(path)).expect("stat").uid(), 65534, "{path} in the store");
    }
    mount.bash("echo root > shared/root").ok();
    as_nobody(&mount, "rm -f \"$S/shared/root\"").refused("Operation not permitted");
    mount.bash("echo again > shared/k").ok();
    assert_eq!(fs::metadata(mount.path("shared/k")).expect("stat").uid(), 65534, "a rewrite keeps the owner");
}

// M1
#[test]
fn control_files_are_as_readable_as_their_session() {
    if !is_root() {
        return;
    }
    let Some(mount) = Mount::with(&["--allow-other"]) else { return };
    mount.bash("echo x > k; chmod 700 .").ok();
    as_nobody(&mount, "cat \"$S/.baton/log\"").refused("Permission denied");
}

// M1
#[test]
fn the_mount_says_nosuid_and_nodev_and_which_store_it_is() {
    let Some(mount) = Mount::new() else { return };
    let point = mount.point();
    let table = fs::read_to_string("/proc/mounts").expect("/proc/mounts");
    let line = table.lines().find(|line| line.split(' ').nth(1) == point.to_str()).expect("a line");
    let words: Vec<_> = line.split(' ').collect();
    // Root mounts without the helper that would add the name of the file system to its type.
    assert!(["fuse", "fuse.batonfs"].contains(&words[2]), "{line}");
    assert_eq!(words[0], mount.store().to_string_lossy());
    for option in ["nosuid", "nodev", "default_permissions"] {
        assert!(words[3].split(',').any(|o| o == option), "{option}: {line}");
    }
}

#[test]
fn a_store_is_not_mounted_into_itself() {
    let Some(mount) = Mount::new() else { return };
    let inner = mount.scratch().join("store/inner");
    fs::create_dir_all(&inner).expect("mkdir");
    let (store, inner) = (mount.scratch().join("store"), inner);
    let (store, inner) = (store.to_string_lossy(), inner.to_string_lossy());
    assert_ne!(mount.batonfs(&["mount", &store, &inner]).code, Some(0));
    assert_ne!(mount.batonfs(&["mount", &inner, &store]).code, Some(0));
    assert_ne!(mount.batonfs(&["mount", &store, &format!("{store}/none")]).code, Some(0), "no such mountpoint");
}

#[test]
fn a_store_is_served_once() {
    let Some(mount) = Mount::new() else { return };
    let second = mount.scratch().join("second");
    fs::create_dir(&second).expect("mkdir");
    let ran = mount.batonfs(&["mount", &mount.store().to_string_lossy(), &second.to_string_lossy()]);
    assert_eq!(ran.code, Some(7), "in use: {}", ran.err);
    mount.write("k", "the first still serves");
}

// M2
#[test]
fn umount_says_who_holds_an_open_draft() {
    let Some(mut mount) = Mount::new() else { return };
    let script =
        "import sys\nf = open('k', 'wb', 0)\nf.write(b'draft')\nprint('written', flush=True)\nsys.stdin.readline()";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(std::process::Stdio::piped());
    let mut holder = mount.spawn(command);
    holder.printed(1);
    let mut umount: Command =
        mount.command(&[env!("CARGO_BIN_EXE_batonfs"), "umount", &mount.point().to_string_lossy()]);
    umount.current_dir("/");
    let umount = mount.spawn(umount);
    holder.send("end");
    holder.wait().ok();
    drop(umount.wait());
    mount.again(&[]);
    assert_eq!(mount.read("k"), "draft");
}

// M1, C8
#[test]
fn a_name_that_another_user_is_making_is_theirs() {
    if !is_root() {
        return;
    }
    let Some(mount) = Mount::with(&["--allow-other"]) else { return };
    mount.bash("mkdir shared; chmod 1777 shared").ok();
    let script = "import os, sys\nfd = os.open('shared/k', os.O_CREAT | os.O_WRONLY, 0o600)\nos.write(fd, b'mine')\n\
                  print('written', flush=True)\nsys.stdin.readline()";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(std::process::Stdio::piped());
    let mut maker = mount.spawn(command);
    maker.printed(1);
    as_nobody(&mount, "/bin/echo theirs > \"$S/shared/k\"").refused("Permission denied");
    maker.send("go on");
    maker.wait().ok();
    assert_eq!((mount.read("shared/k"), mount.versions("shared/k")), ("mine".to_owned(), vec![1]));
}

// M1
#[test]
fn who_may_not_make_a_session_by_name_may_not_by_reading_new() {
    if !is_root() {
        return;
    }
    let Some(mount) = Mount::with(&["--allow-other"]) else { return };
    as_nobody(&mount, "mkdir \"$S/../by-name\"").refused("Permission denied");
    as_nobody(&mount, "cat \"$S/../.baton/new\"").refused("Permission denied");
    assert_eq!(fs::read_dir(mount.point()).expect("the sessions").count(), 1);
    mount.bash("cat ../.baton/new").ok();
}

// M1: whom a mount is for is asked where a path is opened, not where what was inherited is closed.
#[test]
fn who_has_inherited_a_descriptor_closes_it_as_any_user() {
    let Some(mount) = Mount::new() else { return };
    if !is_root() {
        return;
    }
    mount.bash("setpriv --reuid=65534 --clear-groups bash -c 'echo a; sleep 0.05; /bin/echo b' > k").ok();
    assert_eq!(mount.read("k"), "a\nb\n");
    let script = "import os\nfd = os.open('shared', os.O_RDWR | os.O_CREAT)\nos.write(fd, b'whole')\nif os.fork() == 0:\n os.setuid(65534)\n \
                  os.write(fd, b'!')\n print(os.lseek(fd, 0, os.SEEK_END), os.pread(fd, 9, 0), flush=True)\n os.close(fd)\n os._exit(0)\nos.wait()";
    assert_eq!(mount.python(script).ok(), "6 b'whole!'\n");
    assert_eq!((mount.read("shared"), mount.versions("shared")), ("whole!".to_owned(), vec![1]));
    assert_eq!(mount.committed_at("release"), 0);
}

// M1: in a mount namespace of its own, where the device is for everyone, as it is on most machines.
#[test]
fn who_is_not_root_mounts_with_the_help_of_fusermount() {
    let Some(mount) = Mount::new() else { return };
    if !is_root() {
        return;
    }
    let script = "set -e\ncd $TMP\ncp $BATONFS batonfs\nmkdir 'a, store' mnt\nchmod 755 .\nchown 65534 'a, store' mnt\n\
                  mknod -m 666 fuse c 10 229\nmount --bind fuse /dev/fuse\n\
                  as='setpriv --reuid=65534 --regid=65534 --clear-groups'\n$as ./batonfs mount 'a, store' mnt\n\
                  grep -o 'fuse.batonfs rw,nosuid,nodev.*user_id=65534' /proc/self/mounts | tail -n 1\n\
                  $as bash -c 'mkdir mnt/s; echo mine > mnt/s/k'\ncat mnt/s/k || echo not for root\n$as ./batonfs umount mnt\n\
                  cat 'a, store/s/k'";
    let ran = mount.run(mount.command(&["unshare", "--mount", "bash", "-c", script]));
    let expected = "fuse.batonfs rw,nosuid,nodev,relatime,user_id=65534\nnot for root\nmine\n";
    assert_eq!(ran.ok(), expected);
}
