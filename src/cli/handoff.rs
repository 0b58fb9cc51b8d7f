//! `batonfs handoff`: passes work on, by writing the object on stdin to the handoff key.

use super::Ended;
use super::options::{CallerArgs, KeepArg, SessionArg, StoreArg};
use super::write::write;
use crate::committer::{Call, Request};
use crate::words::Key;

/// Pass work on: make the JSON object on stdin the session's handoff
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    session: SessionArg,
    #[command(flatten)]
    caller: CallerArgs,
    #[command(flatten)]
    keep: KeepArg,
    /// Print what was made: session, key, version, sequence number
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Ended {
    let key = Key::handoff();
    let session = args.session.id()?;
    let call = args.caller.call(Request::Write { session: session.clone(), key: key.clone() })?;
    write(&args.store.root()?, Call { keep: args.keep.keep(), ..call }, (&session, &key), args.json)
}
