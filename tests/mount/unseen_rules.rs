//! Who is said to write, and what is refused, where callers cannot be seen; and opens that only their order tells apart.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use crate::harness::{self, Mount, Sight};

/// The neighbour's program on the mount.
fn neighbour(mount: &Mount, writer: &str, words: &[&str]) -> harness::Ran {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/neighbour.py");
    let root = mount.point();
    let mut command =
        mount.command(&[harness::python(), script, &root.to_string_lossy(), harness::SESSION, writer, "error"]);
    command.args(words);
    mount.run(command)
}

// U5, E1, E2, E5, H1, H2, N1, N2
#[test]
fn who_cannot_be_seen_writes_as_the_mounts_own_writer_and_meets_the_rules() {
    for sight in [Sight::Outside, Sight::Hidden] {
        let Some(mount) = Mount::seen_by(sight, &["--conflict-policy", "error", "--writer-id", "outside"]) else {
            return;
        };
        mount.by("ignored", "echo x > k; echo '{\"task\": 1}' > __handoff.json").ok();
        mount.by("another", "echo y > k; cat __handoff.json | jq -c .summary").ok();
        assert_eq!((mount.writer_of("k").as_str(), mount.read("k").as_str()), ("outside", "y\n"), "{sight:?}");
        mount.bash("/bin/echo nothing > __handoff.json").refused("Invalid argument");
        assert!(mount.read("__handoff.json").contains("\"task\": 1"), "{sight:?}");
        // The neighbour says itself who it is, and the command too: their keys are theirs.
        neighbour(&mount, "stage-a", &["write", "plan", "from-a"]).ok();
        mount.bash("echo from-b | cat > plan").refused("Device or resource busy");
        mount.bash("cat k >> plan").refused("Device or resource busy");
        mount.bash("mv k plan").refused("Device or resource busy");
        neighbour(&mount, "stage-b", &["write", "plan", "from-b"]).refused("previously written by 'stage-a'");
        assert_eq!((mount.read("plan").as_str(), mount.writer_of("plan").as_str()), ("from-a", "stage-a"), "{sight:?}");
        assert!(mount.errors().contains("now being written by 'outside'"), "{sight:?}: {}", mount.errors());
        let store = mount.store();
        let mut command = mount.command(&["bash", "-c", "echo mine | \"$BATONFS\" write \"$STORE\" \"$SESSION\" own"]);
        command.env("BATON_WRITER_ID", "command");
        mount.run(command).ok();
        assert_eq!(mount.writer_of("own"), "command", "{sight:?}: {}", store.display());
    }
}

// U1, M1
#[test]
fn control_files_work_for_who_cannot_be_seen_and_say_so() {
    let Some(mount) = Mount::new() else { return };
    let status = mount.status();
    assert_eq!((status["callers"].as_str(), status.get("unseen_means")), (Some("seen"), None));
    drop(mount);
    for sight in [Sight::Outside, Sight::Container, Sight::Hidden, Sight::Denied] {
        let Some(mount) = Mount::seen_by(sight, &[]) else { return };
        mount.write("k", "x");
        let status = mount.status();
        assert_eq!(status["callers"], "unseen", "{sight:?}: {status}");
        for rule in ["(C1)", "(C6)", "(C8)"] {
            assert!(status["unseen_means"].as_str().expect("words").contains(rule), "{sight:?}: {status}");
        }
        mount.bash("echo warn > .baton/policy && echo nonsense > .baton/policy").refused("Invalid argument");
        assert_eq!(mount.read(".baton/policy"), "warn\n", "{sight:?}");
        assert!(mount.read(".baton/handle").contains("\"writer_id\": \"s\""), "{sight:?}");
    }
}

// M1
#[test]
fn a_session_made_by_reading_belongs_to_who_reads() {
    let Some(mut mount) = Mount::seen_by(Sight::Outside, &[]) else { return };
    fs::set_permissions(mount.store(), PermissionsExt::from_mode(0o777)).expect("chmod");
    mount.again_seen_by(Sight::Outside, &["--allow-other"]);
    let words = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "bash",
        "-c",
        "id=$(cat \"$MNT/.baton/new\") && echo x > \"$MNT/$id/k\" && stat -c %u \"$MNT/$id\" \"$MNT/$id/k\"",
    ];
    let mut command = mount.command(&words);
    command.current_dir("/");
    assert_eq!(mount.run(command).ok(), "65534\n65534\n");
}

// U6, C1, C4: each truncating open gets its own truncation, and a reader beside them sees whole values only.
#[test]
fn writers_that_truncate_at_the_same_moment_leave_whole_values_only() {
    let rounds = if harness::long() { 400 } else { 30 };
    for sight in [Sight::Outside, Sight::Hidden] {
        let Some(mount) = Mount::seen_by(sight, &[]) else { return };
        mount.write("k", "base\n");
        let writer = "import os, sys\nw, n = sys.argv[1], int(sys.argv[2])\nfor i in range(n):\n\
                      \x20fd = os.open('k', os.O_WRONLY | os.O_TRUNC)\n size = (i * 7 + int(w)) % 50 + 1\n\
                      \x20for part in range(3): os.write(fd, f'{w}-{i}-{size}\\n'.encode() * size)\n os.close(fd)";
        let reader = "import os\nbad = []\nwhile not os.path.exists('done'):\n\
                      \x20text = open('k').read()\n lines = text.split('\\n')[:-1]\n\
                      \x20if text != 'base\\n' and (len(set(lines)) != 1 or len(lines) != 3 * int(lines[0].split('-')[2])): bad.append(text[:80])\n\
                      print(len(bad), bad[:3])";
        let read = mount.spawn(mount.command(&[harness::python(), "-c", reader]));
        let writers: Vec<_> = (0..4)
            .map(|w| {
                mount.spawn(mount.command(&[harness::python(), "-c", writer, &w.to_string(), &rounds.to_string()]))
            })
            .collect();
        for writer in writers {
            writer.wait().ok();
        }
        mount.write("done", "");
        assert_eq!(read.wait().ok(), "0 []\n", "{sight:?}");
        let versions = mount.versions("k");
        assert_eq!(versions, (1..=4 * rounds + 1).collect::<Vec<u64>>(), "{sight:?}: a version a close");
        let empty = mount.log().iter().any(|line| line["key"] == "k" && line["size_bytes"] == 0);
        assert!(!empty, "{sight:?}: an empty value was committed");
    }
}

// U6, C4, C7, C18: a truncating open beside one that appends, reads or edits.
#[test]
fn a_truncation_is_never_taken_for_that_of_another_kind_of_open() {
    for sight in [Sight::Outside, Sight::Hidden] {
        let Some(mount) = Mount::seen_by(sight, &[]) else { return };
        let open = |options: &mut OpenOptions| options.open(mount.path("k")).expect("open");
        // Opened before and not used: an appending one, a reader, an edit.
        mount.write("k", "old value\n");
        let mut log = open(OpenOptions::new().append(true));
        let mut reader = open(OpenOptions::new().read(true));
        let mut edit = open(OpenOptions::new().read(true).write(true));
        mount.bash("echo new > k").ok();
        assert_eq!((mount.read("k").as_str(), mount.versions("k")), ("new\n", vec![1, 2]), "{sight:?}");
        let mut text = String::new();
        edit.read_to_string(&mut text).expect("read");
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "new\nnew\n", "{sight:?}: both pin what they read first");
        log.write_all(b"appended\n").expect("append");
        drop((log, edit, reader));
        assert_eq!((mount.read("k").as_str(), mount.versions("k")), ("new\nappended\n", vec![1, 2, 3]), "{sight:?}");
        // At the same moment.
        let script = "for i in $(seq 40); do echo a >> k; done & for i in $(seq 40); do echo t > k; done & \
                      for i in $(seq 40); do cat k > /dev/null; done & wait";
        mount.bash(script).ok();
        assert_eq!(mount.versions("k").len(), 83, "{sight:?}");
        let sizes: Vec<u64> = mount.log().iter().filter_map(|line| line["size_bytes"].as_u64()).collect();
        assert!(!sizes.contains(&0), "{sight:?}: an empty value was committed: {sizes:?}");
        assert!(mount.read("k").lines().skip(1).all(|line| line == "a"), "{sight:?}: {}", mount.read("k"));
    }
}

// M2
#[test]
fn who_holds_an_open_draft_is_not_guessed() {
    for sight in [Sight::Outside, Sight::Hidden] {
        let Some(mount) = Mount::seen_by(sight, &[]) else { return };
        let mut writing = fs::File::create(mount.path("k")).expect("create");
        writing.write_all(b"whole").expect("write");
        let point = mount.point();
        let umount = ["umount", &point.to_string_lossy(), "--wait", "0"];
        mount.batonfs(&umount).refused("s/k (5 bytes), holder unknown");
        drop(writing);
        mount.batonfs(&umount).ok();
        assert_eq!(fs::read(mount.stored("k")).expect("in the store"), b"whole");
    }
}

// M2: such a daemon is often the first process of its namespace.
#[test]
fn a_daemon_asked_to_end_says_that_a_holder_is_not_known() {
    let Some(mut mount) = Mount::seen_by(Sight::Container, &["--wait", "0"]) else { return };
    mount.write("k", "old");
    let mut writing = fs::File::create(mount.path("k")).expect("create");
    writing.write_all(b"half").expect("write");
    let daemon = mount.daemons().first().copied().expect("a daemon").to_string();
    mount.run(mount.command(&["kill", "-TERM", &daemon])).ok();
    let log = mount.ended();
    assert!(log.contains("still open at the end, dropped: s/k (4 bytes), holder unknown"), "{log}");
    assert_eq!(fs::read(mount.stored("k")).expect("in the store"), b"old");
}

// U1: of /proc that tells of another pid namespace nothing is read: under one id it shows another process.
#[test]
fn a_process_is_never_taken_for_one_of_another_pid_namespace() {
    let Some(mount) = Mount::seen_by(Sight::Outside, &[]) else { return };
    let daemon = mount.daemons().first().copied().expect("a daemon").to_string();
    // Forks on until its id is also one of the machine's.
    let script = "import os\nwhile True:\n child = os.fork()\n if child == 0 and os.path.exists(f'/proc/{os.getpid()}'): break\n\
                  \x20if child == 0: os._exit(1)\n if os.waitpid(child, 0)[1] == 0: os._exit(0)\n\
                  fd = os.open('k', os.O_WRONLY | os.O_CREAT)\nos.write(fd, b'half ')\nif os.fork() == 0: os._exit(0)\nos.wait()\n\
                  print(os.path.exists('k'), flush=True)\nos.write(fd, b'whole')\nos.close(fd)\nos._exit(0)";
    let inside = ["nsenter", "--target", &daemon, "--pid", harness::python(), "-c", script];
    assert_eq!(mount.run(mount.command(&inside)).ok(), "False\n");
    let log = mount.log();
    let made = log.iter().find(|line| line["key"] == "k").expect("a line");
    assert_eq!(made.get("process"), None, "{made}");
    assert_eq!((mount.read("k").as_str(), mount.versions("k")), ("half whole", vec![1]));
}

// U1
#[test]
fn without_any_proc_nothing_is_mounted_and_it_says_why() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can hide /proc from a command");
        return;
    }
    let Some(mut mount) = Mount::new() else { return };
    mount.unmount();
    // Private before anything is mounted on it: the machine's own /proc stays as it is.
    let script = "mount --make-private /proc && mount -t tmpfs -o size=4k none /proc && \
                  exec \"$BATONFS\" mount --foreground \"$STORE\" \"$MNT\"";
    let words = ["unshare", "--mount", "--propagation", "unchanged", "bash", "-c", script];
    let mut command = mount.command(&words);
    command.current_dir("/");
    mount.run(command).refused("reading the table of mounts");
}
