//! The record of what happened: version and sequence numbers, operations, log lines.

use serde::{Deserialize, Serialize};

use super::writer::{Process, Writer};

/// The number of a version of one key: 1, 2, 3 ...; it goes on after a delete.
pub type Version = u64;
/// The number of a change in one session: 1, 2, 3 ..., without gaps.
pub type Seq = u64;

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// A whole new value.
    Put,
    /// Bytes put after the current value.
    Append,
    /// The key is gone.
    Delete,
    /// A key moved to another name (or a directory with all below it).
    Rename,
    /// A directory was made; the session itself when its path is empty.
    Mkdir,
    /// A directory was removed; the session itself when its path is empty.
    Rmdir,
    /// Attributes changed; no version.
    Attributes,
    /// The writer of a version was declared by the neighbour's sidecar; no version.
    Declare,
    /// The session's conflict policy was set.
    Policy,
    /// A value put there by a program beside the mount was found and got a version.
    Adopt,
    /// A draft was dropped and never became a version.
    Drop,
    /// A draft was refused and never became a version.
    Refuse,
}

impl Op {
    /// The word for it, as the log says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Append => "append",
            Self::Delete => "delete",
            Self::Rename => "rename",
            Self::Mkdir => "mkdir",
            Self::Rmdir => "rmdir",
            Self::Attributes => "attributes",
            Self::Declare => "declare",
            Self::Policy => "policy",
            Self::Adopt => "adopt",
            Self::Drop => "drop",
            Self::Refuse => "refuse",
        }
    }
}

/// One line of a session's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Place in the session's order.
    pub seq: Seq,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// What happened.
    pub op: Op,
    /// The key, or directory, it happened to.
    pub key: String,
    /// Where a rename led.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The version made, where one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The size of that version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The declared writer.
    pub writer: Writer,
    /// The observed process that wrote last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Other processes that took part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Process>,
    /// The words of a conflict that was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<String>,
    /// Why a draft was dropped or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The operation id by which a caller can ask again.
    pub operation: String,
}

impl LogLine {
    /// Where a directory had been whose renaming brought `path` to the name it has: that name of `path` before it.
    #[must_use]
    pub fn name_before(&self, path: &str) -> Option<String> {
        let to = self.to.as_ref().filter(|_| self.renames_dir())?;
        Some(format!("{}/{}", self.key, below(to, path)?))
    }

    /// Did it happen to what is at `path`, or to a directory above it that was renamed?
    #[must_use]
    pub fn touches(&self, path: &str) -> bool {
        let names = || std::iter::once(&self.key).chain(&self.to);
        names().any(|name| name == path) || self.renames_dir() && names().any(|name| below(name, path).is_some())
    }

    fn renames_dir(&self) -> bool {
        self.op == Op::Rename && self.version.is_none()
    }
}

/// The rest of a path that is below a directory.
fn below<'a>(dir: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(dir)?.strip_prefix('/')
}

/// Milliseconds since 1970, now; 0 when the clock stands before that.
#[must_use]
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
