//! What a mount counts since its start, for `.baton/status`. Knows numbers only.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// When a draft is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// At the FLUSH of the last descriptor.
    Close,
    /// When somebody touched the key after its last holder had gone.
    Look,
    /// At the RELEASE.
    Release,
    /// At an fsync.
    Fsync,
    /// When an append had waited long enough.
    Age,
    /// Before a write that cannot join what is there, or after one that has made an append large.
    Write,
    /// When the mount ended.
    End,
}

const MOMENTS: [(Moment, &str); 7] = [
    (Moment::Close, "close"),
    (Moment::Look, "look"),
    (Moment::Release, "release"),
    (Moment::Fsync, "fsync"),
    (Moment::Age, "age"),
    (Moment::Write, "write"),
    (Moment::End, "end"),
];

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Counters {
    committed: [AtomicU64; MOMENTS.len()],
    /// Drafts dropped.
    pub(super) dropped: AtomicU64,
    /// Drafts refused.
    pub(super) refused: AtomicU64,
    /// Looks at a caller that did not show its process, or kept its descriptors hidden.
    pub(super) unseen: AtomicU64,
}

impl Counters {
    pub(super) fn committed(&self, moment: Moment) {
        let counters = MOMENTS.iter().zip(&self.committed);
        for (_, counter) in counters.filter(|((known, _), _)| *known == moment) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many drafts were committed at each moment.
    pub(super) fn by_moment(&self) -> BTreeMap<&'static str, u64> {
        let counters = MOMENTS.iter().zip(&self.committed);
        counters.map(|(&(_, name), counter)| (name, counter.load(Ordering::Relaxed))).collect()
    }
}
