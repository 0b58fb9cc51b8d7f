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
}

impl Changes<'_> {
    /// Gives those that there are now to `each`, a part at a time, until it wants no more (`false`); whether it did.
    ///
    /// # Errors
    /// Those of `each`, or of the store.
    pub(super) fn each(
        &mut self,
        mut each: impl FnMut(Vec<LogLine>) -> Result<bool, Refusal>,
    ) -> Result<bool, Refusal> {
        loop {
            let (session, wanted) = (self.session.clone(), self.wanted.clone());
            let call = Call::new(Request::Changes { session, after: self.upto, wanted });
            let (lines, more) = match perform(self.root, call)?.0 {
                Reply::Changes { lines, upto, more } => {
                    self.upto = upto;
                    (lines, more)
                }
                reply => return Err(unexpected(&reply)),
            };
            if !lines.is_empty() && !each(lines)? {
                return Ok(false);
            }
            if !more {
                return Ok(true);
            }
        }
    }
}
