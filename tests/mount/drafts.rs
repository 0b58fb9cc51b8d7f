//! C8, C9, C11, C12, C13: what the writer sees of its draft, and what nobody else does.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use crate::harness::{self, Mount, Running, fails};

/// A process that has a new key `name` open with something written, until it is sent a line.
fn holder(mount: &Mount, name: &str) -> Running {
    let script = format!(
        "import sys\nf = open('{name}', 'xb', 0)\nf.write(b'draft')\nprint('written', flush=True)\nsys.stdin.readline()"
    );
    let mut command = mount.command(&[harness::python(), "-c", &script]);
    command.stdin(Stdio::piped());
    let mut holder = mount.spawn(command);
    holder.printed(1);
    holder
}

// C8
#[test]
fn a_new_name_is_hidden_from_others_until_its_first_commit() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = holder(&mount, "k");
    assert_eq!(mount.names(""), [""; 0]);
    fails(fs::metadata(mount.path("k")), libc::ENOENT);
    fails(File::open(mount.path("k")), libc::ENOENT);
    holder.send("end");
    holder.wait().ok();
    assert_eq!(mount.names(""), ["k"]);
    assert_eq!(mount.read("k"), "draft");
}

// C8
#[test]
fn a_hidden_name_is_reserved() {
    let Some(mount) = Mount::new() else { return };
    let mut holder = holder(&mount, "k");
    fails(OpenOptions::new().write(true).create_new(true).open(mount.path("k")), libc::EEXIST);
    mount.write("k", "of another process");
    assert_eq!(mount.read("k"), "of another process", "a plain create has a draft of its own");
    holder.send("end");
    holder.wait().ok();
    assert_eq!(mount.read("k"), "draft", "the later close is the later version");
    assert_eq!(mount.versions("k"), [1, 2]);
}

// C8
#[test]
fn who_has_only_created_a_name_leaves_the_value_that_another_has_put_there() {
    let Some(mount) = Mount::new() else { return };
    for flags in ["O_RDONLY", "O_RDWR", "O_WRONLY | os.O_TRUNC"] {
        let script = format!(
            "import os, sys\nfd = os.open('k', os.O_CREAT | os.{flags})\nprint('created', flush=True)\n\
             sys.stdin.readline()\nos.close(fd)"
        );
        let mut command = mount.command(&[harness::python(), "-c", &script]);
        command.stdin(Stdio::piped());
        let mut creator = mount.spawn(command);
        creator.printed(1);
        mount.write("k", "of another process");
        creator.send("end");
        creator.wait().ok();
        assert_eq!(mount.read("k"), "of another process", "{flags}");
        fs::remove_file(mount.path("k")).expect("unlink");
    }
}

// C8, C12, C13, C18
#[test]
fn who_has_only_created_a_name_reads_and_edits_the_value_that_another_has_put_there() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(mount.path("k")).expect("create");
    mount.bash("echo value > k").ok();
    assert_eq!(file.seek(SeekFrom::End(0)).expect("seek"), 6);
    file.rewind().expect("seek");
    let mut read = String::new();
    file.read_to_string(&mut read).expect("read");
    assert_eq!(read, "value\n");
    file.rewind().expect("seek");
    file.write_all(b"VAL").expect("write");
    drop(file);
    assert_eq!(mount.read("k"), "VALue\n");
    assert_eq!(mount.versions("k"), [1, 2]);
}

// C8, C10
#[test]
fn a_name_that_was_only_created_replaces_what_it_is_renamed_over() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old");
    let file = File::create(mount.path("k.tmp")).expect("create");
    fs::rename(mount.path("k.tmp"), mount.path("k")).expect("rename");
    assert_eq!(mount.bash("cat k").ok(), "old");
    drop(file);
    assert_eq!(mount.read("k"), "");
    assert_eq!(mount.names(""), ["k"]);
}

#[test]
fn its_creator_finds_a_hidden_name() {
    let Some(mount) = Mount::new() else { return };
    let mut file = File::create(mount.path("k")).expect("create");
    file.write_all(b"draft").expect("write");
    fs::metadata(mount.path("k")).expect("the creator sees its own");
    drop(file);
    assert_eq!(mount.read("k"), "draft");
}

// C8
#[test]
fn a_child_that_inherits_a_descriptor_finds_the_hidden_name() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os\nfd = os.open('k', os.O_CREAT | os.O_WRONLY)\nif os.fork() == 0:\n \
                  print(os.path.exists('k'), flush=True)\n os.close(fd)\n os._exit(0)\nos.wait()";
    assert_eq!(mount.python(script).ok(), "True\n");
}

// C8
#[test]
fn one_of_many_exclusive_creates_wins() {
    let Some(mount) = Mount::new() else { return };
    let script = "import sys\nsys.stdin.readline()\nwon = 0\nfor i in range(20):\n try:\n  \
                  with open(f'lock-{i}', 'x') as f: f.write('mine')\n  won += 1\n except FileExistsError: pass\nprint(won)";
    let racers = (0..8).map(|_| {
        let mut command = mount.command(&[harness::python(), "-c", script]);
        command.stdin(Stdio::piped());
        mount.spawn(command)
    });
    let mut racers: Vec<_> = racers.collect();
    racers.iter_mut().for_each(|racer| racer.send("go"));
    let won: usize = racers.into_iter().map(|racer| racer.wait().ok().trim().parse::<usize>().expect("a number")).sum();
    assert_eq!(won, 20);
}

// C13
#[test]
fn the_writer_reads_its_draft_and_others_the_committed_value() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "committed");
    let mut file = OpenOptions::new().read(true).write(true).open(mount.path("k")).expect("open");
    file.write_all(b"COMM").expect("write");
    file.seek(SeekFrom::End(0)).expect("seek");
    file.write_all(b" and more").expect("write");
    let mut draft = String::new();
    file.rewind().expect("seek");
    file.read_to_string(&mut draft).expect("read");
    assert_eq!(draft, "COMMitted and more");
    assert_eq!(file.seek(SeekFrom::End(0)).expect("seek"), 18);
    assert_eq!(mount.read("k"), "committed");
    drop(file);
    assert_eq!(mount.read("k"), "COMMitted and more");
}

// C13
#[test]
fn stat_and_fstat_show_only_committed_sizes() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "12345");
    let mut file = OpenOptions::new().write(true).open(mount.path("k")).expect("open");
    file.seek(SeekFrom::End(0)).expect("seek");
    file.write_all(b"678").expect("write");
    assert_eq!(file.metadata().expect("fstat").len(), 5);
    assert_eq!(fs::metadata(mount.path("k")).expect("stat").len(), 5);
    file.set_len(2).expect("ftruncate");
    assert_eq!(file.metadata().expect("fstat").len(), 5);
    assert_eq!(mount.read("k"), "12345");
    drop(file);
    assert_eq!(fs::metadata(mount.path("k")).expect("stat").len(), 2);
}

#[test]
fn the_size_of_a_hidden_name_is_its_writers_business() {
    let Some(mount) = Mount::new() else { return };
    let mut file = File::create(mount.path("k")).expect("create");
    file.write_all(b"12345").expect("write");
    assert_eq!(file.metadata().expect("fstat").len(), 5);
}

// C9
#[test]
fn truncate_by_path_commits_at_once_and_ftruncate_with_the_close() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "12345");
    mount.python("import os\nos.truncate('k', 3)").ok();
    assert_eq!(mount.read("k"), "123");
    let file = OpenOptions::new().write(true).open(mount.path("k")).expect("open");
    file.set_len(1).expect("ftruncate");
    assert_eq!(mount.read("k"), "123");
    drop(file);
    assert_eq!(mount.read("k"), "1");
    mount.bash("truncate -s 4 k").ok();
    assert_eq!(mount.read("k"), "1\0\0\0");
    assert_eq!(mount.versions("k"), [1, 2, 3, 4]);
}

#[test]
fn a_hole_reads_as_zeros() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("printf end | dd of=k bs=1 seek=100000 status=none").ok();
    let value = fs::read(mount.path("k")).expect("read");
    assert_eq!(value.len(), 100_003);
    assert!(value.iter().take(100_000).all(|byte| *byte == 0));
    assert!(value.ends_with(b"end"));
}

// C11
#[test]
fn nothing_deleted_comes_back() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old");
    let mut file = OpenOptions::new().write(true).open(mount.path("k")).expect("open");
    file.write_all(b"draft").expect("write");
    fs::remove_file(mount.path("k")).expect("unlink");
    file.write_all(b" more").expect("an unlinked file can still be written");
    drop(file);
    fails(fs::metadata(mount.path("k")), libc::ENOENT);
    assert!(!mount.stored("k").exists());
    mount.bash("echo old > n; exec 3> n; echo x >&3; rm n; echo y >&3; exec 3>&-; ! [ -e n ]").ok();
}

// C12
#[test]
fn a_reader_stays_on_the_version_of_its_first_read() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", &"a".repeat(10_000));
    let mut file = File::open(mount.path("k")).expect("open");
    let mut seen = vec![0; 100];
    file.read_exact(&mut seen).expect("read");
    mount.bash("head -c 10000 /dev/zero | tr '\\0' b > k").ok();
    file.read_to_end(&mut seen).expect("read");
    assert_eq!(seen.len(), 10_000);
    assert!(seen.iter().all(|byte| *byte == b'a'), "one handle showed two versions");
    assert_eq!(mount.read("k"), "b".repeat(10_000));
}

// C18
#[test]
fn an_edit_in_place_of_an_outdated_base_is_a_conflict_whoever_wrote_it() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    mount.write("k", "12345");
    let mut file = OpenOptions::new().write(true).open(mount.path("k")).expect("open");
    file.write_all(b"x").expect("write");
    mount.write("k", "newer");
    fails(file.sync_all(), libc::EBUSY);
    drop(file);
    assert_eq!(mount.read("k"), "newer");
    assert!(mount.errors().contains("read it again and repeat the edit"), "{}", mount.errors());
}

// C15
#[test]
fn shared_mappings_are_refused_and_private_ones_work() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "mapped");
    let script = "import mmap\nf = open('k', 'rb')\n\
                  print(mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)[:])\n\
                  try: mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)\nexcept OSError as e: print(e.errno)";
    assert_eq!(mount.python(script).ok(), format!("b'mapped'\n{}\n", libc::ENODEV));
}

// C16
#[test]
fn locks_exclude_other_processes() {
    let Some(mount) = Mount::new() else { return };
    let script = "import fcntl, subprocess, sys\nf = open('k', 'w')\n\
                  for lock in fcntl.flock, fcntl.lockf:\n lock(f, fcntl.LOCK_EX)\n \
                  child = f'import fcntl\\nf = open(\"k\", \"a\")\\ntry: fcntl.{lock.__name__}(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\\nexcept OSError: print(\"held\")'\n \
                  print(subprocess.run([sys.executable, '-c', child], stdout=subprocess.PIPE, text=True).stdout.strip())\n lock(f, fcntl.LOCK_UN)";
    assert_eq!(mount.python(script).ok(), "held\nheld\n");
}

// C11
#[test]
fn a_file_without_a_name_keeps_what_is_written_to_it_until_its_close() {
    let Some(mount) = Mount::new() else { return };
    mount.write("log", "there ");
    let script = "import os, time\nfd = os.open('k', os.O_RDWR | os.O_CREAT)\nlog = os.open('log', os.O_RDWR | os.O_APPEND)\n\
                  os.unlink('k')\nos.unlink('log')\nos.write(fd, b'mine')\nos.fsync(fd)\nos.write(log, b'mine')\n\
                  os.close(os.dup(log))\ntime.sleep(1.2)\nos.write(log, b'!')\nos.pwrite(log, b'T', 0)\n\
                  print(os.pread(fd, 9, 0), os.pread(log, 99, 0))";
    assert_eq!(mount.python(script).ok(), "b'mine' b'there mine!T'\n");
    assert_eq!(mount.names(""), [""; 0]);
}

// C11, C13
#[test]
fn what_is_unlinked_unread_keeps_its_size() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "12345");
    let file = OpenOptions::new().read(true).write(true).open(mount.path("k")).expect("open");
    fs::remove_file(mount.path("k")).expect("unlink");
    assert_eq!(file.metadata().expect("fstat").len(), 5);
}

// C9, E2
#[test]
fn a_size_that_no_file_can_have_is_too_large_and_not_a_fault_of_the_store() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old");
    let script = "import errno, os\nfd = os.open('k', os.O_RDWR)\n\
                  for change in (lambda: os.truncate('k', 1 << 62), lambda: os.ftruncate(fd, 1 << 62), lambda: os.close(fd)):\n \
                  try: change()\n except OSError as e: print(errno.errorcode[e.errno])";
    assert_eq!(mount.python(script).ok(), "EFBIG\nEFBIG\nEFBIG\n");
    assert_eq!((mount.read("k"), mount.versions("k")), ("old".to_owned(), vec![1]));
}

// C8: an open that truncates replaces what another has put there since, as on any filesystem but whole.
#[test]
fn who_creates_with_truncation_writes_a_value_of_its_own() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os\nlong = os.open('k', os.O_CREAT | os.O_WRONLY | os.O_TRUNC)\nif os.fork() == 0:\n \
                  short = os.open('k', os.O_CREAT | os.O_WRONLY | os.O_TRUNC)\n os.close(long)\n os.write(short, b'another, longer')\n \
                  os.close(short)\n os._exit(0)\nos.wait()\nos.write(long, b'short')\nos.close(long)\nprint(open('k').read())";
    assert_eq!(mount.python(script).ok(), "short\n");
}

// C8, C12, C18: the same where there was an empty value.
#[test]
fn who_has_read_a_name_that_it_has_made_edits_what_it_has_read() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    let open = |key| {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(mount.path(key)).expect("create")
    };
    for key in ["new", "left", "alone"] {
        let mut read = [0; 9];
        let file = open(key);
        assert_eq!(file.read_at(&mut read, 0).expect("read"), 0);
        if key != "alone" {
            mount.bash(&format!("printf 98765 > {key}")).ok();
        }
        assert_eq!(file.read_at(&mut read, 0).expect("read"), 0, "a handle reads one version");
        if key == "left" {
            drop(file);
            assert_eq!(mount.read(key), "98765", "nothing was written, nothing is committed");
            continue;
        }
        file.write_at(b"1", 0).expect("write");
        match (file.sync_all(), key) {
            (synced, "new") => fails(synced, libc::EBUSY),
            (synced, _) => synced.expect("nobody came between"),
        }
        assert_eq!(mount.read(key), if key == "new" { "98765" } else { "1" });
    }
}

// C5, C8
#[test]
fn who_creates_with_truncation_writes_a_value_of_its_own_also_after_an_fsync() {
    let Some(mount) = Mount::new() else { return };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(mount.path("k")).expect("create");
    mount.bash("echo longer > k").ok();
    file.sync_all().expect("fsync");
    assert_eq!(mount.read("k"), "longer\n", "it has nothing to sync");
    assert_eq!(file.seek(SeekFrom::End(0)).expect("seek"), 0);
    file.write_all(b"A").expect("write");
    drop(file);
    assert_eq!(mount.read("k"), "A");
}

// C8: also where the two close at one time. The longer one's commit takes its while, and the other's comes into it.
#[test]
fn who_has_only_created_a_name_overtakes_nobody_who_is_just_closing_it() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os, time\nfor round in range(8):\n key, kind = f'k{round}', os.O_APPEND if round % 2 else 0\n made, wait = os.pipe(), os.pipe()\n \
                  if os.fork() == 0:\n  fd = os.open(key, os.O_RDONLY | os.O_CREAT)\n  os.write(made[1], b'.')\n  os.read(wait[0], 1)\n  \
                  time.sleep(0.002 * round)\n  os.close(fd)\n  os._exit(0)\n \
                  os.read(made[0], 1)\n fd = os.open(key, os.O_WRONLY | os.O_CREAT | kind)\n os.write(fd, b'data' * (1 << 19))\n \
                  os.write(wait[1], b'.')\n os.close(fd)\n os.wait()\n print(os.path.getsize(key) >> 19, end=' ')";
    assert_eq!(mount.python(script).ok(), "4 ".repeat(8));
}

// C8
#[test]
fn a_name_whose_first_draft_was_refused_is_made_again_at_once() {
    let Some(mount) = Mount::new() else { return };
    let script = "import errno, os\nfor n in range(400):\n\
                  \x20fd = os.open('__handoff.json', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)\n\
                  \x20try: os.write(fd, b'no object')\n except OSError as e: assert e.errno == errno.EINVAL, (n, e)\n\
                  \x20else: assert False\n try: os.close(fd)\n except OSError as e: assert e.errno == errno.EINVAL, (n, e)";
    mount.python(script).ok();
}
