//! Where the time of a commit goes: the library on a disk that takes the time of each of its operations.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use batonfs::engine::local::LocalEngine;
use batonfs::engine::local::disk::{Access, Disk, DiskFile, Form, LocalDisk, Stat};
use batonfs::engine::{Engine, Space};
use batonfs::store::Store;
use batonfs::words::{Key, Policy, SessionId};
use serde_json::{Value, json};

use super::place::SESSION;
use super::{Result, sites, way};

/// Commits before the clock starts: history and spare files are then as they stay.
const WARM_UP: usize = 100;

/// How often something was done, and how long that took together.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    times: u64,
    took: Duration,
}

/// The clock that a disk and its files share.
#[derive(Debug, Clone, Default)]
struct Clock(Arc<Mutex<BTreeMap<&'static str, Spent>>>);

impl Clock {
    fn time<T>(&self, what: &'static str, act: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = act();
        let took = start.elapsed();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = all.entry(what).or_default();
        *spent = Spent { times: spent.times + 1, took: spent.took + took };
        result
    }

    fn take(&self) -> BTreeMap<&'static str, Spent> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a commit by one writer is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    bytes: usize,
    commits: u64,
    took: Duration,
    operations: BTreeMap<&'static str, Spent>,
}

/// Commits for a while in `dir`, which is empty.
pub(crate) fn measure(dir: &Path, bytes: usize, each: Duration) -> Result<Parts> {
    let clock = Clock::default();
    let disk = TimedDisk { disk: LocalDisk::open_at(dir)?, clock: clock.clone() };
    let engine: Arc<dyn Engine> = Arc::new(LocalEngine::open_on(Arc::new(disk))?);
    let store = Store::new(engine, dir.to_owned(), Vec::new(), Policy::default());
    let (session, key, value) = (SessionId::parse(SESSION)?, Key::literal("key")?, vec![b'v'; bytes]);
    sites::make_session(&store, &session)?;
    let commit = || way::through_the_store(&store, &session, &key, &value);
    for _ in 0..WARM_UP {
        commit()?;
    }
    clock.take();
    let (start, mut commits, mut took) = (Instant::now(), 0, Duration::ZERO);
    while commits == 0 || start.elapsed() < each {
        took += commit()?;
        commits += 1;
    }
    let operations = clock.take();
    store.engine().close()?;
    Ok(Parts { bytes, commits, took, operations })
}

impl Parts {
    fn per_commit_us(&self, took: Duration) -> f64 {
        took.as_secs_f64() * 1e6 / self.commits as f64
    }

    fn times(&self, spent: Spent) -> f64 {
        spent.times as f64 / self.commits as f64
    }

    /// The operations that take longest first.
    fn longest_first(&self) -> Vec<(&'static str, Spent)> {
        let mut operations: Vec<_> = self.operations.iter().map(|(&what, &spent)| (what, spent)).collect();
        operations.sort_by_key(|(_, spent)| std::cmp::Reverse(spent.took));
        operations
    }

    /// The rest: reckoning, locks, and the two looks at the clock for each operation.
    fn own_us(&self) -> f64 {
        self.per_commit_us(self.took) - self.per_commit_us(self.operations.values().map(|spent| spent.took).sum())
    }

    /// A table, a line an operation.
    pub(crate) fn text(&self) -> String {
        let size = super::table::size(self.bytes);
        let mut text = format!(
            "\nwhere a commit's time goes: library, one writer, {size}, {} commits\n\n\
             {:>10}{:>10}  operation of the disk\n",
            self.commits, "us", "times"
        );
        for (what, spent) in self.longest_first() {
            let (us, times) = (self.per_commit_us(spent.took), self.times(spent));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{us:>10.1}{times:>10.2}  {what}");
        }
        let (own, all) = (self.own_us(), self.per_commit_us(self.took));
        let _ = writeln!(text, "{own:>10.1}{:>10}  everything else\n{all:>10.1}{:>10}  together", "", "");
        text
    }

    /// An array, an object an operation.
    pub(crate) fn json(&self) -> Value {
        let operation = |(what, spent): (&str, Spent)| json!({ "operation": what, "us": self.per_commit_us(spent.took), "times": self.times(spent) });
        json!({
            "value_bytes": self.bytes,
            "commits": self.commits,
            "commit_us": self.per_commit_us(self.took),
            "everything_else_us": self.own_us(),
            "operations": self.longest_first().into_iter().map(operation).collect::<Vec<_>>(),
        })
    }
}

/// The real disk, timed.
#[derive(Debug)]
struct TimedDisk {
    disk: LocalDisk,
    clock: Clock,
}

impl TimedDisk {
    fn file(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(TimedFile { file, clock: self.clock.clone() })
    }
}

impl Disk for TimedDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        self.clock.time("open a file", || self.disk.open(path, access)).map(|file| self.file(file))
    }
    fn create(&self, path: &str, mode: u32) -> io::Result<Box<dyn DiskFile>> {
        self.clock.time("create a file", || self.disk.create(path, mode)).map(|file| self.file(file))
    }
    fn anonymous(&self, dir: &str) -> io::Result<File> {
        self.clock.time("create a file without a name", || self.disk.anonymous(dir))
    }
    fn link_anonymous(&self, file: &File, to: &str) -> io::Result<()> {
        self.clock.time("link", || self.disk.link_anonymous(file, to))
    }
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.clock.time("link", || self.disk.link(from, to))
    }
    fn stat(&self, path: &str) -> io::Result<Stat> {
        self.clock.time("stat by name", || self.disk.stat(path))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.clock.time("rename", || self.disk.rename(from, to))
    }
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.clock.time("rename", || self.disk.rename_new(from, to))
    }
    fn exchange(&self, a: &str, b: &str) -> io::Result<()> {
        self.clock.time("exchange two names", || self.disk.exchange(a, b))
    }
    fn unlink(&self, path: &str) -> io::Result<()> {
        self.clock.time("unlink", || self.disk.unlink(path))
    }
    fn make_dir(&self, path: &str, mode: u32) -> io::Result<()> {
        self.clock.time("make a directory", || self.disk.make_dir(path, mode))
    }
    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.clock.time("remove a directory", || self.disk.remove_dir(path))
    }
    fn read_dir(&self, path: &str) -> io::Result<Vec<(OsString, Form)>> {
        self.clock.time("list a directory", || self.disk.read_dir(path))
    }
    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.clock.time("sync a directory", || self.disk.sync_dir(path))
    }
    fn sync_everything(&self) -> io::Result<()> {
        self.clock.time("sync the file system (checkpoint)", || self.disk.sync_everything())
    }
    fn space(&self) -> io::Result<Space> {
        self.clock.time("ask for space", || self.disk.space())
    }
    fn boot(&self) -> String {
        self.disk.boot()
    }
}

/// An open file, timed.
#[derive(Debug)]
struct TimedFile {
    file: Box<dyn DiskFile>,
    clock: Clock,
}

impl DiskFile for TimedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.clock.time("read", || self.file.read_at(offset, buffer))
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.clock.time("write", || self.file.write_at(offset, bytes))
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.clock.time("cut or lengthen", || self.file.set_len(len))
    }
    fn stat(&self) -> io::Result<Stat> {
        self.clock.time("stat of an open file", || self.file.stat())
    }
    fn xattr(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.clock.time("read an xattr", || self.file.xattr(name))
    }
    fn xattr_names(&self) -> io::Result<Vec<String>> {
        self.clock.time("list xattrs", || self.file.xattr_names())
    }
    fn set_xattr(&self, name: &str, value: &[u8]) -> io::Result<()> {
        self.clock.time("set an xattr", || self.file.set_xattr(name, value))
    }
    fn remove_xattr(&self, name: &str) -> io::Result<()> {
        self.clock.time("remove an xattr", || self.file.remove_xattr(name))
    }
    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.clock.time("set the mode", || self.file.set_mode(mode))
    }
    fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        self.clock.time("set the owner", || self.file.set_owner(uid, gid))
    }
    fn set_mtime(&self, mtime_ns: i64) -> io::Result<()> {
        self.clock.time("set the time", || self.file.set_mtime(mtime_ns))
    }
    fn is_open_here_only(&self) -> io::Result<bool> {
        self.clock.time("ask who has it open", || self.file.is_open_here_only())
    }
    fn sync_data(&self) -> io::Result<()> {
        self.clock.time("sync a file (the commit point)", || self.file.sync_data())
    }
    fn sync(&self) -> io::Result<()> {
        self.clock.time("sync a file with its attributes", || self.file.sync())
    }
}
