//! What a commit and an opening cost does not grow with the store: counted in calls to the disk and bytes read, among a
//! thousand keys and among a million. `BATONFS_LONG=1` only; `BATONFS_MILLION` for another number.

use std::fs;
use std::io::{BufWriter, Write};
use std::time::{Duration, Instant};

use batonfs::engine::Engine;
use batonfs::engine::local::LocalEngine;

use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;
use crate::full::quick_dir;
use crate::lines::sealed;

/// Keys of a directory.
const DIR_KEYS: u64 = 1000;
/// Changes that a crash leaves in the journal.
const JOURNALED: u64 = 100;

/// What something did to the disk: changes and syncs by name, calls that look, bytes read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cost {
    changes: Vec<String>,
    looked: u64,
    read_bytes: u64,
}

struct Big {
    dir: tempfile::TempDir,
    watch: Watch,
}

impl Big {
    /// A closed store with so many keys. Their files are made beside the engine, as the neighbour would, and the lines of
    /// the log like that of one commit: a million commits would take their time.
    fn of(keys: u64) -> Self {
        let big = Self { dir: quick_dir(), watch: Watch::default() };
        let engine = LocalEngine::open(big.dir.path()).unwrap();
        make_session(&engine);
        commit(&engine, put("the_first", b"a value", None));
        engine.close().unwrap();
        let log = big.dir.path().join(".baton/sessions/s/log");
        let line = fs::read_to_string(&log).unwrap().lines().nth(1).unwrap().to_owned();
        let mut lines = BufWriter::new(fs::OpenOptions::new().append(true).open(&log).unwrap());
        for n in 0..keys {
            let path = big.dir.path().join("s").join(name(n));
            if n.is_multiple_of(DIR_KEYS) {
                fs::create_dir(path.parent().unwrap()).unwrap();
            }
            fs::write(path, "a value").unwrap();
            let line = line.replace("\"seq\":2,", &format!("\"seq\":{},", n + 3)).replace("the_first", &name(n));
            writeln!(lines, "{}", sealed(&line)).unwrap();
        }
        lines.into_inner().unwrap();
        // Nothing of the records that were: the journals of both stores are as long.
        let journal = fs::OpenOptions::new().write(true).open(big.dir.path().join(".baton/journal")).unwrap();
        journal.set_len(8192).unwrap();
        big
    }

    fn open(&self) -> LocalEngine {
        LocalEngine::open_on(RecordingDisk::open(self.dir.path(), &self.watch)).unwrap()
    }

    /// What something costs, and how long it takes.
    fn cost<T>(&self, of: impl FnOnce() -> T) -> (T, Cost, Duration) {
        self.watch.take();
        self.watch.take_looked();
        let since = Instant::now();
        let made = of();
        let time = since.elapsed();
        let (looked, read_bytes) = self.watch.take_looked();
        let kind = |what: String| what.split(' ').next().unwrap_or_default().to_owned();
        (made, Cost { changes: self.watch.take().into_iter().map(kind).collect(), looked, read_bytes }, time)
    }
}

fn name(n: u64) -> String {
    format!("d{:06}/k{:06}", n / DIR_KEYS, n)
}

/// Each kind of change in the midst of the store, and what it costs.
fn commits(big: &Big, engine: &LocalEngine, n: u64) -> Vec<(&'static str, Cost, Duration)> {
    let (a, b) = (name(n), name(n + 1));
    for path in [&a, &b] {
        assert_eq!(version(engine, path), Some(2), "it gets its mark");
    }
    let change = |what, change| {
        let (_, cost, time) = big.cost(|| commit(engine, change));
        (what, cost, time)
    };
    vec![
        change("overwrite", put(&a, b"another", Some(2))),
        change("append", append(&a, b" and more", 3)),
        change("fresh key", put(&format!("{a}.new"), b"new", None)),
        change("rename", rename(&b, &a, 2, Some(4))),
        change("delete", delete(&a, 5)),
    ]
}

/// Everything that is compared, by what was done.
fn measure(keys: u64) -> Vec<(String, Cost)> {
    let since = Instant::now();
    let big = Big::of(keys);
    println!("{keys} keys made in {:?}", since.elapsed());
    let mut all = Vec::new();
    let mut note = |what: String, cost: Cost, time: Duration| {
        println!(
            "{keys} keys: {what}: {} changes, {} looks, {} bytes read, {time:?}",
            cost.changes.len(),
            cost.looked,
            cost.read_bytes
        );
        all.push((what, cost));
    };
    let (engine, cost, time) = big.cost(|| big.open());
    note("opening after a close".to_owned(), cost, time);
    // The numbers of versions come from the log, once: no checkpoint has made a table of this one.
    let (_, cost, time) = big.cost(|| commit(&engine, put("first", b"", None)));
    println!("{keys} keys: without a table: {} looks, {} bytes, {time:?}", cost.looked, cost.read_bytes);
    let (_, cost, time) = big.cost(|| engine.close().unwrap());
    println!("{keys} keys: making it: {} changes, {} bytes, {time:?}", cost.changes.len(), cost.read_bytes);
    let engine = big.open();
    let (_, cost, time) = big.cost(|| commit(&engine, put("second", b"", None)));
    note("the first commit of an opening".to_owned(), cost, time);
    for round in 0..2 {
        for (what, cost, time) in commits(&big, &engine, keys / 2 + 10 * round) {
            note(format!("{what} {round}"), cost, time);
        }
    }
    engine.close().unwrap();
    let engine = big.open();
    for n in 0..JOURNALED {
        assert_eq!(version(&engine, &name(n)), Some(2));
        commit(&engine, put(&name(n), b"journaled", Some(2)));
    }
    drop(engine);
    let (engine, cost, time) = big.cost(|| big.open());
    note("opening after a crash".to_owned(), cost, time);
    assert_eq!(value(&engine, &name(JOURNALED - 1)).unwrap(), b"journaled");
    for n in 0..JOURNALED {
        commit(&engine, put(&name(n), b"once more", Some(3)));
    }
    drop(engine);
    big.watch.reboot("another boot");
    let (engine, cost, time) = big.cost(|| big.open());
    note("opening after a power cut".to_owned(), cost, time);
    assert_eq!(value(&engine, &name(JOURNALED - 1)).unwrap(), b"once more");
    assert_eq!(value(&engine, &name(keys - 1)).unwrap(), b"a value");
    all
}

// F14 F19 F24 F41
#[test]
fn a_commit_and_an_opening_cost_among_a_million_keys_what_they_cost_among_a_thousand() {
    let asked = std::env::var("BATONFS_MILLION").ok().map(|text| text.parse().unwrap());
    let Some(keys) = asked.or(std::env::var_os("BATONFS_LONG").map(|_| 1_000_000)) else { return };
    let (few, many) = (measure(1_000), measure(keys));
    for ((what, few), (_, many)) in few.iter().zip(&many) {
        assert_eq!(few.changes, many.changes, "{what}");
        // Lines with longer numbers may be read by one call more.
        let (few_looked, many_looked) = (few.looked, many.looked);
        assert!(few_looked.abs_diff(many_looked) <= 8, "{what}: {few_looked} and {many_looked} looks");
        let (few_bytes, many_bytes) = (few.read_bytes, many.read_bytes);
        assert!(many_bytes <= few_bytes + few_bytes / 2 + (1 << 17), "{what}: {few_bytes} and {many_bytes} bytes read");
    }
}
