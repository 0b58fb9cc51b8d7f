//! Who wrote it, and what a second writer meets: the conflict policies through plain file I/O.

use std::fs;

use crate::harness::{self, Mount};

const CONFLICT: &str = "key 'k' was previously written by 'a' and is now being written by 'b'";

// E1, E5
#[test]
fn under_error_another_writer_is_refused_and_the_value_stays() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    mount.by("a", "echo from-a | cat > k").ok();
    mount.by("b", "echo from-b | cat > k").refused("Device or resource busy");
    assert_eq!(mount.read("k"), "from-a\n");
    assert_eq!(mount.writer_of("k"), "a");
    assert_eq!(mount.versions("k"), [1]);
    assert!(mount.errors().contains(CONFLICT), "{}", mount.errors());
    assert!(mount.errors().contains(r#""writer":{"writer_id":"b","#), "{}", mount.errors());
}

#[test]
fn every_way_to_write_meets_the_conflict_rule() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    mount.by("a", "echo from-a > k; echo mine > other").ok();
    mount.write("new", "undeclared");
    for script in [
        "echo b > k",
        "/bin/echo b > k",
        "echo b >> k",
        "truncate -s 1 k",
        ": > k",
        "echo b | dd of=k conv=notrunc status=none",
        "echo b | tee k > /dev/null",
        "cp \"$TMP/file\" k",
        "sed -i s/a/b/ k",
        "echo b > mine; mv mine k",
        "/usr/bin/env python3 -c 'f = open(\"k\", \"w\"); f.write(\"b\"); f.close()'",
    ] {
        fs::write(mount.scratch().join("file"), "b").expect("a file outside");
        mount.by("b", script).refused("resource busy");
        assert_eq!(mount.read("k"), "from-a\n", "after {script}");
        assert_eq!(mount.writer_of("k"), "a", "after {script}");
    }
    assert_eq!(mount.versions("k"), [1]);
}

// E2, E5
#[test]
fn a_refused_handle_keeps_saying_so_and_its_words_are_kept_once() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    mount.by("a", "echo from-a > k").ok();
    let script = "import os\nfd = os.open('k', os.O_RDWR)\nfor attempt in (lambda: os.write(fd, b'b'), lambda: os.write(fd, b'b'), \
                  lambda: os.fsync(fd), lambda: os.close(fd)):\n try:\n  attempt()\n  print('accepted')\n \
                  except OSError as e:\n  print(e.errno)";
    let command = mount.command(&[harness::BATONFS, "run", "--writer-id", "b", "--", harness::python(), "-c", script]);
    assert_eq!(mount.run(command).ok(), "16\n16\n16\n16\n");
    assert_eq!(mount.read("k"), "from-a\n");
    assert_eq!(mount.errors().matches(CONFLICT).count(), 1, "{}", mount.errors());
}

// E1
#[test]
fn a_writer_is_never_refused_its_own_key() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    mount.by("a", "echo 1 > k; echo 2 > k; echo 3 | cat > k; echo 4 >> k; sed -i s/3/three/ k").ok();
    mount.by("a", "python3 -c 'open(\"k\", \"a\").write(\"5\\n\")'").ok();
    assert_eq!(mount.read("k"), "three\n4\n5\n");
    assert_eq!(mount.writer_of("k"), "a");
}

#[test]
fn a_variable_before_a_command_declares_that_command() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    let script = "BATON_WRITER_ID=a /bin/echo 1 > k && BATON_WRITER_ID=a /bin/echo 2 > k";
    mount.bash(script).ok();
    assert_eq!(mount.read("k"), "2\n");
    assert_eq!(mount.writer_of("k"), "a");
    mount.bash("BATON_WRITER_ID=b /bin/echo 3 > k").refused("Device or resource busy");
    assert_eq!(mount.read("k"), "2\n");
}

// E7
#[test]
fn warn_accepts_and_keeps_the_words() {
    let Some(mount) = Mount::with(&["--conflict-policy", "warn"]) else { return };
    mount.by("a", "echo from-a > k").ok();
    mount.by("b", "echo from-b > k").ok();
    assert_eq!(mount.read("k"), "from-b\n");
    assert_eq!(mount.writer_of("k"), "b");
    let log = mount.log();
    let line = log.iter().find(|line| line["key"] == "k" && line["version"] == 2).expect("a log line");
    assert_eq!(line["conflict"], CONFLICT);
    mount.by("a", "echo from-a > t; mv t k; truncate -s 2 k; truncate -s 1 k").ok();
    let errors = mount.errors();
    let lines: Vec<serde_json::Value> = errors.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told = |op: &str| lines.iter().filter(|line| line["op"] == op && line["key"] == "k").collect::<Vec<_>>();
    assert_eq!((told("close").len(), told("rename").len(), lines.len()), (1, 1, 2), "{errors}");
    assert_eq!((&told("close")[0]["words"], &told("close")[0]["errno"]), (&CONFLICT.into(), &0.into()));
    assert_eq!(told("close")[0]["writer"]["writer_id"], "b");
    let daemon = std::fs::read_to_string(mount.store().join(".baton/daemon.log")).expect("the daemon's log");
    assert!(daemon.contains(&format!("accepted: {CONFLICT}")), "{daemon}");
    mount.batonfs(&["why", &mount.store().to_string_lossy(), "--writer-id", "b"]).refused("nothing");
}

#[test]
fn ignore_accepts_and_says_nothing() {
    let Some(mount) = Mount::new() else { return };
    mount.by("a", "echo from-a > k").ok();
    mount.by("b", "echo from-b > k").ok();
    assert_eq!(mount.read("k"), "from-b\n");
    assert_eq!(mount.writer_of("k"), "b");
    assert!(mount.log().iter().all(|line| line.get("conflict").is_none()));
    assert_eq!(mount.errors(), "");
}

#[test]
fn a_process_that_declares_nothing_is_recorded_as_the_session() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    mount.bash("echo one > k").ok();
    mount.write("k", "two");
    let sidecar = mount.sidecar("k");
    assert_eq!(sidecar["writer"]["writer_id"], harness::SESSION);
    assert_eq!(sidecar["writer"]["session_id"], harness::SESSION);
    assert!(sidecar["writer"].get("stage_id").is_none(), "{sidecar}");
    assert!(sidecar["updated_at"].is_u64(), "{sidecar}");
}

#[test]
fn the_worker_stands_in_for_stage_and_writer() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("BATON_WORKER_ID=w /bin/echo x > k").ok();
    let writer = &mount.sidecar("k")["writer"];
    for member in ["writer_id", "stage_id", "worker_id"] {
        assert_eq!(writer[member], "w", "{writer}");
    }
}

#[test]
fn the_strictest_of_process_session_and_mount_holds() {
    let Some(mount) = Mount::with(&["--conflict-policy", "warn"]) else { return };
    mount.by("a", "echo from-a > k").ok();
    mount.by("b", "export BATON_CONFLICT_POLICY=error; /bin/echo from-b > k").refused("resource busy");
    mount.write(".baton/policy", "error\n");
    assert_eq!(mount.read(".baton/policy").trim(), "error");
    mount.by("b", "export BATON_CONFLICT_POLICY=ignore; /bin/echo from-b > k").refused("resource busy");
    assert_eq!(mount.read("k"), "from-a\n");
    mount.write(".baton/policy", "ignore\n");
    mount.by("b", "/bin/echo from-b > k").ok();
    assert_eq!(mount.read("k"), "from-b\n");
}

#[test]
fn an_unknown_policy_is_refused_and_the_old_one_holds() {
    let Some(mount) = Mount::new() else { return };
    mount.write(".baton/policy", "error\n");
    mount.bash("cat > .baton/policy <<< sometimes").refused("Invalid argument");
    assert_eq!(mount.read(".baton/policy").trim(), "error");
}

#[test]
fn a_race_of_different_writers_for_a_fresh_key_has_one_winner() {
    let Some(mount) = Mount::with(&["--conflict-policy", "error"]) else { return };
    let racers: Vec<_> = (0..8)
        .map(|n| {
            let script = format!("import os, sys\nsys.stdin.readline()\nok = 0\nfor i in range(12):\n try:\n  with open(f'race-{{i}}', 'wb', 0) as f: f.write(b'{n}')\n  ok += 1\n except OSError as e: assert e.errno == 16, e\nprint(ok)");
            let mut command = mount.command(&[harness::python(), "-c", &script]);
            command.env("BATON_WRITER_ID", format!("w{n}")).stdin(std::process::Stdio::piped());
            mount.spawn(command)
        })
        .collect();
    let wins: usize = racers
        .into_iter()
        .map(|mut racer| {
            racer.send("go");
            racer.wait().ok().trim().parse::<usize>().expect("a number")
        })
        .sum();
    assert_eq!(wins, 12, "one writer a key");
    for n in 0..12 {
        let key = format!("race-{n}");
        assert_eq!(mount.versions(&key), [1]);
        assert_eq!(mount.writer_of(&key), format!("w{}", mount.read(&key)));
    }
}

// E1
#[test]
fn a_shell_is_told_that_it_wrote_no_policy() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("echo sometimes > .baton/policy").refused("Invalid argument");
    mount.bash("{ printf Str; printf 'ict\\n'; } > .baton/policy").ok();
    assert_eq!(mount.read(".baton/policy"), "error\n");
}

// E5
#[test]
fn a_session_made_anew_has_no_refusals_of_the_one_before() {
    let Some(mount) = Mount::new() else { return };
    mount.bash("mkdir ../other && printf 'no object' 2> /dev/null > ../other/__handoff.json").refused("");
    let errors = || std::fs::read_to_string(mount.point().join("other/.baton/errors")).expect("the refusals");
    assert!(errors().contains("__handoff.json"), "{}", errors());
    mount.bash("rm -r ../other && mkdir ../other").ok();
    assert_eq!(errors(), "");
}
