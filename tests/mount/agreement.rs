//! What happened is told in five places: the log, the sidecars, the attributes of the files, the history, and the bytes
//! themselves. After many writers, and after crashes, they all tell the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{self, Mount, Running, eventually};

const WRITERS: usize = 20;
const SCRIPT: &str = include_str!("agreement.py");

/// What the log says of a version.
#[derive(Debug, Clone)]
struct Told {
    version: u64,
    size: u64,
    writer: String,
    /// Its bytes end with a line of its writer: it was written, not moved.
    written: bool,
    at_s: u64,
}

/// All that the log says: each version of each key, and which one is there.
#[derive(Debug, Default)]
struct Log {
    versions: BTreeMap<String, Vec<Told>>,
    there: BTreeMap<String, u64>,
}

impl Log {
    fn read(mount: &Mount) -> Self {
        let mut log = Self::default();
        for (line, seq) in mount.log().iter().zip(1..) {
            assert_eq!(line["seq"], seq, "{line}");
            log.take(line);
        }
        log
    }

    fn take(&mut self, line: &Value) {
        let name = |member: &str| line[member].as_str().unwrap_or_default().to_owned();
        match line["op"].as_str().expect("an operation") {
            "put" | "append" | "adopt" => self.version(&name("key"), line),
            "rename" => {
                self.there.remove(&name("key")).expect("what is renamed is there");
                self.version(&name("to"), line);
            }
            "delete" => drop(self.there.remove(&name("key")).expect("what is deleted is there")),
            "drop" | "mkdir" | "attributes" => {}
            other => panic!("nobody did {other}: {line}"),
        }
    }

    fn version(&mut self, key: &str, line: &Value) {
        let told = Told {
            version: line["version"].as_u64().expect("a version"),
            size: line["size_bytes"].as_u64().expect("a size"),
            writer: line["writer"]["writer_id"].as_str().expect("a writer").to_owned(),
            written: line["op"] != "rename",
            at_s: line["time_ms"].as_u64().expect("a time") / 1000,
        };
        let versions = self.versions.entry(key.to_owned()).or_default();
        let last = versions.last().map_or(0, |last| last.version);
        assert_eq!(told.version, last + 1, "the versions of {key} have a gap: {line}");
        self.there.insert(key.to_owned(), told.version);
        versions.push(told);
    }
}

/// The writer that the last line of a value begins with.
fn signed(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).expect("text");
    text.lines().last()?.split(' ').next()
}

/// The kept versions of a key, as files in the store.
fn history(store: &Path, key: &str) -> Vec<(u64, Vec<u8>)> {
    let parts: Vec<_> = key.split('/').collect();
    let (name, dirs) = parts.split_last().expect("a name");
    let mut dir = store.join(".baton/history").join(harness::SESSION);
    dir.extend(dirs.iter().map(|part| format!("d{part}")));
    let entries = fs::read_dir(dir.join(format!("k{name}"))).into_iter().flatten().flatten();
    let number = |entry: &fs::DirEntry| entry.file_name().to_str().and_then(|name| name.parse().ok());
    entries.filter_map(|entry| Some((number(&entry)?, fs::read(entry.path()).expect("a version")))).collect()
}

/// Compares all five; how many versions were compared.
fn all_agree(mount: &Mount) -> usize {
    eventually("nothing is open", || mount.status()["open_handles"] == 0);
    let log = Log::read(mount);
    let mut compared = 0;
    for (key, versions) in &log.versions {
        let path = mount.path(key);
        let newest = log.there.get(key).map(|_| versions.last().expect("a version"));
        assert_eq!(path.exists(), newest.is_some(), "{key} is there, or is not");
        if let Some(newest) = newest {
            let bytes = fs::read(&path).expect("a value");
            let said = format!("{key} is {newest:?}");
            assert_eq!(bytes.len() as u64, newest.size, "the size: {said}");
            assert_eq!(fs::metadata(&path).expect("stat").len(), newest.size, "stat: {said}");
            assert_eq!(mount.writer_of(key), newest.writer, "the sidecar: {said}");
            assert_eq!(mount.sidecar(key)["updated_at"], newest.at_s, "the sidecar: {said}");
            for (name, value) in [
                ("version", newest.version.to_string()),
                ("writer_id", newest.writer.clone()),
                ("committed_at", newest.at_s.to_string()),
            ] {
                assert_eq!(mount.xattr(key, &format!("user.baton.{name}")), Some(value), "{name}: {said}");
            }
            if newest.written {
                assert_eq!(signed(&bytes), Some(&*newest.writer), "the bytes: {said}");
            }
            compared += 1;
        }
        for (version, bytes) in history(&mount.store(), key) {
            let told = versions.iter().find(|told| told.version == version);
            let told = told.unwrap_or_else(|| panic!("the log knows nothing of version {version} of {key}"));
            assert_eq!(bytes.len() as u64, told.size, "the size of version {version} of {key}");
            if told.written {
                assert_eq!(signed(&bytes), Some(&*told.writer), "the bytes of version {version} of {key}");
            }
            compared += 1;
        }
    }
    compared
}

/// Starts the writers; each takes so many steps.
fn start(mount: &Mount, steps: usize, seed: usize) -> Vec<Running> {
    let writer = |n: usize| {
        let [steps, seed, name] = [steps.to_string(), seed.to_string(), format!("w{n}")];
        let mut command = mount.command(&[harness::python(), "-c", SCRIPT, &name, &steps, &seed]);
        command.current_dir("/").env("HERE", mount.path("")).env("BATON_WRITER_ID", name);
        mount.spawn(command)
    };
    (0..WRITERS).map(writer).collect()
}

#[test]
fn log_sidecars_attributes_history_and_bytes_agree_after_twenty_writers() {
    let Some(mount) = Mount::in_memory(&[]) else { return };
    // About that many commits: some names are gone by the time.
    let commits = if harness::long() { 10_000 } else { 1_200 };
    for writer in start(&mount, commits * 5 / 4 / WRITERS, 1) {
        assert_eq!(writer.wait().ok(), "done\n");
    }
    let made = Log::read(&mount).versions.values().map(Vec::len).sum::<usize>();
    assert!(made >= commits, "only {made} versions were made");
    let compared = all_agree(&mount);
    println!("{made} versions made, {compared} of them are kept and agree");
    assert!(compared > 100, "only {compared} were there to be compared");
}

#[test]
fn log_sidecars_attributes_history_and_bytes_agree_after_crashes() {
    let Some(mut mount) = Mount::in_memory(&[]) else { return };
    let mut compared = 0;
    for round in 0..if harness::long() { 40 } else { 5 } {
        let writers = start(&mount, usize::MAX, round);
        eventually("they are at work", || mount.log().len() > 200 * (round + 1));
        mount.crash();
        writers.into_iter().for_each(|writer| drop(writer.kill()));
        compared = all_agree(&mount);
    }
    assert!(compared > 100, "only {compared} were there to be compared");
}
