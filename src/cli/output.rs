//! Data on stdout, talk on stderr. A reader of stdout that has enough ends nothing and hears nothing.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::committer::Refusal;
use crate::engine::Recovery;

/// Writes data with `give`. A closed pipe is a reader that has what it wants: no error.
///
/// # Errors
/// Anything else that keeps data from being written, or from being read where it comes from.
pub(super) fn data(give: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Refusal> {
    still(give).map(drop)
}

/// The same where more may follow; `false` when nobody reads any more.
///
/// # Errors
/// As [`data`].
pub(super) fn still(give: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<bool, Refusal> {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    match give(&mut stdout).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Refusal::failed("writing to stdout", e)),
    }
}

/// Writes one line of data.
///
/// # Errors
/// As [`data`].
pub(super) fn line(text: &str) -> Result<(), Refusal> {
    data(|to| writeln!(to, "{text}"))
}

/// Writes a value as JSON and a newline.
///
/// # Errors
/// As [`data`].
pub(super) fn json(value: &impl Serialize) -> Result<(), Refusal> {
    data(|to| {
        serde_json::to_writer(&mut *to, value)?;
        to.write_all(b"\n")
    })
}

/// Writes values as JSON, a line each; `false` when nobody reads any more.
///
/// # Errors
/// As [`data`].
pub(super) fn json_lines<T: Serialize>(values: &[T]) -> Result<bool, Refusal> {
    still(|to| {
        values.iter().try_for_each(|value| {
            serde_json::to_writer(&mut *to, value)?;
            to.write_all(b"\n")
        })
    })
}

/// A name may hold what would break a line or a terminal, or show what follows it in another order than it has.
pub(super) fn plain(text: &str) -> String {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |c: char| if c.is_control() || turns(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Says something to the person. There is nobody to tell when that fails.
pub(super) fn say(words: &str) {
    let _ = writeln!(io::stderr(), "batonfs: {words}");
}

/// Shows a person how far something is, in place of what was shown before; `None` takes it away. Others are shown nothing.
pub(super) fn progress(words: Option<&str>) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{}", words.unwrap_or_default()).and_then(|()| stderr.flush());
    }
}

/// Says how far a store is recovered: to a person in place of what was said before, to others a line each time.
pub(super) fn recovery(how_far: &Recovery) {
    let over = matches!(how_far, Recovery::Over { .. });
    if over {
        progress(None);
    }
    if over || !io::stderr().is_terminal() {
        say(&how_far.to_string());
    } else {
        progress(Some(&format!("batonfs: {how_far}")));
    }
}

/// Says why something was not done. Its words name keys and writers that others have chosen.
pub(super) fn refuse(refusal: &Refusal) {
    say(&plain(&refusal.words));
    if let Some(hint) = &refusal.hint {
        let _ = writeln!(io::stderr(), "hint: {}", plain(hint));
    }
}
