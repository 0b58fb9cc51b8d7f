//! Changes as lines that people read. Scripts take `--json`.

use std::io::{IsTerminal, Write};

use super::output::plain;
use crate::words::{LogLine, Op, Process, Writer};

/// How lines look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    colours: bool,
}

const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

impl Style {
    /// In colours on a terminal, unless `NO_COLOR` says not to.
    pub(super) fn of_stdout() -> Self {
        let asked_not_to = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colours: std::io::stdout().is_terminal() && !asked_not_to }
    }

    fn paint(self, colour: &str, text: &str) -> String {
        if self.colours && !colour.is_empty() { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The heads of the columns; `kept` where there is one of it.
    pub(super) fn head(self, kept: bool, to: &mut dyn Write) -> std::io::Result<()> {
        let kept = if kept { "KEPT  " } else { "" };
        let head = format!(
            "{:>6}  {:<24}  {:<10}  {:>7}  {:>10}  {kept}{:<14}  {:<20}  KEY",
            "SEQ", "TIME", "OP", "VERSION", "SIZE", "WRITER", "PROCESS"
        );
        writeln!(to, "{}", self.paint(DIM, &head))
    }

    /// A change; `kept` tells whether the bytes of its version are there.
    pub(super) fn change(self, line: &LogLine, kept: Option<bool>, to: &mut dyn Write) -> std::io::Result<()> {
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let kept = kept.map_or("", |kept| if kept { "yes   " } else { "no    " });
        write!(to, "{:>6}  {}  ", line.seq, self.paint(DIM, &format!("{:<24}", time(line.time_ms))))?;
        write!(to, "{}  ", self.paint(colour(line.op), &format!("{:<10}", line.op.as_str())))?;
        write!(to, "{:>7}  {:>10}  {kept}", number(line.version), number(line.size_bytes))?;
        write!(to, "{:<14}  {:<20}  ", writer(&line.writer), process(line.process.as_ref()))?;
        // The path of a session itself is empty.
        write!(to, "{}", if line.key.is_empty() { ".".to_owned() } else { plain(&line.key) })?;
        if let Some(name) = &line.to {
            write!(to, " -> {}", plain(name))?;
        }
        if let Some(words) = &line.conflict {
            write!(to, "  {}", self.paint(RED, &format!("({})", plain(words))))?;
        }
        writeln!(to)
    }

    /// A line of a difference.
    pub(super) fn difference(self, line: &str, to: &mut dyn Write) -> std::io::Result<()> {
        let colour = match line.as_bytes() {
            [b'+', ..] => GREEN,
            [b'-', ..] => RED,
            [b'@', ..] => CYAN,
            _ => "",
        };
        let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
        write!(to, "{}{end}", self.paint(colour, text))
    }
}

fn colour(op: Op) -> &'static str {
    match op {
        Op::Put | Op::Append | Op::Adopt => GREEN,
        Op::Delete | Op::Rmdir | Op::Drop | Op::Refuse => RED,
        Op::Rename => YELLOW,
        Op::Mkdir | Op::Attributes | Op::Declare | Op::Policy => CYAN,
    }
}

/// A moment, in UTC, as `--since` takes it.
pub(super) fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{ms} ms"), |time| format!("{time:.3}"))
}

/// The name of a writer.
pub(super) fn writer(writer: &Writer) -> String {
    plain(writer.display_name())
}

fn process(process: Option<&Process>) -> String {
    let Some(process) = process else { return "-".to_owned() };
    let name = process.comm.as_deref().unwrap_or("?");
    plain(&format!("{name}[{}]", process.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_as_since_takes_it() {
        assert_eq!(time(1_795_332_960_007), "2026-11-22T07:36:00.007Z");
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(u64::MAX), format!("{} ms", u64::MAX));
    }

    #[test]
    fn colours_are_there_only_where_they_are_wanted() {
        let shown = |colours| {
            let mut to = Vec::new();
            Style { colours }.difference("+a\n", &mut to).unwrap();
            String::from_utf8(to).unwrap()
        };
        assert_eq!((shown(false).as_str(), shown(true).as_str()), ("+a\n", "\x1b[32m+a\x1b[0m\n"));
    }
}
