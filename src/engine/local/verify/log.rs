//! The log of one session, line by line: F5, F7, and what it says of each key. Knows lines; must not know values.

use std::collections::HashSet;

use super::facts::Facts;
use super::mend::Mend;
use super::{Fault, Scan};
use crate::engine::local::disk::{Access, DiskFile};
use crate::engine::local::log::{noted_end, said};
use crate::engine::local::{paths, tree};
use crate::engine::{EngineError, Result};
use crate::words::{LogLine, Policy, Seq, SessionId};

/// How much is read at a time.
const CHUNK_BYTES: usize = 1 << 16;
/// A longer line is none: it is not read into memory.
const LINE_MAX_BYTES: usize = 16 << 20;
/// No line has fewer bytes, so a log's size bounds their number.
const LINE_MIN_BYTES: u64 = 100;
/// How many operations are remembered at once; a longer log is read again for the others.
const OPERATIONS_MAX: u64 = 1 << 20;
/// A longer policy is none.
const POLICY_MAX_BYTES: u64 = 1 << 10;

/// What is wrong with a log, the first of each kind.
#[derive(Default)]
struct Wrong {
    /// A line that is none: its number, and where it begins. Lines that are come after it, or else it is the torn end.
    unread: Option<(u64, u64)>,
    damaged: Option<u64>,
    gap: Option<(Seq, Seq)>,
    /// Where it ends, and where it ended when a checkpoint made it durable.
    short: Option<(Seq, Seq)>,
    version: Option<String>,
    operation: Option<String>,
}

impl Scan<'_, '_> {
    /// Reads a session's log to its end.
    pub(super) fn read_log(&mut self, session: &SessionId) -> Result<Facts> {
        let place = paths::log(session);
        let mut facts = Facts::new();
        let Some((file, len, noted)) = self.open_log(session, &place) else { return Ok(facts) };
        let mut wrong = Wrong::default();
        let mut operations = Operations::of(len);
        let mut lines = Lines::new(&*file, len);
        let mut number = 0;
        let read = loop {
            self.step()?;
            let line = match lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => break Ok(()),
                Err(e) => break Err(EngineError::io(format!("reading {place}"), e)),
            };
            number += 1;
            match line.parsed() {
                None => wrong.unread = wrong.unread.or(Some((number, line.at))),
                Some(said) => {
                    operations.note(&said);
                    Self::take_line(&said, &mut facts, &mut wrong);
                }
            }
        };
        // The next opening writes again what the journal has.
        let lost = noted.filter(|noted| *noted > facts.last() && !self.way.has_lines_from(session, *noted));
        wrong.short = lost.map(|noted| (facts.last(), noted));
        facts.whole = wrong.damaged.is_none() && wrong.gap.is_none() && wrong.short.is_none() && read.is_ok();
        if let (Some(live), false) = (self.live, facts.whole)
            && live.known(session).is_none()
            && live.session(session).is_ok()
        {
            // Its torn end may have been cut, and gone on from, while it was read: whoever has it in memory has cut it.
            return self.read_log(session);
        }
        self.or_unreadable(&place, read)?;
        self.check_operations(&*file, len, &mut operations)?;
        wrong.operation = operations.twice;
        self.tell_wrong(&place, wrong);
        Ok(facts)
    }

    fn take_line(said: &LogLine, facts: &mut Facts, wrong: &mut Wrong) {
        if let Some((number, _)) = wrong.unread.take() {
            wrong.damaged.get_or_insert(number);
        }
        let due = facts.last() + 1;
        if said.seq != due {
            wrong.gap = wrong.gap.or(Some((due, said.seq)));
        }
        if let Some(before) = facts.note(said) {
            let (version, key) = (said.version.unwrap_or(0), said.to.as_ref().unwrap_or(&said.key));
            let words = || format!("change {} makes version {version} of '{key}', which had {before}", said.seq);
            wrong.version.get_or_insert_with(words);
        }
    }

    fn tell_wrong(&mut self, place: &str, wrong: Wrong) {
        if let Some(number) = wrong.damaged {
            let what = format!("line {number} is not a line of a log, and lines that are come after it");
            let remedy = "what it said is lost; the values are whole, and are not compared with this log";
            self.found(Fault::damage("F5", place, what, remedy));
        }
        if let Some((due, found)) = wrong.gap.filter(|_| wrong.damaged.is_none()) {
            let what = format!("change {due} is missing: {found} comes in its place");
            let remedy = "what it said is lost; the values are whole, and are not compared with this log";
            self.found(Fault::damage("F5", place, what, remedy));
        }
        if let Some((last, noted)) = wrong.short {
            let what = format!("it ends with change {last}, and went on to change {noted}");
            let remedy = "what it said is lost, the values are whole; '--repair' lets the session go on from there";
            let fault = Fault::damage("F43", place, what, remedy);
            self.found(fault.mended_by(Mend::ForgetEnd(place.to_owned())));
        }
        if let Some(what) = wrong.version {
            let remedy = "the value is whole; of two versions with one number history has one";
            self.found(Fault::note("F7", place, what, remedy));
        }
        if let Some(what) = wrong.operation {
            let remedy = "it was made twice; delete the later version if it is not meant";
            self.found(Fault::damage("operation", place, what, remedy));
        }
        // An open engine has cut what a crash left, or is writing just there.
        if let (Some((_, at)), None) = (wrong.unread, self.live) {
            let remedy = "the next opening of the store cuts it";
            let fault = Fault::leftover("F5", place, format!("a torn line is its end, from byte {at} on"), remedy);
            self.found(fault.mended_by(Mend::Cut { place: place.to_owned(), len: at }));
        }
    }

    /// The operations that the first reading had no room for.
    fn check_operations(&mut self, file: &dyn DiskFile, len: u64, operations: &mut Operations) -> Result<()> {
        while operations.next_round() {
            let mut lines = Lines::new(file, len);
            // What cannot be read is found by then.
            while let Ok(Some(line)) = lines.next() {
                self.step()?;
                line.parsed().iter().for_each(|said| operations.note(said));
            }
        }
        Ok(())
    }

    /// A log, how much of it has been written, and where it ended once: lines are written whole under the session's lock.
    fn open_log(&mut self, session: &SessionId, place: &str) -> Option<(Box<dyn DiskFile>, u64, Option<Seq>)> {
        let known = self.live.and_then(|live| live.known(session));
        let _order = known.as_ref().map(|known| known.order());
        let opened = self.disk.open(place, Access::Read);
        match opened.and_then(|file| Ok((file.stat()?.size_bytes, noted_end(&*file)?, file))) {
            Ok((len, noted, file)) => Some((file, len, noted)),
            Err(e) if tree::is_missing(&e) => None,
            Err(e) => {
                self.found(Fault::unreadable(place, &e));
                None
            }
        }
    }

    /// The session's policy is one of its words, and nothing else is beside the log.
    pub(super) fn check_policy(&mut self, session: &SessionId) {
        let place = paths::policy(session);
        match self.disk.open(&place, Access::Read).and_then(|file| Ok((file.stat()?.size_bytes, file))) {
            Ok((size, file)) => {
                let mut text = vec![0; usize::try_from(size.min(POLICY_MAX_BYTES)).unwrap_or(0)];
                let got = file.read_at(0, &mut text).unwrap_or(0);
                let text = String::from_utf8_lossy(text.get(..got).unwrap_or_default()).into_owned();
                if size > POLICY_MAX_BYTES || text.trim().is_empty() || Policy::parse(&text).is_err() {
                    let words = text.trim().chars().take(40).collect::<String>();
                    let remedy = format!("'batonfs policy STORE {session} POLICY' sets it");
                    // Not beside an open engine: somebody may be setting another one.
                    let known = self.way.policy(session).filter(|_| self.live.is_none());
                    let what = format!("'{}' is no policy", words.escape_default());
                    let fault = Fault::damage("policy", &place, what, &remedy);
                    self.found(match known {
                        Some(policy) => fault.mended_by(Mend::Policy { place: place.clone(), policy }),
                        None => fault,
                    });
                }
            }
            Err(e) if tree::is_missing(&e) => {}
            Err(e) => self.found(Fault::unreadable(&place, &e)),
        }
        let dir = paths::session(session);
        for (name, _) in self.names(&dir) {
            let name = super::shown(&name);
            if !["log", "policy", "versions"].contains(&name.as_str()) {
                self.unknown(&format!("{dir}/{name}"));
            }
        }
    }
}

/// Which operations were met: a part of them at a time, so that a log of any length needs the same memory.
struct Operations {
    rounds: u64,
    round: u64,
    seen: HashSet<u128>,
    twice: Option<String>,
}

impl Operations {
    fn of(len: u64) -> Self {
        let rounds = (len / LINE_MIN_BYTES).div_ceil(OPERATIONS_MAX).max(1);
        Self { rounds, round: 0, seen: HashSet::new(), twice: None }
    }

    fn note(&mut self, line: &LogLine) {
        let Ok(id) = uuid::Uuid::parse_str(&line.operation).map(|id| id.as_u128()) else { return };
        if id % u128::from(self.rounds) == u128::from(self.round) && !self.seen.insert(id) {
            let words = || format!("change {} is the operation {} once more", line.seq, line.operation);
            self.twice.get_or_insert_with(words);
        }
    }

    fn next_round(&mut self) -> bool {
        self.seen.clear();
        self.round += 1;
        self.round < self.rounds && self.twice.is_none()
    }
}

/// A line as it was found.
struct Line<'a> {
    /// Where it begins.
    at: u64,
    /// `None`: it has no end, or is too long to be one.
    text: Option<&'a [u8]>,
}

impl Line<'_> {
    fn parsed(&self) -> Option<LogLine> {
        said(self.text?)
    }
}

/// The lines of a file, one at a time.
struct Lines<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    /// Up to here the file was read.
    read: u64,
    /// What was read and not yet given.
    rest: Vec<u8>,
    /// How much of it was given.
    given: usize,
}

impl<'a> Lines<'a> {
    fn new(file: &'a dyn DiskFile, len: u64) -> Self {
        Self { file, len, read: 0, rest: Vec::new(), given: 0 }
    }

    fn next(&mut self) -> std::io::Result<Option<Line<'_>>> {
        let at = self.read - (self.rest.len() - self.given) as u64;
        let (mut searched, mut dropped) = (self.given, false);
        loop {
            let new = self.rest.get(searched..).unwrap_or_default();
            if let Some(end) = new.iter().position(|b| *b == b'\n').map(|end| searched + end) {
                let start = std::mem::replace(&mut self.given, end + 1);
                let text = self.rest.get(start..end).filter(|_| !dropped);
                return Ok(Some(Line { at, text }));
            }
            self.rest.drain(..self.given);
            self.given = 0;
            if self.rest.len() > LINE_MAX_BYTES {
                self.rest.clear();
                dropped = true;
            }
            searched = self.rest.len();
            if !self.fill()? {
                self.given = self.rest.len();
                let none = self.given == 0 && !dropped;
                return Ok((!none).then_some(Line { at, text: None }));
            }
        }
    }

    fn fill(&mut self) -> std::io::Result<bool> {
        let want = CHUNK_BYTES.min(usize::try_from(self.len - self.read).unwrap_or(CHUNK_BYTES));
        let from = self.rest.len();
        self.rest.resize(from + want, 0);
        let got = self.file.read_at(self.read, self.rest.get_mut(from..).unwrap_or_default())?;
        self.rest.truncate(from + got);
        self.read += got as u64;
        Ok(got > 0)
    }
}
