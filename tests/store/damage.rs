//! A store with one of each thing, and ways to change what a disk holds behind an engine's back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use batonfs::engine::local::LocalEngine;
use batonfs::engine::{Change, Engine, Staged};
use batonfs::words::{Lost, Policy};

use crate::engines::*;

pub(crate) const MARK: &str = "user.batonfs";
pub(crate) const JOURNAL: &str = ".baton/journal";
pub(crate) const LOG: &str = ".baton/sessions/s/log";

/// A copy of a store.
pub(crate) fn copy(of: &Path) -> tempfile::TempDir {
    let to = fresh();
    assert!(std::process::Command::new("cp").arg("-a").arg(of.join(".")).arg(to.path()).status().unwrap().success());
    to
}

/// A store with one of each thing: versions, appends, a writer who is nobody, a large value, a delete, a policy.
pub(crate) fn one_of_each(close: bool) -> tempfile::TempDir {
    let dir = fresh();
    let engine = LocalEngine::open(dir.path()).unwrap();
    make_session(&engine);
    engine.commit(&session(), put("nobody", b"n", None), &by("")).unwrap();
    commit(&engine, put("a", b"one", None));
    commit(&engine, put("a", b"two", Some(1)));
    commit(&engine, append("a", b" and more", 2));
    commit(&engine, put("gone", b"g", None));
    commit(&engine, delete("gone", 1));
    commit(&engine, put("d/e/b", b"b1", None));
    commit(&engine, Change::SetPolicy(Policy::Warn));
    commit(&engine, lost("gone", Lost::Refused, b"refused"));
    let content = Staged::from(vec![1; 70_000]);
    commit(&engine, Change::Put { key: key("big"), content, expected: None, attributes: attributes() });
    if close {
        engine.close().unwrap();
    }
    dir
}

pub(crate) fn values(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: &str| (root.join(path), fs::read(root.join(path)).unwrap_or_default());
    ["s/nobody", "s/a", "s/d/e/b", "s/big"].into_iter().map(read).collect()
}

/// Everything in a store, with sizes, times, bytes: a check changes none of it.
pub(crate) fn everything(root: &Path) -> String {
    let listing =
        std::process::Command::new("find").arg(root).args(["-printf", "%P %s %T@ %i %m\\n"]).output().unwrap();
    let sums = std::process::Command::new("find").arg(root).args(["-type", "f", "-exec", "cksum", "{}", "+"]).output();
    String::from_utf8_lossy(&listing.stdout).into_owned() + &String::from_utf8_lossy(&sums.unwrap().stdout)
}

/// Changes a file's bytes and leaves its time.
pub(crate) fn quietly(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

pub(crate) fn mark_of(path: &Path) -> Vec<u8> {
    let mut mark = vec![0; 4096];
    let got = rustix::fs::getxattr(path, MARK, &mut mark[..]).unwrap();
    mark.truncate(got);
    mark
}

pub(crate) fn set_mark(path: &Path, mark: &[u8]) {
    rustix::fs::setxattr(path, MARK, mark, rustix::fs::XattrFlags::empty()).unwrap();
}

/// Changes one member of a mark.
pub(crate) fn remark(path: &Path, member: &str, to: serde_json::Value) {
    let mut mark: serde_json::Value = serde_json::from_slice(&mark_of(path)).unwrap();
    mark[member] = to;
    set_mark(path, mark.to_string().as_bytes());
}

pub(crate) fn lines(root: &Path) -> Vec<String> {
    fs::read_to_string(root.join(LOG)).unwrap().lines().map(str::to_owned).collect()
}

pub(crate) fn set_lines(root: &Path, lines: &[String]) {
    fs::write(root.join(LOG), lines.join("\n") + "\n").unwrap();
}

pub(crate) fn by_rename(root: &Path, path: &str, bytes: &[u8]) {
    fs::write(root.join("new"), bytes).unwrap();
    fs::rename(root.join("new"), root.join(path)).unwrap();
}

pub(crate) fn old(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(90_000)).unwrap();
}

pub(crate) fn number(journal: &[u8], at: usize) -> usize {
    u32::from_le_bytes(journal[at..at + 4].try_into().unwrap()) as usize
}

/// Where the records of a journal begin, and where the last one ends.
pub(crate) fn records(journal: &[u8]) -> Vec<usize> {
    let mut at = vec![8192];
    while let Some(last) = at.last().copied().filter(|last| journal[*last..].starts_with(b"bRec")) {
        at.push(last + (32 + number(journal, last + 24) + number(journal, last + 28)).next_multiple_of(8));
    }
    at
}

/// Puts a record of the journal's own generation behind its last one.
pub(crate) fn add_record(root: &Path, header: &str, whole: bool) {
    let place = root.join(JOURNAL);
    let mut journal = fs::read(&place).unwrap();
    let end = *records(&journal).last().unwrap();
    let mut frame = b"bRec\0\0\0\0".to_vec();
    frame.extend_from_slice(&journal[24..32]);
    frame.extend_from_slice(&(end as u64).to_le_bytes());
    frame.extend_from_slice(&(header.len() as u32).to_le_bytes());
    frame.extend_from_slice(&0_u32.to_le_bytes());
    frame.extend_from_slice(header.as_bytes());
    let crc = crc32c::crc32c(&frame[8..]) ^ u32::from(!whole);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    journal[end..end + frame.len()].copy_from_slice(&frame);
    fs::write(&place, journal).unwrap();
}
