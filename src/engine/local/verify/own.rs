//! Our own directory: the marker, drafts that nobody needs, names that are nobody's. Knows names; must not know values.

use std::io::ErrorKind;

use super::mend::Mend;
use super::{Fault, Scan, shown};
use crate::engine::local::disk::{Access, Form};
use crate::engine::local::marker::{FORMAT, Says};
use crate::engine::local::{marker, paths, stage};

/// The rule of a finding that nothing more can be said after: a newer version wrote the store.
pub(super) const NEWER: &str = "newer";
/// Longer is no marker.
const MARKER_MAX_BYTES: u64 = 1 << 10;
/// What may lie in our directory: what FORMAT.md lists, and what a process that holds the store keeps there.
const NAMES: [&str; 9] =
    ["format", "journal", "drafts", "history", "sessions", "lock", "socket", "daemon.log", "daemon.log.1"];

impl Scan<'_, '_> {
    /// `false`: the store is a newer version's, and no rule known here speaks of it.
    pub(super) fn check_marker(&mut self) -> bool {
        let text = match self.disk.open(paths::FORMAT, Access::Read) {
            Ok(file) if file.stat().is_ok_and(|stat| stat.size_bytes > MARKER_MAX_BYTES) => vec![0],
            Ok(file) => match stage::read_whole(&*file, paths::FORMAT) {
                Ok(text) => text,
                Err(e) => {
                    self.found(Fault::unreadable(paths::FORMAT, &e));
                    return true;
                }
            },
            Err(e) if e.kind() == ErrorKind::NotFound => {
                // A store that nobody has opened yet has none.
                if self.disk.stat(paths::JOURNAL).is_ok() {
                    let remedy = "it can be made anew: the journal tells the format";
                    self.found(Fault::damage("F4", paths::FORMAT, "it is gone", remedy).mended_by(Mend::Marker));
                }
                return true;
            }
            Err(e) => {
                self.found(Fault::unreadable(paths::FORMAT, &e));
                return true;
            }
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        match marker::read(&text) {
            Says::Ours => true,
            Says::Newer(newer) => {
                let what =
                    format!("the store has format {newer}, this batonfs knows {FORMAT}: nothing else was checked");
                self.found(Fault::damage(NEWER, paths::FORMAT, what, "use the version of batonfs that wrote it"));
                false
            }
            Says::Nothing => {
                self.damaged_marker(&text);
                true
            }
        }
    }

    fn damaged_marker(&mut self, text: &str) {
        let words = text.trim_end().chars().take(40).collect::<String>();
        let what = format!("'{}' is not the marker of a store", words.escape_default());
        let remedy = "it can be made anew: the journal tells the same format";
        let fault = Fault::damage("F4", paths::FORMAT, what, remedy);
        let known = self.disk.open(paths::JOURNAL, Access::Read).ok().and_then(|file| {
            crate::engine::local::journal::inspect(&*file).ok()?.generations.into_iter().flatten().next()
        });
        self.found(match known {
            Some(_) => fault.mended_by(Mend::Marker),
            None => fault,
        });
    }

    /// Names in our directory, and the drafts of a store that nobody has open.
    pub(super) fn check_own_names(&mut self) {
        for (name, _) in self.names(paths::BATON) {
            let name = shown(&name);
            if !NAMES.contains(&name.as_str()) {
                self.unknown(&format!("{}/{name}", paths::BATON));
            }
        }
        // An open engine has drafts and spares in use; it cleared what was left before it began.
        if self.live.is_none() {
            self.check_drafts();
        }
    }

    fn check_drafts(&mut self) {
        let mut spares = 0_u64;
        for (name, form) in self.names(paths::DRAFTS) {
            let name = shown(&name);
            let needed = self.way.needs(&name);
            if form == Form::File && (name.ends_with(".spare") || name.ends_with(".meta") && !needed) {
                spares += 1;
            } else if !needed {
                let remedy = "nobody needs it; the next opening of the store removes it";
                let fault =
                    Fault::leftover("F17", &paths::draft(&name), "a draft of a change that was not made", remedy);
                self.found(fault.mended_by(Mend::Opening));
            }
        }
        if spares > 0 {
            let remedy = "they are removed when the store is opened the next time";
            let what = format!("{spares} files were kept to be written again");
            self.found(Fault::leftover("spare", paths::DRAFTS, what, remedy).mended_by(Mend::Opening));
        }
    }
}
