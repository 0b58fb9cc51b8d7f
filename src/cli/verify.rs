//! `batonfs verify`: what of a store is not as the rules say, and what can be done about it.

use std::io::Write;
use std::time::{Duration, Instant};

use super::options::StoreArg;
use super::output::plain;
use super::{Ended, Exit, output};
use crate::committer::{Reply, verify};
use crate::engine::{Checked, Finding, Report};

/// A check that lasts longer than this shows how far it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// Check everything in a store against the rules of its format; mounted or not
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    /// Mend what can be mended without losing a committed byte, then check once more
    #[arg(long)]
    repair: bool,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Ended {
    let root = args.store.root()?;
    let began = Instant::now();
    let mut shown = false;
    let report = verify(&root, args.repair, &mut |reply| {
        if let Reply::Verifying(checked) = reply
            && began.elapsed() > PATIENCE
        {
            output::progress(Some(&format!("batonfs: {}", checked_words(checked))));
            shown = true;
        }
    });
    if shown {
        output::progress(None);
    }
    let report = report?;
    if args.json {
        output::json(&report)?
    } else {
        output::data(|to| lines(&report, to))?
    }
    Ok(if report.damaged { Exit::Damaged } else { Exit::Done })
}

fn lines(report: &Report, to: &mut dyn Write) -> std::io::Result<()> {
    for finding in &report.repaired {
        writeln!(to, "mended: {}", plain(&format!("{}: {} ({})", finding.place, finding.what, finding.rule)))?;
    }
    report.findings.iter().try_for_each(|finding| writeln!(to, "{}", line(finding)))?;
    if report.left_off > 0 {
        writeln!(to, "and {} more", report.left_off)?;
    }
    let (found, checked) = (report.findings.len() as u64 + report.left_off, checked_words(&report.checked));
    match found {
        0 => writeln!(to, "nothing found: {checked}"),
        1 => writeln!(to, "1 finding: {checked}"),
        found => writeln!(to, "{found} findings: {checked}"),
    }
}

fn line(finding: &Finding) -> String {
    let Finding { rule, place, what, remedy, harm, repairable } = finding;
    let mended = if *repairable { "; --repair does" } else { "" };
    plain(&format!("{}: {place}: {what} ({rule}); {remedy}{mended}", harm.as_str()))
}

fn checked_words(checked: &Checked) -> String {
    let Checked { sessions, keys, versions, bytes } = checked;
    let count = |n: &u64, what: &str| format!("{n} {what}{}", if *n == 1 { "" } else { "s" });
    let (sessions, keys) = (count(sessions, "session"), count(keys, "key"));
    format!("checked {sessions}, {keys}, {}, {}", count(versions, "version"), count(bytes, "byte"))
}
