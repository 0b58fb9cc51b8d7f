//! Who calls: from a caller's thread id to a writer and the facts beside it. Knows `/proc`; nothing else does.

mod author;
mod bounded;
pub mod environ;
pub mod holders;
mod memory;
mod proc;
mod resolve;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::time::Duration;

pub use memory::Memory;

use crate::words::{Author, Claim, ClaimError, Policy, Process, SessionId, UnknownPolicy};

/// Why a process's declaration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A declared id that cannot be recorded.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// `BATON_CONFLICT_POLICY` is none of the policies.
    #[error("BATON_CONFLICT_POLICY: {0}")]
    Policy(#[from] UnknownPolicy),
}

/// Who is to be looked at, as a FUSE request or a socket's peer tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Who {
    /// The thread; 0 when it is not known.
    pub tid: u32,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
    /// The writer that the path it took fixes: its environment is then asked for its policy alone.
    pub writer: Option<Arc<str>>,
}

impl Who {
    /// A thread that declares its writer itself.
    #[must_use]
    pub fn new(tid: u32, uid: u32, gid: u32) -> Self {
        Self { tid, uid, gid, writer: None }
    }

    /// The same for a path that fixes the writer.
    #[must_use]
    pub fn writing_as(self, writer: Option<Arc<str>>) -> Self {
        Self { writer, ..self }
    }

    /// What is known before anything is seen of it.
    #[must_use]
    pub fn unseen(&self) -> Observed {
        let fixed = self.writer.is_some();
        let own = Claim { writer_id: self.writer.as_deref().map(str::to_owned), ..Claim::default() };
        Observed { own, fixed, ..Observed::default() }
    }
}

/// What was seen of a calling process at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Facts; `None` when the caller is outside our pid namespace, hidden or gone.
    pub process: Option<Process>,
    /// What its own environment declares (empty when nothing, or when it could not be read).
    /// Where the path fixes the writer: that one alone.
    pub own: Claim,
    /// The path fixes the writer.
    pub fixed: bool,
    /// What the nearest ancestor that declares anything declares; looked for only when `own` is empty.
    pub inherited: Claim,
    /// `BATON_CONFLICT_POLICY` of its own environment, else of the nearest ancestor that sets it.
    pub policy: Option<Policy>,
    /// It has exec'd since its fork (PF_FORKNOEXEC clear), so its environment is what its program was given.
    pub execed: bool,
    /// A print of its environment, to see cheaply whether it has exec'd something else since
    /// ([`Resolver::environment_print`]); 0 when it could not be read.
    pub environment: u64,
    /// Tells, without reading anything again, whether all this still holds.
    pub memory: Memory,
}

/// Reads identities, bounded in time.
#[derive(Debug)]
pub struct Resolver {
    defaults: Claim,
    limit: Duration,
    eyes: resolve::Eyes,
}

impl Resolver {
    /// A resolver with a mount's own defaults; no resolution takes longer than `limit`.
    #[must_use]
    pub fn new(defaults: Claim, limit: Duration) -> Self {
        Self { defaults, limit, eyes: resolve::Eyes::default() }
    }

    /// Everything about the process of a thread. Only while that thread waits for our answer to something other than a FLUSH or RELEASE.
    ///
    /// What could not be read within the limit, because it is gone, hidden or waits for an exec to end, is left out:
    /// first the ancestors, then the environment, at last the process.
    ///
    /// # Errors
    /// [`IdentityError`]: what it declares cannot be used; or what its nearest ancestor that declares anything does,
    /// where the process itself declares nothing.
    pub fn observe(&self, who: &Who) -> Result<Observed, IdentityError> {
        self.eyes.observe(self.limit, who)
    }

    /// What [`Resolver::observe`] has said of this caller a moment ago, where it still holds: neither it nor its parent has
    /// exec'd or ended since. Never waits, and is allowed in any moment.
    #[must_use]
    pub fn seen_lately(&self, who: &Who) -> Option<Observed> {
        self.eyes.seen_lately(who)
    }

    /// Lets go of what [`Resolver::seen_lately`] would not tell any more. To be called now and then.
    pub fn forget_old(&self) {
        self.eyes.forget_old();
    }

    /// [`Observed::environment`] as it would be now: another one means that an exec came between, and that the
    /// process is to be observed anew. Bounded like [`Resolver::observe`] and allowed in the same moments; `None`
    /// when it could not be read.
    #[must_use]
    pub fn environment_print(&self, tid: u32) -> Option<u64> {
        self.eyes.environment_print(self.limit, tid)
    }

    /// The author and own policy of a write to `session` by `writers` (oldest first, the last one wrote last),
    /// opened by `opener`.
    ///
    /// The writer is what the first of these declares that declares anything: the last writer, the opener, the last
    /// writer's ancestors, the opener's, the mount. The session's own id stands in when none does.
    #[must_use]
    pub fn author(&self, session: &SessionId, opener: &Observed, writers: &[Observed]) -> (Author, Option<Policy>) {
        author::author(&self.defaults, session, opener, writers)
    }
}

/// Can callers be seen at all? Not where `/proc` is missing, or tells of another pid namespace than ours. Where they can,
/// single ones may still be hidden, or live in a namespace above ours.
#[must_use]
pub fn callers_can_be_seen() -> bool {
    proc::is_ours()
}

/// May this process exec a command with other declarations than its own? A shell runs the last command of its `-c`
/// text in its own process: `sh -c 'BATON_WRITER_ID=a cmd > key'` opens the key before it becomes `cmd`.
#[must_use]
pub fn may_declare(tid: u32) -> bool {
    let names = |arguments: Vec<u8>| arguments.windows(6).any(|window| window == b"BATON_");
    proc::cmdline(tid).is_some_and(names)
}
