//! Mounts whose daemon sees less of its callers than the machine's own daemons do, and callers in a container below one.
//! The daemon stays in the foreground; the harness's deadline, watchdog and clean-up are those of every mount.

use std::fs;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};

use super::{BATONFS, Mount, Watchdog, connection_of, eventually};

/// What the daemon sees of those who call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It has a pid namespace of its own below the callers' and the machine's `/proc`: every caller has the id 0.
    Outside,
    /// The same with a `/proc` of its own, as in a container.
    Container,
    /// Ids are real, and `/proc` has no other processes than its own (`hidepid`).
    Hidden,
    /// Ids and names are seen, descriptors and environments are not: it lacks the capability for it.
    Denied,
}

impl Sight {
    /// The command that starts a daemon so. `hidepid` lets the group of the mount option see, and that is by default
    /// root's. The new `/proc` lies on a mount that was made private before, so the machine's own is never touched.
    fn words(self) -> &'static [&'static str] {
        const HIDE: &str = "mount --make-private /proc && \
                            mount -t proc -o hidepid=invisible,gid=65533 proc /proc && exec \"$@\"";
        match self {
            Self::Outside => &["unshare", "--pid", "--fork", "--kill-child"],
            // Everything but /proc is passed on, so that the mount shows outside.
            Self::Container => &[
                "unshare",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount",
                "--propagation",
                "unchanged",
                "bash",
                "-c",
                "mount --make-private /proc && mount -t proc proc /proc && exec \"$@\"",
                "-",
            ],
            Self::Hidden => &[
                "unshare",
                "--mount",
                "--propagation",
                "unchanged",
                "bash",
                "-c",
                HIDE,
                "-",
                "setpriv",
                "--bounding-set",
                "-sys_ptrace",
            ],
            Self::Denied => &["setpriv", "--bounding-set", "-sys_ptrace"],
        }
    }
}

impl Mount {
    /// A mounted store with one session whose daemon sees its callers so; `None`, said aloud, where that cannot be.
    pub(crate) fn seen_by(sight: Sight, options: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can give a daemon other namespaces or fewer capabilities");
            return None;
        }
        let mut mount = Self::unmounted(None, std::time::Duration::ZERO)?;
        mount.serve(sight, options);
        fs::create_dir(mount.path("")).expect("a new session");
        Some(mount)
    }

    fn serve(&mut self, sight: Sight, options: &[&str]) {
        // What is mounted below a shared mount shows in the other namespaces that have it.
        if !is_mounted(self.dir.path()) {
            mount_bind(self.dir.path(), self.dir.path()).expect("a mount of the test's own");
            mount_change(self.dir.path(), MountPropagationFlags::SHARED).expect("a shared mount");
        }
        let mut command = self.outside(sight.words());
        command.args([BATONFS, "mount", "--foreground"]).args(options).arg(self.store()).arg(self.point());
        let mut daemon = self.spawn(command);
        eventually("it is mounted", || {
            assert!(!daemon.ended(), "the daemon ended: {}", daemon.said());
            connection_of(&self.point()).is_some()
        });
        self.connection = connection_of(&self.point()).expect("just seen");
        self.watchdog = Watchdog::start(self.connection, self.limit);
        self.daemon = Some(daemon);
    }

    /// Unmounts and mounts the same store again.
    pub(crate) fn again_seen_by(&mut self, sight: Sight, options: &[&str]) {
        self.unmount();
        drop(self.daemon.take().map(super::Running::wait));
        self.serve(sight, options);
    }

    /// Waits for the end of a daemon in the foreground that has been asked to end; its log.
    pub(crate) fn ended(&mut self) -> String {
        let ran = self.daemon.take().expect("a daemon in the foreground").wait();
        self.watchdog.stop();
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.err
    }

    /// Runs a bash script in the session, in a pid namespace of its own below the test's, with a `/proc` of its own.
    pub(crate) fn in_container(&self, script: &str) -> super::Ran {
        let words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script];
        self.run(self.command(&words))
    }
}

pub(super) fn is_mounted(at: &std::path::Path) -> bool {
    connection_of(at).is_some()
}
