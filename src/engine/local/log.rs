//! The log of one session: a line of JSON for each change, in order. Knows the file; must not know what changes do.

use std::sync::Arc;

use super::super::{EngineError, Result};
use super::disk::{Access, Disk, DiskFile};
use super::lines::{CHUNK_BYTES, Lines};
use super::paths;
use super::table::Upto;
use crate::words::{LogLine, Seq, SessionId};

/// The xattr that says where a log ended at the last checkpoint: the number of its last line, in digits.
const END: &str = "user.batonfs.end";
/// Bytes of a line's end: `,"crc":"` and the CRC-32C, as eight hexadecimal digits, of all before; then `"}`.
const CHECK_BYTES: usize = 18;

/// A session's log file, made at its first line.
#[derive(Debug)]
pub(super) struct Log {
    lines: Lines,
    /// The number of its last line at the last checkpoint.
    noted: Option<Seq>,
}

/// The number of the last line of a log at the last checkpoint, as is noted on it; `None` when it is not.
///
/// # Errors
/// The system's.
pub(super) fn noted_end(log: &dyn DiskFile) -> std::io::Result<Option<Seq>> {
    let text = log.xattr(END)?;
    Ok(text.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()))
}

/// Takes the note of a log's end away.
///
/// # Errors
/// The system's.
pub(super) fn forget_end(log: &dyn DiskFile) -> std::io::Result<()> {
    log.remove_xattr(END)
}

/// A line as it is written, without its newline.
fn written(line: &LogLine) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    // The brace at its end comes after the checksum.
    bytes.pop();
    let check = check(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    Ok(bytes)
}

fn check(before: &[u8]) -> String {
    format!(",\"crc\":\"{:08x}\"}}", crc32c::crc32c(before))
}

/// What a line says; `None` when it is not as it was written.
pub(super) fn said(raw: &[u8]) -> Option<LogLine> {
    let (before, end) = raw.split_at_checked(raw.len().checked_sub(CHECK_BYTES)?)?;
    if end != check(before).as_bytes() {
        return None;
    }
    serde_json::from_slice(raw).ok()
}

impl Log {
    /// Opens a session's log and cuts a torn last line.
    ///
    /// # Errors
    /// [`EngineError::Io`]; [`EngineError::Damaged`] when no line can be read where there are some.
    pub(super) fn open(disk: &dyn Disk, session: &SessionId) -> Result<Self> {
        let path = paths::log(session);
        let file = match disk.open(&path, Access::Write) {
            Ok(file) => file,
            Err(e) if super::tree::is_missing(&e) => {
                let lines = Lines { session: session.clone(), file: None, len: 0, last: 0 };
                return Ok(Self { lines, noted: None });
            }
            Err(e) => return Err(EngineError::io(format!("opening {path}"), e)),
        };
        let io = |e| EngineError::io(format!("reading {path}"), e);
        let size = file.stat().map_err(io)?.size_bytes;
        let (len, last) = last_line(&*file, size, Seq::MAX).map_err(io)?;
        if len < size {
            file.set_len(len).map_err(io)?;
        }
        let noted = noted_end(&*file).map_err(io)?;
        let lines = Lines { session: session.clone(), file: Some(Arc::from(file)), len, last };
        Ok(Self { lines, noted })
    }

    /// Cuts the line of change `first` and all after it, whatever a crash has made of them: they are to be written again.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn rewind(&mut self, first: Seq) -> Result<()> {
        let Some(file) = &self.lines.file else { return Ok(()) };
        let io = |e| EngineError::io(format!("cutting {}", paths::log(&self.lines.session)), e);
        let (len, last) = last_line(&**file, self.lines.len, first).map_err(io)?;
        if len < self.lines.len {
            file.set_len(len).map_err(io)?;
        }
        (self.lines.len, self.lines.last) = (len, last);
        // What was noted beyond it is in the journal, which says it again.
        self.noted.take_if(|noted| *noted >= first);
        Ok(())
    }

    /// Refuses a log that has lost lines that were durable.
    ///
    /// # Errors
    /// [`EngineError::Damaged`].
    pub(super) fn check_end(&mut self) -> Result<()> {
        let Some(file) = self.lines.file.as_ref().filter(|_| self.noted > Some(self.lines.last)) else { return Ok(()) };
        // A repair may have taken the note away since.
        self.noted = noted_end(&**file).map_err(|e| self.lines.reading(e))?;
        match self.noted.filter(|noted| *noted > self.lines.last) {
            Some(noted) => Err(EngineError::Damaged {
                place: paths::log(&self.lines.session),
                what: format!("it ends with change {}, and went on to change {noted}", self.lines.last),
            }),
            None => Ok(()),
        }
    }

    /// Notes where it ends; everything up to there is about to be made durable. Without the note a loss is not seen, so
    /// that a failure is no error. Of a log that has lost its end the note stays: only a repair takes it away.
    pub(super) fn note_end(&mut self) {
        let behind = self.noted.is_none_or(|noted| noted < self.lines.last);
        let Some(file) = self.lines.file.as_ref().filter(|_| behind) else { return };
        match file.set_xattr(END, self.lines.last.to_string().as_bytes()) {
            Ok(()) => self.noted = Some(self.lines.last),
            Err(e) => tracing::warn!("the end of {} is not noted: {e}", paths::log(&self.lines.session)),
        }
    }

    /// The sequence number of the last line; 0 when there is none.
    pub(super) fn last(&self) -> Seq {
        self.lines.last
    }

    /// How many bytes of lines there are.
    pub(super) fn len(&self) -> u64 {
        self.lines.len
    }

    /// The end of the last line.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub(super) fn end(&self) -> Result<Upto> {
        let Some(file) = &self.lines.file else { return Ok(Upto::default()) };
        upto(&**file, self.lines.len, self.lines.last).map_err(|e| self.lines.reading(e))
    }

    /// Does a line end there, and is it that one?
    pub(super) fn has(&self, upto: &Upto) -> bool {
        upto.at <= self.lines.len
            && upto.seq <= self.lines.last
            && self.lines.file.as_ref().is_some_and(|file| is_upto(&**file, upto))
    }

    /// The lines it has now.
    pub(super) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Puts a line after the last one. It is not synced: the journal has it until a checkpoint did.
    ///
    /// # Errors
    /// [`EngineError::Io`], [`EngineError::NoSpace`]: the line is not there.
    pub(super) fn push(&mut self, disk: &dyn Disk, line: &LogLine) -> Result<()> {
        let path = paths::log(&self.lines.session);
        let io = |e| EngineError::io(format!("writing {path}"), e);
        let mut bytes = written(line).map_err(|e| io(std::io::Error::other(e)))?;
        bytes.push(b'\n');
        let file = match self.lines.file.take() {
            Some(file) => file,
            None => {
                super::tree::make_dirs(disk, &paths::session(&self.lines.session))?;
                match disk.create(&path, super::tree::PRIVATE) {
                    Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => disk.open(&path, Access::Write),
                    other => other,
                }
                .map(Arc::from)
                .map_err(io)?
            }
        };
        let written = file.write_at(self.lines.len, &bytes);
        self.lines.file = Some(file);
        written.map_err(io)?;
        self.lines.len += bytes.len() as u64;
        self.lines.last = line.seq;
        Ok(())
    }
}

/// What the line of change `seq`, which ends at `end`, is known by.
fn upto(file: &dyn DiskFile, end: u64, seq: Seq) -> std::io::Result<Upto> {
    let mut window = CHUNK_BYTES as u64;
    loop {
        let from = end.saturating_sub(window);
        let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(0)];
        let got = file.read_at(from, &mut bytes)?;
        bytes.truncate(got);
        let before = bytes.split_last().map_or(&[][..], |(_, before)| before);
        let start = before.iter().rposition(|b| *b == b'\n').map(|at| at + 1);
        if start.is_some() || from == 0 {
            let line = bytes.get(start.unwrap_or(0)..).unwrap_or_default();
            let line_len = u32::try_from(line.len()).map_err(std::io::Error::other)?;
            return Ok(Upto { seq, at: end, line_len, line_crc: crc32c::crc32c(line) });
        }
        window = window.saturating_mul(4);
    }
}

/// Does the line end there that the place is known by?
pub(super) fn is_upto(file: &dyn DiskFile, upto: &Upto) -> bool {
    let Some(from) = upto.at.checked_sub(u64::from(upto.line_len)) else { return false };
    let mut line = vec![0; upto.line_len as usize];
    let whole = file.read_at(from, &mut line).is_ok_and(|got| got == line.len());
    whole && line.last() == Some(&b'\n') && crc32c::crc32c(&line) == upto.line_crc
}

/// The end of the last whole line with a number below `below`, and that number. Lines after it that are none are a
/// crash's leavings.
pub(super) fn last_line(file: &dyn DiskFile, size: u64, below: Seq) -> std::io::Result<(u64, Seq)> {
    let mut window = CHUNK_BYTES as u64;
    loop {
        let from = size.saturating_sub(window);
        let mut bytes = vec![0; usize::try_from(size - from).unwrap_or(0)];
        let got = file.read_at(from, &mut bytes)?;
        bytes.truncate(got);
        let mut end = bytes.len();
        while let Some(newline) = bytes.get(..end).and_then(|bytes| bytes.iter().rposition(|b| *b == b'\n')) {
            let before = bytes.get(..newline).unwrap_or_default();
            let start = before.iter().rposition(|b| *b == b'\n').map(|at| at + 1);
            if start.is_none() && from > 0 {
                break;
            }
            let line = before.get(start.unwrap_or(0)..).unwrap_or_default();
            if let Some(line) = said(line)
                && line.seq < below
            {
                return Ok((from + newline as u64 + 1, line.seq));
            }
            end = newline;
        }
        if from == 0 {
            return Ok((0, 0));
        }
        window = window.saturating_mul(4);
    }
}
