//! The mark: what a published file says of itself, in the xattr `user.batonfs`. Knows the xattr's form only.

use serde::{Deserialize, Serialize};

use super::super::{EngineError, Result};
use super::disk::{DiskFile, Stat};
use crate::words::{Past, Seq, Version, Writer};

/// The xattr's name.
pub(super) const NAME: &str = "user.batonfs";
/// What it holds on a sidecar of ours.
pub(super) const SIDECARS: &[u8] = b" ";
/// The form written here; a mark of another form is a stranger's.
const FORM: u32 = 1;
/// Versions go on from any mark: one with a greater number, which no commit makes, is a stranger's.
const NUMBER_MAX: Version = Version::MAX >> 1;
/// What room for a mark is filled with.
const ROOM: u8 = b'#';
/// Marks are padded to a multiple of this, so that a longer number needs no more room beside the user's xattrs.
const PAD_BYTES: usize = 128;
/// Room that a file without other xattrs has for its mark: opening a store tries it.
pub(super) const ROOM_BYTES: usize = 768;

/// Version, writer and checksum of a published file, published with its bytes by one rename.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) form: u32,
    /// Checksum of the path it was published at, so that a file moved or copied beside the mount is seen as such.
    pub(super) place: u32,
    /// The version these bytes are.
    pub(super) version: Version,
    /// The oldest version this one only appended to.
    pub(super) since: Version,
    /// Its place in the session's order.
    pub(super) seq: Seq,
    /// Size in bytes.
    pub(super) size: u64,
    /// The file's modification time, nanoseconds since 1970.
    pub(super) mtime_ns: i64,
    /// CRC-32C of the bytes.
    pub(super) crc: u32,
    /// Seconds since 1970 of the commit.
    pub(super) at_s: u64,
    /// Who made it.
    pub(super) writer: Writer,
    /// Found, not made by us: its writer is in the neighbour's sidecar, which comes after the value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) foreign: bool,
    /// A version number that this name had before under another directory; the next one is above it too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) floor: Version,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(version: &Version) -> bool {
    *version == 0
}

/// What a file is that gets room for a mark.
#[derive(Debug, Clone, Copy)]
pub(super) enum Now<'a> {
    /// A version, whose mark it keeps.
    Marked(&'a Mark),
    /// A draft of ours.
    Draft,
    /// A value that is being adopted.
    Stranger,
}

/// The bytes and place of a mark.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// The version.
    pub(super) version: Version,
    /// The oldest version it only appended to.
    pub(super) since: Version,
    /// Size in bytes.
    pub(super) size: u64,
    /// Modification time, nanoseconds since 1970.
    pub(super) mtime_ns: i64,
    /// CRC-32C of the bytes.
    pub(super) crc: u32,
}

impl Mark {
    /// A mark for bytes committed at `seq`.
    pub(super) fn new(path: &str, span: Span, seq: Seq, at_s: u64, writer: Writer) -> Self {
        let Span { version, since, size, mtime_ns, crc } = span;
        Self {
            form: FORM,
            place: place(path),
            version,
            since,
            seq,
            size,
            mtime_ns,
            crc,
            at_s,
            writer,
            foreign: false,
            floor: 0,
        }
    }

    /// The mark of a file; `None` where there is none that we understand.
    pub(super) fn read(file: &dyn DiskFile) -> std::io::Result<Option<Self>> {
        Ok(Self::read_or_room(file)?.0)
    }

    /// The mark of a file; else whether room for one was made by [`Mark::reserve`].
    pub(super) fn read_or_room(file: &dyn DiskFile) -> std::io::Result<(Option<Self>, bool)> {
        let Some(bytes) = file.xattr(NAME)? else { return Ok((None, false)) };
        let ours = |mark: &Self| mark.form == FORM && mark.version.max(mark.floor) <= NUMBER_MAX;
        let mark = serde_json::from_slice::<Self>(&bytes).ok().filter(ours);
        Ok((mark, bytes.first() == Some(&ROOM)))
    }

    /// Puts the mark on a file.
    pub(super) fn write(&self, file: &dyn DiskFile, place: &str) -> Result<()> {
        file.set_xattr(NAME, &self.bytes(place, 0)?).map_err(|e| EngineError::io(format!("marking {place}"), e))
    }

    /// Makes sure, before the commit point, that a mark by `writer` will have room on a file: a file system bounds all
    /// xattrs of a file together. `now`: what the file is until then.
    ///
    /// # Errors
    /// [`EngineError::NoSpace`], [`EngineError::Io`]: there is none; the file's mark is as it was.
    pub(super) fn reserve(file: &dyn DiskFile, place: &str, now: Now<'_>, writer: &Writer) -> Result<()> {
        let beside = || file.xattr_names().map(|names| names.iter().any(|name| name != NAME));
        Self::reserve_beside(file, place, now, writer, beside)
    }

    /// The same where it may be known whether there are xattrs beside the mark.
    ///
    /// # Errors
    /// As [`Mark::reserve`].
    pub(super) fn reserve_beside(
        file: &dyn DiskFile,
        place: &str,
        now: Now<'_>,
        writer: &Writer,
        beside: impl FnOnce() -> std::io::Result<bool>,
    ) -> Result<()> {
        let widest = Self::widest(writer).bytes(place, 0)?.len();
        if widest <= ROOM_BYTES && !beside().map_err(|e| EngineError::io(format!("reading {place}"), e))? {
            return Ok(());
        }
        let room = match now {
            Now::Marked(mark) => mark.bytes(place, widest)?,
            Now::Draft => vec![ROOM; widest],
            Now::Stranger => vec![b' '; widest],
        };
        file.set_xattr(NAME, &room).map_err(|e| EngineError::io(format!("marking {place}"), e))
    }

    /// Has every mark by this writer room where nothing else needs any?
    pub(super) fn is_slim(writer: &Writer) -> bool {
        Self::widest(writer).bytes("", 0).is_ok_and(|bytes| bytes.len() <= ROOM_BYTES)
    }

    /// As long as a mark by this writer can be.
    fn widest(writer: &Writer) -> Self {
        Self {
            form: FORM,
            place: u32::MAX,
            version: u64::MAX,
            since: u64::MAX,
            seq: u64::MAX,
            size: u64::MAX,
            mtime_ns: i64::MIN,
            crc: u32::MAX,
            at_s: u64::MAX,
            writer: writer.clone(),
            foreign: true,
            floor: u64::MAX,
        }
    }

    fn bytes(&self, place: &str, least: usize) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)
            .map_err(|e| EngineError::io(format!("writing the mark of {place}"), std::io::Error::other(e)))?;
        bytes.resize(bytes.len().max(least).next_multiple_of(PAD_BYTES), b' ');
        Ok(bytes)
    }

    /// Was it put on a file at this path?
    pub(super) fn is_of(&self, path: &str) -> bool {
        self.place == place(path)
    }

    /// The same mark for the file at another path.
    pub(super) fn moved(self, path: &str) -> Self {
        Self { place: place(path), ..self }
    }

    /// Does it speak of the file as it is? Otherwise a program beside the mount changed the file in place, or a crash
    /// left it half.
    pub(super) fn fits(&self, stat: &Stat) -> bool {
        self.size == stat.size_bytes && self.mtime_ns == stat.mtime_ns
    }

    /// Are these bytes that version, or that version with appends after it?
    pub(super) fn covers(&self, version: Version) -> bool {
        self.since <= version && version <= self.version
    }

    /// Does it say that its file is this, of all that is kept of a key?
    pub(super) fn is_of_past(&self, past: Past) -> bool {
        match past {
            Past::Version(version) => self.covers(version),
            Past::Draft(seq, _) => (self.version, self.seq) == (0, seq),
        }
    }

    /// The number the next version gets.
    pub(super) fn next(&self) -> Version {
        self.version.max(self.floor) + 1
    }
}

fn place(path: &str) -> u32 {
    crc32c::crc32c(path.as_bytes())
}
