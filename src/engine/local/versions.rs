//! The last version of each key of a session, also of those that are gone: what the log says, by way of the table that a
//! checkpoint keeps of it. Knows lines and the table; must not know values.

use std::collections::BTreeMap;

use super::super::{EngineError, Result};
use super::disk::Disk;
use super::log::Log;
use super::paths;
use super::table::Table;
use crate::words::{LogLine, Op, SessionId, Version};

/// The last version of each key, as the lines that were noted tell it.
#[derive(Debug, Default)]
pub(super) struct Versions(BTreeMap<String, Version>);

impl Versions {
    /// Takes the next line in.
    fn note(&mut self, line: &LogLine) {
        match (line.op, &line.to, line.version) {
            (Op::Rename, Some(to), None) => self.move_dir(&line.key, to),
            (_, to, Some(version)) => self.raise(to.as_ref().unwrap_or(&line.key), version),
            _ => {}
        }
    }

    /// The last version a key had; 0 when none is known.
    fn get(&self, key: &str) -> Version {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// The keys that are or were below a directory.
    pub(super) fn below<'a>(&'a self, dir: &'a str) -> impl Iterator<Item = (&'a str, Version)> + 'a {
        let prefix = format!("{dir}/");
        self.0
            .range(prefix.clone()..)
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .map(|(key, version)| (key.as_str(), *version))
    }

    fn iter(&self) -> impl Iterator<Item = (&str, Version)> {
        self.0.iter().map(|(key, version)| (key.as_str(), *version))
    }

    fn raise(&mut self, key: &str, version: Version) {
        let last = self.0.entry(key.to_owned()).or_default();
        *last = version.max(*last);
    }

    /// The old names keep their numbers too: none is ever given twice.
    fn move_dir(&mut self, from: &str, to: &str) {
        let moved: Vec<_> = self.below(from).map(|(key, version)| (key.to_owned(), version)).collect();
        for (key, version) in moved {
            if let Some(rest) = key.strip_prefix(from) {
                self.raise(&format!("{to}{rest}"), version);
            }
        }
    }
}

/// Moves it all below another name?
fn renames_dir(line: &LogLine) -> bool {
    line.op == Op::Rename && line.version.is_none()
}

/// The last versions of a session's keys.
#[derive(Debug)]
pub(super) struct LastVersions {
    session: SessionId,
    /// The table, where there is one of this log. It knows hashes only, so a renamed directory needs all lines instead.
    table: Option<Table>,
    /// What the lines after the table say; all lines without one.
    since: Versions,
    unread: Option<Unread>,
    /// A line was noted since the last checkpoint.
    changed: bool,
    next: Option<Next>,
}

/// What is not in [`LastVersions::since`] yet.
#[derive(Debug, Clone, Copy)]
enum Unread {
    /// The lines up to this byte of the log; all after it were noted, and renamed no directory.
    Upto(u64),
    /// Every line.
    All,
}

/// What a checkpoint has written, to count once it is durable.
#[derive(Debug)]
enum Next {
    /// The table's buckets say everything up to the end of the log.
    Raised,
    /// So does this one, which is still a draft.
    Made(Table),
}

impl LastVersions {
    /// Opens the table of a log that is longer than `tail_bytes`; a shorter one is read.
    pub(super) fn open(disk: &dyn Disk, session: &SessionId, log: &Log, tail_bytes: u64) -> Self {
        let opened = if log.len() > tail_bytes { Table::open(disk, session) } else { Ok(None) };
        let table = opened.unwrap_or_else(|e| {
            tracing::warn!("the log is read instead of its table: {e}");
            None
        });
        let table = table.filter(|table| log.has(&table.upto()));
        let unread = Some(Unread::Upto(log.len()));
        Self { session: session.clone(), table, since: Versions::default(), unread, changed: false, next: None }
    }

    /// Takes the line of the next change in.
    pub(super) fn note(&mut self, line: &LogLine) {
        self.changed = true;
        match self.unread {
            Some(Unread::All) => {}
            // It moves what is not known here.
            _ if renames_dir(line) && (self.unread.is_some() || self.table.is_some()) => self.forget_table(),
            _ => self.since.note(line),
        }
    }

    /// The log has been cut.
    pub(super) fn rewound(&mut self, log: &Log) {
        self.table.take_if(|table| table.upto().at > log.len());
        (self.since, self.unread) = (Versions::default(), Some(Unread::Upto(log.len())));
    }

    fn forget_table(&mut self) {
        (self.table, self.since, self.unread) = (None, Versions::default(), Some(Unread::All));
    }

    /// The last version a key had; 0 when it had none. `log` and the lines that are `pending` are read where they were not.
    ///
    /// # Errors
    /// As [`super::lines::Lines::each`].
    pub(super) fn get<'a>(
        &mut self,
        key: &str,
        log: &Log,
        pending: impl Iterator<Item = &'a LogLine> + Clone,
    ) -> Result<Version> {
        // Numbers only grow: what was noted last is the last, whatever was not read yet.
        if let noted @ 1.. = self.since.get(key) {
            return Ok(noted);
        }
        self.read(log, pending.clone())?;
        match self.table.as_ref().map(|table| table.get(key)) {
            None => {}
            Some(Ok(version)) => return Ok(version.max(self.since.get(key))),
            Some(Err(e)) => {
                tracing::warn!("the log is read instead of its table: {e}");
                self.forget_table();
                self.read(log, pending)?;
            }
        }
        Ok(self.since.get(key))
    }

    /// The last versions of all keys.
    ///
    /// # Errors
    /// As [`super::lines::Lines::each`].
    pub(super) fn all<'a>(
        &mut self,
        log: &Log,
        pending: impl Iterator<Item = &'a LogLine> + Clone,
    ) -> Result<&Versions> {
        if self.table.is_some() {
            self.forget_table();
        }
        self.read(log, pending)?;
        Ok(&self.since)
    }

    fn read<'a>(&mut self, log: &Log, pending: impl Iterator<Item = &'a LogLine> + Clone) -> Result<()> {
        let Some(unread) = self.unread else { return Ok(()) };
        let from = self.table.as_ref().map_or(0, |table| table.upto().at);
        let (mut versions, mut renamed) = (Versions::default(), false);
        let mut note = |line: &LogLine| {
            renamed |= renames_dir(line);
            versions.note(line);
        };
        match unread {
            Unread::Upto(end) => {
                log.lines().each_between(from, end, |line| note(&line))?;
                self.since.iter().for_each(|(key, version)| versions.raise(key, version));
            }
            Unread::All => {
                log.lines().each_between(from, log.len(), |line| note(&line))?;
                pending.clone().for_each(note);
            }
        }
        if renamed && self.table.is_some() {
            self.forget_table();
            return self.read(log, pending);
        }
        (self.since, self.unread) = (versions, None);
        Ok(())
    }

    /// Will the next checkpoint have something to write?
    pub(super) fn is_waiting(&self, log: &Log, tail_bytes: u64) -> bool {
        self.changed && self.is_behind(log, tail_bytes)
    }

    /// Are there more than so many bytes of the log after the table?
    fn is_behind(&self, log: &Log, tail_bytes: u64) -> bool {
        log.len().saturating_sub(self.table.as_ref().map_or(0, |table| table.upto().at)) > tail_bytes
    }

    /// Writes what the table lacks, if that is more than `tail_bytes` of the log; [`LastVersions::saved`] makes it count.
    /// All lines are in the log.
    ///
    /// # Errors
    /// [`EngineError::Io`], [`EngineError::NoSpace`], [`EngineError::Damaged`]: the log is read until the next checkpoint
    /// tries again.
    pub(super) fn save(&mut self, disk: &dyn Disk, log: &Log, tail_bytes: u64) -> Result<()> {
        if let Some(Next::Made(left)) = self.next.take() {
            left.remove(disk)?;
        }
        if !self.is_behind(log, tail_bytes) {
            return Ok(());
        }
        self.read(log, std::iter::empty())?;
        let next = match self.write(disk, log) {
            Err(EngineError::Damaged { place, what }) if self.table.is_some() => {
                tracing::warn!("{place} is made anew: {what}");
                self.forget_table();
                self.read(log, std::iter::empty())?;
                self.write(disk, log)
            }
            other => other,
        };
        self.next = Some(next?);
        Ok(())
    }

    fn write(&self, disk: &dyn Disk, log: &Log) -> Result<Next> {
        let draft = || paths::draft(&format!("{}.versions", uuid::Uuid::now_v7()));
        let mut made = match &self.table {
            Some(table) if table.raise(self.since.iter())? => return Ok(Next::Raised),
            Some(table) => table.doubled(disk, &draft())?,
            None => Table::make(disk, &draft(), self.since.0.len())?,
        };
        let filled = loop {
            match made.raise(self.since.iter()) {
                Ok(true) => break log.end().and_then(|upto| made.say(upto)),
                Ok(false) => match made.doubled(disk, &draft()) {
                    Ok(larger) => std::mem::replace(&mut made, larger).remove(disk)?,
                    Err(e) => break Err(e),
                },
                Err(e) => break Err(e),
            }
        };
        match filled {
            Ok(()) => Ok(Next::Made(made)),
            Err(e) => made.remove(disk).and(Err(e)),
        }
    }

    /// What [`LastVersions::save`] wrote is durable, and counts.
    pub(super) fn saved(&mut self, disk: &dyn Disk, log: &Log) {
        self.changed = false;
        let counts = match (self.next.take(), &mut self.table) {
            (Some(Next::Raised), Some(table)) => log.end().and_then(|upto| table.say(upto)),
            (Some(Next::Made(made)), table) => made.put(disk, &self.session).map(|made| *table = Some(made)),
            _ => return,
        };
        match counts {
            Ok(()) => (self.since, self.unread) = (Versions::default(), None),
            Err(e) => tracing::warn!("the table of versions stays behind its log: {e}"),
        }
    }
}
