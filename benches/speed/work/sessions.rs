//! A store of many sessions is mounted: how long that takes, and what memory the daemon has then.

use std::time::Instant;

use super::super::Result;
use super::super::aims::{Aim, Row};
use super::super::mount::Mount;
use super::super::place::Place;
use super::{Plan, fill, in_turns};

pub(super) fn measure(place: &Place, plan: &Plan) -> Result<Vec<Row>> {
    let (store, point) = (place.dir("sessions-store")?, place.dir("sessions")?);
    for nth in 0..plan.sessions {
        fill::beside(&store, &format!("session-{nth:05}"), plan.keys)?;
    }
    let mut idle_mib = Vec::new();
    let mut mount_s = || {
        let start = Instant::now();
        let mount = Mount::ours(&store, point.clone())?;
        let took = start.elapsed().as_secs_f64();
        std::thread::sleep(plan.each);
        idle_mib.push(mount.memory_mib("VmRSS")?);
        mount.end()?;
        Ok(took)
    };
    let [mount_s] = in_turns(plan.rounds, [&mut mount_s])?;
    // A million files are not left lying about while something else is measured.
    std::fs::remove_dir_all(&store)?;
    let row = |what, unit, ours, most| {
        let what = format!("{} sessions of {} keys: {what}", plan.sessions, plan.keys);
        Row { what, unit, ours, against: None, aim: Aim::AtMost(most) }
    };
    Ok(vec![row("mounted in", "s", mount_s, 1.0), row("idle memory", "MiB", idle_mib, 64.0)])
}
