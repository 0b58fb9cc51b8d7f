//! Writer views: the same sessions once more for each writer, who is then not a claim of a process but where it works.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{self, Mount, Ran, Sight, eventually, fails};

/// A path in the session, through a view; `writer` as it is named in `.baton/as`.
fn view(mount: &Mount, writer: &str, key: &str) -> PathBuf {
    mount.point().join(".baton/as").join(writer).join(harness::SESSION).join(key)
}

/// A bash script in the session, through a view.
fn within(mount: &Mount, writer: &str, script: &str) -> Ran {
    let mut command = mount.command(&["bash", "-c", script]);
    command.current_dir(view(mount, writer, ""));
    mount.run(command)
}

/// The lines of a control file of the session, through a view.
fn lines(mount: &Mount, writer: &str, control: &str) -> Vec<Value> {
    let text = fs::read_to_string(view(mount, writer, control)).expect("a control file");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Every writer id in these lines, each once.
fn writers(lines: &[Value]) -> Vec<&str> {
    let mut ids: Vec<_> = lines.iter().filter_map(|line| line["writer"]["writer_id"].as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

// V1
#[test]
fn a_view_shows_and_changes_the_same_sessions() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("mkdir -p d/e; echo plain > d/e/k; echo x > gone; mkdir ../other").ok();
    within(&mount, "a", "cat d/e/k; cd ../other; echo o > k; cd ../s; mv gone d/moved; rm d/e/k; rmdir d/e").ok();
    assert_eq!((mount.names(""), mount.names("d")), (vec!["d".to_owned()], vec!["moved".to_owned()]));
    assert_eq!(fs::read_to_string(mount.point().join("other/k")).expect("a key"), "o\n");
    within(&mount, "a", "chmod 600 d/moved; touch -d 2001-01-01 d/moved; mkdir ../third").ok();
    let (plain, seen) = (mount.path("d/moved"), view(&mount, "a", "d/moved"));
    let stat = |path: &PathBuf| fs::metadata(path).map(|m| (m.mode(), m.size(), m.mtime(), m.nlink())).expect("stat");
    assert_eq!((stat(&plain), stat(&plain).0 & 0o777), (stat(&seen), 0o600));
    rustix::fs::setxattr(&seen, "user.note", b"n", rustix::fs::XattrFlags::empty()).expect("an attribute");
    assert_eq!(mount.xattr("d/moved", "user.note").as_deref(), Some("n"));
    let mut sessions: Vec<_> = fs::read_dir(view(&mount, "a", "..")).expect("a view").flatten().collect();
    sessions.sort_by_key(fs::DirEntry::file_name);
    assert_eq!(sessions.iter().map(fs::DirEntry::file_name).collect::<Vec<_>>(), ["other", "s", "third"]);
    let log = mount.log();
    let of_view: Vec<_> = log.iter().filter(|line| line["writer"]["writer_id"] == "a").collect();
    let ops: Vec<_> = of_view.iter().filter_map(|line| line["op"].as_str()).collect();
    assert_eq!(ops, ["rename", "delete", "rmdir", "attributes", "attributes", "attributes"]);
}

// V1
#[test]
fn whatever_goes_through_a_view_is_its_writers() {
    let Some(mount) = Mount::new() else { return };
    for (key, script) in [
        ("builtin", "export BATON_WRITER_ID=x; echo a > builtin"),
        ("program", "BATON_WRITER_ID=x /bin/echo a > program"),
        ("subshell", "( export BATON_WRITER_ID=x; { echo a; /bin/echo b; } > subshell )"),
        ("append", "echo a >> append"),
        ("touched", "touch touched"),
        ("renamed", "echo a > tmp; BATON_WORKER_ID=x mv tmp renamed"),
        ("run", "\"$BATONFS\" run --writer-id x --stage-id y -- sh -c 'echo a > run'"),
        ("unusable", "export BATON_WRITER_ID=$(printf %300s x); /bin/echo a > unusable"),
        (
            "python",
            "python3 -c 'import os; os.environ[\"BATON_WRITER_ID\"] = \"x\"; open(\"python\", \"w\").write(\"a\")'",
        ),
        (
            "threads",
            "python3 -c 'import os, threading\nf = os.open(\"threads\", os.O_CREAT | os.O_WRONLY)\n\
             ts = [threading.Thread(target=os.pwrite, args=(f, b\"a\", n)) for n in range(4)]\n\
             [t.start() for t in ts]; [t.join() for t in ts]; os.close(f)'",
        ),
        (
            "forked",
            "python3 -c 'import os\nf = os.open(\"forked\", os.O_CREAT | os.O_WRONLY)\nif os.fork() == 0: os.write(f, b\"a\"); \
             os._exit(0)\nos.wait()'",
        ),
        // Whoever it is given to: the descriptor is the view's.
        ("given", "cd \"$MNT/s\"; BATON_WRITER_ID=x /bin/echo a >> \"$OLDPWD/given\""),
    ] {
        within(&mount, "w", script).ok();
        let writer = json!({"writer_id": "w", "session_id": "s"});
        assert_eq!(mount.sidecar(key)["writer"], writer, "{script}");
        let last = mount.log().pop().expect("a line");
        assert_eq!((&last["writer"], last["process"]["pid"].is_u64()), (&writer, true), "{script}");
    }
    let handoff = "BATON_WRITER_ID=x /bin/echo '{\"n\": 1}' > __handoff.json";
    within(&mount, "w", handoff).ok();
    let envelope: Value = serde_json::from_str(&mount.read("__handoff.json")).expect("JSON");
    assert_eq!((&envelope["writer"]["writer_id"], &envelope["writer"]["worker_id"]), (&json!("w"), &Value::Null));
    let handle: Value =
        serde_json::from_slice(&fs::read(view(&mount, "w", ".baton/handle")).expect("a handle")).expect("JSON");
    assert_eq!(handle["writer"], json!({"writer_id": "w", "stage_id": null, "session_id": "s", "worker_id": null}));
    let attribute = |name| {
        let mut value = [0; 64];
        let len = rustix::fs::getxattr(view(&mount, "other", "given"), name, &mut value[..]).ok()?;
        String::from_utf8(value[..len].to_vec()).ok()
    };
    assert_eq!(attribute("user.baton.writer_id").as_deref(), Some("w"));
    assert_eq!(attribute("user.baton.session_id").as_deref(), Some("s"));
    assert_eq!(attribute("user.baton.version").as_deref(), Some("1"));
    assert!(attribute("user.baton.committed_at").is_some_and(|at| at.parse::<u64>().is_ok()));
    assert_eq!((attribute("user.baton.stage_id"), attribute("user.baton.worker_id")), (None, None));
    let mut none = [0; 64];
    assert_eq!(rustix::fs::listxattr(view(&mount, "other", "given"), &mut none[..]), Ok(0));
}

// V1, U5
#[test]
fn callers_that_cannot_be_seen_have_the_views_writer() {
    for sight in [Sight::Outside, Sight::Denied] {
        let Some(mount) = Mount::seen_by(sight, &["--conflict-policy", "error"]) else { return };
        within(&mount, "w", "echo a > k; echo b >> k").ok();
        assert_eq!((mount.read("k"), mount.writer_of("k")), ("a\nb\n".to_owned(), "w".to_owned()), "{sight:?}");
        within(&mount, "v", "echo c > k").refused("Device or resource busy");
        assert_eq!(lines(&mount, "v", ".baton/errors").len(), 1, "{sight:?}");
        assert_eq!(lines(&mount, "w", ".baton/errors").len(), 0, "{sight:?}");
    }
}

// V2
#[test]
fn a_writer_is_named_in_one_way() {
    let Some(mount) = Mount::new() else { return };
    let long = "/".repeat(256);
    for (name, writer) in [
        ("team%2Fplanner", "team/planner"),
        ("a b\u{e9}:1", "a b\u{e9}:1"),
        ("50%25", "50%"),
        ("%2E%2E", ".."),
        (long.replace('/', "%2F").as_str(), long.as_str()),
    ] {
        within(&mount, name, "echo a > k").ok();
        assert_eq!(mount.writer_of("k"), writer);
    }
    let of = |name: &str| fs::metadata(mount.point().join(".baton/as").join(name));
    for name in ["%41", "team%2fplanner", "%2E.", "%", "x%4", " ", "%00"] {
        fails(of(name), libc::EINVAL);
    }
    fails(of(&"x".repeat(257)), libc::ENAMETOOLONG);
    assert_eq!(fs::read_dir(mount.point().join(".baton/as")).expect("a directory").count(), 0);
    assert!(fs::create_dir(mount.point().join(".baton/as/new")).is_err());
    assert!(fs::remove_dir(mount.point().join(".baton/as/a b")).is_err());
}

// V2
#[test]
fn a_view_that_nobody_uses_is_forgotten_and_one_in_use_is_not() {
    let Some(mount) = Mount::new() else { return };
    within(&mount, "used", "echo a > k").ok();
    let mut used = OpenOptions::new().append(true).open(view(&mount, "used", "k")).expect("open");
    for n in 0..100 {
        fs::metadata(view(&mount, &format!("w{n}"), "k")).expect("stat");
    }
    assert_eq!(mount.status()["views"], 101);
    eventually("what nobody uses is forgotten", || {
        // Mounting again with the same flags drops the names that the kernel keeps.
        let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
        rustix::mount::mount_remount(mount.point(), flags, c"").expect("a remount");
        mount.status()["views"] == 1
    });
    for n in 0..10 {
        within(&mount, &format!("v{n}"), "echo v > v").ok();
        assert_eq!(mount.writer_of("v"), format!("v{n}"));
    }
    used.write_all(b"b\n").expect("write");
    drop(used);
    assert_eq!((mount.read("k"), mount.writer_of("k")), ("a\nb\n".to_owned(), "used".to_owned()));
}

// V2: of more writers than can be told apart at one time, if each is met once.
#[test]
fn the_kernel_is_asked_to_forget_views_before_there_are_too_many() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root may ask for that");
    }
    let Some(mount) = Mount::new() else { return };
    let point = mount.point();
    let used = File::open(view(&mount, "used", "")).expect("a view");
    for n in 0..4200 {
        fs::metadata(point.join(format!(".baton/as/w{n}"))).expect("a view");
    }
    eventually("they are forgotten", || mount.status()["views"].as_u64().is_some_and(|views| views < 500));
    let open = rustix::fs::openat(&used, "k", rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY, 0o644.into());
    rustix::io::write(open.expect("create"), b"a").expect("write");
    assert_eq!(mount.writer_of("k"), "used");
}

// V3
#[test]
fn anothers_value_is_refused_before_anything_is_written() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    within(&mount, "a", "echo from-a > k; echo mine > other").ok();
    mount.by("plain", "echo plain > plain").ok();
    for script in [
        "echo b > k",
        "( echo b > k )",
        // What an open alone has emptied is refused aloud, though nobody hears of a close.
        ": > k",
        "( : > k )",
        "exec 3> k",
        "( exec 3> k )",
        "BATON_WRITER_ID=a; export BATON_WRITER_ID; echo b > k",
        "BATON_WRITER_ID=a /bin/echo b > k",
        "BATON_CONFLICT_POLICY=ignore /bin/echo b > k",
        "echo b >> k",
        "truncate -s 1 k",
        "echo b > mine; mv mine k",
        "cp plain k",
        "sed -i s/a/b/ k",
        "python3 -c 'f = open(\"k\", \"r+\"); f.write(\"b\"); f.close()'",
        "echo b > plain",
        "BATON_WRITER_ID=plain /bin/echo b > plain",
    ] {
        within(&mount, "b", script).refused("resource busy");
        assert_eq!((mount.read("k"), mount.versions("k")), ("from-a\n".to_owned(), vec![1]), "{script}");
        assert_eq!(mount.read("plain"), "plain\n", "{script}");
    }
    within(&mount, "a", "echo 2 > k; ( echo 3 > k ); BATON_WRITER_ID=b /bin/echo 4 >> k; sed -i s/3/5/ k; mv other k")
        .ok();
    assert_eq!(mount.read("k"), "mine\n");
    mount.by("b", "/bin/echo b > k").refused("Device or resource busy");
    mount.by("a", "/bin/echo a > k").ok();
    // The same id is the same writer, declared or fixed.
    within(&mount, "a", "echo again > k").ok();
    assert_eq!(mount.read("k"), "again\n");
}

// V3
#[test]
fn the_strictest_policy_holds_in_a_view_as_well() {
    let Some(mount) = Mount::new() else { return };
    mount.by("a", "echo a > k").ok();
    within(&mount, "b", "BATON_CONFLICT_POLICY=error /bin/echo b > k").refused("Device or resource busy");
    within(&mount, "b", "BATON_CONFLICT_POLICY=sometimes /bin/echo b > k").refused("Invalid argument");
    within(&mount, "b", "BATON_CONFLICT_POLICY=warn /bin/echo b > k").ok();
    assert!(lines(&mount, "b", ".baton/log").last().expect("a line")["conflict"].is_string());
    mount.bash("echo error > .baton/policy").ok();
    within(&mount, "a", "BATON_CONFLICT_POLICY=ignore /bin/echo b > k").refused("Device or resource busy");
}

// V4
#[test]
fn a_view_sets_no_switch_and_makes_no_views() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    mount.bash("echo warn > .baton/policy").ok();
    let policy = view(&mount, "a", ".baton/policy");
    assert_eq!(fs::read_to_string(&policy).expect("the policy"), "warn\n");
    assert_eq!(fs::metadata(&policy).expect("stat").mode() & 0o222, 0);
    fails(fs::write(&policy, "ignore"), libc::EPERM);
    fails(OpenOptions::new().append(true).open(&policy), libc::EPERM);
    fails(fs::remove_file(&policy), libc::EPERM);
    assert_eq!(mount.read(".baton/policy"), "warn\n");
    let top = mount.point().join(".baton/as/a/.baton");
    for name in ["as", "as/b", "new", "socket", "lock"] {
        fails(fs::metadata(top.join(name)), libc::ENOENT);
    }
    let names = fs::read_dir(&top).expect("a directory").flatten().map(|entry| entry.file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["status"]);
    assert!(fs::read_to_string(top.join("status")).expect("the status").contains("\"engine\""));
    let plain = fs::read_dir(mount.point().join(".baton")).expect("a directory").flatten();
    assert!(plain.map(|entry| entry.file_name()).any(|name| name == "as"), "to be seen where it is");
}

// V4, E5
#[test]
fn log_and_errors_show_the_writers_own_lines() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    within(&mount, "a", "echo a > a; rm a; echo a > a").ok();
    mount.by("a", "echo more > more").ok();
    mount.by("b", "echo b > b; /bin/echo b > a").refused("busy");
    within(&mount, "b", "echo b >> a").refused("busy");
    within(&mount, "b", "mv b a").refused("busy");
    within(&mount, "a", "echo a > b").refused("busy");
    let (log, of_a, of_b) = (mount.log(), lines(&mount, "a", ".baton/log"), lines(&mount, "b", ".baton/log"));
    assert_eq!((writers(&of_a), writers(&of_b)), (vec!["a"], vec!["b"]));
    assert_eq!(of_a.len() + of_b.len() + 1, log.len(), "all but the session's first line");
    assert_eq!(of_a.iter().filter(|line| line["key"] == "more").count(), 1, "wherever it was made");
    assert_eq!(lines(&mount, "nobody", ".baton/log"), [Value::Null; 0]);
    let by = |writer: &str| -> Vec<String> {
        let errors = lines(&mount, writer, ".baton/errors");
        assert!(errors.iter().all(|line| line["writer_id"] == *writer), "{errors:?}");
        errors.iter().filter_map(|line| Some(line["key"].as_str()?.to_owned())).collect()
    };
    assert_eq!((by("a"), by("b"), by("nobody")), (vec!["b".to_owned()], vec!["a".to_owned(); 3], vec![]));
    assert_eq!(mount.errors().lines().count(), 4);
    let sizes = |writer: &str| fs::metadata(view(&mount, writer, ".baton/log")).expect("stat").len();
    let read = |writer: &str| fs::read(view(&mount, writer, ".baton/log")).expect("read").len() as u64;
    assert_eq!((sizes("a"), sizes("b")), (read("a"), read("b")), "its true size");
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
