//! History: F6, F7, F56, F57. Each file is a version whose mark covers its number, or a draft whose mark tells its change,
//! and its bytes are its mark's.

use super::facts::Facts;
use super::mend::Mend;
use super::{Fault, Scan, shown};
use crate::engine::local::disk::{Access, Form};
use crate::engine::local::look::{self, Found, Look};
use crate::engine::local::mark::Mark;
use crate::engine::local::paths;
use crate::engine::{EngineError, Result};
use crate::words::{Key, Past, SessionId, Version};

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
        let (mut versions, mut drafts): (Vec<Version>, Vec<Past>) = Default::default();
        for (name, form) in self.names(&place) {
            let file = format!("{place}/{}", shown(&name));
            match paths::past_of(&shown(&name)) {
                Some(Past::Version(version)) if form == Form::File => versions.push(version),
                Some(draft) if form == Form::File => drafts.push(draft),
                _ => self.unknown(&file),
            }
        }
        versions.sort_unstable();
        drafts.sort_unstable();
        for draft in drafts {
            self.judge_key(session, key, facts, |scan, facts| scan.judge_draft(session, key, draft, facts))?;
        }
        self.report.checked.versions += versions.len() as u64;
        for version in &versions {
            self.judge_key(session, key, facts, |scan, facts| scan.judge_version(session, key, *version, facts))?;
        }
        self.check_count(session, key, versions.len(), facts)
    }

    /// Are there more versions than are kept? How many that is, is for whoever has the store open.
    fn check_count(&mut self, session: &SessionId, key: &Key, count: usize, facts: &Facts) -> Result<()> {
        let Some(live) = self.live.filter(|live| live.keep.count > 0) else { return Ok(()) };
        let keep = live.keep;
        // Pruning may be late by as many as are kept.
        if count as u64 <= keep.count.saturating_mul(2) || self.way.touches(session, key.as_str()) {
            return Ok(());
        }
        // Nobody brings others under these names from here on.
        let _gate = live.pass();
        let known = live.loaded(session)?;
        let _hold = known.hold_keys(&[key]);
        let place = paths::history_key(session, key.as_str());
        let Some(versions) = self.or_unreadable(&place, live.kept(session, key))? else { return Ok(()) };
        let newest = versions.last().copied().unwrap_or(0).max(facts.last_of(key.as_str()));
        let old = versions.into_iter().filter(|old| keep.is_past(*old, newest));
        let places = old.map(|old| paths::history(session, key.as_str(), old)).collect();
        let remedy = format!("the {} before the newest are kept; those before them can be removed", keep.count);
        let fault = Fault::leftover("F6", &place, format!("it has {count} versions"), &remedy);
        self.found(fault.mended_by(Mend::RemoveAll(places)));
        Ok(())
    }

    fn judge_version(&mut self, session: &SessionId, key: &Key, version: Version, facts: &Facts) -> Result<Vec<Fault>> {
        let place = paths::history(session, key.as_str(), version);
        let looked = look::look_at(self.disk, &place, Access::Read);
        let Some(Look::File(found)) = self.or_unreadable(&place, looked)? else { return Ok(Vec::new()) };
        // Its mark was put on it at its key's path, which may have been another directory's.
        let read = Mark::read(&*found.file).map_err(|e| EngineError::io(format!("reading {place}"), e));
        let Some(read) = self.or_unreadable(&place, read)? else { return Ok(Vec::new()) };
        let Some(mark) = read.filter(|mark| mark.is_of_past(Past::Version(version))) else {
            let what = format!("its mark does not say that it is version {version}");
            return Ok(vec![Fault::damage("F6", &place, what, "its bytes are kept; who wrote them is in the log")]);
        };
        if let Some(fault) = self.judge_bytes(session, key, (&found, &mark), &place)? {
            return Ok(vec![fault]);
        }
        let last = facts.last_of(key.as_str());
        if facts.whole && (mark.seq > facts.last() || version > last) {
            let what = format!("it is version {version}, and the log knows none after {last}");
            let remedy = "its bytes are kept; lines of the log are lost";
            return Ok(vec![Fault::damage("F7", &place, what, remedy)]);
        }
        Ok(Vec::new())
    }

    /// A draft that became no version.
    fn judge_draft(&mut self, session: &SessionId, key: &Key, draft: Past, facts: &Facts) -> Result<Vec<Fault>> {
        let place = paths::past(session, key.as_str(), draft);
        let looked = look::look_at(self.disk, &place, Access::Read);
        let Some(Look::File(found)) = self.or_unreadable(&place, looked)? else { return Ok(Vec::new()) };
        let read = Mark::read(&*found.file).map_err(|e| EngineError::io(format!("reading {place}"), e));
        let Some(read) = self.or_unreadable(&place, read)? else { return Ok(Vec::new()) };
        let Some(mark) = read.filter(|mark| mark.is_of_past(draft)) else {
            let what = format!("its mark does not say that it is the draft {draft}");
            return Ok(vec![Fault::damage("F57", &place, what, "its bytes are kept; who wrote them is in the log")]);
        };
        if let Some(fault) = self.judge_bytes(session, key, (&found, &mark), &place)? {
            return Ok(vec![fault]);
        }
        if facts.whole && mark.seq > facts.last() {
            let what = format!("it is of change {}, and the log ends with {}", mark.seq, facts.last());
            let remedy = "its bytes are kept; lines of the log are lost";
            return Ok(vec![Fault::damage("F56", &place, what, remedy)]);
        }
        Ok(Vec::new())
    }

    /// Are the bytes those that the mark speaks of? Version 0 is a draft's.
    fn judge_bytes(
        &mut self,
        session: &SessionId,
        key: &Key,
        (found, mark): (&Found, &Mark),
        place: &str,
    ) -> Result<Option<Fault>> {
        let (rule, called) = match mark.version {
            0 => ("F57", "the draft".to_owned()),
            version => ("F6", format!("version {version}")),
        };
        if mark.size != found.stat.size_bytes {
            let what = format!("it has {} bytes, {called} has {}", found.stat.size_bytes, mark.size);
            return Ok(Some(self.torn_past(session, key, mark, place, (rule, what))));
        }
        let sum = self.sum(&*found.file, mark.size, place);
        let other = self.or_unreadable(place, sum)?.is_some_and(|crc| crc != mark.crc);
        let what = format!("its bytes are not those of {called}: their checksum is another");
        Ok(other.then(|| self.torn_past(session, key, mark, place, (rule, what))))
    }

    fn torn_past(
        &self,
        session: &SessionId,
        key: &Key,
        mark: &Mark,
        place: &str,
        (rule, what): (&str, String),
    ) -> Fault {
        let bytes = match mark.version {
            0 => self.way.draft_bytes(session, mark),
            _ => self.way.bytes_of(session, key, mark),
        };
        match bytes {
            Some(bytes) => Fault::damage(rule, place, what, "the journal still has its bytes").mended_by(Mend::Bytes {
                place: place.to_owned(),
                bytes,
                mark: Box::new(mark.clone()),
            }),
            None => Fault::damage(rule, place, what, "these bytes are lost; no others are touched by it"),
        }
    }
}
