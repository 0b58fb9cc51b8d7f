//! The disk under the local engine: files opened beneath the store without following symlinks, renames and syncs.
//! Knows paths and bytes; must not know keys, versions or journals. Nothing else in the crate syncs or renames.
//!
//! [`Disk`] is a seam: tests put a disk below the engine that records, fails, or loses what was not synced.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{
    self, AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, StatxFlags, StatxTimestamp, Timespec, Timestamps,
    XattrFlags,
};
use serde::{Deserialize, Serialize};

use super::super::value::Space;

/// What a name in the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symlink, device, FIFO or socket: never followed, never shown.
    Other,
}

/// Which file it is, whatever names it has and has had: a number alone is given to another file once the first is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// Inode number.
    pub ino: u64,
    /// When it was made, nanoseconds since 1970; 0 where the file system does not tell.
    pub born_ns: i64,
}

/// What the engine needs of a `stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub form: Form,
    /// Which file it is.
    pub id: FileId,
    /// Number of names.
    pub links: u64,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Permission bits (0o7777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// When its name, place or attributes were last changed, likewise.
    pub changed_ns: i64,
}

/// What an open file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading, and changing attributes; directories too.
    Read,
    /// Reading and writing.
    Write,
}

/// An open file or directory. Errors are the system's.
#[expect(clippy::missing_errors_doc, reason = "every method gives the system's error and changes nothing then")]
pub trait DiskFile: Send + Sync + Debug {
    /// Reads at most `buffer.len()` bytes; short only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts, or lengthens with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Its attributes.
    fn stat(&self) -> io::Result<Stat>;
    /// One xattr; `None` when there is none of this name.
    fn xattr(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// The names of all xattrs that are UTF-8.
    fn xattr_names(&self) -> io::Result<Vec<String>>;
    /// Makes or replaces an xattr.
    fn set_xattr(&self, name: &str, value: &[u8]) -> io::Result<()>;
    /// Removes an xattr; none of this name is no error.
    fn remove_xattr(&self, name: &str) -> io::Result<()>;
    /// Sets permission bits.
    fn set_mode(&self, mode: u32) -> io::Result<()>;
    /// Sets the owner.
    fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()>;
    /// Sets the modification time, nanoseconds since 1970; the file system may round or clamp it.
    fn set_mtime(&self, mtime_ns: i64) -> io::Result<()>;
    /// Has nobody else, here or in another process, this file open?
    fn is_open_here_only(&self) -> io::Result<bool>;
    /// Makes the bytes durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
    /// Makes bytes and attributes durable (fsync).
    fn sync(&self) -> io::Result<()>;
}

/// A store's directory as a disk. Paths are relative to it, components joined by `/`; no component may be a symlink.
#[expect(clippy::missing_errors_doc, reason = "every method gives the system's error and changes nothing then")]
pub trait Disk: Send + Sync + Debug {
    /// Opens an existing file or directory. ELOOP where a symlink is on the way or at the end.
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>>;
    /// Makes a new file, opened for reading and writing; its mode is `mode` less the umask.
    fn create(&self, path: &str, mode: u32) -> io::Result<Box<dyn DiskFile>>;
    /// A file without a name in directory `dir`, readable and writable.
    fn anonymous(&self, dir: &str) -> io::Result<File>;
    /// Gives a file without a name one. ENOENT where it cannot get one any more: its bytes are then to be copied.
    fn link_anonymous(&self, file: &File, to: &str) -> io::Result<()>;
    /// Gives a file a second name.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// What is at a path; a symlink at its end is seen as itself.
    fn stat(&self, path: &str) -> io::Result<Stat>;
    /// Renames, replacing what is at `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Renames; EEXIST where `to` exists.
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()>;
    /// Exchanges two names as one step.
    fn exchange(&self, a: &str, b: &str) -> io::Result<()>;
    /// Removes a file's name.
    fn unlink(&self, path: &str) -> io::Result<()>;
    /// Makes a directory.
    fn make_dir(&self, path: &str, mode: u32) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &str) -> io::Result<()>;
    /// The names in a directory, unsorted, without `.` and `..`.
    fn read_dir(&self, path: &str) -> io::Result<Vec<(OsString, Form)>>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Makes everything in the file system durable.
    fn sync_everything(&self) -> io::Result<()>;
    /// Space and names left.
    fn space(&self) -> io::Result<Space>;
    /// Names the time since the machine started and the file system was mounted: while it is the same, nothing written
    /// was lost. At most 48 bytes; empty when unknown.
    fn boot(&self) -> String;
}

/// `STATX_MNT_ID_UNIQUE` (since Linux 6.8): a number that no other mount since the start has had.
const UNIQUE_MOUNT_ID: StatxFlags = StatxFlags::from_bits_retain(0x4000);
/// Longest path given to one system call.
const PATH_PART_BYTES: usize = 2_000;

/// The real disk.
#[derive(Debug)]
pub struct LocalDisk {
    root: OwnedFd,
    /// We are root: what we make goes to who owns the directory it is made in, who could not go on with it otherwise.
    gives: bool,
    /// [`HELD_DIR`], opened at its first use.
    held: OnceLock<OwnedFd>,
}

/// The directory that every commit passes through. Nobody renames or removes it while the store is open, so it is
/// opened once.
const HELD_DIR: &str = super::paths::DRAFTS;

/// A parent directory: one that is held open, or one opened for this call.
enum Parent<'a> {
    Held(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Held(fd) => *fd,
            Self::Opened(fd) => fd.as_fd(),
        }
    }
}

impl LocalDisk {
    /// The directory at `root` as a disk.
    ///
    /// # Errors
    /// The system's: ENOENT, ENOTDIR, EACCES.
    pub fn open_at(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(root, flags, Mode::empty())?;
        Ok(Self { root, gives: rustix::process::geteuid().is_root(), held: OnceLock::new() })
    }

    /// Who gets what we make in a directory; `None` where it is ours already.
    fn heir(&self, dir: impl AsFd) -> io::Result<Option<(fs::Uid, fs::Gid)>> {
        if !self.gives {
            return Ok(None);
        }
        let stat = fs::fstat(dir)?;
        Ok((stat.st_uid != 0).then(|| (fs::Uid::from_raw(stat.st_uid), fs::Gid::from_raw(stat.st_gid))))
    }

    fn give(&self, file: OwnedFd, made_in: impl AsFd) -> io::Result<OwnedFd> {
        if let Some((uid, gid)) = self.heir(made_in)? {
            fs::fchown(&file, Some(uid), Some(gid))?;
        }
        Ok(file)
    }

    fn beneath(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        // One call takes paths below PATH_MAX; history adds a letter a component, so longer ones are walked in parts.
        let mut rest = if path.is_empty() { "." } else { path };
        let mut at: Option<OwnedFd> = None;
        while rest.len() > PATH_PART_BYTES {
            let Some(cut) = rest.char_indices().skip_while(|(i, _)| *i < PATH_PART_BYTES / 2).find(|(_, c)| *c == '/')
            else {
                break;
            };
            let (part, tail) = rest.split_at(cut.0);
            at = Some(self.step(at.as_ref(), part, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?);
            rest = tail.trim_start_matches('/');
        }
        self.step(at.as_ref(), rest, flags, mode)
    }

    fn step(&self, from: Option<&OwnedFd>, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        loop {
            // EAGAIN: a rename somewhere raced the walk and the kernel could not vouch for BENEATH.
            let from = from.unwrap_or(&self.root);
            match fs::openat2(from, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, mode, resolve) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    fn parent<'p>(&self, path: &'p str) -> io::Result<(Parent<'_>, &'p str)> {
        match path.rsplit_once('/') {
            None => Ok((Parent::Held(self.root.as_fd()), path)),
            Some((HELD_DIR, name)) => {
                if let Some(held) = self.held.get() {
                    return Ok((Parent::Held(held.as_fd()), name));
                }
                let fd = self.beneath(HELD_DIR, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
                Ok((Parent::Held(self.held.get_or_init(|| fd).as_fd()), name))
            }
            Some((dir, name)) => {
                let fd = self.beneath(dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
                Ok((Parent::Opened(fd), name))
            }
        }
    }

    fn rename_with(&self, from: &str, to: &str, flags: RenameFlags) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        within(&[&from_dir, &to_dir], &|| fs::renameat_with(&from_dir, from_name, &to_dir, to_name, flags))
    }

    /// Opens a file of our own whose mode denies it to us: the mode is for its users, the store still has to read it.
    fn open_denied(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        // By descriptor: a name could lead elsewhere by now.
        let denied = self.beneath(path, OFlags::PATH, Mode::empty())?;
        with_mode(denied.as_fd(), Mode::RUSR | Mode::WUSR, || self.beneath(path, flags, Mode::empty()))?
    }
}

/// Acts with more permission bits on a file or directory of our own, and puts its mode back.
fn with_mode<T>(of: BorrowedFd<'_>, more: Mode, act: impl FnOnce() -> T) -> io::Result<T> {
    use std::os::fd::AsRawFd;
    let stat = fs::fstat(of)?;
    if form_of(FileType::from_raw_mode(stat.st_mode)) == Form::Other {
        return Err(rustix::io::Errno::ACCESS.into());
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    // fchmod does not take a descriptor that is a place only; its link in /proc leads to the same inode.
    let own = format!("/proc/self/fd/{}", of.as_raw_fd());
    fs::chmod(own.as_str(), mode | more)?;
    let result = act();
    fs::chmod(own.as_str(), mode)?;
    Ok(result)
}

/// Changes names in directories of our own, also where their modes deny it to us: whoever may write a value need not
/// be allowed to write its directory, but we exchange files where they overwrite one.
fn within(dirs: &[&Parent<'_>], act: &dyn Fn() -> rustix::io::Result<()>) -> io::Result<()> {
    match (act(), dirs) {
        (Err(rustix::io::Errno::ACCESS), [dir, rest @ ..]) => {
            // The first may do; the next are tried with it open.
            with_mode(dir.as_fd(), Mode::WUSR | Mode::XUSR, || within(rest, act))?
        }
        (other, _) => Ok(other?),
    }
}

impl Disk for LocalDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        // NONBLOCK: a FIFO in the store must not hold us.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = flags | if access == Access::Read { OFlags::RDONLY } else { OFlags::RDWR };
        let fd = match self.beneath(path, flags, Mode::empty()) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => self.open_denied(path, flags).map_err(|_| e),
            other => other,
        }?;
        Ok(Box::new(LocalFile(File::from(fd))))
    }

    fn create(&self, path: &str, mode: u32) -> io::Result<Box<dyn DiskFile>> {
        let (dir, name) = self.parent(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.give(fs::openat(&dir, name, flags, Mode::from_raw_mode(mode))?, &dir)?;
        Ok(Box::new(LocalFile(File::from(fd))))
    }

    fn anonymous(&self, dir: &str) -> io::Result<File> {
        let path = format!("{dir}/{}", uuid::Uuid::now_v7());
        let (made_in, _) = self.parent(&path)?;
        match self.beneath(dir, OFlags::RDWR | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => Ok(File::from(self.give(fd, &made_in)?)),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
                let fd = self.beneath(&path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR)?;
                self.unlink(&path)?;
                Ok(File::from(self.give(fd, &made_in)?))
            }
            Err(e) => Err(e),
        }
    }

    fn link_anonymous(&self, file: &File, to: &str) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        // AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH; the link in /proc does not.
        let (dir, name) = self.parent(to)?;
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(fs::linkat(fs::CWD, own.as_str(), dir, name, AtFlags::SYMLINK_FOLLOW)?)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        Ok(fs::linkat(from_dir, from_name, to_dir, to_name, AtFlags::empty())?)
    }

    fn stat(&self, path: &str) -> io::Result<Stat> {
        if path.is_empty() {
            return stat_at(&self.root, "");
        }
        let (dir, name) = self.parent(path)?;
        stat_at(dir, name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename_with(from, to, RenameFlags::empty())
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename_with(from, to, RenameFlags::NOREPLACE)
    }

    fn exchange(&self, a: &str, b: &str) -> io::Result<()> {
        self.rename_with(a, b, RenameFlags::EXCHANGE)
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        within(&[&dir], &|| fs::unlinkat(&dir, name, AtFlags::empty()))
    }

    fn make_dir(&self, path: &str, mode: u32) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        within(&[&dir], &|| fs::mkdirat(&dir, name, Mode::from_raw_mode(mode)))?;
        if let Some((uid, gid)) = self.heir(&dir)? {
            fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        within(&[&dir], &|| fs::unlinkat(&dir, name, AtFlags::REMOVEDIR))
    }

    fn read_dir(&self, path: &str) -> io::Result<Vec<(OsString, Form)>> {
        let fd = self.beneath(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut names = Vec::new();
        for entry in fs::Dir::new(fd)? {
            let entry = entry?;
            let name = entry.file_name();
            let form = match entry.file_type() {
                _ if matches!(name.to_bytes(), b"." | b"..") => continue,
                FileType::Unknown => self.stat_in(path, name.to_bytes()).map_or(Form::Other, |stat| stat.form),
                other => form_of(other),
            };
            names.push((OsString::from_vec(name.to_bytes().to_vec()), form));
        }
        Ok(names)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let fd = self.beneath(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Ok(fs::fsync(fd)?)
    }

    fn sync_everything(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.root)?)
    }

    fn space(&self) -> io::Result<Space> {
        let v = fs::fstatvfs(&self.root)?;
        Ok(Space {
            block_bytes: v.f_frsize,
            blocks: v.f_blocks,
            blocks_free: v.f_bfree,
            blocks_available: v.f_bavail,
            files: v.f_files,
            files_free: v.f_ffree,
        })
    }

    fn boot(&self) -> String {
        // A file system can go down alone: then it is mounted again, under another number.
        let Ok(boot) = std::fs::read_to_string("/proc/sys/kernel/random/boot_id") else { return String::new() };
        let stat = fs::statx(&self.root, "", AtFlags::EMPTY_PATH, UNIQUE_MOUNT_ID);
        let mount = stat.ok().filter(|stat| StatxFlags::from_bits_retain(stat.stx_mask).contains(UNIQUE_MOUNT_ID));
        format!("{}/{:x}", boot.trim(), mount.map_or(0, |stat| stat.stx_mnt_id))
    }
}

impl LocalDisk {
    fn stat_in(&self, dir: &str, name: &[u8]) -> io::Result<Stat> {
        let name = std::str::from_utf8(name).map_err(io::Error::other)?;
        self.stat(&if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") })
    }
}

fn form_of(file_type: FileType) -> Form {
    match file_type {
        FileType::RegularFile => Form::File,
        FileType::Directory => Form::Dir,
        _ => Form::Other,
    }
}

/// What a name in a directory is; the directory or file itself for no name. A symlink is seen as itself.
fn stat_at(dir: impl AsFd, name: &str) -> io::Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::empty() };
    let stat = fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    let tells = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    Ok(Stat {
        form: form_of(FileType::from_raw_mode(stat.stx_mode.into())),
        id: FileId { ino: stat.stx_ino, born_ns: if tells { time_ns(stat.stx_btime) } else { 0 } },
        links: stat.stx_nlink.into(),
        size_bytes: stat.stx_size,
        blocks: stat.stx_blocks,
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mtime_ns: time_ns(stat.stx_mtime),
        changed_ns: time_ns(stat.stx_ctime),
    })
}

fn time_ns(at: StatxTimestamp) -> i64 {
    at.tv_sec.saturating_mul(1_000_000_000).saturating_add(at.tv_nsec.into())
}

/// A file of the real disk.
#[derive(Debug)]
struct LocalFile(File);

impl LocalFile {
    /// User xattrs obey the mode bits even for the owner: a read-only value must still get its mark.
    fn permitted<T>(&self, act: impl Fn() -> rustix::io::Result<T>) -> io::Result<T> {
        match act() {
            Err(rustix::io::Errno::ACCESS) => {
                let mode = Mode::from_raw_mode(fs::fstat(&self.0)?.st_mode & 0o7777);
                fs::fchmod(&self.0, mode | Mode::RUSR | Mode::WUSR)?;
                let result = act();
                fs::fchmod(&self.0, mode)?;
                Ok(result?)
            }
            other => Ok(other?),
        }
    }
}

/// Longest value an xattr can have on Linux.
const XATTR_MAX_BYTES: usize = 65_536;
/// What most marks fit in, so that one call reads them.
const XATTR_GUESS_BYTES: usize = 2_048;

impl DiskFile for LocalFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn stat(&self) -> io::Result<Stat> {
        stat_at(&self.0, "")
    }

    fn xattr(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let read = |len: usize| {
            self.permitted(|| {
                let mut value = vec![0; len];
                let got = fs::fgetxattr(&self.0, name, &mut value)?;
                value.truncate(got);
                Ok(value)
            })
        };
        match read(XATTR_GUESS_BYTES) {
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) => read(XATTR_MAX_BYTES).map(Some),
            Err(e) if e.raw_os_error() == Some(libc::ENODATA) => Ok(None),
            other => other.map(Some),
        }
    }

    fn xattr_names(&self) -> io::Result<Vec<String>> {
        let mut list = vec![0; XATTR_GUESS_BYTES];
        let got = match fs::flistxattr(&self.0, &mut list) {
            Err(rustix::io::Errno::RANGE) => {
                list.resize(XATTR_MAX_BYTES, 0);
                fs::flistxattr(&self.0, &mut list)
            }
            other => other,
        }?;
        list.truncate(got);
        let names = list.split(|b| *b == 0).filter(|name| !name.is_empty());
        Ok(names.filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect())
    }

    fn set_xattr(&self, name: &str, value: &[u8]) -> io::Result<()> {
        self.permitted(|| fs::fsetxattr(&self.0, name, value, XattrFlags::empty()))
    }

    fn remove_xattr(&self, name: &str) -> io::Result<()> {
        match self.permitted(|| fs::fremovexattr(&self.0, name)) {
            Err(e) if e.raw_os_error() == Some(libc::ENODATA) => Ok(()),
            other => other,
        }
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fs::fchmod(&self.0, Mode::from_raw_mode(mode))?)
    }

    fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        Ok(fs::fchown(&self.0, Some(fs::Uid::from_raw(uid)), Some(fs::Gid::from_raw(gid)))?)
    }

    fn set_mtime(&self, mtime_ns: i64) -> io::Result<()> {
        let at = Timespec { tv_sec: mtime_ns.div_euclid(1_000_000_000), tv_nsec: mtime_ns.rem_euclid(1_000_000_000) };
        let keep = Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT };
        Ok(fs::futimens(&self.0, &Timestamps { last_access: keep, last_modification: at })?)
    }

    fn is_open_here_only(&self) -> io::Result<bool> {
        use std::os::fd::AsRawFd;
        // The kernel grants a write lease only on a file that nobody else has open. It is given back at once: one that
        // is held would send us a signal when somebody opens the file.
        let lease = |kind: libc::c_int| {
            // SAFETY: the descriptor is open, and this command takes a number.
            unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_SETLEASE, kind) }
        };
        if lease(libc::F_WRLCK) != 0 {
            return Ok(false);
        }
        match lease(libc::F_UNLCK) {
            0 => Ok(true),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}
