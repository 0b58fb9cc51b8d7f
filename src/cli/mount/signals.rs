//! The signals that end a mount, taken by a thread instead of a handler.

use std::io;
use std::mem::MaybeUninit;
use std::sync::mpsc::Sender;

/// Interrupt, terminate, and the terminal that goes.
const ENDING: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// The signals that end a mount, kept from ending the process.
pub(super) struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// Keeps them from this thread and every thread it starts afterwards; to be called before there are others.
    pub(super) fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        let ending = ENDING.into_iter().filter(|signal| !is_ignored(*signal));
        // SAFETY: sigemptyset makes `set` a whole set, before anything reads it; the pointers live through the calls.
        let (set, failed) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            for signal in ending {
                libc::sigaddset(&raw mut set, signal);
            }
            (set, libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))
        };
        if failed == 0 { Ok(Self { set }) } else { Err(io::Error::from_raw_os_error(failed)) }
    }

    /// Sends each signal that comes, as `event` makes it, until nobody listens.
    pub(super) fn forward<E: Send + 'static>(self, to: Sender<E>, event: fn(i32) -> E) -> io::Result<()> {
        let wait = move || while self.next().is_some_and(|signal| to.send(event(signal)).is_ok()) {};
        std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop)
    }

    fn next(&self) -> Option<i32> {
        let mut signal = 0;
        // SAFETY: both pointers are to live values of their types; the set was made by `block`.
        let failed = unsafe { libc::sigwait(&raw const self.set, &raw mut signal) };
        (failed == 0).then_some(signal)
    }
}

/// Did who started us ask for this signal to be ignored, as nohup does? Blocked, it would come all the same.
fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is changed; the pointer is to a writable sigaction, of which zeros are a value.
    unsafe {
        let asked = libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        asked == 0 && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
