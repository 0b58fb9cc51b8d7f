//! Values in their places: names, marks, bytes, and whether the log tells the same. Knows one key at a time.

use super::facts::{Facts, Live};
use super::mend::Mend;
use super::{Fault, Scan, shown};
use crate::engine::Result;
use crate::engine::local::disk::{Access, Form};
use crate::engine::local::look::{self, Found, Look};
use crate::engine::local::mark::{self, Mark};
use crate::engine::local::{paths, sweep, tree};
use crate::words::key::{BATON_DIR, META_DIR, TMP_MARK};
use crate::words::{Key, SessionId};

const RECOVER: &str = "the version before it is in history, where there is one";

impl Scan<'_, '_> {
    /// Every name of a session, directory by directory.
    pub(super) fn check_values(&mut self, session: &SessionId, facts: &mut Facts) -> Result<()> {
        let mut dirs = vec![String::new()];
        while let Some(dir) = dirs.pop() {
            self.step()?;
            let place = paths::value(session, &dir);
            let mut names = self.names(&place);
            names.sort_unstable_by_key(|(name, _)| shown(name));
            for (name, form) in names {
                let Ok(text) = &name else {
                    self.never_shown(&format!("{place}/{}", shown(&name)), "its name is not UTF-8");
                    continue;
                };
                let path = if dir.is_empty() { text.clone() } else { format!("{dir}/{text}") };
                if paths::hidden(text, dir.is_empty()) {
                    self.check_hidden(&format!("{place}/{text}"), text, form, dir.is_empty());
                } else if form == Form::Dir {
                    dirs.push(path);
                } else {
                    self.check_name(session, &path, facts)?;
                }
            }
        }
        if let Some((seq, key)) = facts.ahead.take() {
            // Told once: every value after the end of a log that was cut would say the same.
            facts.whole = false;
            let what =
                format!("it ends with change {}, and '{key}' is of change {seq}: lines are missing", facts.last());
            let remedy = "the values are whole; write each key of the session again, so that its number is in the log";
            self.found(Fault::damage("F5", &paths::log(session), what, remedy));
        }
        Ok(())
    }

    fn never_shown(&mut self, place: &str, what: &str) {
        let remedy = "it is never listed and never followed; move it elsewhere, if it is not meant to lie here";
        self.found(Fault::note("F8", place, what, remedy));
    }

    /// What the neighbour has beside values: its temporary files, and directories of ours that are only seen on a mount.
    fn check_hidden(&mut self, place: &str, name: &str, form: Form, top: bool) {
        if name.contains(TMP_MARK) && form == Form::File {
            self.check_temporary(place);
        } else if top && name == BATON_DIR || name == META_DIR && !top {
            self.never_shown(place, "its name is reserved");
        }
    }

    /// A program that was interrupted never comes back for its temporary file; one at work may have it open.
    pub(super) fn check_temporary(&mut self, place: &str) {
        if sweep::is_abandoned(self.disk, place, std::time::SystemTime::now()) {
            let remedy = "the program that made it has not come back for a day: it can be removed";
            let fault = Fault::leftover("temporary", place, "a temporary file beside a value", remedy);
            self.found(fault.mended_by(Mend::Remove(place.to_owned())));
        }
    }

    fn check_name(&mut self, session: &SessionId, path: &str, facts: &mut Facts) -> Result<()> {
        let Ok(key) = Key::literal(path) else {
            self.never_shown(&paths::value(session, path), "its name is too long for a key");
            return Ok(());
        };
        facts.see(path);
        self.report.checked.keys += 1;
        self.report.checked.versions += 1;
        self.judge_key(session, &key, facts, |scan, facts| scan.judge_value(session, &key, facts))?;
        // The first value that comes after the end of the log speaks for all of them.
        let ahead = self.ahead.take();
        if facts.ahead.is_none() {
            facts.ahead = ahead;
        }
        Ok(())
    }

    fn judge_value(&mut self, session: &SessionId, key: &Key, facts: &Facts) -> Result<Vec<Fault>> {
        let place = paths::value(session, key.as_str());
        let looked = look::look_at(self.disk, &place, Access::Read);
        let found = match self.or_unreadable(&place, looked)? {
            Some(Look::File(found)) => found,
            Some(Look::InTheWay) => {
                let remedy = "it is never listed and never followed; move it elsewhere, if it is not meant to lie here";
                return Ok(vec![Fault::note("F8", &place, "it is a link or a special file", remedy)]);
            }
            _ => return Ok(Vec::new()),
        };
        let Some(mark) = found.mark.clone() else { return self.judge_unmarked(session, key, &found, facts) };
        if !mark.fits(&found.stat) {
            return Ok(vec![self.judge_changed(session, key, &found, &mark)]);
        }
        let sum = self.sum(&*found.file, mark.size, &place);
        match self.or_unreadable(&place, sum)? {
            Some(crc) if crc != mark.crc => {
                let what = format!("its bytes are not those of version {}: their checksum is another", mark.version);
                return Ok(vec![self.torn(session, key, &mark, what)]);
            }
            Some(_) => {}
            None => return Ok(Vec::new()),
        }
        let mut faults: Vec<_> = self.compare(&place, key, &mark, facts).into_iter().collect();
        if faults.is_empty() && !mark.foreign {
            let second = facts.live(key.as_str()).filter(|live| live.seq == mark.seq).map(|live| live.at_s);
            faults.extend(self.judge_sidecar(session, key, &mark, second)?);
        }
        Ok(faults)
    }

    /// Bytes that are not their mark's: put right where the journal still has them, never overwritten else.
    fn torn(&self, session: &SessionId, key: &Key, mark: &Mark, what: String) -> Fault {
        let place = paths::value(session, key.as_str());
        match self.way.bytes_of(session, key, mark) {
            Some(bytes) => Fault::damage("F1", &place, what, "the journal still has its bytes")
                .mended_by(Mend::Bytes { place: place.clone(), bytes, mark: Box::new(mark.clone()) }),
            None => Fault::damage("F1", &place, what, RECOVER),
        }
    }

    /// A file that has another size or time than its mark.
    fn judge_changed(&self, session: &SessionId, key: &Key, found: &Found, mark: &Mark) -> Fault {
        if mark.mtime_ns == found.stat.mtime_ns {
            // A program that writes to it leaves its own time.
            let what = format!("it has {} bytes, version {} has {}", found.stat.size_bytes, mark.version, mark.size);
            return self.torn(session, key, mark, what);
        }
        strangers(session, key, "a program beside the mount changed it in place")
    }

    /// A file without a mark that was put on it here.
    fn judge_unmarked(&mut self, session: &SessionId, key: &Key, found: &Found, facts: &Facts) -> Result<Vec<Fault>> {
        let place = paths::value(session, key.as_str());
        let raw = match found.file.xattr(mark::NAME) {
            Ok(raw) => raw.unwrap_or_default(),
            Err(e) => return Ok(vec![Fault::unreadable(&place, &e)]),
        };
        let live = facts.live(key.as_str());
        let known = live
            .and_then(|live| self.way.value_at(session, key, live.seq))
            .filter(|(_, value)| (value.size, value.kept.mtime_ns) == (found.stat.size_bytes, found.stat.mtime_ns));
        if let Some((crc, mark)) = known.map(|(record, value)| (value.crc, record.mark(&place, value.span()))) {
            let sum = self.sum(&*found.file, found.stat.size_bytes, &place);
            if self.or_unreadable(&place, sum)? == Some(crc) {
                let what = format!("it has no mark, and is version {}, as the journal proves", mark.version);
                let fault = Fault::damage("F9", &place, what, "the journal still has what its mark said");
                let mark = Box::new(mark);
                return Ok(vec![fault.mended_by(Mend::Mark { place: place.clone(), mark })]);
            }
        }
        let garbled =
            serde_json::from_slice::<serde_json::Value>(&raw).is_err() && !raw.iter().all(|byte| *byte == b' ');
        Ok(vec![if garbled {
            let remedy =
                "the value is kept: the next look at it through the mount or the command gives it its next version";
            Fault::damage("F9", &place, "its mark cannot be read", remedy)
        } else {
            strangers(session, key, "a program beside the mount put it there")
        }])
    }

    /// Does the log say the same as the mark?
    fn compare(&mut self, place: &str, key: &Key, mark: &Mark, facts: &Facts) -> Option<Fault> {
        if !facts.whole {
            return None;
        }
        if mark.seq > facts.last() {
            self.ahead = Some((mark.seq, key.to_string()));
            return None;
        }
        let last = facts.last_of(key.as_str());
        let older = format!("it is version {}, and the log goes on to {last}", mark.version);
        match facts.live(key.as_str()) {
            Some(live) if live.version == mark.version => disagreement(mark, live).map(|what| {
                Fault::damage("F5", place, what, "the mark counts; write the key again, and both say the same")
            }),
            _ if mark.version <= last => {
                let remedy = "a copy was put back beside the mount; the next change gives it the next number";
                Some(Fault::note("F10", place, older, remedy))
            }
            _ => {
                let what = format!("it is version {}, and the log knows none after {last}", mark.version);
                let remedy = "write the key again, so that its number is in the log";
                Some(Fault::damage("F5", place, what, remedy))
            }
        }
    }

    /// What the log says is there and is not.
    pub(super) fn check_missing(&mut self, session: &SessionId, facts: &mut Facts) -> Result<()> {
        if !facts.whole {
            return Ok(());
        }
        let gone = self.disk.stat(session.as_str()).is_err_and(|e| tree::is_missing(&e));
        let mut keys = 0_u64;
        while let Some((path, live)) = facts.take_missing() {
            self.step()?;
            if self.way.touches(session, &path) || !self.is_missing(session, &path, live)? {
                continue;
            }
            keys += 1;
            if !gone {
                let what = format!("version {} is not there: it was deleted beside the mount", live.version);
                let remedy = "'batonfs delete' is how the log hears of it; the versions before it are in history";
                self.found(Fault::note("F28", &paths::value(session, &path), what, remedy));
            }
        }
        if gone && keys > 0 {
            let what = format!("the session is not there, with {keys} keys: it was removed beside the mount");
            self.found(Fault::note("F28", session.as_str(), what, "the versions before them are in history"));
        }
        Ok(())
    }

    /// Also in a moment when nobody can change it, where somebody could.
    fn is_missing(&self, session: &SessionId, path: &str, live: Live) -> Result<bool> {
        let place = paths::value(session, path);
        let absent = || self.disk.stat(&place).is_err_and(|e| tree::is_missing(&e));
        let (Some(engine), Ok(key)) = (self.live, Key::literal(path)) else { return Ok(absent()) };
        let _gate = engine.pass();
        let known = engine.session(session)?;
        let _hold = known.hold_keys(&[&key]);
        let lines = known.changes(live.seq).all().unwrap_or_default();
        let inside = |dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let changed = lines.iter().any(|line| inside(&line.key) || line.to.as_deref().is_some_and(inside));
        Ok(!known.is_stuck() && !changed && absent())
    }
}

/// What the log says otherwise of the same version.
fn disagreement(mark: &Mark, live: Live) -> Option<String> {
    let version = mark.version;
    if live.seq != mark.seq {
        return Some(format!("version {version} is change {} by its mark and {} by the log", mark.seq, live.seq));
    }
    if let Some(size) = live.size.filter(|size| *size != mark.size) {
        return Some(format!("version {version} has {} bytes by its mark and {size} by the log", mark.size));
    }
    (!live.is_by(&mark.writer)).then(|| format!("version {version} has another writer by its mark than by the log"))
}

fn strangers(session: &SessionId, key: &Key, what: &str) -> Fault {
    let remedy = "it is kept, and gets the key's next version when it is looked at the next time";
    Fault::note("F11", &paths::value(session, key.as_str()), what, remedy)
}
