//! `batonfs resume`: prints the handle of a session that exists.

use super::options::{CallerArgs, SessionArg, StoreArg, perform};
use super::{Ended, init};
use crate::committer::Request;

/// Print the handle of a session that exists (JSON)
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    session: SessionArg,
    #[command(flatten)]
    caller: CallerArgs,
}

pub(super) fn run(args: &Args) -> Ended {
    let call = args.caller.call(Request::Resume { session: args.session.id()? })?;
    init::print(&perform(&args.store.root()?, call)?.0)
}
