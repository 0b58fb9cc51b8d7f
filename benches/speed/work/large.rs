//! A large value is written and read, in requests of a mebibyte: how fast, and what memory the daemon takes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use super::super::aims::{Aim, Row};
use super::super::mount::Mount;
use super::super::place::{Place, SESSION};
use super::super::{Result, way};
use super::{Plan, in_turns};

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;
/// How many times smaller the value is whose memory is compared.
const SMALLER: usize = 8;

pub(super) fn measure(place: &Place, plan: &Plan) -> Result<Vec<Row>> {
    let mount = place.mounted("large")?;
    let (ours, directory) = (mount.session(SESSION).join("large"), place.dir("large-plain")?);
    let (plain, nth) = (|nth| directory.join(format!("large-{nth}")), std::cell::Cell::new(0));
    let small = mount.session(SESSION).join("small");
    let (whole_mib, small_mib) = (plan.large_mib, plan.large_mib / SMALLER);
    let [plain_written, written, plain_read, read, small_peak, peak] = in_turns(
        plan.rounds,
        [
            &mut || {
                // A new file each time, and the old ones stay, as a store keeps versions: memory that was just given back is
                // had again at once, other memory may be the host's to find first.
                nth.set(nth.get() + 1);
                write(&plain(nth.get()), whole_mib, File::sync_all)
            },
            &mut || write(&ours, whole_mib, |_| Ok(())),
            &mut || read_all(&plain(nth.get()), whole_mib),
            &mut || read_all(&ours, whole_mib),
            &mut || peak_mib(&mount, &small, small_mib),
            &mut || peak_mib(&mount, &ours, whole_mib),
        ],
    )?;
    mount.end()?;
    std::fs::remove_dir_all(&directory)?;
    let row = |what: String, unit, ours, (against, theirs): (String, _), aim| {
        let against = Some((against, theirs));
        Row { what: format!("{whole_mib} MiB value: {what}"), unit, ours, against, aim }
    };
    let against_written = ("plain write, fsync".to_owned(), plain_written);
    let smaller = (format!("the same of {small_mib} MiB"), small_peak);
    Ok(vec![
        row("write, close".to_owned(), "MiB/s", written, against_written, Aim::AtLeast(0.8)),
        row("read".to_owned(), "MiB/s", read, ("plain read".to_owned(), plain_read), Aim::AtLeast(0.5)),
        row("peak memory of both".to_owned(), "MiB", peak, smaller, Aim::AtMost(1.5)),
    ])
}

/// A mebibyte in `room`, which is a page larger: it begins with a page, as the buffers of `cat`, `cp` and `dd` do. One that
/// does not is two requests to a FUSE filesystem.
fn aligned(room: &mut [u8]) -> Result<&mut [u8]> {
    let begin = room.as_ptr().align_offset(PAGE);
    Ok(room.get_mut(begin..begin + MIB).ok_or("no room for a mebibyte")?)
}

/// In MiB a second.
fn write(path: &Path, mib: usize, sync: impl Fn(&File) -> std::io::Result<()>) -> Result<f64> {
    let mut room = vec![b'v'; MIB + PAGE];
    let bytes = aligned(&mut room)?;
    let start = Instant::now();
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    for _ in 0..mib {
        file.write_all(bytes)?;
    }
    sync(&file)?;
    way::close(file)?;
    Ok(mib as f64 / start.elapsed().as_secs_f64())
}

/// In MiB a second.
fn read_all(path: &Path, mib: usize) -> Result<f64> {
    // Filled with something: what is not there yet would be made while the clock runs.
    let (mut room, mut read) = (vec![b'r'; MIB + PAGE], 0);
    let bytes = aligned(&mut room)?;
    let start = Instant::now();
    let mut file = File::open(path)?;
    loop {
        match file.read(bytes)? {
            0 => break,
            more => read += more,
        }
    }
    let took = start.elapsed();
    if read != mib * MIB {
        return Err(format!("{}: {read} bytes, not {mib} MiB", path.display()).into());
    }
    Ok(mib as f64 / took.as_secs_f64())
}

/// The most memory the daemon has while a value is written and read.
fn peak_mib(mount: &Mount, path: &Path, mib: usize) -> Result<f64> {
    mount.forget_peak()?;
    write(path, mib, |_| Ok(()))?;
    read_all(path, mib)?;
    mount.memory_mib("VmHWM")
}
