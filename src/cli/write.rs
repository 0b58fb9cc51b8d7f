//! `batonfs write`: stdin becomes the key's next version, whole or not at all.

use std::path::Path;

use serde::Serialize;

use super::options::{CallerArgs, KeepArg, PlaceArgs, perform_with, unexpected};
use super::{Ended, Exit, output};
use crate::committer::{Call, Refusal, Reply, Request, spool};
use crate::words::{Key, SessionId};

/// Make stdin the value of a key
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    caller: CallerArgs,
    #[command(flatten)]
    keep: KeepArg,
    /// Print what was made: session, key, version, sequence number
    #[arg(long)]
    json: bool,
}

/// What a write made, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Made<'a> {
    session_id: &'a SessionId,
    key: &'a Key,
    version: Option<u64>,
    seq: u64,
    warning: Option<&'a str>,
}

pub(super) fn run(args: &Args) -> Ended {
    let (root, session, key) = args.place.all()?;
    let call = args.caller.call(Request::Write { session: session.clone(), key: key.clone() })?;
    write(&root, Call { keep: args.keep.keep(), ..call }, (&session, &key), args.json)
}

/// Takes stdin to its end, then writes it.
pub(super) fn write(root: &Path, call: Call, (session_id, key): (&SessionId, &Key), json: bool) -> Ended {
    let body = spool::take(&mut std::io::stdin().lock(), root).map_err(|e| Refusal::failed("taking stdin in", e))?;
    let (reply, _) = perform_with(root, call, &body)?;
    made(&reply, (session_id, key), json)
}

/// Says what was made.
pub(super) fn made(reply: &Reply, (session_id, key): (&SessionId, &Key), json: bool) -> Ended {
    let Reply::Written { version, seq, warning } = reply else { return Err(unexpected(reply)) };
    if let Some(words) = warning {
        output::say(&output::plain(&format!("warning: {words}")));
    }
    if json {
        output::json(&Made { session_id, key, version: *version, seq: *seq, warning: warning.as_deref() })?;
    }
    Ok(Exit::Done)
}
