//! The lines that a session's log had at one moment. Knows the file as far as it went then; must not know who writes on.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::super::{EngineError, Receipt, Result};
use super::disk::DiskFile;
use super::log::said;
use super::paths;
use crate::words::{LogLine, Seq, SessionId};

/// How much is read at a time.
pub(super) const CHUNK_BYTES: usize = 1 << 16;

/// What a log was at one moment. Up to there it is never written again while its store is open: lines come behind it,
/// whatever happens to directories or the session itself, and only a recovery cuts it, before anybody reads. So these are
/// read without any lock, however long that takes.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    pub(super) session: SessionId,
    pub(super) file: Option<Arc<dyn DiskFile>>,
    pub(super) len: u64,
    /// The number of the last one; 0 when there is none.
    pub(super) last: Seq,
}

impl Lines {
    pub(super) fn reading(&self, e: std::io::Error) -> EngineError {
        EngineError::io(format!("reading {}", paths::log(&self.session)), e)
    }

    /// Gives every line after number `after` to `each`, oldest first, until it has enough; whether it had.
    ///
    /// # Errors
    /// [`EngineError::Io`]; [`EngineError::Damaged`] at a line that is none, and where it ends before its last line.
    pub(super) fn each(&self, after: Seq, mut each: impl FnMut(LogLine) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
        let mut flow = ControlFlow::Continue(());
        self.each_raw(self.near(after)?, self.len, |raw| {
            let line = self.line(raw)?;
            if line.seq > after {
                flow = each(line);
            }
            Ok(flow.is_continue())
        })?;
        Ok(flow)
    }

    /// The beginning of a line that is not after the one that follows change `after`, and near it: whoever follows a long
    /// log, or reads it in parts, must not read all of it each time. Numbers grow, so halves tell.
    fn near(&self, after: Seq) -> Result<u64> {
        let Some(file) = self.file.as_ref().filter(|_| after > 0) else { return Ok(0) };
        let (mut low, mut high) = (0, self.len);
        let mut window = vec![0; CHUNK_BYTES];
        while high - low > CHUNK_BYTES as u64 {
            let middle = low + (high - low) / 2;
            let got = file.read_at(middle, &mut window).map_err(|e| self.reading(e))?;
            let mut lines = window.get(..got).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
            // The first is the end of a line.
            let (Some(begun), Some(raw)) = (lines.next(), lines.next()) else { break };
            let Some(line) = raw.strip_suffix(b"\n").and_then(said) else { break };
            if line.seq <= after {
                low = middle + begun.len() as u64;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn line(&self, raw: &[u8]) -> Result<LogLine> {
        said(raw).ok_or_else(|| EngineError::Damaged {
            place: paths::log(&self.session),
            what: "a line is not as it was written".to_owned(),
        })
    }

    /// Gives every line between two bytes, where lines begin or end, to `each`, oldest first.
    ///
    /// # Errors
    /// As [`Lines::each`].
    pub(super) fn each_between(&self, from: u64, to: u64, mut each: impl FnMut(LogLine)) -> Result<()> {
        self.each_raw(from, to, |raw| {
            each(self.line(raw)?);
            Ok(true)
        })
    }

    /// The receipt of an operation, searched through the whole log.
    ///
    /// # Errors
    /// As [`Lines::each`].
    pub(super) fn receipt(&self, operation: &str) -> Result<Option<Receipt>> {
        let mut found = None;
        self.each_raw(0, self.len, |raw| {
            // Looking for the id in the text first: parsing every line of a long log would take seconds.
            if raw.windows(operation.len().max(1)).any(|part| part == operation.as_bytes()) {
                found = said(raw)
                    .filter(|line| line.operation == operation)
                    .map(|line| Receipt { seq: line.seq, version: line.version });
            }
            Ok(found.is_none())
        })?;
        Ok(found)
    }

    fn each_raw(&self, from: u64, to: u64, mut each: impl FnMut(&[u8]) -> Result<bool>) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let (mut at, mut rest) = (from, Vec::new());
        let mut chunk = vec![0; CHUNK_BYTES];
        while at < to {
            let want = chunk.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
            let place = chunk.get_mut(..want).unwrap_or_default();
            let got = file.read_at(at, place).map_err(|e| self.reading(e))?;
            if got == 0 {
                // Cut while it is open: what it had is not skipped in silence.
                let (place, what) = (paths::log(&self.session), format!("it ends at byte {at}, and had {to}"));
                return Err(EngineError::Damaged { place, what });
            }
            at += got as u64;
            rest.extend_from_slice(place.get(..got).unwrap_or_default());
            let whole = rest.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
            let tail = rest.split_off(whole);
            for line in rest.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                if !each(line)? {
                    return Ok(());
                }
            }
            rest = tail;
        }
        Ok(())
    }
}
