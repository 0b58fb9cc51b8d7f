//! The disk is full, from any operation on: what cannot be made is refused in words and changes nothing, what was
//! acknowledged is served, and once there is room again everything goes on, with a new opening and without.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use batonfs::engine::local::LocalEngine;
use batonfs::engine::{Change, Engine, EngineError, Result};

use crate::crash::{Shown, brief, expected, shown, workload};
use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;
use crate::table::ALWAYS;

/// What a full disk refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refuses {
    /// What takes blocks: bytes, which it takes a part of, and new directories. Names and inodes there are enough.
    Blocks,
    /// What takes room: new files and names, bytes, xattrs.
    Room,
    /// Any change.
    Changes,
    /// Any change and any sync.
    All,
}

impl Refuses {
    fn refuses(self, root: &Path, what: &str) -> bool {
        // What is there already is refused for that.
        if what.strip_prefix("make_dir ").is_some_and(|dir| root.join(dir).exists()) {
            return false;
        }
        let begins = |names: &[&str]| names.iter().any(|name| what.starts_with(name));
        match self {
            Self::Blocks => begins(&["write", "make_dir"]),
            Self::Room => begins(&["create", "write", "set_xattr", "link", "make_dir", "anonymous", "rename"]),
            Self::Changes => !begins(&["sync"]),
            Self::All => true,
        }
    }
}

/// A store whose disk is full from the operation `n` on.
struct Full {
    dir: tempfile::TempDir,
    watch: Watch,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Full {
    fn after(n: usize, refuses: Refuses) -> Self {
        let watch = Watch::default();
        let refused = Arc::<Mutex<Vec<String>>>::default();
        let (failing, done, telling) = (watch.clone(), AtomicUsize::new(0), Arc::clone(&refused));
        let dir = quick_dir();
        let root = dir.path().to_owned();
        watch.before(move |what| {
            let full = done.fetch_add(1, Ordering::SeqCst) >= n && refuses.refuses(&root, what);
            if full {
                telling.lock().unwrap().push(what.to_owned());
            }
            failing.fail(full.then_some((0, libc::ENOSPC)));
        });
        Self { dir, watch, refused }
    }

    fn open(&self) -> Result<LocalEngine> {
        LocalEngine::open_with(RecordingDisk::open(self.dir.path(), &self.watch), ALWAYS)
    }

    fn has_room_again(&self) {
        self.watch.before(|_| {});
        self.watch.fail(None);
    }
}

/// Makes the changes from `from` on until one is refused. How many are made then, and the refusal.
fn make(engine: &dyn Engine, changes: &[Change], from: usize) -> (usize, Option<EngineError>) {
    for (index, change) in changes.iter().enumerate().skip(from) {
        if let Err(e) = engine.commit(&session(), change.clone(), &by("w")) {
            return (index, Some(e));
        }
    }
    (changes.len(), None)
}

fn is_told(e: &EngineError) -> bool {
    matches!(e, EngineError::NoSpace | EngineError::Closed(_))
        || matches!(e, EngineError::Io { source, .. } if matches!(source.raw_os_error(), Some(libc::ENOSPC | libc::EIO)))
}

/// A directory on a disk that costs nothing to sync, where the machine has one that keeps xattrs.
pub(crate) fn quick_dir() -> tempfile::TempDir {
    static KEEPS_XATTRS: OnceLock<bool> = OnceLock::new();
    let there = || tempfile::tempdir_in("/dev/shm").ok();
    let keeps = KEEPS_XATTRS.get_or_init(|| there().is_some_and(|dir| LocalEngine::open(dir.path()).is_ok()));
    keeps.then(there).flatten().unwrap_or_else(|| tempfile::tempdir().unwrap())
}

fn goes_on(engine: LocalEngine, root: &Path, made: usize, states: &[Shown], at: &str) {
    let changes = workload();
    let (all, refused) = make(&engine, &changes, made);
    assert!(refused.is_none(), "{at}: with room again change {all} is refused: {}", refused.unwrap());
    assert_eq!(brief(&shown(&engine)), brief(&states[changes.len()]), "{at}");
    drop(engine);
    for boot in [None, Some("another boot")] {
        let watch = Watch::default();
        boot.iter().for_each(|boot| watch.reboot(boot));
        let engine = LocalEngine::open_on(RecordingDisk::open(root, &watch)).unwrap();
        assert!(shown(&engine) == states[changes.len()], "{at}, opened again, boot {boot:?}");
        let seqs: Vec<_> = engine.changes(&session(), 0).unwrap().iter().map(|line| line.seq).collect();
        assert_eq!(seqs, (1..=changes.len() as u64).collect::<Vec<_>>(), "{at}");
        engine.close().unwrap();
    }
    let left = std::fs::read_dir(root.join(".baton/drafts")).unwrap().count();
    assert_eq!(left, 0, "{at}: drafts are left");
}

/// A disk full after `n` operations; `reopen`: the store is opened again while it is full. `true`: it was never met.
fn fill_after(n: usize, refuses: Refuses, reopen: bool, states: &[Shown]) -> bool {
    let full = Full::after(n, refuses);
    let at = format!("full after {n} operations, {refuses:?}, reopened {reopen}");
    let changes = workload();
    let (mut engine, mut made) = (None, 0);
    match full.open() {
        Ok(opened) => {
            let (up_to, refusal) = make(&opened, &changes, 0);
            made = up_to;
            if let Some(refusal) = &refusal {
                assert!(is_told(refusal), "{at}: {refusal}");
            }
            let closed = matches!(&refusal, Some(EngineError::Closed(_)));
            let served = opened.list(&session()).is_ok() || made == 0;
            // A renamed directory that is not in its place serves nothing.
            if served && !closed {
                assert!(
                    shown(&opened) == states[made],
                    "{at}: {:?} is not {:?}",
                    brief(&shown(&opened)),
                    brief(&states[made])
                );
            }
            engine = (!closed && !reopen).then_some(opened);
        }
        Err(e) => assert!(is_told(&e), "{at}: {e}"),
    }
    let never = full.refused.lock().unwrap().is_empty();
    if reopen && !never {
        match full.open() {
            Ok(opened) => {
                // Whether what a failed sync left was committed is told now.
                made = reopened(&opened, made, states, &at);
                engine = Some(opened);
            }
            Err(e) => assert!(is_told(&e), "{at}: {e}"),
        }
    }
    full.has_room_again();
    let engine = engine
        .unwrap_or_else(|| full.open().unwrap_or_else(|e| panic!("{at}: with room again it cannot be opened: {e}")));
    // A renamed directory that waits since the opening goes to its place with the next read.
    let read = [engine.list(&session()).map(drop), engine.policy(&session()).map(drop)];
    assert!(read.iter().all(|read| !matches!(read, Err(EngineError::Io { .. }))), "{at}: {read:?}");
    made = reopened(&engine, made, states, &at);
    goes_on(engine, full.dir.path(), made, states, &at);
    never
}

/// What was made must be shown, and perhaps the one after it: how many that are.
fn reopened(engine: &LocalEngine, made: usize, states: &[Shown], at: &str) -> usize {
    let there = match engine.changes(&session(), 0) {
        Ok(lines) => lines.len(),
        Err(EngineError::NotFound(_)) => 0,
        // A renamed directory that is not in its place keeps all of its session back.
        Err(e) => {
            assert!(is_told(&e), "{at}: {e}");
            return made;
        }
    };
    assert!(there == made || there == made + 1, "{at}: {made} were made, {there} are there");
    if engine.list(&session()).is_ok() || there == 0 {
        assert!(shown(engine) == states[there], "{at}: {:?} is not {:?}", brief(&shown(engine)), brief(&states[there]));
    }
    there
}

// F17 F18 F25 F27
#[test]
fn with_room_again_everything_goes_on_wherever_the_disk_was_full() {
    let states = expected();
    let step = if std::env::var_os("BATONFS_LONG").is_some() { 1 } else { 17 };
    let mut met = 0;
    for (offset, refuses) in [Refuses::Blocks, Refuses::Room, Refuses::Changes, Refuses::All].into_iter().enumerate() {
        for reopen in [false, true] {
            for n in (offset..).step_by(step) {
                if fill_after(n, refuses, reopen, &states) {
                    break;
                }
                met += 1;
            }
        }
    }
    println!("the disk was full {met} times");
    assert!(met > 60, "the disk was full only {met} times");
}

// F25 F27
#[test]
fn what_a_full_disk_took_of_a_draft_at_recovery_is_not_taken_for_the_value() {
    for boot in [None, Some("another boot")] {
        let (dir, watch) = (quick_dir(), Watch::default());
        let open = || LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch));
        let engine = open().unwrap();
        make_session(&engine);
        commit(&engine, put("k", b"the first", None));
        let dying = watch.clone();
        watch.before(move |what| {
            if what == "sync_data .baton/journal" {
                dying.fail(Some((1, libc::EIO)));
            }
        });
        commit(&engine, put("k", b"the second", Some(1)));
        drop(engine);
        boot.iter().for_each(|boot| watch.reboot(boot));
        let (filling, root) = (watch.clone(), dir.path().to_owned());
        watch.before(move |what| filling.fail(Refuses::Blocks.refuses(&root, what).then_some((0, libc::ENOSPC))));
        let mut opened = 0;
        for _ in 0..2 {
            match open() {
                Ok(engine) => {
                    opened += 1;
                    assert_eq!(value(&engine, "k").unwrap(), b"the second", "{boot:?}, full");
                }
                Err(e) => assert!(is_told(&e), "{boot:?}: {e}"),
            }
        }
        assert_eq!(opened, 2, "{boot:?}: a full disk is read");
        watch.before(|_| {});
        watch.fail(None);
        for _ in 0..2 {
            let engine = open().unwrap();
            assert_eq!(
                (value(&engine, "k").unwrap(), version(&engine, "k")),
                (b"the second".to_vec(), Some(2)),
                "{boot:?}"
            );
            assert_eq!(engine.changes(&session(), 0).unwrap().len(), 3, "{boot:?}");
        }
    }
}
