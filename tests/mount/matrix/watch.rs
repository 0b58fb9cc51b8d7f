//! A stranger who lists a directory, asks for sizes and reads values as fast as it can, and notes every change.
//! Knows nothing of what it should see.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const PAUSE: Duration = Duration::from_micros(200);

/// What was seen, in order, without repetitions; `None` where a name was not there.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) names: Vec<BTreeSet<String>>,
    pub(super) sizes: BTreeMap<String, Vec<Option<u64>>>,
    pub(super) values: BTreeMap<String, Vec<Option<Vec<u8>>>>,
}

/// A watcher at work.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watch {
    /// Watches these keys of a directory, and every other name that shows; returns after the first look.
    pub(super) fn start(dir: PathBuf, keys: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (first, looked) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            loop {
                let last = stopped.load(Ordering::Relaxed);
                seen.look(&dir, &keys);
                // Two processors are not many for a watcher, a daemon and a program.
                std::thread::sleep(PAUSE);
                let _ = first.send(());
                if last {
                    return seen;
                }
            }
        });
        looked.recv().expect("a first look");
        Self { stop, thread }
    }

    /// Looks once more and tells what was seen.
    pub(super) fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watcher")
    }
}

impl Seen {
    fn look(&mut self, dir: &Path, keys: &[String]) {
        let entries = fs::read_dir(dir).expect("the watched directory").map(|entry| entry.expect("an entry"));
        let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        let names: BTreeSet<String> = files.map(|e| e.file_name().into_string().expect("UTF-8")).collect();
        let all: BTreeSet<&String> = keys.iter().chain(&names).collect();
        for name in all {
            let path = dir.join(name);
            note(self.sizes.entry(name.clone()).or_default(), there(fs::metadata(&path)).map(|m| m.len()));
            note(self.values.entry(name.clone()).or_default(), there(fs::read(&path)));
        }
        note(&mut self.names, names);
    }
}

fn there<T>(result: std::io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => panic!("the watcher was refused: {e}"),
    }
}

fn note<T: PartialEq>(states: &mut Vec<T>, state: T) {
    if states.last() != Some(&state) {
        states.push(state);
    }
}
