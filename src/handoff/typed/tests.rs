use serde_json::{Value, json};

use super::*;

/// 2026-11-22T09:36:00.123Z in its time.
const FRESH: Uuid = Uuid::from_u128(((1_795_340_160_123_u128) << 80) | (7 << 76) | (2 << 62));

fn read(summary: &Value) -> Option<Value> {
    let summary = Json::read(&summary.to_string()).unwrap();
    let handoff = typed(summary.as_object().unwrap(), FRESH)?;
    Some(serde_json::from_str(&handoff.pretty()).unwrap())
}

fn least() -> Value {
    json!({"source_persona": "a", "task": "t", "reason": "r", "target_persona_or_human": {"id": "b"}})
}

fn with(name: &str, value: Value) -> Value {
    let mut summary = least();
    summary[name] = value;
    summary
}

/// The member as it comes out; `None` when the whole is no typed handoff.
fn member(name: &str, value: Value) -> Option<Value> {
    Some(read(&with(name, value))?[name].take())
}

#[test]
fn the_least_handoff_gets_every_member() {
    let expected = json!({
        "_type": "handoff_artifact", "id": format!("handoff_{FRESH}"), "parent_run_id": null,
        "source_persona": "a", "task": "t", "reason": "r",
        "target_persona_or_human": {"kind": "persona", "id": "b", "label": null},
        "evidence_refs": [], "files_or_entities_touched": [], "open_questions": [], "blocked_on": [],
        "requested_capabilities": [], "allowed_side_effects": [], "budget_remaining": null,
        "deadline_checkback": null, "confidence": null, "receipt_links": [],
        "created_at": "2026-11-22T09:36:00.123Z", "metadata": {},
    });
    assert_eq!(read(&least()), Some(expected));
}

#[test]
fn without_one_of_the_required_it_is_none() {
    for name in ["source_persona", "task", "reason", "target_persona_or_human"] {
        let mut summary = least();
        summary.as_object_mut().unwrap().remove(name);
        assert_eq!(read(&summary), None, "{name}");
    }
    for name in ["source_persona", "task", "reason"] {
        assert_eq!(member(name, json!(" \n\u{3000}")), None, "{name} is blank");
        assert_eq!(member(name, json!("\u{a0} x ")), Some(json!("x")), "{name} is trimmed");
    }
}

#[test]
fn a_wrong_type_anywhere_makes_it_none() {
    let wrong = json!({
        "_type": [null, 1], "id": [null, 1, {}], "parent_run_id": [1, []], "created_at": [null, 5],
        "source_persona": [null, 1], "task": [null, ["t"]], "reason": [null, false],
        "target_persona_or_human": [null, "b", ["human", "b"], {"id": 1}, {"label": "b", "kind": null}],
        "evidence_refs": [null, {}, [null], ["x"], [{"path": 1}]],
        "files_or_entities_touched": [null, "x", [1], [null]],
        "budget_remaining": [1, [], {"tokens": 1.0}, {"tokens": "1"}, {"tool_calls": 9_223_372_036_854_775_808_u64}, {"dollars": "1"}],
        "deadline_checkback": ["x", {"deadline": 1}],
        "confidence": ["1", true, []],
        "receipt_links": [null, {}, ["x"], [{"kind": null}], [{"href": 1}]],
        "metadata": [null, [], "x"],
    });
    for (name, values) in wrong.as_object().unwrap() {
        for value in values.as_array().unwrap() {
            assert_eq!(member(name, value.clone()), None, "{name}: {value}");
        }
    }
}

#[test]
fn null_is_as_absent_where_null_is_the_default() {
    for name in ["parent_run_id", "budget_remaining", "deadline_checkback", "confidence"] {
        assert_eq!(member(name, Value::Null), Some(Value::Null), "{name}");
    }
}

#[test]
fn the_target_is_whoever_its_label_or_else_its_id_names() {
    let target = |kind: Value| member("target_persona_or_human", kind);
    let is = |kind: &str, id: Value, label: Value| Some(json!({"kind": kind, "id": id, "label": label}));
    assert_eq!(target(json!({"kind": " human ", "label": "Ann"})), is("human", Value::Null, json!("Ann")));
    assert_eq!(target(json!({"kind": "robot", "id": " b "})), is("persona", json!(" b "), Value::Null));
    assert_eq!(target(json!({"id": "b", "label": " "})), is("persona", json!("b"), Value::Null));
    assert_eq!(target(json!({"id": "unknown", "label": "Ann"})), is("persona", json!("unknown"), json!("Ann")));
    assert_eq!(target(json!({"id": "b", "label": "unknown"})), None);
    assert_eq!(target(json!({"id": "unknown"})), None);
    assert_eq!(target(json!({"id": " ", "label": ""})), None);
    assert_eq!(target(json!({})), None);
}

#[test]
fn lists_of_strings_lose_blanks_and_repeats_and_keep_their_order() {
    let names =
        ["files_or_entities_touched", "open_questions", "blocked_on", "requested_capabilities", "allowed_side_effects"];
    for name in names {
        assert_eq!(member(name, json!([" b", "a", "", "b ", " ", "a"])), Some(json!(["b", "a"])), "{name}");
    }
}

#[test]
fn confidence_is_between_nothing_and_certainty() {
    for (given, kept) in [("0.5", "0.5"), ("7", "1.0"), ("-0.1", "0.0"), ("1", "1.0"), ("1e-2", "0.01")] {
        let confidence = member("confidence", serde_json::from_str(given).unwrap()).unwrap();
        assert_eq!(confidence.to_string(), kept);
    }
    assert_eq!(member("confidence", serde_json::from_str("1e999").unwrap()), None);
}

#[test]
fn a_budget_and_a_deadline_have_all_their_members() {
    let budget = member("budget_remaining", json!({"tokens": -5, "dollars": 3, "other": 1})).unwrap();
    assert_eq!(budget.to_string(), r#"{"dollars":3.0,"tokens":-5,"tool_calls":null}"#);
    let deadline = member("deadline_checkback", json!({"deadline": " tomorrow "})).unwrap();
    assert_eq!(deadline, json!({"deadline": " tomorrow ", "checkback_at": null}));
}

#[test]
fn evidence_stays_as_it_is_and_links_lose_blanks() {
    let evidence = member("evidence_refs", json!([{"path": " ", "uri": "u", "more": 1}])).unwrap();
    assert_eq!(evidence, json!([{"artifact_id": null, "kind": null, "label": null, "path": " ", "uri": "u"}]));
    let links = member("receipt_links", json!([{"label": " ", "path": " p "}, {"kind": "log"}])).unwrap();
    let expected = json!([
        {"kind": "run_receipt", "label": null, "run_id": null, "artifact_id": null, "path": " p ", "href": null},
        {"kind": "log", "label": null, "run_id": null, "artifact_id": null, "path": null, "href": null},
    ]);
    assert_eq!(links, expected);
}

#[test]
fn what_is_given_is_kept_and_what_is_unknown_is_dropped() {
    let given =
        json!({"_type": "mine", "id": " ", "created_at": "yesterday", "parent_run_id": "", "metadata": {"n": 1.50}});
    for (name, value) in given.as_object().unwrap() {
        assert_eq!(member(name, value.clone()).as_ref(), Some(value), "{name}");
    }
    assert_eq!(member("id", json!("")), Some(json!(format!("handoff_{FRESH}"))));
    assert!(read(&with("more", json!(1))).unwrap().get("more").is_none());
}

#[test]
fn moments_are_written_in_the_calendar() {
    for (unix_ms, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399_999, "2000-02-28T23:59:59.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_709_251_199_000, "2024-02-29T23:59:59.000Z"),
        (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ((1 << 48) - 1, "10889-08-02T05:31:50.655Z"),
    ] {
        assert_eq!(rfc3339(unix_ms), text);
    }
}
