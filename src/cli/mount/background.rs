//! A daemon of its own: this program again, in a session of its own, with a pipe by which it says whether it serves.

use std::ffi::{CStr, OsString};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::super::{Ended, Exit, output};
use super::checks::Plan;
use super::{daemon, log};
use crate::committer::{Place, Refusal, client};
use crate::engine::Recovery;

/// What the daemon says: how far it is, and at last one of the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    /// It serves.
    Ready,
    /// It could not.
    Refused(Refusal),
    /// Not yet: the store has to be recovered first.
    Recovering(Recovery),
}

/// Starts the daemon and returns when it serves.
pub(super) fn start(plan: &Plan) -> Ended {
    let mut child = spawn(plan)?;
    match listen(&mut child) {
        Ok(Some(Said::Ready | Said::Recovering(_))) => Ok(Exit::Done),
        Ok(Some(Said::Refused(refusal))) => Err(refusal),
        Ok(None) => {
            let how = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
            Err(Refusal::failed("the daemon ended before it served", how)
                .with_hint(format!("its log is '{}'", plan.log.display())))
        }
        Err(e) => Err(Refusal::failed("listening to the daemon", e)),
    }
}

fn spawn(plan: &Plan) -> Result<Child, Refusal> {
    Place::make(&plan.root).map_err(|e| client::cannot_open(&plan.root, e))?;
    let log =
        log::open(&plan.log).map_err(|e| Refusal::failed(format!("opening the log '{}'", plan.log.display()), e))?;
    // The arguments as they were given, in the same directory: they mean the same. `mount` is the first of them.
    let arguments = std::env::args_os().skip(2);
    let mut command = Command::new("/proc/self/exe");
    command.arg0("batonfs").arg("mount").arg("--daemon").args(arguments.collect::<Vec<OsString>>());
    inherit_nothing();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    command.spawn().map_err(|e| Refusal::failed("starting the daemon", e))
}

/// A lock or a pipe that a shell has open would stay locked or open for as long as the daemon lives.
fn inherit_nothing() {
    let (first, last) = (3, libc::c_uint::MAX);
    // SAFETY: closes nothing, only marks what is open to be closed at exec; no memory is passed. Older kernels that
    // lack the call refuse it, and pass on what was passed on before.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
}

fn listen(child: &mut Child) -> io::Result<Option<Said>> {
    let Some(stdout) = child.stdout.take() else { return Ok(None) };
    let mut said = String::new();
    let mut lines = BufReader::new(stdout);
    loop {
        said.clear();
        lines.read_line(&mut said)?;
        match serde_json::from_str(&said).ok() {
            Some(Said::Recovering(how_far)) => output::recovery(&how_far),
            last => return Ok(last),
        }
    }
}

/// What people see in a list of processes, where it would be `exe`.
const NAME: &CStr = c"batonfs";

/// Is the daemon: finds its plan, serves, and tells who started it.
pub(super) fn be_daemon(plan: impl FnOnce() -> Result<Plan, Refusal>) -> Ended {
    let _ = rustix::thread::set_name(NAME);
    let served = plan().and_then(|plan| {
        detach().map_err(|e| Refusal::failed("leaving the terminal", e))?;
        daemon::serve(&plan, Some(&plan.log), &tell, || say(&Said::Ready))
    });
    match served {
        Ok(()) => Ok(Exit::Done),
        Err(refusal) => {
            let exit = refusal.kind.into();
            output::refuse(&refusal);
            let _ = say(&Said::Refused(refusal));
            Ok(exit)
        }
    }
}

/// Away from the terminal and from every directory that somebody may want to unmount.
fn detach() -> io::Result<()> {
    // Fails only for the leader of a process group, which has a session of its own already or wants its terminal.
    let _ = rustix::process::setsid();
    std::env::set_current_dir(Path::new("/"))
}

/// Into the log, and to who started it.
fn tell(how_far: &Recovery) {
    if !matches!(how_far, Recovery::Over { .. }) {
        tracing::info!("{how_far}");
    }
    // Who has gone meanwhile is met where it is told that the mount serves.
    let _ = say(&Said::Recovering(*how_far));
}

/// Says a line; nobody listens after the last.
fn say(said: &Said) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, said)?;
    writeln!(stdout)?;
    stdout.flush()
}
