//! Who writes: the declared claim, the writer made of it, and the facts observed of the process.

use serde::{Deserialize, Serialize};

use super::session::SessionId;

/// Longest declared id, in bytes: it has to fit beside a value, in an extended attribute.
pub const ID_MAX_BYTES: usize = 256;

/// A declared id that cannot be recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Over [`ID_MAX_BYTES`].
    #[error("{name} has {len_bytes} bytes: an id has at most {ID_MAX_BYTES}")]
    TooLong {
        /// The variable or option it came in.
        name: String,
        /// How long it is.
        len_bytes: usize,
    },
    /// Not UTF-8.
    #[error("{0} is not UTF-8")]
    NotUtf8(String),
}

/// A writer as recorded with a version: the neighbour's four members, in its order, absent ones left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Writer {
    /// Who; the only member that decides conflicts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_id: Option<String>,
    /// The stage of a pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_id: Option<String>,
    /// The session the writer belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The worker that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
}

impl Writer {
    /// Is nothing declared? Such a writer takes part in no conflict.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Has it an id that nobody could declare here? The neighbour knows no bound.
    #[must_use]
    pub fn is_oversized(&self) -> bool {
        let ids = [&self.writer_id, &self.stage_id, &self.session_id, &self.worker_id];
        ids.into_iter().flatten().any(|id| id.len() > ID_MAX_BYTES)
    }

    /// The name shown to people: the first of writer, worker, stage and session id, else `unknown`.
    #[must_use]
    pub fn display_name(&self) -> &str {
        [&self.writer_id, &self.worker_id, &self.stage_id, &self.session_id]
            .into_iter()
            .find_map(Option::as_deref)
            .unwrap_or("unknown")
    }
}

/// What a process, an option or a mount declares; every member may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// `BATON_WRITER_ID`, `--writer-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_id: Option<String>,
    /// `BATON_STAGE_ID`, `--stage-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_id: Option<String>,
    /// `BATON_SESSION_ID`, `--session-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// `BATON_WORKER_ID`, `--worker-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
}

impl Claim {
    /// Is nothing declared?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// One declared id: blank ones are none, as in the neighbour.
    ///
    /// # Errors
    /// [`ClaimError::TooLong`] over [`ID_MAX_BYTES`].
    pub fn id(name: &str, value: &str) -> Result<Option<String>, ClaimError> {
        if value.trim().is_empty() {
            return Ok(None);
        }
        if value.len() > ID_MAX_BYTES {
            return Err(ClaimError::TooLong { name: name.to_owned(), len_bytes: value.len() });
        }
        Ok(Some(value.to_owned()))
    }

    /// The writer this claim makes in a session, by the neighbour's chain: stage from worker; writer from worker,
    /// stage, session; session from the session written to.
    #[must_use]
    pub fn writer(&self, session: &SessionId) -> Writer {
        let session_id = self.session_id.clone().unwrap_or_else(|| session.as_str().to_owned());
        let worker_id = self.worker_id.clone();
        let stage_id = self.stage_id.clone().or_else(|| worker_id.clone());
        let writer_id = [&self.writer_id, &worker_id, &stage_id].into_iter().find_map(Clone::clone);
        Writer {
            writer_id: writer_id.or_else(|| Some(session_id.clone())),
            stage_id,
            session_id: Some(session_id),
            worker_id,
        }
    }
}

/// Facts observed of a process, beside what it claims. `None` where it was gone or hidden.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id (not a thread's), in the daemon's pid namespace; 0 when it is outside of it.
    pub pid: u32,
    /// Start time in clock ticks since boot (field 22 of `/proc/P/stat`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ticks: Option<u64>,
    /// User id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Command name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// Path of the executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
}

/// Everything known of who made a version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// The writer that is recorded and that decides conflicts.
    pub writer: Writer,
    /// The process that wrote last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Other processes that took part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Process>,
}
