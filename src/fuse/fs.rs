//! The filesystem in our own types: what the adapter calls, and what tests can call with no mount.
//! This file holds the shared state and the small questions; the operations are in the `ops_` files beside it.
//!
//! Locks, in the order they may be taken: a handle's state, then `names`, then the store's, then `inodes`.
//! `names` are kept from the moment a commit asks for its key's name until the commit is made, and held alone by whoever
//! makes or takes a name, so that no draft lands on a name it has lost.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::counters::{Counters, Moment};
use super::errno::Refusal;
use super::handles::{Handle, Handles, State, Writer};
use super::inodes::{Ino, Inodes, Location, ROOT, Role};
use super::names::{Held, Names};
use super::opening::Openings;
use super::special::Scratches;
use super::views::{View, Views};
use super::{OnKill, Options};
use crate::control::{Errors, Sizes};
use crate::engine::{Attributes, Engine, Kind};
use crate::identity::{Observed, Resolver, Who};
use crate::store::{Caller, Store};
use crate::words::{Dir, Key, SessionId};

/// The result of every operation.
pub type Reply<T> = Result<T, Refusal>;

/// Who asks: the header of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The calling thread; 0 when it is outside our pid namespace.
    pub thread: u32,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
    /// The writer view its path goes through.
    pub view: View,
}

/// What `stat` shows of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The node.
    pub ino: Ino,
    /// File or directory.
    pub kind: Kind,
    /// Committed size, or the draft's on a name that nobody else can see.
    pub size_bytes: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// 1, also for directories: then nobody deduces from it how many directories are inside. 0 without a name.
    pub links: u32,
    /// Mode, owner, mtime.
    pub attributes: Attributes,
}

/// A mounted store, as operations.
#[derive(Debug)]
pub struct Filesystem {
    pub(super) store: Arc<Store>,
    pub(super) resolver: Arc<Resolver>,
    pub(super) options: Options,
    pub(super) mountpoint: PathBuf,
    pub(super) root: Attributes,
    pub(super) handles: Handles,
    pub(super) names: Names,
    pub(super) scratches: Scratches,
    /// Opens just answered: the O_TRUNC of an open comes as a SETATTR of its own.
    pub(super) opening: Openings,
    /// Threads whose open for writing was told to look its name up again.
    pub(super) told_stale: Mutex<HashSet<u32>>,
    /// Commits that wait for other holders.
    pub(super) waiting: AtomicUsize,
    /// The mount is ending: what is written now would be committed by nobody.
    pub(super) ending: AtomicBool,
    /// What `.baton/status` counts.
    pub(super) counters: Counters,
    /// The words of the latest refusals, for `.baton/errors`.
    pub(super) errors: Errors,
    /// How long the sessions' logs are.
    pub(super) sizes: Sizes,
    pub(super) inodes: Inodes,
    /// The writer views that the kernel knows.
    pub(super) views: Views,
}

/// A key or directory that a node stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its session.
    pub session: SessionId,
    /// Its path below the session; empty for the session itself.
    pub path: String,
}

impl Place {
    /// `None` for what is in no session.
    pub(super) fn of(at: Location) -> Option<Self> {
        Some(Self { session: at.session?, path: at.path })
    }

    /// The place as a key.
    ///
    /// # Errors
    /// The errno of the key's form.
    pub fn key(&self) -> Reply<Key> {
        Ok(Key::literal(&self.path)?)
    }

    /// The place as a directory.
    ///
    /// # Errors
    /// The errno of the path's form.
    pub fn dir(&self) -> Reply<Dir> {
        Ok(Dir::literal(&self.path)?)
    }
}

impl Filesystem {
    /// A filesystem over a store. `first_ino` is the first node number given out; `root` are the attributes of the
    /// mount's root.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        resolver: Arc<Resolver>,
        options: Options,
        mountpoint: PathBuf,
        root: Attributes,
        first_ino: Ino,
    ) -> Self {
        Self {
            store,
            resolver,
            options,
            mountpoint,
            root,
            handles: Handles::default(),
            names: Names::default(),
            scratches: Scratches::default(),
            opening: Openings::default(),
            told_stale: Mutex::default(),
            waiting: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            counters: Counters::default(),
            errors: Errors::default(),
            sizes: Sizes::default(),
            inodes: Inodes::new(first_ino),
            views: Views::default(),
        }
    }

    pub(super) fn engine(&self) -> &dyn Engine {
        self.store.engine().as_ref()
    }

    /// What a node stands for.
    pub(super) fn role(&self, ino: Ino) -> Reply<Role> {
        self.inodes.role(ino).ok_or_else(|| Refusal::new(libc::ESTALE, format!("node {ino} is not known")))
    }

    /// Where a node is in the store.
    pub(super) fn place(&self, ino: Ino) -> Reply<Place> {
        let place = self.inodes.locate(ino).and_then(Place::of);
        place.ok_or_else(|| Refusal::not_found(format!("node {ino}")))
    }

    /// Where a name in a directory would be. At the root that is a session.
    pub(super) fn place_in(&self, parent: Ino, name: &str) -> Reply<Place> {
        if parent == ROOT {
            return Ok(Place { session: SessionId::parse(name)?, path: String::new() });
        }
        let mut place = self.place(parent)?;
        if !place.path.is_empty() {
            place.path.push('/');
        }
        place.path.push_str(name);
        Ok(place)
    }

    /// Keeps the name a node has now while something is committed under it; `None` when it has none any more.
    pub(super) fn keep_name(&self, ino: Ino) -> Option<Held<'_>> {
        loop {
            let (parent, name) = self.inodes.name(ino)?;
            let held = self.names.keep((parent, &name));
            if self.inodes.name(ino) == Some((parent, name)) {
                return Some(held);
            }
        }
    }

    pub(super) fn who(&self, asker: Asker) -> Reply<Who> {
        Ok(Who::new(asker.thread, asker.uid, asker.gid).writing_as(self.views.writer(asker.view)?))
    }

    /// Everything about the caller. Not in FLUSH or RELEASE.
    pub(super) fn observe(&self, asker: Asker) -> Reply<Observed> {
        let seen = self.resolver.observe(&self.who(asker)?)?;
        if seen.process.is_none() {
            self.counters.unseen.fetch_add(1, Ordering::Relaxed);
        }
        Ok(seen)
    }

    /// The same from what was seen of the caller a moment ago and still holds. Waits for nobody.
    pub(super) fn seen_lately(&self, asker: Asker) -> Option<Observed> {
        self.resolver.seen_lately(&self.who(asker).ok()?)
    }

    /// The caller of an operation that is its own commit (delete, rename, mkdir, truncate ...).
    pub(super) fn caller(&self, session: &SessionId, asker: Asker) -> Reply<Caller> {
        Ok(self.caller_seen(session, &self.observe(asker)?))
    }

    /// The same for a caller that was looked at before.
    pub(super) fn caller_seen(&self, session: &SessionId, seen: &Observed) -> Caller {
        let (author, policy) = self.resolver.author(session, seen, std::slice::from_ref(seen));
        Caller::new(author, policy)
    }

    /// The caller of a handle's commit.
    pub(super) fn caller_of(&self, session: &SessionId, writer: &Writer) -> Caller {
        let (author, policy) = self.resolver.author(session, &writer.opener, &writer.writers);
        Caller::new(author, policy)
    }

    /// Refuses changes on a read-only mount.
    pub(super) fn writable(&self) -> Reply<()> {
        if self.options.read_only {
            return Err(Refusal::new(libc::EROFS, "the store is mounted read-only"));
        }
        Ok(())
    }

    /// Attributes of something the caller makes in a directory: its own, and the group of a setgid directory.
    pub(super) fn made_by(&self, asker: Asker, mode: u32, parent: &Attributes, dir: bool) -> Attributes {
        let setgid = parent.mode & libc::S_ISGID != 0;
        Attributes {
            mode: (mode & 0o7777) | if setgid && dir { libc::S_ISGID } else { 0 },
            uid: asker.uid,
            gid: if setgid { parent.gid } else { asker.gid },
            mtime: SystemTime::now(),
            xattrs: std::collections::BTreeMap::new(),
        }
    }

    /// The handles open on a node.
    pub(super) fn handles_on(&self, ino: Ino) -> Vec<Arc<Handle>> {
        self.inodes.handles(ino).into_iter().filter_map(|id| self.handles.get(id).ok()).collect()
    }

    /// Those that may have something to commit.
    pub(super) fn writers_on(&self, ino: Ino) -> Vec<Arc<Handle>> {
        let mut handles = self.handles_on(ino);
        handles.retain(|handle| handle.writes);
        handles
    }

    /// The drafts open now.
    #[must_use]
    pub fn open_drafts(&self) -> Vec<super::OpenDraft> {
        self.handles.writing().iter().filter_map(|handle| self.open_draft(handle)).collect()
    }

    fn open_draft(&self, handle: &Handle) -> Option<super::OpenDraft> {
        // A handle that is busy is in the middle of a write or commit: its numbers are those last noted.
        let open = match handle.try_state().as_deref_mut() {
            Some(State::Writer(writer)) => self.has_draft(handle, writer),
            Some(_) => false,
            None => true,
        };
        open.then(|| self.as_noted(handle))?
    }

    /// Has it something to commit that no other commit has made needless?
    pub(super) fn has_draft(&self, handle: &Handle, writer: &mut Writer) -> bool {
        self.give_way(handle.ino, writer);
        writer.has_draft()
    }

    fn as_noted(&self, handle: &Handle) -> Option<super::OpenDraft> {
        let (pids, place) = (handle.pids(), self.place(handle.ino).ok()?);
        let size_bytes = handle.draft_size_bytes.load(Ordering::Relaxed);
        Some(super::OpenDraft { key: place.key().ok()?, session: place.session, size_bytes, pids })
    }

    /// Ends every open draft as the options say; `true`: committed. Nothing is written to any handle after this.
    pub fn settle(&self) -> Vec<(super::OpenDraft, bool)> {
        // Looked at with a handle's state held: a write is either answered before its handle is come to, or refused.
        self.ending.store(true, Ordering::SeqCst);
        let mut ended = Vec::new();
        for handle in self.handles.writing() {
            let mut state = handle.state();
            let State::Writer(writer) = &mut *state else { continue };
            if !self.has_draft(&handle, writer) {
                continue;
            }
            let Some(draft) = self.as_noted(&handle) else { continue };
            // Appends are whole writes: they are never dropped. Nor is what everyone has closed, its RELEASE under way.
            let closed = writer.flushed && writer.killed.is_none() && handle.is_closed();
            let keep = closed || self.options.on_kill == OnKill::Commit || writer.draft.is_append();
            let kept = keep && self.commit_draft(&handle, writer, Moment::End).is_ok();
            if !kept {
                if writer.has_draft() {
                    self.drop_draft(&handle, writer, "the mount was ended while it was being written");
                }
                writer.failed = Some(Refusal::new(libc::EIO, "the mount is ending"));
            }
            ended.push((draft, kept));
        }
        ended
    }

    /// Refuses what writes, empties or makes once the mount is ending. Asked with the handle's state held, where there
    /// is one.
    pub(super) fn takes_writes(&self) -> Reply<()> {
        if self.ending.load(Ordering::SeqCst) {
            return Err(Refusal::new(libc::EIO, "the mount is ending"));
        }
        Ok(())
    }

    /// The same for a handle, and where its draft was dropped: without what is refused now, or what was dropped then, it
    /// is half a value. Appends are whole writes, and what was taken of them is still committed.
    pub(super) fn takes_writes_to(&self, handle: &Handle, writer: &mut Writer) -> Reply<()> {
        writer.still_good()?;
        let gone = || Refusal::new(libc::EIO, "what was written before was dropped: its writer was killed");
        let taken = if writer.dropped { Err(gone()) } else { self.takes_writes() };
        taken.map_err(|refusal| if writer.draft.is_append() { refusal } else { self.fail(handle, writer, refusal) })
    }

    /// Commits appends that have waited for `age`; called from a thread of its own. Each is committed on another
    /// thread, so that they share syncs: hundreds of logs are heard about as soon as one.
    pub fn commit_aged_appends(self: &Arc<Self>, age: Duration) {
        let aged = |handle: &Arc<Handle>| match handle.try_state().as_deref() {
            Some(State::Writer(writer)) => writer.has_append_older_than(age),
            _ => false,
        };
        for handle in self.handles.writing().into_iter().filter(aged) {
            let fs = Arc::clone(self);
            blocking::unblock(move || fs.commit_aged(&handle, age)).detach();
        }
    }

    fn commit_aged(&self, handle: &Handle, age: Duration) {
        let State::Writer(writer) = &mut *handle.state() else { return };
        if writer.has_append_older_than(age)
            && let Err(refusal) = self.commit_draft(handle, writer, Moment::Age)
        {
            self.note_refusal("append", handle.ino, None, None, &refusal);
        }
    }
}
