//! Writer views: the same sessions once more for each writer, who is then not a claim of a process but where it works.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;

use serde_json::{Value, json};

use crate::harness::{self, Mount, Ran, Sight, eventually, fails};

/// A path in the session, through a view; `writer` as it is named in `.baton/as`.
pub(crate) fn view(mount: &Mount, writer: &str, key: &str) -> PathBuf {
    mount.point().join(".baton/as").join(writer).join(harness::SESSION).join(key)
}

/// A bash script in the session, through a view.
pub(crate) fn within(mount: &Mount, writer: &str, script: &str) -> Ran {
    let mut command = mount.command(&["bash", "-c", script]);
    command.current_dir(view(mount, writer, "")).env("PYTHON", harness::python());
    mount.run(command)
}

/// The lines of a control file of the session, through a view.
pub(crate) fn lines(mount: &Mount, writer: &str, control: &str) -> Vec<Value> {
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
            "$PYTHON -c 'import os; os.environ[\"BATON_WRITER_ID\"] = \"x\"; open(\"python\", \"w\").write(\"a\")'",
        ),
        (
            "threads",
            "$PYTHON -c 'import os, threading\nf = os.open(\"threads\", os.O_CREAT | os.O_WRONLY)\n\
             ts = [threading.Thread(target=os.pwrite, args=(f, b\"a\", n)) for n in range(4)]\n\
             [t.start() for t in ts]; [t.join() for t in ts]; os.close(f)'",
        ),
        (
            "forked",
            "$PYTHON -c 'import os\nf = os.open(\"forked\", os.O_CREAT | os.O_WRONLY)\nif os.fork() == 0: os.write(f, b\"a\"); \
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
    // They are all there already: none is made, none goes, and none gets another name or a copy in another.
    let views = mount.point().join(".baton/as");
    fails(fs::create_dir(views.join("new")), libc::EEXIST);
    fails(fs::remove_dir(views.join("a b")), libc::EPERM);
    fails(fs::rename(views.join("a"), views.join("b")), libc::EPERM);
    fails(fs::rename(views.join("a"), views.join("b/a")), libc::EPERM);
}

// V2
#[test]
fn a_view_that_nobody_uses_is_forgotten_and_one_in_use_is_not() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root may mount again");
    }
    let Some(mount) = Mount::new() else { return };
    within(&mount, "used", "echo a > k").ok();
    let mut used = OpenOptions::new().append(true).open(view(&mount, "used", "k")).expect("open");
    for n in 0..100 {
        fs::metadata(view(&mount, &format!("w{n}"), "k")).expect("stat");
    }
    assert_eq!(mount.status()["views"], 101);
    eventually("what nobody uses is forgotten", || {
        forget(&mount);
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

// V2: it is this mount that is asked, not what has been mounted in its place.
#[test]
fn what_is_mounted_over_the_mountpoint_is_not_asked_to_forget() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root may mount there");
    }
    let Some(mount) = Mount::new() else { return };
    let (store, over) = (mount.scratch().join("store"), mount.scratch().join("over"));
    fs::create_dir(&store).and_then(|()| fs::create_dir(&over)).expect("directories");
    mount.batonfs(&["mount", &store.to_string_lossy(), &over.to_string_lossy()]).ok();
    let root = File::open(mount.point()).expect("the root");
    let known = (0..100).all(|n| fs::metadata(over.join(format!(".baton/as/w{n}"))).is_ok());
    rustix::mount::mount_bind(&over, mount.point()).expect("a mount over it");
    let look = |name: String| rustix::fs::statat(&root, name, rustix::fs::AtFlags::empty()).is_ok();
    let met = (0..4200).all(|n| look(format!(".baton/as/w{n}")));
    // It looks at how many there are five times a second.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let status = fs::read_to_string(over.join(".baton/status"));
    rustix::mount::unmount(mount.point(), rustix::mount::UnmountFlags::DETACH).expect("it goes again");
    mount.batonfs(&["umount", &over.to_string_lossy()]).ok();
    assert!(known && met);
    let status: Value = serde_json::from_str(&status.expect("the status")).expect("JSON");
    assert_eq!(status["mount"]["views"], 100);
    assert!(mount.status()["views"].as_u64().is_some_and(|views| views >= 4200));
}

/// Drops the names that the kernel keeps for nobody, by mounting again with the same flags.
fn forget(mount: &Mount) {
    let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
    rustix::mount::mount_remount(mount.point(), flags, c"").expect("a remount");
}

// V1, V2
#[test]
fn views_that_come_and_go_are_never_taken_for_each_other() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root may mount again");
    }
    let Some(mount) = Mount::new() else { return };
    let rounds = if harness::long() { 2000 } else { 40 };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|thread| {
                let mount = &mount;
                scope.spawn(move || {
                    for n in 0..rounds {
                        let (writer, key) = (format!("{thread}-{}", n % 11), format!("k{thread}"));
                        fs::write(view(mount, &writer, &key), &writer).expect("write");
                        assert_eq!(mount.xattr(&key, "user.baton.writer_id"), Some(writer), "round {n}");
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                forget(&mount);
            }
        });
        let ended: Vec<_> = writers.into_iter().map(ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
}

// V1, V4, M1, E4
#[test]
fn a_view_is_for_the_users_the_mount_is_for() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can act as another user");
    }
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c"];
    let by = |mount: &Mount, script: &str| {
        let mut command = mount.command(&[nobody.as_slice(), &[script]].concat());
        command.current_dir("/").env("V", view(mount, "a", ""));
        mount.run(command)
    };
    let Some(mut mount) = Mount::with(&["--allow-other"]) else { return };
    mount.bash("chmod 777 .; echo root > root; chmod 600 root").ok();
    by(&mount, "cd \"$V\" && echo mine > k && cat k .baton/policy && ! cat root 2> /dev/null").ok();
    assert_eq!((mount.writer_of("k"), fs::metadata(mount.path("k")).expect("stat").uid()), ("a".to_owned(), 65534));
    by(&mount, "echo error > \"$V/.baton/policy\"").refused("Permission denied");
    mount.again(&[]);
    by(&mount, "cat \"$V/k\"").refused("Permission denied");
    mount.again(&["--read-only"]);
    fails(fs::write(view(&mount, "a", "k"), "more"), libc::EROFS);
    assert_eq!(fs::read_to_string(view(&mount, "a", "k")).expect("read"), "mine\n");
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
        "$PYTHON -c 'f = open(\"k\", \"r+\"); f.write(\"b\"); f.close()'",
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
    assert_eq!(names.collect::<Vec<_>>(), ["status", "handoffs"]);
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
        assert!(errors.iter().all(|line| line["writer"]["writer_id"] == *writer), "{errors:?}");
        errors.iter().filter_map(|line| Some(line["key"].as_str()?.to_owned())).collect()
    };
    assert_eq!((by("a"), by("b"), by("nobody")), (vec!["b".to_owned()], vec!["a".to_owned(); 3], vec![]));
    assert_eq!(mount.errors().lines().count(), 4);
    let sizes = |writer: &str| fs::metadata(view(&mount, writer, ".baton/log")).expect("stat").len();
    let read = |writer: &str| fs::read(view(&mount, writer, ".baton/log")).expect("read").len() as u64;
    assert_eq!((sizes("a"), sizes("b")), (read("a"), read("b")), "its true size");
}

/// A draft by this writer is refused: the value comes from another one while it is open.
fn refuse(mount: &Mount, writer: &str, key: &str) {
    mount.bash(&format!("rm -f {key}")).ok();
    let script = format!(
        "import os, subprocess\nfd = os.open('{key}', os.O_WRONLY | os.O_CREAT)\nos.write(fd, b'lost by {writer}')\n\
         env = dict(os.environ, BATON_WRITER_ID='owner')\n\
         subprocess.run(['bash', '-c', 'echo value > {key}; echo value > {key}'], env=env, check=True)\n\
         try: os.close(fd)\nexcept OSError as e: print(e.errno)"
    );
    let words = [harness::BATONFS, "run", "--writer-id", writer, "--", harness::python(), "-c", &script];
    assert_eq!(mount.run(mount.command(&words)).ok(), "16\n");
}

// V8, P4, P5
#[test]
fn history_shows_the_lost_drafts_of_the_views_own_writer_and_every_version() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    mount.bash("chmod 755 .; mkdir d never once").ok();
    for (writer, key) in [("a", "k"), ("b", "k"), ("b", "d/k")] {
        refuse(&mount, writer, key);
    }
    // Nothing but a draft was ever there.
    for dir in ["never", "once"] {
        mount.by("b", &format!("exec 3> {dir}/k; echo half >&3; kill -9 $$"));
    }
    eventually("they are dropped", || mount.status()["drops"] == 2);
    mount.bash("rmdir never once; echo value > once").ok();
    let names = |writer: &str, dir: &str| -> Vec<String> {
        let entries = fs::read_dir(view(&mount, writer, &format!(".baton/history/{dir}"))).expect("a directory");
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    };
    let (all, of_d) = (mount.names(".baton/history/k"), mount.names(".baton/history/d/k"));
    let (drafts, versions): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|name| name.ends_with(".refused"));
    assert_eq!((drafts.len(), of_d.len()), (2, 3), "{all:?} {of_d:?}");
    let lost = |writer: &str, name: &str| fs::read_to_string(view(&mount, writer, &format!(".baton/history/k/{name}")));
    let of = |writer: &str| {
        let is_its = |name: &&String| mount.read(&format!(".baton/history/k/{name}")) == format!("lost by {writer}");
        drafts.iter().find(is_its).expect("its draft")
    };
    for (writer, own, other) in [("a", of("a"), of("b")), ("b", of("b"), of("a"))] {
        let mut shown = [versions.clone(), vec![own.clone()]].concat();
        shown.sort();
        assert_eq!(names(writer, "k"), shown);
        assert_eq!(lost(writer, own).expect("its own"), format!("lost by {writer}"));
        fails(lost(writer, other), libc::ENOENT);
        fails(fs::metadata(view(&mount, writer, &format!(".baton/history/k/00{other}"))), libc::ENOENT);
        assert_eq!(lost(writer, &versions[0]).expect("a version"), "value\n");
    }
    assert_eq!((names("a", "d/k").len(), names("b", "d/k").len(), names("none", "k")), (2, 3, versions.clone()));
    let of_a = ["d", "k", "once"].map(str::to_owned).to_vec();
    assert_eq!((names("a", ""), names("b", "")), (of_a, mount.names(".baton/history")));
    assert_eq!((names("b", "never/k").len(), names("b", "once").len(), names("a", "once").len()), (1, 2, 1));
    let mode = |writer: &str| fs::metadata(view(&mount, writer, ".baton/history/once")).expect("stat").mode() & 0o777;
    assert_eq!((mode("a"), mode("b")), (0o555, 0o500), "nor does its mode tell");
    for path in ["never", "never/k"] {
        fails(fs::metadata(view(&mount, "a", &format!(".baton/history/{path}"))), libc::ENOENT);
    }
}
