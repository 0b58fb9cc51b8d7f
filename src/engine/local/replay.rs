//! What all records of a journal say together, for publishing each of them again: which files were staged for which
//! versions, and how far appends go. Knows records; must not know what is on the disk.

use std::collections::{HashMap, HashSet};

use super::disk::FileId;
use super::record::{Act, LostDraft, Record};
use crate::words::{Key, Seq, SessionId, Version};

/// The records of a journal, as publication needs them.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// What was written since the last checkpoint may be lost or torn, in any order.
    pub(super) lost: bool,
    files: HashMap<FileId, Vec<Served>>,
    sidecars: HashSet<FileId>,
    appends: HashMap<(SessionId, Key), Vec<Grown>>,
    /// The last record that removes a directory.
    removed: HashMap<(SessionId, String), Seq>,
    /// Of each session the first record and the last.
    seqs: HashMap<SessionId, (Seq, Seq)>,
    pub(super) records: u64,
}

/// What a file was for.
#[derive(Debug)]
struct Served {
    session: SessionId,
    key: Key,
    version: Version,
    /// A program beside the store made it this version, whatever it was before.
    adopted: bool,
}

impl Served {
    fn is_for(&self, session: &SessionId, key: &Key) -> bool {
        (&self.session, &self.key) == (session, key)
    }
}

#[derive(Debug)]
struct Grown {
    over: Version,
    version: Version,
    end: u64,
}

/// What a file is known to be, whatever a crash has left of its mark and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It was staged for exactly this version of the key.
    This,
    /// For an earlier one.
    Before(Version),
    /// For a later one.
    Later,
    /// For other keys only: its bytes and its mark may be theirs.
    Another,
}

impl Replay {
    /// Of no records yet.
    pub(super) fn new(lost: bool) -> Self {
        Self { lost, ..Self::default() }
    }

    /// Takes the next record in.
    pub(super) fn note(&mut self, record: &Record) {
        let session = &record.session;
        self.records += 1;
        // Where the file system tells no time of birth, a number may be another file's by now.
        self.sidecars.extend(record.sidecar.filter(|file| file.born_ns != 0));
        self.seqs.entry(session.clone()).or_insert((record.seq, record.seq)).1 = record.seq;
        match &record.act {
            Act::Put(value) | Act::Rename { value, .. } => {
                self.served(session, &value.key, value.version, value.file, false);
            }
            Act::Adopt { key, version, file, .. } => self.served(session, key, *version, *file, true),
            // Version 0: in a key's place, where the loss of a rename may show it, it is older than any.
            Act::Drop(LostDraft { value: Some(value), .. }) => self.served(session, &value.key, 0, value.file, false),
            Act::Append(append) => {
                let end = append.offset.saturating_add(append.len);
                let grown = Grown { over: append.over, version: append.version, end };
                self.appends.entry((session.clone(), append.key.clone())).or_default().push(grown);
            }
            Act::RemoveDir { dir } => drop(self.removed.insert((session.clone(), dir.to_string()), record.seq)),
            _ => {}
        }
    }

    /// The last change that removes a directory.
    pub(super) fn removes_dir(&self, session: &SessionId, dir: &str) -> Option<Seq> {
        self.removed.get(&(session.clone(), dir.to_owned())).copied()
    }

    /// Was a sidecar of ours staged in it?
    pub(super) fn is_sidecar(&self, file: FileId) -> bool {
        self.sidecars.contains(&file)
    }

    fn served(&mut self, session: &SessionId, key: &Key, version: Version, file: FileId, adopted: bool) {
        let served = Served { session: session.clone(), key: key.clone(), version, adopted };
        self.files.entry(file).or_default().push(served);
    }

    /// The sessions, with the first record and the last of each.
    pub(super) fn sessions(&self) -> impl Iterator<Item = (&SessionId, Seq, Seq)> {
        self.seqs.iter().map(|(session, (first, last))| (session, *first, *last))
    }

    /// What is known of a file, as seen from a version of a key; `None`: nothing.
    pub(super) fn known(&self, file: FileId, session: &SessionId, key: &Key, version: Version) -> Option<Known> {
        let staged = self.files.get(&file)?;
        if self.is_changed(file, session, key, version) {
            return Some(Known::Later);
        }
        let of_key = staged.iter().filter(|served| served.is_for(session, key)).map(|served| served.version);
        // A file can serve twice. Taken for the earlier one it is only replaced once more.
        Some(match (of_key.clone().find(|v| *v == version), of_key.clone().filter(|v| *v < version).max()) {
            (Some(_), _) => Known::This,
            (None, Some(before)) => Known::Before(before),
            (None, None) if of_key.count() > 0 => Known::Later,
            (None, None) => Known::Another,
        })
    }

    /// Has a program beside the store made a later version of the key of it, by changing it in place? It is what it became,
    /// also where it has the mark of before, which power may have left it.
    pub(super) fn is_changed(&self, file: FileId, session: &SessionId, key: &Key, version: Version) -> bool {
        let is_later = |served: &Served| served.adopted && served.version > version && served.is_for(session, key);
        self.files.get(&file).is_some_and(|staged| staged.iter().any(is_later))
    }

    /// How long a file that is marked as this version may be by appends that were committed to it; `None`: there are none.
    pub(super) fn appended(&self, session: &SessionId, key: &Key, to: Version) -> Option<u64> {
        let grown = self.appends.get(&(session.clone(), key.clone()))?;
        let mut chain = None;
        let mut at = to;
        for step in grown.iter().skip_while(|step| step.over != to) {
            if step.over != at {
                break;
            }
            (at, chain) = (step.version, Some(step.end));
        }
        chain
    }
}
