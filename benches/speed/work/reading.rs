//! A small value is opened, read and closed.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::super::Result;
use super::super::aims::{Aim, NOTHING, Row};
use super::super::mount::Mount;
use super::super::place::{Place, SESSION};
use super::{Plan, fill, in_turns, middle_us};

const SIZE_BYTES: usize = 1024;

pub(super) fn measure(place: &Place, plan: &Plan) -> Result<Vec<Row>> {
    let mount = place.mounted("read")?;
    let nothing = Mount::nothing(place.dir("read-nothing")?, 1)?;
    let name = fill::key(0);
    let (ours, theirs) = (mount.session(SESSION).join(&name), nothing.session(SESSION).join(&name));
    std::fs::write(&ours, [b'v'; SIZE_BYTES])?;
    let figures = in_turns(
        plan.rounds,
        [&mut || middle_us(plan.each, || read(&theirs)), &mut || middle_us(plan.each, || read(&ours))],
    )?;
    nothing.end()?;
    mount.end()?;
    let [against, ours] = figures;
    Ok(vec![Row {
        what: "open, read 1 KiB, close".to_owned(),
        unit: "us",
        ours,
        against: Some((NOTHING.to_owned(), against)),
        aim: Aim::AtMost(1.3),
    }])
}

fn read(path: &Path) -> Result<()> {
    let mut bytes = [0; SIZE_BYTES];
    let read = File::open(path)?.read(&mut bytes)?;
    if read == SIZE_BYTES { Ok(()) } else { Err(format!("{}: {read} bytes", path.display()).into()) }
}
