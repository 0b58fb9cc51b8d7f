//! The marker of a store: which format it has. Knows one line.

use super::super::{EngineError, Result};
use super::disk::Disk;
use super::{paths, tree};

/// The format this engine reads and writes.
pub(super) const FORMAT: u32 = 1;
/// What the marker says before the number.
const WORDS: &str = "batonfs store format ";

/// What a marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// Our format.
    Ours,
    /// That of a later version.
    Newer(u32),
    /// Nothing: it is none.
    Nothing,
}

/// Reads a marker.
pub(super) fn read(text: &str) -> Says {
    match text.trim_end().strip_prefix(WORDS).and_then(|number| number.parse::<u32>().ok()) {
        Some(FORMAT) => Says::Ours,
        Some(newer) if newer > FORMAT => Says::Newer(newer),
        _ => Says::Nothing,
    }
}

/// Writes the marker: whole, and durable.
///
/// # Errors
/// [`EngineError::Io`], [`EngineError::NoSpace`].
pub(super) fn write(disk: &dyn Disk) -> Result<()> {
    let io = |e| EngineError::io(format!("writing {}", paths::FORMAT), e);
    let draft = paths::draft("format");
    tree::unlink(disk, &draft)?;
    let file = disk.create(&draft, tree::PRIVATE).map_err(io)?;
    file.write_at(0, format!("{WORDS}{FORMAT}\n").as_bytes()).map_err(io)?;
    file.sync().map_err(io)?;
    disk.rename(&draft, paths::FORMAT).map_err(io)?;
    disk.sync_dir(paths::BATON).map_err(io)?;
    disk.sync_dir("").map_err(io)
}
