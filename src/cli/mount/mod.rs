//! `batonfs mount`: checks everything that can be checked, then serves - here, or in a daemon of its own.

mod background;
mod checks;
mod daemon;
mod log;
mod signals;

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::options::{self, WriterArgs};
use super::{Ended, Exit, output};
use crate::fuse::OnKill;

/// Mount a store; in the background once it serves
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The store: any directory
    store: PathBuf,
    /// Where to show it: an empty directory
    mountpoint: PathBuf,
    /// Stay in the foreground, and log to stderr
    #[arg(long)]
    foreground: bool,
    /// Let other users in
    #[arg(long)]
    allow_other: bool,
    /// Refuse every change
    #[arg(long)]
    read_only: bool,
    /// The least strict policy of any write: ignore, warn or error
    #[arg(long, visible_alias = "policy", value_name = "POLICY")]
    conflict_policy: Option<String>,
    /// What becomes of a draft whose writer was killed, and of one still open at the end
    #[arg(long, value_enum, value_name = "WHAT", default_value = "drop")]
    on_kill: OnKillArg,
    /// When a close is durable: `commit`, when it returns; `interval=MS`, at most so many milliseconds later
    #[arg(long, value_name = "WHEN", default_value = "commit")]
    durability: options::Durability,
    #[command(flatten)]
    keep: options::KeepArgs,
    #[command(flatten)]
    defaults: WriterArgs,
    /// How long to wait, at the end, for what is being written
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = options::seconds)]
    wait: Duration,
    /// Where the daemon logs [default: STORE/.baton/daemon.log]
    #[arg(long, value_name = "FILE", conflicts_with = "foreground")]
    log: Option<PathBuf>,
    /// This process is the daemon: stdout tells who started it whether it serves
    #[arg(long, hide = true, conflicts_with = "foreground")]
    daemon: bool,
}

/// [`OnKill`] as an option.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum OnKillArg {
    /// Dropped; the old version stays
    Drop,
    /// Committed as it is
    Commit,
}

impl From<OnKillArg> for OnKill {
    fn from(arg: OnKillArg) -> Self {
        match arg {
            OnKillArg::Drop => Self::Drop,
            OnKillArg::Commit => Self::Commit,
        }
    }
}

pub(super) fn run(args: &Args) -> Ended {
    if args.daemon {
        return background::be_daemon(|| checks::plan(args));
    }
    let plan = checks::plan(args)?;
    if args.foreground {
        daemon::serve(&plan, None, &output::recovery, || Ok(()))?;
        return Ok(Exit::Done);
    }
    background::start(&plan)
}
