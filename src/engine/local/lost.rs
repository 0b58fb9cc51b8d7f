//! Drafts that became no version: staged like a value, and published beside the versions of their key. Knows files of
//! history; must not know why a draft was lost.

use super::super::{Attributes, Context, Result, Staged};
use super::commit::Decision;
use super::disk::Access;
use super::look::{self, Look};
use super::mark::Span;
use super::publish::{Work, io};
use super::record::{Act, Kept, LostDraft, Record, Value};
use super::{LocalEngine, paths, time, tree};
use crate::words::{Key, Past, SessionId};

impl LocalEngine {
    /// Stages the bytes of a lost draft like those of a value; without them its line alone is left.
    ///
    /// # Errors
    /// As [`LocalEngine::stage_value`].
    pub(super) fn decide_drop(
        &self,
        session: &SessionId,
        draft: LostDraft,
        kept: Option<(Staged, Attributes)>,
        context: &Context,
        operation: &str,
    ) -> Result<Decision> {
        let time_ms = time::now_ms();
        let Some((content, attributes)) = kept else { return Ok(Decision::of(Act::Drop(draft))) };
        // Before the record: on a disk that is nearly full it is this that may find no room, and nothing is committed yet.
        let place = paths::history_key(session, draft.key.as_str());
        if self.disk.stat(&place).is_err() {
            tree::make_dirs(&*self.disk, &place)?;
        }
        let staged = self.stage_value(operation, &content, &attributes, &context.author)?;
        let value = Value {
            key: draft.key.clone(),
            version: 0,
            over: None,
            size: content.len(),
            crc: staged.crc,
            kept: Kept { mtime_ns: staged.mtime_ns, ..Kept::of(&attributes) },
            body: staged.body,
            file: staged.id,
        };
        let act = Act::Drop(LostDraft { value: Some(value), ..draft });
        let (body, file) = (staged.bytes, Some(staged.file));
        Ok(Decision { body, content: Some(content), draft: file, time_ms, ..Decision::of(act) })
    }

    /// Puts a lost draft in its place, and prunes those too far before it. Doing it again changes nothing.
    ///
    /// # Errors
    /// As [`LocalEngine::publish`].
    pub(super) fn keep_lost(&self, record: &Record, draft: &LostDraft, work: &Work<'_>) -> Result<()> {
        let Some(value) = &draft.value else { return Ok(()) };
        let (staged, place) = (paths::draft(&record.operation), record.lost_at(draft));
        if self.ready_draft(record, value, work)?.is_some() {
            let renamed = match self.disk.rename(&staged, &place) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    tree::make_dirs_above(&*self.disk, &place)?;
                    self.disk.rename(&staged, &place)
                }
                other => other,
            };
            renamed.map_err(io("keeping", &place))?;
        } else {
            self.mark_lost(record, value, &place)?;
        }
        self.prune_lost(record, &draft.key)
    }

    /// A large one that is in its place already: power may have taken its mark, and its attributes.
    fn mark_lost(&self, record: &Record, value: &Value, place: &str) -> Result<()> {
        let Look::File(found) = look::look_at(&*self.disk, place, Access::Read)? else { return Ok(()) };
        look::set_attributes(&*found.file, &value.kept.attributes(), place)?;
        let mtime_ns = found.file.stat().map_err(io("reading", place))?.mtime_ns;
        record.mark(place, Span { mtime_ns, ..value.span() }).write(&*found.file, place)
    }

    /// Removes all but the newest lost drafts of a key.
    fn prune_lost(&self, record: &Record, key: &Key) -> Result<()> {
        let keep = record.keeps();
        if keep.count == 0 {
            return Ok(());
        }
        let mut drafts = self.kept_past(&record.session, key)?;
        // Of a record that is published again, those that came after it are there too.
        drafts.retain(|past| matches!(past, Past::Draft(seq, _) if *seq <= record.seq));
        let old = keep.too_many(drafts.len());
        drafts
            .into_iter()
            .take(old)
            .try_for_each(|past| tree::unlink(&*self.disk, &paths::past(&record.session, key.as_str(), past)))
    }
}
