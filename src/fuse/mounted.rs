//! A mount from start to end: the session with the kernel, the aging of appends, draining and unmounting.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::mount::{FsPickFlags, UnmountFlags, fsconfig_reconfigure, fspick};

use super::adapter::Adapter;
use super::views::VIEWS_MAX;
use super::{Filesystem, OpenDraft, Options};
use crate::control::ErrorLine;
use crate::engine::{Attributes, EngineError};
use crate::identity::Resolver;
use crate::store::Store;
use crate::words::SessionId;

/// How old an append may get before it is committed although its file is still open.
const APPEND_AGE: Duration = Duration::from_millis(400);
/// How often that is looked at, and how often a drain looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often a checkpoint is made where something was changed. The system by itself writes what is as old as that, so there
/// is little left to write.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);

/// From so many writer views on, the kernel is asked to forget those that nobody uses: by itself it would when it needs
/// memory, which may be later than when there are as many as can be told apart.
const VIEWS_MANY: usize = 4096;

/// How often what is too old is looked for, from the mount's beginning on.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// A mounted store.
#[derive(Debug)]
pub struct Mounted {
    mountpoint: PathBuf,
    fs: Arc<Filesystem>,
    session: Mutex<Option<JoinHandle<io::Result<()>>>>,
    /// Dropped to end the thread that commits aged appends.
    aging: Mutex<Option<(mpsc::Sender<()>, JoinHandle<()>)>>,
    /// The same for the one that makes durable what was closed, where closes return before it is.
    syncing: Mutex<Option<(mpsc::Sender<()>, JoinHandle<()>)>>,
    /// And for the one that makes checkpoints.
    checkpoints: Mutex<Option<(mpsc::Sender<()>, JoinHandle<()>)>>,
    /// Set to end the thread that removes what is too old.
    sweeping: Mutex<Option<(Arc<AtomicBool>, JoinHandle<()>)>>,
}

impl Mounted {
    /// Mounts `store` at `mountpoint` and serves it from threads of its own; when this returns, it serves.
    ///
    /// # Errors
    /// The system's error of the mount; nothing is left mounted.
    pub fn start(store: Arc<Store>, resolver: Arc<Resolver>, mountpoint: &Path, options: &Options) -> io::Result<Self> {
        let device = super::device::mount(store.root(), mountpoint, options)?;
        let left = Unmount(mountpoint);
        let root = root_attributes(store.root());
        let fs = Filesystem::new(store, resolver, options.clone(), mountpoint.to_owned(), root, first_ino());
        let fs = Arc::new(fs);
        let aging = age_appends(Arc::clone(&fs), place(mountpoint).and_then(|place| device_at(&place)).ok())?;
        let syncing = options.sync_every.map(|every| sync_late(Arc::clone(&fs), every)).transpose()?;
        let checkpoints =
            (!options.read_only).then(|| make_checkpoints(Arc::clone(&fs), options.sync_every)).transpose()?;
        let session = super::adapter::serve(Adapter::new(Arc::clone(&fs)), device)?;
        let sweeping = (!options.read_only).then(|| sweep(Arc::clone(&fs))).and_then(|started| {
            started.inspect_err(|e| tracing::warn!("what others left behind is not looked for: {e}")).ok()
        });
        std::mem::forget(left);
        Ok(Self {
            mountpoint: mountpoint.to_owned(),
            fs,
            session: Mutex::new(Some(session)),
            aging: Mutex::new(Some(aging)),
            syncing: Mutex::new(syncing),
            checkpoints: Mutex::new(checkpoints),
            sweeping: Mutex::new(sweeping),
        })
    }

    /// The drafts open now: handles with something that no commit has made yet.
    #[must_use]
    pub fn open_drafts(&self) -> Vec<OpenDraft> {
        self.fs.open_drafts()
    }

    /// What was refused lately, in one session or in all, the newest of each last.
    #[must_use]
    pub fn refusals(&self, session: Option<&SessionId>) -> Vec<(SessionId, ErrorLine)> {
        let of = |session: &SessionId| {
            self.fs.errors.after(session, 0).into_iter().map(|(_, line)| (session.clone(), line)).collect()
        };
        let mut lines: Vec<_> = session.map_or_else(|| self.fs.errors.all(), of);
        lines.retain(|(_, line)| line.is_refusal());
        lines
    }

    /// Waits until no draft is open, at most `limit`; what is still open then.
    #[must_use]
    pub fn drain(&self, limit: Duration) -> Vec<OpenDraft> {
        let until = Instant::now() + limit;
        loop {
            let drafts = self.open_drafts();
            if drafts.is_empty() || Instant::now() >= until {
                return drafts;
            }
            std::thread::sleep(LOOK_EVERY.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Ends every open draft as [`Options::on_kill`] says, and tells what it did to each (`true`: committed).
    #[must_use]
    pub fn settle(&self) -> Vec<(OpenDraft, bool)> {
        self.fs.settle()
    }

    /// Takes the mount away: at once where nobody is in it, else (`lazy`) as soon as the last one leaves.
    ///
    /// # Errors
    /// EBUSY when somebody is in it and `lazy` is false.
    pub fn unmount(&self, lazy: bool) -> io::Result<()> {
        match unmount(&self.mountpoint, lazy) {
            // Not mounted any more: somebody else was faster.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other,
        }
    }

    /// Waits until the mount has ended, by [`Mounted::unmount`] or from outside.
    ///
    /// # Errors
    /// The last error of the session with the kernel.
    pub fn wait(&self) -> io::Result<()> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ended = match session.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(io::Error::other("the thread that serves the mount failed")),
        };
        for ticking in [&self.aging, &self.syncing, &self.checkpoints] {
            if let Some((stop, thread)) = ticking.lock().unwrap_or_else(PoisonError::into_inner).take() {
                drop(stop);
                let _ = thread.join();
            }
        }
        if let Some((stop, thread)) = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner).take() {
            stop.store(true, Ordering::Relaxed);
            thread.thread().unpark();
            let _ = thread.join();
        }
        // What is still open has lost its mount: it ends as it would have when asked to.
        for (draft, committed) in self.settle() {
            tracing::warn!(session = %draft.session, key = %draft.key, committed, "a draft was open when the mount ended");
        }
        ended
    }
}

/// Takes the mount away again when starting it fails.
struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.0, true) {
            tracing::warn!("what was mounted could not be unmounted: {error}");
        }
    }
}

/// Node numbers start at random, high: `/proc/P/fdinfo` tells files apart by nothing else.
fn first_ino() -> u64 {
    super::views::first_ino(uuid::Uuid::new_v4().as_u128() as u64)
}

/// The mount's root looks like the store's directory.
fn root_attributes(store: &Path) -> Attributes {
    let metadata = std::fs::metadata(store).ok();
    Attributes {
        mode: metadata.as_ref().map_or(0o755, |metadata| metadata.mode() & 0o7777),
        uid: metadata.as_ref().map_or_else(|| rustix::process::geteuid().as_raw(), MetadataExt::uid),
        gid: metadata.as_ref().map_or_else(|| rustix::process::getegid().as_raw(), MetadataExt::gid),
        mtime: metadata.and_then(|metadata| metadata.modified().ok()).unwrap_or_else(SystemTime::now),
        xattrs: std::collections::BTreeMap::new(),
    }
}

fn age_appends(fs: Arc<Filesystem>, device: Option<Device>) -> io::Result<(mpsc::Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = mpsc::channel();
    let thread = std::thread::Builder::new().name("appends".to_owned()).spawn(move || {
        let mut many = VIEWS_MANY;
        while stopped.recv_timeout(LOOK_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
            fs.commit_aged_appends(APPEND_AGE);
            fs.resolver.forget_old();
            let views = fs.views.count();
            if views >= many {
                let fs = Arc::clone(&fs);
                blocking::unblock(move || forget_unused(&fs.mountpoint, device)).detach();
            }
            many = many_views(many, views);
        }
    })?;
    Ok((stop, thread))
}

/// From how many views on the kernel is asked next, when there are so many now: those that are in use stay, so there must
/// be twice as many, or half of those that there is still room for.
fn many_views(many: usize, now: usize) -> usize {
    let room = VIEWS_MAX.saturating_sub(now);
    if now >= many { (2 * now).min(now + room.div_ceil(2)) } else { many.min((4 * now).max(VIEWS_MANY)) }
}

/// The numbers of a file system's device.
type Device = (u32, u32);

/// What is at a path now, not opened.
fn place(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

/// Of which device it is; nobody is asked, for who would answer may not serve yet.
fn device_at(place: &OwnedFd) -> rustix::io::Result<Device> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let seen = rustix::fs::statx(place, "", flags, StatxFlags::empty())?;
    Ok((seen.stx_dev_major, seen.stx_dev_minor))
}

/// Has the kernel drop the names that it keeps for nobody, as at any change of a mount's options: here of none. Only who
/// may mount may ask for that. Something else may be mounted in our place by now, and is left as it is.
fn forget_unused(mountpoint: &Path, ours: Option<Device>) {
    let picked = || {
        let place = place(mountpoint)?;
        if Some(device_at(&place)?) != ours {
            return Err(rustix::io::Errno::XDEV);
        }
        fspick(&place, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)
    };
    if let Err(e) = picked().and_then(|mount| fsconfig_reconfigure(mount.as_fd())) {
        tracing::debug!("the kernel was not asked to forget what nobody uses: {e}");
    }
}

/// A sync begins when the last one began so long ago, or when that ends.
fn sync_late(fs: Arc<Filesystem>, every: Duration) -> io::Result<(mpsc::Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = mpsc::channel();
    let thread = std::thread::Builder::new().name("sync".to_owned()).spawn(move || {
        let mut wait = every;
        while stopped.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Timeout) {
            let began = Instant::now();
            if let Err(e) = fs.engine().sync() {
                tracing::error!("what was closed in the last {} ms may not be durable: {e}", every.as_millis());
                return;
            }
            wait = every.saturating_sub(began.elapsed());
        }
    })?;
    Ok((stop, thread))
}

/// What no recovery comes back to, none can take for its own: a value that a program beside the mount has written since.
fn make_checkpoints(fs: Arc<Filesystem>, sync: Option<Duration>) -> io::Result<(mpsc::Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = mpsc::channel();
    let every = CHECKPOINT_EVERY.max(sync.unwrap_or_default());
    let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(move || {
        // What keeps one from being made may do so for days.
        let mut told = String::new();
        while stopped.recv_timeout(every) == Err(mpsc::RecvTimeoutError::Timeout) {
            match fs.engine().checkpoint() {
                Err(EngineError::Closed(words)) => return tracing::error!("no more checkpoints are made: {words}"),
                Err(e) if e.to_string() != told => {
                    told = e.to_string();
                    tracing::warn!("no checkpoint could be made: {told}");
                }
                Err(_) => {}
                Ok(()) => told.clear(),
            }
        }
    })?;
    Ok((stop, thread))
}

fn sweep(fs: Arc<Filesystem>) -> io::Result<(Arc<AtomicBool>, JoinHandle<()>)> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::Builder::new().name("sweep".to_owned()).spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            if let Err(e) = fs.engine().sweep(SystemTime::now(), &stopped) {
                tracing::warn!("what is too old was not looked for: {e}");
            }
            let until = Instant::now() + SWEEP_EVERY;
            while !stopped.load(Ordering::Relaxed) && Instant::now() < until {
                // Whoever ends the mount wakes it.
                std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
            }
        }
    })?;
    Ok((stop, thread))
}

/// Takes a mount away: at once, EBUSY where somebody is in it; with `lazy` from sight at once, and wholly when the
/// last one leaves. Who may not do it alone is helped by fusermount, where there is one.
///
/// # Errors
/// EBUSY, EINVAL when nothing is mounted there, EPERM.
pub fn unmount(at: &Path, lazy: bool) -> io::Result<()> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(at, flags | UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::PERM) => fusermount(at, lazy),
        other => Ok(other?),
    }
}

fn fusermount(at: &Path, lazy: bool) -> io::Result<()> {
    for program in ["fusermount3", "fusermount"] {
        let mut command = Command::new(program);
        command.arg(if lazy { "-uz" } else { "-u" }).arg("--").arg(at).stdin(Stdio::null());
        match command.output() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) if String::from_utf8_lossy(&output.stderr).contains("busy") => {
                return Err(io::Error::from_raw_os_error(libc::EBUSY));
            }
            Ok(output) => return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EPERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_that_stay_are_not_asked_about_at_every_look() {
        let mut many = VIEWS_MANY;
        for now in [VIEWS_MANY, 20_000, 40_000, 60_000, VIEWS_MAX - 1] {
            many = many_views(many.min(now), now);
            assert!(many > now && many <= VIEWS_MAX, "{now}: {many}");
        }
        assert_eq!(many_views(many, VIEWS_MAX), VIEWS_MAX, "at the last moment it is");
        assert_eq!(many_views(many, 10), VIEWS_MANY, "when they are forgotten all is as before");
    }
}
