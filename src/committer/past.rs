//! Looking back: the versions of a key that are kept, the changes of a session, its refusals. Changes nothing.

use std::ops::ControlFlow;

use super::perform::{Answer, Committer, Peer, no_key, over};
use super::refusal::{Refusal, RefusalKind};
use super::request::{Call, Refused, Reply, Shown, Wanted};
use crate::engine::Snapshot;
use crate::store::Store;
use crate::words::{Claim, Key, Seq, SessionId, Version};

/// So many lines are in one answer: more are asked for when these have been read, and nothing is held until then.
const LINES_MAX: usize = 4096;
/// So many are looked at for one answer: who asks is to hear something.
const LOOKED_AT_MAX: usize = 32_768;

/// The newest version of a key, without its bytes.
pub(super) fn head(store: &Store, session: &SessionId, key: &Key) -> Result<Answer, Refusal> {
    store.resume(session)?;
    let head = store.engine().head(session, key)?;
    Ok(Reply::Head(head.map(|head| Shown {
        version: head.version,
        seq: head.seq,
        size_bytes: head.size_bytes,
        committed_at_s: head.committed_at_s,
        writer: head.writer,
    }))
    .into())
}

/// The versions whose bytes are kept.
pub(super) fn kept(store: &Store, session: &SessionId, key: &Key) -> Result<Answer, Refusal> {
    store.resume(session)?;
    Ok(Reply::Kept(store.engine().versions(session, key)?).into())
}

/// One version with its bytes.
///
/// # Errors
/// NotFound, with words that name the versions that are kept.
pub(super) fn version(store: &Store, session: &SessionId, key: &Key, version: Version) -> Result<Snapshot, Refusal> {
    store.resume(session)?;
    if let Some(snapshot) = store.engine().open_version(session, key, version)? {
        return Ok(snapshot);
    }
    let kept = store.engine().versions(session, key)?;
    if kept.is_empty() {
        return Err(no_key(session, key));
    }
    let words = format!("version {version} of key '{key}' is not kept; kept: {}", ranges(&kept));
    Err(Refusal::new(RefusalKind::NotFound, words))
}

/// `1-3, 5` for 1, 2, 3 and 5.
fn ranges(versions: &[Version]) -> String {
    let mut ranges: Vec<(Version, Version)> = Vec::new();
    for version in versions {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*version) => *last = *version,
            _ => ranges.push((*version, *version)),
        }
    }
    let shown = |(first, last): &(Version, Version)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// The changes after `after` that are wanted, or the first part of them.
pub(super) fn changes(store: &Store, session: &SessionId, after: Seq, wanted: &Wanted) -> Result<Answer, Refusal> {
    let (mut lines, mut upto, mut looked_at, mut more) = (Vec::new(), after, 0, false);
    store.engine().each_change(session, after, &mut |line| {
        more = lines.len() == LINES_MAX || looked_at == LOOKED_AT_MAX;
        if more {
            return ControlFlow::Break(());
        }
        (upto, looked_at) = (line.seq, looked_at + 1);
        if wanted.takes(&line) {
            lines.push(line);
        }
        ControlFlow::Continue(())
    })?;
    Ok(Reply::Changes { lines, upto, more }.into())
}

/// The last refusal of who asks: of the writer that is declared, or else of the user.
pub(super) fn refusal(
    at: Committer<'_>,
    peer: Peer,
    call: &Call,
    session: Option<&SessionId>,
) -> Result<Answer, Refusal> {
    let Some(host) = at.host else {
        let words = "refusals are kept by the mount, in memory, and this store is not mounted";
        return Err(Refusal::new(RefusalKind::NotFound, words));
    };
    let declared = over(&call.claim, call.environment.claim.clone());
    let refused = host.refusals(session).into_iter().filter(|refused| is_of(refused, &declared, peer.uid));
    Ok(Reply::Refusal(refused.max_by_key(|refused| refused.time_ms)).into())
}

fn is_of(refused: &Refused, declared: &Claim, uid: u32) -> bool {
    if declared.is_empty() {
        return refused.uid == Some(uid);
    }
    declared.writer(&refused.session_id).writer_id == refused.writer.writer_id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_follow_each_other_are_told_as_one_range() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[7]), "7");
        assert_eq!(ranges(&[1, 2, 3, 5, 8, 9, Version::MAX]), format!("1-3, 5, 8-9, {}", Version::MAX));
    }
}
