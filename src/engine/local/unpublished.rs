//! Changes that are committed but not in their place, as they could not be put there or wait for their sync (`late`): they
//! are served from memory and tried again.
//! Knows what readers must see of a record; must not know how it is published.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLockReadGuard};

use super::super::value::Content;
use super::super::{Head, Result, Snapshot};
use super::commit::Decision;
use super::disk::Access;
use super::look;
use super::publish::Work;
use super::record::{Act, Body, Record, Value};
use super::replay::Replay;
use super::session::{Late, Seen, Session, Shown, Stuck, Waiting};
use super::stage::{Appended, FileContent, MemoryContent, StagedContent};
use super::{LocalEngine, paths};
use crate::words::Key;

impl LocalEngine {
    /// Takes a committed record that is not put in its place now: its publication failed, or (`late`) it waits for the sync
    /// of the journal up to where it ends.
    pub(super) fn serve_from_memory(
        &self,
        session: &Session,
        record: Record,
        decision: Decision,
        late: Option<(u64, Option<Late>)>,
    ) {
        let body = Arc::new(decision.body);
        let key = base_key(&record.act);
        let base = decision.base.and_then(|(found, mark)| {
            let key = key.as_ref()?;
            let head = look::head(&*self.disk, &session.id, key.as_str(), &found, &mark);
            let head = head.unwrap_or_else(|_| Head {
                version: mark.version,
                appends_since: mark.since,
                seq: mark.seq,
                size_bytes: mark.size,
                writer: mark.writer.clone(),
                committed_at_s: mark.at_s,
                attributes: look::plain(&found.stat),
            });
            Some(Snapshot { head, content: Arc::new(FileContent(found.file)) })
        });
        let content: Option<Arc<dyn Content>> =
            decision.content.map(|staged| Arc::new(StagedContent(staged)) as Arc<dyn Content>);
        let mut stuck = session.stuck();
        let base = base.or_else(|| stuck.value(key?.as_str()));
        stuck.failed |= late.is_none();
        let (end, late) = late.unwrap_or_default();
        let behind = base.clone().filter(|_| late.is_some());
        show(&mut stuck, (&record, &body), base, content, late.as_ref());
        stuck.records.insert(record.seq, Waiting { record, body, end, behind });
        session.set_stuck(true);
    }

    /// Takes a record of the journal that cannot be put in its place while the store is opened, or that follows one.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn serve_again(
        &self,
        session: &Session,
        record: &Record,
        body: Vec<u8>,
        replay: &Arc<Replay>,
    ) -> Result<()> {
        let body = Arc::new(body);
        let base = match base_key(&record.act) {
            Some(key) => self.base_of(session, &key)?,
            None => None,
        };
        let staged = match record.value() {
            Some(value) if value.body != Body::Inline => self.staged(record, value)?,
            _ => None,
        };
        let content = staged.map(|found| Arc::new(FileContent(found.file)) as Arc<dyn Content>);
        let mut stuck = session.stuck();
        show(&mut stuck, (record, &body), base, content, None);
        stuck.records.insert(record.seq, Waiting { record: record.clone(), body, end: 0, behind: None });
        (stuck.failed, stuck.replay) = (true, Some(Arc::clone(replay)));
        session.set_stuck(true);
        Ok(())
    }

    /// The file of a value that is not in its record: the draft, or already in its place, and the draft is what it replaced.
    fn staged(&self, record: &Record, value: &Value) -> Result<Option<look::Found>> {
        for place in [paths::draft(&record.operation), record.marked_at(value)] {
            if let look::Look::File(found) = look::look_at(&*self.disk, &place, Access::Read)?
                && self.is_staged(value, &found)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What a record that follows stuck ones changes or takes.
    fn base_of(&self, session: &Session, key: &Key) -> Result<Option<Snapshot>> {
        if session.stuck().shown.contains_key(key.as_str()) {
            return Ok(session.stuck().value(key.as_str()));
        }
        let look::Look::File(found) = look::look(&*self.disk, &session.id, key.as_str(), Access::Read)? else {
            return Ok(None);
        };
        let Some(mark) = found.mark.clone() else { return Ok(None) };
        let head = look::head(&*self.disk, &session.id, key.as_str(), &found, &mark)?;
        Ok(Some(Snapshot { head, content: Arc::new(FileContent(found.file)) }))
    }

    /// Tries to put stuck changes in their place, also a renamed directory. The caller holds neither the gate nor a lock of
    /// the session.
    ///
    /// # Errors
    /// Why it failed again; they are still served. A renamed directory is no more between two names unless it says so.
    pub(super) fn try_again(&self, session: &Session) -> Result<()> {
        if session.is_stuck() && session.stuck().blocked {
            return self.settle_dir(session);
        }
        self.settle_failed(session)
    }

    /// Puts a renamed directory in its place that waits since the opening. It stays alone in its generation: the checkpoint
    /// comes before any other change of its session can, and so what could keep that from being made is tried first.
    fn settle_dir(&self, session: &Session) -> Result<()> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        if !session.stuck().blocked {
            // Somebody else has, while this one waited.
            return Ok(());
        }
        self.journal.check_open()?;
        let others: Vec<_> = self.all().values().filter(|other| other.id != session.id).cloned().collect();
        others.iter().try_for_each(|other| self.settle(other, true))?;
        let waiting = session.stuck().clone();
        self.settle(session, true)?;
        self.checkpoint_alone().inspect_err(|_| {
            if self.journal.check_open().is_ok() {
                // Doing it again changes nothing; a change of its session would follow it in the journal.
                *session.stuck() = waiting;
                session.set_stuck(true);
            }
        })
    }

    /// Puts in their place what is not, made durable first. The caller holds no lock of the session; `alone`: it holds the
    /// gate alone.
    ///
    /// # Errors
    /// Why it failed, or failed again; it is still served.
    pub(super) fn settle(&self, session: &Session, alone: bool) -> Result<()> {
        if !session.is_stuck() {
            return Ok(());
        }
        let _tree = session.hold_tree();
        self.settle_held(session, alone, None)
    }

    /// The same where something failed; what only waits for its sync goes on waiting.
    ///
    /// # Errors
    /// As [`LocalEngine::settle`].
    pub(super) fn settle_failed(&self, session: &Session) -> Result<()> {
        if session.has_failed() { self.settle(session, false) } else { Ok(()) }
    }

    /// The same for who holds all of the session; `durable`: only what ends up to there in the journal, which is durable.
    ///
    /// # Errors
    /// As [`LocalEngine::settle`].
    pub(super) fn settle_held(&self, session: &Session, alone: bool, durable: Option<u64>) -> Result<()> {
        let (waiting, replay, failed) = {
            let stuck = session.stuck();
            if !alone {
                stuck.refuse_blocked()?;
            }
            let upto = durable.unwrap_or(u64::MAX);
            let waiting: Vec<_> = stuck.records.values().take_while(|waiting| waiting.end <= upto).cloned().collect();
            (waiting, stuck.replay.clone(), stuck.failed)
        };
        if let (None, Some(end)) = (durable, waiting.iter().map(|waiting| waiting.end).max()) {
            self.journal.sync_to(end)?;
        }
        let mut placed = Vec::new();
        let published = waiting.iter().try_for_each(|Waiting { record, body, behind, .. }| {
            let work = Work { behind: behind.as_ref(), first: !failed, ..Work::again(body, replay.as_deref()) };
            self.publish(session, record, &work)?;
            placed.push(record.seq);
            Ok(())
        });
        // Before it is said that nothing is on its way: a checkpoint believes that, and then wants their lines in the log.
        session.placed(&*self.disk, &placed);
        {
            let mut stuck = session.stuck();
            stuck.placed(&placed);
            stuck.failed |= published.is_err();
            session.set_stuck(!stuck.records.is_empty());
        }
        let late = waiting.iter().take(placed.len()).filter(|waiting| waiting.end > 0).count();
        self.late.fetch_sub(late, Ordering::SeqCst);
        published
    }

    /// What is served from memory of a path; `None`: look at the disk.
    ///
    /// # Errors
    /// [`EngineError::Io`] while a renamed directory is not in its place.
    pub(super) fn shown(&self, session: &Session, path: &str) -> Result<Option<Shown>> {
        if !session.is_stuck() || self.try_again(session).is_ok() && !session.is_stuck() {
            return Ok(None);
        }
        let stuck = session.stuck();
        stuck.refuse_blocked()?;
        Ok(stuck.shown.get(path).map(|seen| seen.shown.clone()))
    }

    /// The same of every path, with the names as they stand: no value is renamed while both are looked at, so none is seen
    /// under two names or under none.
    ///
    /// # Errors
    /// As [`LocalEngine::shown`].
    pub(super) fn listing<'a>(
        &self,
        session: &'a Session,
    ) -> Result<(RwLockReadGuard<'a, ()>, BTreeMap<String, Shown>)> {
        if session.is_stuck() {
            // What it fails with, readers need not know: they see what is served.
            let _ = self.try_again(session);
        }
        let names = session.listing();
        if !session.is_stuck() {
            return Ok((names, BTreeMap::new()));
        }
        let stuck = session.stuck();
        stuck.refuse_blocked()?;
        Ok((names, stuck.shown.iter().map(|(path, seen)| (path.clone(), seen.shown.clone())).collect()))
    }
}

/// The key whose value a record changes or takes.
fn base_key(act: &Act) -> Option<Key> {
    match act {
        Act::Append(append) => Some(append.key.clone()),
        Act::Declare { key, .. } => Some(key.clone()),
        Act::Rename { from, .. } => Some(from.clone()),
        Act::Attributes { path, .. } => Key::literal(path).ok(),
        _ => None,
    }
}

fn show(
    stuck: &mut Stuck,
    (record, body): (&Record, &Arc<Vec<u8>>),
    base: Option<Snapshot>,
    content: Option<Arc<dyn Content>>,
    late: Option<&Late>,
) {
    let mut see = |path: String, shown| stuck.shown.insert(path, Seen { seq: record.seq, shown, late: late.cloned() });
    let value = |head: Head, content| Shown::Value(Box::new(head), content);
    let in_memory = || Arc::new(MemoryContent(Arc::clone(body))) as Arc<dyn Content>;
    match (&record.act, base) {
        (Act::Put(put), _) => {
            see(put.key.to_string(), value(head_of(record, put), content.unwrap_or_else(in_memory)));
        }
        (Act::Rename { from, value: to, .. }, base) => {
            let content = content.or(base.map(|base| base.content)).unwrap_or_else(in_memory);
            see(from.to_string(), Shown::Gone);
            see(to.key.to_string(), value(head_of(record, to), content));
        }
        (Act::Append(append), Some(base)) => {
            let head = Head {
                version: append.version,
                appends_since: append.since,
                seq: record.seq,
                size_bytes: append.offset.saturating_add(append.len),
                writer: record.author.writer.clone(),
                committed_at_s: record.at_s(),
                attributes: crate::engine::Attributes {
                    mtime: super::time::from_ns(append.mtime_ns),
                    ..base.head.attributes
                },
            };
            let content = Appended { base: base.content, len: append.offset, more: Arc::clone(body) };
            see(append.key.to_string(), value(head, Arc::new(content)));
        }
        (Act::Declare { key, .. }, Some(base)) => {
            let head = Head { writer: record.author.writer.clone(), ..base.head };
            see(key.to_string(), value(head, base.content));
        }
        (Act::Attributes { path, set, .. }, Some(base)) => {
            let mut head = base.head;
            set.change().apply(&mut head.attributes);
            see(path.clone(), value(head, base.content));
        }
        (Act::Delete { key, .. }, _) => {
            see(key.to_string(), Shown::Gone);
        }
        (Act::MakeDir { dir, kept }, _) => {
            see(dir.to_string(), Shown::Dir(kept.attributes()));
        }
        (Act::RemoveDir { dir }, _) => {
            see(dir.to_string(), Shown::Gone);
        }
        (Act::Drop(draft), _) => {
            // Under a path that is no key's.
            if let Some(staged) = &draft.value {
                see(record.lost_at(draft), value(head_of(record, staged), content.unwrap_or_else(in_memory)));
            }
        }
        (Act::RenameDir { .. }, _) => stuck.blocked = true,
        (Act::Policy { policy }, _) => stuck.policy = Some(*policy),
        // A stranger's value without its mark is found again by the next reader.
        (Act::Adopt { .. } | Act::Append(_) | Act::Declare { .. } | Act::Attributes { .. }, _) => {}
    }
}

fn head_of(record: &Record, value: &Value) -> Head {
    Head {
        version: value.version,
        appends_since: value.version,
        seq: record.seq,
        size_bytes: value.size,
        writer: record.author.writer.clone(),
        committed_at_s: record.at_s(),
        attributes: value.kept.attributes(),
    }
}
