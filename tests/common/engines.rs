//! Engines to test, and builders for what they are given.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use batonfs::engine::local::LocalEngine;
use batonfs::engine::memory::MemoryEngine;
use batonfs::engine::{Attributes, Change, Context, Engine, EngineError, Receipt, Staged};
use batonfs::store::{Base, Caller, Draft, Rule, Store, StoreError, Write};
use batonfs::words::{Author, Dir, Key, Lost, Policy, SessionId, Version, Writer};

/// An engine, with the directory it lives in if it has one.
pub(crate) struct Subject {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) dir: Option<tempfile::TempDir>,
}

/// A directory in memory, where the machine has one that keeps xattrs: for tests that sync very often, and whose disk
/// fails when they say so.
pub(crate) fn fresh() -> tempfile::TempDir {
    let flags = rustix::fs::XattrFlags::empty();
    let memory = tempfile::tempdir_in("/dev/shm").ok();
    let fit = memory.filter(|dir| rustix::fs::setxattr(dir.path(), "user.probe", b"", flags).is_ok());
    fit.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// Every engine, fresh.
pub(crate) fn all() -> Vec<Subject> {
    vec![Subject { engine: Arc::new(MemoryEngine::new()), dir: None }, local(), late()]
}

/// The local engine where it answers before its syncs.
pub(crate) fn late() -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(LocalEngine::open(dir.path()).unwrap().deferring());
    Subject { engine, dir: Some(dir) }
}

/// The local engine on a fresh directory.
pub(crate) fn local() -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(LocalEngine::open(dir.path()).unwrap());
    Subject { engine, dir: Some(dir) }
}

/// Every engine with the session `s` made.
pub(crate) fn with_session() -> Vec<Subject> {
    let all = all();
    for subject in &all {
        make_session(&*subject.engine);
    }
    all
}

/// Copies a file as a backup does, with its xattrs.
pub(crate) fn back_up(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

pub(crate) fn make_session(engine: &dyn Engine) {
    engine.commit(&session(), make_dir(""), &by("maker")).unwrap();
}

pub(crate) fn session() -> SessionId {
    SessionId::parse("s").unwrap()
}

pub(crate) fn key(path: &str) -> Key {
    Key::literal(path).unwrap()
}

pub(crate) fn dir(path: &str) -> Dir {
    Dir::literal(path).unwrap()
}

pub(crate) fn writer(id: &str) -> Writer {
    Writer { writer_id: Some(id.to_owned()), ..Writer::default() }
}

/// A context of a writer, with a fresh operation; the empty id is the empty writer.
pub(crate) fn by(id: &str) -> Context {
    let writer = if id.is_empty() { Writer::default() } else { writer(id) };
    let author = Author { writer, ..Author::default() };
    Context { author, operation: uuid::Uuid::now_v7(), conflict: None }
}

pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(crate) fn attributes() -> Attributes {
    // SAFETY: these calls only return numbers of this process.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    Attributes { mode: 0o640, uid, gid, mtime: at(1_000_000), xattrs: Default::default() }
}

pub(crate) fn put(path: &str, bytes: &[u8], expected: Option<Version>) -> Change {
    Change::Put { key: key(path), content: Staged::from(bytes.to_vec()), expected, attributes: attributes() }
}

pub(crate) fn append(path: &str, bytes: &[u8], expected: Version) -> Change {
    Change::Append { key: key(path), bytes: bytes.to_vec(), expected, mtime: at(2_000_000) }
}

pub(crate) fn delete(path: &str, expected: Version) -> Change {
    Change::Delete { key: key(path), expected }
}

pub(crate) fn rename(from: &str, to: &str, expected_from: Version, expected_to: Option<Version>) -> Change {
    Change::Rename { from: key(from), to: key(to), expected_from, expected_to, content: None }
}

/// A draft of a key that became no version.
pub(crate) fn lost(path: &str, how: Lost, bytes: &[u8]) -> Change {
    let kept = Some((Staged::from(bytes.to_vec()), attributes()));
    let (size_bytes, reason) = (bytes.len() as u64, "why it was lost".to_owned());
    Change::Drop { key: key(path), size_bytes, lost: how, reason, kept }
}

pub(crate) fn make_dir(path: &str) -> Change {
    Change::MakeDir { dir: dir(path), attributes: Attributes { mode: 0o750, ..attributes() } }
}

pub(crate) fn remove_dir(path: &str) -> Change {
    Change::RemoveDir { dir: dir(path) }
}

pub(crate) fn rename_dir(from: &str, to: &str) -> Change {
    Change::RenameDir { from: dir(from), to: dir(to) }
}

pub(crate) fn commit(engine: &dyn Engine, change: Change) -> Receipt {
    engine.commit(&session(), change, &by("w")).unwrap()
}

pub(crate) fn refused(engine: &dyn Engine, change: Change) -> EngineError {
    engine.commit(&session(), change, &by("w")).unwrap_err()
}

/// The current bytes of a key.
pub(crate) fn value(engine: &dyn Engine, path: &str) -> Option<Vec<u8>> {
    engine.open(&session(), &key(path)).unwrap().map(|snapshot| snapshot.read_all().unwrap())
}

pub(crate) fn version(engine: &dyn Engine, path: &str) -> Option<Version> {
    engine.head(&session(), &key(path)).unwrap().map(|head| head.version)
}

pub(crate) fn keys(engine: &dyn Engine) -> Vec<String> {
    engine.list(&session()).unwrap().into_iter().map(String::from).collect()
}

/// A store over an engine, without documents, under a policy.
pub(crate) fn store(engine: &Arc<dyn Engine>, policy: Policy) -> Store {
    Store::new(Arc::clone(engine), "/store".into(), Vec::new(), policy)
}

pub(crate) fn caller(id: &str) -> Caller {
    Caller::new(by(id).author, None)
}

/// Writes a whole value as a writer.
pub(crate) fn write(store: &Store, path: &str, bytes: &[u8], caller: &Caller) -> Result<Option<String>, StoreError> {
    let (session, key) = (session(), key(path));
    let write = Write {
        session: &session,
        key: &key,
        draft: Draft::Whole(Staged::from(bytes.to_vec())),
        base: Base::Fresh,
        fresh: attributes(),
        own: false,
        set: Default::default(),
        rule: Rule::Policy,
    };
    store.write(&write, caller).map(|committed| committed.warning)
}
