//! The tree: sessions, directories, names, and what this filesystem does not have.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::harness::{self, Mount, fails};

// T2
#[test]
fn making_a_session_is_mkdir_and_making_it_again_is_refused() {
    let Some(mount) = Mount::new() else { return };
    let session = mount.point().join("t");
    fails(fs::metadata(&session), libc::ENOENT);
    fs::create_dir(&session).expect("mkdir");
    fails(fs::create_dir(&session), libc::EEXIST);
    mount.bash("mkdir -p \"$MNT/t\" && mkdir -p \"$MNT/u/a/b\" && echo x > \"$MNT/u/a/b/k\"").ok();
    assert!(mount.store().join("u/a/b/k").is_file());
    fails(File::create(mount.point().join("none/k")), libc::ENOENT);
}

// T8
#[test]
fn a_session_that_comes_and_goes_beside_the_mount_does_so_on_the_mount() {
    let Some(mount) = Mount::new() else { return };
    let (beside, session) = (mount.store().join("t"), mount.point().join("t"));
    fails(fs::metadata(&session), libc::ENOENT);
    fs::create_dir(&beside).expect("mkdir");
    fs::write(beside.join("k"), "x").expect("a value");
    assert_eq!(fs::read_to_string(session.join("k")).expect("the value"), "x");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o700)).expect("chmod");
    harness::eventually("its mode is seen", || fs::metadata(&session).is_ok_and(|stat| stat.mode() & 0o777 == 0o700));
    fs::remove_dir_all(&beside).expect("rm -r");
    fails(File::open(session.join("k")), libc::ENOENT);
    fs::create_dir(&session).expect("what has gone can be made again, however lately it was seen");
    fs::remove_dir_all(&beside).expect("rm -r");
    harness::eventually("it is seen to be gone", || fs::metadata(&session).is_err());
}

// T8, C17
#[test]
fn a_value_beside_the_mount_in_the_place_of_a_directory_is_read_at_the_next_open() {
    let Some(mount) = Mount::new() else { return };
    for n in 0..20 {
        mount.bash(&format!("mkdir d{n} && stat d{n} && ls d{n}")).ok();
        fs::remove_dir(mount.stored(&format!("d{n}"))).expect("rmdir");
        fs::write(mount.stored("tmp"), "value").expect("a temporary file");
        fs::rename(mount.stored("tmp"), mount.stored(&format!("d{n}"))).expect("rename");
        assert_eq!(mount.read(&format!("d{n}")), "value");
    }
}

// T1
#[test]
fn the_root_takes_directories_only() {
    let Some(mount) = Mount::new() else { return };
    fails(File::create(mount.point().join("file")), libc::EPERM);
    mount.write("k", "x");
    assert!(fs::rename(mount.path("k"), mount.point().join("k")).is_err());
    assert_eq!(mount.read("k"), "x");
}

// T4
#[test]
fn only_files_and_directories_can_be_made() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "x");
    fails(std::os::unix::fs::symlink("k", mount.path("link")), libc::EPERM);
    fails(fs::hard_link(mount.path("k"), mount.path("hard")), libc::EPERM);
    fails(std::os::unix::net::UnixListener::bind(mount.path("sock")), libc::EPERM);
    mount.bash("mkfifo fifo").refused("Operation not permitted");
    if rustix::process::geteuid().is_root() {
        mount.bash("mknod device c 1 3").refused("Operation not permitted");
    }
    assert_eq!(mount.names(""), ["k"]);
    mount.python("import os, stat\nos.mknod('node', stat.S_IFREG | 0o600)\nassert os.stat('node').st_size == 0").ok();
}

// T5
#[test]
fn names_over_250_bytes_are_refused_at_create() {
    let Some(mount) = Mount::new() else { return };
    let (fits, over) = ("n".repeat(250), "n".repeat(251));
    mount.write(&fits, "x");
    assert_eq!(mount.read(&fits), "x");
    assert_eq!(mount.writer_of(&fits), harness::SESSION);
    mount.bash(&format!("mv {fits} short; mv short {fits}; echo y > {fits}")).ok();
    fails(File::create(mount.path(&over)), libc::ENAMETOOLONG);
    fails(fs::create_dir(mount.path(&over)), libc::ENAMETOOLONG);
    fails(fs::create_dir(mount.point().join(&over)), libc::ENAMETOOLONG);
    fails(fs::rename(mount.path(&fits), mount.path(&over)), libc::ENAMETOOLONG);
    assert_eq!(rustix::fs::statvfs(mount.point()).expect("statvfs").f_namemax, 250);
}

// T5
#[test]
fn names_that_are_not_utf8_are_refused() {
    let Some(mount) = Mount::new() else { return };
    let name = OsStr::from_bytes(b"caf\xe9");
    fails(File::create(mount.path("").join(name)), libc::EILSEQ);
    fails(fs::create_dir(mount.path("").join(name)), libc::EILSEQ);
    fails(fs::create_dir(mount.point().join(name)), libc::EILSEQ);
    mount.write("café", "x");
    assert_eq!(mount.names(""), ["café"]);
}

// T5
#[test]
fn odd_names_are_taken_literally() {
    let Some(mount) = Mount::new() else { return };
    let mut names =
        [" outer spaces ", "back\\slash", "new\nline", "-dash", ".hidden", ".agent_state_meta.json", "日本", "a b"];
    for name in names {
        mount.write(name, name);
    }
    names.sort_unstable();
    assert_eq!(mount.names(""), names);
    assert!(names.iter().all(|name| mount.read(name) == *name));
}

// T6
#[test]
fn an_empty_session_can_be_removed_and_a_full_one_cannot() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("mkdir d; echo x > d/k").ok();
    fails(fs::remove_dir(mount.path("")), libc::ENOTEMPTY);
    fails(fs::remove_dir(mount.path("d")), libc::ENOTEMPTY);
    mount.bash("rm d/k; rmdir d; cd /; rmdir \"$MNT/s\"").ok();
    fails(fs::metadata(mount.path("")), libc::ENOENT);
    assert!(!mount.store().join("s").exists());
}

// T6
#[test]
fn rm_rf_takes_a_session_with_all_the_neighbour_left_in_it() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("mkdir -p a/b/c; for i in $(seq 50); do echo $i > a/b/k$i; done; echo x > .k..agent_state_tmp.1").ok();
    let mut command = mount.command(&["rm", "-rf", harness::SESSION]);
    command.current_dir(mount.point());
    mount.run(command).ok();
    assert!(!mount.path("").exists());
    assert!(!mount.store().join("s").exists());
    let mut command = mount.command(&["bash", "-c", "mkdir s && test -z \"$(ls -A s)\""]);
    command.current_dir(mount.point());
    mount.run(command).ok();
}

#[test]
fn a_directory_listing_is_complete_however_long() {
    let Some(mount) = Mount::new() else { return };
    mount.python("for i in range(600): open(f'key-{i:04}-' + 'n' * 40, 'w').close()").ok();
    assert_eq!(mount.names("").len(), 600);
    assert_eq!(mount.bash("ls -l | wc -l").ok().trim(), "601");
    mount.bash("rm key-*").ok();
    assert_eq!(mount.names(""), [""; 0]);
}

#[test]
fn nothing_outside_the_store_is_reached_through_it() {
    let Some(mount) = Mount::new() else { return };
    fs::write(mount.scratch().join("secret"), "secret").expect("a file outside");
    std::os::unix::fs::symlink(mount.scratch(), mount.stored("out")).expect("a link beside the mount");
    std::os::unix::fs::symlink(mount.scratch().join("secret"), mount.stored("secret")).expect("a link");
    assert!(fs::read(mount.path("out/secret")).is_err());
    assert!(fs::read(mount.path("secret")).is_err());
    assert!(fs::write(mount.path("out/new"), "x").is_err());
    drop(fs::write(mount.path("secret"), "x"));
    assert_eq!(fs::read_to_string(mount.scratch().join("secret")).expect("read"), "secret");
    assert_eq!(fs::read_dir(mount.scratch()).expect("ls").count(), 1);
}

// T1
#[test]
fn control_files_resolve_are_not_listed_and_have_their_true_size() {
    let Some(mount) = Mount::new() else { return };
    mount.by("a", "echo one > k; echo two > k").ok();
    assert_eq!(mount.names(""), ["k"]);
    assert_eq!(fs::read_dir(mount.point()).expect("ls").count(), 1);
    for file in [".baton/log", ".baton/errors", ".baton/policy", ".baton/handle"] {
        let size = fs::metadata(mount.path(file)).expect("stat").size();
        assert_eq!(size, fs::read(mount.path(file)).expect("read").len() as u64, "{file}");
    }
    assert_eq!(
        mount
            .bash("wc -l < .baton/log; cp .baton/log \"$TMP/log\"; tail -n 1 \"$TMP/log\" | wc -l")
            .ok()
            .lines()
            .count(),
        2
    );
    let status = fs::read_to_string(mount.point().join(".baton/status")).expect("status");
    serde_json::from_str::<serde_json::Value>(&status).expect("JSON");
}

#[test]
fn the_handle_shows_who_asks() {
    let Some(mount) = Mount::new() else { return };
    let handle = mount.by("a", "cat .baton/handle").ok();
    let handle: serde_json::Value = serde_json::from_str(&handle).expect("JSON");
    assert_eq!(handle["_type"], "state_handle");
    assert_eq!(handle["session_id"], harness::SESSION);
    assert_eq!(handle["handoff_key"], "__handoff.json");
    assert_eq!(handle["writer"]["writer_id"], "a");
}

#[test]
fn reading_new_makes_a_session() {
    let Some(mount) = Mount::new() else { return };
    let id = mount.bash("cat \"$MNT/.baton/new\"").ok();
    assert!(mount.point().join(id.trim()).is_dir(), "{id}");
    assert_eq!(id.trim().len(), 36, "{id}");
}

// T1
#[test]
fn a_directory_listed_again_through_one_descriptor_shows_what_is_there_now() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os\nos.mkdir('d')\nfd = os.open('d', os.O_RDONLY)\nprint(os.listdir(fd))\n\
                  open('d/k', 'w').close()\nprint(os.listdir(fd))\nos.unlink('d/k')\nprint(os.listdir(fd))\n\
                  os.rmdir('d')\nprint(os.listdir(fd))";
    assert_eq!(mount.python(script).ok(), "[]\n['k']\n[]\n[]\n");
}

// T6
#[test]
fn a_session_goes_while_somebody_still_has_open_what_was_refused_in_it() {
    let Some(mount) = Mount::new() else { return };
    let script = "import errno, os, shutil\nos.mkdir('../gone')\n\
                  fd = os.open('../gone/__handoff.json', os.O_WRONLY | os.O_CREAT)\n\
                  try: os.write(fd, b'no object')\nexcept OSError as e: assert e.errno == errno.EINVAL\n\
                  else: assert False\nshutil.rmtree('../gone')\nassert not os.path.exists('../gone')\n\
                  try: os.close(fd)\nexcept OSError as e: assert e.errno == errno.EINVAL";
    mount.python(script).ok();
}

// T6, C6
#[test]
fn a_directory_goes_as_soon_as_the_maker_of_a_name_in_it_has_been_killed() {
    let Some(mount) = Mount::new() else { return };
    // Its handle is released some time after who waits for it is told that it is gone.
    let script = "import os, signal\nfor i in range(80):\n os.mkdir('d')\n ready, tell = os.pipe()\n pid = os.fork()\n \
                  if pid == 0:\n  fd = os.open('d/k', os.O_CREAT | os.O_RDONLY)\n  os.write(tell, b'.')\n  signal.pause()\n \
                  os.read(ready, 1)\n os.kill(pid, signal.SIGKILL)\n os.waitpid(pid, 0)\n os.rmdir('d')\n os.close(ready)\n \
                  os.close(tell)";
    mount.python(script).ok();
}
