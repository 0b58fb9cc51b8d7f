//! The latest handoff of each session: who has passed what on, at a glance. Reads heads and documents; no logs.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::DOCUMENT_MAX_BYTES;
use crate::engine::{Attributes, EngineError, Snapshot};
use crate::store::{Result, Store, StoreError};
use crate::words::{Key, SessionId, Version, Writer};

/// How much of a summary is shown.
const WORDS_MAX_CHARS: usize = 120;

/// A session's handoff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest {
    /// The session.
    pub session_id: SessionId,
    /// The version of the handoff; 0 where that cannot be told.
    pub version: Version,
    /// When it was committed, in seconds since 1970; 0 where that cannot be told.
    pub committed_at_s: u64,
    /// Who passed it on.
    pub writer: Writer,
    /// The beginning of its summary as JSON on one line; `None` where another program has put there what has none.
    pub summary: Option<String>,
    /// Why it cannot be told: the session is damaged, the others are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// The latest handoff of every session that has one and may be seen, sorted by session; `may_see` is asked with the
/// attributes of the session and of the handoff. What is damaged in one session is told in its place.
///
/// # Errors
/// [`crate::store::StoreError::Engine`].
pub fn latest(store: &Store, may_see: impl Fn(&Attributes, &Attributes) -> bool) -> Result<Vec<Latest>> {
    let (engine, key) = (store.engine(), Key::handoff());
    let mut all = Vec::new();
    for session_id in engine.sessions()? {
        // Gone since it was listed, or there is none.
        let Some(session) = engine.entry(&session_id, "")? else { continue };
        let Some(entry) = engine.entry(&session_id, key.as_str())? else { continue };
        if !may_see(&session.attributes, &entry.attributes) {
            continue;
        }
        match of(store, &session_id, &key) {
            Ok(latest) => all.extend(latest),
            Err(StoreError::Engine(EngineError::Damaged { place, what })) => {
                let damage = Some(format!("{place}: {what}"));
                let (version, committed_at_s, writer, summary) = (0, 0, Writer::default(), None);
                all.push(Latest { session_id, version, committed_at_s, writer, summary, damage });
            }
            Err(other) => return Err(other),
        }
    }
    Ok(all)
}

fn of(store: &Store, session_id: &SessionId, key: &Key) -> Result<Option<Latest>> {
    let Some(handoff) = store.engine().open(session_id, key)? else { return Ok(None) };
    let summary = summary(&handoff)?;
    let (session_id, head) = (session_id.clone(), handoff.head);
    let (version, committed_at_s, writer) = (head.version, head.committed_at_s, head.writer);
    Ok(Some(Latest { session_id, version, committed_at_s, writer, summary, damage: None }))
}

fn summary(handoff: &Snapshot) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        summary: &'a RawValue,
    }
    if handoff.head.size_bytes > 2 * DOCUMENT_MAX_BYTES {
        return Ok(None);
    }
    let bytes = handoff.read_all()?;
    Ok(serde_json::from_slice::<Envelope<'_>>(&bytes).ok().map(|envelope| first_words(envelope.summary.get())))
}

/// The beginning of a document, with the white space around its members left out.
fn first_words(json: &str) -> String {
    let (mut words, mut left, mut quoted, mut escaped) = (String::new(), WORDS_MAX_CHARS, false, false);
    for letter in json.chars() {
        if !quoted && letter.is_ascii_whitespace() {
            continue;
        }
        if left == 0 {
            words.push('\u{2026}');
            break;
        }
        left -= 1;
        words.push(letter);
        quoted ^= letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_words_are_the_document_on_one_line() {
        let pretty = "{\n  \"a b\": \"c \\\" d\\\\\",\n  \"e\": [\n    1\n  ]\n}";
        assert_eq!(first_words(pretty), r#"{"a b":"c \" d\\","e":[1]}"#);
    }

    #[test]
    fn a_long_summary_is_cut_between_letters() {
        let long = format!("{{\"a\": \"{}\"}}", "\u{e4}".repeat(500));
        let words = first_words(&long);
        assert_eq!(words.chars().count(), WORDS_MAX_CHARS + 1);
        assert!(words.ends_with("\u{e4}\u{2026}"), "{words}");
    }
}
