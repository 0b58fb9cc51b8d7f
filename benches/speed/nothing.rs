//! A FUSE filesystem that does nothing: whatever is asked for exists, whatever is written is forgotten, files are full of
//! zeros. It answers from the one thread that reads requests, as ours does where nothing has to be waited for; attributes
//! may be kept for a second, files are read and written around the page cache, and a listing brings the attributes along.
//! Where it keeps what is written, the kernel keeps nothing of a file and asks for its xattrs, as it must of a mount whose
//! values change behind it and have xattrs.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, ReplyXattr, Request, Session, TimeOrNow, WriteFlags,
};

use super::Result;
use super::shared_sync::SharedSync;
use super::work::fill;

/// The first argument of a process that serves it.
pub(crate) const WORD: &str = "nothing";

const TTL: Duration = Duration::from_secs(1);
/// The root and the session.
const DIRS: [u64; 2] = [1, 2];
/// Of every file.
const SIZE_BYTES: usize = 1024;

/// Serves it until it is unmounted; the session lists so many keys. With a place for a file there, a close is answered when
/// what was written is in it, durable.
pub(crate) fn serve(point: &Path, keys: &str, kept: Option<&Path>) -> Result<()> {
    let nothing = Nothing { keys: keys.parse()?, sync: kept.map(SharedSync::into_file).transpose()? };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("nothing".to_owned()), MountOption::DefaultPermissions];
    Ok(Session::new(nothing, point, &config)?.run()?)
}

#[derive(Debug)]
struct Nothing {
    keys: usize,
    sync: Option<SharedSync>,
}

fn attributes(ino: INodeNo) -> FileAttr {
    match DIRS.contains(&ino.0) {
        true => attributes_of(ino, FileType::Directory, 0),
        false => attributes_of(ino, FileType::RegularFile, SIZE_BYTES as u64),
    }
}

/// Of a node that is ours and never changes.
pub(crate) fn attributes_of(ino: INodeNo, kind: FileType, size: u64) -> FileAttr {
    FileAttr {
        ino,
        size,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: if kind == FileType::Directory { 0o755 } else { 0o644 },
        nlink: 1,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// A number for a name: the session has its own, any name in it the bytes of its end.
fn number(parent: INodeNo, name: &OsStr) -> INodeNo {
    if parent.0 == 1 {
        return INodeNo(2);
    }
    let end = name.as_encoded_bytes().iter().rev().take(7).rev();
    INodeNo(end.fold(1, |number, &byte| number << 8 | u64::from(byte)))
}

impl Nothing {
    /// For how long the kernel may keep what it is told of a node.
    fn ttl(&self, ino: INodeNo) -> Duration {
        if self.sync.is_some() && !DIRS.contains(&ino.0) { Duration::ZERO } else { TTL }
    }

    /// The session's entries from an offset on, each with the next one's; `add` says whether there is no room for it.
    fn list(&self, ino: INodeNo, offset: u64, mut add: impl FnMut(INodeNo, u64, &str) -> bool) {
        let keys = if ino.0 == 2 { self.keys } else { 0 };
        for nth in usize::try_from(offset).unwrap_or(usize::MAX)..keys {
            let name = fill::key(nth);
            if add(number(ino, OsStr::new(&name)), nth as u64 + 1, &name) {
                break;
            }
        }
    }
}

impl fuser::Filesystem for Nothing {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Whole values in one request, as ours.
        let _ = config.set_max_write(1 << 20);
        // Where the kernel sees that names are listed to be asked about, as libfuse does.
        let _ = config.add_capabilities(InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let ino = number(parent, name);
        reply.entry(&self.ttl(ino), &attributes(ino), Generation(0));
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&self.ttl(ino), &attributes(ino));
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&self.ttl(ino), &attributes(ino));
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = SIZE_BYTES.saturating_sub(usize::try_from(offset).unwrap_or(usize::MAX));
        reply.data([0; SIZE_BYTES].get(..left.min(size as usize)).unwrap_or_default());
    }

    fn readdir(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.list(ino, offset, |ino, next, name| reply.add(ino, next, FileType::RegularFile, name));
        reply.ok();
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.list(ino, offset, |ino, next, name| {
            reply.add(ino, next, name, &self.ttl(ino), &attributes(ino), Generation(0))
        });
        reply.ok();
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if let Some(sync) = &self.sync {
            sync.write(data);
        }
        reply.written(u32::try_from(data.len()).unwrap_or(0));
    }

    fn getxattr(&self, _request: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(if self.sync.is_some() { Errno::ENODATA } else { Errno::ENOSYS });
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        match &self.sync {
            Some(sync) => sync.answer(reply),
            None => reply.ok(),
        }
    }
}
