//! Stores with many keys, made before they are mounted.

use std::fs::File;
use std::path::Path;

use batonfs::committer;
use batonfs::engine::local::Opening;
use batonfs::words::{Key, Policy, SessionId};

use super::super::place;
use super::super::{Result, sites, way};

/// Commits between two syncs.
const BATCH: usize = 1000;

/// The name of a key: all are equally long.
pub(crate) fn key(nth: usize) -> String {
    format!("key-{nth:07}")
}

/// Commits so many keys to a session of a store that nobody has open: as they are made on a mount, synced in batches.
pub(super) fn committed(store: &Path, session: &str, keys: usize, bytes: usize) -> Result<()> {
    let store = committer::open_deferring_store(store, Policy::default(), Opening::USUAL)?;
    let (session, value) = (SessionId::parse(session)?, vec![b'v'; bytes]);
    sites::make_session(&store, &session)?;
    for nth in 0..keys {
        way::through_the_store(&store, &session, &Key::literal(&key(nth))?, &value)?;
        if nth % BATCH == BATCH - 1 {
            store.engine().sync()?;
            place::go_on()?;
        }
    }
    Ok(store.engine().close()?)
}

/// Puts a session with so many keys into a store that nobody has open, as plain files without bytes: as programs beside
/// the store would, and quicker than commits.
pub(super) fn beside(store: &Path, session: &str, keys: usize) -> Result<()> {
    let session = store.join(session);
    std::fs::create_dir(&session)?;
    for nth in 0..keys {
        File::create(session.join(key(nth)))?;
    }
    place::go_on()
}
