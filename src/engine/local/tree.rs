//! Directories of the store: making, listing, emptying. Knows which names are hidden; must not know versions.

use std::io::ErrorKind;

use super::super::{EngineError, Result};
use super::disk::{Disk, DiskFile, Form};
use super::paths;
use crate::words::SessionId;

/// Mode of directories that a value's path needs and nobody made.
const DIR_MODE: u32 = 0o777;
/// Mode of our own directories: history shows no one what the modes of the values would hide.
const OWN_MODE: u32 = 0o700;
/// Mode of our own files, and of drafts until they get their own.
pub(super) const PRIVATE: u32 = 0o600;

/// Makes a directory with all that are missing above it; those that exist stay as they are.
///
/// # Errors
/// [`EngineError::Io`], [`EngineError::NoSpace`].
pub(super) fn make_dirs(disk: &dyn Disk, path: &str) -> Result<()> {
    let mode = if path.starts_with(paths::OURS) { OWN_MODE } else { DIR_MODE };
    match disk.make_dir(path, mode) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound && path.contains('/') => {
            make_dirs(disk, paths::parent(path))?;
            match disk.make_dir(path, mode) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(making(path, e)),
                _ => Ok(()),
            }
        }
        other => other.map_err(|e| making(path, e)),
    }
}

/// Makes what is missing of the directories above a path.
///
/// # Errors
/// As [`make_dirs`].
pub(super) fn make_dirs_above(disk: &dyn Disk, path: &str) -> Result<()> {
    match paths::parent(path) {
        "" => Ok(()),
        dir => make_dirs(disk, dir),
    }
}

/// Moves everything below `from` to `to`, into the directories that are there already. Nothing at `from` is no error. What
/// cannot go there, as a directory is where a file would, or a file where a directory, or as its name is not UTF-8, stays:
/// it is the leaving of some other program, and to fail would be to fail for ever.
///
/// # Errors
/// [`EngineError::Io`], [`EngineError::NoSpace`]; doing it again moves the rest.
pub(super) fn merge(disk: &dyn Disk, from: &str, to: &str) -> Result<()> {
    let io = |e| EngineError::io(format!("moving {from}"), e);
    let names = match disk.read_dir(from) {
        Err(e) if is_missing(&e) => return Ok(()),
        other => other.map_err(io)?,
    };
    make_dirs_above(disk, to)?;
    match disk.rename_new(from, to) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        Err(e) if e.kind() == ErrorKind::NotADirectory => return Ok(()),
        other => return other.map_err(io),
    }
    for (name, form) in names {
        let Some(name) = name.to_str() else { continue };
        let (below_from, below_to) = (format!("{from}/{name}"), format!("{to}/{name}"));
        if form == Form::Dir {
            merge(disk, &below_from, &below_to)?;
            continue;
        }
        match disk.rename(&below_from, &below_to) {
            Err(e) if matches!(e.kind(), ErrorKind::IsADirectory | ErrorKind::NotADirectory) => {}
            other => other.map_err(io)?,
        }
    }
    match disk.remove_dir(from) {
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other.map_err(io),
    }
}

fn making(path: &str, e: std::io::Error) -> EngineError {
    EngineError::io(format!("making the directory {path}"), e)
}

/// Does an error say that there is nothing at a path?
pub(super) fn is_missing(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        || e.raw_os_error() == Some(libc::ELOOP)
        || e.raw_os_error() == Some(libc::ENAMETOOLONG)
}

/// Makes a file of ours at a name that only a failed attempt can have left something at, which goes.
///
/// # Errors
/// The system's.
pub(super) fn create(disk: &dyn Disk, path: &str, mode: u32) -> std::io::Result<Box<dyn DiskFile>> {
    match disk.create(path, mode) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            disk.unlink(path)?;
            disk.create(path, mode)
        }
        other => other,
    }
}

/// Removes a file's name if it is there.
///
/// # Errors
/// [`EngineError::Io`].
pub(super) fn unlink(disk: &dyn Disk, path: &str) -> Result<()> {
    match disk.unlink(path) {
        Err(e) if !is_missing(&e) => Err(EngineError::io(format!("removing {path}"), e)),
        _ => Ok(()),
    }
}

/// Removes a directory with all that is in it; nothing there is no error.
///
/// # Errors
/// [`EngineError::Io`]; part of it may be gone then.
pub(super) fn remove_tree(disk: &dyn Disk, path: &str) -> Result<()> {
    let io = |e| EngineError::io(format!("removing {path}"), e);
    let names = match disk.read_dir(path) {
        Err(e) if is_missing(&e) => return Ok(()),
        other => other.map_err(io)?,
    };
    for (name, form) in names {
        let Some(name) = name.to_str() else { continue };
        let below = format!("{path}/{name}");
        if form == Form::Dir { remove_tree(disk, &below)? } else { unlink(disk, &below)? }
    }
    match disk.remove_dir(path) {
        Err(e) if !is_missing(&e) => Err(io(e)),
        _ => Ok(()),
    }
}

/// What a directory of a session shows, unsorted: names that are UTF-8, not hidden, files and directories only.
///
/// # Errors
/// The system's.
pub(super) fn shown(disk: &dyn Disk, session: &SessionId, dir: &str) -> std::io::Result<Vec<(String, Form)>> {
    let names = disk.read_dir(&paths::value(session, dir))?;
    let names = names.into_iter().filter_map(|(name, form)| Some((name.into_string().ok()?, form)));
    Ok(names.filter(|(name, form)| *form != Form::Other && !paths::hidden(name, dir.is_empty())).collect())
}

/// Has a directory nothing but hidden names? What we do not show but may not remove counts as something.
///
/// # Errors
/// The system's.
pub(super) fn is_empty(disk: &dyn Disk, session: &SessionId, dir: &str) -> std::io::Result<bool> {
    let names = disk.read_dir(&paths::value(session, dir))?;
    Ok(names.iter().all(|(name, _)| name.to_str().is_some_and(|name| paths::hidden(name, dir.is_empty()))))
}

/// Removes the hidden names of a directory that has nothing else.
///
/// # Errors
/// [`EngineError::Io`].
pub(super) fn remove_hidden(disk: &dyn Disk, session: &SessionId, dir: &str) -> Result<()> {
    let path = paths::value(session, dir);
    let names = match disk.read_dir(&path) {
        Err(e) if is_missing(&e) => return Ok(()),
        other => other.map_err(|e| EngineError::io(format!("reading {path}"), e))?,
    };
    for (name, form) in names {
        let Some(name) = name.to_str().filter(|name| paths::hidden(name, dir.is_empty())) else { continue };
        let below = format!("{path}/{name}");
        if form == Form::Dir { remove_tree(disk, &below)? } else { unlink(disk, &below)? }
    }
    Ok(())
}
