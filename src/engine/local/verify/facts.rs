//! What a session's log says of each key: the last version it had, and what is in its place now. Knows lines; must not
//! know the disk.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::words::{LogLine, Op, Seq, Version, Writer};

/// What the log says of one session. A writer is kept as 64 bits of hash: there are as many as keys.
#[derive(Debug)]
pub(super) struct Facts {
    keys: BTreeMap<String, Fact>,
    last: Seq,
    /// Were all lines there? Else nothing is compared with them.
    pub(super) whole: bool,
    /// A value whose change comes after the last line: it, and its place in the order.
    pub(super) ahead: Option<(Seq, String)>,
}

/// What it says of one key.
#[derive(Debug, Default)]
struct Fact {
    last: Version,
    /// The change that gave it.
    told: Seq,
    live: Option<Live>,
    seen: bool,
}

/// The version that should be in a key's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live {
    pub(super) version: Version,
    pub(super) seq: Seq,
    pub(super) size: Option<u64>,
    writer: u64,
    /// The second its sidecar tells.
    pub(super) at_s: u64,
}

impl Live {
    /// Did this writer make it?
    pub(super) fn is_by(&self, writer: &Writer) -> bool {
        self.writer == hash(writer)
    }
}

fn hash(writer: &Writer) -> u64 {
    let mut hasher = DefaultHasher::new();
    writer.hash(&mut hasher);
    hasher.finish()
}

impl Facts {
    pub(super) fn new() -> Self {
        Self { keys: BTreeMap::new(), last: 0, whole: true, ahead: None }
    }

    /// The number of the last line.
    pub(super) fn last(&self) -> Seq {
        self.last
    }

    /// Takes the next line in. `Some`: the version the key had before, which this line's does not come after.
    pub(super) fn note(&mut self, line: &LogLine) -> Option<Version> {
        self.last = line.seq;
        let live = |version| Live {
            version,
            seq: line.seq,
            size: line.size_bytes,
            writer: hash(&line.writer),
            at_s: line.time_ms / 1000,
        };
        match (line.op, &line.to, line.version) {
            (Op::Rename, Some(to), None) => {
                self.move_dir(&line.key, to);
                None
            }
            (Op::Rename, Some(to), Some(version)) => {
                self.gone(&line.key);
                self.raise(to, live(version))
            }
            (_, None, Some(version)) => self.raise(&line.key, live(version)),
            (Op::Delete, ..) => {
                self.gone(&line.key);
                None
            }
            (Op::Declare, ..) => {
                if let Some(Fact { live: Some(live), .. }) = self.keys.get_mut(&line.key) {
                    (live.writer, live.at_s) = (hash(&line.writer), line.time_ms / 1000);
                }
                None
            }
            (Op::Rmdir, ..) => {
                self.empty(&line.key);
                None
            }
            _ => None,
        }
    }

    /// The last version a key had; 0 when none is known.
    pub(super) fn last_of(&self, key: &str) -> Version {
        self.keys.get(key).map_or(0, |fact| fact.last)
    }

    /// The last versions that keys got by changes up to one.
    pub(super) fn upto(&self, seq: Seq) -> impl Iterator<Item = (&str, Version)> {
        let told = self.keys.iter().filter(move |(_, fact)| fact.told <= seq && fact.last > 0);
        told.map(|(key, fact)| (key.as_str(), fact.last))
    }

    /// What should be in a key's place.
    pub(super) fn live(&self, key: &str) -> Option<Live> {
        self.keys.get(key)?.live
    }

    /// Something is in a key's place.
    pub(super) fn see(&mut self, key: &str) {
        if let Some(fact) = self.keys.get_mut(key) {
            fact.seen = true;
        }
    }

    /// A key that should be in its place and was not seen there; what is known of it is given up.
    pub(super) fn take_missing(&mut self) -> Option<(String, Live)> {
        while let Some((key, fact)) = self.keys.pop_first() {
            if let Some(live) = fact.live.filter(|_| !fact.seen) {
                return Some((key, live));
            }
        }
        None
    }

    fn raise(&mut self, key: &str, live: Live) -> Option<Version> {
        let fact = self.keys.entry(key.to_owned()).or_default();
        let before = Some(fact.last).filter(|last| live.version <= *last);
        if before.is_none() {
            (fact.last, fact.told) = (live.version, live.seq);
        }
        fact.live = Some(live);
        before
    }

    fn gone(&mut self, key: &str) {
        if let Some(fact) = self.keys.get_mut(key) {
            fact.live = None;
        }
    }

    fn below<'a>(&'a self, dir: &str) -> impl Iterator<Item = (&'a String, &'a Fact)> + use<'a> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        self.keys.range(prefix.clone()..).take_while(move |(key, _)| key.starts_with(&prefix))
    }

    /// A directory that is removed had nothing more in it, whatever was deleted beside the mount before.
    fn empty(&mut self, dir: &str) {
        let there: Vec<_> =
            self.below(dir).filter(|(_, fact)| fact.live.is_some()).map(|(key, _)| key.clone()).collect();
        there.iter().for_each(|key| self.gone(key));
    }

    /// What is below a renamed directory goes with it; its old names keep their numbers too.
    fn move_dir(&mut self, from: &str, to: &str) {
        if from == to {
            return;
        }
        self.empty(to);
        let seq = self.last;
        let moved: Vec<_> = self.below(from).map(|(key, fact)| (key.clone(), fact.last, fact.live)).collect();
        for (key, last, live) in moved {
            self.gone(&key);
            let Some(rest) = key.strip_prefix(from) else { continue };
            let fact = self.keys.entry(format!("{to}{rest}")).or_default();
            fact.live = live;
            if last > fact.last {
                (fact.last, fact.told) = (last, seq);
            }
        }
    }
}
