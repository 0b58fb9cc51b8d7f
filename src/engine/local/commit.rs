//! From a change to a committed record: what is there is judged, the bytes are staged, the record is journaled.
//! The commit point is in [`LocalEngine::carry_out`]; what comes after it is in `publish.rs`.

use std::sync::Arc;

use super::super::{AttributeChange, Attributes, Change, Context, EngineError, Receipt, Result, Staged};
use super::disk::{Access, DiskFile, FileId, Form};
use super::look::{self, Found, Look};
use super::mark::{Mark, Now};
use super::publish::Work;
use super::record::{Act, Append, Body, Kept, KeptChange, LostDraft, Record, Value};
use super::session::{Hold, Late, Progress, Session};
use super::stage::{self, INLINE_BYTES};
use super::{LocalEngine, paths, time, tree};
use crate::words::{Author, Dir, Key, Version, Writer};

/// A change that may be made, with all that its record and its readers need.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) act: Act,
    /// The bytes that go into the record.
    pub(super) body: Vec<u8>,
    /// The bytes of a staged value.
    pub(super) content: Option<Staged>,
    /// That value's draft, open.
    pub(super) draft: Option<Box<dyn DiskFile>>,
    /// The value that was there (of a rename: the source).
    pub(super) base: Option<(Found, Mark)>,
    /// Milliseconds since 1970: one time for the record, the mark and the sidecar.
    pub(super) time_ms: u64,
    /// The file of the staged sidecar.
    pub(super) sidecar: Option<FileId>,
    /// It may be answered before its sync.
    pub(super) waits: bool,
}

impl Decision {
    pub(super) fn of(act: Act) -> Self {
        let time_ms = time::now_ms();
        Self { act, body: Vec::new(), content: None, draft: None, base: None, time_ms, sidecar: None, waits: false }
    }
}

/// A value that is there, with its mark.
type Current = Option<(Found, Mark)>;

fn version_of(current: &Current) -> Option<Version> {
    current.as_ref().map(|(_, mark)| mark.version)
}

fn expect(current: &Current, expected: Option<Version>) -> Result<()> {
    expect_version(version_of(current), expected)
}

fn expect_version(current: Option<Version>, expected: Option<Version>) -> Result<()> {
    if current == expected { Ok(()) } else { Err(EngineError::Stale { current }) }
}

impl LocalEngine {
    /// Makes a change of one session's keys or directories.
    pub(super) fn make(&self, session: &Session, change: Change, context: &Context) -> Result<Receipt> {
        let (mut _hold, mut has_parent) = self.hold(session, &change)?;
        let waits = self.may_wait(session, &change, &context.author, has_parent)?;
        if !waits && session.is_stuck() {
            drop(_hold);
            _hold = session.hold_tree();
            self.settle_held(session, false, None)?;
            has_parent = false;
        }
        // Looked up under the hold: the same operation asked again waits for its first run, and finds it made.
        let operation = context.operation.to_string();
        if let Some(receipt) = session.order().recent(&operation) {
            return Ok(receipt);
        }
        if !has_parent {
            self.require_dirs(session, &change)?;
        }
        let decision = self.decide(session, change, context, &operation).inspect_err(|_| self.discard(&operation))?;
        let decision = Decision { waits, ..decision };
        self.carry_out(session, decision, &context.author, &operation, context.conflict.clone())
    }

    /// What a change holds, and of a put whether its key's directory is there. A put that makes directories is alone:
    /// somebody else could be making a key with the name of one.
    fn hold<'a>(&self, session: &'a Session, change: &Change) -> Result<(Hold<'a>, bool)> {
        let hold = hold(session, change);
        let Change::Put { key, .. } = change else { return Ok((hold, false)) };
        let parent = key.parent();
        match self.form(session, parent.as_str())? {
            Some(form) => Ok((hold, form == Form::Dir)),
            None if parent.is_root() => Ok((hold, false)),
            None => {
                drop(hold);
                Ok((session.hold_tree(), false))
            }
        }
    }

    /// Journals a decision, makes it durable, publishes it, and answers. A crash before the sync leaves nothing of it;
    /// after it, recovery publishes it.
    pub(super) fn carry_out(
        &self,
        session: &Session,
        decision: Decision,
        author: &Author,
        operation: &str,
        conflict: Option<String>,
    ) -> Result<Receipt> {
        let mut record = Record {
            session: session.id.clone(),
            seq: 0,
            time_ms: decision.time_ms,
            operation: operation.to_owned(),
            author: author.clone(),
            conflict,
            keep: self.keep.count,
            sidecar: decision.sidecar,
            act: decision.act.clone(),
        };
        let end = {
            // One lock over number and place, so that the journal's order is the session's.
            let mut order = session.order();
            record.seq = order.next();
            let appended = record.encode().and_then(|header| self.journal.append(&header, &decision.body));
            let end = appended.inspect_err(|_| self.discard(operation))?;
            order.take(record.line(), Progress::UnderWay);
            end
        };
        if decision.waits {
            return Ok(self.wait_for_sync(session, record, decision, end));
        }
        self.journal.sync_to(end).inspect_err(|_| session.abandoned())?;
        // Committed. Whatever fails from here on, the change stands.
        let receipt = Receipt { seq: record.seq, version: record.version() };
        let judged = decision
            .base
            .as_ref()
            .filter(|_| matches!(record.act, Act::Put(_) | Act::Append(_)))
            .map(|(found, _)| found);
        let draft = decision.draft.as_deref();
        let work = Work { draft, judged, first: true, ..Work::again(&decision.body, None) };
        let published = self.publish(session, &record, &work);
        let stuck = published.is_err();
        if let Err(e) = published {
            tracing::error!(session = %session.id, seq = record.seq, "committed, but not yet in its place: {e}");
            self.serve_from_memory(session, record, decision, None);
        }
        session.finished(&*self.disk, receipt.seq, stuck, || self.journal.check_open().is_err());
        Ok(receipt)
    }

    /// Gives a stranger's value its version. The caller holds the key.
    pub(super) fn adopt_held(&self, session: &Session, key: &Key, found: &Found) -> Result<()> {
        if found.stat.links > 1 {
            return self.unshare(session, key, found);
        }
        let io = |e| EngineError::io(format!("reading {key}"), e);
        let read = |at, buffer: &mut [u8]| found.file.read_at(at, buffer).map_err(io);
        let crc = stage::checksum(found.stat.size_bytes, read)?;
        let known = session.order().last_version(key.as_str())?;
        let version = known.max(found.mark.as_ref().map_or(0, |mark| mark.version)) + 1;
        let mut writer = look::foreign_writer(&*self.disk, &session.id, key.as_str(), found.stat.mtime_ns)?;
        if writer.is_oversized() {
            // It would not fit into the mark. The sidecar still tells it.
            writer = Writer::default();
        }
        // A file that we may not mark would get a new version at every look: better no version than those.
        found.file.set_xattr(super::mark::NAME, b"").map_err(|e| EngineError::io(format!("marking {key}"), e))?;
        Mark::reserve(&*found.file, key.as_str(), Now::Stranger, &writer)?;
        let act = Act::Adopt {
            key: key.clone(),
            version,
            size: found.stat.size_bytes,
            crc,
            mtime_ns: found.stat.mtime_ns,
            writer: writer.clone(),
            file: found.stat.id,
        };
        let author = Author { writer, ..Author::default() };
        let operation = uuid::Uuid::now_v7().to_string();
        self.carry_out(session, Decision::of(act), &author, &operation, None)?;
        Ok(())
    }

    /// A mark would speak of every name of a file. A value that has others gets a file of its own, and is looked at again.
    fn unshare(&self, session: &Session, key: &Key, found: &Found) -> Result<()> {
        let (draft, target) =
            (paths::draft(&uuid::Uuid::now_v7().to_string()), paths::value(&session.id, key.as_str()));
        let io = |e| EngineError::io(format!("copying {key}, which is a hard link"), e);
        let copied = || {
            let copy = tree::create(&*self.disk, &draft, tree::PRIVATE).map_err(io)?;
            let read = |at, part: &mut [u8]| found.file.read_at(at, part).map_err(io);
            stage::copy(found.stat.size_bytes, &target, read, |at, part| copy.write_at(at, part).map_err(io))?;
            look::set_first_attributes(&*copy, &look::attributes(&*found.file, &found.stat)?, &draft)?;
            // The program that put it there may have made it durable.
            copy.sync().map_err(io)?;
            self.exchange(&draft, copy.stat().map_err(io)?.id, &target, &found.stat)?;
            // Before any record speaks of the copy: else power could leave the link in its place.
            self.disk.sync_dir(paths::parent(&target)).map_err(io)
        };
        let exchanged = copied();
        tree::unlink(&*self.disk, &draft)?;
        exchanged
    }

    /// Removes what was staged for an operation that was not committed.
    fn discard(&self, operation: &str) {
        for path in [paths::draft(operation), paths::draft_sidecar(operation)] {
            if let Err(e) = tree::unlink(&*self.disk, &path) {
                tracing::warn!("a draft stays until the store is opened again: {e}");
            }
        }
    }

    /// The session is there, but for who makes it, and what is there above a key that is put are directories.
    fn require_dirs(&self, session: &Session, change: &Change) -> Result<()> {
        let makes = matches!(change, Change::MakeDir { dir, .. } if dir.is_root());
        if !makes && self.form(session, "")? != Some(Form::Dir) {
            return Err(EngineError::NoSession(session.id.to_string()));
        }
        match change {
            Change::Put { key, .. } => self.require_dirs_or_nothing(session, &key.parent()),
            _ => Ok(()),
        }
    }

    fn decide(&self, session: &Session, change: Change, context: &Context, operation: &str) -> Result<Decision> {
        match change {
            Change::Put { key, content, expected, attributes } => {
                self.decide_put(session, key, content, expected, attributes, context, operation)
            }
            Change::Append { key, bytes, expected, mtime } => {
                let (base, mark) = match self.late_or_current(session, &key, Some(expected))? {
                    (None, None) => return Err(EngineError::Stale { current: None }),
                    (current, Some(late)) => (current, late.mark),
                    (Some((found, mark)), None) => (Some((found, mark.clone())), mark),
                };
                if let (Some((found, _)), true) = (&base, mark.foreign) {
                    self.make_durable(session, &key, found)?;
                }
                self.decide_append(key, bytes, time::to_ns(mtime), (base, mark), context, operation)
            }
            Change::Delete { key, expected } => {
                expect(&self.current(session, &key)?, Some(expected))?;
                Ok(Decision::of(Act::Delete { key, over: expected }))
            }
            Change::Rename { from, to, expected_from, expected_to, content } => {
                let source = self.current(session, &from)?;
                expect(&source, Some(expected_from))?;
                self.decide_rename(session, (from, source), (to, expected_to), content, context, operation)
            }
            Change::RenameDir { from, to } => self.decide_rename_dir(session, from, to),
            Change::MakeDir { dir, attributes } => {
                self.require_parent(session, dir.parent())?;
                match self.form(session, dir.as_str())? {
                    None => Ok(Decision::of(Act::MakeDir { dir, kept: Kept::of(&attributes) })),
                    Some(_) => Err(EngineError::Exists(self.name(session, dir.as_str()))),
                }
            }
            Change::RemoveDir { dir } => {
                self.require_empty_dir(session, &dir)?;
                Ok(Decision::of(Act::RemoveDir { dir }))
            }
            Change::Attributes { path, set } => self.decide_attributes(session, path, &set, operation),
            Change::Declare { key, expected } => {
                let current = self.current(session, &key)?;
                expect(&current, Some(expected))?;
                if let Some((found, mark)) = &current {
                    Mark::reserve(&*found.file, key.as_str(), Now::Marked(mark), &context.author.writer)?;
                }
                let decision = Decision::of(Act::Declare { key: key.clone(), version: expected });
                let sidecar = self.stage_sidecar(operation, &context.author, decision.time_ms)?;
                Ok(Decision { base: current, sidecar, ..decision })
            }
            Change::SetPolicy(policy) => Ok(Decision::of(Act::Policy { policy })),
            Change::Drop { key, size_bytes, lost, reason, kept } => {
                let draft = LostDraft { key, size: size_bytes, lost, reason, value: None };
                self.decide_drop(&session.id, draft, kept, context, operation)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the members of one change and its context")]
    fn decide_put(
        &self,
        session: &Session,
        key: Key,
        content: Staged,
        expected: Option<Version>,
        attributes: Attributes,
        context: &Context,
        operation: &str,
    ) -> Result<Decision> {
        let (current, late) = self.late_or_current(session, &key, expected)?;
        let version = match late {
            Some(late) => late.mark.next(),
            None => self.next_version(session, &key, &current)?,
        };
        let time_ms = time::now_ms();
        let sidecar = self.stage_sidecar(operation, &context.author, time_ms)?;
        let staged = self.stage_value(operation, &content, &attributes, &context.author)?;
        let kept = Kept { mtime_ns: staged.mtime_ns, ..Kept::of(&attributes) };
        let value = Value {
            key,
            version,
            over: expected,
            size: content.len(),
            crc: staged.crc,
            kept,
            body: staged.body,
            file: staged.id,
        };
        let (body, draft) = (staged.bytes, Some(staged.file));
        let content = Some(content);
        Ok(Decision { body, content, draft, base: current, time_ms, sidecar, ..Decision::of(Act::Put(value)) })
    }

    fn decide_append(
        &self,
        key: Key,
        bytes: Vec<u8>,
        mtime_ns: i64,
        (base, mark): (Current, Mark),
        context: &Context,
        operation: &str,
    ) -> Result<Decision> {
        let append = Append {
            key,
            version: mark.next(),
            // Across a gap in the numbers a reader could not tell the two apart from a put in between.
            since: if mark.next() == mark.version + 1 { mark.since } else { mark.next() },
            over: mark.version,
            offset: mark.size,
            len: bytes.len() as u64,
            crc: crc32c::crc32c_append(mark.crc, &bytes),
            mtime_ns,
        };
        if append.offset.checked_add(append.len).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(EngineError::io("appending", std::io::Error::from_raw_os_error(libc::EFBIG)));
        }
        if let Some((found, mark)) = &base {
            Mark::reserve(&*found.file, append.key.as_str(), Now::Marked(mark), &context.author.writer)?;
        }
        let decision = Decision::of(Act::Append(append));
        let sidecar = self.stage_sidecar(operation, &context.author, decision.time_ms)?;
        Ok(Decision { body: bytes, base, sidecar, ..decision })
    }

    fn decide_rename(
        &self,
        session: &Session,
        (from, source): (Key, Current),
        (to, expected): (Key, Option<Version>),
        content: Option<Staged>,
        context: &Context,
        operation: &str,
    ) -> Result<Decision> {
        let Some((found, mark)) = source else { return Err(EngineError::Stale { current: None }) };
        let attributes = look::attributes(&*found.file, &found.stat)?;
        // A small value is staged again, so that its bytes are in the record: they may not be on the disk yet.
        let content = match content {
            None if from == to || mark.size <= INLINE_BYTES => Some(self.copy_of(&found, mark.size)?),
            other => other,
        };
        if let (true, Some(content)) = (from == to, content.clone()) {
            return self.decide_put(session, to, content, expected, attributes, context, operation);
        }
        self.require_parent(session, Some(to.parent()))?;
        let target = self.current(session, &to)?;
        expect(&target, expected)?;
        let version = self.next_version(session, &to, &target)?;
        let time_ms = time::now_ms();
        let sidecar = self.stage_sidecar(operation, &context.author, time_ms)?;
        let (mut body, mut draft) = (Vec::new(), None);
        let mut value = Value {
            key: to,
            version,
            over: expected,
            size: mark.size,
            crc: mark.crc,
            kept: Kept::of(&attributes),
            body: Body::Source,
            file: found.stat.id,
        };
        match &content {
            Some(content) => {
                let staged = self.stage_value(operation, content, &attributes, &context.author)?;
                value.size = content.len();
                (value.crc, value.kept.mtime_ns, value.body) = (staged.crc, staged.mtime_ns, staged.body);
                value.file = staged.id;
                (body, draft) = (staged.bytes, Some(staged.file));
            }
            // A second name keeps the bytes, whatever a program beside the mount does to the first one.
            None => {
                self.link_source(session, &from, &found, operation)?;
                Mark::reserve(&*found.file, from.as_str(), Now::Marked(&mark), &context.author.writer)?;
                // What was appended to it may be in earlier records only.
                found.file.sync().map_err(|e| EngineError::io(format!("syncing {from}"), e))?;
                self.disk.sync_dir(paths::DRAFTS).map_err(|e| EngineError::io("syncing the drafts", e))?;
            }
        }
        let act = Act::Rename { from, over_from: mark.version, value };
        Ok(Decision { body, content, draft, base: Some((found, mark)), time_ms, sidecar, ..Decision::of(act) })
    }

    fn decide_rename_dir(&self, session: &Session, from: Dir, to: Dir) -> Result<Decision> {
        if from.is_root() || format!("{to}/").starts_with(&format!("{from}/")) && from != to {
            return Err(EngineError::IntoItself(from.to_string()));
        }
        match self.form(session, from.as_str())? {
            None => return Err(EngineError::NotFound(from.to_string())),
            Some(Form::Dir) => {}
            Some(_) => return Err(EngineError::NotADirectory(from.to_string())),
        }
        self.require_parent(session, to.parent())?;
        if to.is_root() {
            return Err(EngineError::NotEmpty(self.name(session, "")));
        }
        if from != to && self.form(session, to.as_str())?.is_some() {
            self.require_empty_dir(session, &to)?;
        }
        let mut floors = Vec::new();
        for (key, version) in session.order().versions()?.below(to.as_str()) {
            if let Ok(key) = Key::literal(key) {
                floors.push((key, version));
            }
        }
        Ok(Decision::of(Act::RenameDir { from, to, floors }))
    }

    fn decide_attributes(
        &self,
        session: &Session,
        path: String,
        set: &AttributeChange,
        operation: &str,
    ) -> Result<Decision> {
        let base = match self.form(session, &path)? {
            None => return Err(EngineError::NotFound(self.name(session, &path))),
            Some(Form::Dir) => None,
            Some(_) => match Key::literal(&path) {
                Ok(key) => self.current(session, &key)?,
                Err(_) => return Err(EngineError::NotFound(path)),
            },
        };
        if let Some((found, _)) = &base {
            look::attributes(&*found.file, &found.stat)?.room_for(set)?;
        }
        if set.xattrs.values().any(Option::is_some) {
            self.try_attributes(session, &path, &base, set, operation)?;
        }
        let version = version_of(&base);
        let act = Act::Attributes { path, version, set: KeptChange::of(set) };
        Ok(Decision { base, ..Decision::of(act) })
    }

    /// Tries on a draft whether the file system takes these xattrs, and a mark beside them.
    fn try_attributes(
        &self,
        session: &Session,
        path: &str,
        base: &Current,
        set: &AttributeChange,
        operation: &str,
    ) -> Result<()> {
        let (place, draft) = (paths::value(&session.id, path), paths::draft(operation));
        let io = |e| EngineError::io(format!("reading {place}"), e);
        let there = self.disk.open(&place, Access::Read).map_err(io)?;
        let mut attributes = look::attributes(&*there, &there.stat().map_err(io)?)?;
        set.apply(&mut attributes);
        let trial = tree::create(&*self.disk, &draft, tree::PRIVATE)
            .map_err(|e| EngineError::io(format!("trying attributes of {place}"), e))?;
        look::set_first_attributes(&*trial, &attributes, &place)?;
        if let Some((_, mark)) = base {
            Mark::reserve(&*trial, &place, Now::Draft, &mark.writer)?;
        }
        tree::unlink(&*self.disk, &draft)
    }

    /// The value that waits for its sync, else the one at the key; it is of the expected version.
    fn late_or_current(
        &self,
        session: &Session,
        key: &Key,
        expected: Option<Version>,
    ) -> Result<(Current, Option<Late>)> {
        if let Some(late) = session.late(key.as_str()) {
            return expect_version(Some(late.mark.version), expected).map(|()| (None, Some(late)));
        }
        let current = self.current(session, key)?;
        expect(&current, expected)?;
        Ok((current, None))
    }

    /// The value at a key, a stranger's adopted. The caller holds the key.
    fn current(&self, session: &Session, key: &Key) -> Result<Current> {
        // Each round lost means that a program beside the mount replaced the value once more.
        for _ in 0..super::ROUNDS_MAX {
            match look::look(&*self.disk, &session.id, key.as_str(), Access::Read)? {
                Look::Nothing => return Ok(None),
                Look::Dir => return Err(EngineError::IsADirectory(key.to_string())),
                Look::InTheWay => return Err(in_the_way(key)),
                Look::File(found) => match found.ours().cloned() {
                    Some(mark) if !self.is_past(session, key, &mark)? => return Ok(Some((found, mark))),
                    // It has its version, and could not be marked: a second one would be of the same bytes.
                    _ if session.adopts(key, &found.stat) => break,
                    _ => self.adopt_held(session, key, &found)?,
                },
            }
        }
        Err(EngineError::Stale { current: None })
    }

    /// Is a version in its key's history already, or a later one in the log? Then the file is a copy that a program beside
    /// the mount put back, mark and all, and its number was given to others since. Every change asks this, so nothing is
    /// listed: it costs the same however much is kept.
    fn is_past(&self, session: &Session, key: &Key, mark: &Mark) -> Result<bool> {
        let last = session.order().last_version(key.as_str());
        match last {
            Ok(last) if last >= mark.next() => Ok(true),
            // Below a renamed directory the numbers in history may be another's.
            _ if mark.floor > 0 => self.is_kept_itself(&session.id, key, mark),
            Ok(_) => self.is_kept(&session.id, key, mark.version),
            // Of a log that cannot be read history tells what it can.
            Err(_) => Ok(self.kept(&session.id, key)?.last().is_some_and(|newest| *newest >= mark.version)),
        }
    }

    fn next_version(&self, session: &Session, key: &Key, current: &Current) -> Result<Version> {
        match current {
            Some((_, mark)) => Ok(mark.next()),
            None => {
                let next = session.order().last_version(key.as_str())? + 1;
                // A log that has lost lines, and was repaired, may know of fewer than history does.
                match self.is_kept(&session.id, key, next)? {
                    true => Ok(self.kept(&session.id, key)?.last().map_or(next, |last| last + 1)),
                    false => Ok(next),
                }
            }
        }
    }

    /// What is at a path, by one stat.
    pub(super) fn form(&self, session: &Session, path: &str) -> Result<Option<Form>> {
        let place = paths::value(&session.id, path);
        match self.disk.stat(&place) {
            Ok(stat) => Ok(Some(stat.form)),
            Err(e) if tree::is_missing(&e) => Ok(None),
            Err(e) => Err(EngineError::io(format!("reading {place}"), e)),
        }
    }

    /// How messages call a path: the session by its id.
    fn name(&self, session: &Session, path: &str) -> String {
        if path.is_empty() { session.id.to_string() } else { path.to_owned() }
    }

    fn require_parent(&self, session: &Session, parent: Option<Dir>) -> Result<()> {
        let Some(parent) = parent else { return Ok(()) };
        self.require_dirs_or_nothing(session, &parent)?;
        match self.form(session, parent.as_str())? {
            Some(_) => Ok(()),
            None => Err(EngineError::NotFound(parent.to_string())),
        }
    }

    /// Whatever exists of a directory's path must be directories.
    fn require_dirs_or_nothing(&self, session: &Session, dir: &Dir) -> Result<()> {
        let place = paths::value(&session.id, dir.as_str());
        match self.disk.stat(&place) {
            Ok(stat) if stat.form == Form::Dir => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Ok(_) => Err(EngineError::NotADirectory(dir.to_string())),
            Err(e) if tree::is_missing(&e) => Err(EngineError::NotADirectory(dir.to_string())),
            Err(e) => Err(EngineError::io(format!("reading {place}"), e)),
        }
    }

    fn require_empty_dir(&self, session: &Session, dir: &Dir) -> Result<()> {
        let name = self.name(session, dir.as_str());
        match self.form(session, dir.as_str())? {
            None => Err(EngineError::NotFound(name)),
            Some(Form::Dir) => match tree::is_empty(&*self.disk, &session.id, dir.as_str()) {
                Ok(true) => Ok(()),
                Ok(false) => Err(EngineError::NotEmpty(name)),
                Err(e) => Err(EngineError::io(format!("reading {name}"), e)),
            },
            Some(_) => Err(EngineError::NotADirectory(name)),
        }
    }

    /// A stranger's value may be in the page cache only, and what is appended is durable only with what it goes behind.
    fn make_durable(&self, session: &Session, key: &Key, found: &Found) -> Result<()> {
        let io = |e| EngineError::io(format!("syncing {key}"), e);
        found.file.sync().map_err(io)?;
        self.disk.sync_dir(&paths::value(&session.id, key.parent().as_str())).map_err(io)
    }

    fn link_source(&self, session: &Session, from: &Key, found: &Found, operation: &str) -> Result<()> {
        let (place, draft) = (paths::value(&session.id, from.as_str()), paths::draft(operation));
        let io = |e| EngineError::io(format!("linking {place}"), e);
        tree::unlink(&*self.disk, &draft)?;
        self.disk.link(&place, &draft).map_err(io)?;
        if self.disk.stat(&draft).map_err(io)?.id != found.stat.id {
            return Err(EngineError::Stale { current: None });
        }
        Ok(())
    }

    fn copy_of(&self, found: &Found, size: u64) -> Result<Staged> {
        use super::super::Stage;
        let mut copy = stage::LocalStage::new(Arc::clone(&self.disk));
        let read =
            |at, part: &mut [u8]| found.file.read_at(at, part).map_err(|e| EngineError::io("copying a value", e));
        stage::each_part(size, read, |at, part| copy.write_at(at, part))?;
        Ok(Box::new(copy).freeze())
    }
}

fn in_the_way(key: &Key) -> EngineError {
    let doing = format!("'{key}' is neither a file nor a directory");
    EngineError::Io { doing, source: std::io::Error::from_raw_os_error(libc::EPERM) }
}

fn hold<'a>(session: &'a Session, change: &Change) -> Hold<'a> {
    match change {
        Change::Put { key, .. }
        | Change::Append { key, .. }
        | Change::Delete { key, .. }
        | Change::Declare { key, .. }
        | Change::Drop { key, .. } => session.hold_keys(&[key]),
        Change::Rename { from, to, .. } => session.hold_keys(&[from, to]),
        Change::Attributes { path, .. } => match Key::literal(path) {
            Ok(key) => session.hold_keys(&[&key]),
            Err(_) => session.hold_tree(),
        },
        Change::RenameDir { .. } | Change::MakeDir { .. } | Change::RemoveDir { .. } | Change::SetPolicy(_) => {
            session.hold_tree()
        }
    }
}
