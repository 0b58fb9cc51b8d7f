//! C1, C4, C9, C10, C11, C13: one process with one file open at a time does on the mount what it does on a plain
//! directory, but for the differences of [`ALLOWED`].

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::test_runner::TestError;

use super::agents::{Agent, Agents};
use super::steps::{self, Op, Step};
use super::world::{Answer, Key};
use super::{number, runner, shown};
use crate::harness::{self, Mount};

const STEPS_MAX: usize = 60;

/// Which of two answers may differ, and the sentence of SEMANTICS that says so.
type Allowed = (&'static str, fn(&Step, &Option<Open>, &Answer, &Answer) -> bool);

const ALLOWED: &[Allowed] = &[
    ("C13: stat and fstat show committed sizes, not the draft's", |step, open, mount, plain| {
        let of_draft = match step {
            Step::Stat { key, .. } => open.as_ref().is_some_and(|open| open.key == Some(*key)),
            Step::Fstat { .. } => true,
            _ => false,
        };
        let links = |answer: &Answer| answer.as_ref().ok().and_then(|text| Some(text.split_once(' ')?.1.to_owned()));
        of_draft && open.as_ref().is_some_and(|open| open.may_commit) && links(mount) == links(plain)
    }),
    ("C8: a name that no commit has made is not listed", |step, open, mount, plain| {
        let Some(Open { key: Some(key), may_commit: true, .. }) = open else { return false };
        let hidden = format!("k{key}");
        let names = |answer: &Answer| answer.clone().unwrap_or_default();
        let (mount, plain) = (names(mount), names(plain));
        matches!(step, Step::List { .. })
            && mount.split_whitespace().eq(plain.split_whitespace().filter(|&name| name != hidden))
    }),
    ("C7: what is appended has no offset before its commit", |step, open, _, _| {
        let appended = open.as_ref().is_some_and(|open| open.appended);
        appended && matches!(step, Step::Read { at: None, .. })
    }),
];

/// The open file.
#[derive(Debug, Clone)]
struct Open {
    /// On the mount and on the plain directory.
    descriptors: Vec<(i32, i32)>,
    /// The name it has now.
    key: Option<Key>,
    may_commit: bool,
    appends: bool,
    /// Since the last seek.
    appended: bool,
}

struct Pair {
    agents: [Agent; 2],
    tops: [PathBuf; 2],
    cases: usize,
    steps: usize,
    differences: Vec<usize>,
}

#[test]
fn one_process_with_one_file_open_meets_a_plain_directory() {
    let Some(mount) = Mount::in_memory(&[]) else { return };
    let mut agents = Agents::start(|words| mount.command(words), &mount.scratch().join("agents"));
    let plain = mount.scratch().join("plain");
    fs::create_dir(&plain).expect("mkdir");
    let pair = Pair {
        agents: [agents.spawn(), agents.spawn()],
        tops: [mount.point(), plain],
        cases: 0,
        steps: 0,
        differences: vec![0; ALLOWED.len()],
    };
    let pair = RefCell::new(pair);
    let cases = number("BATONFS_PLAIN_CASES").unwrap_or(if harness::long() { 20_000 } else { 300 });
    let strategy = prop::collection::vec(steps::op(), 1..STEPS_MAX);
    let judged = runner(cases, if harness::long() { u64::from(std::process::id()) } else { 1 }, 0)
        .run(&strategy, |ops| pair.borrow_mut().play(&ops).map_err(TestCaseError::fail));
    match judged {
        Ok(()) => {}
        Err(TestError::Fail(reason, case)) => panic!("{reason}from {case:?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let Pair { agents: ended, cases, steps, differences, .. } = pair.into_inner();
    ended.into_iter().for_each(|agent| agent.end(false));
    println!("{cases} cases, {steps} steps, allowed differences:");
    for ((sentence, _), count) in ALLOWED.iter().zip(differences) {
        println!("{count:>6}  {sentence}");
    }
}

impl Pair {
    fn play(&mut self, ops: &[Op]) -> Result<(), String> {
        self.cases += 1;
        let dirs = self.tops.clone().map(|top| top.join(format!("case-{}", self.cases)));
        dirs.iter().for_each(|dir| fs::create_dir(dir).expect("a directory"));
        let dirs = dirs.map(|dir| dir.to_string_lossy().into_owned());
        let (mut open, mut story) = (None, String::new());
        for (number, op) in ops.iter().enumerate() {
            let Some(step) = step_of(op, &open, number) else { continue };
            self.both(&step, &dirs, &mut open, &mut story)?;
        }
        let left = open.as_ref().map_or(0, |open: &Open| open.descriptors.len());
        for _ in 0..left {
            self.both(&Step::Close { process: 0, fd: 0 }, &dirs, &mut open, &mut story)?;
        }
        dirs.iter().for_each(|dir| fs::remove_dir_all(dir).expect("removing a case"));
        Ok(())
    }

    /// Makes a step on both sides; when nothing is open, all that is there is the same.
    fn both(
        &mut self,
        step: &Step,
        dirs: &[String; 2],
        open: &mut Option<Open>,
        story: &mut String,
    ) -> Result<(), String> {
        self.steps += 1;
        let before = open.clone();
        let line = |side: usize| with_descriptors(step, &before, side).line(&dirs[side]);
        let answers = [0, 1].map(|side| self.agents[side].ask(&line(side)));
        let [mount, plain] = &answers;
        story.push_str(&format!("{} = {}\n", step.line("s"), shown(mount)));
        let makes = matches!(step, Step::Open { .. } | Step::Dup { .. } | Step::Dup2 { .. });
        let same = if makes { mount.clone().map(drop) == plain.clone().map(drop) } else { mount == plain };
        if !same {
            let row = ALLOWED.iter().position(|(_, allows)| allows(step, &before, mount, plain));
            let row = row.ok_or_else(|| format!("{story}a plain directory says {}\n", shown(plain)))?;
            self.differences[row] += 1;
        }
        note(step, open, &answers);
        let there = |dir: &String| {
            let names = (0..steps::KEYS).map(|key| fs::read(format!("{dir}/k{key}")).ok());
            names.collect::<Vec<_>>()
        };
        if open.is_none() && there(&dirs[0]) != there(&dirs[1]) {
            return Err(format!("{story}then the values differ: {:?}\n{:?}\n", there(&dirs[0]), there(&dirs[1])));
        }
        Ok(())
    }
}

/// Descriptors in a step are indices; each side has its own numbers.
fn with_descriptors(step: &Step, open: &Option<Open>, side: usize) -> Step {
    let number = |index: i32| {
        let descriptors = open.as_ref().map(|open| open.descriptors.as_slice()).unwrap_or_default();
        let pair = descriptors.get(usize::try_from(index).unwrap_or(0)).copied().unwrap_or((-1, -1));
        if side == 0 { pair.0 } else { pair.1 }
    };
    let mut step = step.clone();
    match &mut step {
        Step::Read { fd, .. }
        | Step::Write { fd, .. }
        | Step::Cut { fd, .. }
        | Step::Seek { fd, .. }
        | Step::Fstat { fd, .. }
        | Step::Sync { fd, .. }
        | Step::Dup { fd, .. }
        | Step::Close { fd, .. } => *fd = number(*fd),
        Step::Dup2 { fd, onto, .. } => (*fd, *onto) = (number(*fd), number(*onto)),
        Step::Open { .. }
        | Step::Truncate { .. }
        | Step::Stat { .. }
        | Step::List { .. }
        | Step::Rename { .. }
        | Step::Unlink { .. } => {}
    }
    step
}

/// What an operation is for one process with at most one file open.
fn step_of(op: &Op, open: &Option<Open>, number: usize) -> Option<Step> {
    let process = 0;
    let fd = |index: usize| {
        let open = open.as_ref()?;
        i32::try_from(index % open.descriptors.len()).ok()
    };
    Some(match *op {
        Op::Open(_, key, flags) => open.is_none().then_some(Step::Open { process, key, flags })?,
        // C9: `truncate(path)` commits at once and leaves drafts alone, so not under the open file.
        Op::Truncate(_, key, size) => open.is_none().then_some(Step::Truncate { process, key, size })?,
        Op::Read(index, size, at) => Step::Read { process, fd: fd(index)?, size, at },
        Op::Write(index, size, at) => {
            Step::Write { process, fd: fd(index)?, data: vec![b'a' + (number % 26) as u8; size], at }
        }
        Op::Cut(index, size) => Step::Cut { process, fd: fd(index)?, size },
        Op::Seek(index, at) => Step::Seek { process, fd: fd(index)?, at },
        Op::Fstat(index) => Step::Fstat { process, fd: fd(index)? },
        Op::Stat(_, key) => Step::Stat { process, key },
        Op::List(_) => Step::List { process },
        Op::Rename(_, from, to, replace) => Step::Rename { process, from, to, replace },
        Op::Unlink(_, key) => Step::Unlink { process, key },
        Op::Sync(index) => Step::Sync { process, fd: fd(index)? },
        Op::Dup(index) => Step::Dup { process, fd: fd(index)? },
        Op::Dup2(index, other) => Step::Dup2 { process, fd: fd(index)?, onto: fd(other)? },
        Op::Close(index) => Step::Close { process, fd: fd(index)? },
        Op::Fork(_) | Op::Start | Op::Exit(_) | Op::Kill(_) => return None,
    })
}

/// What is open after a step.
fn note(step: &Step, open: &mut Option<Open>, answers: &[Answer; 2]) {
    let [Ok(mount), Ok(plain)] = answers else { return };
    let given = || (mount.parse().expect("a descriptor"), plain.parse().expect("a descriptor"));
    match (step, open.as_mut()) {
        (Step::Open { key, flags, .. }, _) => {
            *open = Some(Open {
                descriptors: vec![given()],
                key: Some(*key),
                may_commit: flags.writes || flags.create,
                appends: flags.append,
                appended: false,
            });
        }
        (Step::Dup { .. }, Some(file)) => file.descriptors.push(given()),
        (Step::Close { fd, .. }, Some(file)) => {
            file.descriptors.remove(usize::try_from(*fd).expect("an index"));
            if file.descriptors.is_empty() {
                *open = None;
            }
        }
        (Step::Write { at: None, .. }, Some(file)) => file.appended |= file.appends,
        (Step::Seek { .. }, Some(file)) => file.appended = false,
        (Step::Unlink { key, .. }, Some(file)) if file.key == Some(*key) => file.key = None,
        (Step::Rename { from, to, .. }, Some(file)) if from != to => {
            if file.key == Some(*from) {
                file.key = Some(*to);
            } else if file.key == Some(*to) {
                file.key = None;
            }
        }
        _ => {}
    }
}
