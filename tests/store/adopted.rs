//! The power goes after a program beside the store has put a value in the place of ours, durable as it does that: what was
//! made of it afterwards is there, and the value itself is the version that it got.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use batonfs::engine::local::LocalEngine;
use batonfs::engine::local::disk::{Access, Disk};
use batonfs::engine::{AttributeChange, Change, Engine};
use batonfs::words::Past;

use crate::engines::*;
use crate::power::{Shown, difference, shown, sound};
use crate::power_disk::{Chance, PowerDisk};

/// What is done after the adoption.
type After = fn() -> Vec<Change>;

fn cases() -> Vec<(&'static str, After)> {
    vec![
        ("nothing", Vec::new),
        ("append", || vec![append("a", b" and more", 2)]),
        ("put", || vec![put("a", b"ours again", Some(2))]),
        ("append and put", || vec![append("a", b" and more", 2), put("a", b"ours again", Some(3))]),
        ("append twice and delete", || vec![append("a", b" and", 2), append("a", b" more", 3), delete("a", 4)]),
        ("delete", || vec![delete("a", 2)]),
        ("put, append and put", || {
            vec![put("a", b"again", Some(2)), append("a", b" and more", 3), put("a", b"x", Some(4))]
        }),
        ("rename away", || vec![rename("a", "b", 2, Some(1))]),
        ("append and rename away", || vec![append("a", b" and more", 2), rename("a", "b", 3, Some(1))]),
        ("rename over it", || vec![rename("b", "a", 1, Some(2))]),
        ("declare and put", || vec![Change::Declare { key: key("a"), expected: 2 }, put("a", b"ours again", Some(2))]),
        ("attributes and append", || {
            let set = AttributeChange { mode: Some(0o600), ..Default::default() };
            vec![Change::Attributes { path: "a".to_owned(), set }, append("a", b" and more", 2)]
        }),
    ]
}

/// The neighbour's discipline: every step of it is durable before the next.
fn other_puts(disk: &PowerDisk, bytes: &[u8]) {
    let file = disk.create("s/.a..agent_state_tmp.x", 0o600).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    disk.rename("s/.a..agent_state_tmp.x", "s/a").unwrap();
    disk.sync_dir("s").unwrap();
}

/// What is shown after each step, where nothing fails; `told` hears of every moment and how many steps were done before.
/// `waits`: a commit is answered before its sync, which then ends the step.
fn steps(
    bytes: &[u8],
    after: After,
    waits: bool,
    told: impl FnMut(&PowerDisk, &str, usize) + Send + 'static,
) -> Vec<Shown> {
    let (disk, done) = (PowerDisk::new(), Arc::new(AtomicUsize::new(0)));
    let open = || LocalEngine::open_on(Arc::new(disk.clone())).unwrap();
    let engine = open();
    make_session(&engine);
    commit(&engine, put("a", b"one", None));
    commit(&engine, put("b", b"b", None));
    // Else the journal has what the neighbour replaces, and puts it into history.
    engine.close().unwrap();
    let engine = if waits { open().deferring() } else { open() };
    let mut states = vec![shown(&engine, 0)];
    let (told, so_far) = (Mutex::new(told), Arc::clone(&done));
    disk.before(move |disk, what| told.lock().unwrap()(disk, what, so_far.load(Ordering::SeqCst)));
    other_puts(&disk, bytes);
    engine.head(&session(), &key("a")).unwrap().unwrap();
    done.fetch_add(1, Ordering::SeqCst);
    states.push(shown(&engine, 0));
    for change in after() {
        commit(&engine, change);
        engine.sync().unwrap();
        done.fetch_add(1, Ordering::SeqCst);
        states.push(shown(&engine, 0));
    }
    engine.close().unwrap();
    disk.before(|_, _| {});
    states
}

/// The power goes again while the store is opened, or the process dies; now and then twice.
fn again(mut disk: PowerDisk, chance: &mut Chance) -> PowerDisk {
    for _ in 0..chance.below(3) {
        disk.cut_after(chance.below(30) as usize);
        drop(LocalEngine::open_on(Arc::new(disk.clone())));
        disk = if chance.is(50) { disk.after_cut(chance) } else { disk.after_death() };
    }
    disk
}

/// How many disks were looked at; each that shows something else is told.
fn cut_everywhere(bytes: &[u8], after: After, waits: bool, cuts: u64, name: &str) -> (usize, Vec<String>) {
    let left = Arc::<Mutex<Vec<_>>>::default();
    let (taking, mut seed) = (Arc::clone(&left), 0);
    let states = steps(bytes, after, waits, move |disk, what, done| {
        for _ in 0..cuts {
            seed += 1;
            let dies = seed % 5 == 0;
            let left = if dies { disk.after_death() } else { disk.after_cut(&mut Chance::new(seed)) };
            taking.lock().unwrap().push((left, what.to_owned(), done, seed));
        }
    });
    let left = std::mem::take(&mut *left.lock().unwrap());
    let (looked, mut wrong) = (left.len(), Vec::new());
    for (disk, what, done, seed) in left {
        let at = format!("{name}, before {what} (seed {seed})");
        let disk = again(disk, &mut Chance::new(seed ^ 0xFACE));
        let engine = match LocalEngine::open_on(Arc::new(disk.clone())) {
            Ok(engine) => engine,
            Err(e) => {
                wrong.push(format!("{at}: it cannot be opened: {e}"));
                continue;
            }
        };
        // Who looks finds the neighbour's.
        engine.head(&session(), &key("a")).unwrap();
        let now = shown(&engine, 0);
        let expected = states.get(done..).unwrap_or_default().iter().take(2);
        if !expected.clone().any(|expected| *expected == now) {
            let differences: Vec<_> = expected.map(|expected| difference(&now, expected)).collect();
            wrong.push(format!("{at}: after {done} steps{}", differences.join("\nand")));
            continue;
        }
        engine.close().unwrap();
        drop(engine);
        if let Err(e) = sound(&disk)
            && !e.contains("agent_state_tmp")
        {
            wrong.push(format!("{at}: {e}"));
        }
    }
    (looked, wrong)
}

// F11 F27 F32
#[test]
fn f27_no_power_cut_takes_what_was_made_of_a_value_that_was_found() {
    let mut all = 0;
    let cuts = if std::env::var_os("BATONFS_LONG").is_some() { 40 } else { 2 };
    let mut told = Vec::new();
    let (small, large) = (&b"what the neighbour wrote"[..], &[7; 70_000][..]);
    for (bytes, waits) in [(small, false), (large, false), (small, true)] {
        for (name, after) in cases() {
            let name = format!("{name}, {} bytes, waits {waits}", bytes.len());
            let (looked, wrong) = cut_everywhere(bytes, after, waits, cuts, &name);
            all += looked;
            told.extend(wrong.first().map(|first| format!("{} of {looked}, {first}", wrong.len())));
        }
    }
    println!("{all} power cuts survived");
    assert!(told.is_empty(), "{}", told.join("\n\n"));
    assert!(all > 1_000, "only {all} power cuts");
}

/// Appends to what is at `a` once it was found, and cuts the power: every time on another disk.
fn append_and_cut(disk: &PowerDisk, seed: u64) -> (PowerDisk, LocalEngine) {
    let engine = LocalEngine::open_on(Arc::new(disk.clone())).unwrap();
    let found = engine.head(&session(), &key("a")).unwrap().unwrap().version;
    commit(&engine, append("a", b" and more", found));
    let left = disk.after_cut(&mut Chance::new(seed));
    let engine = LocalEngine::open_on(Arc::new(left.clone())).unwrap();
    (left, engine)
}

fn with_session() -> PowerDisk {
    let disk = PowerDisk::new();
    let engine = LocalEngine::open_on(Arc::new(disk.clone())).unwrap();
    make_session(&engine);
    engine.close().unwrap();
    disk
}

// F15 F27
#[test]
fn what_is_appended_to_a_value_that_nobody_made_durable_outlives_a_power_cut_with_it() {
    for seed in 0..60 {
        let disk = with_session();
        let file = disk.create("s/.a.new", 0o600).unwrap();
        file.write_at(0, b"moved here").unwrap();
        disk.rename("s/.a.new", "s/a").unwrap();
        let (_, engine) = append_and_cut(&disk, seed);
        let now = value(&engine, "a").map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(now.as_deref(), Some("moved here and more"), "seed {seed}");
    }
}

// F11
#[test]
fn f11_no_power_cut_makes_us_write_to_the_other_name_of_a_hard_link() {
    for seed in 0..60 {
        let disk = with_session();
        let file = disk.create("backup", 0o600).unwrap();
        file.write_at(0, b"linked here").unwrap();
        file.sync().unwrap();
        disk.link("backup", "s/a").unwrap();
        disk.sync_everything().unwrap();
        let (disk, engine) = append_and_cut(&disk, seed);
        assert_eq!(value(&engine, "a").unwrap(), b"linked here and more", "seed {seed}");
        let files = disk.files("user.batonfs");
        let (_, bytes, mark) = files.iter().find(|(path, ..)| path == "backup").unwrap();
        assert_eq!(
            (bytes.as_slice(), mark.as_deref().unwrap_or_default()),
            (&b"linked here"[..], &b""[..]),
            "seed {seed}"
        );
    }
}

/// What is done to `a`, which is at version 1, and which version it is then.
fn before_it_is_changed() -> Vec<(Vec<Change>, u64)> {
    let set = |mtime| AttributeChange { mode: Some(0o600), mtime, ..Default::default() };
    let attributes = |mtime| Change::Attributes { path: "a".to_owned(), set: set(mtime) };
    vec![
        (Vec::new(), 1),
        (vec![append("a", b" and what is longer than what comes", 1)], 2),
        (vec![append("a", b" and", 1), append("a", b" more", 2)], 3),
        (vec![attributes(None), Change::Declare { key: key("a"), expected: 1 }], 1),
        (vec![append("a", b" and more", 1), attributes(Some(at(3_000_000)))], 2),
    ]
}

/// How often each of them is done: every time the power leaves something else.
fn cuts() -> u64 {
    if std::env::var_os("BATONFS_LONG").is_some() { 400 } else { 15 }
}

/// Changed in place, durably, and found.
fn change_in_place(disk: &PowerDisk, engine: &LocalEngine, bytes: &[u8]) -> u64 {
    let file = disk.open("s/a", Access::Write).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir("s").unwrap();
    version(engine, "a").unwrap()
}

// F11 F27 F32
#[test]
fn what_was_changed_in_place_is_not_taken_for_the_version_that_it_was_before() {
    for (seed, (before, was)) in
        (0..cuts()).flat_map(|seed| before_it_is_changed().into_iter().map(move |it| (seed, it)))
    {
        let (disk, what) = (with_session(), format!("seed {seed}, {before:?}"));
        let engine = LocalEngine::open_on(Arc::new(disk.clone())).unwrap();
        commit(&engine, put("a", b"one", None));
        for change in before {
            commit(&engine, change);
        }
        let whole = value(&engine, "a").unwrap();
        assert_eq!(change_in_place(&disk, &engine, b"changed in place"), was + 1);
        let changed = value(&engine, "a").unwrap();
        let replaced = seed % 2 == 0;
        if replaced {
            commit(&engine, put("a", b"ours again", Some(was + 1)));
        }
        let lines = engine.changes(&session(), 0).unwrap().len();
        let disk = disk.after_cut(&mut Chance::new(seed));
        let engine = LocalEngine::open_on(Arc::new(disk.clone())).unwrap();
        let newest = if replaced { (was + 2, b"ours again".to_vec()) } else { (was + 1, changed.clone()) };
        assert_eq!((version(&engine, "a").unwrap(), value(&engine, "a").unwrap()), newest, "{what}");
        assert_eq!(engine.changes(&session(), 0).unwrap().len(), lines, "{what}");
        for (version, bytes) in [(was, &whole), (was + 1, &changed)] {
            let past = engine.open_past(&session(), &key("a"), Past::Version(version)).unwrap();
            let past = past.unwrap_or_else(|| panic!("{what}: version {version} is gone"));
            let bytes = String::from_utf8_lossy(bytes);
            assert_eq!(String::from_utf8_lossy(&past.read_all().unwrap()), bytes, "{what}, version {version}");
        }
        engine.close().unwrap();
        drop(engine);
        sound(&disk).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
}

// F62
#[test]
fn what_is_changed_in_place_after_a_checkpoint_no_recovery_touches() {
    for (seed, waits) in (0..60).flat_map(|seed| [(seed, false), (seed, true)]) {
        let disk = with_session();
        let engine = LocalEngine::open_on(Arc::new(disk.clone())).unwrap();
        let engine = if waits { engine.deferring() } else { engine };
        commit(&engine, put("a", b"one", None));
        engine.checkpoint().unwrap();
        // Nobody looks at it before the power goes.
        let file = disk.open("s/a", Access::Write).unwrap();
        file.write_at(0, b"changed in place").unwrap();
        file.sync().unwrap();
        commit(&engine, put("b", b"two", None));
        engine.sync().unwrap();
        let engine = LocalEngine::open_on(Arc::new(disk.after_cut(&mut Chance::new(seed)))).unwrap();
        assert_eq!(value(&engine, "a").unwrap(), b"changed in place", "seed {seed}, waits {waits}");
        assert_eq!((version(&engine, "a"), value(&engine, "b").unwrap()), (Some(2), b"two".to_vec()), "seed {seed}");
    }
}
