//! A line is appended to a large value, and to one that began empty.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::super::aims::{Aim, Row};
use super::super::place::{Place, SESSION};
use super::super::{Result, way};
use super::{Plan, in_turns, middle_us};

const LINE_BYTES: usize = 100;

pub(super) fn measure(place: &Place, plan: &Plan) -> Result<Vec<Row>> {
    let mount = place.mounted("append")?;
    let (large, empty) = (mount.session(SESSION).join("large"), mount.session(SESSION).join("empty"));
    way::through_a_file(&large, &vec![b'v'; plan.appended_mib << 20])?;
    let mut to_empty = || {
        way::close(File::create(&empty)?)?;
        middle_us(plan.each, || append(&empty))
    };
    let figures = in_turns(plan.rounds, [&mut to_empty, &mut || middle_us(plan.each, || append(&large))])?;
    mount.end()?;
    let [against, ours] = figures;
    Ok(vec![Row {
        what: format!("append {LINE_BYTES} bytes to {} MiB", plan.appended_mib),
        unit: "us",
        ours,
        against: Some(("to an empty value".to_owned(), against)),
        aim: Aim::AtMost(1.5),
    }])
}

fn append(path: &Path) -> Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(&[b'l'; LINE_BYTES])?;
    way::close(file)
}
