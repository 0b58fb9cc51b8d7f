//! One writer: cycles for a while, and what they took. A process of its own, but for the library, where it is a thread.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Result;
use super::way::{self, Way};

/// The first argument of a process that is a writer.
pub(crate) const WORD: &str = "writer";

/// What one writer did.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    /// How long it worked.
    pub(crate) took_s: f64,
    /// Of each cycle, the step that makes it durable.
    pub(crate) steps_us: Vec<f64>,
}

/// Cycles for about so long, at least one.
pub(crate) fn work(each: Duration, mut cycle: impl FnMut() -> Result<Duration>) -> Result<Work> {
    let (began, mut steps_us) = (Instant::now(), Vec::new());
    loop {
        steps_us.push(cycle()?.as_secs_f64() * 1e6);
        let took = began.elapsed();
        if took >= each {
            return Ok(Work { took_s: took.as_secs_f64(), steps_us });
        }
    }
}

/// The key of a writer.
pub(crate) fn key(number: usize) -> String {
    format!("key-{number}")
}

/// A writer that has been started and waits until all are there.
#[derive(Debug)]
pub(crate) struct Started(Child);

impl Started {
    /// Starts a process that will write its own key of a session.
    pub(crate) fn new(way: Way, session: &Path, number: usize, bytes: usize, each: Duration) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(WORD).arg(way.word()).arg(session).arg(key(number));
        command.arg(bytes.to_string()).arg(each.as_secs_f64().to_string());
        command.env("BATON_WRITER_ID", "bench").stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self(command.spawn()?))
    }

    /// Waits until it has written once.
    pub(crate) fn ready(&mut self) -> Result<()> {
        let out = self.0.stdout.as_mut().ok_or("a writer has no output")?;
        let mut line = [0];
        Ok(std::io::Read::read_exact(out, &mut line).map_err(|_| "a writer ended before it began")?)
    }

    /// Lets it begin.
    pub(crate) fn begin(&mut self) -> Result<()> {
        let stdin = self.0.stdin.as_mut().ok_or("a writer has no input")?;
        Ok(stdin.write_all(b"\n")?)
    }

    /// What it has done, when it is done.
    pub(crate) fn done(mut self) -> Result<Work> {
        let out = self.0.stdout.take().ok_or("a writer has no output")?;
        let work = serde_json::from_reader(std::io::BufReader::new(out));
        let ended = self.0.wait()?;
        if !ended.success() {
            return Err(format!("a writer failed: {ended}").into());
        }
        Ok(work?)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // One that is done has been waited for, and is not signalled.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Is a writer.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let [way, session, key, bytes, seconds] = words else { return Err("a writer takes five arguments".into()) };
    let way = Way::ALL.into_iter().find(|known| known.word() == *way).ok_or("no such way")?;
    let (session, bytes) = (Path::new(session), vec![b'v'; bytes.parse()?]);
    let each = Duration::try_from_secs_f64(seconds.parse()?)?;
    let file = session.join(key);
    let cycle = || match way {
        Way::Directory => way::like_the_neighbour(session, key, &bytes),
        Way::Mount | Way::Nothing | Way::OneSync => way::through_a_file(&file, &bytes),
        Way::Library => Err("the library's writers are threads".into()),
    };
    cycle()?;
    let mut out = std::io::stdout();
    out.write_all(b"\n")?;
    out.flush()?;
    let mut go = String::new();
    if std::io::stdin().lock().read_line(&mut go)? == 0 {
        return Err("nobody waits for what is measured".into());
    }
    let work = work(each, cycle)?;
    Ok(serde_json::to_writer(out, &work)?)
}
