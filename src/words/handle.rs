//! The handle document: what `init` and `resume` give a program to go on with. Form only.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{HANDOFF_KEY, Policy, SessionId, Writer};

/// The neighbour's handle, its members in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// Always `state_handle`.
    #[serde(rename = "_type")]
    pub type_name: String,
    /// The engine's name: `filesystem`, `memory`.
    pub backend: String,
    /// The absolute path of the store.
    pub root: String,
    /// The session.
    pub session_id: SessionId,
    /// Always `__handoff.json`.
    pub handoff_key: String,
    /// The policy that a write of the caller meets now.
    pub conflict_policy: Policy,
    /// The writer the caller is; unset members are null.
    pub writer: WholeWriter,
}

/// A writer with all four members, null where unset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeWriter {
    writer_id: Option<String>,
    stage_id: Option<String>,
    session_id: Option<String>,
    worker_id: Option<String>,
}

impl From<Writer> for WholeWriter {
    fn from(writer: Writer) -> Self {
        let Writer { writer_id, stage_id, session_id, worker_id } = writer;
        Self { writer_id, stage_id, session_id, worker_id }
    }
}

impl Handle {
    /// The handle of a session for one caller. A store path that is not UTF-8 is shown with replacement characters.
    #[must_use]
    pub fn new(backend: &str, root: &Path, session: &SessionId, policy: Policy, writer: Writer) -> Self {
        Self {
            type_name: "state_handle".to_owned(),
            backend: backend.to_owned(),
            root: root.to_string_lossy().into_owned(),
            session_id: session.clone(),
            handoff_key: HANDOFF_KEY.to_owned(),
            conflict_policy: policy,
            writer: writer.into(),
        }
    }

    /// Pretty JSON, two spaces, no final newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Serialising strings into memory cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}
