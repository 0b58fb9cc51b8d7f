//! What is kept: earlier versions, and drafts that were dropped or refused, as files below `.baton/history`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::harness::{self, Image, Mount, eventually, fails};

const CONFLICT: &str = "key 'k' was previously written by 'a' and is now being written by 'b'";
const HISTORY: &str = ".baton/history";

impl Mount {
    fn past(&self, path: &str) -> PathBuf {
        self.path(HISTORY).join(path)
    }

    fn kept(&self, path: &str) -> String {
        fs::read_to_string(self.past(path)).unwrap_or_else(|e| panic!("reading {path} in history: {e}"))
    }

    fn past_names(&self, dir: &str) -> Vec<String> {
        self.names(&format!("{HISTORY}/{dir}"))
    }

    /// The names of the drafts kept of a key that end so.
    fn drafts(&self, key: &str, end: &str) -> Vec<String> {
        let mut names = self.past_names(key);
        names.retain(|name| name.ends_with(end));
        names
    }
}

// P1
#[test]
fn every_version_that_is_kept_is_a_file_also_of_what_was_deleted() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("umask 077; echo 1 > k; touch -d @1000000000 k; echo two > k; chmod 644 k; echo III > k").ok();
    mount.bash("mkdir -p d/e; echo x > d/e/gone; rm -r d").ok();
    assert_eq!(mount.names(""), ["k"], "nothing of it is listed");
    assert!(mount.names(".baton").contains(&"history".to_owned()));
    assert_eq!(mount.past_names(""), ["d", "k"]);
    assert_eq!((mount.past_names("d"), mount.past_names("d/e/gone")), (vec!["e".to_owned()], vec!["1".to_owned()]));
    assert_eq!(mount.kept("d/e/gone/1"), "x\n");
    assert_eq!(mount.past_names("k"), ["1", "2", "3"]);
    assert_eq!([1, 2, 3].map(|n| mount.kept(&format!("k/{n}"))), ["1\n", "two\n", "III\n"]);
    let stat = |n: u64| fs::metadata(mount.past(&format!("k/{n}"))).expect("stat");
    assert_eq!((stat(1).len(), stat(1).mode() & 0o7777, stat(1).mtime()), (2, 0o400, 1_000_000_000));
    assert_eq!((stat(2).len(), stat(2).mode() & 0o7777), (4, 0o444));
    assert_eq!((stat(3).len(), stat(3).mode() & 0o7777), (4, 0o444));
    mount.bash("cmp .baton/history/k/3 k && cp .baton/history/k/1 k && cmp k .baton/history/k/1").ok();
    assert_eq!(mount.past_names("k"), ["1", "2", "3", "4"]);
    for name in ["k/5", "k/0", "k/+1", "k/1x", "none", "d/f", "k/1.dropped"] {
        fails(fs::metadata(mount.past(name)), libc::ENOENT);
    }
    fails(fs::read_dir(mount.past("k/1")), libc::ENOTDIR);
    fails(fs::metadata(mount.point().join(".baton/history")), libc::ENOENT);
}

// P1
#[test]
fn what_is_read_of_a_version_stays_while_others_come() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("echo one > k; echo two > k").ok();
    let script = "f = open('.baton/history/k/1')\nfor n in range(50):\n with open('k', 'w') as k: k.write(str(n))\n\
                  import os\nprint(f.read(), os.path.exists('.baton/history/k/1'), end='')";
    assert_eq!(mount.python(script).ok(), "one\n False");
}

// P2
#[test]
fn a_keys_name_goes_before_the_number_of_a_version() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("echo 1 > a; echo 2 > a; echo 3 > a; rm a; mkdir a; echo below > a/3; echo again > a/3").ok();
    assert_eq!(mount.past_names("a"), ["03", "1", "2", "3"]);
    assert_eq!(mount.past_names("a/3"), ["1", "2"]);
    assert_eq!(
        (mount.kept("a/1"), mount.kept("a/03"), mount.kept("a/3/1")),
        ("1\n".into(), "3\n".into(), "below\n".into())
    );
    assert_eq!(mount.kept("a/0002"), "2\n", "zeros in front change nothing");
    mount.bash("echo it is > a/03").ok();
    assert_eq!(mount.past_names("a"), ["003", "03", "1", "2", "3"]);
    assert_eq!((mount.kept("a/003"), mount.kept("a/03/1")), ("3\n".into(), "it is\n".into()));
}

// P7
#[test]
fn so_much_is_kept_as_the_mount_was_told() {
    let Some(mut mount) = Mount::with(&["--keep", "2"]) else { return };
    let write = |mount: &Mount| mount.bash("for n in 1 2 3 4 5; do echo $n > k; done").ok();
    write(&mount);
    assert_eq!(mount.past_names("k"), ["3", "4", "5"]);
    mount.again(&["--keep", "0", "--keep-days", "0"]);
    write(&mount);
    assert_eq!(mount.past_names("k"), ["10", "3", "4", "5", "6", "7", "8", "9"]);
    mount.unmount();
    let store = mount.store().to_string_lossy().into_owned();
    mount.batonfs(&["delete", &store, harness::SESSION, "k", "--keep", "1"]).ok();
    mount.batonfs(&["write", &store, harness::SESSION, "k", "--keep", "1"]).ok();
    mount.batonfs(&["write", &store, harness::SESSION, "k", "--keep", "1"]).ok();
    mount.batonfs(&["mount", "--keep", "many", &store, &mount.point().to_string_lossy()]).refused("--keep");
    mount.again(&[]);
    assert_eq!(mount.past_names("k"), ["11", "12"]);
}

// P3
#[test]
fn nothing_in_history_can_be_changed() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("echo one > k; echo two > k; mkdir d").ok();
    for script in [
        "echo x > .baton/history/k/1",
        "echo x >> .baton/history/k/1",
        "truncate -s 0 .baton/history/k/1",
        "rm -f .baton/history/k/1",
        "rmdir .baton/history/k",
        "rmdir .baton/history",
        "mkdir .baton/history/new",
        "echo x > .baton/history/new",
        "echo x > .baton/history/k/9",
        "mv .baton/history/k/1 k2",
        "mv .baton/history/k k2",
        "mv k .baton/history/k/9",
        "mv -T d .baton/history/k",
        "mv -T k .baton/history/k/1",
        "chmod 777 .baton/history/k/1",
        "touch .baton/history/k/1",
        "ln k .baton/history/k/9",
    ] {
        let ran = mount.bash(script);
        assert!(["not permitted", "denied"].iter().any(|words| ran.err.contains(words)), "{script}: {}", ran.err);
        ran.refused("");
    }
    assert_eq!(
        (mount.past_names("k"), mount.kept("k/1"), mount.read("k")),
        (vec!["1".into(), "2".into()], "one\n".into(), "two\n".into())
    );
}

// P4
#[test]
fn what_was_dropped_is_kept_however_large_and_also_of_a_name_that_never_was() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old");
    let script = "import os\nfd = os.open('k', os.O_WRONLY | os.O_TRUNC)\nos.write(fd, bytes(3000000))\n\
                  os.kill(os.getpid(), 9)";
    mount.python(script);
    mount.bash("exec 3> new; echo half >&3; kill -9 $$");
    eventually("both are dropped", || mount.status()["drops"] == 2);
    assert_eq!((mount.names(""), mount.read("k")), (vec!["k".to_owned()], "old".to_owned()));
    let [new, k] = ["new", "k"].map(|key| mount.drafts(key, ".dropped"));
    assert_eq!((new.len(), k.len()), (1, 1));
    assert_eq!(mount.kept(&format!("new/{}", new[0])), "half\n");
    assert!(fs::read(mount.past(&format!("k/{}", k[0]))).expect("a draft") == vec![0; 3_000_000]);
    let log = mount.log();
    let line = log.iter().find(|line| line["key"] == "new").expect("a log line");
    assert_eq!((&line["op"], format!("{}.dropped", line["seq"])), (&"drop".into(), new[0].clone()));
    assert!(line["reason"].as_str().is_some_and(|reason| reason.contains("signal 9")), "{line}");
    mount.write("new", "whole");
    assert_eq!(mount.past_names("new"), ["1".to_owned(), new[0].clone()]);
}

// P4
#[test]
fn what_is_open_at_the_end_of_a_mount_is_kept() {
    let Some(mut mount) = Mount::new() else { return };
    mount.write("k", "old");
    let script = "import time\nf = open('k', 'w', 1)\nf.write('half\\n')\nprint('written', flush=True)\ntime.sleep(60)";
    let mut writer = mount.spawn(mount.command(&[harness::python(), "-c", script]));
    writer.printed(1);
    let daemon = i32::try_from(mount.daemons()[0]).ok().and_then(rustix::process::Pid::from_raw).expect("the daemon");
    for _ in 0..2 {
        rustix::process::kill_process(daemon, rustix::process::Signal::TERM).expect("a signal");
    }
    eventually("the daemon has ended", || mount.daemons().is_empty());
    drop(writer.kill());
    mount.again(&[]);
    let kept = mount.drafts("k", ".dropped");
    assert_eq!(kept.len(), 1);
    assert_eq!((mount.kept(&format!("k/{}", kept[0])), mount.read("k")), ("half\n".to_owned(), "old".to_owned()));
}

// P5, E2, E5
#[test]
fn what_was_refused_is_kept_and_the_words_say_where() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    // The value comes while the draft is open: it is refused at the close.
    let script = "import os, subprocess, sys\nfd = os.open('k', os.O_WRONLY | os.O_CREAT)\nos.write(fd, b'from b')\n\
                  env = dict(os.environ, BATON_WRITER_ID='a')\n\
                  subprocess.run(['bash', '-c', 'echo from-a > k'], env=env, check=True)\n\
                  for way in (os.fsync, os.close):\n try: way(fd)\n except OSError as e: print(e.errno)";
    let command = mount.command(&[harness::BATONFS, "run", "--writer-id", "b", "--", harness::python(), "-c", script]);
    assert_eq!(mount.run(command).ok(), "16\n16\n");
    let kept = mount.drafts("k", ".refused");
    assert_eq!((kept.len(), mount.read("k")), (1, "from-a\n".to_owned()));
    assert_eq!(mount.kept(&format!("k/{}", kept[0])), "from b");
    let words = format!("{CONFLICT}; what was written is kept in {HISTORY}/k/{}", kept[0]);
    assert!(mount.errors().contains(&words), "{}", mount.errors());
    let log = mount.log();
    let line = log.iter().find(|line| line["op"] == "refuse").expect("a log line");
    assert_eq!((&line["reason"], &line["writer"]["writer_id"]), (&CONFLICT.into(), &"b".into()));
    assert_eq!(mount.bash(&format!("cat {HISTORY}/k/{}", kept[0])).ok(), "from b");
}

// P5
#[test]
fn appends_edits_and_handoffs_that_are_refused_are_kept() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    let script = "import os, subprocess\nenv = dict(os.environ, BATON_WRITER_ID='a')\n\
                  def refused(key, flags, data, other):\n fd = os.open(key, flags | os.O_CREAT)\n os.write(fd, data)\n \
                  subprocess.run(['bash', '-c', other], env=env, check=True)\n try: os.close(fd)\n \
                  except OSError as e: print(key, e.errno)\n\
                  refused('log', os.O_WRONLY | os.O_APPEND, b'an entry\\n', 'echo first > log || true')\n\
                  refused('large', os.O_WRONLY, b'x' * 300000, 'echo small > large')\n\
                  with open('mine', 'w') as f: f.write('0123456789')\n\
                  fd = os.open('mine', os.O_RDWR); os.pwrite(fd, b'AB', 2)\n\
                  with open('mine', 'w') as f: f.write('another')\n\
                  try: os.close(fd)\n\
                  except OSError as e: print('mine', e.errno)\n\
                  fd = os.open('__handoff.json', os.O_WRONLY | os.O_CREAT); os.write(fd, b'{\"half\": ')\n\
                  try: os.close(fd)\n\
                  except OSError as e: print('handoff', e.errno)";
    let command = mount.command(&[harness::BATONFS, "run", "--writer-id", "b", "--", harness::python(), "-c", script]);
    let ran = mount.run(command).ok();
    let refused: Vec<_> = ran.lines().filter(|line| !line.starts_with("log")).collect();
    assert_eq!(refused, ["large 16", "mine 16", "handoff 22"]);
    // An append is committed within a second whoever has it open: then it is there before the other's value.
    if ran.lines().count() == 4 {
        let kept = mount.drafts("log", ".refused");
        assert_eq!(mount.kept(&format!("log/{}", kept[0])), "an entry\n");
    }
    let one = |key: &str| {
        let kept = mount.drafts(key, ".refused");
        assert_eq!(kept.len(), 1, "{key}: {kept:?}");
        mount.kept(&format!("{key}/{}", kept[0]))
    };
    assert_eq!(
        (one("large"), one("mine"), one("__handoff.json")),
        ("x".repeat(300_000), "01AB456789".into(), "{\"half\": ".into())
    );
    assert!(!mount.names("").contains(&"__handoff.json".to_owned()));
}

// P5
#[test]
fn a_refusal_stands_where_its_bytes_cannot_be_kept() {
    let Some(mount) = Mount::on_image(Image::new(24)) else { return };
    mount.by("a", "echo from-a > k").ok();
    mount.write(".baton/policy", "error\n");
    // The draft is begun while the key is another's, in place: it is refused at the close, when nothing is left of the disk.
    let script = "import os, subprocess\nfd = os.open('other', os.O_WRONLY | os.O_CREAT)\nos.write(fd, b'from b')\n\
                  env = dict(os.environ, BATON_WRITER_ID='a')\n\
                  subprocess.run(['bash', '-c', 'echo from-a > other'], env=env, check=True)\n\
                  n = 0\n\
                  for size in (1 << 20, 65536, 4096, 1):\n try:\n  while True:\n   n += 1\n   \
                  with open(os.environ['STORE'] + f'/../fill{n}', 'wb', 0) as f: f.write(b'x' * size)\n \
                  except OSError: pass\n\
                  try: os.close(fd)\n\
                  except OSError as e: print(e.errno)";
    let command = mount.command(&[harness::BATONFS, "run", "--writer-id", "b", "--", harness::python(), "-c", script]);
    assert_eq!(mount.run(command).ok(), "16\n");
    let errors = mount.errors();
    assert!(errors.contains("previously written by 'a'"), "{errors}");
    assert!(errors.contains("what was written could not be kept: no space left in the store"), "{errors}");
    assert_eq!(mount.read("other"), "from-a\n");
    mount.bash("rm -f \"$STORE\"/../fill*").ok();
    mount.by("a", "echo again > other").ok();
}

// P6, M1
#[test]
fn history_is_as_hidden_as_what_it_is_of() {
    let Some(mount) = Mount::with(&["--allow-other"]) else { return };
    mount.bash("chmod 755 .; umask 022; echo 1 > open; echo 2 > open; mkdir -m 700 private; echo 1 > private/k; echo 2 > private/k").ok();
    mount.bash("mkdir was; echo 1 > was/k; rm -r was; mkdir -m 755 shown; echo 1 > shown/k; echo 2 > shown/k").ok();
    let mode = |path: &str| fs::metadata(mount.past(path)).expect("stat").mode() & 0o7777;
    assert_eq!((mode(""), mode("open"), mode("open/1")), (0o555, 0o555, 0o444));
    assert_eq!((mode("private"), mode("private/k"), mode("private/k/1")), (0o500, 0o500, 0o444));
    assert_eq!((mode("shown"), mode("shown/k")), (0o555, 0o555));
    assert_eq!((mode("was"), mode("was/k")), (0o500, 0o500), "nobody knows how hidden it was");
}

// P5, K59
#[test]
fn what_the_command_was_refused_is_found_where_its_words_say() {
    let Some(mount) = Mount::new() else { return };
    mount.by("a", "echo from-a > k").ok();
    let write = format!("echo from-b | '{}' write \"$STORE\" s k --writer-id b --policy error", harness::BATONFS);
    let ran = mount.bash(&write);
    let path = ran.err.split("is kept in ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a path");
    assert_eq!((mount.read(path), mount.read("k")), ("from-b\n".to_owned(), "from-a\n".to_owned()));
}

// P8, P3
#[test]
fn what_is_kept_has_the_attributes_of_its_own_version() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    let xattr = |path: &str, name: &str| mount.xattr(&format!("{HISTORY}/{path}"), &format!("user.{name}"));
    mount.by("a", "echo one > k").ok();
    mount.python("import os\nos.setxattr('k', 'user.color', b'blue')\nos.unlink('k')").ok();
    mount.by("b", "echo two > k").ok();
    for (path, version, writer, color) in [("k/1", "1", "a", Some("blue")), ("k/2", "2", "b", None)] {
        assert_eq!(xattr(path, "baton.version").as_deref(), Some(version));
        assert_eq!(xattr(path, "baton.writer_id").as_deref(), Some(writer));
        assert_eq!(xattr(path, "baton.session_id").as_deref(), Some(harness::SESSION));
        assert_eq!(xattr(path, "color").as_deref(), color);
        let at = xattr(path, "baton.committed_at").expect("a time");
        assert!(at.parse::<u64>().expect("seconds") > 1_700_000_000);
    }
    let live = |name: &str| mount.xattr("k", &format!("user.{name}"));
    for field in ["version", "writer_id", "stage_id", "session_id", "worker_id", "committed_at"] {
        let name = format!("baton.{field}");
        assert_eq!(xattr("k/2", &name), live(&name), "the newest has those of the key");
    }
    // The value comes while the draft is open.
    let script = "import os, subprocess\nfd = os.open('k2', os.O_WRONLY | os.O_CREAT)\nos.write(fd, b'lost')\n\
                  env = dict(os.environ, BATON_WRITER_ID='b')\n\
                  subprocess.run(['bash', '-c', 'echo value > k2'], env=env, check=True)\n\
                  try: os.close(fd)\nexcept OSError as e: print(e.errno)";
    let words = [harness::BATONFS, "run", "--writer-id", "a", "--", harness::python(), "-c", script];
    assert_eq!(mount.run(mount.command(&words)).ok(), "16\n");
    let lost = format!("k2/{}", mount.drafts("k2", ".refused")[0]);
    assert_eq!((xattr(&lost, "baton.writer_id"), xattr(&lost, "baton.version")), (Some("a".to_owned()), None));
    let listed = format!("import os\nfor k in 'k/1', '{lost}': print(sorted(os.listxattr('{HISTORY}/' + k)))");
    assert_eq!(mount.python(&listed).ok(), "['user.color']\n[]\n", "ours are not listed");
    let set = "import os\nfor name in 'user.color', 'user.baton.version', 'user.new':\n \
               try: os.setxattr('.baton/history/k/1', name, b'x')\n except OSError as e: print(e.errno)\n\
               try: os.removexattr('.baton/history/k/1', 'user.color')\nexcept OSError as e: print(e.errno)";
    let (no, none) = (libc::EPERM, libc::ENOTSUP);
    assert_eq!(mount.python(set).ok(), format!("{no}\n{none}\n{no}\n{no}\n"));
    mount.bash("cp --preserve=all .baton/history/k/1 back && cp -a back \"$TMP/back\" && cmp back \"$TMP/back\"").ok();
    assert_eq!(mount.xattr("back", "user.color").as_deref(), Some("blue"));
}
