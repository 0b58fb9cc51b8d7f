//! Publication of changes of directories: made, removed, renamed with everything that is kept of their keys.
//! Must not know values' bytes.

use super::super::Result;
use super::disk::{Access, Form};
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
            Err(e) if !tree::is_missing(&e) => return Err(io("renaming", &source)(e)),
            _ => {}
        }
        let (meta_from, meta_to) = (paths::meta_dir(session, from.as_str()), paths::meta_dir(session, to.as_str()));
        tree::merge(&*self.disk, &meta_from, &meta_to)?;
        let (past_from, past_to) =
            (paths::history_dir(session, from.as_str()), paths::history_dir(session, to.as_str()));
        tree::merge(&*self.disk, &past_from, &past_to)?;
        self.mark_moved(session, from.as_str(), to.as_str(), floors)
    }

    /// Marks say where they were put: those below a renamed directory are put again.
    fn mark_moved(&self, session: &SessionId, from: &str, to: &str, floors: &[(Key, Version)]) -> Result<()> {
        let place = paths::value(session, to);
        let names = match tree::shown(&*self.disk, session, to) {
            Err(e) if tree::is_missing(&e) => return Ok(()),
            other => other.map_err(io("reading", &place))?,
        };
        for (name, form) in names {
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

    pub(super) fn make_dir(&self, session: &SessionId, dir: &Dir, kept: &Kept) -> Result<()> {
        let place = paths::value(session, dir.as_str());
        tree::make_dirs(&*self.disk, &place)?;
        let made = self.disk.open(&place, Access::Read).map_err(io("making", &place))?;
        look::set_attributes(&*made, &kept.attributes(), &place)
    }

    pub(super) fn remove_dir(&self, session: &SessionId, dir: &Dir) -> Result<()> {
        let place = paths::value(session, dir.as_str());
        match tree::is_empty(&*self.disk, session, dir.as_str()) {
            Err(e) if tree::is_missing(&e) => {}
            Err(e) => return Err(io("reading", &place)(e)),
            // Something came into it from beside the store, or a later change of ours did before a crash.
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
