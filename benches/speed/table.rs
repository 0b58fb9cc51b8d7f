//! The results as text and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Result;
use super::aims::{self, Row};
use super::round::{self, Load, Points, median};
use super::way::Way;
use super::where_time_goes::Parts;

/// What a run was.
#[derive(Debug)]
pub(crate) struct About {
    /// What is below.
    pub(crate) file_system: String,
    /// How much longer its flushes take than those of memory, where that was asked for.
    pub(crate) sync_ms: Option<f64>,
    /// How many the machine has.
    pub(crate) processors: usize,
    /// Built to be fast.
    pub(crate) optimized: bool,
    /// How often every point was measured.
    pub(crate) rounds: usize,
    /// And for how long each time.
    pub(crate) seconds: f64,
}

impl About {
    /// In one line.
    pub(crate) fn line(&self) -> String {
        let Self { file_system, processors, rounds, seconds, .. } = self;
        let syncs = self.sync_ms.map_or_else(String::new, |ms| format!(" in memory, flushes take {ms} ms longer"));
        let build = if self.optimized { "" } else { ", DEBUG BUILD" };
        let of = if *rounds == 1 { "one round".to_owned() } else { format!("medians of {rounds} rounds") };
        format!("{file_system}{syncs}, {processors} processors, {of} of {seconds} s a point{build}")
    }
}

/// A number of bytes as people say it.
pub(crate) fn size(bytes: usize) -> String {
    if bytes >= 1024 && bytes.is_multiple_of(1024) { format!("{} KiB", bytes / 1024) } else { format!("{bytes} B") }
}

/// A table, a line a point.
pub(crate) fn text(points: &Points) -> String {
    let mut text = format!(
        "commits/s: open, write and close of a value, of all writers together; x: against the four-fsync directory\n\
         p50, p99:  microseconds from the last byte written until the value is durable (on a mount: the close)\n\
         worked:    microseconds that processors worked for one, of writers, daemon and kernel together\n\n\
         {:>7} {:>7}  {:<22}{:>10}{:>8}{:>10}{:>10}{:>10}\n",
        "value", "writers", "", "commits/s", "x", "p50", "p99", "worked"
    );
    let mut before = None;
    for (load, point) in points {
        let group = (load.bytes, load.writers);
        let first = before.replace(group) != Some(group);
        let (value, writers) =
            if first { (size(load.bytes), load.writers.to_string()) } else { (String::new(), String::new()) };
        if first {
            text.push('\n');
        }
        let name = match load.way {
            Way::Nothing => "do-nothing FUSE *",
            Way::OneSync => "one-sync FUSE **",
            way => way.name(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{value:>7} {writers:>7}  {name:<22}{:>10.0}{:>8.2}{:>10.0}{:>10.0}{:>10.0}",
            median(&point.per_s),
            round::ratio(points, *load).unwrap_or(f64::NAN),
            median(&point.p50_us),
            median(&point.p99_us),
            median(&point.worked_us)
        );
    }
    text.push_str(
        "\n*  keeps nothing: what the round trips of open, write and close cost alone\n\
         ** keeps the bytes by one sync for all that close, without name, writer or history, and is asked all that a mount is whose\n\
         \x20  values change behind it: none of those can do more here\n",
    );
    text
}

/// One object.
pub(crate) fn json(about: &About, points: &Points, parts: Option<&Parts>, rows: &[Row]) -> Result<String> {
    let point = |(load, point): (&Load, &round::Point)| {
        json!({
            "way": load.way.word(),
            "value_bytes": load.bytes,
            "writers": load.writers,
            "commits_per_s": median(&point.per_s),
            "against_directory": round::ratio(points, *load),
            "durable_step_p50_us": median(&point.p50_us),
            "durable_step_p99_us": median(&point.p99_us),
            "processors_worked_us": median(&point.worked_us),
            "rounds": {
                "commits_per_s": point.per_s, "p50_us": point.p50_us, "p99_us": point.p99_us, "worked_us": point.worked_us,
            },
        })
    };
    let object = json!({
        "file_system": about.file_system,
        "sync_ms": about.sync_ms,
        "processors": about.processors,
        "optimized": about.optimized,
        "rounds": about.rounds,
        "seconds_per_point": about.seconds,
        "where_a_commit_goes": parts.map(Parts::json),
        "aims": aims::json(rows),
        "points": points.iter().map(point).collect::<Vec<Value>>(),
    });
    Ok(serde_json::to_string_pretty(&object)?)
}
