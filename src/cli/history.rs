//! `batonfs history`: the versions of a key, newest first, and which of them can be read still.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::looking::Changes;
use super::options::{PlaceArgs, perform, unexpected};
use super::table::Style;
use super::{Ended, Exit, output};
use crate::committer::{Call, Refusal, RefusalKind, Reply, Request, Wanted};
use crate::words::{Key, LogLine, Op, Seq, SessionId, Version};

/// List the versions of a key, newest first
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

/// A change of the key.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    line: LogLine,
    /// The bytes of its version are there.
    kept: bool,
}

pub(super) fn run(args: &Args) -> Ended {
    let (root, session, key) = args.place.all()?;
    let kept = kept(&root, &session, &key)?;
    let (lines, others) = lines(&root, &session, &key)?;
    let rows = rows(lines, others, kept);
    if rows.is_empty() {
        let words = format!("key '{key}' not found in session '{session}'");
        return Err(Refusal::new(RefusalKind::NotFound, words));
    }
    if args.json {
        output::json_lines(&rows)?;
        return Ok(Exit::Done);
    }
    let style = Style::of_stdout();
    output::data(|to| {
        style.head(true, to)?;
        rows.iter().try_for_each(|row| style.change(&row.line, Some(row.kept), to))
    })?;
    Ok(Exit::Done)
}

/// The versions whose bytes are kept.
pub(super) fn kept(root: &Path, session: &SessionId, key: &Key) -> Result<Vec<Version>, Refusal> {
    let call = Call::new(Request::Kept { session: session.clone(), key: key.clone() });
    match perform(root, call)?.0 {
        Reply::Kept(kept) => Ok(kept),
        reply => Err(unexpected(&reply)),
    }
}

/// The changes of a key, also those under the names that it had before directories were renamed, the newest first; and
/// those of other keys that had one of these names before it came to it.
fn lines(root: &Path, session: &SessionId, key: &Key) -> Result<(Vec<LogLine>, Vec<LogLine>), Refusal> {
    let (mut all, mut others, mut name, mut before) = (Vec::new(), Vec::new(), key.as_str().to_owned(), Seq::MAX);
    while let Ok(key) = Key::literal(&name) {
        let wanted = Wanted { key: Some(key), ..Wanted::default() };
        let mut of_name = Vec::new();
        Changes::new(root, session, wanted, 0).each(|lines| {
            of_name.extend(lines.into_iter().filter(|line| line.seq < before));
            Ok(true)
        })?;
        let moved = of_name.iter().rev().find_map(|line| Some((line.seq, line.name_before(&name)?)));
        let came = moved.as_ref().map_or(0, |(seq, _)| *seq);
        let (theirs, ours): (Vec<_>, Vec<_>) = own(of_name, &name).into_iter().rev().partition(|line| line.seq < came);
        all.extend(ours);
        others.extend(theirs);
        let Some(moved) = moved else { break };
        (before, name) = moved;
    }
    Ok((all, others))
}

/// The lines of the key itself, oldest first: its versions, and each time it went.
fn own(of_name: Vec<LogLine>, name: &str) -> Vec<LogLine> {
    let mut there = false;
    let mut own = |line: LogLine| {
        let makes = line.to.as_deref().unwrap_or(&line.key) == name;
        let was_there = there;
        match (line.op, line.version) {
            (_, Some(_)) if makes => there = true,
            (Op::Delete, _) if makes => there = false,
            // The version is that of the name that it led to.
            (Op::Rename, Some(_)) => {
                there = false;
                return Some(LogLine { version: None, size_bytes: None, ..line });
            }
            (Op::Rename, None) => {
                // A directory above it came with what it has, or went.
                there = line.name_before(name).is_some();
                return Some(line).filter(|_| was_there && !there);
            }
            _ => return None,
        }
        Some(line)
    };
    of_name.into_iter().filter_map(&mut own).collect()
}

/// Of lines with one number, under several names, the key's own newest one is the version that is kept: only what it
/// has no other of comes from who had its name before.
fn rows(lines: Vec<LogLine>, others: Vec<LogLine>, kept: Vec<Version>) -> Vec<Row> {
    let mut kept: BTreeSet<Version> = kept.into_iter().collect();
    let row = |line: LogLine| Row { kept: line.version.is_some_and(|version| kept.remove(&version)), line };
    let mut rows: Vec<_> = lines.into_iter().chain(others).map(row).collect();
    rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.line.seq));
    rows
}
