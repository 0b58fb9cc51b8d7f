//! The mount itself: `/dev/fuse`, the system call, and `fusermount` for who may not make it. Knows options as text;
//! not the protocol.
//!
//! fuser can mount too, but then answers EACCES to the close, and to some other calls, of a process under another user
//! than the mounter's that has inherited a descriptor (`sudo command > key`). Whom a mount is for is the kernel's to
//! enforce, at its paths; so the descriptor is made here and handed to fuser open for all.

use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::Options;

const DEVICE: &str = "/dev/fuse";
const KIND: &str = "batonfs";

/// Mounts what will be served through the descriptor that is given back. Until it is, whoever looks waits.
///
/// # Errors
/// The system's error, or what `fusermount` said; nothing is mounted.
pub(super) fn mount(store: &Path, mountpoint: &Path, options: &Options) -> io::Result<OwnedFd> {
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data)?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, options.read_only);
    match rustix::mount::mount(store, mountpoint, format!("fuse.{KIND}"), flags, Some(data.as_c_str())) {
        Ok(()) => Ok(device),
        Err(Errno::PERM) => by_fusermount(store, mountpoint, options),
        Err(error) => Err(error.into()),
    }
}

/// The way of who is not root: a program that may mount does, and sends the descriptor through a socket.
fn by_fusermount(store: &Path, mountpoint: &Path, options: &Options) -> io::Result<OwnedFd> {
    let mut last = io::Error::from(Errno::PERM);
    for program in ["fusermount3", "fusermount"] {
        let (theirs, ours) = UnixStream::pair()?;
        let mut command = Command::new(program);
        command.arg("-o").arg(std::ffi::OsStr::from_bytes(&options_of(store, options))).arg("--").arg(mountpoint);
        // The socket is its standard input, which needs no trick to be inherited.
        command.env("_FUSE_COMMFD", "0").stdin(Stdio::from(OwnedFd::from(theirs)));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            child => child?,
        };
        // It must hold the only other end, so that its death ends our wait.
        drop(command);
        let received = receive(&ours);
        let output = child.wait_with_output()?;
        match received? {
            Some(device) => return Ok(device),
            None => last = io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
    Err(last)
}

fn options_of(store: &Path, options: &Options) -> Vec<u8> {
    let mut text = b"fsname=".to_vec();
    // A comma ends an option, unless it is marked.
    for &byte in store.as_os_str().as_bytes() {
        text.extend(matches!(byte, b',' | b'\\').then_some(b'\\'));
        text.push(byte);
    }
    text.extend(format!(",subtype={KIND},default_permissions,nosuid,nodev").bytes());
    text.extend(if options.read_only { ",ro" } else { "" }.bytes());
    text.extend(if options.allow_other { ",allow_other" } else { "" }.bytes());
    text
}

/// One message with one descriptor; `None` when the other end went without.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(rights.next())
}
