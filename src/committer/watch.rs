//! Waking up when a file of a store may have been written, by inotify: nobody is asked and nothing is held meanwhile.
//! Knows names of files; what was written is asked for by the one road. The calls are rustix's own, which is here
//! already and has safe types.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// How often is looked where nothing can be watched, or nobody answers.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Room for a few events, each with a name.
const EVENTS_BYTES: usize = 4096;

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Something may have happened: time to look.
    Changed,
    /// The time is over.
    TimedOut,
    /// Nobody reads any more what would be shown.
    Unread,
}

/// Watches one file of a store, whether or not it, or any directory above it, is there yet.
#[derive(Debug)]
pub struct Watch {
    root: PathBuf,
    /// The file, below the root.
    place: PathBuf,
    /// `None` while it cannot be watched.
    inotify: Option<OwnedFd>,
    /// The directories that are watched, each with the name in it that leads to the file.
    names: HashMap<i32, OsString>,
}

impl Watch {
    /// Of the file at `place` below `root`. Watches nothing yet.
    #[must_use]
    pub fn new(root: &Path, place: impl Into<PathBuf>) -> Self {
        Self { root: root.to_owned(), place: place.into(), inotify: None, names: HashMap::new() }
    }

    /// From here on nothing is missed: whoever looks after this and then waits hears of all that came after the look.
    ///
    /// # Errors
    /// The system's: it cannot be watched, and until the next time [`Watch::wait`] says that it is time to look once a
    /// second.
    pub fn arm(&mut self) -> io::Result<()> {
        let inotify = match self.inotify.take() {
            Some(inotify) => inotify,
            None => inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
        };
        self.names = watch_above(&inotify, &self.root, &self.place)?;
        self.inotify = Some(inotify);
        Ok(())
    }

    /// Waits until something may have happened, at most `until`, or until nobody reads `shown` any more.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self, until: Option<Instant>, shown: Option<BorrowedFd<'_>>) -> io::Result<Woken> {
        let looks_at = Instant::now() + LOOK_EVERY;
        let wakes = match (until, &self.inotify) {
            (until, Some(_)) => until,
            (until, None) => Some(until.map_or(looks_at, |until| until.min(looks_at))),
        };
        loop {
            // What is shown is only asked for its end, which is told unasked.
            let mut watched: Vec<PollFd<'_>> =
                shown.iter().map(|shown| PollFd::from_borrowed_fd(*shown, PollFlags::empty())).collect();
            watched.extend(self.inotify.iter().map(|inotify| PollFd::new(inotify, PollFlags::IN)));
            let left = wakes.map(|wakes| wakes.saturating_duration_since(Instant::now()));
            let left = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
            match poll(&mut watched, left.as_ref()) {
                Err(Errno::INTR) => continue,
                Ok(0) if until.is_some_and(|until| Instant::now() >= until) => return Ok(Woken::TimedOut),
                Ok(0) => return Ok(Woken::Changed),
                other => other?,
            };
            let unread = |fd: &PollFd<'_>| fd.revents().intersects(PollFlags::ERR | PollFlags::HUP);
            if shown.is_some() && watched.first().is_some_and(unread) {
                return Ok(Woken::Unread);
            }
            if self.has_happened()? {
                return Ok(Woken::Changed);
            }
        }
    }

    /// Takes all events; was one of them about the file, or a directory above it?
    fn has_happened(&self) -> io::Result<bool> {
        let Some(inotify) = &self.inotify else { return Ok(true) };
        let mut room = [MaybeUninit::uninit(); EVENTS_BYTES];
        let (mut events, mut counts) = (Reader::new(inotify, &mut room), false);
        loop {
            let event = match events.next() {
                Err(Errno::AGAIN) => return Ok(counts),
                Err(Errno::INTR) => continue,
                other => other?,
            };
            counts |= match (self.names.get(&event.wd()), event.file_name()) {
                // The directory itself has gone or moved.
                (Some(_), None) => true,
                (Some(name), Some(found)) => name.as_bytes() == found.to_bytes(),
                // Not watched any more; or some events were lost, which no directory is named for.
                (None, _) => event.wd() < 0,
            };
        }
    }
}

/// Watches the deepest directory above a file that is there, and the one above it, for what comes and goes in them; and
/// all above these for their own going, which takes the file to another name and makes room for another one.
fn watch_above(inotify: &OwnedFd, root: &Path, place: &Path) -> io::Result<HashMap<i32, OsString>> {
    let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
    let moved = WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM;
    let within = WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::DELETE | moved;
    let (mut dir, mut watched) = (root.to_owned(), Vec::new());
    // From above, so that what is made below a directory meanwhile is seen by the watch on it.
    for name in place {
        match inotify::add_watch(inotify, &dir, itself | within) {
            Ok(watch) => watched.push((watch, name.to_owned(), dir.clone())),
            Err(Errno::NOENT | Errno::NOTDIR) => break,
            Err(e) => return Err(e.into()),
        }
        dir.push(name);
    }
    for (_, _, dir) in watched.iter().rev().skip(2) {
        // Much happens in them that is of no interest. If another one has the name by now, the one that had it has told.
        let _ = inotify::add_watch(inotify, dir, itself);
    }
    Ok(watched.into_iter().map(|(watch, name, _)| (watch, name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_YET: Duration = Duration::from_millis(20);
    /// Only keeps a test from hanging.
    const LONG: Duration = Duration::from_secs(20);

    fn woken(watch: &Watch, limit: Duration) -> Woken {
        watch.wait(Some(Instant::now() + limit), None).unwrap()
    }

    #[test]
    fn a_file_is_seen_to_come_with_every_directory_above_it() {
        let dir = std::env::temp_dir().join(format!("batonfs-watch-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&dir).unwrap();
        let mut watch = Watch::new(&dir, "a/b/c");
        let mut step = |happens: &dyn Fn(&Path)| {
            watch.arm().unwrap();
            let before = woken(&watch, NOT_YET);
            happens(&dir);
            (before, woken(&watch, LONG))
        };
        let steps: [&dyn Fn(&Path); 6] = [
            &|dir| std::fs::create_dir(dir.join("a")).unwrap(),
            &|dir| std::fs::create_dir(dir.join("a/b")).unwrap(),
            &|dir| std::fs::write(dir.join("a/b/c"), "").unwrap(),
            &|dir| std::fs::write(dir.join("a/b/c"), "more").unwrap(),
            &|dir| std::fs::remove_dir_all(dir.join("a")).unwrap(),
            &|dir| std::fs::create_dir_all(dir.join("a/b")).unwrap(),
        ];
        let woken: Vec<_> = steps.iter().map(|happens| step(happens)).collect();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(woken, [(Woken::TimedOut, Woken::Changed); 6]);
    }

    #[test]
    fn what_happens_to_other_names_wakes_nobody() {
        let dir = std::env::temp_dir().join(format!("batonfs-watch-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(dir.join("a")).unwrap();
        let mut watch = Watch::new(&dir, "a/b");
        watch.arm().unwrap();
        std::fs::write(dir.join("a/other"), "").unwrap();
        std::fs::write(dir.join("b"), "").unwrap();
        let others = woken(&watch, NOT_YET);
        std::fs::write(dir.join("a/b"), "").unwrap();
        let own = woken(&watch, LONG);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!((others, own), (Woken::TimedOut, Woken::Changed));
    }
}
