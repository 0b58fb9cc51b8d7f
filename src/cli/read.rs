//! `batonfs read`: the newest version of a key, byte for byte, or nothing at all.

use super::options::{KeyArg, SessionArg, StoreArg, perform, unexpected};
use super::{Ended, Exit, output};
use crate::committer::{Call, Request};

/// Print the value of a key
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    session: SessionArg,
    #[command(flatten)]
    key: KeyArg,
}

pub(super) fn run(args: &Args) -> Ended {
    let call = Call::new(Request::Read { session: args.session.id()?, key: args.key.key()? });
    match perform(&args.store.root()?, call)? {
        (_, Some(value)) => output::data(|to| value.give(to)).map(|()| Exit::Done),
        (reply, None) => Err(unexpected(&reply)),
    }
}
