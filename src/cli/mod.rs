//! The human's door: one file a command, one table of exit codes. Knows no rule of a store and no kernel request.
#![doc = include_str!("CONTRACT.md")]

mod delete;
mod diff;
mod exit;
mod handoff;
mod handoffs;
mod history;
mod init;
mod list;
mod log;
mod looking;
mod mount;
mod mounts;
mod options;
mod output;
mod policy;
mod read;
mod restore;
mod resume;
mod run;
mod status;
mod table;
mod umount;
mod verify;
mod wait;
mod why;
mod write;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

pub use exit::Exit;

use crate::committer::Refusal;

/// How a command ends: an exit, or a refusal with its words.
type Ended = Result<Exit, Refusal>;

/// The state of software agents as files: whole, durable, attributed writes.
#[derive(Debug, Parser)]
#[command(name = "batonfs", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 conflict, 4 not found, 5 invalid handoff, \
     6 store damaged, 7 in use, 8 timed out.\nWho writes: --writer-id and its like, else BATON_WRITER_ID, BATON_STAGE_ID, \
     BATON_WORKER_ID, BATON_SESSION_ID; how strict: --conflict-policy, BATON_CONFLICT_POLICY.";

#[derive(Debug, Subcommand)]
enum Command {
    Mount(mount::Args),
    Umount(umount::Args),
    Run(run::Args),
    Init(init::Args),
    Resume(resume::Args),
    Read(read::Args),
    Write(write::Args),
    Delete(delete::Args),
    List(list::Args),
    Handoff(handoff::Args),
    Log(log::Args),
    History(history::Args),
    Diff(diff::Args),
    Restore(restore::Args),
    Wait(wait::Args),
    Why(why::Args),
    Handoffs(handoffs::Args),
    Policy(policy::Args),
    Status(status::Args),
    Verify(verify::Args),
}

/// The whole of a command: reads the arguments, does it, says why not.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage(&e).into(),
    };
    let ended = match &cli.command {
        Command::Mount(args) => mount::run(args),
        Command::Umount(args) => umount::run(args),
        Command::Run(args) => run::run(args),
        Command::Init(args) => init::run(args),
        Command::Resume(args) => resume::run(args),
        Command::Read(args) => read::run(args),
        Command::Write(args) => write::run(args),
        Command::Delete(args) => delete::run(args),
        Command::List(args) => list::run(args),
        Command::Handoff(args) => handoff::run(args),
        Command::Log(args) => log::run(args),
        Command::History(args) => history::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Restore(args) => restore::run(args),
        Command::Wait(args) => wait::run(args),
        Command::Why(args) => why::run(args),
        Command::Handoffs(args) => handoffs::run(args),
        Command::Policy(args) => policy::run(args),
        Command::Status(args) => status::run(args),
        Command::Verify(args) => verify::run(args),
    };
    ended.unwrap_or_else(|refusal| refused(&refusal)).into()
}

fn refused(refusal: &Refusal) -> Exit {
    output::refuse(refusal);
    refusal.kind.into()
}

/// Help that was asked for is data; a wrong argument is a refusal, with our name before it instead of `error:`.
fn usage(error: &clap::Error) -> Exit {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return output::data(|to| to.write_all(text.as_bytes())).map_or_else(|e| refused(&e), |()| Exit::Done);
    }
    output::say(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
    Exit::Usage
}
