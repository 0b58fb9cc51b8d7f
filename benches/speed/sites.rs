//! Where commits are made: a directory, a store that the library has open, and the mounts.

use std::path::PathBuf;
use std::sync::Arc;

use batonfs::committer;
use batonfs::engine::Attributes;
use batonfs::engine::local::Opening;
use batonfs::store::{Caller, Store};
use batonfs::words::{Author, Key, Policy, SessionId};

use super::mount::Mount;
use super::place::{Place, SESSION};
use super::way::Way;
use super::{Result, way};

/// The sites of one run.
#[derive(Debug)]
pub(crate) struct Sites {
    store: Arc<Store>,
    directory: PathBuf,
    /// Where anything can be mounted.
    mounts: Option<Mounts>,
}

#[derive(Debug)]
struct Mounts {
    ours: Mount,
    nothing: Mount,
    one_sync: Mount,
}

impl Mounts {
    fn make(place: &Place) -> Result<Self> {
        let kept = place.dir("kept")?.join("file");
        Ok(Self {
            ours: place.mounted("mount")?,
            nothing: Mount::nothing(place.dir("nothing")?, 0)?,
            one_sync: Mount::one_sync(place.dir("one-sync")?, &kept)?,
        })
    }
}

impl Sites {
    /// Opens and mounts what is measured.
    pub(crate) fn make(place: &Place) -> Result<Self> {
        let store = Arc::new(committer::open_store(&place.dir("library")?, Policy::default(), Opening::USUAL)?);
        let directory = place.dir("directory")?.join(SESSION);
        let mounts = if Place::mounts() { Some(Mounts::make(place)?) } else { None };
        Ok(Self { store, directory, mounts })
    }

    /// The session of this way as a directory, where it is one.
    pub(crate) fn session(&self, way: Way) -> Result<PathBuf> {
        match (way, &self.mounts) {
            (Way::Directory, _) => Ok(self.directory.clone()),
            (Way::Mount, Some(mounts)) => Ok(mounts.ours.session(SESSION)),
            (Way::Nothing, Some(mounts)) => Ok(mounts.nothing.session(SESSION)),
            (Way::OneSync, Some(mounts)) => Ok(mounts.one_sync.session(SESSION)),
            (Way::Library, _) | (_, None) => Err("it is no directory".into()),
        }
    }

    /// The store that the library's writers share.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Can it be measured here?
    pub(crate) fn has(&self, way: Way) -> bool {
        matches!(way, Way::Directory | Way::Library) || self.mounts.is_some()
    }

    /// Makes the library's session, and its keys' first versions.
    pub(crate) fn prepare_library(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let session = SessionId::parse(SESSION)?;
        make_session(&self.store, &session)?;
        way::through_the_store(&self.store, &session, &Key::literal(key)?, bytes)?;
        Ok(())
    }

    /// Ends all of it, and says what did not end well.
    pub(crate) fn end(self) -> Result<()> {
        self.store.engine().close()?;
        if let Some(Mounts { ours, nothing, one_sync }) = self.mounts {
            ours.end()?;
            nothing.end()?;
            one_sync.end()?;
        }
        Ok(())
    }
}

/// Makes a session where it is not there yet.
pub(crate) fn make_session(store: &Store, session: &SessionId) -> Result<()> {
    if store.engine().entry(session, "")?.is_none() {
        let by = Caller::new(Author::default(), None);
        store.init(session, Attributes { mode: 0o755, ..way::attributes() }, &by)?;
    }
    Ok(())
}
