//! A mounted temporary store, as users mount one, with programs run on it under a deadline.
//! Knows the command line and the kernel's files about mounts; nothing of the crate's insides.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::Value;
use tempfile::TempDir;

#[expect(dead_code, reason = "tests of the command use the rest of it")]
mod image;
mod program;
mod sight;
pub(crate) use image::Image;
pub(crate) use program::{Ran, Running, eventually};
pub(crate) use sight::Sight;

/// The session every mount starts with.
pub(crate) const SESSION: &str = "s";
pub(crate) const BATONFS: &str = env!("CARGO_BIN_EXE_batonfs");
const CONNECTIONS: &str = "/sys/fs/fuse/connections";
/// One mount at a time. Tests are threads of one process: a child that one of them has forked and that has not exec'd yet
/// holds every file the others have open, and their commits would rightly wait for it.
static ALONE: Mutex<()> = Mutex::new(());
/// What the test that has the mount now needs beyond the usual deadline.
static LONGER: Mutex<Duration> = Mutex::new(Duration::ZERO);
const STEP: Duration = Duration::from_millis(2);

/// Are the long rounds wanted (`scripts/check.sh --long`)?
pub(crate) fn long() -> bool {
    std::env::var_os("BATONFS_LONG").is_some()
}

fn usual_deadline() -> Duration {
    Duration::from_secs(if long() { 1200 } else { 60 })
}

/// How long a test may take before its mount is taken from it.
fn deadline() -> Duration {
    usual_deadline() + *LONGER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A store in a temporary directory, mounted by the command, unmounted and removed when dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    dir: TempDir,
    /// Where the store is when it is not in `dir`.
    memory: Option<TempDir>,
    /// A file system of its own, where the store is on one.
    image: Option<Image>,
    connection: u32,
    /// How long the test may take.
    limit: Duration,
    watchdog: Watchdog,
    /// The daemon, where it stays in the foreground.
    daemon: Option<Running>,
    // Last, so that the next test starts when everything of this one is gone.
    _alone: MutexGuard<'static, ()>,
}

impl Mount {
    /// A mounted store with one session; `None`, said aloud, where the machine cannot mount.
    pub(crate) fn new() -> Option<Self> {
        Self::with(&[])
    }

    /// The same for a test that needs so much longer than others.
    pub(crate) fn lasting(longer: Duration) -> Option<Self> {
        Self::on(None, &[], longer)
    }

    /// A mount with options of `batonfs mount`.
    pub(crate) fn with(options: &[&str]) -> Option<Self> {
        Self::on(None, options, Duration::ZERO)
    }

    /// The same with the store in memory, where the machine has such a place: for very many commits, which may take
    /// five times as long as other tests where many work at one time.
    pub(crate) fn in_memory(options: &[&str]) -> Option<Self> {
        let memory = tempfile::Builder::new().prefix("batonfs-mount-").tempdir_in("/dev/shm").ok();
        Self::on(memory, options, 4 * usual_deadline())
    }

    /// The same with the store on a file system of its own; `None`, said aloud, where the machine has none for it.
    pub(crate) fn on_image(image: Option<Image>) -> Option<Self> {
        let mut mount = Self::unmounted(None, Duration::ZERO)?;
        mount.image = Some(image?);
        fs::create_dir(mount.store()).expect("mkdir");
        mount.start(&[]);
        fs::create_dir(mount.path("")).expect("a new session");
        Some(mount)
    }

    fn on(memory: Option<TempDir>, options: &[&str], longer: Duration) -> Option<Self> {
        let mut mount = Self::unmounted(memory, longer)?;
        mount.start(options);
        fs::create_dir(mount.path("")).expect("a new session");
        Some(mount)
    }

    /// A store and a mountpoint with nothing mounted yet.
    fn unmounted(memory: Option<TempDir>, longer: Duration) -> Option<Self> {
        if !Path::new("/dev/fuse").exists() {
            eprintln!("SKIPPED: there is no /dev/fuse here, so nothing can be mounted");
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        *LONGER.lock().unwrap_or_else(PoisonError::into_inner) = longer;
        let dir = tempfile::Builder::new().prefix("batonfs-mount-").tempdir().expect("a temporary directory");
        // Other users get as far as the mountpoint; what they may do there is for the mount to say.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        for name in ["mnt", "tmp"] {
            fs::create_dir(dir.path().join(name)).expect("mkdir");
        }
        let (watchdog, limit) = (Watchdog::idle(), deadline());
        let mount = Self { dir, memory, image: None, connection: 0, limit, watchdog, daemon: None, _alone: alone };
        fs::create_dir(mount.store()).expect("mkdir");
        Some(mount)
    }

    fn start(&mut self, options: &[&str]) {
        let mut command = self.outside(&[BATONFS, "mount"]);
        command.args(options).arg(self.store()).arg(self.point());
        self.run(command).ok();
        self.connection = connection_of(&self.point()).expect("`batonfs mount` returned and nothing is mounted");
        self.watchdog = Watchdog::start(self.connection, self.limit);
    }

    /// The backing directory.
    pub(crate) fn store(&self) -> PathBuf {
        let memory = self.memory.as_ref().unwrap_or(&self.dir).path();
        self.image.as_ref().map_or_else(|| memory.to_owned(), Image::path).join("store")
    }

    /// The mountpoint.
    pub(crate) fn point(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// A directory of the test's own, outside the mount.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    /// A path in the session, through the mount; the session itself for the empty key.
    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.point().join(SESSION).join(key)
    }

    /// The same path in the backing directory.
    pub(crate) fn stored(&self, key: &str) -> PathBuf {
        self.store().join(SESSION).join(key)
    }

    /// A key's value as text.
    pub(crate) fn read(&self, key: &str) -> String {
        fs::read_to_string(self.path(key)).unwrap_or_else(|e| panic!("reading {key}: {e}"))
    }

    /// Writes a key from the test's own process, which declares no writer.
    pub(crate) fn write(&self, key: &str, value: &str) {
        fs::write(self.path(key), value).unwrap_or_else(|e| panic!("writing {key}: {e}"));
    }

    /// The names in a directory of the session, sorted.
    pub(crate) fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(dir)).expect("a directory");
        let mut names: Vec<_> =
            entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    /// The session's log, a value per line.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = self.read(".baton/log");
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// The versions the log gives a key, under whatever operation it got them.
    pub(crate) fn versions(&self, key: &str) -> Vec<u64> {
        let of_key = |line: &&Value| line.get("to").or(line.get("key")).and_then(Value::as_str) == Some(key);
        self.log().iter().filter(of_key).filter_map(|line| line["version"].as_u64()).collect()
    }

    /// What the mount says of itself (`mount` in `.baton/status`).
    pub(crate) fn status(&self) -> Value {
        let text = fs::read(self.point().join(".baton/status")).expect("the status");
        serde_json::from_slice::<Value>(&text).expect("a JSON document")["mount"].take()
    }

    /// How many drafts were committed at one moment: `close`, `look`, `release`, `fsync`, `age`, `write` or `end`.
    pub(crate) fn committed_at(&self, moment: &str) -> u64 {
        self.status()["commits"][moment].as_u64().expect("a counter")
    }

    /// The words of the session's refusals, one line each.
    pub(crate) fn errors(&self) -> String {
        self.read(".baton/errors")
    }

    /// The sidecar that the neighbour reads, from the backing directory.
    pub(crate) fn sidecar(&self, key: &str) -> Value {
        let path = self.stored(".agent_state_meta").join(format!("{key}.json"));
        let text = fs::read(&path).unwrap_or_else(|e| panic!("the sidecar of {key}: {e}"));
        serde_json::from_slice(&text).unwrap_or_else(|e| panic!("the sidecar of {key}: {e}"))
    }

    /// The writer id the sidecar records, empty when it records none.
    pub(crate) fn writer_of(&self, key: &str) -> String {
        self.sidecar(key)["writer"]["writer_id"].as_str().unwrap_or_default().to_owned()
    }

    /// An extended attribute as text, `None` when there is none.
    pub(crate) fn xattr(&self, key: &str, name: &str) -> Option<String> {
        let mut buffer = vec![0; 4096];
        let len = rustix::fs::getxattr(self.path(key), name, &mut buffer[..]).ok()?;
        buffer.truncate(len);
        Some(String::from_utf8(buffer).expect("UTF-8"))
    }

    /// A command that works in the session, with no writer declared but what `words` declare.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = self.outside(words);
        command.current_dir(self.path(""));
        command
    }

    fn outside(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.dir.path()).stdin(Stdio::null()).process_group(0);
        for name in ["WRITER_ID", "STAGE_ID", "WORKER_ID", "SESSION_ID", "CONFLICT_POLICY"] {
            command.env_remove(format!("BATON_{name}"));
        }
        // Error messages are compared with their English words.
        command
            .env("BATONFS_PATIENCE", "1000")
            .env("LC_ALL", "C.UTF-8")
            .env("BATONFS", BATONFS)
            .env("TMP", self.scratch());
        command.env("STORE", self.store()).env("MNT", self.point()).env("SESSION", SESSION);
        command
    }

    /// Starts a command; its output goes to files, so that what it leaves running cannot hold the test.
    pub(crate) fn spawn(&self, command: Command) -> Running {
        Running::start(command, self.connection)
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, command: Command) -> Ran {
        self.spawn(command).wait()
    }

    /// Runs a bash script in the session.
    pub(crate) fn bash(&self, script: &str) -> Ran {
        self.run(self.command(&["bash", "-c", script]))
    }

    /// Runs a Python script in the session.
    pub(crate) fn python(&self, script: &str) -> Ran {
        self.run(self.command(&[python(), "-c", script]))
    }

    /// Runs a bash script in the session as a declared writer, by `batonfs run`.
    pub(crate) fn by(&self, writer: &str, script: &str) -> Ran {
        self.run(self.command(&[BATONFS, "run", "--writer-id", writer, "--", "bash", "-c", script]))
    }

    /// Runs the command itself, outside the mount.
    pub(crate) fn batonfs(&self, words: &[&str]) -> Ran {
        let mut command = self.outside(&[BATONFS]);
        command.args(words);
        self.run(command)
    }

    /// Unmounts and mounts the same store again.
    pub(crate) fn again(&mut self, options: &[&str]) {
        if connection_of(&self.point()).is_some() {
            self.unmount();
        }
        self.start(options);
    }

    /// Kills the daemon as a crash would and mounts the same store again.
    pub(crate) fn crash(&mut self) {
        self.crash_and_again(&[]);
    }

    /// The same, and those that open the store again are killed too, each after one of these times.
    pub(crate) fn crash_and_again(&mut self, times: &[Duration]) {
        self.watchdog.stop();
        self.kill_daemons();
        drop(self.daemon.take().map(Running::wait));
        for time in times {
            let mut command = self.outside(&[BATONFS, "mount"]);
            command.arg(self.store()).arg(self.point());
            let opening = self.spawn(command);
            thread::sleep(*time);
            self.kill_daemons();
            drop(opening.wait());
        }
        self.start(&[]);
    }

    /// Kills all that serve the store, waits until nothing is left of them, and takes the dead mount away.
    fn kill_daemons(&self) {
        let (mut killed, mut quiet) = (Vec::new(), 0);
        // Looked for several times: one that is in exec has neither a command line nor its executable.
        eventually("nobody serves the store", || {
            let daemons = self.daemons();
            daemons.iter().copied().for_each(kill);
            quiet = if daemons.is_empty() { quiet + 1 } else { 0 };
            killed.extend(daemons);
            quiet > 5
        });
        // A process without a command line may hold its files, and with them the store's lock, for a moment still.
        eventually("the dead have let go of the store", || killed.iter().all(|pid| is_over(*pid)));
        while connection_of(&self.point()).is_some() {
            if rustix::mount::unmount(self.point(), UnmountFlags::DETACH).is_err() {
                break;
            }
        }
    }

    /// Unmounts by the command; afterwards the store is plain files.
    pub(crate) fn unmount(&mut self) {
        let point = self.point();
        self.run(self.outside(&[BATONFS, "umount", &point.to_string_lossy()])).ok();
        self.watchdog.stop();
        assert_eq!(connection_of(&point), None, "`batonfs umount` succeeded and it is still mounted");
        assert!(self.wait_for_daemons(), "the daemon outlived its mount");
    }

    /// The processes that serve this store: ours by executable and by the path they were given.
    pub(crate) fn daemons(&self) -> Vec<u32> {
        let store = self.store().to_string_lossy().into_owned();
        let serves = |pid: &u32| {
            // The line first: the link of a process that hangs in exec keeps who follows it.
            fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(&store))
                && fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(BATONFS))
        };
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(serves).collect()
    }

    fn wait_for_daemons(&self) -> bool {
        let until = Instant::now() + Duration::from_secs(20);
        while !self.daemons().is_empty() {
            if Instant::now() > until {
                return false;
            }
            thread::sleep(STEP);
        }
        true
    }
}

impl Mount {
    /// What is damaged in the store, once nobody has it: whatever a test did on the mount, nothing may be.
    fn unsound(&self) -> String {
        let verified = self.outside(&[BATONFS, "verify"]).arg(self.store()).output();
        match verified {
            Ok(verified) if verified.status.success() => String::new(),
            Ok(verified) => {
                [verified.stdout, verified.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
            }
            Err(e) => e.to_string(),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let in_time = self.watchdog.stop();
        let mut clean = true;
        if connection_of(&self.point()).is_some() {
            let point = self.point();
            let mut umount = self.outside(&[BATONFS, "umount", &point.to_string_lossy()]);
            umount.stdout(Stdio::null()).stderr(Stdio::null());
            clean = umount.spawn().is_ok_and(|child| end_within(child, Duration::from_secs(20)));
            if connection_of(&point).is_some() {
                abort(self.connection);
                let _ = rustix::mount::unmount(&point, UnmountFlags::DETACH);
            }
        }
        if !self.wait_for_daemons() {
            self.daemons().into_iter().for_each(kill);
            clean = false;
        }
        if let Some(daemon) = self.daemon.take() {
            clean &= daemon.wait().code == Some(0);
        }
        let unsound = self.unsound();
        if sight::is_mounted(self.dir.path()) {
            let _ = rustix::mount::unmount(self.dir.path(), UnmountFlags::DETACH);
        }
        if !thread::panicking() {
            assert!(in_time, "the test took longer than {:?}; its mount was aborted", self.limit);
            assert!(clean, "the mount did not end by itself");
            assert_eq!(unsound, "", "the store is damaged after the test");
        }
    }
}

/// Aborts the mount of a test that hangs, so that its system calls return.
#[derive(Debug)]
struct Watchdog(Option<(mpsc::Sender<()>, thread::JoinHandle<bool>)>);

impl Watchdog {
    fn idle() -> Self {
        Self(None)
    }

    fn start(connection: u32, limit: Duration) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            let in_time = stopped.recv_timeout(limit) != Err(mpsc::RecvTimeoutError::Timeout);
            if !in_time {
                eprintln!("the test took longer than {limit:?}: aborting FUSE connection {connection}");
                abort(connection);
            }
            in_time
        });
        Self(Some((stop, thread)))
    }

    /// Was it stopped before the deadline?
    fn stop(&mut self) -> bool {
        let Some((stop, thread)) = self.0.take() else { return true };
        drop(stop);
        thread.join().unwrap_or(false)
    }
}

/// The interpreter itself where the system has one: version managers' shims cost more than the scripts.
pub(crate) fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" }
}

/// Asserts that an operation fails with this errno.
#[track_caller]
pub(crate) fn fails<T: std::fmt::Debug>(result: std::io::Result<T>, errno: i32) {
    let error = result.expect_err("it should have been refused");
    let expected = std::io::Error::from_raw_os_error(errno);
    assert_eq!(error.raw_os_error(), Some(errno), "{error}, expected {expected}");
}

fn end_within(mut child: Child, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => thread::sleep(STEP),
            Err(_) => break,
        }
    }
    drop(child.kill());
    drop(child.wait());
    false
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Is a process gone, or a zombie whose threads are all gone?
fn is_over(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let is_zombie = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']));
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    is_zombie && threads <= 1
}

/// The number of the FUSE connection mounted there: the minor device number, read without touching the mount.
fn connection_of(point: &Path) -> Option<u32> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = table.lines().rfind(|line| line.split(' ').nth(4) == point.to_str())?;
    line.split(' ').nth(2)?.split_once(':')?.1.parse().ok()
}

fn abort(connection: u32) {
    if connection == 0 {
        return;
    }
    let path = Path::new(CONNECTIONS).join(connection.to_string()).join("abort");
    if !path.exists() {
        let _ = rustix::mount::mount("none", CONNECTIONS, "fusectl", MountFlags::empty(), None);
    }
    if let Err(e) = fs::write(&path, "1") {
        eprintln!("FUSE connection {connection} could not be aborted: {e}");
    }
}
