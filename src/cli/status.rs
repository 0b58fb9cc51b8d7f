//! `batonfs status`: what a store is, where it is mounted, what is open in it.

use std::io::Write;

use super::options::{StoreArg, perform, unexpected};
use super::{Ended, Exit, output};
use crate::committer::{Call, Reply, Request, Status};

/// Say what a store is, where it is mounted and what is being written
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Ended {
    let (reply, _) = perform(&args.store.root()?, Call::new(Request::Status))?;
    let Reply::Status(status) = &reply else { return Err(unexpected(&reply)) };
    if args.json {
        output::json(status)?
    } else {
        output::data(|to| lines(status, to))?
    }
    Ok(Exit::Done)
}

fn lines(status: &Status, to: &mut dyn Write) -> std::io::Result<()> {
    writeln!(to, "store: {}", status.store.display())?;
    match (&status.mountpoint, status.pid) {
        (Some(at), Some(pid)) => writeln!(to, "mounted at: {} (process {pid})", at.display())?,
        _ => writeln!(to, "mounted at: nowhere")?,
    }
    writeln!(to, "engine: {}", status.engine)?;
    writeln!(to, "sessions: {}", status.sessions)?;
    status.drafts.iter().try_for_each(|draft| writeln!(to, "being written: {draft}"))?;
    writeln!(to, "version: {}", status.version)
}
