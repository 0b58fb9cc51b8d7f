//! Files that are no longer needed, written again instead of made anew: some file systems look long for a free inode
//! after many were freed, and a commit would free two. Knows files; must not know what they held.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::disk::{Access, Disk, DiskFile, Form, Stat};
use super::stage::INLINE_BYTES;
use super::{paths, tree};

/// How many are kept; more are removed.
const SPARES_MAX: usize = 64;

/// Files in the drafts' directory whose names nobody else uses.
#[derive(Debug)]
pub(super) struct Spares {
    names: Mutex<VecDeque<String>>,
    /// How many more than usual are kept.
    more: usize,
    /// What the names given to them begin with, and the number of the next.
    own: uuid::Uuid,
    next: AtomicU64,
}

/// A file to write again, its old bytes and attributes still in it.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) file: Box<dyn DiskFile>,
    /// As it was found.
    pub(super) stat: Stat,
    /// The names of its xattrs.
    pub(super) xattrs: Vec<String>,
}

impl Default for Spares {
    fn default() -> Self {
        Self { names: Mutex::default(), more: 0, own: uuid::Uuid::now_v7(), next: AtomicU64::new(0) }
    }
}

impl Spares {
    /// Keeps so many more: where many commits come to their places at one time, as many files are no longer needed, and as
    /// many are before the next time.
    pub(super) fn keep_more(&mut self, more: usize) {
        self.more = more;
    }

    /// Takes a file of any directory over that nothing refers to any more. It is gone from `place` afterwards, or a warning
    /// tells why not. `false`: nothing was there.
    pub(super) fn retire(&self, disk: &dyn Disk, place: &str) -> bool {
        let has_room = self.has_room(&self.names());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let spare = paths::draft(&format!("{}-{number}.spare", self.own));
        match if has_room { disk.rename(place, &spare) } else { disk.unlink(place) } {
            // Looked at where it is now: that directory is open.
            Ok(()) if has_room => match disk.stat(&spare) {
                Ok(stat) => self.leave(disk, &spare, &stat),
                Err(_) => remove(disk, &spare),
            },
            Ok(()) => {}
            Err(e) if tree::is_missing(&e) => return false,
            Err(_) => remove(disk, place),
        }
        true
    }

    /// The same with a draft, whose name nobody else comes to have: it keeps that until it is written again. `stat`: what
    /// it is.
    pub(super) fn leave(&self, disk: &dyn Disk, draft: &str, stat: &Stat) {
        let mut names = self.names();
        if stat.form == Form::File && stat.size_bytes <= INLINE_BYTES && self.has_room(&names) {
            names.push_back(draft.to_owned());
            return;
        }
        drop(names);
        remove(disk, draft);
    }

    fn names(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, names: &VecDeque<String>) -> bool {
        names.len() < SPARES_MAX + self.more
    }

    /// A spare at `place`; `None` when there is none that nobody has open, under no other name, and that is ours.
    pub(super) fn take(&self, disk: &dyn Disk, place: &str) -> Option<Spare> {
        let spare = {
            let mut names = self.names();
            // An operation that is made again finds what it has left itself: nobody else may get that from under it.
            let at = names.iter().position(|name| name == place).unwrap_or(0);
            names.remove(at)?
        };
        let usable = || {
            let file = disk.open(&spare, Access::Write).ok()?;
            let stat = file.stat().ok()?;
            // A reader may have the old value open, a backup may have linked it: neither may see it change.
            let alone = stat.links == 1 && file.is_open_here_only().ok()?;
            let xattrs = file.xattr_names().ok().filter(|xattrs| alone && is_plain(xattrs, stat.uid))?;
            (spare == place || disk.rename(&spare, place).is_ok()).then_some(Spare { file, stat, xattrs })
        };
        let usable = usable();
        if usable.is_none() {
            remove(disk, &spare);
        }
        usable
    }
}

fn remove(disk: &dyn Disk, file: &str) {
    if let Err(e) = tree::unlink(disk, file) {
        tracing::warn!("a file that is not needed any more stays: {e}");
    }
}

/// Does a file give nobody more than its mode says? A stranger's may be owned by somebody who could change it back, or
/// carry an access list.
fn is_plain(xattrs: &[String], owner: u32) -> bool {
    let us = rustix::process::geteuid();
    let known = xattrs.iter().all(|name| name.starts_with("user.") || name == "security.selinux");
    known && (us.is_root() || us.as_raw() == owner)
}

#[cfg(test)]
mod tests {
    use super::super::disk::LocalDisk;
    use super::*;

    // F22
    #[test]
    fn an_operation_that_is_made_again_takes_the_file_that_it_has_left_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, spares) = (LocalDisk::open_at(dir.path()).unwrap(), Spares::default());
        tree::make_dirs(&disk, paths::DRAFTS).unwrap();
        for name in ["one", "two"].map(paths::draft_sidecar) {
            disk.create(&name, tree::PRIVATE).unwrap();
            spares.leave(&disk, &name, &disk.stat(&name).unwrap());
        }
        let [one, two, three] = ["one", "two", "three"].map(paths::draft_sidecar);
        let own = disk.stat(&two).unwrap().id;
        assert_eq!(spares.take(&disk, &two).unwrap().stat.id, own);
        // What is left is the other's, and then nothing.
        assert_ne!(spares.take(&disk, &three).unwrap().stat.id, own);
        assert!(spares.take(&disk, &one).is_none() && disk.stat(&one).is_err());
        assert_eq!(disk.stat(&two).unwrap().id, own);
    }
}
