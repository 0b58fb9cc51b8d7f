//! Closes that come out of an exec. Whoever reads the wrong file of such a process while it waits for our answer waits
//! for ever, and everyone who then looks at that process waits with him; so here all of it happens at once.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{self, Mount, Running, eventually};

/// After its time a round has this long to end: only what hangs takes it.
const PATIENCE: Duration = Duration::from_secs(30);
const RECORD_BYTES: u64 = 256;

/// Writers of each mode of `exec.c`, and those who only look, started together for some seconds.
fn storm(mount: &Mount, seconds: f64, modes: &[&str]) -> Vec<String> {
    let program = compile(mount);
    let uptime = fs::read_to_string("/proc/uptime").expect("the uptime");
    let now: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
    let until = now + if harness::long() { 30.0 } else { seconds };
    let starts = modes.iter().enumerate().map(|(at, mode)| {
        let name = format!("{mode}{at}");
        format!("BATON_WRITER_ID={name}.0 \"$program\" {mode} {name} {until} > \"$TMP/{name}\" & pids+=\" $!\"\n")
    });
    let script = format!("{}for pid in $pids; do wait $pid || exit 1; done", starts.collect::<String>());
    let mut command = mount.command(&["bash", "-c", &script]);
    command.env("program", &program);
    let mut running = mount.spawn(command);
    let patience = Instant::now() + PATIENCE + if harness::long() { PATIENCE } else { Duration::ZERO };
    let hangs = |running: &Running| format!("who hangs:\n{}", of_group(running.id()).join("\n"));
    while !running.ended() {
        assert!(Instant::now() < patience, "{}", hangs(&running));
        thread::sleep(Duration::from_millis(20));
    }
    eventually("every process of the round is gone", || of_group(running.id()).is_empty());
    running.wait().ok();
    modes.iter().enumerate().map(|(at, mode)| format!("{mode}{at}")).collect()
}

fn compile(mount: &Mount) -> PathBuf {
    let (source, program) = (mount.scratch().join("exec.c"), mount.scratch().join("program"));
    fs::write(&source, include_str!("exec.c")).expect("the source");
    let paths = [source.to_string_lossy(), program.to_string_lossy()];
    mount.run(mount.command(&["cc", "-O1", "-pthread", "-o", &paths[1], &paths[0]])).ok();
    program
}

/// The processes of a group that have not ended, with their states, from the one file that never waits for an exec.
fn of_group(group: u32) -> Vec<String> {
    let field = |status: &str, name: &str| {
        status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned())).unwrap_or_default()
    };
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let statuses = processes.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    statuses
        .filter(|status| field(status, "NSpgid:") == group.to_string() && !field(status, "State:").starts_with('Z'))
        .map(|status| format!("{} {} {}", field(&status, "Pid:"), field(&status, "Name:"), field(&status, "State:")))
        .collect()
}

/// The daemon answers, and nothing of the round is left in it.
fn answers(mount: &Mount) {
    mount.write("after", "it answers");
    assert_eq!(mount.read("after"), "it answers");
    assert_eq!(fs::metadata(mount.path("after")).expect("stat").len(), 10);
    eventually("nothing is open any more", || {
        let status = mount.status();
        status["drafts"] == 0 && status["waiting"] == 0
    });
    assert_eq!(mount.status()["drops"], 0);
    let daemon = mount.daemons()[0];
    eventually("no thread of the daemon waits for an exec", || {
        let threads = fs::read_dir(format!("/proc/{daemon}/task")).expect("threads").flatten();
        let names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
        names.filter(|name| name.trim() == "batonfs-who").count() <= 4
    });
}

/// The writers of each key, in the order of its versions; each version has the size of a whole record.
fn writers(mount: &Mount) -> BTreeMap<String, Vec<String>> {
    let mut writers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in mount.log().iter().filter(|line| line["op"] == "put") {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        if line["writer"]["writer_id"] != harness::SESSION || text(&line["key"]).ends_with("-leaf") {
            assert_eq!(line["size_bytes"], RECORD_BYTES, "half a value: {line}");
        }
        writers.entry(text(&line["key"])).or_default().push(text(&line["writer"]["writer_id"]));
    }
    writers
}

/// Every value is there, whole, and by whom it says.
fn check(mount: &Mount, names: &[String]) {
    let writers = writers(mount);
    for name in names {
        let counted = fs::read_to_string(mount.scratch().join(name)).expect("what it printed");
        let counted: usize = counted.trim().parse().expect("a number");
        if name.starts_with("walk") {
            assert!(counted > 0, "{name} never came round");
            continue;
        }
        let keys = writers.iter().filter(|(key, _)| *key == name || key.starts_with(&format!("{name}-")));
        let mut found = 0;
        for (key, writers) in keys {
            found += writers.len();
            for (step, writer) in writers.iter().enumerate() {
                let step = if name.starts_with("chain") || name.starts_with("shared") { step } else { 0 };
                let own = *writer == format!("{name}.{step}");
                // Whose ancestor is in the middle of an exec inherits what that one was, or what it becomes; where
                // neither can be read in time, nothing is guessed.
                let next = format!("{name}.{}", step + 1);
                let inherited = key.ends_with("-leaf") && (*writer == next || writer == harness::SESSION);
                assert!(own || inherited, "version {} of {key} is said to be of {writer}", step + 1);
            }
            let value = mount.read(key);
            let writer = writers.last().expect("a version");
            let first = if key.ends_with("-leaf") { "inherited" } else { writer };
            assert_eq!(value, format!("{first} {}\n", "x".repeat(254 - first.len())), "{key}");
            assert_eq!(mount.writer_of(key), *writer);
        }
        assert!(found > 0 && found == counted, "{name} wrote {counted} values, the log has {found}");
    }
}

// C1: closes out of exec, from threads, from forks, from chains of execs, with everyone else looking on.
#[test]
fn closes_out_of_an_exec_hang_nobody_and_lose_nothing() {
    let Some(mount) = Mount::new() else { return };
    let names =
        storm(&mount, 3.0, &["chain", "chain", "shared", "shared", "threads", "abandon", "spawn", "walk", "trace"]);
    answers(&mount);
    check(&mount, &names);
}

// C1, C15
#[test]
fn programs_and_scripts_on_the_mount_run_out_of_an_exec_that_closes_a_key() {
    let Some(mount) = Mount::new() else { return };
    let program = compile(&mount);
    fs::copy(&program, mount.path("program")).expect("a program on the mount");
    mount.write("script", "#!/bin/sh\n[ $(ls | wc -l) -gt 1 ]\n");
    fs::set_permissions(mount.path("script"), fs::Permissions::from_mode(0o755)).expect("chmod");
    let names = storm(&mount, 1.0, &["stored", "stored", "chain", "walk"]);
    answers(&mount);
    check(&mount, &names);
    assert_eq!(fs::read(mount.path("program")).expect("the program"), fs::read(program).expect("the program"));
}
