//! C10, C11: renames are commits of the destination.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::Stdio;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::harness::{self, Mount, eventually, fails};

// C10, C19
#[test]
fn a_rename_is_the_destinations_next_version_by_the_renamer() {
    let Some(mount) = Mount::new() else { return };
    mount.by("a", "echo old > k").ok();
    mount.by("b", "echo new > k.tmp && mv k.tmp k").ok();
    assert_eq!(mount.read("k"), "new\n");
    assert_eq!(mount.names(""), ["k"]);
    assert_eq!(mount.writer_of("k"), "b");
    assert_eq!(mount.xattr("k", "user.baton.version").as_deref(), Some("2"));
    assert!(!mount.stored(".agent_state_meta/k.tmp.json").exists(), "the source's sidecar goes with it");
}

#[test]
fn a_rename_over_another_writers_key_meets_the_conflict_rule() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    mount.by("a", "echo old > k").ok();
    mount.by("b", "echo new > mine && mv mine k").refused("Device or resource busy");
    assert_eq!(mount.read("k"), "old\n");
    assert_eq!(mount.read("mine"), "new\n");
}

// C10
#[test]
fn noreplace_and_exchange_do_what_they_say_or_refuse() {
    let Some(mount) = Mount::new() else { return };
    mount.write("a", "a");
    mount.write("b", "b");
    let rename = |from: &str, to: &str, flags| {
        renameat_with(CWD, mount.path(from), CWD, mount.path(to), flags).map_err(std::io::Error::from)
    };
    fails(rename("a", "b", RenameFlags::NOREPLACE), libc::EEXIST);
    rename("a", "c", RenameFlags::NOREPLACE).expect("a free name");
    fails(rename("b", "c", RenameFlags::EXCHANGE), libc::EINVAL);
    assert_eq!((mount.read("b"), mount.read("c")), ("b".into(), "a".into()));
}

#[test]
fn a_draft_moves_with_its_name_and_the_old_value_stays_until_its_close() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old");
    let mut file = File::create(mount.path("k.tmp")).expect("create");
    file.write_all(b"new").expect("write");
    fs::rename(mount.path("k.tmp"), mount.path("k")).expect("rename");
    assert_eq!(mount.bash("cat k").ok(), "old");
    file.write_all(b"er").expect("write");
    drop(file);
    assert_eq!(mount.read("k"), "newer");
    assert_eq!(mount.names(""), ["k"]);
    assert_eq!(mount.versions("k"), [1, 2]);
}

// C10
#[test]
fn a_draft_of_a_replaced_name_is_dropped() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old");
    let mut file = File::create(mount.path("k")).expect("open");
    file.write_all(b"draft").expect("write");
    mount.bash("echo replaced > other && mv other k").ok();
    drop(file);
    assert_eq!(mount.read("k"), "replaced\n");
}

#[test]
fn a_directory_is_renamed_with_all_below_it() {
    let Some(mount) = Mount::new() else { return };
    mount.by("a", "mkdir -p d/e; echo x > d/e/k; echo y > d/k; mv d f").ok();
    assert_eq!(mount.read("f/e/k"), "x\n");
    assert_eq!(mount.names(""), ["f"]);
    assert_eq!(mount.writer_of("f/e/k"), "a");
    assert_eq!(mount.xattr("f/e/k", "user.baton.version").as_deref(), Some("1"));
    mount.bash("mkdir full && echo z > full/z && mv -T f full").refused("not empty");
    fails(fs::rename(mount.path("f"), mount.path("f/e/inside")), libc::EINVAL);
    mount.bash("mkdir empty && mv -T f empty && cat empty/k").ok();
}

#[test]
fn an_open_draft_follows_its_renamed_directory() {
    let Some(mount) = Mount::new() else { return };
    fs::create_dir(mount.path("d")).expect("mkdir");
    let mut file = File::create(mount.path("d/k")).expect("create");
    file.write_all(b"draft").expect("write");
    fs::rename(mount.path("d"), mount.path("e")).expect("rename");
    drop(file);
    assert_eq!(mount.names(""), ["e"]);
    assert_eq!(mount.read("e/k"), "draft");
}

#[test]
fn kinds_do_not_replace_each_other() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("mkdir d; echo x > k").ok();
    fails(fs::rename(mount.path("k"), mount.path("d")), libc::EISDIR);
    fails(fs::rename(mount.path("d"), mount.path("k")), libc::ENOTDIR);
    fails(fs::rename(mount.path("none"), mount.path("k")), libc::ENOENT);
    fs::rename(mount.path("k"), mount.path("k")).expect("onto itself");
    assert_eq!(mount.versions("k"), [1]);
}

// T3
#[test]
fn nothing_is_renamed_out_of_its_session() {
    let Some(mount) = Mount::new() else { return };
    let other = mount.point().join("t");
    fs::create_dir(&other).expect("mkdir");
    mount.bash("mkdir d; echo x > k").ok();
    fails(fs::rename(mount.path("k"), other.join("k")), libc::EXDEV);
    fails(fs::rename(mount.path("d"), other.join("d")), libc::EXDEV);
    fails(fs::rename(mount.path(""), mount.point().join("u")), libc::EPERM);
    mount.bash("mv k \"$MNT/t/k\"").ok();
    assert_eq!(fs::read_to_string(other.join("k")).expect("mv copies instead"), "x\n");
    assert_eq!(mount.names(""), ["d"]);
}

#[test]
fn a_deleted_keys_versions_go_on() {
    let Some(mount) = Mount::new() else { return };
    mount.by("a", "echo 1 > k; rm k").ok();
    assert!(!mount.stored(".agent_state_meta/k.json").exists());
    mount.by("b", "echo 2 > k").ok();
    assert_eq!(mount.xattr("k", "user.baton.writer_id").as_deref(), Some("b"));
    let version: u64 = mount.xattr("k", "user.baton.version").expect("a version").parse().expect("a number");
    assert!(version > 1);
}

// C10, C18
#[test]
fn an_edit_that_went_through_a_rename_is_not_judged_by_the_numbers_of_its_old_name() {
    let Some(mount) = Mount::new() else { return };
    // One version `a` more than `b` has when the edit ends: by its number alone nothing would have come between.
    let script = "import os\nfor i in range(5): open('a', 'w').write('a%d' % i)\nopen('b', 'w').write('b')\n\
                  edit = os.open('a', os.O_RDWR)\nos.pwrite(edit, b'X', 0)\n\
                  os.rename('a', 'b')\nfor i in range(3): open('b', 'w').write('later')\nos.close(edit)";
    mount.bash("echo warn > .baton/policy").ok();
    mount.python(script).ok();
    assert_eq!(mount.versions("b"), [1, 2, 3, 4, 5, 6]);
    let last = mount.log().pop().expect("a line");
    assert!(last["conflict"].is_string(), "{last}");

    let script = "import os\nopen('c', 'w').write('one')\nedit = os.open('c', os.O_RDWR)\nos.pwrite(edit, b'T', 0)\n\
                  os.rename('c', 'd')\nos.close(edit)";
    mount.python(script).ok();
    assert_eq!(mount.read("d"), "Tne");
    let last = mount.log().pop().expect("a line");
    assert!(last["conflict"].is_null(), "nothing came between: {last}");
}

// C8, C10
#[test]
fn a_rename_that_replaces_nothing_respects_a_reserved_name() {
    let Some(mount) = Mount::new() else { return };
    mount.write("src", "src");
    let mut file = File::create_new(mount.path("lock")).expect("create");
    file.write_all(b"mine").expect("write");
    let script = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n\
                  print(libc.renameat2(-100, b'src', -100, b'lock', 1), ctypes.get_errno())";
    assert_eq!(mount.python(script).ok(), format!("-1 {}\n", libc::EEXIST));
    drop(file);
    assert_eq!((mount.read("lock"), mount.read("src")), ("mine".to_owned(), "src".to_owned()));
}

// C10, C11, C13
#[test]
fn what_was_looked_up_before_it_lost_its_name_can_still_be_opened() {
    let Some(mount) = Mount::new() else { return };
    // O_PATH keeps the kernel's node without an open of ours: the open comes after the name has gone to another.
    let script = "import os, sys\nopen('k', 'w').write('old'); open('new', 'w').write('newer')\n\
                  node = f'/proc/self/fd/{os.open(\"k\", os.O_PATH)}'\nheld = os.open('k', os.O_RDONLY)\n\
                  os.rename('new', 'k') if sys.argv[1] == 'rename' else os.unlink('k')\n\
                  print(open(node).read(), os.stat(node).st_size, os.fstat(held).st_size, os.read(held, 99))\n\
                  with open(node, 'w') as f: f.write('nobody reads this')\n\
                  print(os.fstat(held).st_size)\nos.truncate(node, 1)\nprint(open(node).read())";
    for way in ["rename", "unlink"] {
        let ran = mount.run(mount.command(&[harness::python(), "-c", script, way]));
        assert_eq!(ran.ok(), "old 3 3 b'old'\n3\nold\n", "after {way}");
        assert_eq!(fs::read_to_string(mount.path("k")).ok(), (way == "rename").then(|| "newer".to_owned()));
    }
    assert_eq!(mount.versions("k"), [1, 2, 3]);
}

// C6, C10
#[test]
fn a_dropped_draft_takes_nothing_from_who_reads_what_it_was_moved_onto() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old");
    let script = "import os, sys\nos.open('tmp', os.O_CREAT | os.O_WRONLY)\nos.rename('tmp', 'k')\n\
                  print('moved', flush=True)\nsys.stdin.readline()";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(Stdio::piped());
    let mut mover = mount.spawn(command);
    mover.printed(1);
    let mut reader = File::open(mount.path("k")).expect("open");
    mover.kill();
    eventually("its handle is gone", || mount.status()["open_handles"].as_u64().is_some_and(|open| open <= 2));
    let mut value = String::new();
    reader.read_to_string(&mut value).expect("read");
    assert_eq!(value, "old");
}

// C7, C10
#[test]
fn what_was_appended_to_a_name_of_its_own_replaces_what_the_name_is_moved_onto() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old");
    let script =
        "import os\nwith open('tmp', 'a') as f:\n f.write('new')\n f.flush()\n os.replace('tmp', 'k')\n f.write('er')";
    mount.python(script).ok();
    assert_eq!(mount.read("k"), "newer");
    assert_eq!(mount.names(""), ["k"]);
}

/// A session's key `k` of mode 0644 with an attribute of its own, and a private draft that was moved onto it: `fd`.
const MOVED: &str = "import os, signal, subprocess, sys, time\n\
    def seen(): return open('k').read(), oct(os.stat('k').st_mode & 0o777), os.listxattr('k')\n\
    def other(script): subprocess.run([sys.executable, '-c', 'import os\\n' + script], check=True)\n\
    open('k', 'w').write('old')\nos.chmod('k', 0o644)\nos.setxattr('k', 'user.old', b'1')\n\
    fd = os.open('t', os.O_CREAT | os.O_WRONLY, 0o600)\nos.setxattr('t', 'user.new', b'2')\nos.write(fd, b'private')\nos.rename('t', 'k')\n";

// C10, C13, C14
#[test]
fn what_others_write_under_a_draft_that_was_moved_there_takes_no_attributes_from_it_and_gives_it_none() {
    let Some(mount) = Mount::new() else { return };
    for (write, value) in [
        ("pass", "old"),
        ("open('k', 'a').write('+')", "old+"),
        ("open('k', 'r+').write('O')", "Old"),
        ("open('k', 'w').write('re')", "re"),
        ("os.truncate('k', 1)", "o"),
    ] {
        let script =
            format!("{MOVED}other(\"\"\"{write}\"\"\")\nprint(seen())\nos.close(fd)\nprint(seen())\nos.remove('k')");
        let expected = format!("('{value}', '0o644', ['user.old'])\n('private', '0o600', ['user.new'])\n");
        assert_eq!(mount.python(&script).ok(), expected, "{write}");
    }
}

// C10, C14: by name both are meant, through a descriptor of the old value that one.
#[test]
fn what_others_set_under_a_draft_that_was_moved_there_is_set_on_what_they_mean() {
    let Some(mount) = Mount::new() else { return };
    for (set, modes) in [
        ("os.chmod('k', 0o640); os.setxattr('k', 'user.x', b'3'); os.removexattr('k', 'user.x')", ["0o640", "0o640"]),
        ("f = open('k', 'r+'); os.fchmod(f.fileno(), 0o755); f.write('O')", ["0o755", "0o600"]),
    ] {
        let script = format!(
            "{MOVED}other(\"\"\"{set}\"\"\")\nprint(seen()[1])\nos.removexattr(fd, 'user.new')\nos.close(fd)\nprint(*seen()[1:])\nos.remove('k')"
        );
        assert_eq!(mount.python(&script).ok(), format!("{}\n{} []\n", modes[0], modes[1]), "{set}");
    }
}

// C6, C10, C14
#[test]
fn what_a_killed_mover_leaves_has_the_attributes_it_had() {
    let Some(mount) = Mount::new() else { return };
    let script = format!(
        "{}read, write = os.pipe()\npid = os.fork()\nif pid == 0:\n fd = os.open('t', os.O_CREAT | os.O_WRONLY, 0o600)\n os.write(fd, b'private')\n \
         os.rename('t', 'k')\n os.write(write, b'.')\n signal.pause()\nos.read(read, 1)\nf = open('k', 'r+')\n\
         os.kill(pid, 9)\nos.waitpid(pid, 0)\nf.write('O')\nf.close()\nprint(seen())",
        MOVED.split("fd = ").next().expect("its beginning")
    );
    assert_eq!(mount.python(&script).ok(), "('Old', '0o644', ['user.old'])\n");
}

// C10, C14, C17
#[test]
fn a_value_put_beside_the_mount_under_a_name_that_is_being_made_keeps_its_attributes_until_that_commits() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os, subprocess\nfd = os.open('k', os.O_CREAT | os.O_WRONLY, 0o644)\nos.write(fd, b'mine')\nstore = os.environ['STORE'] + '/s/'\n\
                  open(store + '../beside', 'w').write('beside')\nos.chmod(store + '../beside', 0o600)\nos.rename(store + '../beside', store + 'k')\n\
                  seen = lambda: print(open('k').read(), oct(os.stat('k').st_mode & 0o777))\n\
                  seen()\nsubprocess.run(['bash', '-c', 'echo >> k'])\nseen()\nos.close(fd)\nseen()";
    assert_eq!(mount.python(script).ok(), "beside 0o600\nbeside\n 0o600\nmine 0o644\n");
}

// C10: the value's first commit takes its while, and the rename waits for it.
#[test]
fn what_is_moved_onto_a_name_that_is_just_being_committed_replaces_it() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os, time\nfor round in range(8):\n key, kind = f'k{round}', os.O_APPEND if round % 2 else 0\n wait = os.pipe()\n \
                  fd = os.open(key + '.t', os.O_WRONLY | os.O_CREAT | kind)\n if kind: os.write(fd, b'new')\n \
                  if os.fork() == 0:\n  os.close(fd)\n  old = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL)\n  os.write(old, b'old' * (1 << 20))\n  \
                  os.write(wait[1], b'.')\n  os.close(old)\n  os._exit(0)\n \
                  os.read(wait[0], 1)\n time.sleep(0.002 * round)\n os.rename(key + '.t', key)\n os.wait()\n os.close(fd)\n \
                  print(open(key).read(9), end=',')";
    assert_eq!(mount.python(script).ok(), ",new,".repeat(4));
}

// C10
#[test]
fn a_directory_takes_no_name_under_which_its_keys_could_not_be_reached() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os\nlong = 'n' * 200\nos.mkdir('a')\nos.chdir('a')\nfor level in range(18):\n os.mkdir(long)\n os.chdir(long)\n\
                  open('k', 'w').write('deep')\nos.chdir(os.environ['MNT'] + '/s')\n\
                  try: os.rename('a', long)\nexcept OSError as e: print(e.errno)\nos.rename('a', 'b')\nprint(os.listdir('.'))";
    assert_eq!(mount.python(script).ok(), format!("{}\n['b']\n", libc::ENAMETOOLONG));
    mount.bash("find b -name k | grep -q k && rm -r b").ok();
    assert_eq!(mount.names(""), [""; 0]);
}

// C10, C14: as on any filesystem, and as when the source is closed first.
#[test]
fn what_is_moved_onto_a_value_before_its_close_keeps_its_own_attributes() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os\nopen('k', 'w').write('public')\nos.chmod('k', 0o644)\nos.setxattr('k', 'user.of', b'old')\nos.setxattr('k', 'user.both', b'old')\n\
                  fd = os.open('t', os.O_CREAT | os.O_WRONLY, 0o600)\nos.setxattr('t', 'user.both', b'new')\nos.write(fd, b'private')\n\
                  os.rename('t', 'k')\nprint(open('k').read(), oct(os.stat('k').st_mode & 0o777))\nos.fchmod(fd, 0o640)\nos.close(fd)\n\
                  print(open('k').read(), oct(os.stat('k').st_mode & 0o777), os.listxattr('k'), os.getxattr('k', 'user.both'))";
    let expected = "public 0o644\nprivate 0o640 ['user.both'] b'new'\n";
    assert_eq!(mount.python(script).ok(), expected);
}
