//! Changes that are committed but could not be put in their place: they are served from memory and tried again.
//! Knows what readers must see of a record; must not know how it is published.

use std::sync::{Arc, PoisonError};

use super::super::value::Content;
use super::super::{Head, Result, Snapshot};
use super::commit::Decision;
use super::disk::Access;
use super::look;
use super::publish::Work;
use super::record::{Act, Body, Record, Value};
use super::replay::Replay;
use super::session::{Session, Shown, Stuck};
use super::stage::{Appended, FileContent, MemoryContent, StagedContent};
use super::{LocalEngine, paths};
use crate::words::Key;

impl LocalEngine {
    /// Takes a committed record whose publication failed.
    pub(super) fn serve_from_memory(&self, session: &Session, record: Record, decision: Decision) {
        let body = Arc::new(decision.body);
        let base = decision.base.and_then(|(found, mark)| {
            let key = base_key(&record.act)?;
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
        show(&mut stuck, &record, base, content, &body);
        stuck.records.push((record, body));
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
        let staged = match &record.act {
            Act::Put(value) | Act::Rename { value, .. } if value.body != Body::Inline => self.staged(record, value)?,
            _ => None,
        };
        let content = staged.map(|found| Arc::new(FileContent(found.file)) as Arc<dyn Content>);
        let mut stuck = session.stuck();
        show(&mut stuck, record, base, content, &body);
        stuck.records.push((record.clone(), body));
        stuck.replay = Some(Arc::clone(replay));
        session.set_stuck(true);
        Ok(())
    }

    /// The file of a value that is not in its record: the draft, or already in its place, and the draft is what it replaced.
    fn staged(&self, record: &Record, value: &Value) -> Result<Option<look::Found>> {
        for place in [paths::draft(&record.operation), paths::value(&record.session, value.key.as_str())] {
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
        match session.stuck().shown.get(key.as_str()) {
            Some(Shown::Value(head, content)) => {
                return Ok(Some(Snapshot { head: (**head).clone(), content: Arc::clone(content) }));
            }
            Some(_) => return Ok(None),
            None => {}
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
        self.settle(session, false)
    }

    /// Puts a renamed directory in its place that waits since the opening. It stays alone in its generation: the checkpoint
    /// comes before any other change of its session can, and so what could keep that from being made is tried first.
    fn settle_dir(&self, session: &Session) -> Result<()> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.journal.check_open()?;
        let others: Vec<_> = self.all().values().filter(|other| other.id != session.id).cloned().collect();
        others.iter().try_for_each(|other| self.settle(other, true))?;
        self.settle(session, true)?;
        self.checkpoint_alone().inspect_err(|e| {
            self.journal.close(&format!("a renamed directory could not be made durable in its place: {e}"));
        })
    }

    /// Tries to put stuck changes in their place. The caller holds no lock of the session; `alone`: it holds the gate alone.
    ///
    /// # Errors
    /// Why it failed again; they are still served.
    pub(super) fn settle(&self, session: &Session, alone: bool) -> Result<()> {
        if !session.is_stuck() {
            return Ok(());
        }
        let _tree = session.hold_tree();
        let (records, replay) = {
            let stuck = session.stuck();
            if !alone {
                stuck.refuse_blocked()?;
            }
            (stuck.records.clone(), stuck.replay.clone())
        };
        for (record, body) in &records {
            self.publish(session, record, &Work::again(body, replay.as_deref()))?;
        }
        {
            let mut stuck = session.stuck();
            *stuck = Stuck::default();
            session.set_stuck(false);
        }
        session.unstuck(&*self.disk);
        Ok(())
    }

    /// What is served from memory of a path; `None`: look at the disk.
    ///
    /// # Errors
    /// [`EngineError::Io`] while a renamed directory is not in its place.
    pub(super) fn shown(&self, session: &Session, path: &str) -> Result<Option<Shown>> {
        if !session.is_stuck() || self.try_again(session).is_ok() {
            return Ok(None);
        }
        let stuck = session.stuck();
        stuck.refuse_blocked()?;
        Ok(stuck.shown.get(path).cloned())
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
    record: &Record,
    base: Option<Snapshot>,
    content: Option<Arc<dyn Content>>,
    body: &Arc<Vec<u8>>,
) {
    let value = |stuck: &mut Stuck, value: &Value, content: Arc<dyn Content>| {
        let head = head_of(record, value);
        stuck.shown.insert(value.key.to_string(), Shown::Value(Box::new(head), content));
    };
    let in_memory = || Arc::new(MemoryContent(Arc::clone(body))) as Arc<dyn Content>;
    match (&record.act, base) {
        (Act::Put(put), _) => value(stuck, put, content.unwrap_or_else(in_memory)),
        (Act::Rename { from, value: to, .. }, base) => {
            let content = content.or(base.map(|base| base.content)).unwrap_or_else(in_memory);
            stuck.shown.insert(from.to_string(), Shown::Gone);
            value(stuck, to, content);
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
            stuck.shown.insert(append.key.to_string(), Shown::Value(Box::new(head), Arc::new(content)));
        }
        (Act::Declare { key, .. }, Some(base)) => {
            let head = Head { writer: record.author.writer.clone(), ..base.head };
            stuck.shown.insert(key.to_string(), Shown::Value(Box::new(head), base.content));
        }
        (Act::Attributes { path, set, .. }, Some(base)) => {
            let mut head = base.head;
            set.change().apply(&mut head.attributes);
            stuck.shown.insert(path.clone(), Shown::Value(Box::new(head), base.content));
        }
        (Act::Delete { key, .. }, _) => {
            stuck.shown.insert(key.to_string(), Shown::Gone);
        }
        (Act::MakeDir { dir, kept }, _) => {
            stuck.shown.insert(dir.to_string(), Shown::Dir(kept.attributes()));
        }
        (Act::RemoveDir { dir }, _) => {
            stuck.shown.insert(dir.to_string(), Shown::Gone);
        }
        (Act::RenameDir { .. }, _) => stuck.blocked = true,
        (Act::Policy { policy }, _) => stuck.policy = Some(*policy),
        // A stranger's value without its mark is found again by the next reader.
        (Act::Adopt { .. } | Act::Drop { .. } | Act::Append(_) | Act::Declare { .. } | Act::Attributes { .. }, _) => {}
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
