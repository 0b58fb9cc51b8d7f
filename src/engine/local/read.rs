//! Reading: entries, listings, heads, snapshots. Takes no lock that a sync holds; a stranger's value that a reader
//! finds is adopted, which is a commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{Content, DirEntry, EngineError, Entry, Head, Kind, Result, Snapshot};
use super::disk::{Access, Form};
use super::look::{self, Found, Look};
use super::mark::Mark;
use super::session::Shown;
use super::stage::FileContent;
use super::{LocalEngine, ROUNDS_MAX, history, paths, tree};
use crate::words::{Dir, Key, Past, SessionId};

/// The value at a key.
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack of one call; a box would cost every read an allocation"
)]
enum Seen {
    /// Committed, and not in its place yet.
    Served(Box<Head>, Arc<dyn Content>),
    /// In its place.
    There(Found, Mark),
}

impl LocalEngine {
    pub(super) fn read_entry(&self, session: &SessionId, path: &str) -> Result<Option<Entry>> {
        if !path.is_empty() && Key::literal(path).is_err() {
            return Ok(None);
        }
        // A session nobody changes has no state in memory: one stat is all it takes.
        let known = self.known(session);
        if let Some(known) = &known {
            match self.shown(known, path)? {
                Some(Shown::Gone) => return Ok(None),
                Some(Shown::Dir(attributes)) => {
                    return Ok(Some(Entry { kind: Kind::Dir, size_bytes: 0, blocks: 0, attributes }));
                }
                Some(Shown::Value(head, _)) => return Ok(Some(entry_of(*head))),
                None => {}
            }
        }
        let _reading = known.as_ref().map(|known| known.reading(path));
        let place = paths::value(session, path);
        let stat = match self.disk.stat(&place) {
            Err(e) if tree::is_missing(&e) => return Ok(None),
            other => other.map_err(|e| EngineError::io(format!("reading {place}"), e))?,
        };
        let attributes = look::plain(&stat);
        Ok(match stat.form {
            Form::File if !path.is_empty() => {
                Some(Entry { kind: Kind::File, size_bytes: stat.size_bytes, blocks: stat.blocks, attributes })
            }
            Form::Dir => Some(Entry { kind: Kind::Dir, size_bytes: 0, blocks: stat.blocks, attributes }),
            _ => None,
        })
    }

    pub(super) fn read_names(&self, session: &SessionId, dir: &Dir) -> Result<Vec<DirEntry>> {
        let known = self.known(session);
        let (_names, shown) = known.as_ref().map(|known| self.listing(known)).transpose()?.unzip();
        let shown = shown.unwrap_or_default();
        let missing = || if dir.is_root() { EngineError::NotFound(session.to_string()) } else { not_found(dir) };
        if matches!(shown.get(dir.as_str()), Some(Shown::Gone)) {
            return Err(missing());
        }
        let names = match tree::shown(&*self.disk, session, dir.as_str()) {
            Err(e) if tree::is_missing(&e) => match shown.get(dir.as_str()) {
                Some(Shown::Dir(_)) => Vec::new(),
                _ => return Err(missing()),
            },
            other => other.map_err(|e| EngineError::io(format!("listing {session}/{dir}"), e))?,
        };
        let mut names: BTreeMap<String, Kind> = names.into_iter().map(|(name, form)| (name, kind_of(form))).collect();
        for (path, shown) in &shown {
            if path.is_empty() {
                continue;
            }
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            if parent == dir.as_str() {
                match shown {
                    Shown::Gone => names.remove(name),
                    Shown::Dir(_) => names.insert(name.to_owned(), Kind::Dir),
                    Shown::Value(..) => names.insert(name.to_owned(), Kind::File),
                };
            }
        }
        Ok(names.into_iter().map(|(name, kind)| DirEntry { name, kind }).collect())
    }

    pub(super) fn read_list(&self, session: &SessionId) -> Result<Vec<Key>> {
        let known = self.known(session);
        let (_names, shown) = known.as_ref().map(|known| self.listing(known)).transpose()?.unzip();
        let shown = shown.unwrap_or_default();
        let mut keys = Vec::new();
        let mut dirs = vec![String::new()];
        while let Some(dir) = dirs.pop() {
            let names = match tree::shown(&*self.disk, session, &dir) {
                // Gone since it was listed, from beside the store.
                Err(e) if tree::is_missing(&e) && !dir.is_empty() => continue,
                Err(e) if tree::is_missing(&e) && shown.is_empty() => {
                    return Err(EngineError::NotFound(session.to_string()));
                }
                Err(e) if tree::is_missing(&e) => continue,
                other => other.map_err(|e| EngineError::io(format!("listing {session}/{dir}"), e))?,
            };
            for (name, form) in names {
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                match form {
                    Form::Dir => dirs.push(path),
                    _ if matches!(shown.get(&path), Some(Shown::Gone)) => {}
                    // A name too long to be a key is not shown, as it could not be opened.
                    _ => keys.extend(Key::literal(&path).ok()),
                }
            }
        }
        let added = shown.iter().filter(|(_, shown)| matches!(shown, Shown::Value(..)));
        keys.extend(added.filter_map(|(path, _)| Key::literal(path).ok()));
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    pub(super) fn read_head(&self, session: &SessionId, key: &Key) -> Result<Option<Head>> {
        Ok(match self.find(session, key)? {
            None => None,
            Some(Seen::Served(head, _)) => Some(*head),
            Some(Seen::There(found, mark)) => Some(look::head(&*self.disk, session, key.as_str(), &found, &mark)?),
        })
    }

    pub(super) fn read_snapshot(&self, session: &SessionId, key: &Key) -> Result<Option<Snapshot>> {
        self.find(session, key)?.map(|seen| self.snapshot(session, key, seen)).transpose()
    }

    /// The newest version, if this is it, with its bytes checked like those of the others.
    pub(super) fn read_newest(&self, session: &SessionId, key: &Key, past: Past) -> Result<Option<Snapshot>> {
        let Some(seen) = self.find(session, key)? else { return Ok(None) };
        let version = match &seen {
            Seen::Served(head, _) => head.version,
            Seen::There(_, mark) => mark.version,
        };
        if past != Past::Version(version) {
            return Ok(None);
        }
        if let Seen::There(found, mark) = &seen {
            history::check(found, mark, (key, past), &paths::value(session, key.as_str()))?;
        }
        self.snapshot(session, key, seen).map(Some)
    }

    fn snapshot(&self, session: &SessionId, key: &Key, seen: Seen) -> Result<Snapshot> {
        match seen {
            Seen::Served(head, content) => Ok(Snapshot { head: *head, content }),
            Seen::There(found, mark) => {
                let head = look::head(&*self.disk, session, key.as_str(), &found, &mark)?;
                Ok(Snapshot { head, content: Arc::new(FileContent(found.file)) })
            }
        }
    }

    /// The value at a key, with a mark that fits it; a stranger's is adopted first.
    fn find(&self, session: &SessionId, key: &Key) -> Result<Option<Seen>> {
        // Each round lost means that a program beside the mount replaced the value once more.
        for _ in 0..ROUNDS_MAX {
            let known = self.known(session);
            if let Some(known) = &known
                && let Some(shown) = self.shown(known, key.as_str())?
            {
                return Ok(served(shown));
            }
            let look = {
                let _reading = known.as_ref().map(|known| known.reading(key.as_str()));
                look::look(&*self.disk, session, key.as_str(), Access::Read)?
            };
            let Look::File(found) = look else { return Ok(None) };
            if let Some(mark) = found.ours().cloned() {
                return Ok(Some(Seen::There(found, mark)));
            }
            self.adopt(session, key)?;
        }
        let doing = format!("reading '{key}': programs beside the store replace it without end");
        Err(EngineError::io(doing, std::io::Error::from_raw_os_error(libc::EBUSY)))
    }

    fn adopt(&self, session: &SessionId, key: &Key) -> Result<()> {
        let _gate = self.pass();
        self.journal.check_open()?;
        let session = self.session(session)?;
        let hold = session.hold_keys(&[key]);
        if session.late(key.as_str()).is_some() {
            // A version that comes before it has been made meanwhile.
            drop(hold);
            return self.settle(&session, false);
        }
        if session.is_stuck() && session.stuck().shown.contains_key(key.as_str()) {
            // What looked like a stranger's is half of a change of ours, which is served from memory by now.
            return Ok(());
        }
        match look::look(&*self.disk, &session.id, key.as_str(), Access::Read)? {
            Look::File(found) if found.ours().is_none() && session.adopts(key, &found.stat) => {
                // It has its version, and could not be marked.
                drop(hold);
                self.settle(&session, false)
            }
            Look::File(found) if found.ours().is_none() => self.adopt_held(&session, key, &found),
            _ => Ok(()),
        }
    }
}

fn not_found(dir: &Dir) -> EngineError {
    EngineError::NotFound(dir.to_string())
}

fn kind_of(form: Form) -> Kind {
    if form == Form::Dir { Kind::Dir } else { Kind::File }
}

fn served(shown: Shown) -> Option<Seen> {
    match shown {
        Shown::Value(head, content) => Some(Seen::Served(head, content)),
        Shown::Gone | Shown::Dir(_) => None,
    }
}

pub(super) fn entry_of(head: Head) -> Entry {
    let mut attributes = head.attributes;
    attributes.xattrs.clear();
    Entry { kind: Kind::File, size_bytes: head.size_bytes, blocks: head.size_bytes.div_ceil(512), attributes }
}
