//! `batonfs init`: makes a session, or finds it made, and prints its handle.

use super::options::{CallerArgs, StoreArg, perform, session, unexpected};
use super::{Ended, Exit, output};
use crate::committer::{Refusal, Reply, Request};
use crate::words::SessionId;

/// Make a session, or find it made, and print its handle (JSON)
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    /// The session's id; a fresh one when none is given
    #[arg(value_name = "SESSION")]
    session: Option<String>,
    #[command(flatten)]
    caller: CallerArgs,
}

pub(super) fn run(args: &Args) -> Ended {
    let session = args.session.as_deref().map_or_else(|| Ok(SessionId::fresh()), session)?;
    let call = args.caller.call(Request::Init { session })?;
    make_store(&args.store)?;
    print(&perform(&args.store.root()?, call)?.0)
}

/// As the neighbour's init does: the store is made with its first session.
fn make_store(store: &StoreArg) -> Result<(), Refusal> {
    // Whatever else is wrong with it is said where it is opened.
    if !store.path().symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        return Ok(());
    }
    let failed = |e| Refusal::failed(format!("making the store '{}'", store.path().display()), e);
    std::fs::create_dir_all(store.path()).map_err(failed)
}

/// Prints a handle.
pub(super) fn print(reply: &Reply) -> Ended {
    let Reply::Handle(handle) = reply else { return Err(unexpected(reply)) };
    output::line(&handle.to_json())?;
    Ok(Exit::Done)
}
