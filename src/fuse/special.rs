//! The neighbour's internal names on the mount: its temporary files, its sidecars and their directories.
//! They can be made, written, read, renamed and removed by name, are never listed, and are no keys.
//!
//! A temporary file lives in the daemon only, until it is renamed onto a key: that rename is its commit. The sidecar
//! that the same process then puts in place declares the writer of exactly that version.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::errno::Refusal;
use super::fs::{Asker, Filesystem, Place, Reply};
use super::handles::State;
use super::inodes::{Ino, Role};
use super::views::View;
use crate::engine::{self, Attributes, Head, Kind, Staged};
use crate::store::{Base, Caller, Draft, Rule, Write};
use crate::words::key::{META_DIR, TMP_MARK};
use crate::words::{Author, Key, SessionId, Version, Writer};

/// Commits by a rename of the neighbour's, whose sidecar has not come yet. More than anyone has in flight.
const UNDECLARED_MAX: usize = 4096;

/// Longest name of a temporary file: what the file systems it usually works on take.
pub(super) const SCRATCH_MAX_BYTES: usize = 255;

/// What the neighbour has under way.
#[derive(Debug, Default)]
pub(super) struct Scratches {
    /// Bytes of its temporary files, by node.
    bytes: Mutex<HashMap<Ino, Staged>>,
    /// The process, its view and the version of its last commit of a key.
    undeclared: Mutex<HashMap<(SessionId, Key), Undeclared>>,
}

type Undeclared = ((u32, View), Version);

impl Scratches {
    fn bytes(&self) -> MutexGuard<'_, HashMap<Ino, Staged>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn undeclared(&self) -> MutexGuard<'_, HashMap<(SessionId, Key), Undeclared>> {
        self.undeclared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a temporary file as its last close or fsync left them.
    pub(super) fn read(&self, ino: Ino) -> Staged {
        self.bytes().get(&ino).cloned().unwrap_or_else(|| Staged::from(Vec::new()))
    }

    /// Its bytes are not needed any more.
    pub(super) fn remove(&self, ino: Ino) {
        self.bytes().remove(&ino);
    }
}

/// Is this the name of a temporary file of the neighbour's?
#[must_use]
pub(super) fn is_scratch(name: &str) -> bool {
    name.contains(TMP_MARK)
}

/// The path of a session's directory that a sidecar directory mirrors; `None` when it is not one.
fn mirrored(path: &str) -> Option<&str> {
    if path == META_DIR {
        return Some("");
    }
    path.strip_prefix(META_DIR)?.strip_prefix('/')
}

impl Filesystem {
    /// Finds a name in a sidecar directory, or the directory itself: its role, or `None` when it is not there.
    pub(super) fn special_role(&self, place: &Place) -> Reply<Option<Role>> {
        let Some(path) = mirrored(&place.path) else { return Ok(None) };
        let session = &place.session;
        if let Some(entry) = self.engine().entry(session, path)?
            && entry.kind == Kind::Dir
        {
            return Ok(Some(Role::MetaDir));
        }
        Ok(self.sidecar_head(session, path)?.map(|_| Role::Sidecar))
    }

    /// The attributes of a sidecar directory: those of the directory it mirrors.
    pub(super) fn meta_dir_attributes(&self, place: &Place) -> Reply<Attributes> {
        let path = mirrored(&place.path).unwrap_or_default();
        let entry = self.engine().entry(&place.session, path)?;
        entry.map(|entry| entry.attributes).ok_or_else(|| Refusal::not_found(&place.path))
    }

    /// A sidecar's bytes and the attributes of its key.
    pub(super) fn sidecar(&self, place: &Place) -> Reply<(Vec<u8>, Attributes)> {
        let path = mirrored(&place.path).unwrap_or_default();
        let head = self.sidecar_head(&place.session, path)?.ok_or_else(|| Refusal::not_found(&place.path))?;
        let attributes = Attributes { mode: head.attributes.mode & 0o666, ..head.attributes };
        Ok((engine::sidecar(&head.writer, head.committed_at_s), attributes))
    }

    fn sidecar_head(&self, session: &SessionId, path: &str) -> Reply<Option<Head>> {
        let Some(key) = path.strip_suffix(".json").and_then(|key| Key::literal(key).ok()) else { return Ok(None) };
        Ok(self.engine().head(session, &key)?.filter(|head| !head.writer.is_empty()))
    }

    /// A write handle on a temporary file was flushed or synced: its bytes are kept for who opens it by name.
    pub(super) fn keep_scratch(&self, ino: Ino, draft: Draft) -> Reply<()> {
        let staged = match draft {
            Draft::Whole(staged) => staged,
            Draft::Append(more) => {
                let mut bytes = self.scratches.read(ino).read_all()?;
                bytes.extend(more);
                Staged::from(bytes)
            }
        };
        self.scratches.bytes().insert(ino, staged);
        Ok(())
    }

    /// The neighbour renames its temporary file onto a key: its commit, checked by itself; in a view, where that would be
    /// a claim, by us. The bytes are those of
    /// [`Filesystem::keep_open_scratch`]; the version made.
    pub(super) fn commit_scratch(&self, view: View, ino: Ino, to: &Place, by: &Caller) -> Reply<Version> {
        let key = to.key()?;
        let fresh = self.fresh_attributes(ino);
        let write = Write {
            session: &to.session,
            key: &key,
            draft: Draft::Whole(self.scratches.read(ino)),
            base: Base::Fresh,
            set: engine::AttributeChange { mtime: Some(fresh.mtime), ..Default::default() },
            fresh,
            own: false,
            rule: if view.is_plain() { Rule::NeighbourChecked } else { Rule::Policy },
        };
        let committed = self.store.write(&write, by).map_err(|error| Refusal::from(error).of(by))?;
        self.note_accepted("rename", to, &committed, by);
        self.scratches.remove(ino);
        let pid = by.author.process.as_ref().map_or(0, |process| process.pid);
        let mut undeclared = self.scratches.undeclared();
        if undeclared.len() >= UNDECLARED_MAX {
            undeclared.clear();
        }
        undeclared.insert((to.session.clone(), key), ((pid, view), committed.version));
        Ok(committed.version)
    }

    /// The neighbour's descriptor is still open after its rename: what it writes from now on is a draft of the key.
    pub(super) fn go_on_from(&self, ino: Ino, version: Version) {
        for handle in self.writers_on(ino) {
            if let State::Writer(writer) = &mut *handle.state() {
                writer.draft.committed(Some(version));
            }
        }
    }

    /// The neighbour puts a sidecar in place: it declares the writer of the version that the same process has just
    /// committed, and nothing else. In a view, where the path has said who writes, it declares nothing.
    ///
    /// # Errors
    /// EPERM for any other sidecar; EINVAL when it is none.
    pub(super) fn declare_by_scratch(&self, ino: Ino, to: &Place, asker: Asker) -> Reply<()> {
        #[derive(serde::Deserialize)]
        struct Sidecar {
            #[serde(default)]
            writer: Writer,
        }
        self.keep_open_scratch(ino)?;
        let refused =
            || Refusal::new(libc::EPERM, "a sidecar is written by the process that has just committed its key");
        let path = mirrored(&to.path).and_then(|path| path.strip_suffix(".json")).ok_or_else(refused)?;
        let key = Key::literal(path)?;
        let seen = self.observe(asker)?;
        let pid = seen.process.as_ref().map_or(0, |process| process.pid);
        let place = (to.session.clone(), key);
        let found = self.scratches.undeclared().get(&place).copied();
        let (_, version) = found.filter(|&(committer, _)| committer == (pid, asker.view)).ok_or_else(refused)?;
        let bytes = self.scratches.read(ino).read_all()?;
        let sidecar: Sidecar = serde_json::from_slice(&bytes)
            .map_err(|e| Refusal::new(libc::EINVAL, format!("the sidecar of '{}' is not one: {e}", place.1)))?;
        if asker.view.is_plain() {
            let author = Author { writer: sidecar.writer, process: seen.process, others: Vec::new() };
            self.store.declare(&place.0, &place.1, version, &Caller::new(author, None))?;
        }
        self.scratches.undeclared().remove(&place);
        self.scratches.remove(ino);
        Ok(())
    }

    /// The temporary files below a directory that goes.
    pub(super) fn forget_scratches(&self, dir: Ino) {
        for child in self.inodes.children(dir) {
            let role = self.inodes.role(child);
            match role {
                Some(Role::Scratch) => {
                    self.scratches.remove(child);
                    self.inodes.remove(child);
                }
                Some(Role::Dir | Role::MetaDir) => self.forget_scratches(child),
                _ => {}
            }
        }
    }

    /// Takes what open handles have written to a temporary file: a rename carries all of it.
    pub(super) fn keep_open_scratch(&self, ino: Ino) -> Reply<()> {
        for handle in self.writers_on(ino) {
            if let State::Writer(writer) = &mut *handle.state()
                && let Some((draft, _)) = writer.draft.take()
            {
                self.keep_scratch(ino, draft)?;
            }
        }
        Ok(())
    }
}
