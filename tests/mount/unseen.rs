//! What holds for programs that the daemon cannot see: outside its pid namespace, or hidden from it in `/proc`.
//! What cannot hold for them is in the tests too, as SEMANTICS says it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use crate::harness::{self, Mount, Sight, eventually};

/// A claim about every mount whose callers cannot be seen.
fn of_each(claim: impl Fn(&Mount, Sight)) {
    for sight in [Sight::Outside, Sight::Hidden, Sight::Denied] {
        let Some(mount) = Mount::seen_by(sight, &[]) else { return };
        claim(&mount, sight);
    }
}

// U1, C1, C3, C4, C5, C9
#[test]
fn one_program_that_writes_is_one_version_and_there_when_its_close_returns() {
    of_each(|mount, sight| {
        mount.bash("echo a > a; touch -d 2001-01-01 old; echo aaa > base").ok();
        let at_release = mount.committed_at("release") + mount.committed_at("look");
        for (key, script, value) in [
            ("builtin", "echo a > builtin", "a\n"),
            ("program", "/bin/echo a > program", "a\n"),
            ("builtins", "{ echo a; echo b; } > builtins", "a\nb\n"),
            ("subshell", "( echo a; /bin/echo b ) > subshell", "a\nb\n"),
            ("pipe", "echo a | cat > pipe", "a\n"),
            ("here", "cat > here <<< a", "a\n"),
            // A copy inside the mount names no descriptor table, a truncation neither.
            ("copy", "cp a copy", "a\n"),
            ("cat", "cat a > cat", "a\n"),
            ("long", "truncate -s 3 long", "\0\0\0"),
            (
                "child",
                "python3 -c 'import subprocess; f = open(\"child\", \"w\"); \
                       subprocess.run([\"cat\", \"a\"], stdout=f)'",
                "a\n",
            ),
        ] {
            mount.bash(script).ok();
            assert_eq!(mount.versions(key), [1], "{sight:?}: {script}");
            assert_eq!(mount.read(key), value, "{sight:?}: {script}");
        }
        let later = mount.committed_at("release") + mount.committed_at("look") - at_release;
        assert_eq!(later, 0, "{sight:?}: committed after the close had returned");
        for (key, script, value, versions) in [
            ("touched", "touch touched; ls touched", "", vec![1]),
            ("colon", ": > colon; cat colon", "", vec![1]),
            ("base", ": > base; ls base", "", vec![1, 2]),
            ("synced", "dd if=a of=synced conv=fsync status=none; cat synced", "a\n", vec![1]),
        ] {
            mount.bash(script).ok();
            assert_eq!(mount.versions(key), versions, "{sight:?}: {script}");
            assert_eq!(mount.read(key), value, "{sight:?}: {script}");
        }
        mount.bash("python3 -c 'open(\"a\", \"r+\").close()'; exec 3<> a; exec 3>&-").ok();
        assert_eq!(mount.versions("a"), [1], "{sight:?}: opened for update and closed unchanged");
    });
}

// U2: where holders cannot be counted, each close by one that has written makes what is there a version.
#[test]
fn several_that_write_through_one_open_file_make_a_version_each() {
    of_each(|mount, sight| {
        mount.bash("{ /bin/echo a; cat group >&2; /bin/echo b; } > group 2> \"$TMP/seen\"").ok();
        assert_eq!(fs::read_to_string(mount.scratch().join("seen")).expect("seen"), "a\n", "{sight:?}");
        assert_eq!((mount.read("group"), mount.versions("group")), ("a\nb\n".to_owned(), vec![1, 2]), "{sight:?}");
        mount.bash("exec 3> exec; echo a >&3; cat exec > \"$TMP/seen\"; echo b >&3; exec 3>&-").ok();
        assert_eq!(fs::read_to_string(mount.scratch().join("seen")).expect("seen"), "a\n", "{sight:?}");
        assert_eq!((mount.read("exec"), mount.versions("exec")), ("a\nb\n".to_owned(), vec![1, 2]), "{sight:?}");
        mount.bash("{ echo a; echo b >&2; } > both 2>&1").ok();
        assert_eq!((mount.read("both"), mount.versions("both")), ("a\nb\n".to_owned(), vec![1, 2]), "{sight:?}");
        let script = "import subprocess\nf = open('popen', 'w')\nf.write('half ')\nf.flush()\n\
                      subprocess.run(['cat'], input=b'whole', stdout=f)\nf.close()";
        mount.python(script).ok();
        assert_eq!((mount.read("popen"), mount.versions("popen")), ("half whole".to_owned(), vec![1]), "{sight:?}");
        let script = "import subprocess\nf = open('shared', 'w')\nf.write('half ')\nf.flush()\n\
                      c = subprocess.Popen(['sh', '-c', 'read x; printf whole'], stdin=-1, stdout=f)\nf.close()\n\
                      print(open('shared').read())\nc.communicate(b'\\n')";
        assert_eq!(mount.python(script).ok(), "half \n", "{sight:?}");
        assert_eq!(
            (mount.read("shared"), mount.versions("shared")),
            ("half whole".to_owned(), vec![1, 2]),
            "{sight:?}"
        );
    });
}

// U2, C1, C2: a child that has not written, the parent that only lets go, a copy that is under way.
#[test]
fn a_close_by_one_that_has_not_written_shows_nothing_half_written() {
    of_each(|mount, sight| {
        mount.write("k", "old");
        let script = "import os, subprocess\nfd = os.open('k', os.O_WRONLY | os.O_TRUNC)\nos.write(fd, b'half ')\n\
                      if os.fork() == 0: os._exit(0)\nos.wait()\n\
                      print(subprocess.run(['cat', 'k'], stdout=-1).stdout, subprocess.run(['ls'], stdout=-1).returncode)\n\
                      os.write(fd, b'whole')\nos.close(fd)\nprint(open('k').read())\nlost = []\n\
                      for i in range(20):\n subprocess.run(['touch', f't{i}'])\n if not os.path.exists(f't{i}'): lost.append(i)\nprint(lost)";
        assert_eq!(mount.python(script).ok(), "b'old' 0\nhalf whole\n[]\n", "{sight:?}");
        assert_eq!(mount.versions("k"), [1, 2], "{sight:?}");
        let script = "import subprocess\nf = open('k', 'w')\nc = subprocess.Popen(['sh', '-c', 'read x; echo new'], stdin=-1, stdout=f)\n\
                      f.close()\nprint(open('k').read())\nc.communicate(b'\\n')\nprint(open('k').read(), end='')";
        assert_eq!(mount.python(script).ok(), "half whole\nnew\n", "{sight:?}");
        assert_eq!(mount.versions("k"), [1, 2, 3], "{sight:?}");
        let script = "import os, subprocess\nopen('from', 'w').write('x' * 100)\nf = open('k', 'w')\n\
                      code = 'import os; s = os.open(\"from\", os.O_RDONLY); os.copy_file_range(s, 1, 50); os.write(2, b\"x\"); input(); os.copy_file_range(s, 1, 50)'\n\
                      c = subprocess.Popen(['/usr/bin/env', 'python3', '-c', code], stdin=-1, stdout=f, stderr=-1)\n\
                      c.stderr.read(1)\nf.close()\nprint(open('k').read(), end='')\nc.communicate(b'\\n')\nprint(len(open('k').read()))";
        assert_eq!(mount.python(script).ok(), "new\n100\n", "{sight:?}");
    });
}

// U3: nobody sees that it was killed. What it wrote is committed; what an open has emptied stays empty.
#[test]
fn a_killed_writer_is_not_seen_to_be_killed() {
    of_each(|mount, sight| {
        mount.bash("for i in half empty log; do echo old > $i; done").ok();
        mount.python("import os\nf = open('half', 'wb', 0)\nf.write(b'half')\nos.kill(os.getpid(), 9)");
        mount.python("import os\nf = open('empty', 'w')\nf.write('lost')\nos.kill(os.getpid(), 9)");
        mount.python("import os\nf = open('log', 'ab', 0)\nf.write(b'kept')\nos.kill(os.getpid(), 9)");
        for (key, value) in [("half", "half"), ("empty", ""), ("log", "old\nkept")] {
            assert_eq!((mount.read(key).as_str(), mount.versions(key)), (value, vec![1, 2]), "{sight:?}: {key}");
        }
        assert_eq!(mount.status()["drops"], 0, "{sight:?}");
    });
}

// U4: where its process cannot be told from others, a new name is hidden from who made it too, but for its descriptors.
#[test]
fn a_new_name_is_reserved_and_hidden_until_its_first_commit() {
    of_each(|mount, sight| {
        let script = "import os, sys\nfd = os.open('k', os.O_WRONLY | os.O_CREAT | os.O_EXCL)\nos.write(fd, b'whole')\n\
                      print(os.path.exists('k'), os.fstat(fd).st_size, flush=True)\nsys.stdin.readline()\nos.close(fd)\nprint(os.path.exists('k'))";
        let mut command = mount.command(&[harness::python(), "-c", script]);
        command.stdin(Stdio::piped());
        let mut writer = mount.spawn(command);
        writer.printed(1);
        assert_eq!(mount.names(""), [""; 0], "{sight:?}");
        assert!(!mount.path("k").exists(), "{sight:?}");
        let again = OpenOptions::new().write(true).create_new(true).open(mount.path("k"));
        harness::fails(again, libc::EEXIST);
        writer.send("go on");
        let own = if sight == Sight::Denied { "True" } else { "False" };
        assert_eq!(writer.wait().ok(), format!("{own} 5\nTrue\n"), "{sight:?}");
        let script = "for i in 1 2 3 4 5 6 7 8; do ( set -C; echo $i > lock ) 2> /dev/null && echo won & done; wait";
        assert_eq!(mount.bash(script).ok(), "won\n", "{sight:?}");
    });
}

// C9, C10, C11, C12, C13, C18
#[test]
fn handles_keep_their_own_view_whoever_has_them() {
    of_each(|mount, sight| {
        mount.bash("for i in pinned cut from to gone edited; do echo $i.old > $i; done").ok();
        let mut pinned = File::open(mount.path("pinned")).expect("open");
        let mut first = [0; 6];
        pinned.read_exact(&mut first).expect("read");
        mount.bash("echo new > pinned; truncate -s 3 cut; mv from to; mv -n to pinned").ok();
        let mut rest = String::new();
        pinned.read_to_string(&mut rest).expect("read");
        assert_eq!((&first[..], rest.as_str()), (&b"pinned"[..], ".old\n"), "{sight:?}");
        assert_eq!(
            (mount.read("pinned"), mount.read("cut"), mount.read("to")),
            ("new\n".to_owned(), "cut".to_owned(), "from.old\n".to_owned()),
            "{sight:?}"
        );
        let mut gone = OpenOptions::new().read(true).write(true).open(mount.path("gone")).expect("open");
        gone.write_all(b"draft").expect("write");
        mount.bash("rm gone").ok();
        gone.seek(SeekFrom::Start(0)).expect("seek");
        let mut own = String::new();
        gone.read_to_string(&mut own).expect("read");
        assert_eq!(own, "draftold\n", "{sight:?}");
        drop(gone);
        assert!(!mount.path("gone").exists(), "{sight:?}");
        // An edit in place of a value that has changed since is a conflict, whoever wrote.
        let edit = OpenOptions::new().write(true).open(mount.path("edited")).expect("open");
        edit.write_at(b"mine", 0).expect("write");
        assert_eq!(edit.metadata().expect("fstat").len(), 11, "{sight:?}: the committed size");
        mount.bash("echo theirs > edited; echo error > .baton/policy").ok();
        let closed = rustix::fs::fsync(&edit);
        assert_eq!(closed, Err(rustix::io::Errno::BUSY), "{sight:?}");
        drop(edit);
        assert_eq!((mount.read("edited"), mount.versions("edited")), ("theirs\n".to_owned(), vec![1, 2]), "{sight:?}");
    });
}

// C14, C15, C16
#[test]
fn times_locks_and_private_mappings_are_as_for_programs_that_are_seen() {
    of_each(|mount, sight| {
        let script = "touch -d @1000000000 old; cp -p old copy; cp -p --attributes-only old copy; touch -d @1000000001 copy2; \
                      printf x > new; cp -p new new2; chmod 600 new; echo y >> new; stat -c '%Y' old copy copy2; stat -c %a new; \
                      test \"$(stat -c %Y new2)\" -le \"$(stat -c %Y new)\"";
        assert_eq!(mount.bash(script).ok(), "1000000000\n1000000000\n1000000001\n600\n", "{sight:?}");
        let script = "import mmap, os, subprocess\nf = open('new', 'r+b')\n\
                      try: mmap.mmap(f.fileno(), 2); print('shared')\nexcept OSError as e: print(e.errno)\n\
                      print(mmap.mmap(f.fileno(), 2, flags=mmap.MAP_PRIVATE)[:])";
        assert_eq!(mount.python(script).ok(), format!("{}\nb'xy'\n", libc::ENODEV), "{sight:?}");
        let script = "exec 3> lock; flock 3; flock -n lock true && echo both; ( flock 4; cat n > m; echo $(( $(cat m) + 1 )) > n ) 4< old; echo done";
        mount.write("n", "1");
        assert_eq!(mount.bash(script).ok(), "done\n", "{sight:?}");
        assert_eq!(mount.read("n"), "2\n", "{sight:?}");
    });
}

// C7, C19
#[test]
fn appends_of_many_are_neither_lost_nor_split_and_survive_the_daemon() {
    for sight in [Sight::Outside, Sight::Hidden] {
        let Some(mut mount) = Mount::seen_by(sight, &[]) else { return };
        let script = "for w in 1 2 3 4; do ( for i in $(seq 25); do echo \"$w-$i-abcdefghijklmnopqrstuvwxyz\" >> log; done ) & done; \
                      exec 3>> long; echo first >&3; wait; until [ -e long ] && grep -q first long; do sleep 0.05; done; echo heard; \
                      mkdir -p d/e; mv log d/e/log; rm -rf d/none";
        assert_eq!(mount.bash(script).ok(), "heard\n", "{sight:?}");
        mount.crash();
        let text = mount.read("d/e/log");
        let mut lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.ends_with("-abcdefghijklmnopqrstuvwxyz")), "{sight:?}: split");
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 100, "{sight:?}: lost");
        assert_eq!(mount.read("long"), "first\n", "{sight:?}");
    }
}

// U1, C1, C6, C8: who is in a container below the daemon's own pid namespace has an id there.
#[test]
fn callers_in_a_pid_namespace_below_are_seen_in_full() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can make a pid namespace");
        return;
    }
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    mount.write("k", "old");
    let script = "{ /bin/echo a; /bin/echo b; } > group; ( exec 3> k; echo half >&3; kill -9 $BASHPID ); \
                  python3 -c 'import os; f = open(\"new\", \"w\"); print(os.path.exists(\"new\"))'; \
                  { sleep 0.2 & echo late; } > waited; cat waited; wait; cat waited; \
                  BATON_WRITER_ID=inside /bin/echo mine > owned; echo not > owned";
    let ran = mount.in_container(script);
    assert_eq!(ran.out, "True\nlate\n", "{}", ran.err);
    assert!(ran.err.contains("cat: waited: No such file"), "{}", ran.err);
    assert!(ran.err.contains("Device or resource busy"), "{}", ran.err);
    assert_eq!(mount.read("group"), "a\nb\n");
    assert_eq!((mount.versions("group"), mount.versions("waited")), (vec![1], vec![1]));
    eventually("the killed one's draft is gone", || mount.status()["drops"] == 1);
    assert_eq!((mount.read("k").as_str(), mount.writer_of("owned").as_str()), ("old", "inside"));
    assert_eq!((mount.status()["unseen"].as_u64(), mount.status()["callers"].as_str()), (Some(0), Some("seen")));
}
