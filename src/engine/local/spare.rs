//! Files that are no longer needed, written again instead of made anew: some file systems look long for a free inode
//! after many were freed, and a commit would free two. Knows files; must not know what they held.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::disk::{Access, Disk, DiskFile, Form, Stat};
use super::stage::INLINE_BYTES;
use super::{mark, paths, tree};

/// How many are kept; more are removed.
const SPARES_MAX: usize = 64;
/// What the system puts on every file where it labels them.
const LABEL: &str = "security.selinux";

/// Files in the drafts' directory whose names nobody else uses.
#[derive(Debug)]
pub(super) struct Spares {
    names: Mutex<VecDeque<String>>,
    /// How many more than usual are kept.
    more: usize,
    /// What the names given to them begin with, and the number of the next.
    own: uuid::Uuid,
    next: AtomicU64,
    maker: OnceLock<Option<Maker>>,
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
        Self {
            names: Mutex::default(),
            more: 0,
            own: uuid::Uuid::now_v7(),
            next: AtomicU64::new(0),
            maker: OnceLock::new(),
        }
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

    /// A file of this name is made anew.
    pub(super) fn forget(&self, draft: &str) {
        self.names().retain(|name| name != draft);
    }

    fn names(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, names: &VecDeque<String>) -> bool {
        names.len() < SPARES_MAX + self.more
    }

    /// A spare at `place`; `None` when there is none that nobody has open, under no other name, and that is `ours`.
    pub(super) fn take(&self, disk: &dyn Disk, place: &str, ours: fn(&Spare, Maker) -> bool) -> Option<Spare> {
        self.claim(disk, place)?;
        let maker = *self.maker.get_or_init(|| Maker::of_drafts(disk));
        let usable = || {
            let file = disk.open(place, Access::Write).ok()?;
            let stat = file.stat().ok()?;
            // A reader may have the old value open, a backup may have linked it: neither may see it change.
            let alone = stat.links == 1 && file.is_open_here_only().ok()?;
            let xattrs = file.xattr_names().ok().filter(|_| alone)?;
            Some(Spare { file, stat, xattrs }).filter(|spare| maker.is_some_and(|maker| ours(spare, maker)))
        };
        let usable = usable();
        if usable.is_none() {
            remove(disk, place);
        }
        usable
    }

    /// Gives a spare the name `place`.
    fn claim(&self, disk: &dyn Disk, place: &str) -> Option<()> {
        let mut names = self.names();
        // An operation that is made again finds what it has left itself. Another's is renamed before anybody else looks:
        // who left it may be making a file of that name again.
        let at = names.iter().position(|name| name == place).unwrap_or(0);
        let spare = names.remove(at)?;
        let renamed = spare == place || disk.rename(&spare, place).is_ok();
        drop(names);
        if !renamed {
            remove(disk, &spare);
        }
        renamed.then_some(())
    }
}

impl Spare {
    /// Does it give nobody more than its mode says, as a value that gets attributes of its own? A stranger's may be owned
    /// by somebody who could change it back, or carry an access list; and who is not root cannot give it another owner.
    pub(super) fn is_plain(&self, maker: Maker) -> bool {
        let known = self.xattrs.iter().all(|name| name.starts_with("user.") || name == LABEL);
        known && (maker.uid == 0 || maker.made(&self.stat))
    }

    /// Is it a sidecar as we make them? The neighbour's may be for its owner's eyes alone.
    pub(super) fn is_sidecar(&self, maker: Maker) -> bool {
        let is_marked = self.xattrs.iter().any(|name| name == mark::NAME);
        is_marked && self.xattrs.iter().all(|name| name == mark::NAME || name == LABEL) && maker.made(&self.stat)
    }
}

/// Whose the files are that we make among the drafts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Maker {
    uid: u32,
    gid: u32,
}

impl Maker {
    fn of_drafts(disk: &dyn Disk) -> Option<Self> {
        let dir = disk.stat(paths::DRAFTS).ok()?;
        let own = rustix::process::getegid().as_raw();
        let gid = if dir.mode & libc::S_ISGID == 0 { own } else { dir.gid };
        Some(Self { uid: rustix::process::geteuid().as_raw(), gid })
    }

    fn made(self, stat: &Stat) -> bool {
        (self.uid, self.gid) == (stat.uid, stat.gid)
    }
}

fn remove(disk: &dyn Disk, file: &str) {
    if let Err(e) = tree::unlink(disk, file) {
        tracing::warn!("a file that is not needed any more stays: {e}");
    }
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
        let take = |place: &str| spares.take(&disk, place, |_, _| true);
        assert_eq!(take(&two).unwrap().stat.id, own);
        // What is left is the other's, and then nothing.
        assert_ne!(take(&three).unwrap().stat.id, own);
        assert!(take(&one).is_none() && disk.stat(&one).is_err());
        assert_eq!(disk.stat(&two).unwrap().id, own);
    }

    // F22
    #[test]
    fn a_file_that_is_made_anew_under_the_name_of_a_spare_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, spares) = (LocalDisk::open_at(dir.path()).unwrap(), Spares::default());
        tree::make_dirs(&disk, paths::DRAFTS).unwrap();
        let [one, two] = ["one", "two"].map(paths::draft_sidecar);
        disk.create(&one, tree::PRIVATE).unwrap();
        spares.leave(&disk, &one, &disk.stat(&one).unwrap());
        spares.forget(&one);
        tree::create(&disk, &one, tree::PRIVATE).unwrap();
        assert!(spares.take(&disk, &two, |_, _| true).is_none());
        assert!(disk.stat(&one).is_ok() && disk.stat(&two).is_err());
    }

    // F22
    #[test]
    fn a_file_that_others_may_read_or_change_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let disk = LocalDisk::open_at(dir.path()).unwrap();
        let spare = |names: &[&str]| {
            let file = disk.create("file", tree::PRIVATE).or_else(|_| disk.open("file", Access::Write)).unwrap();
            Spare { stat: file.stat().unwrap(), file, xattrs: names.iter().map(|name| (*name).to_owned()).collect() }
        };
        let (uid, gid) = (spare(&[]).stat.uid, spare(&[]).stat.gid);
        let (us, root) = (Maker { uid, gid }, Maker { uid: 0, gid: gid + 1 });
        let others = [Maker { uid: uid + 1, gid }, Maker { uid: uid + 1, gid: gid + 1 }];
        for names in [&[mark::NAME][..], &[mark::NAME, LABEL]] {
            assert!(spare(names).is_sidecar(us) && spare(names).is_plain(us) && spare(names).is_plain(root));
            assert!(others.iter().all(|other| !spare(names).is_sidecar(*other) && !spare(names).is_plain(*other)));
            assert!(!spare(names).is_sidecar(root), "it would stay another's");
        }
        for names in [&[][..], &["user.theirs"], &[mark::NAME, "user.theirs"]] {
            assert!(spare(names).is_plain(us) && !spare(names).is_sidecar(us), "{names:?}");
        }
        assert!(!spare(&["system.posix_acl_access"]).is_plain(root));
    }
}
