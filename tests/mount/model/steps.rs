//! What the processes of a case may do. An [`Op`] names what it works on by an index into what is there, so that a case
//! stays one when it is shrunk; a [`Step`] is the system call that it becomes.

use std::fmt;

use proptest::prelude::*;

use super::world::{Key, Proc, Sees, World};

/// How many names a case has, and how many processes live at one time.
pub(super) const KEYS: usize = 3;
pub(super) const PROCESSES_MAX: usize = 4;
pub(super) const DESCRIPTORS_MAX: usize = 8;

/// The flags of an open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) reads: bool,
    pub(super) writes: bool,
    pub(super) create: bool,
    pub(super) exclusive: bool,
    pub(super) truncate: bool,
    pub(super) append: bool,
}

impl Flags {
    pub(super) fn bits(self) -> i32 {
        let access = match (self.reads, self.writes) {
            (true, true) => libc::O_RDWR,
            (false, true) => libc::O_WRONLY,
            _ => libc::O_RDONLY,
        };
        let bit = |set: bool, bit: i32| if set { bit } else { 0 };
        access
            | bit(self.create, libc::O_CREAT)
            | bit(self.exclusive, libc::O_EXCL)
            | bit(self.truncate, libc::O_TRUNC)
            | bit(self.append, libc::O_APPEND)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match (self.reads, self.writes) {
            (true, true) => "RDWR",
            (false, true) => "WRONLY",
            _ => "RDONLY",
        };
        let more =
            [(self.create, "CREAT"), (self.exclusive, "EXCL"), (self.truncate, "TRUNC"), (self.append, "APPEND")];
        out.write_str(access)?;
        more.iter().filter(|(set, _)| *set).try_for_each(|(_, name)| write!(out, "|{name}"))
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// One operation of a case: the numbers are indices, taken modulo what there is.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Open(usize, Key, Flags),
    Read(usize, usize, Option<usize>),
    Write(usize, usize, Option<usize>),
    Cut(usize, usize),
    Truncate(usize, Key, usize),
    Seek(usize, Option<usize>),
    Fstat(usize),
    Stat(usize, Key),
    List(usize),
    Rename(usize, Key, Key, bool),
    Unlink(usize, Key),
    Sync(usize),
    Dup(usize),
    Dup2(usize, usize),
    Close(usize),
    Fork(usize),
    Start,
    Exit(usize),
    Kill(usize),
}

/// One step of one process.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Open { process: Proc, key: Key, flags: Flags },
    Read { process: Proc, fd: i32, size: usize, at: Option<usize> },
    Write { process: Proc, fd: i32, data: Vec<u8>, at: Option<usize> },
    Cut { process: Proc, fd: i32, size: usize },
    Truncate { process: Proc, key: Key, size: usize },
    Seek { process: Proc, fd: i32, at: Option<usize> },
    Fstat { process: Proc, fd: i32 },
    Stat { process: Proc, key: Key },
    List { process: Proc },
    Rename { process: Proc, from: Key, to: Key, replace: bool },
    Unlink { process: Proc, key: Key },
    Sync { process: Proc, fd: i32 },
    Dup { process: Proc, fd: i32 },
    Dup2 { process: Proc, fd: i32, onto: i32 },
    Close { process: Proc, fd: i32 },
}

impl Step {
    pub(super) fn process(&self) -> Proc {
        match *self {
            Self::Open { process, .. }
            | Self::Read { process, .. }
            | Self::Write { process, .. }
            | Self::Cut { process, .. }
            | Self::Truncate { process, .. }
            | Self::Seek { process, .. }
            | Self::Fstat { process, .. }
            | Self::Stat { process, .. }
            | Self::List { process }
            | Self::Rename { process, .. }
            | Self::Unlink { process, .. }
            | Self::Sync { process, .. }
            | Self::Dup { process, .. }
            | Self::Dup2 { process, .. }
            | Self::Close { process, .. } => process,
        }
    }

    /// The line that an agent takes; keys are files in `dir`.
    pub(super) fn line(&self, dir: &str) -> String {
        match self {
            Self::Open { key, flags, .. } => format!("open {dir}/k{key} {}", flags.bits()),
            Self::Read { fd, size, at: Some(at), .. } => format!("pread {fd} {size} {at}"),
            Self::Read { fd, size, at: None, .. } => format!("read {fd} {size}"),
            Self::Write { fd, data, at: Some(at), .. } => format!("pwrite {fd} {} {at}", hex(data)),
            Self::Write { fd, data, at: None, .. } => format!("write {fd} {}", hex(data)),
            Self::Cut { fd, size, .. } => format!("ftruncate {fd} {size}"),
            Self::Truncate { key, size, .. } => format!("truncate {dir}/k{key} {size}"),
            Self::Seek { fd, at: Some(at), .. } => format!("seek {fd} {at} {}", libc::SEEK_SET),
            Self::Seek { fd, at: None, .. } => format!("seek {fd} 0 {}", libc::SEEK_END),
            Self::Fstat { fd, .. } => format!("fstat {fd}"),
            Self::Stat { key, .. } => format!("stat {dir}/k{key}"),
            Self::List { .. } => format!("list {dir}"),
            Self::Rename { from, to, replace, .. } => {
                let flags = if *replace { 0 } else { libc::RENAME_NOREPLACE };
                format!("rename {dir}/k{from} {dir}/k{to} {flags}")
            }
            Self::Unlink { key, .. } => format!("unlink {dir}/k{key}"),
            Self::Sync { fd, .. } => format!("fsync {fd}"),
            Self::Dup { fd, .. } => format!("dup {fd}"),
            Self::Dup2 { fd, onto, .. } => format!("dup2 {fd} {onto}"),
            Self::Close { fd, .. } => format!("close {fd}"),
        }
    }
}

/// What an operation is now.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Step(Step),
    Start,
    Fork(Proc),
    End(Proc, bool),
}

/// What an operation becomes in the world as it is; `None` where there is nothing it could work on, or where no
/// sentence says what comes of it. `number` makes what is written different each time.
pub(super) fn resolve(op: &Op, world: &World, number: usize) -> Option<Act> {
    let alive = world.alive();
    let descriptors = world.descriptors();
    let process = |index: usize| (!alive.is_empty()).then(|| alive[index % alive.len()]);
    let descriptor = |index: usize| (!descriptors.is_empty()).then(|| descriptors[index % descriptors.len()]);
    let room = descriptors.len() < DESCRIPTORS_MAX;
    let clear = |process: Proc, key: Key| world.sees(process, key) != Sees::Open;
    let step = match *op {
        Op::Start => return (alive.len() < PROCESSES_MAX).then_some(Act::Start),
        Op::Fork(index) => return process(index).filter(|_| alive.len() < PROCESSES_MAX).map(Act::Fork),
        Op::Exit(index) => return process(index).map(|process| Act::End(process, false)),
        Op::Kill(index) => return process(index).map(|process| Act::End(process, true)),
        Op::Open(index, key, flags) => {
            let process = process(index).filter(|&process| room && clear(process, key))?;
            (!flags.truncate || flags.writes || world.may_cut(process, key)).then_some(())?;
            // A name whose draft was dropped is free a moment later, as its size is told.
            (!flags.exclusive || world.has_size(key)).then_some(())?;
            Step::Open { process, key, flags }
        }
        Op::Truncate(index, key, size) => {
            let process = process(index).filter(|&process| clear(process, key) && world.may_cut(process, key))?;
            Step::Truncate { process, key, size }
        }
        Op::Stat(index, key) => {
            let process = process(index).filter(|&process| clear(process, key) && world.has_size(key))?;
            Step::Stat { process, key }
        }
        Op::List(index) => Step::List { process: process(index)? },
        Op::Rename(index, from, to, replace) => {
            let process = process(index).filter(|&process| clear(process, from) && clear(process, to))?;
            Step::Rename { process, from, to, replace }
        }
        Op::Unlink(index, key) => Step::Unlink { process: process(index).filter(|&process| clear(process, key))?, key },
        Op::Read(index, size, at) => {
            let (process, fd) = descriptor(index).filter(|&(process, fd)| world.shows_bytes(process, fd))?;
            at.is_some().then_some(()).or_else(|| world.has_position(process, fd).then_some(()))?;
            Step::Read { process, fd, size, at }
        }
        Op::Write(index, size, at) => {
            let (process, fd) = descriptor(index)?;
            Step::Write { process, fd, data: vec![b'a' + (number % 26) as u8; size], at }
        }
        Op::Cut(index, size) => descriptor(index).map(|(process, fd)| Step::Cut { process, fd, size })?,
        Op::Seek(index, at) => {
            let (process, fd) =
                descriptor(index).filter(|&(process, fd)| at.is_some() || world.shows_size(process, fd))?;
            Step::Seek { process, fd, at }
        }
        Op::Fstat(index) => {
            let (process, fd) = descriptor(index).filter(|&(process, fd)| world.shows_size(process, fd))?;
            Step::Fstat { process, fd }
        }
        Op::Sync(index) => descriptor(index).map(|(process, fd)| Step::Sync { process, fd })?,
        Op::Dup(index) => descriptor(index).filter(|_| room).map(|(process, fd)| Step::Dup { process, fd })?,
        Op::Dup2(index, other) => {
            let (process, fd) = descriptor(index)?;
            let own = world.descriptors_of(process);
            Step::Dup2 { process, fd, onto: own[other % own.len()] }
        }
        Op::Close(index) => descriptor(index).map(|(process, fd)| Step::Close { process, fd })?,
    };
    Some(Act::Step(step))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Any operation; what is written is short, so that the ends of values are met often.
pub(super) fn op() -> impl Strategy<Value = Op> {
    // What is near the beginning is met more often, so that several steps meet one file.
    let index = || prop_oneof![0..3_usize, 0..60_usize];
    let key = || prop_oneof![0..1_usize, 0..KEYS];
    let size = || prop_oneof![9 => 0..8_usize, 1 => 4000..9000_usize];
    let length = || prop_oneof![9 => 1..8_usize, 1 => 4000..9000_usize];
    let at = || prop::option::of(0..9_usize);
    prop_oneof![
        12 => (index(), key(), flags()).prop_map(|(i, key, flags)| Op::Open(i, key, flags)),
        10 => (index(), prop_oneof![1..20_usize, Just(10_000)], at()).prop_map(|(i, size, at)| Op::Read(i, size, at)),
        12 => (index(), length(), at()).prop_map(|(i, size, at)| Op::Write(i, size, at)),
        3 => (index(), size()).prop_map(|(i, size)| Op::Cut(i, size)),
        1 => (index(), key(), size()).prop_map(|(i, key, size)| Op::Truncate(i, key, size)),
        3 => (index(), at()).prop_map(|(i, at)| Op::Seek(i, at)),
        2 => index().prop_map(Op::Fstat),
        3 => (index(), key()).prop_map(|(i, key)| Op::Stat(i, key)),
        1 => index().prop_map(Op::List),
        3 => (index(), key(), key(), any::<bool>()).prop_map(|(i, from, to, replace)| Op::Rename(i, from, to, replace)),
        2 => (index(), key()).prop_map(|(i, key)| Op::Unlink(i, key)),
        2 => index().prop_map(Op::Sync),
        3 => index().prop_map(Op::Dup),
        2 => (index(), index()).prop_map(|(i, other)| Op::Dup2(i, other)),
        9 => index().prop_map(Op::Close),
        3 => index().prop_map(Op::Fork),
        1 => Just(Op::Start),
        1 => index().prop_map(Op::Exit),
        1 => index().prop_map(Op::Kill),
    ]
}

fn flags() -> impl Strategy<Value = Flags> {
    let access = prop_oneof![2 => Just((true, false)), 2 => Just((false, true)), 3 => Just((true, true))];
    let rarely = || prop::bool::weighted(0.25);
    (access, prop::bool::weighted(0.6), rarely(), rarely(), prop::bool::weighted(0.35)).prop_map(
        |((reads, writes), create, exclusive, truncate, append)| Flags {
            reads,
            writes,
            create,
            // Without O_CREAT no system says what it means.
            exclusive: create && exclusive,
            truncate,
            append,
        },
    )
}
