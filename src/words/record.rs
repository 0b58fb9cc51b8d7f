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

/// One line of a session's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// Milliseconds since 1970, now; 0 when the clock stands before that.
#[must_use]
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
