//! The ways a value is written, each a cycle that ends when the value is durable. Knows nothing of how often.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use batonfs::engine::{AttributeChange, Attributes};
use batonfs::store::{Base, Caller, Draft, Rule, Store, Write as StoreWrite};
use batonfs::words::{Author, Key, SessionId, Writer};

use super::Result;

/// A way from bytes to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// The neighbour's: a temporary file, fsync, rename, fsync of the directory; the sidecar the same.
    Directory,
    /// [`Store::write`] on the local engine.
    Library,
    /// open, write, close on what `batonfs mount` shows.
    Mount,
    /// The same on a FUSE filesystem that keeps nothing.
    Nothing,
    /// The same, but that it makes the bytes durable, by one sync for all that close: no writer, no name, no history. It is
    /// asked all that ours is.
    OneSync,
}

impl Way {
    /// All, in the order of a round.
    pub(crate) const ALL: [Self; 5] = [Self::Directory, Self::Library, Self::Mount, Self::Nothing, Self::OneSync];

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Directory => "four-fsync directory",
            Self::Library => "library",
            Self::Mount => "mount",
            Self::Nothing => "do-nothing FUSE",
            Self::OneSync => "one-sync FUSE",
        }
    }

    /// For programs, also between our own processes.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Library => "library",
            Self::Mount => "mount",
            Self::Nothing => "nothing",
            Self::OneSync => "one-sync",
        }
    }
}

/// A program's write: plain file I/O. How long the close took.
pub(crate) fn through_a_file(path: &Path, bytes: &[u8]) -> Result<Duration> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    let closing = Instant::now();
    close(file)?;
    Ok(closing.elapsed())
}

/// Closes a file, and hears how that ended: it is what commits.
pub(crate) fn close(file: File) -> Result<()> {
    // SAFETY: the descriptor is taken out of its file here and belongs to nobody else.
    let closed = unsafe { libc::close(file.into_raw_fd()) };
    if closed == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

/// What harn-vm's `agent_state` does on a write, in its order (an fsync each for the temporary file and the directory,
/// for value and sidecar). How long it took from the last byte of the value on.
pub(crate) fn like_the_neighbour(session: &Path, key: &str, bytes: &[u8]) -> Result<Duration> {
    std::fs::create_dir_all(session)?;
    let meta = session.join(".agent_state_meta");
    // It looks for a conflict first.
    match std::fs::read(meta.join(format!("{key}.json"))) {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e.into()),
    }
    let written = put_durably(session, key, bytes)?;
    std::fs::create_dir_all(&meta)?;
    let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let sidecar = format!("{{\n  \"writer\": {{\n    \"writer_id\": \"bench\"\n  }},\n  \"updated_at\": {now_s}\n}}");
    put_durably(&meta, &format!("{key}.json"), sidecar.as_bytes())?;
    Ok(written.elapsed())
}

/// When the bytes were written, before the first fsync.
fn put_durably(dir: &Path, name: &str, bytes: &[u8]) -> Result<Instant> {
    let draft = dir.join(format!(".{name}..agent_state_tmp.{}", uuid::Uuid::now_v7()));
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    let written = Instant::now();
    file.sync_all()?;
    std::fs::rename(&draft, dir.join(name))?;
    File::open(dir)?.sync_all()?;
    Ok(written)
}

/// A commit by the library, as a close on the mount makes it. How long the store took.
pub(crate) fn through_the_store(store: &Store, session: &SessionId, key: &Key, bytes: &[u8]) -> Result<Duration> {
    let mut stage = store.engine().stage();
    stage.write_at(0, bytes)?;
    let fresh = attributes();
    let writer = Writer { writer_id: Some("bench".to_owned()), ..Writer::default() };
    let by = Caller::new(Author { writer, ..Author::default() }, None);
    let write = StoreWrite {
        session,
        key,
        draft: Draft::Whole(stage.freeze()),
        base: Base::Fresh,
        set: AttributeChange { mtime: Some(fresh.mtime), ..AttributeChange::default() },
        fresh,
        own: false,
        rule: Rule::Policy,
    };
    let closing = Instant::now();
    store.write(&write, &by)?;
    Ok(closing.elapsed())
}

/// Those of a file of ours.
pub(crate) fn attributes() -> Attributes {
    Attributes {
        mode: 0o644,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: SystemTime::now(),
        xattrs: std::collections::BTreeMap::new(),
    }
}
