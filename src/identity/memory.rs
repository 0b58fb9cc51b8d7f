//! Has a process exec'd or ended since it was looked at? Its memory tells, which both take away: held by a descriptor,
//! it answers without waiting for anyone, so in any moment. Knows nothing of what a process declares.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;

use super::proc;

/// So many are held at one time: what a daemon may open is meant for the store.
const HELD_MAX: usize = 512;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// The memory of one process. Holding it keeps none of it in use.
#[derive(Debug)]
struct Image(File);

impl Image {
    /// Bounded. That of the program a process runs now; `None` when it is not to be had, or too many are held.
    fn of(pid: u32) -> Option<Self> {
        if HELD.fetch_add(1, Ordering::Relaxed) >= HELD_MAX {
            HELD.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let image = proc::pagemap(pid).map(Self);
        if image.is_none() {
            HELD.fetch_sub(1, Ordering::Relaxed);
        }
        image
    }

    /// Any moment. Of less than an entry nothing is read: the kernel refuses that while the memory is in use, and has
    /// nothing to say when it is not.
    fn is_in_use(&self) -> bool {
        rustix::io::pread(&self.0, &mut [0u8; 1], 0) == Err(Errno::INVAL)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The memory of a process and of its parent, as they were when the process was looked at.
#[derive(Debug, Clone, Default)]
pub struct Memory(Option<Arc<Family>>);

#[derive(Debug)]
struct Family {
    own: Image,
    parent: Option<Image>,
}

/// It says nothing of who a process is: what was seen twice of it is equal.
impl PartialEq for Memory {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Memory {}

impl Memory {
    /// Has the process neither ended nor exec'd since, and its parent neither? Then it is the same process, runs the
    /// same program, and has the same parent. `false` where that is not known.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        let Some(family) = &self.0 else { return false };
        family.own.is_in_use() && family.parent.as_ref().is_none_or(Image::is_in_use)
    }
}

/// Takes hold of a process, before anything is read of it.
#[derive(Debug)]
pub(super) struct Hold(Option<Image>);

impl Hold {
    /// Bounded. Of a process with one thread: another thread could exec and leave the memory to a child that shares it.
    pub(super) fn of(pid: u32, threads: Option<u32>) -> Self {
        Self(if threads == Some(1) { Image::of(pid) } else { None })
    }

    /// Bounded. With its parent's (0: it has none we can see). One that has not exec'd since its fork may share the memory
    /// of its parent, and would leave it in use.
    pub(super) fn with_parent(self, parent: u32, execed: bool) -> Memory {
        let Some(own) = self.0.filter(|_| execed) else { return Memory::default() };
        let parent = match parent {
            0 => None,
            pid => match Image::of(pid) {
                None => return Memory::default(),
                image => image,
            },
        };
        Memory(Some(Arc::new(Family { own, parent })))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Script;
    use super::*;

    fn memory(pid: u32) -> Memory {
        Hold::of(pid, Some(1)).with_parent(0, true)
    }

    #[test]
    fn an_exec_and_an_end_take_the_memory_away_and_nothing_else_does() {
        let mut script = Script::start("echo 1; read x; echo 2; read x; exec sh -c 'echo 3; $w'", &[]);
        script.number();
        let first = memory(script.pid());
        script.say("go on");
        script.number();
        assert!(first.is_in_use());
        script.say("exec");
        script.number();
        assert!(!first.is_in_use());
        let second = memory(script.pid());
        assert!(second.is_in_use());
        script.let_go();
        assert!(!second.is_in_use());
    }

    #[test]
    fn a_parents_exec_is_told_too() {
        // The child says that it has exec'd, and is out of the way of what its parent reads.
        let script = "sh -c 'echo $$; exec >&-; kill -STOP $$' & read x; exec sh -c 'echo $$; $w'";
        let mut script = Script::start(script, &[]);
        let child = script.number();
        let (alone, both) = (memory(child), Hold::of(child, Some(1)).with_parent(script.pid(), true));
        let before = (alone.is_in_use(), both.is_in_use());
        script.say("exec");
        script.number();
        let after = (alone.is_in_use(), both.is_in_use());
        let child = rustix::process::Pid::from_raw(child.cast_signed()).unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
        assert_eq!((before, after), ((true, true), (true, false)));
    }

    #[test]
    fn what_may_share_its_memory_is_not_held() {
        let own = std::process::id();
        assert!(!Hold::of(own, Some(2)).with_parent(0, true).is_in_use());
        assert!(!Hold::of(own, Some(1)).with_parent(0, false).is_in_use());
        assert!(!Hold::of(own, None).with_parent(0, true).is_in_use());
        assert!(!memory(u32::MAX).is_in_use());
    }
}
