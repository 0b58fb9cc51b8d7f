//! Staging: values and sidecars under names nobody reads, ready to be renamed into place. Knows files and attributes;
//! must not know what is at the place they go to.

use super::super::{Attributes, EngineError, Result, Staged, sidecar};
use super::disk::{Access, DiskFile, FileId, Stat};
use super::look::{self, Found, Look};
use super::mark::{self, Mark, Now};
use super::publish::Work;
use super::record::{Body, Record, Value};
use super::spare::Spare;
use super::stage::{self, INLINE_BYTES};
use super::{LocalEngine, paths, tree};
use crate::words::Author;

/// A staged value.
#[derive(Debug)]
pub(super) struct StagedValue {
    pub(super) body: Body,
    /// The bytes for the record; none when they are in the draft.
    pub(super) bytes: Vec<u8>,
    pub(super) crc: u32,
    /// The modification time as the file system keeps it.
    pub(super) mtime_ns: i64,
    /// The draft, open.
    pub(super) file: Box<dyn DiskFile>,
    /// Which file it is.
    pub(super) id: FileId,
}

fn io(e: std::io::Error) -> EngineError {
    EngineError::io("writing a draft", e)
}

/// Gives a file of a size these bytes, whatever it held.
pub(super) fn write_over(file: &dyn DiskFile, size_bytes: u64, bytes: &[u8]) -> Result<()> {
    if size_bytes != bytes.len() as u64 {
        file.set_len(bytes.len() as u64).map_err(io)?;
    }
    file.write_at(0, bytes).map_err(io)
}

impl LocalEngine {
    /// Makes the draft of a value. A large one is durable afterwards; a small one is so with its record.
    ///
    /// # Errors
    /// [`EngineError::NoSpace`], [`EngineError::Io`].
    pub(super) fn stage_value(
        &self,
        operation: &str,
        content: &Staged,
        attributes: &Attributes,
        author: &Author,
    ) -> Result<StagedValue> {
        let path = paths::draft(operation);
        if content.len() <= INLINE_BYTES {
            let bytes = content.read_all()?;
            let (file, plain) = self.write_draft(&path, &bytes, attributes)?;
            if plain {
                Mark::reserve_beside(&*file, &path, Now::Draft, &author.writer, || Ok(false))?;
            } else {
                Mark::reserve(&*file, &path, Now::Draft, &author.writer)?;
            }
            let Stat { id, mtime_ns, .. } = file.stat().map_err(io)?;
            return Ok(StagedValue { body: Body::Inline, crc: crc32c::crc32c(&bytes), bytes, mtime_ns, file, id });
        }
        tree::unlink(&*self.disk, &path)?;
        let file = self.place_large(&path, content)?;
        let crc = match content {
            Staged::File { crc: Some(crc), .. } => *crc,
            _ => stage::checksum(content.len(), |at, buffer| file.read_at(at, buffer).map_err(io))?,
        };
        look::set_first_attributes(&*file, attributes, &path)?;
        Mark::reserve(&*file, &path, Now::Draft, &author.writer)?;
        let Stat { id, mtime_ns, .. } = file.stat().map_err(io)?;
        // Both before the record: a record never names bytes that a crash can take.
        file.sync().map_err(io)?;
        self.disk.sync_dir(paths::DRAFTS).map_err(io)?;
        Ok(StagedValue { body: Body::Draft, bytes: Vec::new(), crc, mtime_ns, file, id })
    }

    /// Makes the draft of a sidecar, and says which file it is; none for an empty writer, which the neighbour would take
    /// for damage.
    ///
    /// # Errors
    /// As [`LocalEngine::stage_value`].
    pub(super) fn stage_sidecar(&self, operation: &str, author: &Author, time_ms: u64) -> Result<Option<FileId>> {
        if author.writer.is_empty() {
            return Ok(None);
        }
        let path = paths::draft_sidecar(operation);
        if let Some(spare) = self.spare_sidecars.take(&*self.disk, &path, Spare::is_sidecar) {
            write_over(&*spare.file, spare.stat.size_bytes, &sidecar(&author.writer, time_ms / 1000))?;
            return Ok(Some(spare.stat.id));
        }
        self.make_sidecar(&path, author, time_ms).map(Some)
    }

    /// Makes the draft of a record's sidecar once more. No record names that file, so it is a new one: one that was in
    /// another place before could be there again after a power cut, without its mark and with the time of now.
    ///
    /// # Errors
    /// As [`LocalEngine::stage_value`].
    pub(super) fn stage_sidecar_again(&self, record: &Record) -> Result<()> {
        let path = paths::draft_sidecar(&record.operation);
        self.spare_sidecars.forget(&path);
        self.make_sidecar(&path, &record.author, record.time_ms).map(drop)
    }

    fn make_sidecar(&self, path: &str, author: &Author, time_ms: u64) -> Result<FileId> {
        let file = tree::create(&*self.disk, path, SIDECAR_MODE).map_err(io)?;
        file.write_at(0, &sidecar(&author.writer, time_ms / 1000)).map_err(io)?;
        // It says whose version it speaks of: never of a stranger's value, however old that value's time is.
        file.set_xattr(mark::NAME, mark::SIDECARS).map_err(io)?;
        Ok(file.stat().map_err(io)?.id)
    }

    /// Makes sure that the draft of a committed value is there, marked; which file it is. `None`: it is not, and
    /// cannot be made again (it has been published and replaced since).
    ///
    /// # Errors
    /// As [`LocalEngine::stage_value`].
    pub(super) fn ready_draft(&self, record: &Record, value: &Value, work: &Work<'_>) -> Result<Option<FileId>> {
        let path = paths::draft(&record.operation);
        let target = record.marked_at(value);
        if let Some(draft) = work.draft {
            record.mark(&target, value.span()).write(draft, &path)?;
            return Ok(Some(value.file));
        }
        self.take_out(record, value, &path, &target)?;
        let inline = value.body == Body::Inline;
        if inline && work.replay.is_some() {
            // What a crash left of a small draft may be torn.
            match self.disk.rename(&paths::draft_again(&record.operation), &path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map_err(io)?,
            }
        }
        let mut look = look::look_at(&*self.disk, &path, Access::Read)?;
        let staged = match &look {
            Look::File(draft) => self.is_staged(value, draft)?,
            _ => false,
        };
        if !staged && inline {
            self.write_draft(&path, work.body, &value.kept.attributes()).inspect_err(|_| self.forget_part(&path))?;
            look = look::look_at(&*self.disk, &path, Access::Read)?;
        }
        let Look::File(draft) = look else { return Ok(None) };
        if !inline && !staged {
            return Ok(None);
        }
        let span = mark::Span { mtime_ns: draft.stat.mtime_ns, ..value.span() };
        record.mark(&target, span).write(&*draft.file, &path)?;
        Ok(Some(draft.stat.id))
    }

    /// An attempt before may have failed between an exchange and the move to history: the version that came out is in the
    /// draft, and is moved there.
    fn take_out(&self, record: &Record, value: &Value, draft: &str, target: &str) -> Result<()> {
        let Look::File(left) = look::look_at(&*self.disk, draft, Access::Read)? else { return Ok(()) };
        if left.stat.id == value.file {
            return Ok(());
        }
        let mark = Mark::read(&*left.file).map_err(io)?;
        match mark.filter(|mark| mark.is_of(target) && mark.version < value.version) {
            Some(mark) => self.keep_new(record, &value.key, mark.version, draft),
            None => Ok(()),
        }
    }

    /// Stages a small value again from its record, marked. Once everything is synced it can be published like one that
    /// was never lost, also if power goes again.
    ///
    /// # Errors
    /// As [`LocalEngine::stage_value`].
    pub(super) fn stage_again(&self, record: &Record, value: &Value, body: &[u8]) -> Result<()> {
        let path = paths::draft_again(&record.operation);
        let target = record.marked_at(value);
        let staged = self.write_draft(&path, body, &value.kept.attributes()).and_then(|(file, _)| {
            let mtime_ns = file.stat().map_err(io)?.mtime_ns;
            record.mark(&target, mark::Span { mtime_ns, ..value.span() }).write(&*file, &path)
        });
        staged.inspect_err(|_| self.forget_part(&path))
    }

    /// Removes what a full disk has taken of a draft: the next attempt must not find it and take it for the whole.
    fn forget_part(&self, path: &str) {
        if let Err(e) = tree::unlink(&*self.disk, path) {
            tracing::warn!("a part of a draft stays: {e}");
        }
    }

    /// Is this the file that was staged for a value? In a copy of a store its bytes tell.
    pub(super) fn is_staged(&self, value: &Value, draft: &Found) -> Result<bool> {
        if draft.stat.id == value.file {
            return Ok(true);
        }
        let read = |at, buffer: &mut [u8]| draft.file.read_at(at, buffer).map_err(io);
        Ok(draft.stat.size_bytes == value.size && stage::checksum(value.size, read)? == value.crc)
    }

    /// `true`: it is known to have no xattr but a mark.
    fn write_draft(&self, path: &str, bytes: &[u8], attributes: &Attributes) -> Result<(Box<dyn DiskFile>, bool)> {
        match self.spare_values.take(&*self.disk, path, Spare::is_plain) {
            Some(spare) => {
                write_over(&*spare.file, spare.stat.size_bytes, bytes)?;
                look::set_attributes_over(&*spare.file, &spare.stat, &spare.xattrs, attributes, path)?;
                let plain = attributes.xattrs.is_empty() && spare.xattrs.iter().all(|name| name.starts_with("user."));
                Ok((spare.file, plain))
            }
            None => {
                let file = tree::create(&*self.disk, path, tree::PRIVATE).map_err(io)?;
                if !bytes.is_empty() {
                    file.write_at(0, bytes).map_err(io)?;
                }
                look::set_first_attributes(&*file, attributes, path)?;
                Ok((file, false))
            }
        }
    }

    fn place_large(&self, path: &str, content: &Staged) -> Result<Box<dyn DiskFile>> {
        match content {
            Staged::File { file, len, .. } => match self.link_large(path, file, *len) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => self.copy_large(path, content),
                other => other.map_err(io),
            },
            Staged::Memory(_) => self.copy_large(path, content),
        }
    }

    /// Gives the draft file a name instead of copying it. ENOENT when it has, or had, one: then it is, or was, another
    /// commit's value.
    fn link_large(&self, path: &str, file: &std::fs::File, len: u64) -> std::io::Result<Box<dyn DiskFile>> {
        use std::os::unix::fs::MetadataExt;
        let metadata = file.metadata()?;
        if metadata.nlink() != 0 {
            return Err(std::io::ErrorKind::NotFound.into());
        }
        if metadata.len() != len {
            file.set_len(len)?;
        }
        self.disk.link_anonymous(file, path)?;
        self.disk.open(path, Access::Write)
    }

    fn copy_large(&self, path: &str, content: &Staged) -> Result<Box<dyn DiskFile>> {
        let to = self.disk.create(path, tree::PRIVATE).map_err(io)?;
        match content {
            Staged::Memory(bytes) => to.write_at(0, bytes).map_err(io)?,
            Staged::File { file, len, .. } => {
                use std::os::unix::fs::FileExt;
                let read = |at, part: &mut [u8]| file.read_exact_at(part, at).map(|()| part.len()).map_err(io);
                stage::each_part(*len, read, |at, part| to.write_at(at, part).map_err(io))?;
            }
        }
        Ok(to)
    }
}

/// Mode of sidecars, less the umask: the neighbour's, which may run as somebody else.
pub(super) const SIDECAR_MODE: u32 = 0o666;
