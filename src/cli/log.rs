//! `batonfs log`: what happened in a session, a line for each change, also as it happens.

use super::looking::{Changes, look_until};
use super::options::{SessionArg, StoreArg};
use super::table::Style;
use super::{Ended, Exit, options, output};
use crate::committer::{Refusal, Wanted, Watch};
use crate::engine::local::log_place;
use crate::words::record::now_ms;
use crate::words::{LogLine, Seq};

/// Show the changes of a session, oldest first
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    session: SessionArg,
    /// Only those of this key
    #[arg(value_name = "KEY")]
    key: Option<String>,
    /// Go on as they happen, until it is ended
    #[arg(long)]
    follow: bool,
    /// Only those by the writer of this id
    #[arg(long, value_name = "ID")]
    writer: Option<String>,
    /// Only those from a time on (2026-11-22T10:00:00Z), of the last 10m, 2h30m or 3d, or after a sequence number
    #[arg(long, value_name = "TIME|SEQ", value_parser = since)]
    since: Option<Since>,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

/// From where on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// After this change.
    Change(Seq),
    /// From this time on, in milliseconds since 1970.
    TimeMs(u64),
}

pub(super) fn run(args: &Args) -> Ended {
    let root = args.store.root()?;
    let session = args.session.id()?;
    let key = args.key.as_deref().map(options::key).transpose()?;
    let (upto, since_ms) = match args.since {
        None => (0, None),
        Some(Since::Change(seq)) => (seq, None),
        Some(Since::TimeMs(ms)) => (0, Some(ms)),
    };
    let wanted = Wanted { key, writer: args.writer.clone(), since_ms };
    let mut changes = Changes::new(&root, &session, wanted, upto);
    let mut shown = Shown { json: args.json, style: Style::of_stdout(), headed: args.json };
    let mut look = || changes.each(|lines| shown.lines(&lines));
    if !args.follow {
        look()?;
        return Ok(Exit::Done);
    }
    // Only the end of its reader ends it.
    look_until(Watch::new(&root, log_place(&session)), None, true, || Ok((!look()?).then_some(())))?;
    Ok(Exit::Done)
}

/// What was shown.
struct Shown {
    json: bool,
    style: Style,
    /// The heads of the columns were. They come with the first line, so that a refusal shows nothing.
    headed: bool,
}

impl Shown {
    /// `false` when nobody reads any more.
    fn lines(&mut self, lines: &[LogLine]) -> Result<bool, Refusal> {
        if self.json {
            return output::json_lines(lines);
        }
        let headed = std::mem::replace(&mut self.headed, true);
        output::still(|to| {
            if !headed {
                self.style.head(false, to)?;
            }
            lines.iter().try_for_each(|line| self.style.change(line, None, to))
        })
    }
}

fn since(raw: &str) -> Result<Since, String> {
    if let Ok(seq) = raw.parse() {
        return Ok(Since::Change(seq));
    }
    let ms = match raw.parse::<jiff::Timestamp>() {
        Ok(time) => u64::try_from(time.as_millisecond()).unwrap_or(0),
        Err(_) => now_ms().saturating_sub(ago_ms(raw).ok_or(SINCE)?),
    };
    Ok(Since::TimeMs(ms))
}

const SINCE: &str = "a time with its offset (2026-11-22T10:00:00Z), a duration (10m, 2h30m, 3d) or a sequence number";

fn ago_ms(raw: &str) -> Option<u64> {
    let span: jiff::Span = raw.parse().ok()?;
    let ago = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    u64::try_from(ago.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_number_a_time_or_a_duration() {
        assert_eq!(since("17"), Ok(Since::Change(17)));
        assert_eq!(since("1970-01-01T00:01:00Z"), Ok(Since::TimeMs(60_000)));
        assert_eq!(since("1970-01-01T01:01:00.5+01:00"), Ok(Since::TimeMs(60_500)));
        assert_eq!(since("1960-01-01T00:00:00Z"), Ok(Since::TimeMs(0)));
        for (raw, ago) in [("10m", 600_000), ("1h 30m", 5_400_000), ("2d", 172_800_000), ("90 seconds", 90_000)] {
            assert_eq!(ago_ms(raw), Some(ago), "{raw}");
        }
    }

    #[test]
    fn what_is_none_of_them_is_refused_in_words() {
        for raw in ["", "yesterday", "-10m", "2026-11-22", "2026-11-22T10:00:00", "10", "1y", "-3", "9e9"] {
            match since(raw) {
                Ok(Since::Change(10)) if raw == "10" => {}
                other => assert_eq!(other, Err(SINCE.to_owned()), "{raw}"),
            }
        }
    }
}
