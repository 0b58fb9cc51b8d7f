//! Each rule of the format that a disk can break, broken once: what a check must find then.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use batonfs::engine::Harm;
use batonfs::engine::local::LocalEngine;

use crate::damage::*;
use crate::engines::*;
use crate::lines::sealed;

/// A way to break a store.
pub(crate) type Damage = fn(&Path);

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) rule: &'static str,
    pub(crate) place: &'static str,
    pub(crate) harm: Harm,
    pub(crate) repairable: bool,
    /// The journal still has the last changes.
    pub(crate) journaled: bool,
    /// It is found as well while an engine has the store open.
    pub(crate) live: bool,
    /// An open engine can mend it, or not, other than a closed store's repair.
    pub(crate) open_repairable: Option<bool>,
    pub(crate) damage: Damage,
}

pub(crate) fn case(name: &'static str, rule: &'static str, place: &'static str, harm: Harm, damage: Damage) -> Case {
    Case { name, rule, place, harm, repairable: false, journaled: false, live: true, open_repairable: None, damage }
}

impl Case {
    pub(crate) fn repairable(self) -> Self {
        Self { repairable: true, ..self }
    }

    pub(crate) fn journaled(self) -> Self {
        Self { journaled: true, ..self }
    }

    pub(crate) fn open_repairable(self, can: bool) -> Self {
        Self { open_repairable: Some(can), ..self }
    }

    pub(crate) fn closed_only(self) -> Self {
        Self { live: false, ..self }
    }
}

pub(crate) fn cases_of_our_own_files() -> Vec<Case> {
    use Harm::{Damage, Leftover, Note};
    vec![
        case("a marker that is none", "F4", ".baton/format", Damage, |r| {
            fs::write(r.join(".baton/format"), "x").unwrap()
        })
        .repairable(),
        case("no marker", "F4", ".baton/format", Damage, |r| fs::remove_file(r.join(".baton/format")).unwrap())
            .repairable(),
        case("no journal", "F35", JOURNAL, Damage, |r| fs::remove_file(r.join(JOURNAL)).unwrap())
            .repairable()
            .open_repairable(false),
        case("no header", "F19", JOURNAL, Damage, |r| quietly(&r.join(JOURNAL), |j| j[..8192].fill(7)))
            .open_repairable(true),
        case("a header that does not count", "F19", JOURNAL, Damage, |r| {
            quietly(&r.join(JOURNAL), |j| j[4096..4100].fill(7));
        })
        .journaled()
        .repairable(),
        case("the header that counts", "F19", JOURNAL, Damage, |r| {
            quietly(&r.join(JOURNAL), |j| j[4096..4100].fill(7))
        })
        .repairable(),
        case("the header that counts, and its records", "F19", JOURNAL, Damage, |r| {
            let engine = LocalEngine::open(r).unwrap();
            commit(&engine, put("more", &[7; 60_000], None));
            drop(engine);
            quietly(&r.join(JOURNAL), |j| j[4096..4100].fill(7));
        })
        .closed_only(),
        case("generations that do not follow", "F19", JOURNAL, Damage, |r| {
            quietly(&r.join(JOURNAL), |j| {
                j[4096 + 16] += 5;
                let crc = crc32c::crc32c(&j[4096 + 16..4096 + 80]);
                j[4096 + 12..4096 + 16].copy_from_slice(&crc.to_le_bytes());
            });
        })
        .open_repairable(true),
        case("a durable record", "F21", JOURNAL, Damage, |r| quietly(&r.join(JOURNAL), |j| j[8192 + 40] ^= 1))
            .journaled(),
        case("a torn record", "F20", JOURNAL, Leftover, |r| add_record(r, "{}", false))
            .journaled()
            .repairable()
            .closed_only(),
        case("a record that says nothing", "F14", JOURNAL, Damage, |r| add_record(r, "{}", true)).journaled(),
        case("a change whose line is missing", "journal", JOURNAL, Note, |r| set_lines(r, &lines(r)[..9]))
            .journaled()
            .repairable()
            .closed_only(),
        case("a draft nobody needs", "F17", ".baton/drafts/left", Leftover, |r| {
            fs::write(r.join(".baton/drafts/left"), "over").unwrap();
        })
        .repairable()
        .closed_only(),
        case("a name of nobody's", "unknown", ".baton/mine", Note, |r| fs::write(r.join(".baton/mine"), "").unwrap()),
        case("a name of nobody's beside a log", "unknown", ".baton/sessions/s/mine", Note, |r| {
            fs::write(r.join(".baton/sessions/s/mine"), "").unwrap();
        }),
        case("a policy that is none", "policy", ".baton/sessions/s/policy", Damage, |r| {
            fs::write(r.join(".baton/sessions/s/policy"), "harsh\n").unwrap();
        }),
        case("a policy that the journal has", "policy", ".baton/sessions/s/policy", Damage, |r| {
            fs::write(r.join(".baton/sessions/s/policy"), "").unwrap();
        })
        .journaled()
        .repairable(),
        case("a line that is none", "F5", LOG, Damage, |r| {
            let mut lines = lines(r);
            lines[3] = "garbage".to_owned();
            set_lines(r, &lines);
        }),
        case("a line that is missing", "F5", LOG, Damage, |r| {
            let mut lines = lines(r);
            lines.remove(3);
            set_lines(r, &lines);
        }),
        case("a torn line", "F5", LOG, Leftover, |r| {
            let text = fs::read_to_string(r.join(LOG)).unwrap();
            fs::write(r.join(LOG), text + "{\"seq\":11").unwrap();
        })
        .repairable()
        .closed_only(),
        case("no log", "F5", LOG, Damage, |r| fs::remove_file(r.join(LOG)).unwrap()),
        case("an operation twice", "operation", LOG, Damage, |r| {
            let mut lines = lines(r);
            let line: serde_json::Value = serde_json::from_str(&lines[8]).unwrap();
            let other: serde_json::Value = serde_json::from_str(&lines[7]).unwrap();
            let changed = lines[8].replace(line["operation"].as_str().unwrap(), other["operation"].as_str().unwrap());
            lines[8] = sealed(&changed);
            set_lines(r, &lines);
        }),
    ]
}

pub(crate) fn cases_of_values() -> Vec<Case> {
    use Harm::{Damage, Leftover, Note};
    vec![
        case("other bytes", "F1", "s/a", Damage, |r| quietly(&r.join("s/a"), |b| b[0] ^= 1)),
        case("other bytes that the journal has", "F1", "s/a", Damage, |r| quietly(&r.join("s/a"), |b| b[0] ^= 1))
            .journaled()
            .repairable(),
        case("fewer bytes", "F1", "s/a", Damage, |r| quietly(&r.join("s/a"), |b| b.truncate(4))),
        case("fewer bytes that the journal has", "F1", "s/a", Damage, |r| quietly(&r.join("s/a"), Vec::clear))
            .journaled()
            .repairable(),
        case("more bytes than the journal has", "F1", "s/a", Damage, |r| quietly(&r.join("s/a"), |b| b.push(0)))
            .journaled()
            .repairable(),
        case("other bytes of a large value", "F1", "s/big", Damage, |r| quietly(&r.join("s/big"), |b| b[9] ^= 1))
            .journaled(),
        case("a mark that cannot be read", "F9", "s/d/e/b", Damage, |r| set_mark(&r.join("s/d/e/b"), b"{\"form\":")),
        case("a mark that is lost, and the journal has", "F9", "s/d/e/b", Damage, |r| {
            rustix::fs::removexattr(r.join("s/d/e/b"), MARK).unwrap();
        })
        .journaled()
        .repairable(),
        case("a mark that is lost", "F11", "s/d/e/b", Note, |r| {
            rustix::fs::removexattr(r.join("s/d/e/b"), MARK).unwrap();
        }),
        case("a mark of another change", "F5", "s/a", Damage, |r| remark(&r.join("s/a"), "seq", 3.into())),
        case("a mark of another writer", "F5", "s/a", Damage, |r| {
            remark(&r.join("s/a"), "writer", serde_json::json!({"writer_id": "other"}));
        }),
        case("a version that the log does not know", "F5", "s/a", Damage, |r| {
            remark(&r.join("s/a"), "version", 9.into())
        }),
        case("a copy put back", "F10", "s/a", Note, |r| {
            back_up(&r.join(".baton/history/s/ka/1"), &r.join("s/a"));
        }),
        case("a stranger's value", "F11", "s/a", Note, |r| by_rename(r, "s/a", b"theirs")),
        case("a stranger's new value", "F11", "s/x", Note, |r| by_rename(r, "s/x", b"theirs")),
        case("a value changed in place", "F11", "s/a", Note, |r| fs::write(r.join("s/a"), "theirs").unwrap()),
        case("a value deleted beside the mount", "F28", "s/a", Note, |r| {
            fs::remove_file(r.join("s/a")).unwrap();
            fs::remove_file(r.join("s/.agent_state_meta/a.json")).unwrap();
        }),
        case("a session removed beside the mount", "F28", "s", Note, |r| fs::remove_dir_all(r.join("s")).unwrap()),
        case("no sidecar", "F2", "s/.agent_state_meta/a.json", Damage, |r| {
            fs::remove_file(r.join("s/.agent_state_meta/a.json")).unwrap();
        })
        .repairable(),
        case("a torn sidecar", "F2", "s/.agent_state_meta/d/e/b.json", Damage, |r| {
            fs::write(r.join("s/.agent_state_meta/d/e/b.json"), "").unwrap();
        })
        .repairable(),
        case("a sidecar of nobody", "F3", "s/.agent_state_meta/nobody.json", Damage, |r| {
            let place = r.join("s/.agent_state_meta/nobody.json");
            fs::write(&place, "{}").unwrap();
            set_mark(&place, b" ");
        })
        .repairable(),
        case("a neighbour's sidecar of our value", "F12", "s/.agent_state_meta/a.json", Note, |r| {
            by_rename(r, "s/.agent_state_meta/a.json", b"{}");
        }),
        case("a sidecar without its value", "sidecar", "s/.agent_state_meta/x/y.json", Leftover, |r| {
            fs::create_dir(r.join("s/.agent_state_meta/x")).unwrap();
            fs::write(r.join("s/.agent_state_meta/x/y.json"), "{}").unwrap();
        })
        .repairable(),
        case("a sidecar that is none", "unknown", "s/.agent_state_meta/y", Note, |r| {
            fs::write(r.join("s/.agent_state_meta/y"), "{}").unwrap();
        }),
        case("an old temporary file", "temporary", "s/.a..agent_state_tmp.1", Leftover, |r| {
            fs::write(r.join("s/.a..agent_state_tmp.1"), "").unwrap();
            fs::write(r.join("s/.a..agent_state_tmp.2"), "of a program at work").unwrap();
            old(&r.join("s/.a..agent_state_tmp.1"));
        })
        .repairable(),
        case("an old temporary sidecar", "temporary", "s/.agent_state_meta/.a..agent_state_tmp.1", Leftover, |r| {
            fs::write(r.join("s/.agent_state_meta/.a..agent_state_tmp.1"), "").unwrap();
            old(&r.join("s/.agent_state_meta/.a..agent_state_tmp.1"));
        })
        .repairable(),
        case("other bytes in history", "F6", ".baton/history/s/ka/1", Damage, |r| {
            quietly(&r.join(".baton/history/s/ka/1"), |b| b[0] ^= 1);
        }),
        case("bytes in history that the journal has", "F6", ".baton/history/s/ka/1", Damage, |r| {
            quietly(&r.join(".baton/history/s/ka/1"), |b| b.truncate(1));
        })
        .journaled()
        .repairable(),
        case("a version without its mark", "F6", ".baton/history/s/ka/1", Damage, |r| {
            rustix::fs::removexattr(r.join(".baton/history/s/ka/1"), MARK).unwrap();
        }),
        case("a version under another number", "F6", ".baton/history/s/ka/2", Damage, |r| {
            fs::rename(r.join(".baton/history/s/ka/1"), r.join(".baton/history/s/ka/2")).unwrap();
        }),
        case("a later version than any", "F7", ".baton/history/s/kgone/5", Damage, |r| {
            remark(&r.join(".baton/history/s/kgone/1"), "version", 5.into());
            fs::rename(r.join(".baton/history/s/kgone/1"), r.join(".baton/history/s/kgone/5")).unwrap();
        }),
        case("other bytes of a lost draft", "F57", ".baton/history/s/kgone/r10", Damage, |r| {
            quietly(&r.join(".baton/history/s/kgone/r10"), |b| b[0] ^= 1);
        }),
        case("bytes of a lost draft that the journal has", "F57", ".baton/history/s/kgone/r10", Damage, |r| {
            quietly(&r.join(".baton/history/s/kgone/r10"), |b| b.truncate(1));
        })
        .journaled()
        .repairable(),
        case("a lost draft without its mark", "F57", ".baton/history/s/kgone/r10", Damage, |r| {
            rustix::fs::removexattr(r.join(".baton/history/s/kgone/r10"), MARK).unwrap();
        }),
        case("a lost draft of a later change than any", "F56", ".baton/history/s/kgone/r50", Damage, |r| {
            remark(&r.join(".baton/history/s/kgone/r10"), "seq", 50.into());
            fs::rename(r.join(".baton/history/s/kgone/r10"), r.join(".baton/history/s/kgone/r50")).unwrap();
        }),
        case("a lost draft at its key's path", "F11", "s/gone", Note, |r| {
            back_up(&r.join(".baton/history/s/kgone/r10"), &r.join("s/gone"));
        }),
        case("a name of nobody's in history", "unknown", ".baton/history/s/ka/x", Note, |r| {
            fs::write(r.join(".baton/history/s/ka/x"), "").unwrap();
        }),
        case("a symlink", "F8", "s/link", Note, |r| std::os::unix::fs::symlink("a", r.join("s/link")).unwrap()),
        case("a pipe", "F8", "s/pipe", Note, |r| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, r.join("s/pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }),
        case("a name that is not UTF-8", "F8", "s/\u{fffd}", Note, |r| {
            fs::write(r.join("s").join(OsStr::from_bytes(b"\xff")), "").unwrap();
        }),
        case("a file that is no session", "F8", "file", Note, |r| fs::write(r.join("file"), "").unwrap()),
        case("a file named as the mount's own directory", "F8", "s/.baton", Note, |r| {
            fs::create_dir(r.join("s/.baton")).unwrap();
        }),
    ]
}
