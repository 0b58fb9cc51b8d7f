//! What is measured beside commits, each against what it has to reach.

mod among;
mod append;
pub(crate) mod fill;
mod large;
mod listing;
mod reading;
mod sessions;

use std::time::Duration;

use clap::ValueEnum;

use super::aims::Row;
use super::place::{self, Place};
use super::round::median;
use super::{Result, writer};

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Durable commits a second
    Commits,
    /// Opening, reading and closing a small value
    Read,
    /// A large value: written, read, and what memory that takes
    Large,
    /// Appending to a large value
    Append,
    /// Listing many keys
    List,
    /// Mounting a store of many sessions
    Sessions,
    /// A commit among a million keys: takes long to prepare
    Million,
}

impl Part {
    /// Those of a run for which none are named.
    pub(crate) const USUAL: [Self; 6] =
        [Self::Commits, Self::Read, Self::Large, Self::Append, Self::List, Self::Sessions];

    /// What happens meanwhile, for people.
    pub(crate) fn doing(self) -> &'static str {
        match self {
            Self::Commits => "commits",
            Self::Read => "reading a small value",
            Self::Large => "a large value",
            Self::Append => "appending",
            Self::List => "listing many keys",
            Self::Sessions => "mounting a store of many sessions",
            Self::Million => "a commit among many keys",
        }
    }
}

/// How much of everything.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How often each figure is taken.
    pub(crate) rounds: usize,
    /// For how long, where something is done again and again.
    pub(crate) each: Duration,
    /// Of a value that is written and read.
    pub(crate) large_mib: usize,
    /// Of a value that is appended to.
    pub(crate) appended_mib: usize,
    /// In a directory that is listed; then in one with ten times as many.
    pub(crate) listed: usize,
    /// Of a store that is mounted, each with [`Plan::keys`].
    pub(crate) sessions: usize,
    /// Of each of those sessions.
    pub(crate) keys: usize,
    /// Among which a commit is made; then among a thousandth of them.
    pub(crate) among: usize,
}

impl Plan {
    /// What the aims are about.
    pub(crate) fn full(rounds: usize, each: Duration) -> Self {
        Self {
            rounds,
            each,
            large_mib: 256,
            appended_mib: 64,
            listed: 10_000,
            sessions: 10_000,
            keys: 100,
            among: 1_000_000,
        }
    }

    /// Shows that it works.
    pub(crate) fn small(rounds: usize, each: Duration) -> Self {
        Self { rounds, each, large_mib: 8, appended_mib: 1, listed: 20, sessions: 20, keys: 5, among: 1000 }
    }
}

/// Measures a part that is not commits.
pub(crate) fn measure(part: Part, place: &Place, plan: &Plan) -> Result<Vec<Row>> {
    match part {
        Part::Commits => Ok(Vec::new()),
        Part::Read => reading::measure(place, plan),
        Part::Large => large::measure(place, plan),
        Part::Append => append::measure(place, plan),
        Part::List => listing::measure(place, plan),
        Part::Sessions => sessions::measure(place, plan),
        Part::Million => among::measure(place, plan),
    }
}

/// Takes figures in turns: each once, then again. What is slow for a while is so for all.
fn in_turns<const N: usize>(rounds: usize, mut takers: [&mut dyn FnMut() -> Result<f64>; N]) -> Result<[Vec<f64>; N]> {
    let mut figures = [const { Vec::new() }; N];
    for _ in 0..rounds {
        for (figures, take) in figures.iter_mut().zip(&mut takers) {
            figures.push(take()?);
            place::go_on()?;
        }
    }
    Ok(figures)
}

/// The middle of what something takes that is done for a while, in microseconds.
fn middle_us(each: Duration, mut act: impl FnMut() -> Result<()>) -> Result<f64> {
    let timed = || {
        let start = std::time::Instant::now();
        act()?;
        Ok(start.elapsed())
    };
    Ok(median(&writer::work(each, timed)?.steps_us))
}
