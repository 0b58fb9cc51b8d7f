//! `batonfs diff`: what is different between two versions of a key, line by line.

use std::io;
use std::path::Path;
use std::time::Duration;

use similar::TextDiff;

use super::options::{PlaceArgs, perform, unexpected};
use super::table::Style;
use super::{Ended, Exit, history, output};
use crate::committer::client::Value;
use crate::committer::{Call, Refusal, RefusalKind, Request};
use crate::words::{Key, SessionId, Version};

/// Larger values are compared, but not shown line by line.
const TEXT_MAX_BYTES: u64 = 16 << 20;
/// After this long the rest is told apart more coarsely: true still, and not the shortest that could be said.
const PATIENCE: Duration = Duration::from_secs(5);

/// Show the difference of two versions of a key
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    /// The earlier version; the one before the newest that are kept where none is given
    #[arg(value_name = "A")]
    a: Option<Version>,
    /// The later version; the newest one where none is given
    #[arg(value_name = "B")]
    b: Option<Version>,
}

pub(super) fn run(args: &Args) -> Ended {
    let (root, session, key) = args.place.all()?;
    let (a, b) = match (args.a, args.b) {
        (Some(a), Some(b)) => (a, b),
        (a, _) => latest(&history::kept(&root, &session, &key)?, a, (&session, &key))?,
    };
    let before = value(&root, &session, &key, a)?;
    let after = value(&root, &session, &key, b)?;
    let reading = |e| Refusal::failed(format!("comparing versions {a} and {b} of '{key}'"), e);
    if before.is_same(&after).map_err(reading)? {
        return Ok(Exit::Done);
    }
    match (text(&before).map_err(reading)?, text(&after).map_err(reading)?) {
        (Some(before), Some(after)) => show(&key, (a, &before), (b, &after))?,
        _ => output::line(&format!(
            "binary versions {a} ({} bytes) and {b} ({} bytes) of '{}' differ",
            before.size_bytes(),
            after.size_bytes(),
            output::plain(key.as_str())
        ))?,
    }
    Ok(Exit::Done)
}

/// The versions that are compared where not both are given.
fn latest(
    kept: &[Version],
    a: Option<Version>,
    (session, key): (&SessionId, &Key),
) -> Result<(Version, Version), Refusal> {
    let words = match (kept, a) {
        ([.., newest], Some(a)) => return Ok((a, *newest)),
        ([.., before, newest], None) => return Ok((*before, *newest)),
        ([only], None) => format!("of key '{key}' version {only} alone is kept: there is nothing to compare it with"),
        ([], _) => format!("key '{key}' not found in session '{session}'"),
    };
    Err(Refusal::new(RefusalKind::NotFound, words))
}

fn value(root: &Path, session: &SessionId, key: &Key, version: Version) -> Result<Value, Refusal> {
    let call = Call::new(Request::ReadVersion { session: session.clone(), key: key.clone(), version });
    let (reply, value) = perform(root, call)?;
    value.ok_or_else(|| unexpected(&reply))
}

/// As others tell text: UTF-8 without a NUL. What is too large is not read into memory.
fn text(value: &Value) -> io::Result<Option<String>> {
    if value.size_bytes() > TEXT_MAX_BYTES {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    value.give(&mut bytes)?;
    Ok(String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')))
}

/// A line ends with its newline and with nothing else: what reads a unified diff knows no other end.
fn show(key: &Key, (a, before): (Version, &str), (b, after): (Version, &str)) -> Result<(), Refusal> {
    let name = |version| format!("{} (version {version})", output::plain(key.as_str()));
    let lines = |text| str::split_inclusive(text, '\n').collect::<Vec<_>>();
    let (before, after) = (lines(before), lines(after));
    let difference = TextDiff::configure().timeout(PATIENCE).diff_slices(&before, &after);
    let style = Style::of_stdout();
    output::data(|to| {
        style.difference(&format!("--- {}\n", name(a)), to)?;
        style.difference(&format!("+++ {}\n", name(b)), to)?;
        for hunk in difference.unified_diff().iter_hunks() {
            style.difference(&format!("{}\n", hunk.header()), to)?;
            for change in hunk.iter_changes() {
                style.difference(&format!("{}{}", change.tag(), change.value()), to)?;
                if !change.value().ends_with('\n') {
                    to.write_all(b"\n\\ No newline at end of file\n")?;
                }
            }
        }
        Ok(())
    })
}
