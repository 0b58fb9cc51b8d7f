//! `batonfs umount`: ends a mount once nothing is being written in it, and says who keeps it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Ended, Exit, mounts, options, output};
use crate::committer::{Call, Refusal, RefusalKind, Reply, Request, ask_daemon, client};

/// How long a daemon that has unmounted may take to let go of its store.
const LAST_STEPS: Duration = Duration::from_secs(30);

/// Unmount once nothing is being written; say who holds what
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the store is mounted
    mountpoint: PathBuf,
    /// How long to wait for what is being written
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = options::seconds)]
    wait: Duration,
}

pub(super) fn run(args: &Args) -> Ended {
    let at = mounts::canonical(&args.mountpoint).map_err(|e| cannot_find(&args.mountpoint, &e))?;
    let found = mounts::find(&at).map_err(|e| Refusal::failed("reading the table of mounts", e))?;
    let Some(mount) = found.filter(mounts::Mount::is_ours) else {
        let words = format!("no batonfs is mounted at '{}'", at.display());
        return Err(Refusal::new(RefusalKind::NotFound, words));
    };
    if ask(&mount, args.wait)? {
        return Ok(Exit::Done);
    }
    by_force_of_the_kernel(&at)
}

fn cannot_find(at: &Path, error: &io::Error) -> Refusal {
    let words = format!("'{}': {error}", at.display());
    let missing = error.kind() == io::ErrorKind::NotFound;
    Refusal::new(if missing { RefusalKind::NotFound } else { RefusalKind::Failed }, words)
}

/// `false` when no daemon serves this mount.
fn ask(mount: &mounts::Mount, wait: Duration) -> Result<bool, Refusal> {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let call = Call::new(Request::Unmount { mountpoint: mount.at.clone(), wait_ms });
    let holder = client::holder(&mount.source);
    let mut told = Vec::new();
    let mut tell = |reply: &Reply| {
        if let Reply::Waiting(drafts) = reply
            && told != *drafts
        {
            drafts.iter().for_each(|draft| output::say(&format!("waiting: {draft}")));
            told.clone_from(drafts);
        }
    };
    match ask_daemon(&mount.source, &call, &mut tell) {
        Ok(None) => Ok(false),
        // The store is held by a daemon that has it somewhere else: this mount is none of its own.
        Err(refusal) if refusal.kind == RefusalKind::NotFound => Ok(false),
        Ok(Some(Reply::Unmounted)) => {
            // So that whoever comes next finds the store free.
            if holder.is_some_and(|holder| !client::wait_released(&mount.source, &holder, LAST_STEPS)) {
                output::say("unmounted; the daemon is still closing the store");
            }
            Ok(true)
        }
        Ok(Some(reply)) => Err(options::unexpected(&reply)),
        Err(refusal) => Err(refusal),
    }
}

fn by_force_of_the_kernel(at: &Path) -> Ended {
    let dead = at.symlink_metadata().is_err_and(|e| mounts::is_dead(&e));
    match crate::fuse::unmount(at, dead) {
        Ok(()) if dead => {
            output::say(&format!("'{}' was a mount without its daemon; cleared", at.display()));
            Ok(Exit::Done)
        }
        Ok(()) => Ok(Exit::Done),
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
            let words = format!("'{}' is in use, and no daemon answers for it", at.display());
            Err(Refusal::new(RefusalKind::InUse, words).with_hint("it stays mounted"))
        }
        Err(e) => Err(Refusal::failed(format!("unmounting '{}'", at.display()), e)),
    }
}
