//! One commit among many keys of a session, and among few.

use std::path::Path;

use super::super::aims::{Aim, Row};
use super::super::mount::Mount;
use super::super::place::{Place, SESSION};
use super::super::{Result, way};
use super::{Plan, fill, in_turns, middle_us};

const VALUE_BYTES: usize = 100;
/// How many times fewer the few are.
const FEWER: usize = 1000;
/// From one key to the next one written: no neighbour, and prime to their number.
const STRIDE: usize = 7919;

pub(super) fn measure(place: &Place, plan: &Plan) -> Result<Vec<Row>> {
    let (many, few) = (plan.among, (plan.among / FEWER).max(1));
    let mounted = |name: &str, keys| {
        let store = place.dir(&format!("{name}-store"))?;
        fill::committed(&store, SESSION, keys, VALUE_BYTES)?;
        Mount::ours(&store, place.dir(name)?)
    };
    let (among_few, among_many) = (mounted("few", few)?, mounted("many", many)?);
    let session = (among_few.session(SESSION), among_many.session(SESSION));
    let mut nth = (0, 0);
    let figures = in_turns(
        plan.rounds,
        [&mut || middle_us(plan.each, || commit(&session.0, &mut nth.0, few)), &mut || {
            middle_us(plan.each, || commit(&session.1, &mut nth.1, many))
        }],
    )?;
    among_few.end()?;
    among_many.end()?;
    let [against, ours] = figures;
    Ok(vec![Row {
        what: format!("a commit among {many} keys"),
        unit: "us",
        ours,
        against: Some((format!("among {few}"), against)),
        aim: Aim::AtMost(1.2),
    }])
}

fn commit(session: &Path, nth: &mut usize, keys: usize) -> Result<()> {
    *nth = (*nth + STRIDE) % keys;
    way::through_a_file(&session.join(fill::key(*nth)), &[b'w'; VALUE_BYTES])?;
    Ok(())
}
