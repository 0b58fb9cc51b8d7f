//! Temporary files of neighbours that died between writing and renaming them. Knows names and ages; must not know
//! values: nothing here is one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::disk::{Access, Disk, Form};
use super::{paths, time, tree};
use crate::words::SessionId;
use crate::words::key::{META_DIR, TMP_MARK};

/// A program that was interrupted longer ago does not come back for its temporary file.
const ABANDONED_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Is this a neighbour's temporary file that nobody will come back for: older than a day, and open to nobody?
pub(super) fn is_abandoned(disk: &dyn Disk, place: &str, now: SystemTime) -> bool {
    let old = |ns| now.duration_since(time::from_ns(ns)).is_ok_and(|age| age > ABANDONED_AGE);
    disk.stat(place).is_ok_and(|stat| stat.form == Form::File && old(stat.mtime_ns))
        && disk.open(place, Access::Write).and_then(|file| file.is_open_here_only()).unwrap_or(false)
}

/// Removes them everywhere below the sessions; how many. Takes time proportional to the store, so it is nothing to wait
/// for; `stop` ends it early.
pub(super) fn sweep(disk: &dyn Disk, sessions: &[SessionId], now: SystemTime, stop: &AtomicBool) -> u64 {
    let mut dirs: Vec<String> = sessions.iter().map(|session| paths::value(session, "")).collect();
    let mut removed = 0;
    while let Some(dir) = dirs.pop().filter(|_| !stop.load(Ordering::Relaxed)) {
        // What cannot be read now is looked at the next time.
        for (name, form) in disk.read_dir(&dir).unwrap_or_default() {
            let Some(name) = name.to_str() else { continue };
            let place = format!("{dir}/{name}");
            match form {
                Form::Dir if !name.contains(TMP_MARK) || name == META_DIR => dirs.push(place),
                Form::File if name.contains(TMP_MARK) && is_abandoned(disk, &place, now) => {
                    match tree::unlink(disk, &place) {
                        Ok(()) => removed += 1,
                        Err(e) => tracing::warn!("a temporary file that nobody comes back for stays: {e}"),
                    }
                }
                _ => {}
            }
        }
    }
    if removed > 0 {
        tracing::info!(files = removed, "removed temporary files that other programs left more than a day ago");
    }
    removed
}
