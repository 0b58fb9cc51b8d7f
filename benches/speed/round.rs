//! Rounds: every point once, in turns, then again. What is slow for a while is so for all ways.

use std::collections::BTreeMap;
use std::time::Duration;

use batonfs::words::{Key, SessionId};

use super::Result;
use super::place::{self, SESSION};
use super::sites::Sites;
use super::way::{self, Way};
use super::writer::{self, Started, Work};

/// What is measured.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How often.
    pub(crate) rounds: usize,
    /// How long each time.
    pub(crate) each: Duration,
    /// With how many writers.
    pub(crate) writers: Vec<usize>,
    /// Of values of so many bytes.
    pub(crate) sizes: Vec<usize>,
}

/// A way under one load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Load {
    /// Bytes of a value.
    pub(crate) bytes: usize,
    /// Writers at one time, each with its own key.
    pub(crate) writers: usize,
    /// How they write.
    pub(crate) way: Way,
}

/// What was measured of it, a figure a round.
#[derive(Debug, Default)]
pub(crate) struct Point {
    /// Cycles a second, of all writers together.
    pub(crate) per_s: Vec<f64>,
    /// The middle of the steps that make a cycle durable.
    pub(crate) p50_us: Vec<f64>,
    /// All but one in a hundred are faster.
    pub(crate) p99_us: Vec<f64>,
    /// How long processors worked for a cycle, whoever for: writers, daemon and kernel.
    pub(crate) worked_us: Vec<f64>,
}

/// All that was measured.
pub(crate) type Points = BTreeMap<Load, Point>;

/// Measures all points in turns, and tells which round it is.
pub(crate) fn run(sites: &Sites, plan: &Plan, tell: &mut dyn FnMut(&str)) -> Result<Points> {
    let mut points = Points::new();
    if !sites.has(Way::Mount) {
        tell("there is no /dev/fuse here: the mount is not measured");
    }
    for round in 0..plan.rounds {
        tell(&format!("round {} of {}", round + 1, plan.rounds));
        for &bytes in &plan.sizes {
            for &writers in &plan.writers {
                for way in Way::ALL.into_iter().filter(|&way| sites.has(way)) {
                    let load = Load { bytes, writers, way };
                    let before = worked()?;
                    let work = measure(sites, load, plan.each)?;
                    points.entry(load).or_default().add(work, worked()?.saturating_sub(before));
                    place::go_on()?;
                }
            }
        }
    }
    Ok(points)
}

fn measure(sites: &Sites, load: Load, each: Duration) -> Result<Vec<Work>> {
    if load.way == Way::Library {
        return in_threads(sites, load, each);
    }
    let session = sites.session(load.way)?;
    let start = |number| Started::new(load.way, &session, number, load.bytes, each);
    let mut started = (0..load.writers).map(start).collect::<Result<Vec<_>>>()?;
    started.iter_mut().try_for_each(Started::ready)?;
    started.iter_mut().try_for_each(Started::begin)?;
    started.into_iter().map(Started::done).collect()
}

fn in_threads(sites: &Sites, load: Load, each: Duration) -> Result<Vec<Work>> {
    let (store, bytes) = (sites.store(), vec![b'v'; load.bytes]);
    let session = SessionId::parse(SESSION)?;
    let keys = (0..load.writers).map(|number| Ok(Key::literal(&writer::key(number))?)).collect::<Result<Vec<_>>>()?;
    keys.iter().try_for_each(|key| sites.prepare_library(key.as_str(), &bytes))?;
    let work = |key| {
        let cycle = || way::through_the_store(store, &session, key, &bytes);
        writer::work(each, cycle).map_err(|e| e.to_string())
    };
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = keys.iter().map(|key| scope.spawn(move || work(key))).collect();
        let done = threads.into_iter().map(|thread| Ok(thread.join().map_err(|_| "a writer panicked")??));
        done.collect()
    })
}

impl Point {
    fn add(&mut self, work: Vec<Work>, worked: Duration) {
        let cycles: usize = work.iter().map(|work| work.steps_us.len()).sum();
        self.worked_us.push(worked.as_secs_f64() * 1e6 / cycles as f64);
        self.per_s.push(work.iter().map(|work| work.steps_us.len() as f64 / work.took_s).sum());
        let mut steps: Vec<f64> = work.into_iter().flat_map(|work| work.steps_us).collect();
        steps.sort_by(f64::total_cmp);
        let at = |part: f64| steps.get((steps.len().saturating_sub(1) as f64 * part) as usize).copied().unwrap_or(0.0);
        self.p50_us.push(at(0.5));
        self.p99_us.push(at(0.99));
    }
}

/// How long the machine's processors have worked since it started: the system's count of ticks that were not idle.
fn worked() -> Result<Duration> {
    let counts = std::fs::read_to_string("/proc/stat")?;
    let all = counts.lines().next().and_then(|line| line.strip_prefix("cpu ")).ok_or("/proc/stat has no line 'cpu'")?;
    // user, nice, system, idle, iowait, irq, softirq; what comes after is others' or counted before.
    let ticks =
        all.split_ascii_whitespace().take(7).map(str::parse::<u64>).collect::<std::result::Result<Vec<_>, _>>()?;
    let busy: u64 = ticks.iter().enumerate().filter(|(field, _)| !matches!(field, 3 | 4)).map(|(_, ticks)| ticks).sum();
    Ok(Duration::from_secs_f64(busy as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// The middle of some figures; of an even number the mean of the two in the middle.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.wrapping_sub(1)), at(middle)) }
}

/// The word for so many writers.
pub(crate) fn writers(number: usize) -> &'static str {
    if number == 1 { "writer" } else { "writers" }
}

/// How many times as many a second as the four-fsync directory: the median of the ratios within a round.
pub(crate) fn ratio(points: &Points, load: Load) -> Option<f64> {
    let (of, to) = (points.get(&load)?, points.get(&Load { way: Way::Directory, ..load })?);
    let ratios: Vec<f64> = of.per_s.iter().zip(&to.per_s).map(|(of, to)| of / to).collect();
    Some(median(&ratios))
}
