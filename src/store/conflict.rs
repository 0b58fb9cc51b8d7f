//! The conflict rule: when a write meets another writer's value. Pure; source of the rule and its words: the
//! neighbour's `agent_state` (harn-vm 0.7.26), except [`outdated`], which is ours.

use super::error::StoreError;
use crate::engine::Head;
use crate::words::{Key, Policy, Version, Writer};

/// Judges a write of `key` by `writer` over `head`.
///
/// A conflict exists only when the value has a recorded writer, neither record is empty, and both `writer_id` are
/// present and differ as strings. `Ok(Some(words))` is a conflict that `warn` accepts and logs.
///
/// # Errors
/// [`StoreError::Conflict`] under `error`.
pub fn judge(key: &Key, head: Option<&Head>, writer: &Writer, policy: Policy) -> Result<Option<String>, StoreError> {
    let Some(head) = head else { return Ok(None) };
    if !differs(&head.writer, writer) {
        return Ok(None);
    }
    apply(policy, || StoreError::Conflict {
        key: key.to_string(),
        previous: head.writer.display_name().to_owned(),
        current: writer.display_name().to_owned(),
    })
}

/// Judges a draft that edits version `base` when the current one is another, whoever wrote it.
///
/// # Errors
/// [`StoreError::Outdated`] under `error`.
pub fn outdated(key: &Key, head: Option<&Head>, base: Version, policy: Policy) -> Result<Option<String>, StoreError> {
    let current = head.map_or(0, |head| head.version);
    if current == base {
        return Ok(None);
    }
    apply(policy, || StoreError::Outdated {
        key: key.to_string(),
        base,
        current,
        by: head.map_or("a delete", |head| head.writer.display_name()).to_owned(),
    })
}

fn differs(previous: &Writer, current: &Writer) -> bool {
    !previous.is_empty()
        && !current.is_empty()
        && matches!((&previous.writer_id, &current.writer_id), (Some(a), Some(b)) if a != b)
}

fn apply(policy: Policy, conflict: impl FnOnce() -> StoreError) -> Result<Option<String>, StoreError> {
    match policy {
        Policy::Ignore => Ok(None),
        Policy::Warn => Ok(Some(conflict().to_string())),
        Policy::Error => Err(conflict()),
    }
}
