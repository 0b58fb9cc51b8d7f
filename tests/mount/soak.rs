//! A mixed load and then quiet: what the daemon holds comes back to what it held before.
//! The load is in `soak.py`, a role a process. Under the long rounds it lasts 30 minutes (`BATONFS_SOAK_S` for another
//! time), with samples on the way, and memory is looked at too.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;

use crate::harness::{self, Mount, Running};

const LOAD: &str = include_str!("soak.py");
/// Roles of the load, and how many processes each has.
const ROLES: [(&str, usize); 14] = [
    ("rewrites", 2),
    ("one_handle", 1),
    ("many_keys", 1),
    ("walks", 1),
    ("appends", 2),
    ("names", 2),
    ("big", 1),
    ("locks", 2),
    ("readers", 1),
    ("killed", 2),
    ("policies", 1),
    ("handoffs", 1),
    ("controls", 1),
    ("sessions", 1),
];
/// Logs of sessions that the engine keeps open at most.
const LOGS_MAX: usize = 128;
/// Idle threads that wait for questions about a process.
const ASKERS_MAX: usize = 4;
const KIB_PER_MIB: u64 = 1 << 10;

/// What the daemon holds.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    /// Descriptors but for the logs of sessions.
    descriptors: usize,
    /// Threads by name, but for those that come and go with the work.
    threads: BTreeMap<String, usize>,
    /// Of `.baton/status`: what is open while it is read.
    open_handles: u64,
    drafts: u64,
    waiting: u64,
    nodes: u64,
}

impl Held {
    fn now(mount: &Mount, daemon: u32) -> Self {
        let status = mount.status();
        let of = |name: &str| status[name].as_u64().expect("a number");
        let (descriptors, logs) = descriptors(daemon);
        let mut threads = threads(daemon);
        threads.retain(|name, _| !name.starts_with("blocking"));
        let askers = threads.remove("batonfs-who").unwrap_or(0);
        assert!(logs <= LOGS_MAX, "{logs} logs are open");
        assert!(askers <= ASKERS_MAX, "{askers} threads wait for questions about processes");
        let (open_handles, drafts) = (of("open_handles"), of("drafts"));
        Self { descriptors, threads, open_handles, drafts, waiting: of("waiting"), nodes: of("nodes") }
    }
}

/// The daemon's descriptors, and how many of them, not counted there, are logs of sessions.
fn descriptors(daemon: u32) -> (usize, usize) {
    let entries = fs::read_dir(format!("/proc/{daemon}/fd")).expect("descriptors").flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let (logs, others): (Vec<_>, Vec<_>) = targets.partition(|target| {
        target.parent().and_then(Path::parent).is_some_and(|above| above.ends_with(".baton/sessions"))
    });
    (others.len(), logs.len())
}

fn threads(daemon: u32) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{daemon}/task")).expect("threads").flatten() {
        let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
        *names.entry(name.trim().to_owned()).or_default() += 1;
    }
    names
}

/// Resident memory of a process.
fn memory_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Lets the kernel forget the names of this mount that nobody uses, which a remount does; `false` where we may not.
fn forget_names(mount: &Mount) -> bool {
    rustix::mount::mount_remount(mount.point(), MountFlags::NOSUID | MountFlags::NODEV, "").is_ok()
}

fn start(mount: &Mount, keys: usize) -> Vec<Running> {
    mount.run(mount.command(&[harness::python(), "-c", LOAD, "fill", "0", &keys.to_string()])).ok();
    let mut load = Vec::new();
    for (role, processes) in ROLES {
        for number in 0..processes {
            let words = [harness::python(), "-c", LOAD, role, &number.to_string(), &keys.to_string()];
            load.push(mount.spawn(mount.command(&words)));
        }
    }
    load
}

/// Ends the load; every process of it must have found what it wrote.
fn end(mount: &Mount, load: Vec<Running>) {
    fs::write(mount.scratch().join("stop"), "").expect("a file");
    let roles = ROLES.iter().flat_map(|&(role, processes)| std::iter::repeat_n(role, processes));
    for (role, running) in roles.zip(load) {
        let out = running.wait().ok();
        eprintln!("  {role}: {} rounds", out.trim());
        assert!(out.trim().parse::<u64>().is_ok_and(|rounds| rounds > 0), "{role} did nothing: {out}");
    }
}

fn sample(mount: &Mount, daemon: u32, since: Instant) -> u64 {
    let (status, rss_kib) = (mount.status(), memory_kib(daemon));
    let (others, logs) = descriptors(daemon);
    let commits: u64 = status["commits"].as_object().map_or(0, |by| by.values().filter_map(|n| n.as_u64()).sum());
    let threads: usize = threads(daemon).values().sum();
    eprintln!(
        "  {:>5} s: {rss_kib:>7} KiB, {others:>4} descriptors, {logs:>3} logs, {threads:>3} threads, {} handles, {} \
         drafts, {} waiting, {} nodes, {commits} commits, {} drops, {} refusals",
        since.elapsed().as_secs(),
        status["open_handles"],
        status["drafts"],
        status["waiting"],
        status["nodes"],
        status["drops"],
        status["refusals"],
    );
    rss_kib
}

/// Waits until the daemon holds what it held before.
fn comes_back(mount: &Mount, daemon: u32, before: &Held) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        // Only root can make the kernel forget the names it knows.
        let forgot = forget_names(mount);
        let mut now = Held::now(mount, daemon);
        if !forgot {
            now.nodes = before.nodes;
        }
        if now == *before {
            return;
        }
        if Instant::now() > until {
            assert_eq!(now, *before, "what the daemon held did not come back");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// How long the long round lasts: `BATONFS_SOAK_S` seconds, else 30 minutes where long rounds are wanted.
fn long_round() -> Option<Duration> {
    let asked = std::env::var("BATONFS_SOAK_S").ok();
    let asked = asked.map(|text| text.parse().expect("BATONFS_SOAK_S is a number of seconds"));
    asked.or(harness::long().then_some(1800)).map(Duration::from_secs)
}

// C1, C2, C6, C11
#[test]
fn after_a_mixed_load_the_daemon_holds_what_it_held_before() {
    let Some(mount) = Mount::new() else { return };
    let daemon = mount.daemons()[0];
    forget_names(&mount);
    let mut before = Held::now(&mount, daemon);
    // A thread that has just been started has the name of the one that started it.
    loop {
        thread::sleep(Duration::from_millis(50));
        let again = Held::now(&mount, daemon);
        if again == before {
            break;
        }
        before = again;
    }
    let load = start(&mount, 100);
    thread::sleep(Duration::from_secs(4));
    end(&mount, load);
    comes_back(&mount, daemon, &before);
}

#[test]
fn a_long_mixed_load_does_not_make_the_daemon_grow() {
    let Some(time) = long_round() else { return };
    let Some(mount) = Mount::lasting(2 * time) else { return };
    let daemon = mount.daemons()[0];
    forget_names(&mount);
    let before = Held::now(&mount, daemon);
    let load = start(&mount, 10_000);
    let since = Instant::now();
    let mut series_kib = Vec::new();
    while since.elapsed() < time {
        thread::sleep(time / 60);
        series_kib.push(sample(&mount, daemon, since));
    }
    end(&mount, load);
    rewrite_alone(&mount, time);
    comes_back(&mount, daemon, &before);
    let (early_kib, last_kib) = (most(series_kib.get(5..15)), most(series_kib.get(50..)));
    let quiet_kib = sample(&mount, daemon, since);
    // What is kept by design - receipts, places in logs, the last version of each key ever made - is small and has
    // its limits; a handle, a node or a draft that stays behind each time would be far above this.
    let limit_kib = early_kib + early_kib / 4 + 8 * KIB_PER_MIB;
    assert!(last_kib <= limit_kib, "{last_kib} KiB at the end of the load, {early_kib} KiB at its start");
    assert!(quiet_kib <= limit_kib, "{quiet_kib} KiB in the quiet, {early_kib} KiB at the start of the load");
}

/// 100,000 rewrites through one handle in the full time, each ended by an fsync or the close of a duplicate.
fn rewrite_alone(mount: &Mount, time: Duration) {
    let rounds = time.as_secs() * 100_000 / 1800;
    let words = [harness::python(), "-c", LOAD, "rewrites_alone", "9", &rounds.to_string()];
    let before = mount.committed_at("close") + mount.committed_at("fsync");
    eprintln!("  {} rewrites through one handle", mount.run(mount.command(&words)).ok().trim());
    let made = mount.committed_at("close") + mount.committed_at("fsync") - before;
    assert!(made >= rounds / 2, "{made} commits of {rounds} rewrites");
}

fn most(of: Option<&[u64]>) -> u64 {
    of.and_then(|samples| samples.iter().max().copied()).expect("samples")
}
