//! `batonfs list`: every key of a session.

use std::io::Write;

use super::options::{SessionArg, StoreArg, perform, unexpected};
use super::{Ended, Exit, output};
use crate::committer::{Call, Reply, Request};
use crate::words::Key;

/// List the keys of a session, sorted bytewise
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    session: SessionArg,
    /// Print one JSON array instead of lines
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Ended {
    let call = Call::new(Request::List { session: args.session.id()? });
    let (reply, _) = perform(&args.store.root()?, call)?;
    let Reply::Keys(keys) = &reply else { return Err(unexpected(&reply)) };
    if args.json {
        output::json(keys)?
    } else {
        output::data(|to| lines(keys, to))?
    }
    Ok(Exit::Done)
}

fn lines(keys: &[Key], to: &mut dyn Write) -> std::io::Result<()> {
    keys.iter().try_for_each(|key| writeln!(to, "{key}"))
}
