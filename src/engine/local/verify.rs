//! Checking a store: what is on the disk against every rule of FORMAT.md, each breach a [`Finding`]. Reads and judges;
//! what a repair does is in `mend`. Must not commit: no version, no log line, no record comes from here.
//!
//! | file | looks at |
//! | --- | --- |
//! | `own` | the marker, drafts, names in `.baton` that are nobody's |
//! | `journal` | headers, records, the drafts that records name; what is on its way, and so not judged yet |
//! | `log` | the lines of one session, and what they say of each key (`facts`) |
//! | `table` | the table of versions |
//! | `keys` | values, marks, names that are no keys |
//! | `sidecars` | the neighbour's records of writers |
//! | `past` | history |
//!
//! Where no numbered rule speaks of what is found, a word names it: `policy` (it is none), `operation` (one has two lines),
//! `sidecar` (without its value), `temporary` (a file of the neighbour's that nobody came back for), `spare` (files kept
//! to be written again), `journal` (changes that are not in their places yet), `unknown` (a name that is nobody's),
//! `unreadable` (the disk refuses), `newer` (a later version's store).
//!
//! It runs over a [`Disk`] alone, for a store that nobody has open or that cannot be opened, and beside an open engine.
//! There it holds nobody up while it reads: only what looks wrong is looked at again, under the key's own lock.
//!
//! Memory: what the log says of the keys of one session (about 200 bytes a key, and a key's own length), the names of one
//! directory, the journal's records, and 16 MiB to find a repeated operation; none of it grows with the number of
//! sessions, versions or bytes, but for the sessions' names.

mod facts;
mod journal;
mod keys;
mod log;
mod mend;
mod own;
mod past;
mod sidecars;
mod table;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::facts::Facts;
use self::journal::OnItsWay;
use self::mend::Mend;
use super::disk::{Disk, DiskFile, Form, LocalDisk};
use super::stage::checksum;
use super::{LocalEngine, paths, tree};
use crate::engine::{Engine, EngineError, Finding, Harm, Report, Result, Tell};
use crate::words::{Key, Seq, SessionId};

/// How often whoever waits hears how far it is.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Checks a store that nobody has open; the caller holds its lock. With `repair`, what can be mended is: by hand of the
/// disk first, so that also what keeps the store from being opened is, then by opening it, which finishes what a crash
/// interrupted.
///
/// # Errors
/// As [`crate::engine::Engine::verify`]; also when the directory cannot be opened.
pub fn verify(root: &Path, repair: bool, tell: &mut Tell<'_>) -> Result<Report> {
    let disk = LocalDisk::open_at(root).map_err(|e| EngineError::io(format!("opening {}", root.display()), e))?;
    verify_on(&(Arc::new(disk) as Arc<dyn Disk>), repair, tell)
}

/// As [`verify`], on any disk.
///
/// # Errors
/// As [`verify`].
pub fn verify_on(disk: &Arc<dyn Disk>, repair: bool, tell: &mut Tell<'_>) -> Result<Report> {
    let mut look = |repair| Scan::new(&**disk, None, repair, tell).run();
    let first = look(repair)?;
    let newer = first.findings.iter().any(|finding| finding.rule == own::NEWER);
    if !repair || newer || first.findings.is_empty() {
        return Ok(first);
    }
    let mut before = first.findings;
    match LocalEngine::open_on(Arc::clone(disk)).and_then(|engine| engine.close()) {
        // What was on its way is in its place now, and can be judged.
        Ok(()) => before.extend(look(true)?.findings),
        Err(e) => tracing::warn!("the store cannot be opened after the repair: {e}"),
    }
    settle(&**disk)?;
    Ok(look(false)?.after(before))
}

/// What was mended is durable before it is said to be.
fn settle(disk: &dyn Disk) -> Result<()> {
    disk.sync_everything().map_err(|e| EngineError::io("syncing what was mended", e))
}

impl LocalEngine {
    /// Checks the store while it is open.
    pub(super) fn check(&self, repair: bool, tell: &mut Tell<'_>) -> Result<Report> {
        let mut look = |repair| Scan::new(&*self.disk, Some(self), repair, tell).run();
        if !repair {
            return look(false);
        }
        self.journal.check_open()?;
        let before = look(true)?.findings;
        if before.iter().any(|finding| finding.place == paths::JOURNAL && finding.repairable) {
            // Each writes the header that does not count, and makes it the one that does.
            for _ in 0..2 {
                if let Err(e) = self.checkpoint_all() {
                    tracing::warn!("the journal cannot start again: {e}");
                }
            }
        }
        // A failure that only this one heard of would be none for the next checkpoint.
        self.sync_store()?;
        Ok(look(false)?.after(before))
    }
}

/// A finding, and what mends it.
#[derive(Debug)]
struct Fault {
    finding: Finding,
    mend: Mend,
}

impl Fault {
    fn new(harm: Harm, rule: &str, place: &str, what: impl Into<String>, remedy: &str) -> Self {
        let (rule, place) = (rule.to_owned(), place.to_owned());
        let finding = Finding { rule, place, what: what.into(), remedy: remedy.to_owned(), harm, repairable: false };
        Self { finding, mend: Mend::Nothing }
    }

    fn damage(rule: &str, place: &str, what: impl Into<String>, remedy: &str) -> Self {
        Self::new(Harm::Damage, rule, place, what, remedy)
    }

    fn leftover(rule: &str, place: &str, what: impl Into<String>, remedy: &str) -> Self {
        Self::new(Harm::Leftover, rule, place, what, remedy)
    }

    fn note(rule: &str, place: &str, what: impl Into<String>, remedy: &str) -> Self {
        Self::new(Harm::Note, rule, place, what, remedy)
    }

    /// The same, with what mends it.
    fn mended_by(mut self, mend: Mend) -> Self {
        self.finding.repairable = true;
        self.mend = mend;
        self
    }

    /// Something cannot be read: that is found, and the rest is looked at all the same.
    fn unreadable(place: &str, e: &dyn std::fmt::Display) -> Self {
        let remedy = "the disk or its permissions are at fault: mend them and check again";
        Self::damage("unreadable", place, format!("it cannot be read: {e}"), remedy)
    }
}

/// A check under way.
struct Scan<'a, 't> {
    disk: &'a dyn Disk,
    /// The engine that has the store open, if one has.
    live: Option<&'a LocalEngine>,
    repair: bool,
    report: Report,
    tell: &'a mut Tell<'t>,
    told: Instant,
    stopped: bool,
    way: OnItsWay,
    /// The value that was judged last, if its change comes after the end of the log.
    ahead: Option<(Seq, String)>,
}

impl<'a, 't> Scan<'a, 't> {
    fn new(disk: &'a dyn Disk, live: Option<&'a LocalEngine>, repair: bool, tell: &'a mut Tell<'t>) -> Self {
        let (report, way) = (Report::default(), OnItsWay::default());
        Self { disk, live, repair, report, tell, told: Instant::now(), stopped: false, way, ahead: None }
    }

    fn run(mut self) -> Result<Report> {
        if !self.check_marker() {
            return Ok(self.report);
        }
        self.check_journal()?;
        self.check_own_names();
        for session in self.sessions() {
            self.check_session(&session)?;
        }
        Ok(self.report)
    }

    /// Every session that has anything: values, a log, or history.
    fn sessions(&mut self) -> BTreeSet<SessionId> {
        let mut all = BTreeSet::new();
        for (name, form) in self.names("") {
            match name.as_deref().map(SessionId::parse) {
                Ok(Ok(id)) if form == Form::Dir => {
                    self.report.checked.sessions += 1;
                    all.insert(id);
                }
                _ if matches!(&name, Ok(name) if name == paths::BATON) => {}
                _ => self.found(Fault::note(
                    "F8",
                    &shown(&name),
                    "it is no session, and never shown",
                    "move it elsewhere, if it is not meant to lie here",
                )),
            }
        }
        for dir in [paths::SESSIONS, paths::HISTORY] {
            for (name, form) in self.names(dir) {
                match name.as_deref().map(SessionId::parse) {
                    Ok(Ok(id)) if form == Form::Dir => drop(all.insert(id)),
                    _ => self.unknown(&format!("{dir}/{}", shown(&name))),
                }
            }
        }
        all
    }

    fn check_session(&mut self, session: &SessionId) -> Result<()> {
        self.step()?;
        if self.live.and_then(|live| live.known(session)).is_some_and(|known| known.is_stuck()) {
            self.found(Fault::note(
                "F25",
                session.as_str(),
                "changes of it are committed and not yet in their place: it was not checked",
                "make room or mend the disk; the next read or change of the session puts them there",
            ));
            return Ok(());
        }
        let mut facts = self.read_log(session)?;
        self.check_policy(session);
        self.check_table(session, &facts)?;
        self.check_values(session, &mut facts)?;
        self.check_sidecars(session)?;
        self.check_past(session, &mut facts)?;
        self.check_missing(session, &mut facts)
    }

    /// Judges one key, without holding anybody up; what looks wrong in an open store is judged again while nobody can
    /// change it, and that counts.
    fn judge_key(
        &mut self,
        session: &SessionId,
        key: &Key,
        facts: &mut Facts,
        judge: impl Fn(&mut Self, &Facts) -> Result<Vec<Fault>>,
    ) -> Result<()> {
        if self.way.touches(session, key.as_str()) {
            return Ok(());
        }
        self.ahead = None;
        let faults = judge(self, facts)?;
        let fine = faults.is_empty() && self.ahead.is_none();
        let (Some(live), false) = (self.live, fine) else {
            faults.into_iter().for_each(|fault| self.found(fault));
            return Ok(());
        };
        let _gate = live.pass();
        let known = live.loaded(session)?;
        let _hold = known.hold_keys(&[key]);
        if known.is_stuck() {
            self.ahead = None;
            return Ok(());
        }
        let lines = known.changes(facts.last()).all();
        // A log that cannot be read is a finding of its own, and then nothing is compared with it.
        for line in &lines.unwrap_or_default() {
            facts.note(line);
        }
        let checked = self.report.checked;
        self.ahead = None;
        let faults = judge(self, facts)?;
        self.report.checked = checked;
        let _alone = known.publishing(key.as_str());
        faults.into_iter().for_each(|fault| self.found(fault));
        Ok(())
    }

    /// Takes a finding in, and mends it where that is asked for.
    fn found(&mut self, mut fault: Fault) {
        if self.repair
            && let Err(e) = fault.mend.act(self.disk)
        {
            fault.finding.what = format!("{}; mending it failed: {e}", fault.finding.what);
        }
        self.report.add(fault.finding);
    }

    fn unknown(&mut self, place: &str) {
        self.found(Fault::note("unknown", place, "nothing of ours has this name", "remove it, if it is not yours"));
    }

    /// The names in a directory; none where there is none. What cannot be read is a finding.
    fn names(&mut self, dir: &str) -> Vec<(Name, Form)> {
        match self.disk.read_dir(dir) {
            Ok(names) => names.into_iter().map(|(name, form)| (name.into_string().map_err(Lossy::of), form)).collect(),
            Err(e) if tree::is_missing(&e) => Vec::new(),
            Err(e) => {
                self.found(Fault::unreadable(dir, &e));
                Vec::new()
            }
        }
    }

    /// The checksum of a file's first `len` bytes.
    fn sum(&mut self, file: &dyn DiskFile, len: u64, place: &str) -> Result<u32> {
        checksum(len, |at, part| {
            self.step()?;
            let got = file.read_at(at, part).map_err(|e| EngineError::io(format!("reading {place}"), e))?;
            self.report.checked.bytes += got as u64;
            Ok(got)
        })
    }

    /// Says now and then how far it is.
    fn step(&mut self) -> Result<()> {
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            self.stopped = (self.tell)(&self.report.checked).is_break();
        }
        if self.stopped {
            let source = std::io::Error::from_raw_os_error(libc::ECANCELED);
            return Err(EngineError::Io { doing: "checking the store".to_owned(), source });
        }
        Ok(())
    }

    /// Turns an error of reading into a finding; being told to stop stays an error.
    fn or_unreadable<T>(&mut self, place: &str, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(there) => Ok(Some(there)),
            Err(e) if self.stopped => Err(e),
            Err(e) => {
                self.found(Fault::unreadable(place, &e));
                Ok(None)
            }
        }
    }
}

/// A name; in words where it is not UTF-8.
type Name = std::result::Result<String, Lossy>;

/// What people are shown of a name that is not UTF-8.
#[derive(Debug)]
struct Lossy(String);

impl Lossy {
    #[expect(clippy::needless_pass_by_value, reason = "what the conversion gives back")]
    fn of(name: std::ffi::OsString) -> Self {
        Self(name.to_string_lossy().into_owned())
    }
}

fn shown(name: &Name) -> String {
    match name {
        Ok(name) => name.clone(),
        Err(Lossy(name)) => name.clone(),
    }
}
