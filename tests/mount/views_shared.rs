//! A key is one key in all writer views and the plain tree; what is not shared between them is said here too.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::PathBuf;

use crate::harness::{self, Mount, eventually, fails};
use crate::views::{lines, view, within};

// V1, C7
#[test]
fn what_several_append_at_once_is_each_ones_own() {
    let Some(mount) = Mount::new() else { return };
    let script = "for n in $(seq 15); do echo \"$0 $n\" >> log; done";
    let running: Vec<_> = ["a", "b", "c"]
        .map(|writer| {
            let mut command = mount.command(&["bash", "-c", script, writer]);
            command.current_dir(view(&mount, writer, ""));
            mount.spawn(command)
        })
        .into();
    running.into_iter().for_each(|one| drop(one.wait().ok()));
    let (text, log) = (mount.read("log"), mount.log());
    assert_eq!(text.lines().count(), 45);
    let mut from = 0;
    for line in log.iter().filter(|line| line["key"] == "log") {
        let to = usize::try_from(line["size_bytes"].as_u64().expect("a size")).expect("a size");
        let writer = line["writer"]["writer_id"].as_str().expect("a writer");
        assert!(text[from..to].lines().all(|line| line.starts_with(writer)), "{writer}: {}", &text[from..to]);
        from = to;
    }
    assert_eq!(from, text.len());
}

// C6
#[test]
fn half_a_value_in_a_view_is_dropped_as_its_writers() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "whole");
    let script =
        "import os, signal\nf = open('k', 'w'); f.write('half'); f.flush(); os.kill(os.getpid(), signal.SIGKILL)";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.current_dir(view(&mount, "a", ""));
    assert_eq!(mount.run(command).code, None);
    assert_eq!(mount.read("k"), "whole");
    let dropped: Vec<_> = lines(&mount, "a", ".baton/log").into_iter().filter(|line| line["op"] == "drop").collect();
    assert_eq!(dropped.len(), 1, "{:?}", mount.log());
}

// V5, N2
#[test]
fn the_neighbours_programs_write_as_the_view_under_our_check() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/neighbour.py");
    let root = mount.point().join(".baton/as/v").to_string_lossy().into_owned();
    let neighbour = |writer: &str, key: &str, value: &str| {
        let mut command = mount.command(&[harness::python(), script, &root, "s", writer, "ignore"]);
        command.args(["write", key, value]);
        mount.run(command)
    };
    neighbour("someone", "k", "1").ok();
    assert_eq!((mount.read("k"), mount.writer_of("k")), ("1".to_owned(), "v".to_owned()));
    assert!(mount.log().iter().all(|line| line["op"] != "declare"), "{:?}", mount.log());
    mount.by("other", "echo other > other").ok();
    neighbour("other", "other", "mine").refused("busy");
    assert_eq!((mount.read("other"), mount.writer_of("other")), ("other\n".to_owned(), "other".to_owned()));
    let sidecar = "import os\nopen('.x.agent_state_tmp.1', 'w').write('{\"writer\": {\"writer_id\": \"v\"}}')\n\
                   os.rename('.x.agent_state_tmp.1', '.agent_state_meta/other.json')";
    let mut command = mount.command(&[harness::python(), "-c", sidecar]);
    command.current_dir(view(&mount, "v", ""));
    mount.run(command).refused("Operation not permitted");
    assert_eq!(mount.writer_of("other"), "other");
}

// V5: who has committed in a view declares nothing of that by a sidecar elsewhere.
#[test]
fn a_sidecar_in_another_tree_declares_nothing_of_a_views_commit() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os, sys\nopen('.x.agent_state_tmp.1', 'w').write('value')\nos.rename('.x.agent_state_tmp.1', 'k')\n\
                  os.chdir(sys.argv[1])\nopen('.y.agent_state_tmp.1', 'w').write('{\"writer\": {\"writer_id\": \"z\"}}')\n\
                  os.rename('.y.agent_state_tmp.1', '.agent_state_meta/k.json')";
    let plain = mount.path("").to_string_lossy().into_owned();
    let mut command = mount.command(&[harness::python(), "-c", script, &plain]);
    command.current_dir(view(&mount, "v", ""));
    mount.run(command).refused("Operation not permitted");
    assert_eq!((mount.read("k"), mount.writer_of("k")), ("value".to_owned(), "v".to_owned()));
}

// V6, C1, C8
#[test]
fn a_key_is_one_key_in_all_trees() {
    let Some(mount) = Mount::new() else { return };
    let paths = [mount.path("k"), view(&mount, "a", "k"), view(&mount, "b", "k")];
    let mut first = File::create(&paths[1]).expect("create");
    let hidden = mount.python("import os; print(os.path.exists('k'))").ok();
    assert_eq!(hidden, "False\n", "no commit has made it");
    assert!(paths.iter().all(|path| path.exists()), "but for the process that made it");
    fails(OpenOptions::new().write(true).create_new(true).open(&paths[2]), libc::EEXIST);
    first.write_all(b"1").expect("write");
    drop(first);
    let numbers: Vec<_> = paths.iter().map(|path| fs::metadata(path).expect("stat").ino()).collect();
    assert!(numbers.iter().all(|&ino| ino < 1 << 53), "{numbers:?}");
    assert!(numbers[0] != numbers[1] && numbers[1] != numbers[2] && numbers[0] != numbers[2]);
    for (path, ino) in paths.iter().zip(&numbers) {
        let mut entries = fs::read_dir(path.parent().expect("a session")).expect("a listing").flatten();
        assert_eq!(entries.find(|entry| entry.file_name() == "k").map(|entry| entry.ino()), Some(*ino), "{path:?}");
    }
    let mut open: Vec<_> = paths.iter().map(|path| OpenOptions::new().write(true).open(path).expect("open")).collect();
    for (file, text) in open.iter_mut().zip(["plain", "a", "b"]) {
        file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).expect("write");
    }
    assert_eq!(mount.read("k"), "1");
    for (n, (file, text)) in open.drain(..).zip(["plain", "a", "b"]).enumerate() {
        drop(file);
        assert_eq!((mount.read("k"), mount.versions("k").len()), (text.to_owned(), n + 2));
        assert!(paths.iter().all(|path| fs::read_to_string(path).is_ok_and(|value| value == text)));
    }
    assert_eq!(mount.writer_of("k"), "b");
}

// V6, C1
#[test]
fn the_last_close_is_counted_across_views() {
    let Some(mount) = Mount::new() else { return };
    // Of one process's two write handles on the key, in two trees, the close of one is the end of that one alone; a child
    // that has inherited both keeps both open.
    let script = "import os, subprocess\nv = os.environ['V']\na = os.open('k', os.O_CREAT | os.O_WRONLY)\n\
                  b = os.open(v, os.O_WRONLY)\nos.write(a, b'plain')\nos.write(b, b'in-view')\n\
                  p = subprocess.Popen(['cat'], stdin=subprocess.PIPE, pass_fds=[a, b])\nos.close(a); os.close(b)\n\
                  r = subprocess.run(['cat', 'k'], capture_output=True).stdout\nprint(r)\n\
                  p.stdin.close(); p.wait()\nprint(open('k', 'rb').read())";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.env("V", view(&mount, "a", "k"));
    let said = mount.run(command).ok();
    let (before, after) = said.trim_end().split_once('\n').expect("two lines");
    assert_eq!(before, "b''", "the child holds both");
    assert!(after == "b'in-view'" || after == "b'plain'", "{after}");
    eventually("both are committed", || mount.versions("k").len() == 2);
    let mut by: Vec<_> =
        mount.log().iter().filter_map(|l| Some(l["writer"]["writer_id"].as_str()?.to_owned())).collect();
    by.sort();
    assert_eq!(by, ["a", "s", "s"], "the session's first line, and one of each tree");
}

// V1, V6
#[test]
fn one_process_writes_as_each_tree_it_goes_through() {
    let Some(mount) = Mount::new() else { return };
    let script = "import sys\nfor n in range(20):\n for path in sys.argv[1:]:\n  f = open(path, 'a'); f.write('x'); f.close()\n  \
                  f = open(path, 'w'); f.write('x'); f.close()";
    let paths = [mount.path("k"), view(&mount, "a", "k"), view(&mount, "b", "k")];
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.args(paths).env("BATON_WRITER_ID", "plain");
    mount.run(command).ok();
    let log = mount.log();
    let writers: Vec<_> = log.iter().skip(1).map(|line| line["writer"]["writer_id"].as_str()).collect();
    let turns = ["plain", "plain", "a", "a", "b", "b"].into_iter().map(Some);
    assert_eq!(writers, turns.cycle().take(120).collect::<Vec<_>>());
}

// V6
#[test]
fn a_session_that_goes_or_is_closed_to_others_in_the_plain_tree_is_so_in_a_view_at_once() {
    let Some(mount) = Mount::new() else { return };
    for n in 0..3 {
        let (plain, seen) = (mount.path(&format!("../t{n}")), view(&mount, "a", &format!("../t{n}")));
        fs::create_dir(&plain).expect("a session");
        let mode = || fs::metadata(&seen).map(|metadata| metadata.mode() & 0o777);
        mode().expect("the session");
        rustix::fs::chmod(&plain, rustix::fs::Mode::from_raw_mode(0o700)).expect("chmod");
        assert_eq!(mode().expect("the session"), 0o700);
        fs::remove_dir(&plain).expect("rmdir");
        fails(mode(), libc::ENOENT);
        fails(fs::metadata(&plain), libc::ENOENT);
        let name = format!("t{n}");
        let listed = || fs::read_dir(mount.point()).expect("a directory").flatten().any(|it| it.file_name() == *name);
        fs::create_dir(&seen).and_then(|()| fs::metadata(&plain)).expect("a session");
        assert!(listed());
        fs::remove_dir(&seen).expect("rmdir");
        assert!(!listed());
        // By its path it may take half a second.
        eventually("it has gone", || !plain.exists());
    }
}

// V6, C16
#[test]
fn locks_are_of_one_view() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "1");
    let locked = |way: &str, path: PathBuf, held: PathBuf| {
        let script = "import fcntl, os, sys\nheld = open(sys.argv[2], 'r+'); path = open(sys.argv[3], 'r+')\n\
                      lock = getattr(fcntl, sys.argv[1])\nlock(held, fcntl.LOCK_EX)\n\
                      if os.fork() == 0:\n try:\n  lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)\n  os._exit(0)\n \
                      except OSError: os._exit(1)\nsys.exit(os.waitstatus_to_exitcode(os.wait()[1]))";
        let (held, path) = (held.to_string_lossy().into_owned(), path.to_string_lossy().into_owned());
        mount.run(mount.command(&[harness::python(), "-c", script, way, &held, &path])).code == Some(1)
    };
    for way in ["flock", "lockf"] {
        let (plain, a) = (mount.path("k"), view(&mount, "a", "k"));
        assert!(locked(way, a.clone(), a.clone()), "{way} within a view");
        assert!(locked(way, plain.clone(), plain.clone()), "{way} in the plain tree");
        assert!(!locked(way, a.clone(), plain.clone()), "{way} in a view is none in the plain tree");
        assert!(!locked(way, view(&mount, "b", "k"), a), "{way} in one view is none in another");
    }
}

// V6, T3
#[test]
fn nothing_is_moved_or_linked_from_one_view_to_another() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "1");
    let (a, b) = (view(&mount, "a", "k"), view(&mount, "b", "moved"));
    fails(fs::rename(&a, &b), libc::EXDEV);
    fails(fs::rename(&a, mount.path("moved")), libc::EXDEV);
    fails(fs::rename(mount.path("k"), &b), libc::EXDEV);
    fails(fs::hard_link(&a, &b), libc::EPERM);
    assert_eq!(mount.names(""), ["k"]);
    within(&mount, "a", "mv k \"$MNT/.baton/as/b/s/moved\"").ok();
    assert_eq!((mount.names(""), mount.writer_of("moved")), (vec!["moved".to_owned()], "b".to_owned()));
}

// V6, C12
#[test]
fn what_one_tree_commits_all_others_read_by_every_way() {
    let Some(mount) = Mount::new() else { return };
    let copy = mount.scratch().join("copy");
    let (reads, maps) = (view(&mount, "a", "k"), view(&mount, "b", "k"));
    for n in 0..20 {
        let value = format!("{n}-{}", "x".repeat(5000 - 100 * n));
        match n % 3 {
            0 => mount.write("k", &value),
            1 => fs::write(view(&mount, "a", "k"), &value).expect("write"),
            _ => fs::write(view(&mount, "c", "k"), &value).expect("write"),
        }
        // By the page cache (sendfile), and by read.
        let (mut from, mut to) = (File::open(&reads).expect("open"), File::create(&copy).expect("create"));
        while rustix::fs::sendfile(&to, &from, None, 1 << 20).expect("sendfile") > 0 {}
        to.flush().expect("flush");
        assert_eq!(fs::read_to_string(&copy).expect("a copy"), value, "by sendfile");
        let mut again = String::new();
        from.seek(SeekFrom::Start(0)).and_then(|_| from.read_to_string(&mut again)).expect("read");
        assert_eq!(again, value, "by read");
        let script = "import mmap, sys; f = open(sys.argv[1], 'rb'); print(mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE)[:].decode())";
        if n % 5 == 0 {
            let path = maps.to_string_lossy().into_owned();
            assert_eq!(
                mount.run(mount.command(&[harness::python(), "-c", script, &path])).ok().trim(),
                value,
                "by a mapping"
            );
        }
        assert_eq!(fs::metadata(&maps).expect("stat").len(), value.len() as u64);
    }
}
