//! Where things are in a store: every path of FORMAT.md is made here and nowhere else.

use crate::words::key::{BATON_DIR, META_DIR, is_reserved};
use crate::words::{Lost, Past, SessionId, Version};

/// Everything of ours begins so.
pub(super) const OURS: &str = ".baton/";
/// Our directory.
pub(super) const BATON: &str = ".baton";
/// The marker with the format's version.
pub(super) const FORMAT: &str = ".baton/format";
/// The journal.
pub(super) const JOURNAL: &str = ".baton/journal";
/// Values and sidecars on their way.
pub(super) const DRAFTS: &str = ".baton/drafts";
/// How the names of values staged again end.
pub(super) const AGAIN: &str = ".again";
/// Earlier versions.
pub(super) const HISTORY: &str = ".baton/history";
/// Log and policy of each session.
pub(super) const SESSIONS: &str = ".baton/sessions";

/// A key or directory of a session; the session itself for the empty path.
pub(super) fn value(session: &SessionId, path: &str) -> String {
    if path.is_empty() { session.as_str().to_owned() } else { format!("{session}/{path}") }
}

/// The sidecar of a key.
pub(super) fn sidecar(session: &SessionId, key: &str) -> String {
    format!("{session}/{META_DIR}/{key}.json")
}

/// The directory of the sidecars of a directory's keys.
pub(super) fn meta_dir(session: &SessionId, dir: &str) -> String {
    if dir.is_empty() { format!("{session}/{META_DIR}") } else { format!("{session}/{META_DIR}/{dir}") }
}

/// The staged value of an operation.
pub(super) fn draft(operation: &str) -> String {
    format!("{DRAFTS}/{operation}")
}

/// The staged sidecar of an operation.
pub(super) fn draft_sidecar(operation: &str) -> String {
    format!("{DRAFTS}/{operation}.meta")
}

/// The value of an operation, staged again from its record.
pub(super) fn draft_again(operation: &str) -> String {
    format!("{DRAFTS}/{operation}{AGAIN}")
}

/// The directory with the earlier versions of a key. Names get a letter before them, so that a key and a directory
/// that once had the same name do not meet.
pub(super) fn history_key(session: &SessionId, key: &str) -> String {
    match key.rsplit_once('/') {
        None => format!("{HISTORY}/{session}/k{key}"),
        Some((dir, name)) => format!("{}/k{name}", history_dir(session, dir)),
    }
}

/// The directory with the history of a directory's keys.
pub(super) fn history_dir(session: &SessionId, dir: &str) -> String {
    let mut path = format!("{HISTORY}/{session}");
    for part in dir.split('/').filter(|part| !part.is_empty()) {
        path.push_str("/d");
        path.push_str(part);
    }
    path
}

/// One earlier version of a key.
pub(super) fn history(session: &SessionId, key: &str, version: Version) -> String {
    past(session, key, Past::Version(version))
}

/// What begins the name of a draft that became no version, before the number of its change.
fn letter(lost: Lost) -> char {
    match lost {
        Lost::Dropped => 'd',
        Lost::Refused => 'r',
    }
}

/// One thing that is kept of a key.
pub(super) fn past(session: &SessionId, key: &str, past: Past) -> String {
    format!("{}/{}", history_key(session, key), past_name(past))
}

/// What a name in a key's history is; `None` for one that is nobody's.
pub(super) fn past_of(name: &str) -> Option<Past> {
    let draft = |lost| Some(Past::Draft(name.strip_prefix(letter(lost))?.parse().ok()?, lost));
    let past = draft(Lost::Dropped).or_else(|| draft(Lost::Refused));
    let past = past.or_else(|| Some(Past::Version(name.parse().ok()?)));
    // One name for each: neither `+7` nor `07`.
    past.filter(|past| past_name(*past) == name)
}

/// The name of one thing that is kept, in its key's history.
fn past_name(past: Past) -> String {
    match past {
        Past::Version(version) => version.to_string(),
        Past::Draft(seq, lost) => format!("{}{seq}", letter(lost)),
    }
}

/// The directory of what we keep of a session beside its values.
pub(super) fn session(session: &SessionId) -> String {
    format!("{SESSIONS}/{session}")
}

/// The session's log.
pub(super) fn log(session: &SessionId) -> String {
    format!("{SESSIONS}/{session}/log")
}

/// The session's table of versions.
pub(super) fn versions(session: &SessionId) -> String {
    format!("{SESSIONS}/{session}/versions")
}

/// The session's policy.
pub(super) fn policy(session: &SessionId) -> String {
    format!("{SESSIONS}/{session}/policy")
}

/// The directory a path is in; empty for the store itself.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// Is this name never a key or a directory of one? `top`: directly below a session.
pub(super) fn hidden(name: &str, top: bool) -> bool {
    is_reserved(name) || (top && name == BATON_DIR)
}
