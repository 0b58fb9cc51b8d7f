//! Questions that are asked again whenever there may be another answer, and those that are answered in parts.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use super::options::{perform, unexpected};
use super::output;
use crate::committer::{Call, LOOK_EVERY, Refusal, RefusalKind, Reply, Request, Wanted, Watch, Woken};
use crate::words::{LogLine, Seq, SessionId};

/// Looks, and looks again whenever `watch` says so, until there is something, `until` has passed, or, where it `shows`
/// what it finds, nobody reads stdout any more. Nothing is held while it waits. Who holds the store and does not answer
/// (it recovers, or many ask at one time) is asked again.
///
/// # Errors
/// Those of `look` but InUse, or the system's.
pub(super) fn look_until<T>(
    mut watch: Watch,
    until: Option<Instant>,
    shows: bool,
    mut look: impl FnMut() -> Result<Option<T>, Refusal>,
) -> Result<Option<T>, Refusal> {
    let (mut said, mut said_held, stdout) = (false, false, io::stdout());
    loop {
        if let Err(e) = watch.arm()
            && !std::mem::replace(&mut said, true)
        {
            output::say(&format!("the store cannot be watched ({e}): it is asked once a second"));
        }
        let wakes = match look() {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => until,
            Err(held) if held.kind == RefusalKind::InUse => {
                if !std::mem::replace(&mut said_held, true) {
                    output::say(&output::plain(&format!("{}: it is asked once a second", held.words)));
                }
                let soon = Instant::now() + LOOK_EVERY;
                Some(until.map_or(soon, |until| until.min(soon)))
            }
            Err(refusal) => return Err(refusal),
        };
        match watch.wait(wakes, shows.then(|| stdout.as_fd())).map_err(|e| Refusal::failed("waiting", e))? {
            Woken::Unread => return Ok(None),
            Woken::TimedOut if until.is_some_and(|until| Instant::now() >= until) => return Ok(None),
            Woken::TimedOut | Woken::Changed => {}
        }
    }
}

/// The changes of a session after a change, asked for in parts, so that no committer waits while they are shown.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    pub(super) root: &'a Path,
    pub(super) session: &'a SessionId,
    pub(super) wanted: Wanted,
    /// The last one that was looked at.
    pub(super) upto: Seq,
    /// The session was found.
    found: bool,
}

impl<'a> Changes<'a> {
    /// Those after change `upto`.
    pub(super) fn new(root: &'a Path, session: &'a SessionId, wanted: Wanted, upto: Seq) -> Self {
        Self { root, session, wanted, upto, found: false }
    }

    /// Gives those that there are now to `each`, a part at a time, until it wants no more (`false`); whether it did. Of a
    /// session that has been removed since it was found, those that are left come before the refusal.
    ///
    /// # Errors
    /// Those of `each`, or of the store.
    pub(super) fn each(
        &mut self,
        mut each: impl FnMut(Vec<LogLine>) -> Result<bool, Refusal>,
    ) -> Result<bool, Refusal> {
        let mut gone = None;
        loop {
            let (lines, more) = match (self.ask(gone.is_some()), gone.take()) {
                (Ok(part), was) => {
                    gone = was;
                    part
                }
                (Err(_), Some(gone)) => return Err(gone),
                (Err(refusal), None) if self.found && refusal.kind == RefusalKind::NotFound => {
                    gone = Some(refusal);
                    continue;
                }
                (Err(refusal), None) => return Err(refusal),
            };
            self.found = true;
            if !lines.is_empty() && !each(lines)? {
                return Ok(false);
            }
            if !more {
                return gone.map_or(Ok(true), Err);
            }
        }
    }

    /// The next part, and whether there are more.
    fn ask(&mut self, removed: bool) -> Result<(Vec<LogLine>, bool), Refusal> {
        let (session, wanted) = (self.session.clone(), self.wanted.clone());
        let call = Call::new(Request::Changes { session, after: self.upto, wanted, removed });
        match perform(self.root, call)?.0 {
            Reply::Changes { lines, upto, more } => {
                self.upto = upto;
                Ok((lines, more))
            }
            reply => Err(unexpected(&reply)),
        }
    }
}
