//! The mounts of this machine, as far as the command needs them: which of them are ours, and of which store.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::committer::{Refusal, RefusalKind, place};
use crate::words::key::BATON_DIR;

/// The type our mounts have in the system's table, and the one they have where only the kernel's own name was given.
const OURS: &str = "fuse.batonfs";
const BARE: &str = "fuse";

/// A line of the system's table of mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where.
    pub(super) at: PathBuf,
    /// What of it is seen there: `/`, or the part that is.
    part: PathBuf,
    /// Of what type.
    pub(super) kind: String,
    /// Of what; for ours the store.
    pub(super) source: PathBuf,
}

impl Mount {
    /// Is it one of ours? By its type, or by a source that is a store.
    pub(super) fn is_ours(&self) -> bool {
        let is_store = || self.source.is_absolute() && self.source.join(BATON_DIR).is_dir();
        self.kind == OURS || (self.kind == BARE && is_store())
    }
}

/// The mount that is seen at exactly this path, the last one made there.
pub(super) fn find(at: &Path) -> io::Result<Option<Mount>> {
    Ok(table()?.into_iter().rev().find(|mount| mount.at == at))
}

fn table() -> io::Result<Vec<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// `id parent major:minor root mountpoint options [tags...] - type source options`
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let part = path(fields.nth(3)?);
    let at = path(fields.next()?);
    fields.find(|field| *field == b"-")?;
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    Some(Mount { at, part, kind, source: path(fields.next()?) })
}

/// Space, tab, newline, backslash and `#` stand there as three octal digits after a backslash.
fn path(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match (first, digits) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// The canonical path of a place that may be a mount without its daemon, which cannot be looked at itself.
pub(super) fn canonical(at: &Path) -> io::Result<PathBuf> {
    match at.canonicalize() {
        Err(e) if is_dead(&e) => {
            let parent = at.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = at.file_name().ok_or(e)?;
            Ok(parent.canonicalize()?.join(name))
        }
        other => other,
    }
}

/// Is this the error of a mount whose daemon is gone?
pub(super) fn is_dead(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOTCONN)
}

/// The canonical path of the store at `path`, which may also be where the store is mounted.
pub(super) fn store_at(path: &Path) -> Result<PathBuf, Refusal> {
    let root = place::canonical(path)?;
    let table = table().map_err(|e| Refusal::failed("reading the table of mounts", e))?;
    let ours = table.iter().rev().find(|mount| mount.is_ours() && root.starts_with(&mount.at));
    match ours {
        None => Ok(root),
        Some(mount) if mount.at == root && mount.part == Path::new("/") => place::canonical(&mount.source),
        Some(mount) => {
            let at = mount.at.display();
            let words = format!("'{}' is inside the mount at '{at}', or a part of one, not a store", path.display());
            Err(Refusal::new(RefusalKind::Usage, words).with_hint(format!("the store is '{}'", mount.source.display())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_read_with_its_escapes() {
        let line =
            br"36 35 0:40 / /mnt/a\040b rw,nosuid,nodev shared:7 - fuse.batonfs /srv/st\134ore\011x rw,user_id=0";
        let mount = parse(line).unwrap();
        assert_eq!(mount.at, Path::new("/mnt/a b"));
        assert_eq!(mount.source, Path::new("/srv/st\\ore\tx"));
        assert!(mount.is_ours());
    }

    #[test]
    fn a_line_that_is_none_is_passed_over() {
        for line in [&b""[..], b"36 35 0:40 / /mnt rw", b"36 35 0:40 / /mnt rw - ", b"36 35 0:40 / /mnt rw - fuse"] {
            assert_eq!(parse(line), None, "{}", String::from_utf8_lossy(line));
        }
        assert_eq!(path(br"\"), Path::new("\\"));
        assert_eq!(path(br"\04"), Path::new("\\04"));
        assert_eq!(path(br"\999"), Path::new("\\999"));
    }
}
