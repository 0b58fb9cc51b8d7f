//! The handoff document as readers see it, byte for byte: `tests/golden/handoff-*.json`.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use batonfs::handoff::HandoffDocument;
use batonfs::store::{Document, DocumentContext, Store, StoreError};
use batonfs::words::{Handle, Policy, SessionId, Writer};
use uuid::Uuid;

use crate::engines::{Subject, all, caller, key, keys, session, value, version, with_session, write};

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

/// A store on each engine, with the handoff among its documents.
fn stores() -> Vec<(Subject, Store)> {
    let of = |subject: Subject| {
        let documents: Vec<Box<dyn Document>> = vec![Box::new(HandoffDocument::with_ids(fixed_id))];
        let store = Store::new(Arc::clone(&subject.engine), "/var/lib/agents/state".into(), documents, Policy::Ignore);
        (subject, store)
    };
    with_session().into_iter().map(of).collect()
}

#[test]
fn on_every_engine_a_written_object_is_read_as_its_envelope() {
    for (subject, store) in stores() {
        write(&store, "__handoff.json", br#"{"status": "ready"}"#, &caller("writer-a")).unwrap();
        let bytes = value(&*subject.engine, "__handoff.json").unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let envelope: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(envelope["_type"], "agent_state_handoff");
        assert_eq!(envelope["version"], 1);
        assert_eq!(envelope["session_id"], "s");
        assert_eq!(envelope["root"], "/var/lib/agents/state");
        assert_eq!(envelope["key"], "__handoff.json");
        assert_eq!(envelope["summary"]["status"], "ready");
        assert_eq!(envelope["writer"]["writer_id"], "writer-a");
        assert!(envelope["written_at"].as_u64().is_some());
        assert_eq!(envelope["handoff"], serde_json::Value::Null);
        assert!(!text.ends_with('\n'));
        assert_eq!(keys(&*subject.engine), ["__handoff.json"], "an ordinary key, listed");
        assert!(store.delete(&session(), &key("__handoff.json"), &caller("writer-b"), true).unwrap());
    }
}

#[test]
fn on_every_engine_what_is_no_object_is_refused_and_the_old_one_stays() {
    for (subject, store) in stores() {
        write(&store, "__handoff.json", br#"{"n": 1}"#, &caller("w")).unwrap();
        let before = value(&*subject.engine, "__handoff.json");
        for bad in [&b""[..], b"text", b"[1]", b"7", b"{\"a\": ", b"{\"a\": \"\xff\"}"] {
            let refused = write(&store, "__handoff.json", bad, &caller("w")).unwrap_err();
            assert!(matches!(refused, StoreError::Document(_)), "{refused}");
        }
        write(&store, "draft.json", b"[]", &caller("w")).unwrap();
        let renamed = store.rename(&session(), &key("draft.json"), &key("__handoff.json"), true, &caller("w"));
        assert!(matches!(renamed, Err(StoreError::Document(_))));
        assert_eq!(value(&*subject.engine, "__handoff.json"), before);
        assert_eq!(version(&*subject.engine, "__handoff.json"), Some(1));
    }
}

#[test]
fn on_every_engine_a_document_too_large_for_memory_is_refused_before_it_is_made() {
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(16 << 20));
    for (subject, store) in stores() {
        let refused = write(&store, "__handoff.json", large.as_bytes(), &caller("w")).unwrap_err();
        assert!(matches!(refused, StoreError::Document(_)), "{refused}");
        write(&store, "large.json", large.as_bytes(), &caller("w")).unwrap();
        assert!(store.rename(&session(), &key("large.json"), &key("__handoff.json"), true, &caller("w")).is_err());
        assert_eq!(keys(&*subject.engine), ["large.json"]);
    }
    let mut check = HandoffDocument::new().prefix_check();
    let pieces: Vec<_> = large.as_bytes().chunks(1 << 20).map(|piece| check.push(piece)).collect();
    assert!(
        pieces.iter().take(16).all(Result::is_ok) && pieces.last().unwrap().is_err(),
        "refused while it is written"
    );
}

#[test]
fn a_handle_is_the_neighbours_byte_for_byte_on_every_engine() {
    let golden = include_str!("../golden/handle.json");
    for (subject, backend) in all().into_iter().zip(["memory", "filesystem"]) {
        let id = |id: &str| Some(id.to_owned());
        let writer = Writer { writer_id: id("w1"), stage_id: None, session_id: id("p1"), worker_id: None };
        let session = SessionId::parse("p1").unwrap();
        let handle = Handle::new(subject.engine.name(), Path::new("/srv/state"), &session, Policy::Error, writer);
        assert_eq!(handle.to_json(), golden.replace("filesystem", backend));
    }
}
