//! `batonfs run`: becomes a command that declares who it is, by its environment.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::options::CallerArgs;
use super::{Ended, Exit, output};
use crate::committer::{Refusal, RefusalKind};
use crate::words::Policy;

/// Run a command as a writer: its environment, and its children's, declare it
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    caller: CallerArgs,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<OsString>,
}

pub(super) fn run(args: &Args) -> Ended {
    let claim = args.caller.claim()?;
    if claim.writer_id.is_none() {
        let words = "run needs --writer-id: a writer that declares nothing meets no conflict";
        return Err(Refusal::new(RefusalKind::Usage, words));
    }
    let variables = [
        ("BATON_WRITER_ID", claim.writer_id),
        ("BATON_STAGE_ID", claim.stage_id),
        ("BATON_WORKER_ID", claim.worker_id),
        ("BATON_SESSION_ID", claim.session_id),
        ("BATON_CONFLICT_POLICY", args.caller.policy()?.map(Policy::as_str).map(str::to_owned)),
    ];
    let Some((program, arguments)) = args.command.split_first() else { return Ok(Exit::Usage) };
    let set = variables.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let error = Command::new(program).args(arguments).envs(set).exec();
    // Still here: it did not become the command.
    output::say(&format!("{}: {error}", program.display()));
    Ok(if error.kind() == ErrorKind::NotFound { Exit::NoCommand } else { Exit::CannotRun })
}
