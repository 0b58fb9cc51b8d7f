//! The latest handoff of each session: who has passed what on, at a glance. Reads heads and documents; no logs.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::DOCUMENT_MAX_BYTES;
use crate::engine::{Attributes, Snapshot};
use crate::store::{Result, Store};
use crate::words::{Key, SessionId, Version, Writer};

/// How much of a summary is shown.
const WORDS_MAX_CHARS: usize = 120;

/// A session's handoff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest {
    /// The session.
    pub session_id: SessionId,
    /// The version of the handoff.
    pub version: Version,
    /// When it was committed, in seconds since 1970.
    pub committed_at_s: u64,
    /// Who passed it on.
    pub writer: Writer,
    /// The beginning of its summary as JSON on one line; `None` where another program has put there what has none.
    pub summary: Option<String>,
}

/// The latest handoff of every session that has one and may be seen, sorted by session; `may_see` is asked with the
/// attributes of the session and of the handoff.
///
/// # Errors
/// [`crate::store::StoreError::Engine`].
pub fn latest(store: &Store, may_see: impl Fn(&Attributes, &Attributes) -> bool) -> Result<Vec<Latest>> {
    let (engine, key) = (store.engine(), Key::handoff());
    let mut all = Vec::new();
    for session_id in engine.sessions()? {
        let Some(handoff) = engine.open(&session_id, &key)? else { continue };
        // Gone since it was listed.
        let Some(session) = engine.entry(&session_id, "")? else { continue };
        if !may_see(&session.attributes, &handoff.head.attributes) {
            continue;
        }
        let summary = summary(&handoff)?;
        let head = handoff.head;
        let (version, committed_at_s, writer) = (head.version, head.committed_at_s, head.writer);
        all.push(Latest { session_id, version, committed_at_s, writer, summary });
    }
    Ok(all)
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
