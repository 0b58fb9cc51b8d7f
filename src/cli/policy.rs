//! `batonfs policy`: shows or sets the policy of a session, for whoever writes to it.

use super::options::{CallerArgs, SessionArg, StoreArg, WriterArgs, perform, policy, unexpected};
use super::{Ended, Exit, output};
use crate::committer::{Reply, Request};

/// Print the conflict policy of a session, after setting it if one is given
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    session: SessionArg,
    /// ignore, warn or error
    #[arg(value_name = "POLICY")]
    policy: Option<String>,
    #[command(flatten)]
    writer: WriterArgs,
}

pub(super) fn run(args: &Args) -> Ended {
    let set = args.policy.as_deref().map(policy).transpose()?;
    let mut call = CallerArgs::default().call(Request::Policy { session: args.session.id()?, set })?;
    call.claim = args.writer.claim()?;
    let (reply, _) = perform(&args.store.root()?, call)?;
    let Reply::Policy(policy) = reply else { return Err(unexpected(&reply)) };
    output::line(policy.as_str())?;
    Ok(Exit::Done)
}
