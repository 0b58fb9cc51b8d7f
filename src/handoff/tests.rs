use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::words::{SessionId, Writer};

fn accept(written: impl AsRef<[u8]>) -> Result<String, String> {
    let session = SessionId::parse("s1").unwrap();
    let writer = Writer { writer_id: Some("w1".to_owned()), ..Writer::default() };
    let context =
        DocumentContext { session: &session, root: Path::new("/store"), writer: &writer, now_s: 1_795_332_960 };
    let envelope = HandoffDocument::new().accept(written.as_ref(), &context).map_err(|refused| refused.0)?;
    Ok(String::from_utf8(envelope).unwrap())
}

fn summary(written: &str) -> Value {
    serde_json::from_str::<Value>(&accept(written).unwrap()).unwrap()["summary"].take()
}

#[test]
fn what_is_not_an_object_is_refused_with_the_neighbours_words() {
    for written in ["", "[]", "1", "\"{}\"", "null", "{", "{} x", "\u{feff}{}"] {
        assert!(accept(written).unwrap_err().starts_with("summary must be a JSON object: "), "{written}");
    }
    assert!(accept(b"{\"a\":\"\xff\"}").is_err());
}

#[test]
fn numbers_stay_as_they_were_written() {
    let envelope = accept(r#"{"n":[1.0,1e3,1E+03,-0,-0.0,12345678901234567890123,0.10,1e999]}"#).unwrap();
    for number in ["1.0", "1e3", "1E+03", "-0", "-0.0", "12345678901234567890123", "0.10", "1e999"] {
        assert!(
            envelope.contains(&format!("      {number},\n")) || envelope.contains(&format!("      {number}\n")),
            "{number}"
        );
    }
}

#[test]
fn keys_are_sorted_at_every_level_and_the_last_of_two_wins() {
    let envelope = accept(r#"{"b":1,"a":{"z":1,"y":2},"b":3}"#).unwrap();
    let at = |text: &str| envelope.find(text).unwrap();
    assert!(at("\"a\"") < at("\"b\"") && at("\"y\"") < at("\"z\""));
    assert_eq!(summary(r#"{"b":1,"a":0,"b":3}"#), json!({"a": 0, "b": 3}));
    assert!(!envelope.ends_with('\n'));
}

#[test]
fn an_envelope_is_taken_off_before_one_is_put_on() {
    let first = accept(r#"{"status":"ready"}"#).unwrap();
    assert_eq!(accept(&first).unwrap(), first);
    let edited = first.replace("ready", "done").replace("\"w1\"", "\"forged\"").replace("1795332960", "1");
    assert_eq!(accept(edited).unwrap(), first.replace("ready", "done"));
}

#[test]
fn what_only_looks_like_an_envelope_is_a_summary() {
    for written in [
        json!({"_type": "agent_state_handoff", "summary": "text"}),
        json!({"_type": "agent_state_handoff"}),
        json!({"_type": "other", "summary": {}}),
        json!({"summary": {"a": 1}}),
    ] {
        assert_eq!(summary(&written.to_string()), written);
    }
}

#[test]
fn an_envelope_can_always_be_read_back() {
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    let deepest = accept(nested(SUMMARY_DEPTH_MAX)).unwrap();
    assert_eq!(accept(&deepest).unwrap(), deepest);
    assert_eq!(
        accept(nested(SUMMARY_DEPTH_MAX + 1)).unwrap_err(),
        "summary must be a JSON object: it nests 127 levels deep, and 126 is the most"
    );
    assert!(accept(nested(DEPTH_MAX + 1)).is_err());
}

#[test]
fn deep_metadata_of_a_typed_handoff_is_as_deep_as_its_summary() {
    let metadata = format!("{}1{}", "{\"m\":".repeat(SUMMARY_DEPTH_MAX - 1), "}".repeat(SUMMARY_DEPTH_MAX - 1));
    let written = format!(
        r#"{{"source_persona":"a","task":"t","reason":"r","target_persona_or_human":{{"id":"b"}},"metadata":{metadata}}}"#
    );
    let envelope = accept(written).unwrap();
    assert!(serde_json::from_str::<Value>(&envelope).unwrap()["handoff"].is_object());
}

#[test]
fn the_rules_are_for_one_key() {
    assert!(HandoffDocument::default().key().is_handoff());
}

#[test]
fn a_check_of_the_document_refuses_while_it_is_written() {
    let mut check = HandoffDocument::new().prefix_check();
    assert_eq!(check.push(b" {\"a\": \"b"), Ok(()));
    assert!(check.push(b"\"]").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_the_answer_is_an_envelope_or_words(written in prop::collection::vec(any::<u8>(), 0..200)) {
        match accept(&written) {
            Ok(envelope) => prop_assert!(serde_json::from_str::<Value>(&envelope).is_ok()),
            Err(words) => prop_assert!(words.starts_with("summary must be a JSON object: ")),
        }
    }
}
