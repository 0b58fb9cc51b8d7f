//! The envelope around a summary: its members, put on and taken off. Knows not what a summary says.

use super::json::{Json, Object};
use crate::store::DocumentContext;
use crate::words::{HANDOFF_KEY, Writer};

/// The `_type` of every envelope.
const TYPE: &str = "agent_state_handoff";
/// The version of the envelope's form.
const VERSION: u64 = 1;

/// The summary in a document: what an envelope holds, when it is one (an editor saved it, a copy came back), else
/// the document itself.
pub(super) fn summary_of(mut document: Object) -> Object {
    let is_envelope = document.get("_type").and_then(Json::as_str) == Some(TYPE);
    match document.get_mut("summary") {
        Some(Json::Object(summary)) if is_envelope => std::mem::take(summary),
        _ => document,
    }
}

/// The envelope of a summary; `handoff` is the typed handoff made of it, or null. Its members sort by name.
pub(super) fn around(summary: Object, handoff: Json, context: &DocumentContext<'_>) -> Json {
    Json::object([
        ("_type", TYPE.into()),
        ("version", VERSION.into()),
        ("session_id", context.session.as_str().into()),
        ("root", context.root.to_string_lossy().into_owned().into()),
        ("key", HANDOFF_KEY.into()),
        ("summary", Json::Object(summary)),
        ("handoff", handoff),
        ("writer", writer(context.writer)),
        ("written_at", context.now_s.into()),
    ])
}

/// All four members, also those that are not set: unlike in a sidecar.
fn writer(writer: &Writer) -> Json {
    let id = |id: &Option<String>| id.as_deref().into();
    Json::object([
        ("writer_id", id(&writer.writer_id)),
        ("stage_id", id(&writer.stage_id)),
        ("session_id", id(&writer.session_id)),
        ("worker_id", id(&writer.worker_id)),
    ])
}
