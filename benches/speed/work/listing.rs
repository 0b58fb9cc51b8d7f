//! `find` and `ls -l` over a session of many keys.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::super::Result;
use super::super::aims::{Aim, NOTHING, Row};
use super::super::mount::Mount;
use super::super::place::{Place, SESSION};
use super::{Plan, fill, in_turns};

/// How many times as many keys the second session has.
const MORE: usize = 10;
const TOOLS: [&[&str]; 2] = [&["find"], &["ls", "-l"]];

pub(super) fn measure(place: &Place, plan: &Plan) -> Result<Vec<Row>> {
    let (store, few, many) = (place.dir("list-store")?, plan.listed, plan.listed * MORE);
    fill::beside(&store, SESSION, few)?;
    fill::beside(&store, "more", many)?;
    let mount = Mount::ours(&store, place.dir("list")?)?;
    let nothing = Mount::nothing(place.dir("list-nothing")?, few)?;
    let (theirs, ours, more) = (nothing.session(SESSION), mount.session(SESSION), mount.session("more"));
    let mut rows = Vec::new();
    for tool in TOOLS {
        for (dir, keys) in [(&theirs, few), (&ours, few), (&more, many)] {
            check(tool, dir, keys)?;
        }
        let [against, of_few, of_many] = in_turns(
            plan.rounds,
            [&mut || took_ms(tool, &theirs), &mut || took_ms(tool, &ours), &mut || took_ms(tool, &more)],
        )?;
        let row = |keys, ours, against: String, theirs, aim| {
            let what = format!("{} over {keys} keys", tool.join(" "));
            Row { what, unit: "ms", ours, against: Some((against, theirs)), aim }
        };
        rows.push(row(few, of_few.clone(), NOTHING.to_owned(), against, Aim::AtMost(1.5)));
        rows.push(row(many, of_many, format!("over {few} keys"), of_few, Aim::AtMost(MORE as f64)));
    }
    nothing.end()?;
    mount.end()?;
    Ok(rows)
}

fn run(tool: &[&str], dir: &Path, out: Stdio) -> Result<std::process::Output> {
    let [program, options @ ..] = tool else { return Err("no tool".into()) };
    // The order of bytes: that of a language costs more than the listing.
    let mut command = Command::new(program);
    let child = command.args(options).arg(dir).env("LC_ALL", "C").stdin(Stdio::null()).stdout(out).spawn()?;
    let ended = child.wait_with_output()?;
    if ended.status.success() { Ok(ended) } else { Err(format!("{program} failed: {}", ended.status).into()) }
}

/// Shows it all keys, and one line more?
fn check(tool: &[&str], dir: &Path, keys: usize) -> Result<()> {
    let shown = run(tool, dir, Stdio::piped())?.stdout;
    let lines = shown.iter().filter(|&&byte| byte == b'\n').count();
    if lines == keys + 1 { Ok(()) } else { Err(format!("{}: {lines} lines for {keys} keys", tool.join(" ")).into()) }
}

fn took_ms(tool: &[&str], dir: &Path) -> Result<f64> {
    let start = Instant::now();
    run(tool, dir, Stdio::null())?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
