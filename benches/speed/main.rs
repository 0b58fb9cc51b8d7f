//! How fast it is. How many durable commits a second, and how long the step that makes one durable takes: through the
//! mount, through the library, and in a directory written as the neighbour writes it. Then reading, large values, appends,
//! listings and large stores, against a plain directory or a FUSE filesystem that does nothing, for what the round trips
//! alone cost. All on one file system, in turns, so that ratios within a run mean something.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "results are what it is for")]

mod aims;
mod mount;
mod nothing;
mod picture;
mod place;
mod round;
mod shared_sync;
mod sites;
mod slow_disk;
mod table;
mod way;
mod where_time_goes;
mod work;
mod writer;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use place::Place;
use round::{Plan, Points};
use sites::Sites;
use slow_disk::SlowDisk;
use where_time_goes::Parts;
use work::Part;

/// What goes wrong here ends the run, in words.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measures the mount: durable commits against a directory with four fsyncs a write, other work against plain files and
/// a FUSE filesystem that does nothing
#[derive(Debug, Parser)]
#[command(name = "scripts/bench.sh", version)]
struct Args {
    /// What is measured [default: all but million]
    #[arg(long, value_name = "PART", value_delimiter = ',', value_enum, hide_default_value = true, default_values_t = Part::USUAL)]
    parts: Vec<Part>,
    /// How often every point is measured; results are medians
    #[arg(long, default_value = "5")]
    rounds: usize,
    /// How long each time
    #[arg(long, default_value = "1")]
    seconds: f64,
    /// One short round of small sizes: shows that it works, measures nothing worth reading
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Numbers of writers that commit
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,4,16,64")]
    writers: Vec<usize>,
    /// Sizes in bytes of the values they commit
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "1024,65536")]
    sizes: Vec<usize>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Where to work: the file system to measure [default: where temporary files go]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Measure commits on a disk in memory whose flushes take so many milliseconds longer, instead (needs root)
    #[arg(long, value_name = "MS", conflicts_with_all = ["dir", "parts"])]
    sync_ms: Option<f64>,
    /// Where to put the picture
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/speed.svg"))]
    picture: PathBuf,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [writer::WORD, rest @ ..] => writer::run(rest),
        [nothing::WORD, point, keys] => nothing::serve(point.as_ref(), keys, None),
        [slow_disk::WORD, point, sync_ms] => slow_disk::serve(point.as_ref(), sync_ms),
        [nothing::WORD, point, keys, kept] => nothing::serve(point.as_ref(), keys, Some(kept.as_ref())),
        _ => measure(&Args::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if place::interrupted() => ExitCode::from(130),
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<()> {
    place::note_interrupts();
    let (rounds, seconds) = if args.quick { (1, 0.02) } else { (args.rounds.max(1), args.seconds) };
    let each = Duration::try_from_secs_f64(seconds)?;
    let around = Place::make(args.dir.as_deref())?;
    let disk = match args.sync_ms {
        Some(ms) => Some(SlowDisk::make(&around, slow_disk::milliseconds(ms)?)?),
        None => None,
    };
    let place = Place::make(Some(disk.as_ref().map_or(around.path(), SlowDisk::dir)))?;
    let parts_asked = if disk.is_some() { &[Part::Commits] } else { args.parts.as_slice() };
    let (mut points, mut parts, mut rows) = (Points::new(), None, Vec::new());
    if parts_asked.contains(&Part::Commits) {
        (points, parts) = commits(args, &place, rounds, each).map(|(points, parts)| (points, Some(parts)))?;
        rows = aims::of_commits(&points);
    }
    rows.extend(other_work(args, parts_asked, &place, rounds, each)?);
    let about = table::About {
        file_system: place.file_system(),
        sync_ms: args.sync_ms,
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        optimized: !cfg!(debug_assertions),
        rounds,
        seconds,
    };
    place.end()?;
    disk.map_or(Ok(()), SlowDisk::end)?;
    around.end()?;
    if args.json {
        println!("{}", table::json(&about, &points, parts.as_ref(), &rows)?);
    } else {
        println!("{}\n", about.line());
        if let Some(parts) = &parts {
            println!("{}{}", table::text(&points), parts.text());
        }
        print!("{}", aims::text(&rows));
    }
    picture::draw(&args.picture, &about, &points, &rows)?;
    eprintln!("picture: {}", args.picture.display());
    Ok(())
}

fn commits(args: &Args, place: &Place, rounds: usize, each: Duration) -> Result<(Points, Parts)> {
    let plan = Plan {
        rounds,
        each,
        writers: args.writers.iter().map(|&writers| writers.max(1)).collect(),
        sizes: args.sizes.clone(),
    };
    let sites = Sites::make(place)?;
    let points = round::run(&sites, &plan, &mut |doing| eprintln!("{doing}"))?;
    sites.end()?;
    eprintln!("where a commit's time goes");
    let bytes = args.sizes.first().copied().unwrap_or(1024);
    Ok((points, where_time_goes::measure(&place.dir("timed")?, bytes, each)?))
}

/// What is measured on mounts alone.
fn other_work(args: &Args, parts: &[Part], place: &Place, rounds: usize, each: Duration) -> Result<Vec<aims::Row>> {
    let plan = if args.quick { work::Plan::small(rounds, each) } else { work::Plan::full(rounds, each) };
    let parts: Vec<Part> = parts.iter().copied().filter(|&part| part != Part::Commits).collect();
    if !parts.is_empty() && !Place::mounts() {
        eprintln!("there is no /dev/fuse here: commits alone are measured");
        return Ok(Vec::new());
    }
    let mut rows = Vec::new();
    for part in parts {
        eprintln!("{}", part.doing());
        rows.extend(work::measure(part, place, &plan)?);
    }
    Ok(rows)
}
