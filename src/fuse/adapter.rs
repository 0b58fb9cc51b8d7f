//! Between fuser's trait and [`Filesystem`]: log, call, reply. The only file that names fuser's types.
//!
//! One thread reads requests. What may wait for the disk's sync or for facts about a process is done on a thread of
//! its own; what touches memory or reads is answered at once ([`super::at_once`]): waking a thread costs more than most
//! requests do.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use fuser::{
    Config, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, Session, SessionACL,
    TimeOrNow, WriteFlags,
};

use super::errno::Refusal;
use super::fs::{Asker, Filesystem, Reply, Stat};
use super::handles::Handle;
use super::inodes::Ino;
use super::ops_file::{REQUEST_MAX_BYTES, WriteAt};
use super::views::{self, View};
use crate::engine::{AttributeChange, Kind};
use crate::words::key::NAME_MAX_BYTES;

/// Nothing about a file is cached: its size is only ever a committed one, a reserved name hides, and what a program beside
/// the mount puts in a directory's place is seen at the next open.
const TTL: Duration = Duration::ZERO;
/// No value can be in the place of a session or of the root: their names, modes and times may be as old as this.
const TTL_SESSION: Duration = Duration::from_millis(500);
/// What a directory entry shows when no node of it is known, as libfuse does.
const UNKNOWN_INO: u64 = 0xffff_ffff;

/// Serves what is mounted through `device`, from a thread of its own until the mount ends.
///
/// # Errors
/// The system's error of the first words with the kernel.
pub(super) fn serve(adapter: Adapter, device: OwnedFd) -> std::io::Result<JoinHandle<std::io::Result<()>>> {
    let session = Session::from_fd(adapter, device, SessionACL::All, Config::default())?;
    std::thread::Builder::new().name("requests".to_owned()).spawn(move || session.run())
}

/// The filesystem as fuser calls it.
#[derive(Debug)]
pub(super) struct Adapter {
    fs: Arc<Filesystem>,
}

impl Adapter {
    pub(super) fn new(fs: Arc<Filesystem>) -> Self {
        Self { fs }
    }

    /// Is this the handle of a writer, whose state may be held across the disk's work?
    fn writes(&self, handle: FileHandle) -> bool {
        self.fs.handles.get(handle.0).is_ok_and(|handle| handle.writes)
    }

    /// Does `work` on a thread of its own, so that requests go on being read.
    fn aside(&self, work: impl FnOnce(&Filesystem) + Send + 'static) {
        let fs = Arc::clone(&self.fs);
        blocking::unblock(move || work(&fs)).detach();
    }
}

/// For how long the kernel may keep what it is told of a node. What is changed in one tree it knows of that one alone: who
/// works in a view sees at once what is changed outside.
fn ttl(fs: &Filesystem, view: View, stat: &Stat) -> Duration {
    let kept = view.is_plain() && stat.kind == Kind::Dir && fs.is_session_or_root(stat.ino);
    if kept { TTL_SESSION } else { TTL }
}

/// Gives the kernel a node of a view.
fn give(fs: &Filesystem, view: View, stat: &Stat, reply: ReplyEntry) {
    fs.views.looked_up(view);
    reply.entry(&ttl(fs, view, stat), &file_attr(view, stat), Generation(0));
}

/// Who asks about which node.
fn asked(request: &Request, node: INodeNo) -> (Asker, Ino) {
    let (view, ino) = views::decode(node.0);
    (Asker { thread: request.pid(), uid: request.uid(), gid: request.gid(), view }, ino)
}

fn errno(refusal: &Refusal) -> Errno {
    Errno::from_i32(refusal.errno)
}

/// A name as text.
fn text(name: &OsStr, missing: i32) -> Reply<String> {
    let text = name.to_str().ok_or_else(|| Refusal::new(missing, "a name must be UTF-8"))?;
    Ok(text.to_owned())
}

fn file_attr(view: View, stat: &Stat) -> FileAttr {
    let mtime = stat.attributes.mtime;
    FileAttr {
        ino: INodeNo(views::encode(view, stat.ino)),
        size: stat.size_bytes,
        blocks: stat.blocks,
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind: kind(stat.kind),
        perm: (stat.attributes.mode & 0o7777) as u16,
        nlink: stat.links,
        uid: stat.attributes.uid,
        gid: stat.attributes.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
    }
}

fn open_flags(handle: &Handle) -> FopenFlags {
    let direct = FopenFlags::FOPEN_DIRECT_IO;
    if handle.writes { direct } else { direct | FopenFlags::FOPEN_NOFLUSH }
}

fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

/// Logs a refusal where people find it, and gives its errno.
fn refused(fs: &Filesystem, op: &'static str, asker: Asker, ino: Ino, name: Option<&str>, refusal: &Refusal) -> Errno {
    fs.note_refusal(op, ino, name, Some(asker), refusal);
    errno(refusal)
}

macro_rules! answer {
    ($fs:expr, $op:literal, $asker:expr, $ino:expr, $name:expr, $reply:expr, $result:expr, $ok:expr) => {
        match $result {
            Ok(value) => $ok(value),
            Err(refusal) => $reply.error(refused($fs, $op, $asker, $ino, $name, &refusal)),
        }
    };
}

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // A RELEASE that waits in the queue holds back what its close promised.
        let _ = config.set_max_background(u16::MAX);
        let _ = config.set_max_write(REQUEST_MAX_BYTES as u32);
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        // A file handle made up from numbers would be a way out of a writer view that is mounted alone.
        let _ = config.add_capabilities(InitFlags::FUSE_NO_EXPORT_SUPPORT);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (asker, parent) = asked(request, parent);
        self.fs.opening_done(asker, None);
        let name = match text(name, libc::ENOENT) {
            Ok(name) => name,
            Err(refusal) => return reply.error(errno(&refusal)),
        };
        if self.fs.is_views(parent) {
            return answer!(
                &self.fs,
                "lookup",
                asker,
                parent,
                None,
                reply,
                self.fs.look_up_view(&name),
                |(view, stat)| {
                    // Counted when it was entered.
                    reply.entry(&ttl(&self.fs, view, &stat), &file_attr(view, &stat), Generation(0));
                }
            );
        }
        let waits = self.fs.waits_at(parent, &name);
        let work = move |fs: &Filesystem| {
            answer!(fs, "lookup", asker, parent, Some(&name), reply, fs.lookup(asker, parent, &name), |stat: Stat| {
                give(fs, asker.view, &stat, reply);
            });
        };
        if waits || self.fs.is_control(parent) { self.aside(work) } else { work(&self.fs) }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        let (view, ino) = views::decode(ino.0);
        self.fs.forget(ino, count);
        self.fs.views.forget(view, count);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let (asker, ino) = asked(request, ino);
        let work = move |fs: &Filesystem| {
            let stat = match handle {
                Some(handle) => fs.stat_handle(asker, ino, handle.0),
                None => {
                    fs.look_again(ino);
                    fs.stat(asker, ino)
                }
            };
            answer!(fs, "getattr", asker, ino, None, reply, stat, |stat: Stat| reply
                .attr(&ttl(fs, asker.view, &stat), &file_attr(asker.view, &stat)));
        };
        if handle.is_some() || self.fs.waits(ino) || self.fs.is_control(ino) {
            self.aside(work)
        } else {
            work(&self.fs)
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (asker, ino) = asked(request, ino);
        let mode = mode.map(|mode| mode & 0o7777);
        let set = AttributeChange { mode, uid, gid, mtime: mtime.map(time), ..AttributeChange::default() };
        let handle = handle.map(|handle| handle.0);
        let opened = self.fs.opened_by(asker, ino, size, handle);
        if let Some(stat) = opened.and_then(|id| self.fs.truncate_at_once(asker, ino, id)) {
            return reply.attr(&TTL, &file_attr(asker.view, &stat));
        }
        self.aside(move |fs| {
            let done = fs.change(asker, ino, size, (handle, opened), &set);
            let stat = done.and_then(|()| fs.stat(asker, ino));
            answer!(fs, "setattr", asker, ino, None, reply, stat, |stat: Stat| reply
                .attr(&ttl(fs, asker.view, &stat), &file_attr(asker.view, &stat)));
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let (asker, parent) = asked(request, parent);
        let name = text(name, libc::EILSEQ);
        self.aside(move |fs| {
            let made = name.and_then(|name| fs.make_node(asker, parent, &name, mode));
            answer!(fs, "mknod", asker, parent, None, reply, made, |stat: Stat| {
                give(fs, asker.view, &stat, reply);
            });
        });
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let (asker, parent) = asked(request, parent);
        let name = text(name, libc::EILSEQ);
        self.aside(move |fs| {
            let made = name.and_then(|name| fs.make_dir(asker, parent, &name, mode));
            answer!(fs, "mkdir", asker, parent, None, reply, made, |stat: Stat| {
                give(fs, asker.view, &stat, reply);
            });
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (asker, parent) = asked(request, parent);
        let name = text(name, libc::ENOENT);
        self.aside(move |fs| {
            let done = name.and_then(|name| fs.unlink(asker, parent, &name));
            answer!(fs, "unlink", asker, parent, None, reply, done, |()| reply.ok());
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (asker, parent) = asked(request, parent);
        let name = text(name, libc::ENOENT);
        self.aside(move |fs| {
            let done = name.and_then(|name| fs.remove_dir(asker, parent, &name));
            answer!(fs, "rmdir", asker, parent, None, reply, done, |()| reply.ok());
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let ((asker, parent), (new_view, new_parent)) = (asked(request, parent), views::decode(new_parent.0));
        if new_view != asker.view {
            // One writer's tree is not another's. A view itself is not even to be copied: it would go into itself.
            return reply.error(if self.fs.is_views(parent) { Errno::EPERM } else { Errno::EXDEV });
        }
        let names = text(name, libc::ENOENT).and_then(|name| Ok((name, text(new_name, libc::EILSEQ)?)));
        self.aside(move |fs| {
            let new_name = names.as_ref().ok().map(|(_, new_name)| new_name.clone());
            let done =
                names.and_then(|(name, new)| fs.rename(asker, (parent, &name), (new_parent, &new), flags.bits()));
            answer!(fs, "rename", asker, new_parent, new_name.as_deref(), reply, done, |()| reply.ok());
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (asker, ino) = asked(request, ino);
        self.fs.opening_done(asker, None);
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let seen = if writes { self.fs.seen_lately(asker) } else { None };
        let looks = writes && seen.is_none();
        let work = move |fs: &Filesystem| {
            answer!(fs, "open", asker, ino, None, reply, fs.open(asker, ino, flags.0, seen), |handle: Arc<Handle>| {
                reply.opened(FileHandle(handle.id), open_flags(&handle));
            });
        };
        if looks || self.fs.waits(ino) || self.fs.is_control(ino) { self.aside(work) } else { work(&self.fs) }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (asker, parent) = asked(request, parent);
        self.fs.opening_done(asker, None);
        let name = text(name, libc::EILSEQ);
        self.aside(move |fs| {
            let shown = name.as_ref().ok().cloned();
            let made = name.and_then(|name| fs.create(asker, parent, &name, mode, flags));
            answer!(fs, "create", asker, parent, shown.as_deref(), reply, made, |(stat, handle): (
                Stat,
                Arc<Handle>
            )| {
                fs.views.looked_up(asker.view);
                reply.created(
                    &TTL,
                    &file_attr(asker.view, &stat),
                    Generation(0),
                    FileHandle(handle.id),
                    open_flags(&handle),
                );
            });
        });
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (asker, ino) = asked(request, ino);
        self.fs.opening_done(asker, Some((ino, handle.0)));
        let own = lock_owner.is_some();
        let work = move |fs: &Filesystem| {
            let read = fs.read(handle.0, offset, size as usize, own);
            answer!(fs, "read", asker, ino, None, reply, read, |bytes: Vec<u8>| reply.data(&bytes));
        };
        // A writer's handle may be in the middle of a commit, or of a look at who writes; a log may be long.
        if self.writes(handle) || self.fs.is_control(ino) { self.aside(work) } else { work(&self.fs) }
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (asker, ino) = asked(request, ino);
        self.fs.opening_done(asker, Some((ino, handle.0)));
        let at = WriteAt { offset, append: flags.0 & libc::O_APPEND != 0, lock_owner: lock_owner.map(|owner| owner.0) };
        if self.fs.write_at_once(asker, handle.0, at, data) {
            return reply.written(data.len() as u32);
        }
        let data = data.to_vec();
        self.aside(move |fs| {
            let written = fs.write(asker, handle.0, at, &data);
            answer!(fs, "write", asker, ino, None, reply, written, |()| reply.written(data.len() as u32));
        });
    }

    fn flush(&self, request: &Request, ino: INodeNo, handle: FileHandle, lock_owner: LockOwner, reply: ReplyEmpty) {
        let (asker, ino) = asked(request, ino);
        self.fs.opening_done(asker, Some((ino, handle.0)));
        self.aside(move |fs| {
            let done = fs.flush(asker, handle.0, lock_owner.0);
            answer!(fs, "close", asker, ino, None, reply, done, |()| reply.ok());
        });
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let work = move |fs: &Filesystem| {
            fs.release(handle.0);
            reply.ok();
        };
        let Ok(handle) = self.fs.handles.get(handle.0) else { return work(&self.fs) };
        // Before the next request is read, which may be about the value that this one leaves.
        handle.closed.store(true, Ordering::Relaxed);
        if handle.writes && !self.fs.releases_at_once(&handle) { self.aside(work) } else { work(&self.fs) }
    }

    fn fsync(&self, request: &Request, ino: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let (asker, ino) = asked(request, ino);
        self.aside(move |fs| answer!(fs, "fsync", asker, ino, None, reply, fs.fsync(handle.0), |()| reply.ok()));
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let (asker, ino) = asked(request, ino);
        self.fs.opening_done(asker, None);
        let work = move |fs: &Filesystem| {
            answer!(fs, "opendir", asker, ino, None, reply, fs.open_dir(asker, ino), |handle: Arc<Handle>| {
                reply.opened(FileHandle(handle.id), FopenFlags::empty());
            });
        };
        if self.fs.waits_below(ino) || self.fs.is_control(ino) { self.aside(work) } else { work(&self.fs) }
    }

    fn readdir(&self, request: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let (asker, ino) = asked(request, ino);
        let work = move |fs: &Filesystem| {
            let listed = fs.read_dir(asker, handle.0, offset, &mut |ino, next, entry, name| {
                let ino = if ino == 0 { UNKNOWN_INO } else { views::encode(asker.view, ino) };
                reply.add(INodeNo(ino), next, kind(entry), name)
            });
            answer!(fs, "readdir", asker, ino, None, reply, listed, |()| reply.ok());
        };
        // From the start again it is listed as it is now.
        let lists = offset == 0 && (self.fs.waits_below(ino) || self.fs.is_control(ino));
        if lists { self.aside(work) } else { work(&self.fs) }
    }

    fn releasedir(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.fs.release_dir(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        if self.fs.options.sync_every.is_none() {
            // Whatever changes a directory is durable when it returns.
            return reply.ok();
        }
        let (asker, ino) = asked(request, ino);
        self.aside(move |fs| answer!(fs, "fsyncdir", asker, ino, None, reply, fs.sync(), |()| reply.ok()));
    }

    fn statfs(&self, request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let (asker, ino) = asked(request, ino);
        let block = |bytes: u64| u32::try_from(bytes).unwrap_or(4096);
        answer!(&self.fs, "statfs", asker, ino, None, reply, self.fs.space(), |space: crate::engine::Space| {
            reply.statfs(
                space.blocks,
                space.blocks_free,
                space.blocks_available,
                space.files,
                space.files_free,
                block(space.block_bytes),
                NAME_MAX_BYTES as u32,
                block(space.block_bytes),
            );
        });
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let ((asker, ino), value) = (asked(request, ino), value.to_vec());
        let name = text(name, libc::ENOTSUP);
        self.aside(move |fs| {
            let done = name.and_then(|name| fs.set_xattr(asker, ino, &name, Some(&value), flags));
            answer!(fs, "setxattr", asker, ino, None, reply, done, |()| reply.ok());
        });
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let ((asker, ino), name) = (asked(request, ino), text(name, libc::ENODATA));
        // The kernel asks for this one at every open that truncates: it is never there.
        let kernels = name.as_ref().is_ok_and(|name| name.starts_with("security."));
        let work = move |fs: &Filesystem| {
            let value = name.and_then(|name| fs.get_xattr(asker, ino, &name));
            answer!(fs, "getxattr", asker, ino, None, reply, value, |value: Vec<u8>| send_xattr(reply, &value, size));
        };
        if kernels { work(&self.fs) } else { self.aside(work) }
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let (asker, ino) = asked(request, ino);
        self.aside(move |fs| {
            answer!(fs, "listxattr", asker, ino, None, reply, fs.list_xattrs(asker, ino), |names: Vec<String>| {
                let list: String = names.iter().flat_map(|name| [name.as_str(), "\0"]).collect();
                send_xattr(reply, list.as_bytes(), size);
            });
        });
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (asker, ino) = asked(request, ino);
        let name = text(name, libc::ENODATA);
        self.aside(move |fs| {
            let done = name.and_then(|name| fs.set_xattr(asker, ino, &name, None, 0));
            answer!(fs, "removexattr", asker, ino, None, reply, done, |()| reply.ok());
        });
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode & !libc::FALLOC_FL_KEEP_SIZE != 0 {
            return reply.error(Errno::from_i32(libc::EOPNOTSUPP));
        }
        let (asker, ino) = asked(request, ino);
        let end = if mode == 0 { offset.saturating_add(length) } else { 0 };
        self.aside(move |fs| {
            let done = fs.allocate(asker, ino, handle.0, end);
            answer!(fs, "fallocate", asker, ino, None, reply, done, |()| reply.ok());
        });
    }

    fn lseek(&self, request: &Request, ino: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let (asker, ino) = asked(request, ino);
        self.aside(move |fs| {
            let size = fs.stat_handle(asker, ino, handle.0).map(|stat| stat.size_bytes as i64);
            let found = size.and_then(|size| match whence {
                _ if offset < 0 || offset >= size => Err(Refusal::new(libc::ENXIO, "past the end")),
                libc::SEEK_DATA => Ok(offset),
                libc::SEEK_HOLE => Ok(size),
                _ => Err(Refusal::new(libc::EINVAL, "unknown whence")),
            });
            match found {
                Ok(offset) => reply.offset(offset),
                Err(refusal) => reply.error(errno(&refusal)),
            }
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _ino_in: INodeNo,
        handle_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        handle_out: FileHandle,
        offset_out: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (asker, ino) = asked(request, ino_out);
        self.fs.opening_done(asker, Some((ino, handle_out.0)));
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        let at = WriteAt { offset: offset_out, append: false, lock_owner: None };
        self.aside(move |fs| {
            let copied = fs.copy(asker, (handle_in.0, offset_in), handle_out.0, at, size);
            answer!(fs, "copy", asker, ino, None, reply, copied, |copied| reply.written(copied));
        });
    }
}

fn send_xattr(reply: ReplyXattr, value: &[u8], size: u32) {
    match (u32::try_from(value.len()), size) {
        (Ok(len), 0) => reply.size(len),
        (Ok(len), room) if len <= room => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}
