//! `batonfs why`: the words behind the last errno that a writer was given, and what can be done.

use serde::Serialize;

use super::options::{self, CallerArgs, StoreArg};
use super::{Ended, Exit, output, table};
use crate::committer::{Refusal, RefusalKind, Refused, Reply, Request, ask_daemon};
use crate::fuse::errno;
use crate::words::{SessionId, Writer};

/// Say why the last write of a writer, or of this user, was refused by the mount
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    /// Only in this session
    #[arg(value_name = "SESSION")]
    session: Option<String>,
    #[command(flatten)]
    caller: CallerArgs,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// A refusal, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Why<'a> {
    session_id: &'a SessionId,
    time_ms: u64,
    op: &'a str,
    key: &'a str,
    errno: i32,
    words: &'a str,
    writer: &'a Writer,
    uid: Option<u32>,
    hint: Option<&'static str>,
}

pub(super) fn run(args: &Args) -> Ended {
    let root = args.store.root()?;
    let session = args.session.as_deref().map(options::session).transpose()?;
    let call = args.caller.call(Request::Why { session })?;
    let refused = match ask_daemon(&root, &call, &mut |_| {})? {
        Some(Reply::Refusal(Some(refused))) => refused,
        Some(Reply::Refusal(None)) => return Err(none(args)),
        Some(reply) => return Err(options::unexpected(&reply)),
        None => {
            let words =
                format!("the store '{}' is not mounted: refusals are kept by a mount, in memory", root.display());
            return Err(Refusal::new(RefusalKind::NotFound, words));
        }
    };
    if args.json {
        json(&refused)?
    } else {
        lines(&refused)?
    }
    Ok(Exit::Done)
}

fn none(args: &Args) -> Refusal {
    let place = args.session.as_deref().map(|session| format!(" in session '{session}'")).unwrap_or_default();
    let words = format!("nothing was refused to this writer{place} since the store was mounted");
    Refusal::new(RefusalKind::NotFound, words)
        .with_hint("--writer-id or BATON_WRITER_ID says which writer; without them it is this user")
}

fn json(refused: &Refused) -> Result<(), Refusal> {
    let Refused { session_id, time_ms, op, key, errno: number, words, writer, uid } = refused;
    let (time_ms, errno, uid, hint) = (*time_ms, *number, *uid, errno::hint(*number));
    output::json(&Why { session_id, time_ms, op, key, errno, words, writer, uid, hint })
}

fn lines(refused: &Refused) -> Result<(), Refusal> {
    output::data(|to| {
        writeln!(to, "{}", output::plain(&refused.words))?;
        let path = output::plain(&format!("{}/{}", refused.session_id, refused.key));
        let error = std::io::Error::from_raw_os_error(refused.errno);
        let (time, writer) = (table::time(refused.time_ms), table::writer(&refused.writer));
        writeln!(to, "{} of {path} by '{writer}' at {time}: {error}", refused.op)?;
        errno::hint(refused.errno).map_or(Ok(()), |hint| writeln!(to, "hint: {hint}"))
    })
}
