//! From a thread id to what was seen of its process and of its ancestors. Knows nothing of writers and precedence.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bounded::{Bounded, Progress};
use super::memory::Hold;
use super::{IdentityError, Observed, Who, environ, proc};
use crate::words::{Claim, Policy, Process};

/// More levels than any tree of shells, build tools and agents has.
const LEVELS_MAX: usize = 64;
/// What the ancestors of a process declare is looked up again after this long: an ancestor may exec while its
/// children live, which is rare, while one parent often starts hundreds of writers a second.
const ANCESTRY_KEPT: Duration = Duration::from_millis(100);
/// So many parents are remembered at one time.
const PARENTS_MAX: usize = 512;
/// So many callers are, each with two descriptors.
const CALLERS_MAX: usize = 64;
/// From so many on, those that have ended make room for the next.
const CALLERS_SOME: usize = 8;

/// What one of the readers says of a caller.
pub(super) type Sight = Result<Observed, IdentityError>;

/// The reader of identities with its threads and what it remembers for a moment.
#[derive(Debug, Default)]
pub(super) struct Eyes {
    threads: Bounded,
    ancestry: Arc<Remembered>,
    lately: Mutex<HashMap<Who, (Instant, Observed)>>,
}

impl Eyes {
    /// As [`super::Resolver::observe`]. What was seen when `limit` passed is the answer, less what came after it.
    pub(super) fn observe(&self, limit: Duration, who: &Who) -> Sight {
        if who.tid == 0 {
            return Ok(who.unseen());
        }
        if let Some(seen) = self.seen_lately(who) {
            return Ok(seen);
        }
        let (ancestry, since, asked) = (Arc::clone(&self.ancestry), Instant::now(), who.clone());
        let seen = self.threads.ask(limit, move |progress| look(&asked, &ancestry, progress));
        if let Some(Ok(seen)) = &seen {
            self.remember(who, since, seen);
        }
        seen.unwrap_or_else(|| Ok(who.unseen()))
    }

    fn lately(&self) -> MutexGuard<'_, HashMap<Who, (Instant, Observed)>> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`super::Resolver::seen_lately`]. Further above than its parent an ancestor may have exec'd: so not for longer
    /// than what ancestors declare is kept.
    pub(super) fn seen_lately(&self, who: &Who) -> Option<Observed> {
        let (_, seen) = self.lately().get(who).filter(|(since, _)| since.elapsed() < ANCESTRY_KEPT).cloned()?;
        seen.memory.is_in_use().then_some(seen)
    }

    /// Lets go of what is too old to be told again, and of the descriptors that are held with it.
    pub(super) fn forget_old(&self) {
        self.lately().retain(|_, (since, _)| since.elapsed() < ANCESTRY_KEPT);
    }

    fn remember(&self, who: &Who, since: Instant, seen: &Observed) {
        // What was read of a process that went on meanwhile may be of two programs.
        if !seen.memory.is_in_use() {
            return;
        }
        let mut lately = self.lately();
        if lately.len() >= CALLERS_SOME {
            lately.retain(|_, (since, seen)| since.elapsed() < ANCESTRY_KEPT && seen.memory.is_in_use());
        }
        if lately.len() < CALLERS_MAX {
            lately.insert(who.clone(), (since, seen.clone()));
        }
    }

    /// As [`super::Resolver::environment_print`].
    pub(super) fn environment_print(&self, limit: Duration, tid: u32) -> Option<u64> {
        self.threads.ask(limit, move |progress| progress.say(exec_print(tid)))?
    }
}

fn exec_print(tid: u32) -> Option<u64> {
    if tid == 0 {
        return None;
    }
    Some(proc::exec_print(proc::stat(tid)?.image, &proc::environ(tid)?))
}

/// Reads in the order in which it can block: what never does, then the caller's own files, then its ancestors'.
fn look(who: &Who, ancestry: &Remembered, progress: &Progress<Sight>) {
    let &Who { tid, uid, gid, .. } = who;
    let Some(status) = proc::status(tid) else { return };
    let Some(pid) = proc::status_number(&status, "Tgid") else { return };
    let process = Process { pid, uid: Some(uid), gid: Some(gid), comm: proc::comm(pid), ..Process::default() };
    let mut seen = Observed { process: Some(process), ..who.unseen() };
    progress.say(Ok(seen.clone()));

    let hold = Hold::of(pid, proc::status_number(&status, "Threads"));
    let Some(stat) = proc::stat(pid) else { return };
    let memory = hold.with_parent(stat.parent, stat.execed);
    // A first thread that has ended left its memory to the others, so the memory's files are read by thread.
    let image = if tid == pid { stat.image } else { proc::stat(tid).map_or(stat.image, |thread| thread.image) };
    let environ = proc::environ(tid);
    seen.environment = environ.as_ref().map_or(0, |bytes| proc::exec_print(image, bytes));
    if let Some(process) = &mut seen.process {
        process.start_ticks = Some(stat.start_ticks);
        process.exe = proc::exe(tid);
    }
    seen.execed = stat.execed;
    if let Err(error) = declare(&mut seen, &environ.unwrap_or_default()) {
        return progress.say(Err(error));
    }
    if !seen.own.is_empty() && seen.policy.is_some() {
        return progress.say(Ok(Observed { memory, ..seen }));
    }
    progress.say(Ok(seen.clone()));
    let seen = inherit(seen, ancestry.of(stat.parent));
    progress.say(seen.map(|seen| Observed { memory, ..seen }));
}

/// Takes what the process's own environment declares; its ids are of no meaning where the path fixes the writer.
fn declare(seen: &mut Observed, environ: &[u8]) -> Result<(), IdentityError> {
    if !seen.fixed {
        seen.own = environ::claim(environ)?;
    }
    seen.policy = environ::policy(environ)?;
    Ok(())
}

/// Fills what the process itself left open. What it need not inherit cannot be wrong.
fn inherit(mut seen: Observed, above: Ancestry) -> Sight {
    if seen.own.is_empty() {
        seen.inherited = above.claim?;
    }
    if seen.policy.is_none() {
        seen.policy = above.policy?;
    }
    Ok(seen)
}

/// What the nearest ancestor that declares anything declares, and the policy of the nearest that sets one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ancestry {
    claim: Result<Claim, IdentityError>,
    policy: Result<Option<Policy>, IdentityError>,
}

impl Ancestry {
    fn lacks_claim(&self) -> bool {
        self.claim.as_ref().is_ok_and(Claim::is_empty)
    }

    fn lacks_policy(&self) -> bool {
        self.policy.as_ref().is_ok_and(Option::is_none)
    }

    /// Walks up from `pid`, itself included.
    fn walk(mut pid: u32) -> Self {
        let mut found = Self { claim: Ok(Claim::default()), policy: Ok(None) };
        for _ in 0..LEVELS_MAX {
            if pid == 0 || !(found.lacks_claim() || found.lacks_policy()) {
                break;
            }
            // An environment that is hidden from us declares nothing to us; what is above it may.
            let environ = proc::environ(pid).unwrap_or_default();
            if found.lacks_claim() {
                found.claim = environ::claim(&environ).map_err(IdentityError::from);
            }
            if found.lacks_policy() {
                found.policy = environ::policy(&environ);
            }
            let Some(stat) = proc::stat(pid) else { break };
            pid = stat.parent;
        }
        found
    }
}

/// Ancestries of the last moment, by parent.
#[derive(Debug, Default)]
struct Remembered(Mutex<HashMap<Parent, (Instant, Ancestry)>>);

/// A parent as it is now: another process under its number, an exec of it or a new parent above is another key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Parent {
    pid: u32,
    start_ticks: u64,
    image: u64,
    above: u32,
}

impl Remembered {
    /// The ancestry that begins at `pid`. No lock is held while a file is read: that may block.
    fn of(&self, pid: u32) -> Ancestry {
        let Some(stat) = proc::stat(pid).filter(|_| pid != 0) else { return Ancestry::walk(pid) };
        let parent = Parent { pid, start_ticks: stat.start_ticks, image: stat.image, above: stat.parent };
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&parent).cloned();
        if let Some((since, ancestry)) = known
            && since.elapsed() < ANCESTRY_KEPT
        {
            return ancestry;
        }
        let since = Instant::now();
        let ancestry = Ancestry::walk(pid);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= PARENTS_MAX {
            kept.clear();
        }
        kept.insert(parent, (since, ancestry.clone()));
        ancestry
    }
}

#[cfg(test)]
mod tests;
