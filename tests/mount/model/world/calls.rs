//! C4, C8 to C13: what each system call answers and changes.

use std::collections::BTreeSet;

use super::{Answer, Base, Bytes, Draft, Handle, HandleId, Key, Line, Look, Proc, Sees, Value, World};
use crate::model::steps::{self, Flags, Step};

impl World {
    /// Makes a step; `fd` is the descriptor the mount gave, where the step makes one.
    pub(in crate::model) fn step(&mut self, step: &Step, fd: Option<i32>, look: Look<'_>) -> Answer {
        let done = Ok(String::new());
        match *step {
            Step::Open { process, key, flags } => self.open(process, key, flags, fd),
            Step::Truncate { process, key, size } => self.truncate(process, key, size),
            Step::Stat { process, key } => {
                self.must_see(process, key)?;
                let node = self.node_of(key);
                Ok(format!("{} 1", self.shown_size(node, process)))
            }
            Step::List { .. } => Ok(self.values.keys().map(|key| format!("k{key}")).collect::<Vec<_>>().join(" ")),
            Step::Rename { process, from, to, replace } => self.rename(process, from, to, replace),
            Step::Unlink { process, key } => {
                self.must_see(process, key)?;
                self.pin_all(key);
                if self.values.remove(&key).is_some() {
                    self.log.push(Line { op: "delete", key, ..Line::default() });
                }
                let node = self.node_of(key);
                self.lose_name(node);
                done
            }
            Step::Dup { process, fd: old } => {
                let handle = self.processes[process].descriptors[&old];
                self.give(process, fd, handle)
            }
            Step::Dup2 { process, fd: old, onto } => {
                let handle = self.processes[process].descriptors[&old];
                let replaced = self.processes[process].descriptors.insert(onto, handle);
                if let Some(replaced) = replaced.filter(|_| old != onto) {
                    self.handles[handle].held_by.insert(process);
                    self.flush(replaced, process, None, look);
                    if self.holders(replaced).is_empty() {
                        self.release(replaced);
                    }
                }
                Ok(onto.to_string())
            }
            Step::Close { process, fd } => {
                self.close(process, fd, look);
                done
            }
            Step::Read { process, fd, size, at } => self.read(process, fd, size, at),
            Step::Write { process, fd, ref data, at } => self.write(process, fd, data, at),
            Step::Cut { process, fd, size } => {
                let handle = self.processes[process].descriptors[&fd];
                if !self.handles[handle].writes {
                    return Err(libc::EINVAL);
                }
                self.cut(handle, process, size);
                done
            }
            Step::Seek { process, fd, at } => self.seek(process, fd, at),
            Step::Fstat { process, fd } => {
                let node = self.handles[self.processes[process].descriptors[&fd]].node;
                Ok(format!("{} {}", self.shown_size(node, process), usize::from(self.nodes[node].name.is_some())))
            }
            Step::Sync { process, fd } => {
                let handle = self.processes[process].descriptors[&fd];
                if self.handles[handle].draft.as_ref().is_some_and(|draft| draft.dirty) {
                    self.commit(handle);
                }
                done
            }
        }
    }

    pub(super) fn must_see(&self, process: Proc, key: Key) -> Result<(), i32> {
        if self.sees(process, key) == Sees::Yes { Ok(()) } else { Err(libc::ENOENT) }
    }

    pub(super) fn give(&mut self, process: Proc, fd: Option<i32>, handle: HandleId) -> Answer {
        // A mount that refused what it should have allowed gave none: any number shows the difference.
        let fd = fd.unwrap_or(-1);
        self.processes[process].descriptors.insert(fd, handle);
        self.handles[handle].held_by.insert(process);
        Ok(fd.to_string())
    }

    pub(super) fn open(&mut self, process: Proc, key: Key, flags: Flags, fd: Option<i32>) -> Answer {
        let seen = self.sees(process, key) == Sees::Yes;
        let node = match (seen, flags.create, flags.exclusive) {
            (true, true, true) => return Err(libc::EEXIST),
            (false, false, _) => return Err(libc::ENOENT),
            _ => self.node_of(key),
        };
        let mut draft = None;
        let new_draft = |bytes, dirty| Draft {
            bytes,
            dirty,
            made: false,
            stays_empty: false,
            mine: None,
            opener: process,
            writers: Vec::new(),
            seen: BTreeSet::new(),
            killed: false,
            dropped: false,
        };
        if !seen {
            // C8: reserved by another, or from now on by this one.
            match &mut self.nodes[node].fresh {
                Some(_) if flags.exclusive => return Err(libc::EEXIST),
                Some(creators) => creators.push(process),
                fresh @ None => *fresh = Some(vec![process]),
            }
            let empty = if flags.append { Bytes::Append(Vec::new()) } else { Bytes::Whole(Vec::new(), Base::Fresh) };
            // The kernel leaves O_TRUNC out where O_EXCL says that there is nothing.
            let stays_empty = flags.truncate && !flags.append && !flags.exclusive;
            draft = Some(Draft { made: true, stays_empty, ..new_draft(empty, true) });
        } else if flags.writes {
            // C4: emptying what is empty is nothing to commit.
            let counts = flags.truncate && self.shown_size(node, process) > 0;
            let bytes = if flags.truncate { Bytes::Whole(Vec::new(), Base::Fresh) } else { Bytes::Untouched };
            draft = Some(new_draft(bytes, counts));
        }
        let truncates = seen && flags.truncate && !flags.writes;
        let handle = self.handles.len();
        self.handles.push(Handle {
            node,
            reads: flags.reads,
            writes: flags.writes,
            appends: flags.append && flags.writes,
            draft,
            pinned: None,
            position: Some(0),
            open: true,
            held_by: BTreeSet::new(),
        });
        let given = self.give(process, fd, handle);
        if truncates {
            self.truncate(process, key, 0)?;
        }
        given
    }

    /// C9.
    pub(super) fn truncate(&mut self, process: Proc, key: Key, size: usize) -> Answer {
        self.must_see(process, key)?;
        match self.values.get(&key) {
            Some(value) if value.bytes.len() == size => {}
            Some(value) => {
                let mut bytes = value.bytes.clone();
                bytes.resize(size, 0);
                self.put("put", key, bytes, false);
            }
            None => {
                let node = self.node_of(key);
                for handle in self.handles_on(node) {
                    if self.handles[handle].draft.as_ref().is_some_and(|draft| !draft.dropped) {
                        self.cut(handle, process, size);
                    }
                }
            }
        }
        Ok(String::new())
    }

    /// C10.
    pub(super) fn rename(&mut self, process: Proc, from: Key, to: Key, replace: bool) -> Answer {
        self.must_see(process, from)?;
        let reserved = self.by_name.get(&to).is_some_and(|&node| self.nodes[node].fresh.is_some());
        if !replace && (self.values.contains_key(&to) || reserved) {
            return Err(libc::EEXIST);
        }
        if from == to {
            return Ok(String::new());
        }
        let node = self.node_of(from);
        if self.values.contains_key(&to) && !self.values.contains_key(&from) {
            // What was appended to a name of its own does not go after the value that the name replaces.
            for handle in self.handles_on(node) {
                let log = |draft: &Draft| draft.dirty && matches!(draft.bytes, Bytes::Append(_));
                if self.handles[handle].draft.as_ref().is_some_and(log) {
                    self.commit(handle);
                }
            }
            // What a name that no commit has made was made for replaces the value, be it empty.
            if self.nodes[node].fresh.is_some() {
                for handle in self.handles_on(node) {
                    self.handles[handle].draft.iter_mut().for_each(|draft| draft.made = false);
                }
            }
        }
        self.pin_all(to);
        if let Some(&old) = self.by_name.get(&to) {
            self.lose_name(old);
        }
        self.by_name.remove(&from);
        self.by_name.insert(to, node);
        self.nodes[node].name = Some(to);
        if let Some(value) = self.values.remove(&from) {
            let run = self.fresh_id();
            for handle in self.handles_on(node) {
                let pinned = self.handles[handle].pinned.as_mut();
                pinned.into_iter().filter(|pinned| pinned.id == value.id).for_each(|pinned| pinned.run = run);
            }
            self.place("rename", from, Some(to), Value { run, ..value }, false);
        }
        Ok(String::new())
    }

    /// C12, C13.
    pub(super) fn read(&mut self, process: Proc, fd: i32, size: usize, at: Option<usize>) -> Answer {
        let id = self.processes[process].descriptors[&fd];
        if !self.handles[id].reads {
            return Err(libc::EBADF);
        }
        let offset = at.or(self.handles[id].position).unwrap_or(0);
        let node = self.handles[id].node;
        let newest = self.newest(node);
        // C12, C18: what is written after it edits what was read, and that was no value.
        if let Some(draft) = self.handles[id].draft.as_mut().filter(|draft| draft.made && !draft.stays_empty)
            && let Bytes::Whole(_, base) = &mut draft.bytes
        {
            (*base, draft.stays_empty) = (Base::Edit(None), true);
        }
        if self.handles[id].wants_pin() {
            let hidden = self.nodes[node].fresh.is_some();
            let handle = &mut self.handles[id];
            match &mut handle.draft {
                Some(draft) => draft.mine = None,
                // A name that no commit has made is empty to who opened it; one that is gone is gone (Limits).
                None if newest.is_none() && !hidden => return Err(libc::ENOENT),
                None => {}
            }
            handle.pinned.clone_from(&newest);
        }
        let handle = &mut self.handles[id];
        let mut bytes = handle.view();
        let short = offset + size > bytes.len();
        let last = newest.or_else(|| self.nodes[node].left.clone());
        if let (true, None, Some(newest), Some(pinned)) = (short, &handle.draft, last, &handle.pinned)
            && newest.run == pinned.run
            && newest.id > pinned.id
        {
            bytes.clone_from(&newest.bytes);
            handle.pinned = Some(newest);
        }
        let read: Vec<u8> = bytes.into_iter().skip(offset).take(size).collect();
        if at.is_none() {
            handle.position = Some(offset + read.len());
        }
        Ok(steps::hex(&read))
    }

    pub(super) fn write(&mut self, process: Proc, fd: i32, data: &[u8], at: Option<usize>) -> Answer {
        let id = self.processes[process].descriptors[&fd];
        if !self.handles[id].writes {
            return Err(libc::EBADF);
        }
        let offset = at.or(self.handles[id].position).unwrap_or(0);
        let appends = self.handles[id].appends;
        let made = self.handles[id].draft.as_ref().is_some_and(|draft| draft.made);
        self.wrote(id, process);
        if appends {
            // C7: what was emptied is committed first, and a name that was only made is none to append to.
            let emptied = |draft: &Draft| matches!(&draft.bytes, Bytes::Whole(bytes, _) if bytes.is_empty());
            if self.handles[id].draft.as_ref().is_some_and(|draft| emptied(draft) && draft.dirty && !made) {
                self.commit(id);
            }
            let draft = self.handles[id].draft.as_mut().expect("a draft");
            match &mut draft.bytes {
                Bytes::Whole(bytes, _) if draft.dirty && !made => bytes.extend(data),
                Bytes::Append(bytes) => bytes.extend(data),
                Bytes::Whole(..) | Bytes::Untouched => draft.bytes = Bytes::Append(data.to_vec()),
            }
            draft.dirty = true;
        } else {
            let bytes = self.edit(id);
            if bytes.len() < offset + data.len() {
                bytes.resize(offset + data.len(), 0);
            }
            bytes[offset..offset + data.len()].copy_from_slice(data);
        }
        if at.is_none() {
            self.handles[id].position = (!appends).then_some(offset + data.len());
        }
        Ok(data.len().to_string())
    }

    pub(super) fn wrote(&mut self, id: HandleId, process: Proc) {
        if let Some(draft) = self.handles[id].draft.as_mut() {
            draft.writers.retain(|&writer| writer != process);
            draft.writers.push(process);
            draft.killed = false;
            draft.made = false;
        }
    }

    /// `ftruncate`: a write of the process. Appended bytes are never part of a draft that can be lost (C6, C7).
    pub(super) fn cut(&mut self, id: HandleId, process: Proc, size: usize) {
        // C4: truncating an empty value commits nothing.
        let handle = &self.handles[id];
        let clean = handle.draft.as_ref().is_some_and(|draft| !draft.dirty);
        let sees_none = handle.pinned.as_ref().is_none_or(|value| value.bytes.is_empty());
        if size == 0 && clean && sees_none && self.newest(handle.node).is_some_and(|value| value.bytes.is_empty()) {
            return;
        }
        self.wrote(id, process);
        if self.handles[id].draft.as_ref().is_some_and(Draft::has_append) {
            self.commit(id);
        }
        if size == 0 && self.handles[id].pinned.is_none() {
            let draft = self.handles[id].draft.as_mut().expect("a draft");
            draft.bytes = Bytes::Whole(Vec::new(), Base::Fresh);
            draft.dirty = true;
            return;
        }
        self.edit(id).resize(size, 0);
    }

    /// The bytes of a whole draft: a copy of the current version where none was made yet.
    pub(super) fn edit(&mut self, id: HandleId) -> &mut Vec<u8> {
        let newest = self.newest(self.handles[id].node);
        let handle = &mut self.handles[id];
        if handle.wants_pin() {
            handle.pinned = newest;
        }
        let view = handle.view();
        let pinned = handle.pinned.as_ref().map(|value| value.id);
        let draft = handle.draft.as_mut().expect("a draft");
        if !matches!(draft.bytes, Bytes::Whole(..)) {
            draft.bytes = Bytes::Whole(view, Base::Edit(draft.mine.or(pinned)));
        }
        draft.dirty = true;
        match &mut draft.bytes {
            Bytes::Whole(bytes, _) => bytes,
            Bytes::Untouched | Bytes::Append(_) => unreachable!("made above"),
        }
    }

    /// C13: SEEK_END is the end of what this handle reads.
    pub(super) fn seek(&mut self, process: Proc, fd: i32, at: Option<usize>) -> Answer {
        let id = self.processes[process].descriptors[&fd];
        let node = self.handles[id].node;
        let newest = self.newest(node);
        let shown = self.shown_size(node, process);
        let handle = &mut self.handles[id];
        let position = match (at, &handle.draft) {
            (Some(at), _) => at,
            (None, Some(draft)) if draft.bytes != Bytes::Untouched || handle.pinned.is_some() => {
                if handle.wants_pin() {
                    handle.pinned = newest;
                }
                handle.size()
            }
            (None, None) if handle.pinned.is_some() => handle.size(),
            (None, _) => shown,
        };
        self.handles[id].position = Some(position);
        Ok(position.to_string())
    }
}
