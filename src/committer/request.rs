//! The operations that can be asked of a committer, and its answers. Form only.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::refusal::Refusal;
use crate::engine::{Checked, Keep, Report};
use crate::handoff::Latest;
use crate::words::{Claim, Handle, Key, LogLine, Policy, Seq, SessionId, Version, Writer};

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Makes the session, or finds it made; a policy given here becomes the session's if it is stricter.
    Init {
        /// The session; a fresh id is chosen by who asks, so that asking again makes no second session.
        session: SessionId,
    },
    /// The handle of a session that exists.
    Resume {
        /// The session.
        session: SessionId,
    },
    /// The newest version of a key; its bytes follow the answer.
    Read {
        /// The session.
        session: SessionId,
        /// The key.
        key: Key,
    },
    /// A version of a key that is kept; its bytes follow the answer.
    ReadVersion {
        /// The session.
        session: SessionId,
        /// The key.
        key: Key,
        /// Which.
        version: Version,
    },
    /// Makes a version that is kept the key's next one, with its attributes.
    Restore {
        /// The session.
        session: SessionId,
        /// The key.
        key: Key,
        /// Which.
        version: Version,
    },
    /// What there is to say of a key's newest version, without its bytes.
    Head {
        /// The session.
        session: SessionId,
        /// The key.
        key: Key,
    },
    /// The versions of a key whose bytes are kept.
    Kept {
        /// The session.
        session: SessionId,
        /// The key.
        key: Key,
    },
    /// What changed after a change. An answer has a part of it where it is long.
    Changes {
        /// The session.
        session: SessionId,
        /// The number of that change; 0 for all there are.
        after: Seq,
        /// Which of them.
        wanted: Wanted,
        /// Also where the session has been removed.
        #[serde(default)]
        removed: bool,
    },
    /// The latest handoff of every session that has one.
    Handoffs,
    /// The last refusal of who asks.
    Why {
        /// The session it was in; any where none is given.
        session: Option<SessionId>,
    },
    /// Makes the bytes that follow the key's next version.
    Write {
        /// The session.
        session: SessionId,
        /// The key.
        key: Key,
    },
    /// Deletes a key and the directories this leaves empty.
    Delete {
        /// The session.
        session: SessionId,
        /// The key.
        key: Key,
    },
    /// Every key of a session.
    List {
        /// The session.
        session: SessionId,
    },
    /// The session's policy, after setting it where one is given.
    Policy {
        /// The session.
        session: SessionId,
        /// What to set.
        set: Option<Policy>,
    },
    /// What the store is and who holds it.
    Status,
    /// What is not as the rules say.
    Verify {
        /// Mend what can be mended.
        repair: bool,
    },
    /// Ends the mount at `mountpoint` once its drafts are closed.
    Unmount {
        /// Where.
        mountpoint: PathBuf,
        /// How long to wait for drafts.
        wait_ms: u64,
    },
}

impl Request {
    /// The session it is about.
    #[must_use]
    pub fn session(&self) -> Option<&SessionId> {
        match self {
            Self::Init { session }
            | Self::Resume { session }
            | Self::Read { session, .. }
            | Self::ReadVersion { session, .. }
            | Self::Restore { session, .. }
            | Self::Head { session, .. }
            | Self::Kept { session, .. }
            | Self::Changes { session, .. }
            | Self::Write { session, .. }
            | Self::Delete { session, .. }
            | Self::List { session }
            | Self::Policy { session, .. } => Some(session),
            Self::Handoffs | Self::Why { .. } | Self::Status | Self::Verify { .. } | Self::Unmount { .. } => None,
        }
    }

    /// The word for it, as the command says it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Init { .. } => "init",
            Self::Resume { .. } => "resume",
            Self::Read { .. } | Self::ReadVersion { .. } => "read",
            Self::Restore { .. } => "restore",
            Self::Head { .. } => "wait",
            Self::Kept { .. } => "history",
            Self::Changes { .. } => "log",
            Self::Handoffs => "handoffs",
            Self::Why { .. } => "why",
            Self::Write { .. } => "write",
            Self::Delete { .. } => "delete",
            Self::List { .. } => "list",
            Self::Policy { .. } => "policy",
            Self::Status => "status",
            Self::Verify { .. } => "verify",
            Self::Unmount { .. } => "umount",
        }
    }
}

/// An operation with who asks for it, as far as they say so themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// What to do.
    pub request: Request,
    /// Declared by options; members left out come from the process's environment, else all from its ancestors'.
    #[serde(default)]
    pub claim: Claim,
    /// Declared by the process's own environment, as it read it itself: the holder may be unable to, in another pid
    /// namespace or as another user.
    #[serde(default)]
    pub environment: Declared,
    /// The policy declared by an option.
    #[serde(default)]
    pub policy: Option<Policy>,
    /// Names the operation, so that it can be asked for again and is still done once.
    #[serde(with = "uuid_text")]
    pub operation: Uuid,
    /// It may have been done already: the answer was lost.
    #[serde(default)]
    pub again: bool,
    /// The caller's umask, for what is made new.
    pub umask: u32,
    /// How much of the past is kept by who opens the store for it: this process, or not at all.
    #[serde(skip)]
    pub keep: Keep,
}

/// What an environment declares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// The ids.
    #[serde(default)]
    pub claim: Claim,
    /// The policy.
    #[serde(default)]
    pub policy: Option<Policy>,
}

impl Call {
    /// A fresh operation of this process, with nothing declared.
    #[must_use]
    pub fn new(request: Request) -> Self {
        // The mask can only be read by setting it; this process has no other thread yet that makes files.
        let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        rustix::process::umask(mask);
        let (claim, environment, policy) = (Claim::default(), Declared::default(), None);
        let operation = Uuid::now_v7();
        let (again, umask, keep) = (false, mask.as_raw_mode(), Keep::ALL);
        Self { request, claim, environment, policy, operation, again, umask, keep }
    }
}

mod uuid_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
        Uuid::parse_str(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A draft that keeps a mount from ending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldDraft {
    /// Its session.
    pub session: SessionId,
    /// Its key.
    pub key: Key,
    /// Bytes in it.
    pub size_bytes: u64,
    /// The processes known to hold it, in the daemon's pid namespace.
    pub pids: Vec<u32>,
}

impl std::fmt::Display for HeldDraft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} ({} bytes)", self.session, self.key, self.size_bytes)?;
        match self.pids.as_slice() {
            [] => f.write_str(", holder unknown"),
            pids => {
                let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
                write!(f, ", held by {}", pids.join(", "))
            }
        }
    }
}

/// Which changes are wanted; all of them where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Those of this key, and the renames of directories above it.
    #[serde(default)]
    pub key: Option<Key>,
    /// Those by the writer of this id.
    #[serde(default)]
    pub writer: Option<String>,
    /// Those at this time or later, in milliseconds since 1970.
    #[serde(default)]
    pub since_ms: Option<u64>,
}

impl Wanted {
    /// Is this one of them?
    #[must_use]
    pub fn takes(&self, line: &LogLine) -> bool {
        self.key.as_ref().is_none_or(|key| line.touches(key.as_str()))
            && self.writer.as_ref().is_none_or(|id| line.writer.writer_id.as_ref() == Some(id))
            && self.since_ms.is_none_or(|since_ms| line.time_ms >= since_ms)
    }
}

/// The newest version of a key, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its number.
    pub version: Version,
    /// Its place in the session's order.
    pub seq: Seq,
    /// Its size.
    pub size_bytes: u64,
    /// When it was committed, in seconds since 1970.
    pub committed_at_s: u64,
    /// Who made it.
    pub writer: Writer,
}

/// What a mount has refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// In which session.
    pub session_id: SessionId,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// What was asked.
    pub op: String,
    /// Of which key or directory; empty for the session itself.
    pub key: String,
    /// The errno's number.
    pub errno: i32,
    /// Why.
    pub words: String,
    /// Who asked, as declared.
    pub writer: Writer,
    /// Their user id, where it is known.
    pub uid: Option<u32>,
}

/// What a store is and who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of batonfs that answers.
    pub version: String,
    /// The canonical path of the store.
    pub store: PathBuf,
    /// The engine's name.
    pub engine: String,
    /// Where it is mounted, if it is.
    pub mountpoint: Option<PathBuf>,
    /// The process of the mount, if there is one.
    pub pid: Option<u32>,
    /// How many sessions there are.
    pub sessions: usize,
    /// The drafts open in the mount.
    pub drafts: Vec<HeldDraft>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To everything that is asked for in a known form, before its value is sent: somebody is there and at work.
    Heard,
    /// To init and resume.
    Handle(Handle),
    /// To read: the value follows.
    Value,
    /// To write.
    Written {
        /// The version made; `None` for one that was made when it was asked for the first time and has no number.
        version: Option<Version>,
        /// Its place in the session's order.
        seq: Seq,
        /// The words of a conflict that was accepted under `warn`.
        warning: Option<String>,
    },
    /// To head; `None` when there is no such key.
    Head(Option<Shown>),
    /// To kept, oldest first.
    Kept(Vec<Version>),
    /// To changes.
    Changes {
        /// Those that are wanted, oldest first.
        lines: Vec<LogLine>,
        /// The last one that was looked at: the next question goes on after it.
        upto: Seq,
        /// Are there more after it already?
        more: bool,
    },
    /// To handoffs, sorted by session.
    Handoffs(Vec<Latest>),
    /// To why; `None` when nothing was refused.
    Refusal(Option<Refused>),
    /// To delete.
    Deleted,
    /// To list, sorted bytewise.
    Keys(Vec<Key>),
    /// To policy.
    Policy(Policy),
    /// To status.
    Status(Status),
    /// To verify: not yet, and how far it is; another answer follows.
    Verifying(Checked),
    /// To verify.
    Verified(Report),
    /// To unmount: not yet, and why; another answer follows.
    Waiting(Vec<HeldDraft>),
    /// To unmount: it is gone.
    Unmounted,
    /// It was not done.
    Refused(Refusal),
}
