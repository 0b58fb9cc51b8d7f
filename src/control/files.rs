//! What each control file reads as, and what writing a switch does.

use std::ops::ControlFlow;

use super::{Context, Result};
use crate::engine::{Attributes, EngineError};
use crate::handoff;
use crate::words::{Handle, Policy, SessionId};

/// How many lines of a log are read at a time.
const PAGE_LINES: usize = 512;

/// A UUID and a line end.
pub(super) const NEW_BYTES: u64 = 37;

/// A fresh session's id; the session is made by the read.
pub(super) fn new(context: &Context<'_>) -> Result<Vec<u8>> {
    let session = SessionId::fresh();
    let (uid, gid) = context.owner;
    let attributes = Attributes {
        mode: 0o755,
        uid,
        gid,
        mtime: std::time::SystemTime::now(),
        xattrs: std::collections::BTreeMap::new(),
    };
    context.store.init(&session, attributes, context.caller)?;
    Ok(format!("{session}\n").into_bytes())
}

/// Version, store, mount, engine and counters, as one JSON document.
pub(super) fn status(context: &Context<'_>) -> Result<Vec<u8>> {
    Ok(document(&serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "store": context.store.root(),
        "engine": context.store.engine().name(),
        "mount": context.mount,
    })))
}

/// The latest handoff of every session whose handoff the reader may read, a JSON object a line.
pub(super) fn handoffs(context: &Context<'_>) -> Result<Vec<u8>> {
    let may = |attributes: &Attributes, bit| attributes.allows(context.owner, bit);
    let readable = |session: &Attributes, handoff: &Attributes| may(session, 0o1) && may(handoff, 0o4);
    Ok(lines(&handoff::latest(context.store, readable)?))
}

/// The refusals after a number, a JSON object a line.
pub(super) fn errors(context: &Context<'_>, after: u64, text: &mut Vec<u8>) -> Result<u64> {
    let mut last = after;
    for (number, line) in context.errors.after(session(context)?, after) {
        if is_shown(context, line.writer.writer_id.as_deref()) {
            push_line(text, &line);
        }
        last = number;
    }
    Ok(last)
}

/// The handle of the calling process.
pub(super) fn handle(context: &Context<'_>) -> Result<Vec<u8>> {
    let session = session(context)?;
    let policy = context.store.policy_for(session, context.caller.policy)?;
    let (backend, root) = (context.store.engine().name(), context.store.root());
    Ok(document(&Handle::new(backend, root, session, policy, context.caller.author.writer.clone())))
}

/// A page of the session's log after a change, a JSON object a line.
pub(super) fn log(context: &Context<'_>, after: u64, text: &mut Vec<u8>) -> Result<u64> {
    let (mut last, mut left) = (after, PAGE_LINES);
    context.store.engine().each_change(session(context)?, after, &mut |line| {
        if is_shown(context, line.writer.writer_id.as_deref()) {
            push_line(text, &line);
        }
        (last, left) = (line.seq, left - 1);
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(last)
}

/// The session's policy.
pub(super) fn policy(context: &Context<'_>) -> Result<Vec<u8>> {
    Ok(format!("{}\n", context.store.engine().policy(session(context)?)?).into_bytes())
}

/// Refuses what is the beginning of no policy.
pub(super) fn check_policy(text: &str) -> Result<()> {
    Ok(Policy::parse_begun(text)?)
}

/// Sets the session's policy.
pub(super) fn set_policy(context: &Context<'_>, text: &str) -> Result<()> {
    let session = session(context)?;
    context.store.set_policy(session, Policy::parse(text)?, context.caller)
}

/// Is what this writer did for this reader?
fn is_shown(context: &Context<'_>, writer_id: Option<&str>) -> bool {
    context.only.is_none_or(|only| writer_id == Some(only))
}

fn session<'a>(context: &Context<'a>) -> Result<&'a SessionId> {
    context.session.ok_or_else(|| EngineError::NoSession("the mount itself".to_owned()).into())
}

fn document(value: &impl serde::Serialize) -> Vec<u8> {
    // Serialising strings and numbers into memory cannot fail.
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

fn lines<T: serde::Serialize>(of: &[T]) -> Vec<u8> {
    let mut text = Vec::new();
    of.iter().for_each(|line| push_line(&mut text, line));
    text
}

fn push_line(text: &mut Vec<u8>, line: &impl serde::Serialize) {
    // Serialising strings and numbers into memory cannot fail.
    text.extend(serde_json::to_vec(line).unwrap_or_default());
    text.push(b'\n');
}
