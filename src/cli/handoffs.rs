//! `batonfs handoffs`: the latest handoff of every session, a line each.

use std::io::Write;

use super::options::{StoreArg, perform, unexpected};
use super::{Ended, Exit, output, table};
use crate::committer::{Call, Reply, Request};
use crate::handoff::Latest;

/// List the latest handoff of every session
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Ended {
    let (reply, _) = perform(&args.store.root()?, Call::new(Request::Handoffs))?;
    let Reply::Handoffs(handoffs) = &reply else { return Err(unexpected(&reply)) };
    if args.json {
        output::json_lines(handoffs)?;
    } else {
        output::data(|to| lines(handoffs, to))?;
    }
    Ok(Exit::Done)
}

fn lines(handoffs: &[Latest], to: &mut dyn Write) -> std::io::Result<()> {
    let longest = handoffs.iter().map(|handoff| handoff.session_id.as_str().chars().count()).max().unwrap_or(0).max(7);
    writeln!(to, "{:<longest$}  VERSION  {:<24}  {:<14}  SUMMARY", "SESSION", "TIME", "WRITER")?;
    for Latest { session_id, version, committed_at_s, writer, summary, damage } in handoffs {
        let (session, writer) = (output::plain(session_id.as_str()), table::writer(writer));
        let time = table::time(committed_at_s.saturating_mul(1000));
        let damaged = damage.as_ref().map(|what| format!("damaged: {what}"));
        let summary = output::plain(damaged.as_deref().or(summary.as_deref()).unwrap_or("-"));
        writeln!(to, "{session:<longest$}  {version:>7}  {time:<24}  {writer:<14}  {summary}")?;
    }
    Ok(())
}
