//! `batonfs delete`: a key goes, and the directories this leaves empty.

use super::options::{CallerArgs, KeepArg, PlaceArgs, perform};
use super::{Ended, Exit};
use crate::committer::{Call, Request};

/// Delete a key; its history stays
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    caller: CallerArgs,
    #[command(flatten)]
    keep: KeepArg,
}

pub(super) fn run(args: &Args) -> Ended {
    let (root, session, key) = args.place.all()?;
    let call = args.caller.call(Request::Delete { session, key })?;
    perform(&root, Call { keep: args.keep.keep(), ..call }).map(|_| Exit::Done)
}
