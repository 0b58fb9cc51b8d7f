//! `batonfs delete`: a key goes, and the directories this leaves empty.

use super::options::{CallerArgs, KeepArg, KeyArg, SessionArg, StoreArg, perform};
use super::{Ended, Exit};
use crate::committer::{Call, Request};

/// Delete a key; its history stays
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    session: SessionArg,
    #[command(flatten)]
    key: KeyArg,
    #[command(flatten)]
    caller: CallerArgs,
    #[command(flatten)]
    keep: KeepArg,
}

pub(super) fn run(args: &Args) -> Ended {
    let call = args.caller.call(Request::Delete { session: args.session.id()?, key: args.key.key()? })?;
    perform(&args.store.root()?, Call { keep: args.keep.keep(), ..call }).map(|_| Exit::Done)
}
