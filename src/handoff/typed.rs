//! The typed handoff: a summary that has the neighbour's form, normalised as the neighbour does it (0.7.33 and later).
//! Knows no envelope.
//!
//! The rule of form is one: an absent member is its default, a wrong type anywhere makes the whole no typed handoff.
//! So every reader here answers `None` for a wrong type, and `?` does the rest. `null` is a wrong type where there
//! is a default other than null.

use std::collections::HashSet;

use uuid::Uuid;

use super::json::{Json, Object};

/// The typed handoff in a summary; `None` when the summary has another form or lacks what is required. `fresh` (a
/// UUIDv7) gives `id` and `created_at` where they are absent.
pub(super) fn typed(summary: &Object, fresh: Uuid) -> Option<Json> {
    let handoff = Json::object([
        ("_type", text_or(summary, "_type", || "handoff_artifact".to_owned())?),
        ("id", text_or(summary, "id", || format!("handoff_{fresh}"))?),
        ("parent_run_id", text_or_null(summary, "parent_run_id")?),
        ("source_persona", required(summary, "source_persona")?),
        ("target_persona_or_human", target(summary)?),
        ("task", required(summary, "task")?),
        ("reason", required(summary, "reason")?),
        ("evidence_refs", objects(summary, "evidence_refs", evidence_ref)?),
        ("files_or_entities_touched", texts(summary, "files_or_entities_touched")?),
        ("open_questions", texts(summary, "open_questions")?),
        ("blocked_on", texts(summary, "blocked_on")?),
        ("requested_capabilities", texts(summary, "requested_capabilities")?),
        ("allowed_side_effects", texts(summary, "allowed_side_effects")?),
        ("budget_remaining", object_or_null(summary, "budget_remaining", budget)?),
        ("deadline_checkback", object_or_null(summary, "deadline_checkback", deadline)?),
        ("confidence", number_or_null(summary, "confidence", |confidence| confidence.clamp(0.0, 1.0))?),
        ("receipt_links", objects(summary, "receipt_links", receipt_link)?),
        ("created_at", text_or(summary, "created_at", || rfc3339(unix_ms(fresh)))?),
        ("metadata", metadata(summary)?),
    ]);
    Some(handoff)
}

fn target(summary: &Object) -> Option<Json> {
    let Json::Object(target) = summary.get("target_persona_or_human")? else { return None };
    let kind = if text(target, "kind")?.trim() == "human" { "human" } else { "persona" };
    let (id, label) = (filled_or_null(target, "id")?, filled_or_null(target, "label")?);
    // The name shown to people is the label, else the id; without one nobody is meant.
    let shown = label.as_str().or(id.as_str())?;
    if shown == "unknown" {
        return None;
    }
    Some(Json::object([("kind", kind.into()), ("id", id), ("label", label)]))
}

fn evidence_ref(from: &Object) -> Option<Json> {
    texts_or_null(from, ["artifact_id", "kind", "label", "path", "uri"], text_or_null).map(Json::Object)
}

fn budget(from: &Object) -> Option<Json> {
    Some(Json::object([
        ("tokens", integer_or_null(from, "tokens")?),
        ("tool_calls", integer_or_null(from, "tool_calls")?),
        ("dollars", number_or_null(from, "dollars", |dollars| dollars)?),
    ]))
}

fn deadline(from: &Object) -> Option<Json> {
    texts_or_null(from, ["deadline", "checkback_at"], text_or_null).map(Json::Object)
}

fn receipt_link(from: &Object) -> Option<Json> {
    let mut link = texts_or_null(from, ["label", "run_id", "artifact_id", "path", "href"], filled_or_null)?;
    let kind = text(from, "kind")?;
    let kind = if kind.trim().is_empty() { "run_receipt" } else { kind };
    link.insert("kind".to_owned(), kind.into());
    Some(Json::Object(link))
}

fn metadata(summary: &Object) -> Option<Json> {
    match summary.get("metadata") {
        None => Some(Json::Object(Object::new())),
        Some(metadata @ Json::Object(_)) => Some(metadata.clone()),
        Some(_) => None,
    }
}

/// A string, empty when absent.
fn text<'a>(from: &'a Object, name: &str) -> Option<&'a str> {
    from.get(name).map_or(Some(""), Json::as_str)
}

/// A string; the default when it is absent or empty.
fn text_or(from: &Object, name: &str, default: impl FnOnce() -> String) -> Option<Json> {
    let text = text(from, name)?;
    Some(if text.is_empty() { default().into() } else { text.into() })
}

/// A string, trimmed, that has something in it.
fn required(from: &Object, name: &str) -> Option<Json> {
    let text = text(from, name)?.trim();
    (!text.is_empty()).then(|| text.into())
}

/// A string as it is, or null.
fn text_or_null(from: &Object, name: &str) -> Option<Json> {
    match from.get(name) {
        None | Some(Json::Null) => Some(Json::Null),
        Some(text @ Json::Text(_)) => Some(text.clone()),
        Some(_) => None,
    }
}

/// A string as it is, or null, also for one of white space only.
fn filled_or_null(from: &Object, name: &str) -> Option<Json> {
    let value = text_or_null(from, name)?;
    let blank = value.as_str().is_some_and(|text| text.trim().is_empty());
    Some(if blank { Json::Null } else { value })
}

fn texts_or_null<const N: usize>(
    from: &Object,
    names: [&str; N],
    read: fn(&Object, &str) -> Option<Json>,
) -> Option<Object> {
    names.into_iter().map(|name| Some((name.to_owned(), read(from, name)?))).collect()
}

/// A list of strings: trimmed, blanks and repeats dropped, order kept.
fn texts(from: &Object, name: &str) -> Option<Json> {
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for item in list(from, name)? {
        let text = item.as_str()?.trim();
        if !text.is_empty() && seen.insert(text) {
            kept.push(text.into());
        }
    }
    Some(Json::Array(kept))
}

fn objects(from: &Object, name: &str, read: fn(&Object) -> Option<Json>) -> Option<Json> {
    let items = list(from, name)?.iter().map(|item| read(item.as_object()?));
    items.collect::<Option<Vec<_>>>().map(Json::Array)
}

fn list<'a>(from: &'a Object, name: &str) -> Option<&'a [Json]> {
    from.get(name).map_or(Some(&[]), Json::as_array)
}

fn object_or_null(from: &Object, name: &str, read: fn(&Object) -> Option<Json>) -> Option<Json> {
    match from.get(name) {
        None | Some(Json::Null) => Some(Json::Null),
        Some(value) => read(value.as_object()?),
    }
}

/// An integer of 64 bits, or null.
fn integer_or_null(from: &Object, name: &str) -> Option<Json> {
    match from.get(name) {
        None | Some(Json::Null) => Some(Json::Null),
        Some(value) => value.as_i64().map(Json::from),
    }
}

/// A finite number, or null. It is written as a fraction, `5.0`, as every reader of a float expects it.
fn number_or_null(from: &Object, name: &str, change: fn(f64) -> f64) -> Option<Json> {
    match from.get(name) {
        None | Some(Json::Null) => Some(Json::Null),
        Some(value) => Json::fraction(change(value.as_f64()?)),
    }
}

/// The milliseconds since 1970 in the upper 48 bits of a UUIDv7.
fn unix_ms(id: Uuid) -> u64 {
    let (upper, _) = id.as_u64_pair();
    upper >> 16
}

/// A moment in UTC as RFC 3339 writes it, with milliseconds.
fn rfc3339(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    while days >= days_in_year(year) {
        days -= days_in_year(year);
        year += 1;
    }
    let february = days_in_year(year) - 337;
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z", days + 1)
}

const fn days_in_year(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests;
