//! Single files of `/proc`, each with the moments in which reading it is safe. Knows neither claims nor writers.
//!
//! A task in exec holds a lock that some of these files wait for, and while it holds it, it may itself wait for our
//! answer to the FLUSH of a close-on-exec descriptor. So there are two kinds:
//!
//! - *any moment*: `status`, `statm`, `comm`, `fdinfo`, `task` - also inside a FLUSH or RELEASE.
//! - *bounded*: `stat`, `environ`, `exe`, the opening of `pagemap` - never inside a FLUSH or RELEASE, and elsewhere only
//!   on a thread that may stay behind ([`super::bounded`]): an ancestor, or a caller with several threads, can be in exec
//!   at any time.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::sync::OnceLock;

/// More than the kernel lets arguments and environment have together.
const ENVIRON_MAX_BYTES: u64 = 8 << 20;
/// `status` has about 1.5 KiB, one list in it can be long on machines with many cores.
const FILE_MAX_BYTES: u64 = 64 << 10;
/// Most of these files are shorter.
const GUESS_BYTES: usize = 4096;
/// Set from a fork until the child's exec (`PF_FORKNOEXEC` in the kernel's `sched.h`).
const FORKED_WITHOUT_EXEC: u64 = 0x40;

/// Does `/proc` tell of the processes in our own pid namespace? One of another namespace shows other processes under the
/// ids we are given, so nothing of it is read.
pub(super) fn is_ours() -> bool {
    static OURS: OnceLock<bool> = OnceLock::new();
    *OURS.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status");
        status.is_ok_and(|status| is_of_namespace(&status, std::process::id()))
    })
}

/// Was this text of our own `status` written for our own namespace? `NSpid` has an id for each namespace from that of
/// `/proc` down to ours.
fn is_of_namespace(status: &str, own: u32) -> bool {
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    match ids.map(|ids| ids.split_ascii_whitespace().collect::<Vec<_>>()).as_deref() {
        Some([id]) => id.parse() == Ok(own),
        Some(_) => false,
        None => status_number(status, "Tgid") == Some(own),
    }
}

/// The whole of `/proc/<pid>/<file>`, at most `limit_bytes`; `None` when it is gone or hidden.
fn read(pid: u32, file: &str, limit_bytes: u64) -> Option<Vec<u8>> {
    if !is_ours() {
        return None;
    }
    let mut file = File::open(format!("/proc/{pid}/{file}")).ok()?;
    // Each of these files is one record, so a read that leaves room has come to its end.
    let mut bytes = vec![0; GUESS_BYTES];
    let len = file.read(&mut bytes).ok()?;
    bytes.truncate(len);
    if len == GUESS_BYTES {
        file.take(limit_bytes.saturating_sub(len as u64)).read_to_end(&mut bytes).ok()?;
    }
    Some(bytes)
}

fn text(pid: u32, file: &str) -> Option<String> {
    read(pid, file, FILE_MAX_BYTES).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Any moment. The text of `status`.
pub(super) fn status(tid: u32) -> Option<String> {
    text(tid, "status")
}

/// The first word behind `name:` in the text of `status`.
pub(super) fn status_word<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()
}

/// The number behind `name:` in the text of `status`.
pub(super) fn status_number(status: &str, name: &str) -> Option<u32> {
    status_word(status, name)?.parse().ok()
}

/// Any moment. The ids of the children that a thread has forked itself, with blanks between. A long list is given in parts.
pub(super) fn children(pid: u32, tid: u32) -> Option<String> {
    let mut file = is_ours().then(|| File::open(format!("/proc/{pid}/task/{tid}/children")).ok())??;
    let mut bytes = vec![0; GUESS_BYTES];
    let len = file.read(&mut bytes).ok()?;
    bytes.truncate(len);
    if len > 0 {
        file.read_to_end(&mut bytes).ok()?;
    }
    String::from_utf8(bytes).ok()
}

/// Any moment. The text of `statm`: sizes in pages, all 0 once the memory is gone.
pub(super) fn statm(tid: u32) -> Option<String> {
    text(tid, "statm")
}

/// Any moment. The command name, without its line end.
pub(super) fn comm(tid: u32) -> Option<String> {
    text(tid, "comm").map(|name| name.trim_end_matches('\n').to_owned())
}

/// Any moment. The arguments, each ended by a NUL.
pub(super) fn cmdline(tid: u32) -> Option<Vec<u8>> {
    read(tid, "cmdline", ENVIRON_MAX_BYTES)
}

/// Bounded. The bytes of `environ`: what the running program was given, each `NAME=value` ended by a NUL.
pub(super) fn environ(tid: u32) -> Option<Vec<u8>> {
    read(tid, "environ", ENVIRON_MAX_BYTES)
}

/// Bounded. The path of the executable; with ` (deleted)` behind it when it is gone.
pub(super) fn exe(tid: u32) -> Option<String> {
    let path = is_ours().then(|| std::fs::read_link(format!("/proc/{tid}/exe")).ok())??;
    Some(path.to_string_lossy().into_owned())
}

/// Bounded to open. What stands for the memory of the running program; the memory itself is not kept.
pub(super) fn pagemap(pid: u32) -> Option<File> {
    is_ours().then(|| File::open(format!("/proc/{pid}/pagemap")).ok())?
}

/// What we use of `stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    /// The parent's process id, 0 above the top.
    pub(super) parent: u32,
    /// Start time in clock ticks since boot.
    pub(super) start_ticks: u64,
    /// Has this task exec'd since it was forked? Threads never have: ask the process's first one.
    pub(super) execed: bool,
    /// A print of the addresses that an exec chooses anew for code, stack, arguments and environment.
    pub(super) image: u64,
    /// How it ended, as `wait` would give it; only a task on its way out has one.
    pub(super) exit_code: u32,
}

/// Bounded, but any moment for a task on its way out: it cannot be in exec any more.
pub(super) fn stat(tid: u32) -> Option<Stat> {
    parse_stat(&text(tid, "stat")?)
}

/// Reads a line of `stat`. The command name in it may hold blanks and parentheses, so fields count from its last `)`.
pub(super) fn parse_stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // proc(5) numbers the fields from 1 and the state, our first, is field 3.
    let field = |number: usize| fields.get(number - 3).copied();
    let mut image = DefaultHasher::new();
    for number in [26, 27, 28, 48, 49, 50, 51] {
        field(number).hash(&mut image);
    }
    Some(Stat {
        parent: field(4)?.parse().ok()?,
        execed: field(9)?.parse::<u64>().ok()? & FORKED_WITHOUT_EXEC == 0,
        start_ticks: field(22)?.parse().ok()?,
        image: image.finish(),
        exit_code: field(52).and_then(|code| code.parse().ok()).unwrap_or(0),
    })
}

/// A print of what exec gave a process: its environment and where that was put. `DefaultHasher::new` has fixed keys,
/// so prints can be compared; they mean nothing after this process.
pub(super) fn exec_print(image: u64, environ: &[u8]) -> u64 {
    let mut print = DefaultHasher::new();
    (image, environ).hash(&mut print);
    print.finish()
}

#[cfg(test)]
mod tests;
