//! `batonfs restore`: an earlier version of a key becomes its next one.

use super::options::{CallerArgs, KeepArg, PlaceArgs, perform};
use super::{Ended, write};
use crate::committer::{Call, Request};
use crate::words::Version;

/// Make an earlier version of a key its next one, with its attributes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
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
    let (root, session, key) = args.place.all()?;
    let request = Request::Restore { session: session.clone(), key: key.clone(), version: args.version };
    let (reply, _) = perform(&root, Call { keep: args.keep.keep(), ..args.caller.call(request)? })?;
    write::made(&reply, (&session, &key), args.json)
}
