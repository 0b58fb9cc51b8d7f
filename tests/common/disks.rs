//! A disk below the local engine that records what is done, and fails when told to.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use batonfs::engine::Space;
use batonfs::engine::local::disk::{Access, Disk, DiskFile, Form, LocalDisk, Stat};

/// What is done before an operation of the disk below.
type Before = Box<dyn FnMut(&str) + Send>;

#[derive(Default)]
struct Plan {
    done: Vec<String>,
    /// Changes left until every further one fails with this error.
    fail_after: Option<(usize, i32)>,
    /// Every change whose name has this in it fails.
    barred: Option<String>,
    /// Every file whose path ends so cannot be opened.
    shut: Option<String>,
    written_bytes: u64,
    /// Calls that only look, with each name that is listed, and the bytes that were read.
    looked: (u64, u64),
    /// And before which one: any, where none is named.
    before: Option<(Option<&'static str>, Before)>,
    boot: Option<String>,
}

/// The plan a disk and its files share.
#[derive(Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<Plan>>);

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Watch {
    /// What was done since the last call: changes and syncs, not reads.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().done)
    }

    /// How often something was done since it was taken.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.0.lock().unwrap().done.iter().filter(|done| *done == what).count()
    }

    /// Bytes written since the last call.
    pub(crate) fn take_written_bytes(&self) -> u64 {
        std::mem::take(&mut self.0.lock().unwrap().written_bytes)
    }

    /// How often something was looked at since the last call, each listed name counted, and how many bytes were read.
    pub(crate) fn take_looked(&self) -> (u64, u64) {
        std::mem::take(&mut self.0.lock().unwrap().looked)
    }

    fn look(&self, times: usize, bytes: usize) {
        let looked = &mut self.0.lock().unwrap().looked;
        *looked = (looked.0 + times as u64, looked.1 + bytes as u64);
    }

    /// After `changes` more changes, every one fails with `errno`; none do with `None`.
    pub(crate) fn fail(&self, plan: Option<(usize, i32)>) {
        self.0.lock().unwrap().fail_after = plan;
    }

    /// Every change whose name has `part` in it fails with EPERM, as where a file may not be changed; none with `None`.
    pub(crate) fn bar(&self, part: Option<&str>) {
        self.0.lock().unwrap().barred = part.map(str::to_owned);
    }

    /// A file whose path ends so cannot be opened (EACCES), as where it is for somebody else's eyes; none with `None`.
    pub(crate) fn shut(&self, end: Option<&str>) {
        self.0.lock().unwrap().shut = end.map(str::to_owned);
    }

    /// Calls `before` ahead of every change.
    pub(crate) fn before(&self, before: impl FnMut(&str) + Send + 'static) {
        self.0.lock().unwrap().before = Some((None, Box::new(before)));
    }

    /// Calls `before` ahead of every change of this name alone, also when others are made at the same time.
    pub(crate) fn before_each(&self, what: &'static str, mut before: impl FnMut() + Send + 'static) {
        self.0.lock().unwrap().before = Some((Some(what), Box::new(move |_| before())));
    }

    /// The machine has started again.
    pub(crate) fn reboot(&self, boot: &str) {
        self.0.lock().unwrap().boot = Some(boot.to_owned());
    }

    fn change(&self, what: String) -> io::Result<()> {
        let is_it = |named: Option<&str>| named.is_none_or(|named| named == what);
        let before = self.0.lock().unwrap().before.take_if(|(named, _)| is_it(*named));
        if let Some((named, mut before)) = before {
            before(&what);
            self.0.lock().unwrap().before.get_or_insert((named, before));
        }
        let mut plan = self.0.lock().unwrap();
        if let Some((left, errno)) = &mut plan.fail_after {
            if *left == 0 {
                return Err(io::Error::from_raw_os_error(*errno));
            }
            *left -= 1;
        }
        if plan.barred.as_ref().is_some_and(|barred| what.contains(barred.as_str())) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        plan.done.push(what);
        Ok(())
    }
}

/// The real disk under watch.
#[derive(Debug)]
pub(crate) struct RecordingDisk {
    disk: LocalDisk,
    watch: Watch,
}

impl RecordingDisk {
    pub(crate) fn open(root: &Path, watch: &Watch) -> Arc<Self> {
        Arc::new(Self { disk: LocalDisk::open_at(root).unwrap(), watch: watch.clone() })
    }

    fn file(&self, path: &str, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(RecordingFile { file, path: path.to_owned(), watch: self.watch.clone() })
    }
}

impl Disk for RecordingDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        self.watch.look(1, 0);
        if self.watch.0.lock().unwrap().shut.as_ref().is_some_and(|end| path.ends_with(end.as_str())) {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        Ok(self.file(path, self.disk.open(path, access)?))
    }
    fn create(&self, path: &str, mode: u32) -> io::Result<Box<dyn DiskFile>> {
        self.watch.change(format!("create {path}"))?;
        Ok(self.file(path, self.disk.create(path, mode)?))
    }
    fn anonymous(&self, dir: &str) -> io::Result<File> {
        self.watch.change(format!("anonymous {dir}"))?;
        self.disk.anonymous(dir)
    }
    fn link_anonymous(&self, file: &File, to: &str) -> io::Result<()> {
        self.watch.change(format!("link_anonymous {to}"))?;
        self.disk.link_anonymous(file, to)
    }
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.watch.change(format!("link {from} {to}"))?;
        self.disk.link(from, to)
    }
    fn stat(&self, path: &str) -> io::Result<Stat> {
        self.watch.look(1, 0);
        self.disk.stat(path)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.watch.change(format!("rename {from} {to}"))?;
        self.disk.rename(from, to)
    }
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.watch.change(format!("rename_new {from} {to}"))?;
        self.disk.rename_new(from, to)
    }
    fn exchange(&self, a: &str, b: &str) -> io::Result<()> {
        self.watch.change(format!("exchange {a} {b}"))?;
        self.disk.exchange(a, b)
    }
    fn unlink(&self, path: &str) -> io::Result<()> {
        self.watch.change(format!("unlink {path}"))?;
        self.disk.unlink(path)
    }
    fn make_dir(&self, path: &str, mode: u32) -> io::Result<()> {
        self.watch.change(format!("make_dir {path}"))?;
        self.disk.make_dir(path, mode)
    }
    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.watch.change(format!("remove_dir {path}"))?;
        self.disk.remove_dir(path)
    }
    fn read_dir(&self, path: &str) -> io::Result<Vec<(OsString, Form)>> {
        let names = self.disk.read_dir(path)?;
        self.watch.look(1 + names.len(), 0);
        Ok(names)
    }
    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.watch.change(format!("sync_dir {path}"))?;
        self.disk.sync_dir(path)
    }
    fn sync_everything(&self) -> io::Result<()> {
        self.watch.change("sync_everything".to_owned())?;
        self.disk.sync_everything()
    }
    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }
    fn boot(&self) -> String {
        let boot = self.watch.0.lock().unwrap().boot.clone();
        boot.unwrap_or_else(|| self.disk.boot())
    }
}

#[derive(Debug)]
struct RecordingFile {
    file: Box<dyn DiskFile>,
    path: String,
    watch: Watch,
}

impl RecordingFile {
    fn change(&self, what: &str) -> io::Result<()> {
        self.watch.change(format!("{what} {}", self.path))
    }
}

impl DiskFile for RecordingFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(offset, buffer)?;
        self.watch.look(1, got);
        Ok(got)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Err(e) = self.change("write") {
            // A disk that gets full takes a part of it.
            if e.raw_os_error() == Some(libc::ENOSPC) {
                self.file.write_at(offset, &bytes[..bytes.len() / 2])?;
            }
            return Err(e);
        }
        self.watch.0.lock().unwrap().written_bytes += bytes.len() as u64;
        self.file.write_at(offset, bytes)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change("set_len")?;
        self.file.set_len(len)
    }
    fn stat(&self) -> io::Result<Stat> {
        self.watch.look(1, 0);
        self.file.stat()
    }
    fn xattr(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.watch.look(1, 0);
        self.file.xattr(name)
    }
    fn xattr_names(&self) -> io::Result<Vec<String>> {
        self.watch.look(1, 0);
        self.file.xattr_names()
    }
    fn set_xattr(&self, name: &str, value: &[u8]) -> io::Result<()> {
        self.change(&format!("set_xattr {name}"))?;
        self.file.set_xattr(name, value)
    }
    fn remove_xattr(&self, name: &str) -> io::Result<()> {
        self.change(&format!("remove_xattr {name}"))?;
        self.file.remove_xattr(name)
    }
    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.change("set_mode")?;
        self.file.set_mode(mode)
    }
    fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        self.change("set_owner")?;
        self.file.set_owner(uid, gid)
    }
    fn set_mtime(&self, mtime_ns: i64) -> io::Result<()> {
        self.change("set_mtime")?;
        self.file.set_mtime(mtime_ns)
    }
    fn is_open_here_only(&self) -> io::Result<bool> {
        self.file.is_open_here_only()
    }
    fn sync_data(&self) -> io::Result<()> {
        self.change("sync_data")?;
        self.file.sync_data()
    }
    fn sync(&self) -> io::Result<()> {
        self.change("sync")?;
        self.file.sync()
    }
}
