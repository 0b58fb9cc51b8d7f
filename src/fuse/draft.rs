//! The private bytes of one open file: what its writer reads back, and what a commit will carry.
//! Knows bytes and versions, not who writes or when it is committed.

use crate::engine::value::renumbered;
use crate::engine::{self, Engine, Snapshot, Stage, Staged};
use crate::store;
use crate::words::Version;

/// The bytes.
#[derive(Debug)]
enum Bytes {
    /// Nothing was written: reads come from the pinned version.
    Untouched,
    /// A whole value in the making.
    Whole { stage: Box<dyn Stage>, base: store::Base },
    /// Bytes to put after whatever is current at commit.
    Append(Vec<u8>),
}

/// A draft with what it was made from.
#[derive(Debug)]
pub struct Draft {
    bytes: Bytes,
    /// The version that reads see until something is written, and that an edit copies.
    pinned: Option<Snapshot>,
    /// The version this handle committed last, until it reads again: what its next edit is judged against.
    mine: Option<u64>,
    /// There is something no commit has made: written bytes, a truncation, a new name.
    dirty: bool,
    /// Every write starts a fresh document (the handoff).
    document: bool,
    /// It is a new name with nothing written to it: of no account once another has committed a value there.
    made: Option<Made>,
}

/// What a name that was only made is to who has it open, once another has committed a value there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// That value.
    Unseen,
    /// Empty as before: it was read, or its open was to empty what is there.
    Empty,
}

impl Draft {
    /// The draft of a handle on an existing value.
    #[must_use]
    pub fn of_existing(document: bool) -> Self {
        Self { bytes: Bytes::Untouched, pinned: None, mine: None, dirty: false, document, made: None }
    }

    /// The draft of a handle on a new name, whose empty value counts as written.
    #[must_use]
    pub fn of_new(document: bool, engine: &dyn Engine) -> Self {
        Self { bytes: fresh(engine), dirty: true, made: Some(Made::Unseen), ..Self::of_existing(document) }
    }

    /// The same for a handle that appends: whoever else creates the name, its bytes go after theirs.
    #[must_use]
    pub fn of_new_log() -> Self {
        Self { bytes: Bytes::Append(Vec::new()), dirty: true, made: Some(Made::Unseen), ..Self::of_existing(false) }
    }

    /// Was a new name made, and nothing written to it yet?
    #[must_use]
    pub fn is_only_made(&self) -> bool {
        self.made.is_some()
    }

    /// It was made by an open that truncates: what is written to it is a value of its own, whatever another has put there.
    pub fn truncated(&mut self) {
        self.made = Some(Made::Empty);
    }

    /// It is read, and nothing was there: what is written then is an edit of that.
    pub fn saw(&mut self) {
        if let (Some(Made::Unseen), Bytes::Whole { base, .. }) = (self.made, &mut self.bytes) {
            (*base, self.made) = (store::Base::Version(0), Some(Made::Empty));
        }
    }

    /// Another has made the name that this one has only made, too: there is nothing of it to commit.
    pub fn give_way(&mut self) {
        match self.made.take() {
            Some(Made::Unseen) => *self = Self::of_existing(self.document),
            Some(Made::Empty) => self.dirty = false,
            None => {}
        }
    }

    /// The name is put in the place of a value: what was made replaces that, be it empty.
    pub fn stand(&mut self) {
        self.made = None;
    }

    /// Is there something to commit?
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Is what there is to commit an append of some bytes?
    #[must_use]
    pub fn is_append(&self) -> bool {
        self.append_bytes() > 0
    }

    /// How many bytes there are to append.
    #[must_use]
    pub fn append_bytes(&self) -> u64 {
        match &self.bytes {
            Bytes::Append(bytes) if self.dirty => bytes.len() as u64,
            _ => 0,
        }
    }

    /// Would what there is to commit go after whatever is current, be it nothing yet?
    #[must_use]
    pub fn is_log(&self) -> bool {
        self.dirty && matches!(self.bytes, Bytes::Append(_))
    }

    /// How many bytes a reader of the draft sees.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let pinned = self.pinned.as_ref().map_or(0, |snapshot| snapshot.head.size_bytes);
        match &self.bytes {
            Bytes::Untouched => pinned,
            Bytes::Whole { stage, .. } => stage.len(),
            Bytes::Append(bytes) => pinned + bytes.len() as u64,
        }
    }

    /// Was nothing written since the draft was made or last taken?
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        matches!(self.bytes, Bytes::Untouched)
    }

    /// Is it the draft of a value of which nothing was read or written, since a commit of its own if there was one?
    #[must_use]
    pub fn is_unbegun(&self) -> bool {
        self.is_untouched() && self.pinned.is_none()
    }

    /// Does a read need a pinned version that is not there yet?
    #[must_use]
    pub fn wants_pin(&self) -> bool {
        self.pinned.is_none() && !matches!(self.bytes, Bytes::Whole { .. })
    }

    /// The version reads see.
    #[must_use]
    pub fn pinned(&self) -> Option<&Snapshot> {
        self.pinned.as_ref()
    }

    /// Pins the newest version for a read: an edit that follows is made from what was read.
    pub fn pin_for_read(&mut self, newest: Option<Snapshot>) {
        self.pinned = newest;
        self.mine = None;
    }

    /// Pins the newest version for an edit: after a commit of this handle's own, it is still judged against that one.
    pub fn pin_for_edit(&mut self, newest: Option<Snapshot>) {
        self.pinned = newest;
    }

    /// Reads the draft.
    ///
    /// # Errors
    /// As [`Stage::read_at`].
    pub fn read(&self, offset: u64, size: usize) -> engine::Result<Vec<u8>> {
        match &self.bytes {
            Bytes::Whole { stage, .. } => {
                let left = usize::try_from(stage.len().saturating_sub(offset)).unwrap_or(usize::MAX);
                let mut buffer = vec![0; size.min(left)];
                let mut done = 0;
                while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
                    match stage.read_at(offset + done as u64, rest)? {
                        0 => break,
                        n => done += n,
                    }
                }
                buffer.truncate(done);
                Ok(buffer)
            }
            Bytes::Untouched => self.read_pinned(offset, size),
            Bytes::Append(bytes) => {
                let mut out = self.read_pinned(offset, size)?;
                let end = self.pinned.as_ref().map_or(0, |snapshot| snapshot.head.size_bytes);
                let skip = usize::try_from((offset + out.len() as u64).saturating_sub(end)).unwrap_or(usize::MAX);
                let rest = bytes.get(skip..).unwrap_or_default();
                out.extend(rest.iter().take(size - out.len()));
                Ok(out)
            }
        }
    }

    /// Writes at an offset. A pinned version (see [`Draft::wants_pin`]) must be there for an edit.
    ///
    /// # Errors
    /// As [`Stage::write_at`]; the draft is then of no use any more.
    pub fn write(&mut self, offset: u64, bytes: &[u8], engine: &dyn Engine) -> engine::Result<()> {
        let stage = self.whole(engine)?;
        stage.write_at(offset, bytes)?;
        (self.dirty, self.made) = (true, None);
        Ok(())
    }

    /// Is what there is to commit that the value is emptied, and no more?
    #[must_use]
    pub fn only_empties(&self) -> bool {
        let empty = matches!(&self.bytes, Bytes::Whole { stage, .. } if stage.is_empty());
        empty && self.dirty && self.made.is_none() && !self.document
    }

    /// Would a write that ends within this be into memory alone: onto no version, and with nothing to be committed first?
    #[must_use]
    pub fn takes_into_memory(&self, append: bool, most_bytes: u64) -> bool {
        let whole = match &self.bytes {
            Bytes::Whole { stage, .. } => stage.len() <= most_bytes,
            Bytes::Untouched | Bytes::Append(_) => append && !self.document,
        };
        whole && self.made.is_none() && !(append && self.only_empties())
    }

    /// Writes at the end: of the draft when a whole value is in the making, else of whatever is current at commit.
    ///
    /// # Errors
    /// As [`Stage::write_at`]; the draft is then of no use any more.
    pub fn append(&mut self, more: &[u8], engine: &dyn Engine) -> engine::Result<()> {
        if self.document && !self.dirty {
            self.bytes = fresh(engine);
        }
        match &mut self.bytes {
            Bytes::Append(bytes) => bytes.extend_from_slice(more),
            Bytes::Whole { stage, .. } if self.document || (self.dirty && self.made.is_none()) => {
                stage.write_at(stage.len(), more)?;
            }
            Bytes::Whole { .. } | Bytes::Untouched => self.bytes = Bytes::Append(more.to_vec()),
        }
        (self.dirty, self.made) = (true, None);
        Ok(())
    }

    /// Empties the draft as O_TRUNC does: what follows replaces whatever is there. `counts` is false when the value
    /// is empty already.
    pub fn restart(&mut self, counts: bool, engine: &dyn Engine) {
        self.bytes = fresh(engine);
        self.dirty |= counts;
        self.made = None;
    }

    /// Cuts or lengthens the draft (`ftruncate`). To nothing, on a handle that never read: as O_TRUNC.
    ///
    /// # Errors
    /// As [`Stage::set_len`]; the draft is then of no use any more.
    pub fn set_len(&mut self, len: u64, engine: &dyn Engine) -> engine::Result<()> {
        self.whole(engine)?.set_len(len)?;
        (self.dirty, self.made) = (true, None);
        Ok(())
    }

    /// Takes what is to be committed; the draft has nothing to commit until it is written again.
    pub fn take(&mut self) -> Option<(store::Draft, store::Base)> {
        if self.made.is_some() {
            // The name alone, and only as long as nobody else has made it.
            self.give_way();
            return Some((store::Draft::Whole(Staged::from(Vec::new())), store::Base::Exactly(0)));
        }
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        match std::mem::replace(&mut self.bytes, Bytes::Untouched) {
            Bytes::Untouched => None,
            Bytes::Whole { stage, base } => Some((store::Draft::Whole(stage.freeze()), base)),
            Bytes::Append(bytes) => Some((store::Draft::Append(bytes), store::Base::Fresh)),
        }
    }

    /// After a commit of a whole value as `version`, or of an append (`None`). The next read or edit takes the newest
    /// version; an edit without a read goes on from this handle's own, and is judged against it.
    pub fn committed(&mut self, version: Option<u64>) {
        if !self.dirty {
            self.bytes = Bytes::Untouched;
        }
        self.pinned = None;
        self.mine = version;
    }

    /// The key has another name, and there the version `before` is `now`.
    pub fn renumber(&mut self, before: Version, now: Version) {
        if let Some(snapshot) = &mut self.pinned {
            snapshot.renumber(before, now);
        }
        let of = |version: &mut Version| *version = renumbered(*version, before, now);
        self.mine.iter_mut().for_each(of);
        if let Bytes::Whole { base: store::Base::Version(base), .. } = &mut self.bytes {
            of(base);
        }
    }

    /// The name is gone, so nothing is ever committed: the handle goes on with bytes of its own.
    ///
    /// # Errors
    /// As [`Stage::write_at`]; the draft is then of no use any more.
    pub fn stay_private(&mut self, engine: &dyn Engine) -> engine::Result<()> {
        if !matches!(self.bytes, Bytes::Append(_)) {
            return Ok(());
        }
        let Bytes::Append(more) = std::mem::replace(&mut self.bytes, Bytes::Untouched) else { return Ok(()) };
        let stage = self.whole(engine)?;
        stage.write_at(stage.len(), &more)
    }

    /// Drops what is not committed.
    pub fn discard(&mut self) {
        (self.dirty, self.made) = (false, None);
        self.bytes = Bytes::Untouched;
    }

    fn read_pinned(&self, offset: u64, size: usize) -> engine::Result<Vec<u8>> {
        self.pinned.as_ref().map_or_else(|| Ok(Vec::new()), |snapshot| snapshot.read(offset, size))
    }

    /// The stage of a whole value, made from what there is: nothing for a document, else a copy of the pinned version.
    fn whole(&mut self, engine: &dyn Engine) -> engine::Result<&mut Box<dyn Stage>> {
        if self.document && !self.dirty {
            self.bytes = fresh(engine);
        }
        if !matches!(self.bytes, Bytes::Whole { .. }) {
            let mut stage = engine.stage();
            let mut base = self.mine.unwrap_or(0);
            if let Some(snapshot) = &self.pinned {
                stage.copy_from(snapshot)?;
                base = self.mine.unwrap_or(snapshot.head.version);
            }
            self.bytes = Bytes::Whole { stage, base: store::Base::Version(base) };
        }
        match &mut self.bytes {
            Bytes::Whole { stage, .. } => Ok(stage),
            // Just made above.
            Bytes::Untouched | Bytes::Append(_) => Err(engine::EngineError::Closed("no draft".to_owned())),
        }
    }
}

fn fresh(engine: &dyn Engine) -> Bytes {
    Bytes::Whole { stage: engine.stage(), base: store::Base::Fresh }
}
