//! The neighbour's records of writers: F2, F3, and those of values that are gone. Knows one key at a time.

use super::mend::Mend;
use super::{Fault, Scan, shown};
use crate::engine::local::disk::{Access, Form};
use crate::engine::local::look::{self, Look};
use crate::engine::local::mark::{self, Mark};
use crate::engine::local::{paths, stage, tree};
use crate::engine::{EngineError, Result, sidecar};
use crate::words::key::TMP_MARK;
use crate::words::{Key, SessionId};

/// What ends a sidecar's name.
const SUFFIX: &str = ".json";

impl Scan<'_, '_> {
    /// Judges the sidecar of a value of ours. `second`: when its writer was recorded, as the log tells; else as the mark.
    pub(super) fn judge_sidecar(
        &mut self,
        session: &SessionId,
        key: &Key,
        mark: &Mark,
        second: Option<u64>,
    ) -> Result<Option<Fault>> {
        let place = paths::sidecar(session, key.as_str());
        let empty = mark.writer.is_empty();
        let bytes = sidecar(&mark.writer, second.unwrap_or(mark.at_s));
        let rewrite = || Mend::Sidecar { place: place.clone(), bytes: bytes.clone() };
        let writer = mark.writer.display_name();
        let file = match self.disk.open(&place, Access::Read) {
            // Nothing else: where a key collides with another's sidecar, its writer is in its mark only.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !empty => {
                let what = format!("it is not there, and '{writer}' wrote the value");
                return Ok(Some(Fault::damage("F2", &place, what, "the value's mark tells it").mended_by(rewrite())));
            }
            Err(e) if tree::is_missing(&e) || is_no_file(&e) => return Ok(None),
            Err(e) => return Ok(Some(Fault::unreadable(&place, &e))),
            Ok(file) => file,
        };
        let read = || {
            let stat = file.stat()?;
            let ours = file.xattr(mark::NAME)?.is_some();
            // Another size is another sidecar, however large.
            let text =
                if stat.size_bytes == bytes.len() as u64 { stage::read_whole(&*file, &place).ok() } else { None };
            Ok((stat.form, ours, text))
        };
        let (form, ours, text) = match read().map_err(|e: std::io::Error| EngineError::io("reading", e)) {
            Ok(read) => read,
            Err(e) => return Ok(Some(Fault::unreadable(&place, &e))),
        };
        if form != Form::File || !empty && text.as_ref() == Some(&bytes) {
            return Ok(None);
        }
        Ok(Some(match (ours, empty) {
            (false, _) => {
                let remedy = "the value's mark counts; the next write of the key puts it right";
                Fault::note("F12", &place, "a program beside the mount wrote it, after a value that is ours", remedy)
            }
            (true, true) => {
                Fault::damage("F3", &place, "it is there, and the value has no writer", "it can be removed")
                    .mended_by(Mend::Remove(place.clone()))
            }
            (true, false) => {
                let what = format!("it does not say what the neighbour would write for '{writer}'");
                Fault::damage("F2", &place, what, "the value's mark tells it").mended_by(rewrite())
            }
        }))
    }

    /// Every sidecar of a session, directory by directory.
    pub(super) fn check_sidecars(&mut self, session: &SessionId) -> Result<()> {
        let mut dirs = vec![String::new()];
        while let Some(dir) = dirs.pop() {
            self.step()?;
            let place = paths::meta_dir(session, &dir);
            for (name, form) in self.names(&place) {
                let Ok(name) = &name else {
                    self.unknown(&format!("{place}/{}", shown(&name)));
                    continue;
                };
                let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
                match form {
                    Form::Dir => dirs.push(path),
                    Form::File if name.contains(TMP_MARK) => self.check_temporary(&format!("{place}/{name}")),
                    Form::File => self.check_owner(session, &path),
                    Form::Other => self.unknown(&format!("{place}/{name}")),
                }
            }
        }
        Ok(())
    }

    /// A sidecar speaks of a value. The neighbour puts the value there first, so one without is never on its way.
    fn check_owner(&mut self, session: &SessionId, path: &str) {
        let place = paths::meta_dir(session, path);
        let Some(Ok(key)) = path.strip_suffix(SUFFIX).map(Key::literal) else { return self.unknown(&place) };
        if self.way.touches(session, key.as_str()) {
            return;
        }
        // In an open store a value and its sidecar go together, while the key is held.
        let orphan = || {
            matches!(look::look(self.disk, session, key.as_str(), Access::Read), Ok(Look::Nothing))
                && self.disk.stat(&place).is_ok_and(|stat| stat.form == Form::File)
        };
        if !orphan() {
            return;
        }
        let known = self.live.and_then(|live| Some((live, live.session(session).ok()?)));
        let _gate = known.as_ref().map(|(live, _)| live.pass());
        let _hold = known.as_ref().map(|(_, known)| known.hold_keys(&[&key]));
        if !known.as_ref().is_some_and(|(_, known)| known.is_stuck()) && orphan() {
            let remedy = "who writes the key next would meet a writer who is gone: it can be removed";
            let fault = Fault::leftover("sidecar", &place, format!("there is no value '{key}' any more"), remedy);
            self.found(fault.mended_by(Mend::Remove(place)));
        }
    }
}

fn is_no_file(e: &std::io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EISDIR | libc::ENXIO))
}
