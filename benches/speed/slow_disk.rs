//! A disk whose flushes take as long as one wants, for what the disk at hand cannot show: an image in memory, in a FUSE
//! filesystem that answers an fsync so much later; a loop device makes it a disk, with a file system as systems have it.
//! A sync takes one flush where bytes were overwritten, and two where the file system writes its own journal. The loop
//! device does one thing at a time: who reads or writes while it flushes waits.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fuser::{
    Config, Errno, FileHandle, FileType, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session,
    WriteFlags,
};

use super::Result;
use super::mount::{Mount, aside, is_mounted};
use super::nothing;
use super::place::Place;

/// The first argument of a process that serves the image.
pub(crate) const WORD: &str = "slow-disk";

const ROOT: u64 = 1;
const IMAGE: (u64, &str) = (2, "image");
const IMAGE_BYTES: u64 = 2 << 30;
/// Nothing changes but by the kernel that asks.
const TTL: Duration = Duration::from_secs(3600);

/// The disk with its file system, mounted; gone when dropped.
#[derive(Debug)]
pub(crate) struct SlowDisk {
    dir: PathBuf,
    image: Option<Mount>,
}

impl SlowDisk {
    /// Makes one in a place.
    pub(crate) fn make(place: &Place, sync: Duration) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err("a slow disk is a loop device, which only root can mount".into());
        }
        let image = Mount::slow_disk(place.dir("slow-image")?, sync)?;
        let at = image.session(IMAGE.1);
        let disk = Self { dir: place.dir("slow-disk")?, image: Some(image) };
        run(aside("mkfs.ext4").args(["-q", "-F", "-E", "nodiscard"]).arg(&at))?;
        run(aside("mount").args(["-o", "loop,nodiscard"]).args([&at, &disk.dir]))?;
        Ok(disk)
    }

    /// What it holds.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Unmounts it, and says what did not end well.
    pub(crate) fn end(mut self) -> Result<()> {
        self.leave()
    }

    fn leave(&mut self) -> Result<()> {
        let unmounted = self.unmount();
        let ended = self.image.take().map_or(Ok(()), Mount::end);
        unmounted.and(ended)
    }

    /// The loop device ends with its mount.
    fn unmount(&self) -> Result<()> {
        // From the table: whoever mounted it may have ended otherwise than well.
        if !is_mounted(&self.dir) {
            return Ok(());
        }
        let unmounted = run(aside("umount").arg(&self.dir));
        if unmounted.is_err() {
            // Else who is still in it would keep its name here, and a device whose image is gone.
            run(aside("umount").arg("--lazy").arg(&self.dir))?;
        }
        unmounted
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        if let Err(e) = self.leave() {
            eprintln!("bench: ending the disk at '{}': {e}", self.dir.display());
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("running {program}, which a slow disk needs: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("a slow disk: {program} failed: {}", said.trim()).into()) }
}

/// Serves the image until it is unmounted.
pub(crate) fn serve(point: &Path, sync_ms: &str) -> Result<()> {
    let memory = rustix::fs::memfd_create("batonfs-bench-disk", rustix::fs::MemfdFlags::CLOEXEC)?;
    let image = Image { file: File::from(memory), sync: milliseconds(sync_ms.parse()?)? };
    image.file.set_len(IMAGE_BYTES)?;
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName(WORD.to_owned())];
    Ok(Session::new(image, point, &config)?.run()?)
}

/// A time as it is given.
pub(crate) fn milliseconds(number: f64) -> Result<Duration> {
    match number {
        0.0..=1000.0 => Ok(Duration::try_from_secs_f64(number / 1000.0)?),
        _ => Err(format!("a flush takes 0 to 1000 ms longer, not {number}").into()),
    }
}

#[derive(Debug)]
struct Image {
    file: File,
    sync: Duration,
}

fn attributes(ino: INodeNo) -> fuser::FileAttr {
    match ino.0 {
        ROOT => nothing::attributes_of(ino, FileType::Directory, 0),
        _ => nothing::attributes_of(ino, FileType::RegularFile, IMAGE_BYTES),
    }
}

impl fuser::Filesystem for Image {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let _ = config.set_max_write(1 << 20);
        // Reads of a disk do not wait for each other.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_READ);
        Ok(())
    }

    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == IMAGE.1 {
            true => reply.entry(&TTL, &attributes(INodeNo(IMAGE.0)), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(ino));
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
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
        let mut bytes = vec![0; size as usize];
        match self.file.read_at(&mut bytes, offset) {
            Ok(got) => reply.data(bytes.get(..got).unwrap_or_default()),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match (self.file.write_all_at(data, offset), u32::try_from(data.len())) {
            (Ok(()), Ok(len)) => reply.written(len),
            _ => reply.error(Errno::EIO),
        }
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    /// What else is asked meanwhile does not wait here.
    fn fsync(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let sync = self.sync;
        std::thread::spawn(move || {
            std::thread::sleep(sync);
            reply.ok();
        });
    }
}
