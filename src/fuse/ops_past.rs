//! History on the mount: a session's `.baton/history`, a tree with the names that keys have or had. What is kept of a key
//! is in the directory of its name. Nothing can be changed there.

use super::errno::Refusal;
use super::fs::{Filesystem, Reply, Stat};
use super::handles::State;
use super::inodes::{Ino, Role};
use super::ops_tree::{dir_stat, file_stat};
use super::views::View;
use crate::engine::{Attributes, DirEntry, EngineError, Kind};
use crate::store::past::{HISTORY, free_name};
use crate::words::key::BATON_DIR;
use crate::words::{Dir, Key, Past, SessionId};

/// What modes keep here: whatever is kept is only read, and gives nobody another's rights.
const READ_MODE: u32 = 0o555;

/// A place in a session's history: a path of names that keys have or had, empty for the tree itself.
struct InPast {
    session: SessionId,
    path: String,
}

impl InPast {
    fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) }
    }
}

impl Filesystem {
    /// Where in a session's history a node is.
    fn in_past(&self, ino: Ino) -> Reply<InPast> {
        let place = self.place(ino)?;
        let below = place.path.strip_prefix(BATON_DIR).and_then(|path| path.strip_prefix('/'));
        let path = below.and_then(|path| path.strip_prefix(HISTORY));
        let path = path.ok_or_else(|| Refusal::not_found(&place.path))?;
        Ok(InPast { path: path.strip_prefix('/').unwrap_or(path).to_owned(), session: place.session })
    }

    /// What a name in history is. One that keys have or had goes before the number of a version. A view shows of the
    /// lost drafts its writer's own.
    pub(super) fn past_role(&self, view: View, parent: Ino, name: &str) -> Reply<Role> {
        let at = self.in_past(parent)?;
        let only = self.views.writer(view)?;
        if self.store.has_past(&at.session, &at.join(name), only.as_deref())? {
            return Ok(Role::PastDir);
        }
        match self.past_named(view, &at, name)? {
            Some(_) => Ok(Role::Past),
            None => Err(Refusal::not_found(name)),
        }
    }

    /// What is kept of a key under a name, that may have zeros in front.
    fn past_named(&self, view: View, at: &InPast, name: &str) -> Reply<Option<(Key, Past)>> {
        let (Ok(key), Some(past)) = (Key::literal(&at.path), Past::parse(name.trim_start_matches('0'))) else {
            return Ok(None);
        };
        let only = self.views.writer(view)?;
        let there = self.engine().past_entry(&at.session, &key, past)?.is_some()
            && self.store.shows(&at.session, &key, past, only.as_deref())?;
        Ok(there.then_some((key, past)))
    }

    /// What a node in history that is no directory shows.
    pub(super) fn past_of(&self, view: View, ino: Ino) -> Reply<(SessionId, Key, Past)> {
        let gone = || Refusal::not_found(format!("node {ino}"));
        let (dir, name) = self.inodes.name(ino).ok_or_else(gone)?;
        let at = self.in_past(dir)?;
        let (key, past) = self.past_named(view, &at, &name)?.ok_or_else(gone)?;
        Ok((at.session, key, past))
    }

    /// The names in a directory of history: those that keys and directories have or had, and what is kept of the key
    /// that has or had the directory's own.
    pub(super) fn past_entries(&self, view: View, ino: Ino) -> Reply<Vec<DirEntry>> {
        let at = self.in_past(ino)?;
        let (dir, only) = (Dir::literal(&at.path)?, self.views.writer(view)?);
        let mut names = self.store.past_names(&at.session, &dir, only.as_deref())?;
        match self.engine().read_dir(&at.session, &dir) {
            Ok(there) => names.extend(there.into_iter().map(|entry| entry.name)),
            Err(EngineError::NotFound(_) | EngineError::NotADirectory(_)) => {}
            Err(error) => return Err(error.into()),
        }
        names.sort_unstable();
        names.dedup();
        let mut entries = Vec::new();
        if let Ok(key) = Key::literal(&at.path) {
            for past in self.store.past(&at.session, &key, only.as_deref())? {
                let name = free_name(past, |name| names.binary_search_by(|it| it.as_str().cmp(name)).is_err());
                entries.push(DirEntry { name, kind: Kind::File });
            }
        }
        entries.extend(names.into_iter().map(|name| DirEntry { name, kind: Kind::Dir }));
        Ok(entries)
    }

    pub(super) fn past_stat(&self, view: View, ino: Ino) -> Reply<Stat> {
        if self.role(ino)? == Role::PastDir {
            return Ok(dir_stat(ino, self.past_dir_attributes(view, &self.in_past(ino)?)?));
        }
        let (session, key, past) = self.past_of(view, ino)?;
        let entry = self.engine().past_entry(&session, &key, past)?.ok_or_else(|| Refusal::not_found(past))?;
        let attributes = Attributes { mode: entry.attributes.mode & READ_MODE, ..entry.attributes };
        Ok(Stat { blocks: entry.blocks, ..file_stat(ino, entry.size_bytes, attributes) })
    }

    /// What is below a directory is as hidden as the directory; below one that is gone, where nobody knows any more, it
    /// is its session's owner's alone.
    fn past_dir_attributes(&self, view: View, at: &InPast) -> Reply<Attributes> {
        let only = self.views.writer(view)?;
        let session = self.engine().entry(&at.session, "")?;
        let mut attributes = session.ok_or_else(|| Refusal::not_found(&at.session))?.attributes;
        let ends = at.path.match_indices('/').map(|(end, _)| end).chain([at.path.len()]);
        for path in ends.filter_map(|end| at.path.get(..end)).filter(|path| !path.is_empty()) {
            match self.engine().entry(&at.session, path)? {
                Some(dir) if dir.kind == Kind::Dir => attributes = dir.attributes,
                _ if self.store.past_names(&at.session, &Dir::literal(path)?, only.as_deref())?.is_empty() => {}
                _ => attributes.mode &= 0o700,
            }
        }
        Ok(Attributes { mode: attributes.mode & READ_MODE, ..attributes })
    }

    /// Opens something that is kept; its bytes are checked now.
    pub(super) fn open_kept(&self, view: View, ino: Ino, writes: bool) -> Reply<State> {
        if writes {
            return Err(kept_is_kept());
        }
        let (session, key, past) = self.past_of(view, ino)?;
        let kept = self.engine().open_past(&session, &key, past)?.ok_or_else(|| Refusal::not_found(past))?;
        Ok(State::Kept(kept))
    }
}

/// Nothing in history is written, renamed or removed.
pub(super) fn kept_is_kept() -> Refusal {
    Refusal::new(libc::EPERM, "what is kept in .baton/history is for reading")
}
