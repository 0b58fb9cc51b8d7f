//! `batonfs restore`: an earlier version of a key becomes its next one.

use super::options::{CallerArgs, KeepArg, KeyArg, SessionArg, StoreArg, perform};
use super::{Ended, write};
use crate::committer::{Call, Request};
use crate::words::Version;

/// Make an earlier version of a key its next one, with its attributes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    session: SessionArg,
    #[command(flatten)]
    key: KeyArg,
    /// Which, as 'history' tells
    #[arg(value_name = "VERSION")]
    version: Version,
    #[command(flatten)]
    caller: CallerArgs,
    #[command(flatten)]
    keep: KeepArg,
    /// Print what was made: session, key, version, sequence number
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Ended {
    let (session, key) = (args.session.id()?, args.key.key()?);
    let request = Request::Restore { session: session.clone(), key: key.clone(), version: args.version };
    let (reply, _) = perform(&args.store.root()?, Call { keep: args.keep.keep(), ..args.caller.call(request)? })?;
    write::made(&reply, (&session, &key), args.json)
}
