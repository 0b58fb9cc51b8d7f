//! The handoff document as readers see it, byte for byte: `tests/golden/handoff-*.json`.

use std::error::Error;
use std::path::Path;

use batonfs::handoff::HandoffDocument;
use batonfs::store::{Document, DocumentContext};
use batonfs::words::{SessionId, Writer};
use uuid::Uuid;

/// A UUIDv7 of the second that the golden envelopes were written in.
fn fixed_id() -> Uuid {
    Uuid::from_u128((1_795_332_960_250_u128 << 80) | (7 << 76) | 0xabc << 64 | (2 << 62) | 0x0123_4567)
}

fn envelope(written: &str, writer: &Writer) -> Result<String, Box<dyn Error>> {
    let session = SessionId::parse("roundtrip-session")?;
    let root = Path::new("/var/lib/agents/state");
    let context = DocumentContext { session: &session, root, writer, now_s: 1_795_332_960 };
    let document = HandoffDocument::with_ids(fixed_id);
    let mut check = document.prefix_check();
    check.push(written.as_bytes())?;
    Ok(String::from_utf8(document.accept(written.as_bytes(), &context)?)?)
}

fn writer() -> Writer {
    let id = |id: &str| Some(id.to_owned());
    Writer { writer_id: id("writer-a"), stage_id: id("plan"), session_id: id("roundtrip-session"), worker_id: None }
}

#[test]
fn a_free_summary_is_wrapped_as_ever() {
    let written = r#"  {"status": "ready", "next": ["review", "merge"], "cost": 1.50, "big": 12345678901234567890123,
        "näme": {"z": null, "a": true, "empty": {}, "none": []}, "text": "a\u0000\"\/\\\u00e9\ud83d\ude00" } "#;
    assert_eq!(envelope(written, &writer()).unwrap(), include_str!("../golden/handoff-free.json"));
}

#[test]
fn an_empty_summary_by_nobody_is_wrapped_as_ever() {
    assert_eq!(envelope("{}", &Writer::default()).unwrap(), include_str!("../golden/handoff-empty.json"));
}

#[test]
fn a_typed_handoff_is_given_normalised_as_ever() {
    let written = r#"{
        "source_persona": " planner ", "task": "Ship the fix", "reason": "Out of budget",
        "target_persona_or_human": {"kind": "human", "label": "Ann"},
        "evidence_refs": [{"path": "evidence/a.json", "kind": "json"}],
        "files_or_entities_touched": ["src/a.rs", " src/b.rs", "src/a.rs", ""],
        "open_questions": ["Which release?"],
        "budget_remaining": {"tokens": 1200, "dollars": 5},
        "deadline_checkback": {"deadline": "2026-12-01"},
        "confidence": 1.7,
        "receipt_links": [{"run_id": "run-1", "label": " "}],
        "metadata": {"n": 1e3}, "mood": "hopeful"
    }"#;
    assert_eq!(envelope(written, &writer()).unwrap(), include_str!("../golden/handoff-typed.json"));
}

#[test]
fn an_envelope_written_back_is_the_same_envelope() {
    for golden in [include_str!("../golden/handoff-free.json"), include_str!("../golden/handoff-typed.json")] {
        assert_eq!(envelope(golden, &writer()).unwrap(), golden);
    }
}
