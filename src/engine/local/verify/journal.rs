//! The journal without opening it: headers, records, the drafts they name, and what of it is not in its place yet.
//! Knows records; must not judge the values they made.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::sync::PoisonError;

use super::mend::Mend;
use super::{Fault, Scan};
use crate::engine::local::disk::Access;
use crate::engine::local::journal::{HEADERS, Inspected, inspect};
use crate::engine::local::log::last_line;
use crate::engine::local::look::{self, Look};
use crate::engine::local::mark::Mark;
use crate::engine::local::paths;
use crate::engine::local::record::{Act, Body, Record, Value};
use crate::engine::{EngineError, Result};
use crate::words::{Key, Policy, Seq, SessionId};

/// The remedy where opening refuses.
const CANNOT_OPEN: &str = "the store is not opened like this; move the journal elsewhere to open it without the changes \
                           that are only in it, and keep it";

/// What the journal holds. Its records bound the memory this takes.
#[derive(Debug, Default)]
pub(super) struct OnItsWay {
    records: Vec<(Record, Vec<u8>)>,
    /// Keys and directories with a change that is not in its place yet, in a store that nobody has open.
    touched: HashMap<SessionId, HashSet<String>>,
    /// The operations of those changes.
    operations: HashSet<String>,
    /// Part of it cannot be read: whose drafts there are is not known.
    pub(super) unreadable: bool,
    /// A header of this form is there.
    pub(super) is_ours: bool,
}

impl OnItsWay {
    /// Is a change of this key, or of a directory it is in, on its way?
    pub(super) fn touches(&self, session: &SessionId, path: &str) -> bool {
        let Some(touched) = self.touched.get(session) else { return false };
        let mut path = path;
        loop {
            if touched.contains(path) {
                return true;
            }
            match path.rsplit_once('/') {
                Some((dir, _)) => path = dir,
                None => return false,
            }
        }
    }

    /// Does it have the lines of a session's log from this change on, or from an earlier one?
    pub(super) fn has_lines_from(&self, session: &SessionId, seq: Seq) -> bool {
        self.unreadable || self.records.iter().any(|(record, _)| record.session == *session && record.seq <= seq)
    }

    /// Does a change that is on its way need this draft?
    pub(super) fn needs(&self, draft: &str) -> bool {
        self.unreadable || self.operations.contains(draft.strip_suffix(".meta").unwrap_or(draft))
    }

    /// The bytes of a version, where the journal has them all: also under the names it had before. Their checksum proves
    /// it.
    pub(super) fn bytes_of(&self, session: &SessionId, key: &Key, mark: &Mark) -> Option<Vec<u8>> {
        let mut known: HashMap<&Key, Vec<u8>> = HashMap::new();
        for (record, body) in self.records.iter().filter(|(record, _)| record.session == *session) {
            let changed = match &record.act {
                Act::Put(value) => set(&mut known, &value.key, (value.body == Body::Inline).then(|| body.clone())),
                Act::Rename { from, value, .. } => {
                    let moved = known.remove(from).filter(|_| value.body == Body::Source);
                    let bytes = if value.body == Body::Inline { Some(body.clone()) } else { moved };
                    set(&mut known, &value.key, bytes)
                }
                Act::Append(append) => {
                    let before = known.remove(&append.key).filter(|bytes| bytes.len() as u64 == append.offset);
                    set(&mut known, &append.key, before.map(|bytes| [&bytes[..], body].concat()))
                }
                _ => continue,
            };
            if changed == key && record.version() == Some(mark.version) {
                break;
            }
        }
        known.remove(key).filter(|bytes| bytes.len() as u64 == mark.size && crc32c::crc32c(bytes) == mark.crc)
    }

    /// The bytes of a draft that became no version, where the journal has them.
    pub(super) fn draft_bytes(&self, session: &SessionId, mark: &Mark) -> Option<Vec<u8>> {
        let is_it = |(record, _): &&(Record, Vec<u8>)| record.session == *session && record.seq == mark.seq;
        let (_, body) = self.records.iter().find(is_it).filter(|(record, _)| matches!(record.act, Act::Drop(_)))?;
        (body.len() as u64 == mark.size && crc32c::crc32c(body) == mark.crc).then(|| body.clone())
    }

    /// The record that made a change of a whole value, where the journal has it.
    pub(super) fn value_at(&self, session: &SessionId, key: &Key, seq: Seq) -> Option<(&Record, &Value)> {
        let record =
            self.records.iter().map(|(record, _)| record).find(|it| it.session == *session && it.seq == seq)?;
        match &record.act {
            Act::Put(value) | Act::Rename { value, .. } if value.key == *key => Some((record, value)),
            _ => None,
        }
    }

    /// The policy that was set last, where the journal has it.
    pub(super) fn policy(&self, session: &SessionId) -> Option<Policy> {
        self.records.iter().rev().filter(|(record, _)| record.session == *session).find_map(|(record, _)| match &record
            .act
        {
            Act::Policy { policy } => Some(*policy),
            _ => None,
        })
    }
}

/// Are the headers whole, where both are used, and does one follow the other?
fn have_order(seen: &Inspected) -> bool {
    match seen.generations {
        [Some(one), Some(other)] => one.abs_diff(other) == 1,
        generations => generations.iter().zip(seen.used).all(|(generation, used)| generation.is_some() || !used),
    }
}

impl Scan<'_, '_> {
    /// Reads the journal.
    pub(super) fn check_journal(&mut self) -> Result<()> {
        let mut seen = match self.read_journal() {
            Ok(Some(seen)) => seen,
            Ok(None) => return Ok(()),
            Err(e) => {
                self.way.unreadable = true;
                self.found(Fault::unreadable(paths::JOURNAL, &e));
                return Ok(());
            }
        };
        if let (Some(live), true) = (self.live, seen.damage.is_some() || !have_order(&seen)) {
            // It may have been written to while it was read: nobody does now.
            let _alone = live.gate.write().unwrap_or_else(PoisonError::into_inner);
            seen = self.read_journal()?.unwrap_or_default();
        }
        self.way.is_ours = seen.generations.iter().any(Option::is_some);
        self.check_headers(&seen);
        self.take_records(&mut seen);
        if self.live.is_none() {
            self.take_unfinished(&seen)?;
        }
        Ok(())
    }

    fn read_journal(&mut self) -> Result<Option<Inspected>> {
        match self.disk.open(paths::JOURNAL, Access::Read) {
            Ok(file) => Ok(Some(inspect(&*file)?)),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if !self.names(paths::SESSIONS).is_empty() {
                    self.journal_is_gone();
                }
                Ok(None)
            }
            Err(e) => Err(EngineError::io("reading the journal", e)),
        }
    }

    fn journal_is_gone(&mut self) {
        self.found(if self.live.is_some() {
            let remedy = "unmount, which brings everything to its place, and mount again";
            Fault::damage("F35", paths::JOURNAL, "it is gone: what is committed now is not durable", remedy)
        } else {
            let remedy = "put it back if it is anywhere; a new one can be made, without what was only in this one";
            let what = "it is gone: changes that were only there are lost";
            Fault::damage("F35", paths::JOURNAL, what, remedy).mended_by(Mend::Journal)
        });
    }

    fn check_headers(&mut self, seen: &Inspected) {
        if let Some(e) = &seen.damage {
            self.way.unreadable = true;
            let rule = if self.way.is_ours { "F21" } else { "F19" };
            let what = match e {
                EngineError::Damaged { what, .. } => what.clone(),
                other => other.to_string(),
            };
            self.broken(rule, what, CANNOT_OPEN, None);
            return;
        }
        for (at, (generation, used)) in HEADERS.into_iter().zip(seen.generations.iter().zip(seen.used)) {
            if generation.is_some() || !used {
                continue;
            }
            let what = format!("the header at byte {at} is not whole");
            if seen.other_first {
                let remedy = "if it was the newer one, changes since the last checkpoint are lost; keep a copy of the \
                              file before the store is opened again";
                self.broken("F19", what, remedy, None);
            } else {
                let remedy = "the other one counts, and the records are its own: it can be blanked";
                self.broken("F19", what, remedy, Some(Mend::BlankHeader { at }));
            }
        }
        if let ([Some(one), Some(other)], false) = (seen.generations, have_order(seen)) {
            let what = format!("its headers have the generations {one} and {other}, which do not follow each other");
            let remedy = "if one is a copy from elsewhere, changes since the last checkpoint may be lost";
            self.broken("F19", what, remedy, None);
        }
    }

    /// A journal is broken. Who has the store open knows all that is in it, and starts it again.
    fn broken(&mut self, rule: &str, what: String, remedy: &str, mend: Option<Mend>) {
        let open = "all that is in it is known to the process that has the store open, which can start it again";
        let fault = match (self.live, mend) {
            (Some(_), _) => Fault::damage(rule, paths::JOURNAL, what, open).mended_by(Mend::Opening),
            (None, Some(mend)) => Fault::damage(rule, paths::JOURNAL, what, remedy).mended_by(mend),
            (None, None) => Fault::damage(rule, paths::JOURNAL, what, remedy),
        };
        self.found(fault);
    }

    fn take_records(&mut self, seen: &mut Inspected) {
        for (number, found) in std::mem::take(&mut seen.records).into_iter().enumerate() {
            match serde_json::from_slice::<Record>(&found.header) {
                Ok(record) => self.way.records.push((record, found.body)),
                Err(e) => {
                    self.way.unreadable = true;
                    let what = format!("record {} is whole and says what cannot be read: {e}", number + 1);
                    self.broken("F14", what, "a newer version of batonfs may have written it: use that one", None);
                }
            }
        }
    }

    /// What a crash left for the next opening of the store.
    fn take_unfinished(&mut self, seen: &Inspected) -> Result<()> {
        if let Some(at) = seen.torn {
            let remedy = "nobody was told that it was committed; the next opening of the store cuts it";
            let what = format!("the record at byte {at} is torn, the end of the last batch");
            self.found(Fault::leftover("F20", paths::JOURNAL, what, remedy).mended_by(Mend::Opening));
        }
        let boot = self.disk.boot();
        let same_boot = !boot.is_empty() && seen.boot == boot;
        let records = std::mem::take(&mut self.way.records);
        let mut logged: HashMap<SessionId, Seq> = HashMap::new();
        let (mut waiting, mut again) = (0_u64, 0_u64);
        for (at, (record, _)) in records.iter().enumerate() {
            let last = match logged.get(&record.session) {
                Some(last) => *last,
                None => *logged.entry(record.session.clone()).or_insert(self.last_logged(&record.session)),
            };
            if same_boot && record.seq <= last {
                continue;
            }
            if record.seq > last {
                waiting += 1
            } else {
                again += 1
            }
            self.way.operations.insert(record.operation.clone());
            let touched = self.way.touched.entry(record.session.clone()).or_default();
            touched.extend(paths_of(&record.act));
            let later = records.iter().skip(at + 1).any(|(later, _)| changes_same(later, record));
            if record.seq > last && !later {
                self.check_draft(record)?;
            }
        }
        if !same_boot {
            self.check_end(&records, &logged);
        }
        self.way.records = records;
        if waiting > 0 {
            let remedy = "the next opening of the store puts them there";
            let what = format!("{waiting} committed changes are not in their places yet");
            self.found(Fault::note("journal", paths::JOURNAL, what, remedy).mended_by(Mend::Opening));
        }
        if again > 0 {
            let remedy = "the next opening of the store makes sure of them; until then their keys are not judged";
            let what =
                format!("{again} changes were made before the machine started, and power may have taken part of them");
            self.found(Fault::note("journal", paths::JOURNAL, what, remedy).mended_by(Mend::Opening));
        }
        Ok(())
    }

    /// After a power cut no log goes on where the journal ends: records were lost, or it is an older copy.
    fn check_end(&mut self, records: &[(Record, Vec<u8>)], logged: &HashMap<SessionId, Seq>) {
        let last: HashMap<_, _> = records.iter().map(|(record, _)| (&record.session, record.seq)).collect();
        let Some((session, last)) = last.into_iter().find(|(session, last)| logged.get(session) > Some(last)) else {
            return;
        };
        self.way.unreadable = true;
        let what = format!("it ends with change {last} of session '{session}', whose log goes on");
        self.broken("F39", what, CANNOT_OPEN, None);
    }

    /// The number of the last whole line of a session's log.
    fn last_logged(&self, session: &SessionId) -> Seq {
        let Ok(file) = self.disk.open(&paths::log(session), Access::Read) else { return 0 };
        let last = file.stat().and_then(|stat| last_line(&*file, stat.size_bytes, Seq::MAX));
        last.map_or(0, |(_, seq)| seq)
    }

    /// A value that is not in its record is in its draft, if it is not in its place or in history by now.
    fn check_draft(&mut self, record: &Record) -> Result<()> {
        let Some(value) = record.value() else { return Ok(()) };
        if value.body == Body::Inline || self.is_placed(record, value) {
            return Ok(());
        }
        let place = paths::draft(&record.operation);
        let what = match look::look_at(self.disk, &place, Access::Read)? {
            Look::File(found) => {
                let sum = self.sum(&*found.file, found.stat.size_bytes, &place);
                match self.or_unreadable(&place, sum)? {
                    Some(crc) if (found.stat.size_bytes, crc) != (value.size, value.crc) => {
                        "has other bytes than it says"
                    }
                    _ => return Ok(()),
                }
            }
            _ => "is not there",
        };
        let called = match &record.act {
            Act::Drop(_) => format!("the draft of '{}/{}' that was to be kept", record.session, value.key),
            _ => format!("the staged value of '{}/{}', version {},", record.session, value.key, value.version),
        };
        let what = format!("{called} {what}");
        let remedy = "its bytes are lost unless a copy of the store has them; the version before it is in history";
        self.found(Fault::damage("F15", &place, what, remedy));
        Ok(())
    }

    fn is_placed(&self, record: &Record, value: &Value) -> bool {
        if let Act::Drop(draft) = &record.act {
            return self.disk.stat(&record.lost_at(draft)).is_ok();
        }
        let has = |place: &str, version| {
            let file = self.disk.open(place, Access::Read).ok();
            let mark = file.and_then(|file| Mark::read(&*file).ok().flatten());
            mark.is_some_and(|mark| mark.covers(version) || mark.version > version)
        };
        let source = match &record.act {
            Act::Rename { from, over_from, .. } if value.body == Body::Source => {
                has(&paths::value(&record.session, from.as_str()), *over_from)
            }
            _ => false,
        };
        source
            || has(&paths::value(&record.session, value.key.as_str()), value.version)
            || has(&paths::history(&record.session, value.key.as_str(), value.version), value.version)
    }
}

fn set<'k>(known: &mut HashMap<&'k Key, Vec<u8>>, key: &'k Key, bytes: Option<Vec<u8>>) -> &'k Key {
    match bytes {
        Some(bytes) => known.insert(key, bytes),
        None => known.remove(key),
    };
    key
}

/// The keys and directories a change is of; the session itself is none.
fn paths_of(act: &Act) -> Vec<String> {
    match act {
        Act::Put(value) => vec![value.key.to_string()],
        Act::Append(append) => vec![append.key.to_string()],
        Act::Rename { from, value, .. } => vec![from.to_string(), value.key.to_string()],
        Act::RenameDir { from, to, .. } => vec![from.to_string(), to.to_string()],
        Act::RemoveDir { dir } | Act::MakeDir { dir, .. } => vec![dir.to_string()],
        Act::Attributes { path, .. } => vec![path.clone()],
        Act::Delete { key, .. } | Act::Declare { key, .. } | Act::Adopt { key, .. } => vec![key.to_string()],
        Act::Drop(draft) => vec![draft.key.to_string()],
        Act::Policy { .. } => Vec::new(),
    }
}

fn changes_same(one: &Record, other: &Record) -> bool {
    one.session == other.session && paths_of(&one.act).iter().any(|path| paths_of(&other.act).contains(path))
}
