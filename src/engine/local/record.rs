//! What one journal record says: everything needed to publish a change again. Knows no disk.

use serde::{Deserialize, Serialize};

use super::super::value::Attributes;
use super::super::{AttributeChange, EngineError, KEPT_VERSIONS, Keep, Result};
use super::disk::FileId;
use super::mark::{Mark, Span};
use super::paths;
use crate::words::{Author, Dir, Key, LogLine, Lost, Op, Past, Policy, Seq, SessionId, Version, Writer};

/// Attributes as records keep them: times in nanoseconds, also those before 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime_ns: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
}

impl Kept {
    pub(super) fn of(attributes: &Attributes) -> Self {
        Self {
            mode: attributes.mode & 0o7777,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime_ns: super::time::to_ns(attributes.mtime),
            xattrs: attributes.xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }

    pub(super) fn attributes(&self) -> Attributes {
        Attributes {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: super::time::from_ns(self.mtime_ns),
            xattrs: self.xattrs.iter().cloned().collect(),
        }
    }
}

/// A change of attributes as records keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptChange {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime_ns: Option<i64>,
    pub(super) xattrs: Vec<(String, Option<Vec<u8>>)>,
}

impl KeptChange {
    pub(super) fn of(set: &AttributeChange) -> Self {
        Self {
            mode: set.mode.map(|mode| mode & 0o7777),
            uid: set.uid,
            gid: set.gid,
            mtime_ns: set.mtime.map(super::time::to_ns),
            xattrs: set.xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }

    pub(super) fn change(&self) -> AttributeChange {
        AttributeChange {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime_ns.map(super::time::from_ns),
            xattrs: self.xattrs.iter().cloned().collect(),
        }
    }
}

/// Where the bytes of a published value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Body {
    /// In the record.
    Inline,
    /// In the operation's draft, synced before the record was written.
    Draft,
    /// In the source of a rename, synced before the record was written; the operation's draft is a second name of it.
    Source,
}

/// A whole value on its way to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Value {
    pub(super) key: Key,
    pub(super) version: Version,
    /// The version it replaces.
    pub(super) over: Option<Version>,
    pub(super) size: u64,
    pub(super) crc: u32,
    pub(super) kept: Kept,
    pub(super) body: Body,
    /// The file it was staged in: a crash may take a file's mark and leave its name.
    pub(super) file: FileId,
}

impl Value {
    pub(super) fn span(&self) -> Span {
        Span {
            version: self.version,
            since: self.version,
            size: self.size,
            mtime_ns: self.kept.mtime_ns,
            crc: self.crc,
        }
    }
}

/// Bytes on their way to the end of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Append {
    pub(super) key: Key,
    pub(super) version: Version,
    pub(super) since: Version,
    /// The version appended to.
    pub(super) over: Version,
    /// Its size: where the bytes go.
    pub(super) offset: u64,
    /// How many bytes.
    pub(super) len: u64,
    /// Checksum of the whole result.
    pub(super) crc: u32,
    pub(super) mtime_ns: i64,
}

/// A draft that became no version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LostDraft {
    pub(super) key: Key,
    pub(super) size: u64,
    pub(super) lost: Lost,
    pub(super) reason: String,
    /// Its bytes, staged as those of a version 0; `None` where they could not be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<Value>,
}

/// What a record does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Act {
    Put(Value),
    Append(Append),
    Delete { key: Key, over: Version },
    Rename { from: Key, over_from: Version, value: Value },
    RenameDir { from: Dir, to: Dir, floors: Vec<(Key, Version)> },
    MakeDir { dir: Dir, kept: Kept },
    RemoveDir { dir: Dir },
    Attributes { path: String, version: Option<Version>, set: KeptChange },
    Declare { key: Key, version: Version },
    Policy { policy: Policy },
    Drop(LostDraft),
    Adopt { key: Key, version: Version, size: u64, crc: u32, mtime_ns: i64, writer: Writer, file: FileId },
}

/// One change with its place in the session's order and who made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) session: SessionId,
    pub(super) seq: Seq,
    pub(super) time_ms: u64,
    pub(super) operation: String,
    #[serde(default)]
    pub(super) author: Author,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) conflict: Option<String>,
    /// How many versions before the newest, and lost drafts, are kept by who commits it; 0: all.
    #[serde(default = "usual_count")]
    pub(super) keep: u64,
    /// The file that its sidecar was staged in, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sidecar: Option<FileId>,
    pub(super) act: Act,
}

fn usual_count() -> u64 {
    KEPT_VERSIONS
}

impl Record {
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| EngineError::io("writing a journal record", std::io::Error::other(e)))
    }

    /// Seconds since 1970 of the commit.
    pub(super) fn at_s(&self) -> u64 {
        self.time_ms / 1000
    }

    /// The mark of bytes this record makes.
    pub(super) fn mark(&self, path: &str, span: Span) -> Mark {
        Mark::new(path, span, self.seq, self.at_s(), self.author.writer.clone())
    }

    /// The key in whose history it lets go of versions, and the version they are too far before.
    pub(super) fn outdates(&self) -> Option<(&Key, Version)> {
        match &self.act {
            Act::Put(value) | Act::Rename { value, .. } => Some((&value.key, value.version)),
            Act::Delete { key, over } => Some((key, *over)),
            _ => None,
        }
    }

    /// How much its committer keeps, whoever publishes it.
    pub(super) fn keeps(&self) -> Keep {
        Keep { count: self.keep, age: None }
    }

    /// Does its version take the place of this one?
    pub(super) fn replaces(&self, version: Version) -> bool {
        match &self.act {
            Act::Put(value) | Act::Rename { value, .. } => value.over == Some(version),
            Act::Append(Append { over, .. }) | Act::Delete { over, .. } => *over == version,
            _ => false,
        }
    }

    /// The whole value that it stages, where it stages one: of a version, or of a draft that became none.
    pub(super) fn value(&self) -> Option<&Value> {
        match &self.act {
            Act::Put(value) | Act::Rename { value, .. } => Some(value),
            Act::Drop(draft) => draft.value.as_ref(),
            _ => None,
        }
    }

    /// The path that the mark of a value it stages speaks of. A lost draft's is its place in history, so that a copy of
    /// it at its key's path is a stranger's.
    pub(super) fn marked_at(&self, value: &Value) -> String {
        match &self.act {
            Act::Drop(draft) => self.lost_at(draft),
            _ => paths::value(&self.session, value.key.as_str()),
        }
    }

    /// Where a lost draft is kept.
    pub(super) fn lost_at(&self, draft: &LostDraft) -> String {
        paths::past(&self.session, draft.key.as_str(), Past::Draft(self.seq, draft.lost))
    }

    /// The version it makes, where it makes one.
    pub(super) fn version(&self) -> Option<Version> {
        match &self.act {
            Act::Put(value) | Act::Rename { value, .. } => Some(value.version),
            Act::Append(append) => Some(append.version),
            Act::Adopt { version, .. } => Some(*version),
            _ => None,
        }
    }

    /// Its line in the session's log.
    pub(super) fn line(&self) -> LogLine {
        let (op, key, to, size_bytes) = match &self.act {
            Act::Put(v) => (Op::Put, v.key.to_string(), None, Some(v.size)),
            Act::Append(a) => (Op::Append, a.key.to_string(), None, Some(a.offset.saturating_add(a.len))),
            Act::Delete { key, .. } => (Op::Delete, key.to_string(), None, None),
            Act::Rename { from, value, .. } => {
                (Op::Rename, from.to_string(), Some(value.key.to_string()), Some(value.size))
            }
            Act::RenameDir { from, to, .. } => (Op::Rename, from.to_string(), Some(to.to_string()), None),
            Act::MakeDir { dir, .. } => (Op::Mkdir, dir.to_string(), None, None),
            Act::RemoveDir { dir } => (Op::Rmdir, dir.to_string(), None, None),
            Act::Attributes { path, .. } => (Op::Attributes, path.clone(), None, None),
            Act::Declare { key, .. } => (Op::Declare, key.to_string(), None, None),
            Act::Policy { .. } => (Op::Policy, String::new(), None, None),
            Act::Drop(draft) => {
                let op = if draft.lost == Lost::Dropped { Op::Drop } else { Op::Refuse };
                (op, draft.key.to_string(), None, Some(draft.size))
            }
            Act::Adopt { key, size, .. } => (Op::Adopt, key.to_string(), None, Some(*size)),
        };
        let (writer, process, others) = (&self.author.writer, &self.author.process, &self.author.others);
        LogLine {
            seq: self.seq,
            time_ms: self.time_ms,
            op,
            key,
            to,
            version: self.version(),
            size_bytes,
            writer: writer.clone(),
            process: process.clone(),
            others: others.clone(),
            conflict: self.conflict.clone(),
            reason: match &self.act {
                Act::Drop(draft) => Some(draft.reason.clone()),
                _ => None,
            },
            operation: self.operation.clone(),
        }
    }
}
