//! What is to be reached, and how far that is: a line of the table for each.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::round::{self, Load, Points, median};
use super::way::Way;

/// How the filesystem that does nothing is called.
pub(crate) const NOTHING: &str = "do-nothing FUSE";

/// Where a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Aim {
    /// Lower is better.
    AtMost(f64),
    /// Higher is better.
    AtLeast(f64),
}

/// Some work, what was measured of it, and the aim.
#[derive(Debug)]
pub(crate) struct Row {
    /// The work.
    pub(crate) what: String,
    /// Of the figures.
    pub(crate) unit: &'static str,
    /// On the mount, a figure a round.
    pub(crate) ours: Vec<f64>,
    /// What it is compared with, and its figures in the same rounds.
    pub(crate) against: Option<(String, Vec<f64>)>,
    /// Of the ratio; of our own figure where it is compared with nothing.
    pub(crate) aim: Aim,
}

impl Row {
    /// The median of the ratios within a round.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let (_, against) = self.against.as_ref()?;
        let ratios: Vec<f64> = self.ours.iter().zip(against).map(|(ours, against)| ours / against).collect();
        Some(median(&ratios))
    }

    /// What the aim is about: the ratio, or our own figure where it is compared with nothing.
    pub(crate) fn figure(&self) -> f64 {
        self.ratio().unwrap_or_else(|| median(&self.ours))
    }

    /// What of the room that the aim gives is used: up to 1 it is reached.
    pub(crate) fn used(&self) -> f64 {
        match self.aim {
            Aim::AtMost(most) => self.figure() / most,
            Aim::AtLeast(least) => least / self.figure(),
        }
    }

    /// Is it where it has to be?
    pub(crate) fn is_reached(&self) -> bool {
        self.used() <= 1.0
    }

    /// The aim in words.
    pub(crate) fn aim_words(&self) -> String {
        let (sign, figure) = match self.aim {
            Aim::AtMost(most) => ("<=", most),
            Aim::AtLeast(least) => (">=", least),
        };
        let unit = if self.against.is_some() { "x".to_owned() } else { format!(" {}", self.unit) };
        format!("{sign} {figure}{unit}")
    }
}

/// The aims for durable commits, where their points were measured.
pub(crate) fn of_commits(points: &Points) -> Vec<Row> {
    let row = |writers, least| {
        let load = Load { bytes: 1024, writers, way: Way::Mount };
        let (ours, against) = (points.get(&load)?, points.get(&Load { way: Way::Directory, ..load })?);
        Some(Row {
            what: format!("durable 1 KiB commits, {writers} {}", round::writers(writers)),
            unit: "/s",
            ours: ours.per_s.clone(),
            against: Some((Way::Directory.name().to_owned(), against.per_s.clone())),
            aim: Aim::AtLeast(least),
        })
    };
    [row(1, 4.0), row(16, 3.0)].into_iter().flatten().collect()
}

/// A figure with as many digits as mean something.
pub(crate) fn digits(figure: f64) -> String {
    match figure {
        _ if figure < 10.0 => format!("{figure:.2}"),
        _ if figure < 100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

/// A table, a line a row.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "aims: the ratio is the median of those within a round, or our own figure where nothing is compared\n\n\
         {:<46}{:>9}{:>9} {:<6}{:>8}  {:<11}\n",
        "", "mount", "against", "", "ratio", "aim"
    );
    for row in rows {
        let (name, against) =
            row.against.as_ref().map_or(("", String::new()), |(name, against)| (name, digits(median(against))));
        let ratio = row.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let reached = if row.is_reached() { "reached" } else { "missed" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<46}{:>9}{against:>9} {:<6}{ratio:>8}  {:<11}{reached:<9}{name}",
            row.what,
            digits(median(&row.ours)),
            row.unit,
            row.aim_words(),
        );
    }
    text
}

/// An array, an object a row.
pub(crate) fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let (aim, than) = match row.aim {
            Aim::AtMost(most) => (most, "at most"),
            Aim::AtLeast(least) => (least, "at least"),
        };
        json!({
            "what": row.what,
            "unit": row.unit,
            "mount": median(&row.ours),
            "against": row.against.as_ref().map(|(name, figures)| json!({ "what": name, "figure": median(figures) })),
            "ratio": row.ratio(),
            "aim": { "is": than, "figure": aim },
            "reached": row.is_reached(),
            "rounds": { "mount": row.ours, "against": row.against.as_ref().map(|(_, figures)| figures) },
        })
    };
    rows.iter().map(row).collect()
}
