//! C7: what an append costs does not grow with the log. Counted, not timed: bytes and calls of the daemon as the kernel
//! counts them. The time is told, and means what the machine lets it mean.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use crate::harness::{self, Mount};

const LARGE_BYTES: usize = 64 << 20;
/// Measured one after the other, so that what happens now and then, such as zeros written ahead of the journal, is in
/// few of them.
const BATCHES: usize = 5;

/// What the daemon has read and written so far, in bytes and calls.
fn io(daemon: u32) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(format!("/proc/{daemon}/io")).expect("the counters");
    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    let counted = pairs.filter(|(name, _)| ["rchar", "wchar", "syscr", "syscw"].contains(name));
    counted.map(|(name, number)| (name.to_owned(), number.parse().expect("a number"))).collect()
}

fn memory_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// What a batch of lines cost, each appended by a close of its own.
fn batch(mount: &Mount, daemon: u32, key: &str, lines: usize) -> (BTreeMap<String, u64>, Duration) {
    let script = format!(
        "import os\nfor n in range({lines}):\n fd = os.open('{key}', os.O_WRONLY | os.O_APPEND)\n \
         os.write(fd, b'x' * 99 + b'\\n')\n os.close(fd)"
    );
    let (before, since) = (io(daemon), Instant::now());
    mount.python(&script).ok();
    let time = since.elapsed();
    (io(daemon).into_iter().map(|(name, after)| (name.clone(), after - before[&name])).collect(), time)
}

// C7
#[test]
fn a_line_costs_on_a_log_of_64_mib_what_it_costs_on_an_empty_one() {
    let Some(mount) = Mount::lasting(Duration::from_secs(if harness::long() { 3600 } else { 0 })) else { return };
    let daemon = mount.daemons()[0];
    let lines = if harness::long() { 100_000 / BATCHES } else { 20 };
    mount.write("empty", "");
    fs::write(mount.path("large"), vec![b'x'; LARGE_BYTES]).expect("a large log");
    for key in ["empty", "large"] {
        batch(&mount, daemon, key, 10);
    }
    let before_kib = memory_kib(daemon);
    let mut least: [BTreeMap<String, u64>; 2] = Default::default();
    let mut times = [Duration::ZERO; 2];
    for _ in 0..BATCHES {
        for (which, key) in ["empty", "large"].into_iter().enumerate() {
            let (cost, time) = batch(&mount, daemon, key, lines);
            times[which] += time;
            for (name, count) in cost {
                let least = least[which].entry(name).or_insert(u64::MAX);
                *least = count.min(*least);
            }
        }
    }
    let after_kib = memory_kib(daemon);
    let [empty, large] = least;
    let count = LARGE_BYTES as u64 + 100 * (10 + BATCHES * lines) as u64;
    assert_eq!(fs::metadata(mount.path("large")).expect("stat").len(), count);
    for (name, &on_empty) in &empty {
        let (on_empty, on_large) = (on_empty as f64 / lines as f64, large[name] as f64 / lines as f64);
        eprintln!("  {name} a line: {on_empty:.1} on the empty log, {on_large:.1} on the large one");
        // Who writes is looked at again after a tenth of a second: one look more in a batch says nothing of the log.
        let look = if name.ends_with("char") { 12_000.0 } else { 60.0 } / lines as f64;
        assert!(
            on_large <= on_empty * 1.1 + look,
            "{name}: {on_large} a line on the large log, {on_empty} on the empty one"
        );
    }
    let ratio = times[1].as_secs_f64() / times[0].as_secs_f64();
    eprintln!("  {:?} a line, {ratio:.2} times that on the large one", times[0] / (BATCHES * lines) as u32);
    eprintln!("  {before_kib} KiB before, {after_kib} KiB after");
    assert!(after_kib < before_kib + 8 * 1024, "{before_kib} KiB before, {after_kib} KiB after");
}

/// What a process has computed so far, in all its threads.
fn computed(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").flatten();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    Duration::from_nanos(texts.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum())
}

// C2: who looks again looks at the name that is asked for, not at all those beside it.
#[test]
fn looking_up_a_name_costs_the_same_while_a_commit_waits_elsewhere() {
    const KEYS: usize = 1500;
    let Some(mount) = Mount::lasting(Duration::from_secs(60)) else { return };
    for number in 0..KEYS {
        fs::write(mount.stored(&format!("k{number}")), "x").expect("a value");
    }
    let daemon = mount.daemons()[0];
    let walk = || {
        let before = computed(daemon);
        for number in 0..KEYS {
            assert!(mount.path(&format!("k{number}")).exists(), "k{number}");
        }
        computed(daemon).saturating_sub(before)
    };
    walk();
    let free = walk().min(walk());
    let mut waits = File::create(mount.path("waits")).expect("create");
    waits.write_all(b"half").expect("write");
    let duplicate = waits.try_clone().expect("dup");
    drop(duplicate);
    let while_one_waits = walk().min(walk());
    println!("{KEYS} names looked up: {free:?} of the daemon, {while_one_waits:?} while a commit waits");
    assert!(while_one_waits < 3 * free, "{while_one_waits:?} against {free:?}");
}
