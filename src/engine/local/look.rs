//! What is at a path now: a value with its mark, a directory, nothing. Reads only; decides whose a value is.

use std::collections::BTreeMap;

use super::super::value::Attributes;
use super::super::{EngineError, Head, Result};
use super::disk::{Access, Disk, DiskFile, Form, Stat};
use super::mark::{self, Mark};
use super::{paths, time, tree};
use crate::words::{SessionId, Version, Writer};

/// The prefix of the xattrs that are ours, on disk and through the mount.
const OUR_XATTRS: &str = "user.baton";

/// A longer sidecar is none: it is read into memory.
const SIDECAR_MAX_BYTES: u64 = 1 << 20;

/// What was found at a path.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack of one call; a box would cost every read an allocation"
)]
pub(super) enum Look {
    /// Nothing, or nothing that can be reached without following a symlink.
    Nothing,
    /// A directory.
    Dir,
    /// A symlink or special file: in the way, but never shown.
    InTheWay,
    /// A file.
    File(Found),
}

/// An open value.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) stat: Stat,
    /// Its mark, which may not fit it any more; one that was put on it at another path is none.
    pub(super) mark: Option<Mark>,
    /// It was staged by us and has no mark yet.
    pub(super) is_draft: bool,
}

impl Found {
    /// The version that a file is which was staged for `version`: that, or what has been appended to it since.
    pub(super) fn grown_from(&self, version: Version) -> Version {
        self.mark.as_ref().filter(|mark| mark.covers(version)).map_or(version, |mark| mark.version)
    }

    /// The mark, where it speaks of the file as it is; else the value is a stranger's.
    pub(super) fn ours(&self) -> Option<&Mark> {
        self.mark.as_ref().filter(|mark| mark.fits(&self.stat))
    }
}

/// Looks at a path of a session.
///
/// # Errors
/// [`EngineError::Io`].
pub(super) fn look(disk: &dyn Disk, session: &SessionId, path: &str, access: Access) -> Result<Look> {
    look_at(disk, &paths::value(session, path), access)
}

/// Looks at any path of the store.
///
/// # Errors
/// [`EngineError::Io`].
pub(super) fn look_at(disk: &dyn Disk, place: &str, access: Access) -> Result<Look> {
    let io = |e| EngineError::io(format!("reading {place}"), e);
    let file = match disk.open(place, access) {
        Ok(file) => file,
        Err(e) if e.raw_os_error() == Some(libc::EISDIR) => return Ok(Look::Dir),
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => return Ok(Look::InTheWay),
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
            // The symlink is at the end, or further up where it hides everything below it.
            return Ok(disk.stat(place).map_or(Look::Nothing, |_| Look::InTheWay));
        }
        Err(e) if tree::is_missing(&e) => return Ok(Look::Nothing),
        Err(e) => return Err(io(e)),
    };
    let stat = file.stat().map_err(io)?;
    match stat.form {
        Form::Dir => Ok(Look::Dir),
        Form::Other => Ok(Look::InTheWay),
        Form::File => {
            let (mark, is_draft) = Mark::read_or_room(&*file).map_err(io)?;
            Ok(Look::File(Found { file, stat, mark: mark.filter(|mark| mark.is_of(place)), is_draft }))
        }
    }
}

/// Mode, owner, times and user xattrs of an open file or directory.
///
/// # Errors
/// [`EngineError::Io`].
pub(super) fn attributes(file: &dyn DiskFile, stat: &Stat) -> Result<Attributes> {
    let io = |e| EngineError::io("reading xattrs", e);
    let mut xattrs = BTreeMap::new();
    for name in file.xattr_names().map_err(io)? {
        if name.starts_with("user.")
            && !name.starts_with(OUR_XATTRS)
            && let Some(value) = file.xattr(&name).map_err(io)?
        {
            xattrs.insert(name, value);
        }
    }
    Ok(Attributes { xattrs, ..plain(stat) })
}

/// Attributes without xattrs, from a stat alone.
pub(super) fn plain(stat: &Stat) -> Attributes {
    Attributes {
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: time::from_ns(stat.mtime_ns),
        xattrs: BTreeMap::new(),
    }
}

/// The head of a found value whose mark is given.
///
/// # Errors
/// [`EngineError::Io`].
pub(super) fn head(disk: &dyn Disk, session: &SessionId, key: &str, found: &Found, mark: &Mark) -> Result<Head> {
    let writer = if mark.foreign { foreign_writer(disk, session, key, mark.mtime_ns)? } else { mark.writer.clone() };
    Ok(Head {
        version: mark.version,
        appends_since: mark.since,
        seq: mark.seq,
        size_bytes: mark.size,
        writer,
        committed_at_s: mark.at_s,
        attributes: attributes(&*found.file, &found.stat)?,
    })
}

/// The writer of a value that the neighbour put there: from its sidecar, when that is not one of ours (which is left
/// from the version before) and not older than the value (the neighbour writes it afterwards); else unknown.
///
/// # Errors
/// [`EngineError::Io`].
pub(super) fn foreign_writer(disk: &dyn Disk, session: &SessionId, key: &str, mtime_ns: i64) -> Result<Writer> {
    #[derive(serde::Deserialize)]
    struct Sidecar {
        #[serde(default)]
        writer: Writer,
    }
    let place = paths::sidecar(session, key);
    let Look::File(found) = look_at(disk, &place, Access::Read)? else { return Ok(Writer::default()) };
    let ours = found.file.xattr(mark::NAME).map_err(|e| EngineError::io(format!("reading {place}"), e))?.is_some();
    if ours || found.stat.mtime_ns < mtime_ns || found.stat.size_bytes > SIDECAR_MAX_BYTES {
        return Ok(Writer::default());
    }
    // A sidecar we cannot read names nobody: the neighbour's own business, and no reason to hide the value.
    let sidecar = serde_json::from_slice::<Sidecar>(&super::stage::read_whole(&*found.file, &place)?);
    Ok(sidecar.map(|sidecar| sidecar.writer).unwrap_or_default())
}

/// Puts attributes on a file or directory. Owners that only root could give are left as they are.
///
/// # Errors
/// [`EngineError::Io`], [`EngineError::NoSpace`].
pub(super) fn set_attributes(file: &dyn DiskFile, want: &Attributes, place: &str) -> Result<()> {
    let io = |e| EngineError::io(format!("setting attributes of {place}"), e);
    let (names, stat) = (file.xattr_names().map_err(io)?, file.stat().map_err(io)?);
    set_attributes_over(file, &stat, &names, want, place)
}

/// The same where it is known what it has.
///
/// # Errors
/// As [`set_attributes`].
pub(super) fn set_attributes_over(
    file: &dyn DiskFile,
    stat: &Stat,
    xattrs: &[String],
    want: &Attributes,
    place: &str,
) -> Result<()> {
    for name in xattrs {
        if name.starts_with("user.") && name != mark::NAME && !want.xattrs.contains_key(name) {
            file.remove_xattr(name).map_err(|e| EngineError::io(format!("setting attributes of {place}"), e))?;
        }
    }
    put_attributes(file, stat, want, place)
}

/// Puts attributes on what was just made.
///
/// # Errors
/// As [`set_attributes`].
pub(super) fn set_first_attributes(file: &dyn DiskFile, want: &Attributes, place: &str) -> Result<()> {
    let stat = file.stat().map_err(|e| EngineError::io(format!("setting attributes of {place}"), e))?;
    put_attributes(file, &stat, want, place)
}

fn put_attributes(file: &dyn DiskFile, stat: &Stat, want: &Attributes, place: &str) -> Result<()> {
    let io = |e| EngineError::io(format!("setting attributes of {place}"), e);
    if (stat.uid, stat.gid) != (want.uid, want.gid) {
        match file.set_owner(want.uid, want.gid) {
            Err(e) if e.raw_os_error() != Some(libc::EPERM) => return Err(io(e)),
            _ => {}
        }
    }
    for (name, value) in want.xattrs.iter().filter(|(name, _)| !name.starts_with(OUR_XATTRS)) {
        file.set_xattr(name, value).map_err(io)?;
    }
    // The mode last: a change of owner, or of bytes, clears its set-id bits, and a read-only file takes no xattr.
    let mode = want.mode & 0o7777;
    if stat.mode != mode || mode & (libc::S_ISUID | libc::S_ISGID) != 0 {
        file.set_mode(mode).map_err(io)?;
    }
    file.set_mtime(time::to_ns(want.mtime)).map_err(io)
}
