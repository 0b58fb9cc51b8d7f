//! Everything about a mount that can be known before it is tried, each with words of its own. Leaves nothing behind.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};

use super::super::{mounts, options, output};
use super::Args;
use crate::committer::{Refusal, RefusalKind};
use crate::engine::Keep;
use crate::fuse;
use crate::words::key::BATON_DIR;
use crate::words::{Claim, Policy};

const DEVICE: &str = "/dev/fuse";

/// A mount that may be tried.
#[derive(Debug)]
pub(super) struct Plan {
    /// The canonical path of the store.
    pub(super) root: PathBuf,
    /// The canonical path of the mountpoint.
    pub(super) mountpoint: PathBuf,
    /// How to mount.
    pub(super) options: fuse::Options,
    /// The least strict policy of any write.
    pub(super) policy: Policy,
    /// Who writes when nobody says.
    pub(super) defaults: Claim,
    /// How long the end waits for drafts.
    pub(super) wait: Duration,
    /// How long a recovery may take before it is told.
    pub(super) patience: Duration,
    /// How much of the past is kept.
    pub(super) keep: Keep,
    /// Where a daemon logs.
    pub(super) log: PathBuf,
}

/// Checks in the order in which a person would correct them: the words, the store, the mountpoint, the system.
pub(super) fn plan(args: &Args) -> Result<Plan, Refusal> {
    let policy = args.conflict_policy.as_deref().map(options::policy).transpose()?.unwrap_or_default();
    let defaults = args.defaults.claim()?;
    let patience = options::patience()?;
    let root = store(&args.store)?;
    let mountpoint = mountpoint(&args.mountpoint)?;
    utf8(&root).and_then(|()| utf8(&mountpoint))?;
    apart(&root, &mountpoint)?;
    empty(&mountpoint)?;
    device()?;
    let log = args.log.as_deref().map_or_else(|| Ok(root.join(BATON_DIR).join("daemon.log")), std::path::absolute);
    let log = log.map_err(|e| Refusal::failed("finding the log", e))?;
    let (allow_other, read_only, on_kill) = (args.allow_other, args.read_only, args.on_kill.into());
    let options = fuse::Options { allow_other, read_only, on_kill, sync_every: args.durability.interval };
    let (wait, keep) = (args.wait, args.keep.keep());
    Ok(Plan { root, mountpoint, options, policy, defaults, wait, patience, keep, log })
}

fn store(given: &Path) -> Result<PathBuf, Refusal> {
    let root = mounts::store_at(given)?;
    if let Err(e) = access(&root, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        return Err(Refusal::failed(format!("store '{}'", given.display()), io::Error::from(e)));
    }
    Ok(root)
}

fn mountpoint(given: &Path) -> Result<PathBuf, Refusal> {
    let shown = given.display();
    let at = mounts::canonical(given).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Refusal::new(RefusalKind::NotFound, format!("mountpoint '{shown}' does not exist"))
            .with_hint(format!("'mkdir {shown}' makes it")),
        _ => Refusal::failed(format!("mountpoint '{shown}'"), e),
    })?;
    clear_if_dead(&at)?;
    if !at.is_dir() {
        return Err(Refusal::new(RefusalKind::Failed, format!("mountpoint '{shown}' is not a directory")));
    }
    match mounts::find(&at).map_err(|e| Refusal::failed("reading the table of mounts", e))? {
        None => Ok(at),
        Some(mount) => Err(busy(&mount)),
    }
}

fn busy(mount: &mounts::Mount) -> Refusal {
    let (at, source) = (mount.at.display(), mount.source.display());
    let refusal = Refusal::new(
        RefusalKind::InUse,
        format!("mountpoint '{at}' is in use: '{source}' ({}) is mounted there", mount.kind),
    );
    if mount.is_ours() { refusal.with_hint(format!("'batonfs umount {at}' ends it")) } else { refusal }
}

/// What a killed daemon leaves: a mount of ours that answers nothing. Said, since it is the trace of an accident.
fn clear_if_dead(at: &Path) -> Result<(), Refusal> {
    // Each mount that lies under another one shows itself only when that is gone.
    while at.symlink_metadata().is_err_and(|e| mounts::is_dead(&e)) {
        let ours = mounts::find(at).ok().flatten().is_some_and(|mount| mount.is_ours());
        if !ours {
            let words =
                format!("mountpoint '{}' is a mount that no longer answers, and not one of batonfs", at.display());
            return Err(Refusal::new(RefusalKind::InUse, words));
        }
        crate::fuse::unmount(at, true).map_err(|e| Refusal::failed(format!("clearing '{}'", at.display()), e))?;
        output::say(&format!("'{}' was a mount without its daemon; cleared", at.display()));
    }
    Ok(())
}

/// Paths go to other processes as JSON.
fn utf8(path: &Path) -> Result<(), Refusal> {
    if path.to_str().is_some() {
        return Ok(());
    }
    Err(Refusal::new(RefusalKind::Usage, format!("the path '{}' is not UTF-8", path.display())))
}

/// One inside the other would make the daemon wait for itself.
fn apart(root: &Path, mountpoint: &Path) -> Result<(), Refusal> {
    let (store, at) = (root.display(), mountpoint.display());
    if is_inside(mountpoint, root) {
        return Err(Refusal::new(RefusalKind::Usage, format!("mountpoint '{at}' is inside the store '{store}'")));
    }
    if is_inside(root, mountpoint) {
        return Err(Refusal::new(RefusalKind::Usage, format!("store '{store}' is inside the mountpoint '{at}'")));
    }
    Ok(())
}

/// Also where a bind mount shows it under another path.
fn is_inside(inner: &Path, outer: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    let outer_identity = identity(outer);
    inner.ancestors().any(|above| above == outer || (outer_identity.is_some() && identity(above) == outer_identity))
}

fn empty(mountpoint: &Path) -> Result<(), Refusal> {
    let shown = mountpoint.display();
    let mut names = mountpoint.read_dir().map_err(|e| Refusal::failed(format!("mountpoint '{shown}'"), e))?;
    match names.next() {
        None => Ok(()),
        Some(_) => Err(Refusal::new(RefusalKind::Failed, format!("mountpoint '{shown}' is not empty"))
            .with_hint("what is in it would be hidden while the store is mounted")),
    }
}

fn device() -> Result<(), Refusal> {
    access(DEVICE, Access::READ_OK | Access::WRITE_OK).map_err(|e| {
        Refusal::failed(DEVICE, io::Error::from(e))
            .with_hint("'modprobe fuse' loads it; a container needs '--device /dev/fuse --cap-add SYS_ADMIN'")
    })
}
