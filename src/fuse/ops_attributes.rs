//! Attributes: mode, owner, times, extended attributes. Setting them makes no version.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::errno::Refusal;
use super::fs::{Asker, Filesystem, Reply};
use super::handles::{Handle, HandleId, State};
use super::inodes::{Ino, ROOT, Role};
use super::ops_past::kept_is_kept;
use super::views::View;
use crate::engine::{AttributeChange, Head, XATTRS_MAX_BYTES};
use crate::identity::holders;

/// What our own read-only attributes begin with.
const OURS: &str = "user.baton.";

impl Filesystem {
    /// What a SETATTR is, before another request of its thread is read: of a size 0 without a handle, the open that the
    /// same thread has just made, and whose O_TRUNC it is.
    pub fn opened_by(&self, asker: Asker, ino: Ino, size: Option<u64>, handle: Option<HandleId>) -> Option<HandleId> {
        let opened = if size == Some(0) && handle.is_none() { self.opening.take(asker, ino) } else { None };
        self.opening_done(asker, handle.map(|id| (ino, id)));
        opened
    }

    /// SETATTR: a size, attributes, or both. A size without a handle is `truncate(path)`, or the O_TRUNC of the open
    /// that the same thread has just made ([`Filesystem::opened_by`]).
    ///
    /// # Errors
    /// As each of them.
    pub fn change(
        &self,
        asker: Asker,
        ino: Ino,
        size: Option<u64>,
        (handle, opened): (Option<HandleId>, Option<HandleId>),
        set: &AttributeChange,
    ) -> Reply<()> {
        match (size, handle, opened) {
            (Some(size), Some(handle), _) => self.truncate_handle(asker, handle, size)?,
            (Some(_), None, Some(handle)) => return self.truncate_opened(asker, ino, handle),
            (Some(_), None, None) if self.inodes.role(ino) == Some(Role::Control) => return Ok(()),
            (Some(size), None, None) => self.truncate(asker, ino, size)?,
            (None, ..) => {}
        }
        if *set == AttributeChange::default() { Ok(()) } else { self.set_attributes(asker, ino, set) }
    }

    /// Changes attributes of a key or directory, and of the caller's own draft of it.
    ///
    /// # Errors
    /// EPERM for the root and internal names; EROFS; as the engine.
    pub fn set_attributes(&self, asker: Asker, ino: Ino, set: &AttributeChange) -> Reply<()> {
        self.writable()?;
        match self.role(ino)? {
            Role::Dir | Role::Key if ino != ROOT => {}
            Role::Scratch => return self.set_fresh_attributes(ino, set),
            // `echo x > policy` sets the times of what it truncates.
            Role::Control if set.mode.is_none() && set.uid.is_none() && set.gid.is_none() => return Ok(()),
            _ => return Err(Refusal::new(libc::EPERM, "its attributes are not to be changed here")),
        }
        let to_draft = self.set_on_drafts(asker, ino, set);
        let set = &AttributeChange { mtime: set.mtime.filter(|_| !to_draft), ..set.clone() };
        if *set == AttributeChange::default() {
            return Ok(());
        }
        let Ok(place) = self.place(ino) else { return Ok(()) };
        // Facts about a process are waited for before the name is held.
        let by = self.caller(&place.session, asker);
        let Some(_name) = self.keep_name(ino) else { return Ok(()) };
        let Ok(place) = self.place(ino) else { return Ok(()) };
        if self.engine().entry(&place.session, &place.path)?.is_none() || self.makes(asker, ino) {
            return self.set_fresh_attributes(ino, set);
        }
        // By its name what comes is meant as well as what is there; who has that open for writing means that.
        if self.inodes.fresh(ino).is_some() && self.handles_of(asker, ino).is_empty() {
            self.set_fresh_attributes(ino, set)?;
        }
        Ok(self.store.set_attributes(&place.session, &place.path, set.clone(), &by?)?)
    }

    /// The caller's write handles on the node: those it has opened itself, or else those it may have been given. Who has
    /// one open seems to hold every other, for descriptors are counted by file.
    fn handles_of(&self, asker: Asker, ino: Ino) -> Vec<Arc<Handle>> {
        let Some(pid) = holders::tgid(asker.thread) else { return Vec::new() };
        let handles = self.writers_on(ino);
        let (opened, others): (Vec<_>, Vec<_>) = handles.into_iter().partition(|handle| handle.opener == pid);
        if !opened.is_empty() {
            return opened;
        }
        others.into_iter().filter(|handle| handle.may_be_held_by(pid)).collect()
    }

    /// Does the caller write what was moved onto a value? That has attributes of its own.
    fn makes(&self, asker: Asker, ino: Ino) -> bool {
        self.inodes.fresh(ino).is_some() && self.handles_of(asker, ino).iter().any(|handle| handle.makes())
    }

    fn set_fresh_attributes(&self, ino: Ino, set: &AttributeChange) -> Reply<()> {
        self.fresh_attributes(ino).room_for(set)?;
        if self.inodes.change_fresh(ino, set) { Ok(()) } else { Err(Refusal::not_found(format!("node {ino}"))) }
    }

    /// What is set while a draft is open belongs to the version the draft becomes (`cp -a` sets the time, then closes).
    /// Did a draft take it?
    fn set_on_drafts(&self, asker: Asker, ino: Ino, set: &AttributeChange) -> bool {
        let pid = holders::tgid(asker.thread);
        let mut taken = false;
        for handle in self.writers_on(ino) {
            let pids = handle.pids();
            // Whose draft it is cannot be told for callers that are not seen: then it is set on the value there too.
            if pid.map_or(!pids.is_empty(), |pid| !pids.contains(&pid)) {
                continue;
            }
            if let State::Writer(writer) = &mut *handle.state()
                && writer.draft.is_dirty()
            {
                writer.set.mtime = set.mtime.or(writer.set.mtime);
                taken |= pid.is_some();
            }
        }
        taken
    }

    /// One extended attribute.
    ///
    /// # Errors
    /// ENODATA when it is not set; ENOTSUP outside the user namespace.
    pub fn get_xattr(&self, asker: Asker, ino: Ino, name: &str) -> Reply<Vec<u8>> {
        let none = || Refusal::new(libc::ENODATA, format!("'{name}' is not set"));
        if name.starts_with("security.") {
            return Err(none());
        }
        check_namespace(name)?;
        if let Some(field) = name.strip_prefix(OURS) {
            let head = self.head(asker.view, ino)?.ok_or_else(none)?;
            return our_attribute(&head, field).map(String::into_bytes).ok_or_else(none);
        }
        self.user_xattrs(asker.view, ino)?.remove(name).ok_or_else(none)
    }

    /// The names of the user's attributes; ours are not listed, so that `mv` and `rsync -X` do not trip on them.
    ///
    /// # Errors
    /// EIO.
    pub fn list_xattrs(&self, asker: Asker, ino: Ino) -> Reply<Vec<String>> {
        Ok(self.user_xattrs(asker.view, ino)?.into_keys().collect())
    }

    /// Sets (`Some`) or removes (`None`) a user's attribute. `flags` are those of `setxattr(2)`.
    ///
    /// # Errors
    /// ENOTSUP for ours and foreign namespaces, and on directories; EEXIST, ENODATA by the flags; E2BIG; ENOSPC when all
    /// of the file's are too many.
    pub fn set_xattr(&self, asker: Asker, ino: Ino, name: &str, value: Option<&[u8]>, flags: i32) -> Reply<()> {
        self.writable()?;
        check_namespace(name)?;
        if name.starts_with(OURS) || name == "user.batonfs" {
            return Err(Refusal::new(libc::ENOTSUP, format!("'{name}' is made by commits, it cannot be set")));
        }
        if self.role(ino)? == Role::Past {
            return Err(kept_is_kept());
        }
        if !matches!(self.role(ino)?, Role::Key | Role::Scratch) {
            return Err(Refusal::new(libc::ENOTSUP, "only files keep attributes of users"));
        }
        if value.is_some_and(|value| value.len() > XATTRS_MAX_BYTES) {
            let words = format!("'{name}' is too large: all of a file have at most {XATTRS_MAX_BYTES} bytes");
            return Err(Refusal::new(libc::E2BIG, words));
        }
        let fresh = self.inodes.fresh(ino).filter(|_| self.makes(asker, ino));
        let there = fresh.map_or_else(|| self.user_xattrs(asker.view, ino), |fresh| Ok(fresh.attributes.xattrs))?;
        let exists = there.contains_key(name);
        if exists && flags & libc::XATTR_CREATE != 0 {
            return Err(Refusal::new(libc::EEXIST, format!("'{name}' is set already")));
        }
        if !exists && (flags & libc::XATTR_REPLACE != 0 || value.is_none()) {
            return Err(Refusal::new(libc::ENODATA, format!("'{name}' is not set")));
        }
        let xattrs = BTreeMap::from([(name.to_owned(), value.map(<[u8]>::to_vec))]);
        self.set_attributes(asker, ino, &AttributeChange { xattrs, ..AttributeChange::default() })
    }

    fn head(&self, view: View, ino: Ino) -> Reply<Option<Head>> {
        match self.role(ino)? {
            Role::Key => {
                let place = self.place(ino)?;
                Ok(self.engine().head(&place.session, &place.key()?)?)
            }
            Role::Past => {
                let (session, key, past) = self.past_of(view, ino)?;
                Ok(self.engine().past_head(&session, &key, past)?)
            }
            _ => Ok(None),
        }
    }

    fn user_xattrs(&self, view: View, ino: Ino) -> Reply<BTreeMap<String, Vec<u8>>> {
        let there = self.head(view, ino)?.map(|head| head.attributes);
        let there = there.or_else(|| self.inodes.fresh(ino).map(|fresh| fresh.attributes));
        Ok(there.map(|attributes| attributes.xattrs).unwrap_or_default())
    }
}

/// One of ours. What became no version has only a writer.
fn our_attribute(head: &Head, field: &str) -> Option<String> {
    let (writer, is_version) = (&head.writer, head.version > 0);
    match field {
        "version" => is_version.then(|| head.version.to_string()),
        "writer_id" => writer.writer_id.clone(),
        "stage_id" => writer.stage_id.clone(),
        "session_id" => writer.session_id.clone(),
        "worker_id" => writer.worker_id.clone(),
        "committed_at" => is_version.then(|| head.committed_at_s.to_string()),
        _ => None,
    }
}

fn check_namespace(name: &str) -> Reply<()> {
    if name.strip_prefix("user.").is_some_and(|name| !name.is_empty()) {
        return Ok(());
    }
    Err(Refusal::new(libc::ENOTSUP, format!("'{name}': only attributes of users ('user.') are kept")))
}
