//! History: F6, F7. Each file is a version whose mark covers its number and whose bytes are its mark's.

use super::facts::Facts;
use super::mend::Mend;
use super::{Fault, Scan, shown};
use crate::engine::local::disk::{Access, Form};
use crate::engine::local::look::{self, Look};
use crate::engine::local::mark::Mark;
use crate::engine::local::paths;
use crate::engine::{EngineError, KEPT_VERSIONS, Result};
use crate::words::{Key, SessionId, Version};

/// More than these are not pruned any more. Pruning may be late by as many as are kept.
const FILES_MAX: usize = 2 * KEPT_VERSIONS as usize;

impl Scan<'_, '_> {
    /// The history of a session, directory by directory. Names have a letter before them.
    pub(super) fn check_past(&mut self, session: &SessionId, facts: &mut Facts) -> Result<()> {
        let mut dirs = vec![String::new()];
        while let Some(dir) = dirs.pop() {
            self.step()?;
            let place = paths::history_dir(session, &dir);
            for (name, form) in self.names(&place) {
                let text = shown(&name);
                let path = |name: &str| if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
                match (text.strip_prefix('d'), text.strip_prefix('k'), form) {
                    (Some(below), _, Form::Dir) if name.is_ok() => dirs.push(path(below)),
                    (_, Some(below), Form::Dir) if name.is_ok() => match Key::literal(&path(below)) {
                        Ok(key) => self.check_versions(session, &key, facts)?,
                        Err(_) => self.unknown(&format!("{place}/{text}")),
                    },
                    _ => self.unknown(&format!("{place}/{text}")),
                }
            }
        }
        Ok(())
    }

    fn check_versions(&mut self, session: &SessionId, key: &Key, facts: &mut Facts) -> Result<()> {
        let place = paths::history_key(session, key.as_str());
        let mut versions: Vec<Version> = Vec::new();
        for (name, form) in self.names(&place) {
            match shown(&name).parse() {
                Ok(version) if form == Form::File => versions.push(version),
                _ => self.unknown(&format!("{place}/{}", shown(&name))),
            }
        }
        versions.sort_unstable();
        self.report.checked.versions += versions.len() as u64;
        for version in &versions {
            self.judge_key(session, key, facts, |scan, facts| scan.judge_version(session, key, *version, facts))?;
        }
        let too_many = versions.len().saturating_sub(FILES_MAX);
        if too_many > 0 && !self.way.touches(session, key.as_str()) {
            let count = versions.len();
            let newest = versions.last().copied().unwrap_or(0).max(facts.last_of(key.as_str()));
            let old = versions.into_iter().filter(|old| old.saturating_add(KEPT_VERSIONS) < newest);
            let places = old.map(|old| paths::history(session, key.as_str(), old)).collect();
            let remedy = format!("the {KEPT_VERSIONS} before the newest are kept; those before them can be removed");
            let fault = Fault::leftover("F6", &place, format!("it has {count} versions"), &remedy);
            self.found(fault.mended_by(Mend::RemoveAll(places)));
        }
        Ok(())
    }

    fn judge_version(&mut self, session: &SessionId, key: &Key, version: Version, facts: &Facts) -> Result<Vec<Fault>> {
        let place = paths::history(session, key.as_str(), version);
        let looked = look::look_at(self.disk, &place, Access::Read);
        let Some(Look::File(found)) = self.or_unreadable(&place, looked)? else { return Ok(Vec::new()) };
        // Its mark was put on it at its key's path, which may have been another directory's.
        let read = Mark::read(&*found.file).map_err(|e| EngineError::io(format!("reading {place}"), e));
        let Some(read) = self.or_unreadable(&place, read)? else { return Ok(Vec::new()) };
        const LOST: &str = "this version is lost; the others are not touched by it";
        let Some(mark) = read.filter(|mark| mark.covers(version)) else {
            let what = format!("its mark does not say that it is version {version}");
            return Ok(vec![Fault::damage("F6", &place, what, "its bytes are kept; who wrote them is in the log")]);
        };
        if mark.size != found.stat.size_bytes {
            let what = format!("it has {} bytes, version {version} has {}", found.stat.size_bytes, mark.size);
            return Ok(vec![self.torn_version(session, key, &mark, &place, what, LOST)]);
        }
        let sum = self.sum(&*found.file, mark.size, &place);
        match self.or_unreadable(&place, sum)? {
            Some(crc) if crc != mark.crc => {
                let what = format!("its bytes are not those of version {version}: their checksum is another");
                return Ok(vec![self.torn_version(session, key, &mark, &place, what, LOST)]);
            }
            Some(_) => {}
            None => return Ok(Vec::new()),
        }
        let last = facts.last_of(key.as_str());
        if facts.whole && (mark.seq > facts.last() || version > last) {
            let what = format!("it is version {version}, and the log knows none after {last}");
            let remedy = "its bytes are kept; lines of the log are lost";
            return Ok(vec![Fault::damage("F7", &place, what, remedy)]);
        }
        Ok(Vec::new())
    }

    fn torn_version(
        &self,
        session: &SessionId,
        key: &Key,
        mark: &Mark,
        place: &str,
        what: String,
        lost: &str,
    ) -> Fault {
        match self.way.bytes_of(session, key, mark) {
            Some(bytes) => Fault::damage("F6", place, what, "the journal still has its bytes").mended_by(Mend::Bytes {
                place: place.to_owned(),
                bytes,
                mark: Box::new(mark.clone()),
            }),
            None => Fault::damage("F6", place, what, lost),
        }
    }
}
