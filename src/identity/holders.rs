//! Who still holds a file, and how a process ended. Fit for FLUSH and RELEASE; knows no claim and no writer.
//!
//! A FLUSH may come from a task in exec that holds the kernel's exec lock and waits for our answer; whoever then
//! reads one of the files that wait for this lock waits for ever, with everyone behind. So this file names only
//! what never waits for it: `status`, `statm`, `fdinfo`, `task`, `children`, a pidfd and its `fstat`. The one other
//! is the last field of `stat`, and only of a task that is past exec for good. A test reads this file for more.

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::process::{Pid, PidfdFlags};

use super::proc;

/// More than this, and a process's offspring is followed no further.
pub const DESCENDANTS_MAX: usize = 4096;

/// The process of a thread; `None` when the thread is gone, hidden or in a pid namespace that is not ours.
#[must_use]
pub fn tgid(tid: u32) -> Option<u32> {
    proc::status_number(&proc::status(tid)?, "Tgid")
}

/// Who closes a descriptor, as one look at its thread shows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Closer {
    /// Its process; `None` when the thread is gone, hidden or in a pid namespace that is not ours.
    pub pid: Option<u32>,
    /// The thread is on its way out ([`is_dying`]).
    pub dying: bool,
    /// It is its process's only thread: as long as it waits for us, nothing is started beside it.
    pub alone: bool,
}

impl Closer {
    /// Looks at the thread of a request that is still to be answered.
    #[must_use]
    pub fn of(tid: u32) -> Self {
        let Some(status) = proc::status(tid).filter(|_| tid != 0) else { return Self::default() };
        let number = |name| proc::status_number(&status, name);
        let dying = number("FDSize") == Some(0) && has_no_memory(tid);
        Self { pid: number("Tgid"), dying, alone: number("Threads") == Some(1) }
    }

    /// As [`descendants`] of its process.
    #[must_use]
    pub fn descendants(self) -> Vec<u32> {
        match self.pid {
            Some(pid) if self.alone && children_of(pid, pid).is_empty() => Vec::new(),
            Some(pid) => descendants(pid),
            None => Vec::new(),
        }
    }
}

/// A process that was seen holding a file, held so that its number cannot come to mean another one unnoticed.
#[derive(Debug)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    pidfd: OwnedFd,
    ino: u64,
}

impl Holder {
    /// Takes hold of the process now under this id (not a thread's); `None` when there is none.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::empty()).ok()?;
        let ino = rustix::fs::fstat(&pidfd).ok()?.st_ino;
        Some(Self { pid, pidfd, ino })
    }

    /// Has this very process not ended yet? One whose end nobody has waited for has ended: its files are closed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(rustix::event::poll(&mut ended, Some(&Timespec::default())), Ok(0))
    }

    /// How this very process has ended; `None` where it has not, or nobody knows any more: once it has been waited for,
    /// kernels before 6.15 do not.
    #[must_use]
    pub fn death(&self) -> Option<Death> {
        // Asked again, since it may be waited for between the two.
        self.recorded().or_else(|| death(self.pid)).or_else(|| self.recorded())
    }

    /// What the kernel has kept of the end of a process that has been waited for.
    fn recorded(&self) -> Option<Death> {
        let wanted = u64::from(libc::PIDFD_INFO_EXIT);
        // SAFETY: zeros are a value of this structure of numbers.
        let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
        info.mask = wanted;
        // SAFETY: the kernel writes no more than the size that is in the request's number, which is that of `info`.
        let failed = unsafe { libc::ioctl(self.pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
        (failed == 0 && info.mask & wanted != 0).then(|| Death::of(info.exit_code.cast_unsigned()))
    }
}

/// Equal when they are the same process. A reused id is another process: the inode number of a pidfd is never reused.
impl PartialEq for Holder {
    fn eq(&self, other: &Self) -> bool {
        (self.pid, self.ino) == (other.pid, other.ino)
    }
}

impl Eq for Holder {}

/// A file as a descriptor's `fdinfo` shows it: by its inode number, whatever stands in some of its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenAs {
    /// The number, with these bits 0.
    pub ino: u64,
    /// The bits that do not count.
    pub but: u64,
}

impl SeenAs {
    fn is(self, number: u64) -> bool {
        number & !self.but == self.ino
    }
}

/// How many descriptors open for writing process `pid` has of a file. Mounts are not told
/// apart: the same file has another mount id in another mount namespace. `None` when its table cannot be read.
#[must_use]
pub fn writable_descriptors(pid: u32, file: SeenAs) -> Option<usize> {
    descriptors(pid, file, |table| table.writable)
}

/// Has process `pid` a file open, for whatever? Not where its table cannot be read.
#[must_use]
pub fn holds(pid: u32, file: SeenAs) -> bool {
    descriptors(pid, file, |table| table.of_file).is_some_and(|held| held > 0)
}

fn descriptors(pid: u32, file: SeenAs, counted: impl Fn(&Table) -> usize) -> Option<usize> {
    let table = count_in_table(&format!("/proc/{pid}/fdinfo"), file)?;
    if table.open > 0 {
        return Some(counted(&table));
    }
    // A first thread that has ended has no table any more, the threads that go on have theirs.
    let others = numbers(&format!("/proc/{pid}/task"))?.into_iter().filter(|tid| *tid != pid);
    let tables = others.filter_map(|tid| count_in_table(&format!("/proc/{pid}/task/{tid}/fdinfo"), file));
    Some(tables.map(|table| counted(&table)).max().unwrap_or(0))
}

/// Is a process whose table could not be read still there? A dying one has none left, and is not hidden.
#[must_use]
pub fn is_hidden(pid: u32) -> bool {
    tgid(pid).is_some() && !is_dying(pid)
}

/// What a descriptor table holds.
#[derive(Debug, Default)]
struct Table {
    open: usize,
    /// Those of the file that is looked for, and of these the ones that can write.
    of_file: usize,
    writable: usize,
}

fn count_in_table(path: &str, file: SeenAs) -> Option<Table> {
    let dir = open_dir(path)?;
    let mut table = Table::default();
    let mut names = [MaybeUninit::<u8>::uninit(); 4096];
    let mut entries = RawDir::new(&dir, &mut names);
    // A descriptor closed while we look is one that is not held.
    let mut info = [0u8; 512];
    while let Some(entry) = entries.next() {
        let entry = entry.ok()?;
        if entry.file_name().to_bytes().starts_with(b".") {
            continue;
        }
        table.open += 1;
        let Ok(descriptor) =
            rustix::fs::openat(&dir, entry.file_name(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        else {
            continue;
        };
        let Ok(len) = rustix::io::read(&descriptor, &mut info) else { continue };
        if let Some(writable) = info.get(..len).and_then(|text| is_writable(text, file)) {
            table.of_file += 1;
            table.writable += usize::from(writable);
        }
    }
    Some(table)
}

/// Does this text of a descriptor's `fdinfo` (`flags:` in octal, `ino:` in decimal, first among its lines) show the
/// file open for writing? `None` when it is another file's.
fn is_writable(info: &[u8], file: SeenAs) -> Option<bool> {
    let (mut writable, mut same) = (false, false);
    for line in info.split(|byte| *byte == b'\n') {
        if let Some(flags) = line.strip_prefix(b"flags:") {
            // The two lowest bits are the access mode: 1 for writing only, 2 for both ways.
            writable = flags.last().is_some_and(|digit| matches!(digit & 3, 1 | 2));
        } else if let Some(number) = line.strip_prefix(b"ino:") {
            same = std::str::from_utf8(number).is_ok_and(|number| number.trim().parse().is_ok_and(|ino| file.is(ino)));
        }
    }
    same.then_some(writable)
}

/// The children of a process, their children and so on, itself not included, in no special order. At most
/// [`DESCENDANTS_MAX`]; a child that is handed to another parent while we look may be missing.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut known = HashSet::from([pid]);
    let mut todo = vec![pid];
    while let Some(parent) = todo.pop() {
        for child in children(parent) {
            if found.len() == DESCENDANTS_MAX {
                return found;
            }
            if known.insert(child) {
                found.push(child);
                todo.push(child);
            }
        }
    }
    found
}

/// Each thread has the children it forked itself.
fn children(pid: u32) -> Vec<u32> {
    let threads = numbers(&format!("/proc/{pid}/task")).unwrap_or_default();
    threads.iter().flat_map(|&tid| children_of(pid, tid)).collect()
}

fn children_of(pid: u32, tid: u32) -> Vec<u32> {
    let list = proc::children(pid, tid).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// The names in a directory that are numbers.
fn numbers(path: &str) -> Option<Vec<u32>> {
    let names = proc::is_ours().then(|| std::fs::read_dir(path).ok())??;
    Some(names.filter_map(|name| name.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn open_dir(path: &str) -> Option<OwnedFd> {
    if !proc::is_ours() {
        return None;
    }
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Is this thread on its way out: memory and descriptor table already gone? Ask with the thread id of the request,
/// for a process whose first thread ended before the others is not dying.
#[must_use]
pub fn is_dying(tid: u32) -> bool {
    has_no_memory(tid) && proc::status(tid).and_then(|status| proc::status_number(&status, "FDSize")) == Some(0)
}

fn has_no_memory(tid: u32) -> bool {
    proc::statm(tid).is_some_and(|sizes| sizes.split_ascii_whitespace().all(|size| size == "0"))
}

/// Has this process lost its descriptors, while the files behind them may not all be closed yet? Between the two its
/// FLUSH may be still to come; once it is a zombie, all of them have been answered.
#[must_use]
pub fn is_ending(pid: u32) -> bool {
    let threads = numbers(&format!("/proc/{pid}/task")).unwrap_or_default();
    let mut ending = false;
    for tid in threads {
        // A thread that is gone has closed what it had to.
        let Some(status) = proc::status(tid) else { continue };
        match proc::status_word(&status, "State") {
            Some("Z" | "X") => {}
            _ if is_dying(tid) => ending = true,
            _ => return false,
        }
    }
    ending
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// Of its own will, with this status.
    Exit(u32),
    /// By this signal.
    Signal(u32),
}

impl Death {
    /// From what `wait` would give.
    fn of(code: u32) -> Self {
        match code & 0x7f {
            0 => Self::Exit(code >> 8),
            signal => Self::Signal(signal),
        }
    }
}

/// How a dying thread's process ends, as far as the kernel lets us see (a stranger's end reads as `Exit(0)`);
/// `None` when it is not dying.
#[must_use]
pub fn death(tid: u32) -> Option<Death> {
    if !is_dying(tid) {
        return None;
    }
    // Safe here alone: what is on its way out is past every exec.
    let code = proc::stat(tid)?.exit_code;
    Some(Death::of(code))
}

#[cfg(test)]
mod tests;
