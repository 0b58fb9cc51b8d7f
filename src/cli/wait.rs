//! `batonfs wait`: until a key has a version that the caller has not seen.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::looking::look_until;
use super::options::{self, SessionArg, StoreArg, perform_within};
use super::{Ended, Exit, output};
use crate::committer::{Call, RefusalKind, Reply, Request, Shown, Watch, client};
use crate::engine::Staged;
use crate::words::{Key, SessionId, Version, Writer};

/// So long is an answer waited for in any case: other commands may have the store, each for a moment.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// Wait until a key (the handoff, where none is given) has a version, or one after another
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    session: SessionArg,
    /// The key; __handoff.json where none is given
    #[arg(value_name = "KEY")]
    key: Option<String>,
    /// Only a later version than this; without it any version will do, also one that is there already
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    after: Version,
    /// How long at most; then it ends with 8
    #[arg(long, value_name = "SECONDS", value_parser = options::seconds)]
    timeout: Option<Duration>,
    /// Print a JSON object: session, key, version, sequence number, size, time, writer
    #[arg(long)]
    json: bool,
}

/// What there is now, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Found<'a> {
    session_id: &'a SessionId,
    key: &'a Key,
    version: Version,
    seq: u64,
    size_bytes: u64,
    committed_at_s: u64,
    writer: &'a Writer,
}

pub(super) fn run(args: &Args) -> Ended {
    let (root, session) = (args.store.root()?, args.session.id()?);
    let key = args.key.as_deref().map_or_else(|| Ok(Key::handoff()), options::key)?;
    let until = args.timeout.map(|limit| Instant::now() + limit);
    // The value's own place: also what a program beside the store puts there wakes, and other keys do not.
    let watch = Watch::new(&root, PathBuf::from(session.as_str()).join(key.as_str()));
    let look = || {
        let request = Request::Head { session: session.clone(), key: key.clone() };
        let left = until.map_or(client::LIMIT, |until| until.saturating_duration_since(Instant::now()));
        let limit = left.clamp(ANSWER_LIMIT, client::LIMIT);
        match perform_within(&root, Call::new(request), &Staged::from(Vec::new()), limit) {
            Ok((Reply::Head(head), _)) => Ok(head.filter(|head| head.version > args.after)),
            Ok((reply, _)) => Err(options::unexpected(&reply)),
            // The session may still come.
            Err(refusal) if refusal.kind == RefusalKind::NotFound => Ok(None),
            Err(refusal) => Err(refusal),
        }
    };
    match look_until(watch, until, false, look)? {
        Some(found) => print(&session, &key, &found, args.json),
        None => Ok(late(args, &key)),
    }
}

fn print(session_id: &SessionId, key: &Key, found: &Shown, json: bool) -> Ended {
    let Shown { version, seq, size_bytes, committed_at_s, writer } = found;
    let (version, seq, size_bytes, committed_at_s) = (*version, *seq, *size_bytes, *committed_at_s);
    if json {
        output::json(&Found { session_id, key, version, seq, size_bytes, committed_at_s, writer })?;
    } else {
        output::line(&version.to_string())?;
    }
    Ok(Exit::Done)
}

fn late(args: &Args, key: &Key) -> Exit {
    let limit = args.timeout.unwrap_or_default();
    let newer = if args.after == 0 { String::new() } else { format!(" after {}", args.after) };
    let key = output::plain(key.as_str());
    output::say(&format!("key '{key}' got no version{newer} within {} seconds", limit.as_secs_f64()));
    Exit::TimedOut
}
