//! The log of a mount: lines on stderr, which in a daemon is its log file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tracing_subscriber::EnvFilter;

/// A log larger than this when a daemon starts begins anew; the old one is kept as `<name>.1`.
const SIZE_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Chooses what is logged, in the words of `RUST_LOG`.
const FILTER: &str = "BATONFS_LOG";
/// What is logged when nothing is chosen. The library warns when a mount is gone before it would take it away, which is
/// how every mount of ours ends.
const USUAL: &str = "info,fuser=error";

/// Opens the log file of a daemon, at its end.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Starts logging to stderr; `file` is where that leads in a daemon. Only for the holder of the store's lock, so that
/// nobody else's log is begun anew.
pub(super) fn start(file: Option<&Path>) {
    let kept = file.map(begin_anew);
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new(USUAL));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(io::stderr);
    // The log may be on the disk that is full: a line is then lost. The library would tell that on stderr, and panic
    // where that fails too, in the middle of a request.
    let lines = lines.log_internal_errors(false);
    // Fails only when something logs already, which is as good.
    let _ = lines.try_init();
    if let Some(Err(e)) = kept {
        tracing::warn!("the old log stays where it is: {e}");
    }
}

/// Copied, not renamed: stderr stays the file that it is.
fn begin_anew(path: &Path) -> io::Result<()> {
    if path.metadata()?.len() <= SIZE_MAX_BYTES || !path.is_file() {
        return Ok(());
    }
    let mut old = path.as_os_str().to_owned();
    old.push(".1");
    std::fs::copy(path, &old)?;
    OpenOptions::new().write(true).open(path)?.set_len(0)
}
