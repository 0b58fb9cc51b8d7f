//! Files that are no longer needed, written again instead of made anew: some file systems look long for a free inode
//! after many were freed, and a commit would free two. Knows files; must not know what they held.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::disk::{Access, Disk, DiskFile, Form};
use super::stage::INLINE_BYTES;
use super::{paths, tree};

/// How many are kept; more are removed.
const SPARES_MAX: usize = 64;

/// Files in the drafts' directory whose names nobody else uses.
#[derive(Debug, Default)]
pub(super) struct Spares {
    names: Mutex<VecDeque<String>>,
    /// How many more than usual are kept.
    more: usize,
}

impl Spares {
    /// Keeps so many more: where many commits come to their places at one time, as many files are no longer needed, and as
    /// many are before the next time.
    pub(super) fn keep_more(&mut self, more: usize) {
        self.more = more;
    }

    /// Takes over a file that nothing refers to any more. It is gone from `place` afterwards, or a warning tells why not.
    pub(super) fn retire(&self, disk: &dyn Disk, place: &str) {
        let wanted = disk.stat(place).is_ok_and(|stat| stat.form == Form::File && stat.size_bytes <= INLINE_BYTES);
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted && names.len() < SPARES_MAX + self.more {
            let spare = paths::draft(&format!("{}.spare", uuid::Uuid::now_v7()));
            if disk.rename(place, &spare).is_ok() {
                names.push_back(spare);
                return;
            }
        }
        drop(names);
        if let Err(e) = tree::unlink(disk, place) {
            tracing::warn!("a file that is not needed any more stays: {e}");
        }
    }

    /// A spare at `place`, its old bytes and attributes still in it; `None` when there is none that nobody has open,
    /// under no other name, and that is ours.
    pub(super) fn take(&self, disk: &dyn Disk, place: &str) -> Option<Box<dyn DiskFile>> {
        let spare = self.names.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        let usable = || {
            let file = disk.open(&spare, Access::Write).ok()?;
            let stat = file.stat().ok()?;
            // A reader may have the old value open, a backup may have linked it: neither may see it change.
            let alone = stat.links == 1 && file.is_open_here_only().ok()?;
            let alone = alone && is_plain(&*file, stat.uid).ok()?;
            (alone && disk.rename(&spare, place).is_ok()).then_some(file)
        };
        let file = usable();
        if file.is_none()
            && let Err(e) = tree::unlink(disk, &spare)
        {
            tracing::warn!("a file that is not needed any more stays: {e}");
        }
        file
    }
}

/// Does a file give nobody more than its mode says? A stranger's may be owned by somebody who could change it back, or
/// carry an access list.
fn is_plain(file: &dyn DiskFile, owner: u32) -> std::io::Result<bool> {
    let us = rustix::process::geteuid();
    let names = file.xattr_names()?;
    let known = names.iter().all(|name| name.starts_with("user.") || name == "security.selinux");
    Ok(known && (us.is_root() || us.as_raw() == owner))
}
