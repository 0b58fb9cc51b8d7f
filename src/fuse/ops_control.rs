//! Control files on the mount: how the kernel finds, opens and sets them. What they say is in [`crate::control`].

use super::errno::Refusal;
use super::fs::{Asker, Filesystem, Place, Reply, Stat};
use super::handles::{Lines, State};
use super::inodes::{Ino, ROOT, Role};
use super::ops_tree::{dir_stat, file_stat};
use super::views::View;
use crate::control::{self, Control, ErrorLine};
use crate::engine::{Attributes, DirEntry, Kind, Staged};
use crate::identity::Observed;
use crate::store::past::HISTORY;
use crate::store::{Caller, Committed};
use crate::words::{Author, SessionId};

/// The directory of writer views, in the mount's own control directory.
const VIEWS_DIR: &str = "as";

fn has_views(view: View, scope: Option<&SessionId>) -> bool {
    view.is_plain() && scope.is_none()
}

impl Filesystem {
    /// What a name in a control directory is. In a view nothing makes a session of itself, and there are no further views.
    pub(super) fn control_role(&self, view: View, dir: Ino, name: &str) -> Reply<Role> {
        let scope = self.control_scope(dir)?;
        if has_views(view, scope.as_ref()) && name == VIEWS_DIR {
            return Ok(Role::Views);
        }
        if scope.is_some() && name == HISTORY {
            return Ok(Role::PastDir);
        }
        let found = control::find(scope.as_ref(), name).filter(|control| view.is_plain() || !control.makes());
        found.map(|_| Role::Control).ok_or_else(|| Refusal::not_found(name))
    }

    pub(super) fn control_entries(&self, view: View, dir: Ino) -> Reply<Vec<DirEntry>> {
        let scope = self.control_scope(dir)?;
        let entry = |name: &str, kind| DirEntry { name: name.to_owned(), kind };
        let there = |name: &&str| matches!(self.control_role(view, dir, name), Ok(Role::Control));
        let files = control::names(scope.as_ref()).filter(there).map(|name| entry(name, Kind::File));
        let views = has_views(view, scope.as_ref()).then(|| entry(VIEWS_DIR, Kind::Dir));
        let past = scope.is_some().then(|| entry(HISTORY, Kind::Dir));
        Ok(files.chain(views).chain(past).collect())
    }

    /// The session whose control directory this is; `None` for the mount's own.
    fn control_scope(&self, dir: Ino) -> Reply<Option<SessionId>> {
        let parent = self.inodes.parent(dir);
        if parent == ROOT { Ok(None) } else { Ok(Some(self.place(parent)?.session)) }
    }

    pub(super) fn control_stat(&self, asker: Asker, ino: Ino) -> Reply<Stat> {
        let parent = self.inodes.parent(ino);
        if let Role::ControlDir | Role::Views = self.role(ino)? {
            let of = if self.is_views(ino) { ROOT } else { parent };
            let attributes = self.dir_attributes(of)?;
            return Ok(dir_stat(ino, Attributes { mode: attributes.mode & !0o222, ..attributes }));
        }
        let of = self.inodes.parent(parent);
        let attributes = self.dir_attributes(of)?;
        let control = self.control_of(ino)?.0;
        let mode = match (control.is_switch(), control.makes()) {
            (true, _) if asker.view.is_plain() => attributes.mode & 0o666,
            // Reading it makes a session: that is for who could make it by name, the writers of the directory.
            (_, true) => (attributes.mode & 0o222) << 1,
            _ => attributes.mode & 0o444,
        };
        let size =
            self.with_control(&self.observe(asker)?, asker, ino, |control, context| control.size_bytes(context))?;
        Ok(file_stat(ino, size, Attributes { mode, ..attributes }))
    }

    /// Is this a control file, something in history, or a directory of them? What they show takes a look at the caller, or
    /// at very many bytes.
    #[must_use]
    pub fn is_control(&self, ino: Ino) -> bool {
        matches!(self.inodes.role(ino), Some(Role::Control | Role::ControlDir | Role::Past | Role::PastDir))
    }

    fn control_of(&self, ino: Ino) -> Reply<(&'static Control, Option<SessionId>)> {
        let (dir, name) = self.inodes.name(ino).ok_or_else(|| Refusal::not_found(format!("node {ino}")))?;
        let scope = self.control_scope(dir)?;
        let control = control::find(scope.as_ref(), &name).ok_or_else(|| Refusal::not_found(&name))?;
        Ok((control, scope))
    }

    fn with_control<T>(
        &self,
        seen: &Observed,
        asker: Asker,
        ino: Ino,
        then: impl FnOnce(&Control, &control::Context<'_>) -> control::Result<T>,
    ) -> Reply<T> {
        let (control, scope) = self.control_of(ino)?;
        // The mount's own files are of no session: who makes one belongs to that one.
        let session = scope.clone().unwrap_or_else(SessionId::fresh);
        let caller = self.caller_seen(&session, seen);
        let only = self.views.writer(asker.view)?;
        let context = control::Context {
            store: &self.store,
            session: scope.as_ref(),
            mount: self.mount_state(),
            errors: &self.errors,
            sizes: &self.sizes,
            only: only.as_deref(),
            caller: &caller,
            owner: (asker.uid, asker.gid),
        };
        Ok(then(control, &context)?)
    }

    /// Reads lines of a control file that grows. What was read before is not held: reading on costs the lines alone.
    pub(super) fn read_lines(&self, ino: Ino, lines: &mut Lines, offset: u64, size: usize) -> Reply<Vec<u8>> {
        if offset < lines.start {
            lines.pages.truncate(lines.pages.partition_point(|&(start, _)| start <= offset));
            (lines.start, lines.last) = lines.pages.pop().unwrap_or_default();
            lines.text.clear();
        }
        let (asker, by) = lines.by.clone();
        loop {
            let held = lines.text.len() as u64;
            let from = offset.saturating_sub(lines.start).min(held) as usize;
            if held - from as u64 >= size as u64 {
                break;
            }
            lines.start += from as u64;
            lines.text.drain(..from);
            let (last, text) = (lines.last, &mut lines.text);
            let before = text.len();
            let next = self
                .with_control(&by, asker, ino, |control, context| control.next_lines(context, last, text))
                // What came before the error comes again.
                .inspect_err(|_| lines.text.truncate(before))?;
            if next == last {
                break;
            }
            lines.begins(lines.start + before as u64, last);
            lines.last = next;
        }
        let from = offset.saturating_sub(lines.start).min(lines.text.len() as u64) as usize;
        Ok(lines.text.iter().skip(from).take(size).copied().collect())
    }

    /// Opens a control file: what it reads as is made now, but for one that grows.
    pub(super) fn open_control(&self, asker: Asker, ino: Ino, writes: bool) -> Reply<State> {
        if self.control_of(ino)?.0.makes() {
            self.writable()?;
        }
        let by = self.observe(asker)?;
        if !writes && self.control_of(ino)?.0.grows() {
            return Ok(State::Lines(Box::new(Lines {
                by: (asker, by),
                start: 0,
                text: Vec::new(),
                last: 0,
                pages: Vec::new(),
            })));
        }
        if !writes {
            let bytes = self.with_control(&by, asker, ino, |control, context| control.read(context))?;
            return Ok(State::Fixed(Staged::from(bytes)));
        }
        match self.control_of(ino)?.0.is_switch() {
            true if !asker.view.is_plain() => Err(Refusal::new(libc::EPERM, "a writer view sets no switch")),
            true => Ok(State::Switch { text: Vec::new(), by }),
            false => Err(Refusal::new(libc::EPERM, "this control file is for reading")),
        }
    }

    /// Refuses a text that cannot become one the switch takes, while there is a call that shells tell the error of.
    pub(super) fn check_switch(&self, ino: Ino, text: &mut Vec<u8>) -> Reply<()> {
        let accepted = match std::str::from_utf8(text) {
            Ok(text) => self.control_of(ino)?.0.accepts(text).map_err(Refusal::from),
            // The rest of a character may come with the next write; none of ours has any.
            Err(_) => Err(Refusal::new(libc::EINVAL, "a switch takes text in UTF-8")),
        };
        accepted.inspect_err(|_| text.clear())
    }

    /// A descriptor of a switch was closed: what was written to it is set. Who closes it may be in the middle of an
    /// exec, so it was looked at before.
    pub(super) fn set_switch(&self, asker: Asker, ino: Ino, text: &mut Vec<u8>, by: &Observed) -> Reply<()> {
        if text.is_empty() {
            return Ok(());
        }
        let text = String::from_utf8(std::mem::take(text))
            .map_err(|_| Refusal::new(libc::EINVAL, "a switch takes text in UTF-8"))?;
        self.with_control(by, asker, ino, |control, context| control.write(context, &text))
    }

    /// Keeps the words behind an errno where `.baton/errors` shows them.
    pub fn note_refusal(
        &self,
        op: &'static str,
        ino: Ino,
        name: Option<&str>,
        asker: Option<Asker>,
        refusal: &Refusal,
    ) {
        if refusal.is_everyday() {
            return;
        }
        // What is refused because it has lost its name is known by the one it had.
        let place = match name {
            Some(name) => self.place_in(ino, name).ok(),
            None => self.inodes.last_seen(ino).and_then(Place::of),
        };
        tracing::info!(op, errno = refusal.errno, "{refusal}");
        let Some(place) = place else { return };
        // What is no session has no errors: names tried at the root would fill the memory.
        if !matches!(self.engine().entry(&place.session, ""), Ok(Some(_))) {
            return;
        }
        let author = self.refused_author(&place.session, asker, refusal);
        let line = ErrorLine {
            time_ms: crate::words::record::now_ms(),
            op,
            key: place.path.clone(),
            errno: refusal.errno,
            words: refusal.words.clone(),
            uid: author.process.and_then(|process| process.uid).or(asker.map(|asker| asker.uid)),
            writer: author.writer,
        };
        self.errors.add(&place.session, line);
    }

    /// Keeps the words of a conflict that was accepted, where refusals are kept too.
    pub(super) fn note_accepted(&self, op: &'static str, place: &Place, committed: &Committed, by: &Caller) {
        let Some(words) = &committed.warning else { return };
        tracing::warn!(op, session = %place.session, key = %place.path, "accepted: {words}");
        let line = ErrorLine {
            time_ms: crate::words::record::now_ms(),
            op,
            key: place.path.clone(),
            errno: 0,
            words: words.clone(),
            writer: by.author.writer.clone(),
            uid: by.author.process.as_ref().and_then(|process| process.uid),
        };
        self.errors.add(&place.session, line);
    }

    /// Who was refused, without looking at anybody: this may be in the middle of an exec. In a view the writer is known.
    fn refused_author(&self, session: &SessionId, asker: Option<Asker>, refusal: &Refusal) -> Author {
        let known = refusal.who.as_deref().cloned();
        let seen = || {
            let asker = asker?;
            let lately = self.seen_lately(asker);
            let seen =
                lately.or_else(|| self.who(asker).ok().filter(|who| who.writer.is_some()).map(|who| who.unseen()));
            seen.map(|seen| self.caller_seen(session, &seen).author)
        };
        known.or_else(seen).unwrap_or_default()
    }

    fn mount_state(&self) -> control::MountState {
        use std::sync::atomic::Ordering::Relaxed;
        let unseen = self.counters.unseen.load(Relaxed);
        let seen = crate::identity::callers_can_be_seen() && unseen == 0;
        let callers = if seen { control::Callers::Seen } else { control::Callers::Unseen };
        control::MountState {
            mountpoint: self.mountpoint.clone(),
            durability: match self.options.sync_every {
                None => "commit".to_owned(),
                Some(every) => format!("interval={}", every.as_millis()),
            },
            open_handles: self.handles.len(),
            drafts: self.open_drafts().len(),
            waiting: self.waiting.load(Relaxed),
            nodes: self.inodes.count(),
            views: self.views.count(),
            commits: self.counters.by_moment(),
            drops: self.counters.dropped.load(Relaxed),
            refusals: self.counters.refused.load(Relaxed),
            unseen,
            callers,
            unseen_means: callers.means(),
        }
    }
}
