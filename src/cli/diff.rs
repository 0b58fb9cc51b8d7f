//! `batonfs diff`: what is different between two versions of a key, line by line.

use std::path::Path;
use std::time::Duration;

use similar::TextDiff;

use super::options::{KeyArg, SessionArg, StoreArg, perform, unexpected};
use super::table::Style;
use super::{Ended, Exit, history, output};
use crate::committer::{Call, Refusal, RefusalKind, Request};
use crate::words::{Key, SessionId, Version};

/// Larger values are compared, but not shown line by line.
const TEXT_MAX_BYTES: usize = 16 << 20;
/// After this long the rest is told apart more coarsely: true still, and not the shortest that could be said.
const PATIENCE: Duration = Duration::from_secs(5);

/// Show the difference of two versions of a key
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    session: SessionArg,
    #[command(flatten)]
    key: KeyArg,
    /// The earlier version; the one before the newest that are kept where none is given
    #[arg(value_name = "A")]
    a: Option<Version>,
    /// The later version; the newest one where none is given
    #[arg(value_name = "B")]
    b: Option<Version>,
}

pub(super) fn run(args: &Args) -> Ended {
    let (root, session, key) = (args.store.root()?, args.session.id()?, args.key.key()?);
    let (a, b) = match (args.a, args.b) {
        (Some(a), Some(b)) => (a, b),
        (a, _) => latest(&history::kept(&root, &session, &key)?, a, (&session, &key))?,
    };
    let before = value(&root, &session, &key, a)?;
    let after = value(&root, &session, &key, b)?;
    if before == after {
        return Ok(Exit::Done);
    }
    match (text(&before), text(&after)) {
        (Some(before), Some(after)) => show(&key, (a, before), (b, after))?,
        _ => output::line(&format!(
            "binary versions {a} ({} bytes) and {b} ({} bytes) of '{}' differ",
            before.len(),
            after.len(),
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

fn value(root: &Path, session: &SessionId, key: &Key, version: Version) -> Result<Vec<u8>, Refusal> {
    let call = Call::new(Request::ReadVersion { session: session.clone(), key: key.clone(), version });
    let (reply, value) = perform(root, call)?;
    let mut bytes = Vec::new();
    let given = value.ok_or_else(|| unexpected(&reply))?.give(&mut bytes);
    given.map_err(|e| Refusal::failed(format!("reading version {version} of '{key}'"), e))?;
    Ok(bytes)
}

/// As others tell text: UTF-8 without a NUL.
fn text(bytes: &[u8]) -> Option<&str> {
    let short = bytes.len() <= TEXT_MAX_BYTES && !bytes.contains(&0);
    std::str::from_utf8(bytes).ok().filter(|_| short)
}

fn show(key: &Key, (a, before): (Version, &str), (b, after): (Version, &str)) -> Result<(), Refusal> {
    let name = |version| format!("{} (version {version})", output::plain(key.as_str()));
    let difference = TextDiff::configure().timeout(PATIENCE).diff_lines(before, after);
    let shown = difference.unified_diff().header(&name(a), &name(b)).to_string();
    let style = Style::of_stdout();
    output::data(|to| shown.split_inclusive('\n').try_for_each(|line| style.difference(line, to)))
}
