//! What a repair does to the disk: each act brings one thing to what a mark or a record proves, or removes what nobody
//! needs. No act takes a committed byte away. Knows files; must not judge them.

use crate::engine::local::disk::{Access, Disk};
use crate::engine::local::draft::SIDECAR_MODE;
use crate::engine::local::journal::{self, HEADER_BYTES};
use crate::engine::local::look::{self, Look};
use crate::engine::local::mark::{self, Mark};
use crate::engine::local::{log, marker, paths, time, tree};
use crate::engine::{Attributes, EngineError, Result};
use crate::words::Policy;

/// What mends a finding.
#[derive(Debug)]
pub(super) enum Mend {
    /// Nothing does.
    Nothing,
    /// Opening the store does; of an open one, a checkpoint.
    Opening,
    /// The marker is written again.
    Marker,
    /// An empty journal is made.
    Journal,
    /// A file that nobody needs goes.
    Remove(String),
    /// Versions that are older than those that are kept go.
    RemoveAll(Vec<String>),
    /// The torn end of a log goes.
    Cut { place: String, len: u64 },
    /// What is lost of a log is no longer looked for.
    ForgetEnd(String),
    /// A sidecar gets the bytes that the mark of its value calls for.
    Sidecar { place: String, bytes: Vec<u8> },
    /// A value gets back the bytes that its mark's checksum proves.
    Bytes { place: String, bytes: Vec<u8>, mark: Box<Mark> },
    /// A value gets back the mark that its record proves.
    Mark { place: String, mark: Box<Mark> },
    /// A policy is written again.
    Policy { place: String, policy: Policy },
    /// A torn header of the journal, which does not count, goes.
    BlankHeader { at: u64 },
}

impl Mend {
    /// Does it.
    ///
    /// # Errors
    /// [`EngineError`]: what it was about is as it was, or is found again.
    pub(super) fn act(&self, disk: &dyn Disk) -> Result<()> {
        match self {
            Self::Nothing | Self::Opening => Ok(()),
            Self::Marker => tree::make_dirs(disk, paths::DRAFTS).and_then(|()| marker::write(disk)),
            Self::Journal => journal::make(disk, &disk.boot()).map(drop),
            Self::Remove(place) => tree::unlink(disk, place),
            Self::RemoveAll(places) => places.iter().try_for_each(|place| tree::unlink(disk, place)),
            Self::Cut { place, len } => {
                let io = |e| EngineError::io(format!("cutting {place}"), e);
                disk.open(place, Access::Write).map_err(io)?.set_len(*len).map_err(io)
            }
            Self::ForgetEnd(place) => {
                let io = |e| EngineError::io(format!("marking {place}"), e);
                log::forget_end(&*disk.open(place, Access::Read).map_err(io)?).map_err(io)
            }
            Self::Sidecar { place, bytes } => write_sidecar(disk, place, bytes),
            Self::Bytes { place, bytes, mark } => mend_bytes(disk, place, bytes, mark),
            Self::Mark { place, mark } => {
                let file =
                    disk.open(place, Access::Read).map_err(|e| EngineError::io(format!("marking {place}"), e))?;
                mark.write(&*file, place)
            }
            Self::Policy { place, policy } => {
                replace(disk, place, format!("{policy}\n").as_bytes(), tree::PRIVATE, false)
            }
            Self::BlankHeader { at } => {
                let io = |e| EngineError::io("writing the journal", e);
                disk.open(paths::JOURNAL, Access::Write).map_err(io)?.write_at(*at, &[0; HEADER_BYTES]).map_err(io)
            }
        }
    }
}

/// Puts whole bytes where torn ones are, by an exchange: a repair that is cut off leaves what was there, and so does one
/// that finds another value there by now.
fn mend_bytes(disk: &dyn Disk, place: &str, bytes: &[u8], mark: &Mark) -> Result<()> {
    let io = |e| EngineError::io(format!("writing {place}"), e);
    let Look::File(torn) = look::look_at(disk, place, Access::Read)? else { return Ok(()) };
    if Mark::read(&*torn.file).map_err(io)?.as_ref() != Some(mark) {
        return Ok(());
    }
    let draft = paths::draft(&format!("{}.mend", uuid::Uuid::now_v7()));
    let exchange = || {
        let whole = disk.create(&draft, tree::PRIVATE).map_err(io)?;
        whole.write_at(0, bytes).map_err(io)?;
        mark.write(&*whole, &draft)?;
        let attributes = look::attributes(&*torn.file, &torn.stat)?;
        look::set_first_attributes(&*whole, &Attributes { mtime: time::from_ns(mark.mtime_ns), ..attributes }, &draft)?;
        whole.sync().map_err(io)?;
        disk.exchange(&draft, place).map_err(io)?;
        if disk.stat(&draft).map_err(io)?.id != torn.stat.id {
            disk.exchange(&draft, place).map_err(io)?;
        }
        Ok(())
    };
    let exchanged = exchange();
    tree::unlink(disk, &draft)?;
    exchanged
}

fn write_sidecar(disk: &dyn Disk, place: &str, bytes: &[u8]) -> Result<()> {
    replace(disk, place, bytes, SIDECAR_MODE, true)
}

/// Puts a whole file in a place by a rename. `ours`: it carries the xattr that tells our sidecars from the neighbour's.
fn replace(disk: &dyn Disk, place: &str, bytes: &[u8], mode: u32, ours: bool) -> Result<()> {
    let io = |e| EngineError::io(format!("writing {place}"), e);
    let draft = paths::draft(&format!("{}.mend", uuid::Uuid::now_v7()));
    tree::make_dirs_above(disk, &draft)?;
    tree::make_dirs_above(disk, place)?;
    let file = disk.create(&draft, mode).map_err(io)?;
    let written =
        file.write_at(0, bytes).and_then(|()| if ours { file.set_xattr(mark::NAME, mark::SIDECARS) } else { Ok(()) });
    let placed = written.and_then(|()| disk.rename(&draft, place)).map_err(io);
    if placed.is_err() {
        tree::unlink(disk, &draft)?;
    }
    placed
}
