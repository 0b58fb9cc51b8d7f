//! What the engine in memory keeps of the past: versions that were replaced, drafts that became none.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Session, Value, now};
use crate::engine::{Attributes, Head, Result, Staged};
use crate::words::{Dir, Key, Past, Version, Writer};

impl Value {
    fn is_older(&self, than: SystemTime) -> bool {
        self.kept_at.is_some_and(|kept_at| kept_at < than)
    }
}

impl Session {
    pub(super) fn remember(&mut self, key: &Key, value: Value, newest: Version) {
        let keep = self.keep;
        let kept = self.history.entry(key.to_string()).or_default();
        let last = value.head.version;
        kept.push_back((last, Value { kept_at: Some(SystemTime::now()), ..value }));
        // But for the one that was there just before.
        kept.retain(|(version, _)| *version == last || !keep.is_past(*version, newest));
    }

    pub(super) fn keep_lost(
        &mut self,
        key: &Key,
        past: Past,
        content: &Staged,
        attributes: Attributes,
        writer: &Writer,
    ) -> Result<()> {
        let bytes = Arc::new(content.read_all()?);
        let head = Head {
            version: 0,
            appends_since: 0,
            seq: self.next_seq(),
            size_bytes: bytes.len() as u64,
            writer: writer.clone(),
            committed_at_s: now().as_secs(),
            attributes,
        };
        let of_key = self.lost.entry(key.to_string()).or_default();
        of_key.insert(past, Value { head, bytes, kept_at: Some(SystemTime::now()) });
        for _ in 0..self.keep.too_many(of_key.len()) {
            of_key.pop_first();
        }
        Ok(())
    }

    /// One thing that is kept of a key.
    pub(super) fn kept(&self, key: &Key, past: Past) -> Option<&Value> {
        let Past::Version(version) = past else { return self.lost.get(key.as_str())?.get(&past) };
        let current = self.values.get(key.as_str()).filter(|value| value.head.version == version);
        let before = || self.history.get(key.as_str())?.iter().find(|(v, _)| *v == version).map(|(_, value)| value);
        current.or_else(before)
    }

    /// Everything that is kept of a key, the newest version among it.
    pub(super) fn past(&self, key: &Key) -> Vec<Past> {
        let kept = self.history.get(key.as_str()).into_iter().flatten().map(|(version, _)| *version);
        let versions = kept.chain(self.values.get(key.as_str()).map(|value| value.head.version)).map(Past::Version);
        let lost = self.lost.get(key.as_str()).into_iter().flat_map(|lost| lost.keys().copied());
        versions.chain(lost).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The names in a directory under which something other than a newest version is kept.
    pub(super) fn past_names(&self, dir: &Dir) -> Vec<String> {
        let prefix = if dir.is_root() { String::new() } else { format!("{dir}/") };
        let kept = self.history.iter().filter(|(_, kept)| !kept.is_empty()).map(|(path, _)| path);
        let below = kept.chain(self.lost.keys()).filter_map(|path| path.strip_prefix(&prefix));
        let names = below.filter_map(|path| path.split('/').next().map(str::to_owned));
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Forgets what became past before a time; how many things.
    pub(super) fn forget(&mut self, before: SystemTime) -> u64 {
        let mut forgotten = 0;
        let mut stays = |value: &Value| {
            forgotten += u64::from(value.is_older(before));
            !value.is_older(before)
        };
        self.history.values_mut().for_each(|kept| kept.retain(|(_, value)| stays(value)));
        self.lost.values_mut().for_each(|lost| lost.retain(|_, value| stays(value)));
        self.history.retain(|_, kept| !kept.is_empty());
        self.lost.retain(|_, lost| !lost.is_empty());
        forgotten
    }
}
