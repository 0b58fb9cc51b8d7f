//! Publication of changes of directories: made, removed, renamed with everything that is kept of their keys.
//! Must not know values' bytes.

use std::io::ErrorKind;

use super::super::Result;
use super::disk::{Access, Form};
use super::look::Look;
use super::mark::Mark;
use super::publish::io;
use super::record::Kept;
use super::{LocalEngine, look, paths, tree};
use crate::words::{Dir, Key, SessionId, Version};

impl LocalEngine {
    pub(super) fn move_dir(&self, session: &SessionId, from: &Dir, to: &Dir, floors: &[(Key, Version)]) -> Result<()> {
        if from == to {
            return Ok(());
        }
        let (source, target) = (paths::value(session, from.as_str()), paths::value(session, to.as_str()));
        tree::remove_hidden(&*self.disk, session, to.as_str())?;
        match self.disk.rename(&source, &target) {
            Err(e) if matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                // A program beside the store has made one of the two names since, perhaps after the rename and a crash.
                self.move_ours(session, from.as_str(), to.as_str())?;
                self.move_sidecars(session, from.as_str(), to.as_str())?;
            }
            Err(e) if !tree::is_missing(&e) => return Err(io("renaming", &source)(e)),
            _ => {
                let meta_from = paths::meta_dir(session, from.as_str());
                tree::merge(&*self.disk, &meta_from, &paths::meta_dir(session, to.as_str()))?;
            }
        }
        let (past_from, past_to) =
            (paths::history_dir(session, from.as_str()), paths::history_dir(session, to.as_str()));
        tree::merge(&*self.disk, &past_from, &past_to)?;
        self.mark_moved(session, from.as_str(), to.as_str(), floors)
    }

    /// Moves the values that are ours, each to where its new name is free. A stranger's stays where it was put.
    fn move_ours(&self, session: &SessionId, from: &str, to: &str) -> Result<()> {
        let place = paths::value(session, from);
        for (name, form) in self.shown_in(session, from)? {
            let (old, new) = (format!("{from}/{name}"), format!("{to}/{name}"));
            if form == Form::Dir {
                self.move_ours(session, &old, &new)?;
                continue;
            }
            let (old, new) = (paths::value(session, &old), paths::value(session, &new));
            let Look::File(found) = look::look_at(&*self.disk, &old, Access::Read)? else { continue };
            if found.mark.is_some() {
                tree::make_dirs_above(&*self.disk, &new)?;
                match self.disk.rename_new(&old, &new) {
                    Err(e) if e.kind() == ErrorKind::AlreadyExists || tree::is_missing(&e) => {}
                    other => other.map_err(io("renaming", &old))?,
                }
            }
        }
        match self.disk.remove_dir(&place) {
            Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty || tree::is_missing(&e) => Ok(()),
            other => other.map_err(io("removing", &place)),
        }
    }

    /// Moves the sidecars of values that are at their new name, and not at the old one too.
    fn move_sidecars(&self, session: &SessionId, from: &str, to: &str) -> Result<()> {
        for (name, form) in self.shown_in(session, to)? {
            let (old, new) = (format!("{from}/{name}"), format!("{to}/{name}"));
            if form == Form::Dir {
                self.move_sidecars(session, &old, &new)?;
            } else if self.disk.stat(&paths::value(session, &old)).is_err_and(|e| tree::is_missing(&e)) {
                let (old, new) = (paths::sidecar(session, &old), paths::sidecar(session, &new));
                tree::make_dirs_above(&*self.disk, &new)?;
                match self.disk.rename(&old, &new) {
                    Err(e) if !tree::is_missing(&e) => return Err(io("moving", &old)(e)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What a directory shows; nothing where it is gone.
    fn shown_in(&self, session: &SessionId, dir: &str) -> Result<Vec<(String, Form)>> {
        match tree::shown(&*self.disk, session, dir) {
            Err(e) if tree::is_missing(&e) => Ok(Vec::new()),
            other => other.map_err(io("reading", &paths::value(session, dir))),
        }
    }

    /// Marks say where they were put: those below a renamed directory are put again.
    fn mark_moved(&self, session: &SessionId, from: &str, to: &str, floors: &[(Key, Version)]) -> Result<()> {
        for (name, form) in self.shown_in(session, to)? {
            let (old, new) = (format!("{from}/{name}"), format!("{to}/{name}"));
            if form == Form::Dir {
                self.mark_moved(session, &old, &new, floors)?;
                continue;
            }
            let (old_place, new_place) = (paths::value(session, &old), paths::value(session, &new));
            let file = self.disk.open(&new_place, Access::Read).map_err(io("reading", &new_place))?;
            let mark = Mark::read(&*file).map_err(io("reading", &new_place))?;
            if let Some(mark) = mark.filter(|mark| mark.is_of(&old_place)) {
                let floor = floors.iter().find(|(key, _)| key.as_str() == new).map_or(0, |(_, version)| *version);
                let mark = Mark { floor: floor.max(mark.floor), ..mark.moved(&new_place) };
                mark.write(&*file, &new_place)?;
            }
        }
        Ok(())
    }

    /// `goes`: a later record removes it.
    pub(super) fn make_dir(&self, session: &SessionId, dir: &Dir, kept: &Kept, goes: bool) -> Result<()> {
        let place = paths::value(session, dir.as_str());
        tree::make_dirs(&*self.disk, &place)?;
        if goes {
            // What a crash has left under its name may be another, made since, with attributes of its own.
            return Ok(());
        }
        let made = self.disk.open(&place, Access::Read).map_err(io("making", &place))?;
        if made.stat().map_err(io("making", &place))?.form != Form::Dir {
            // Published again after a crash: something else has its name by now.
            return Ok(());
        }
        look::set_attributes(&*made, &kept.attributes(), &place)
    }

    pub(super) fn remove_dir(&self, session: &SessionId, dir: &Dir) -> Result<()> {
        let place = paths::value(session, dir.as_str());
        match tree::is_empty(&*self.disk, session, dir.as_str()) {
            Err(e) if tree::is_missing(&e) => {}
            Err(e) => return Err(io("reading", &place)(e)),
            // Something came into it from beside the store, or a later change of ours did before a crash. A session that is
            // there again has a policy of its own.
            Ok(false) if dir.is_root() => return tree::unlink(&*self.disk, &paths::policy(session)),
            Ok(false) => return Ok(()),
            Ok(true) => {
                tree::remove_hidden(&*self.disk, session, dir.as_str())?;
                match self.disk.remove_dir(&place) {
                    Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty || tree::is_missing(&e) => {}
                    other => other.map_err(io("removing", &place))?,
                }
            }
        }
        if dir.is_root() {
            return tree::unlink(&*self.disk, &paths::policy(session));
        }
        let meta = paths::meta_dir(session, dir.as_str());
        match self.disk.stat(&meta) {
            Ok(stat) if stat.form == Form::Dir => tree::remove_tree(&*self.disk, &meta),
            _ => Ok(()),
        }
    }
}
