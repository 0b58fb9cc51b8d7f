//! How many durable commits a second, and how long the step that makes one durable takes: through the mount, through
//! the library, and in a directory written as the neighbour writes it. Beside them a FUSE filesystem that does nothing,
//! for what the round trips alone cost. All on one file system, in turns, so that ratios within a run mean something.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "results are what it is for")]

mod nothing;
mod picture;
mod place;
mod round;
mod table;
mod way;
mod where_time_goes;
mod writer;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use place::Place;
use round::Plan;

/// What goes wrong here ends the run, in words.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measures durable commits: the mount and the library against a directory with four fsyncs a write
#[derive(Debug, Parser)]
#[command(name = "scripts/bench.sh", version)]
struct Args {
    /// How often every point is measured; results are medians
    #[arg(long, default_value = "5")]
    rounds: usize,
    /// How long each time
    #[arg(long, default_value = "1")]
    seconds: f64,
    /// One short round: shows that it works, measures nothing worth reading
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Numbers of writers
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,4,16,64")]
    writers: Vec<usize>,
    /// Sizes of values in bytes
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "1024,65536")]
    sizes: Vec<usize>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Where to work: the file system to measure [default: where temporary files go]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where to put the picture
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/commits.svg"))]
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
        [nothing::WORD, point] => nothing::serve(point.as_ref()),
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
    let plan = Plan {
        rounds,
        each: Duration::try_from_secs_f64(seconds)?,
        writers: args.writers.iter().map(|&writers| writers.max(1)).collect(),
        sizes: args.sizes.clone(),
    };
    let place = Place::make(args.dir.as_deref())?;
    let points = round::run(&place, &plan, &mut |doing| eprintln!("{doing}"))?;
    eprintln!("where a commit's time goes");
    let parts = where_time_goes::measure(&place.timed(), args.sizes.first().copied().unwrap_or(1024), plan.each)?;
    let about = table::About {
        file_system: place.file_system(),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        optimized: !cfg!(debug_assertions),
        rounds,
        seconds,
    };
    place.end()?;
    if args.json {
        println!("{}", table::json(&about, &points, &parts)?);
    } else {
        print!("{}{}", table::text(&about, &points), parts.text());
    }
    picture::draw(&args.picture, &about, &points)?;
    eprintln!("picture: {}", args.picture.display());
    Ok(())
}
