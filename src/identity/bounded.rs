//! Work that may block for long, on threads that may stay behind. Knows nothing of what the work is.
//!
//! A read of `/proc` that waits for a task in exec cannot be called off. So it runs on a thread of this pool, the
//! asker waits for a limited time, and a thread that does not come back is left alone until it is freed; the next
//! asker gets another one. Threads that stay behind are counted: at [`STUCK_MAX`] nothing more is tried.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// So many threads may stay behind before every question is answered with nothing, at once.
pub(super) const STUCK_MAX: usize = 32;
/// So many threads wait for work; more are made when more is asked at one time, and go when they are done.
const IDLE_MAX: usize = 4;
/// So long an asker gives way to others instead of sleeping: about what reading one process takes.
const AWAKE: Duration = Duration::from_micros(50);
/// What a thread needs to read a few files; an idle one then costs next to nothing.
const STACK_BYTES: usize = 128 << 10;

/// Calls what it is given after the work and before the answer: a thread is idle again before its asker asks again.
type Job = Box<dyn FnOnce(&mut dyn FnMut()) + Send>;
type Idle = Mutex<Vec<Sender<Work>>>;

/// A job for an idle thread, and the way to that thread: it holds none itself while idle, so the end of the pool,
/// which holds them all, ends it.
struct Work {
    job: Job,
    way_back: Sender<Work>,
}

/// A pool of threads.
#[derive(Debug, Default)]
pub(super) struct Bounded {
    idle: Arc<Idle>,
    stuck: Arc<AtomicUsize>,
}

/// Where the work says what it has found so far.
#[derive(Debug)]
pub(super) struct Progress<T>(Arc<Answer<T>>);

#[derive(Debug)]
struct Answer<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    found: Option<T>,
    finished: bool,
    abandoned: bool,
}

// What is guarded is whole after every statement, so a panicking holder leaves nothing half-changed.
fn take<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Progress<T> {
    /// Replaces what was said before.
    pub(super) fn say(&self, found: T) {
        take(&self.0.state).found = Some(found);
    }
}

/// Ends a piece of work, also one that panics.
struct Ending<T> {
    answer: Arc<Answer<T>>,
    stuck: Arc<AtomicUsize>,
}

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        let mut state = take(&self.answer.state);
        state.finished = true;
        if state.abandoned {
            self.stuck.fetch_sub(1, Ordering::Relaxed);
        }
        self.answer.changed.notify_one();
    }
}

impl Bounded {
    /// What `work` has said last, when it is done or `limit` has passed. `None` when it had said nothing by then, or
    /// when no thread could be had for it.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&Progress<T>) + Send + 'static,
    ) -> Option<T> {
        if self.stuck.load(Ordering::Relaxed) >= STUCK_MAX {
            return None;
        }
        let state = Mutex::new(State { found: None, finished: false, abandoned: false });
        let answer = Arc::new(Answer { state, changed: Condvar::new() });
        let ending = Ending { answer: Arc::clone(&answer), stuck: Arc::clone(&self.stuck) };
        let progress = Progress(Arc::clone(&answer));
        self.run(Box::new(move |rest| {
            let _ending = ending;
            work(&progress);
            rest();
        }));
        // Most answers come at once, and waking a sleeper on an idle processor takes longer than they do.
        let asked = Instant::now();
        while asked.elapsed() < AWAKE.min(limit) && !take(&answer.state).finished {
            std::thread::yield_now();
        }
        let waiting = answer.changed.wait_timeout_while(take(&answer.state), limit, |state| !state.finished);
        let (mut state, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        if !state.finished {
            state.abandoned = true;
            self.stuck.fetch_add(1, Ordering::Relaxed);
        }
        state.found.take()
    }

    /// Gives the job to an idle thread, else to a new one. A job that no thread takes is dropped, which ends it.
    fn run(&self, job: Job) {
        let idle = take(&self.idle).pop();
        let job = match idle {
            None => job,
            Some(thread) => match thread.send(Work { job, way_back: thread.clone() }) {
                Ok(()) => return,
                Err(refused) => refused.0.job,
            },
        };
        let (way_back, receiver) = channel();
        let pool = Arc::downgrade(&self.idle);
        let thread = std::thread::Builder::new().name("batonfs-who".to_owned()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(move || work_on(Work { job, way_back }, &receiver, &pool)) {
            tracing::warn!("no thread to read who calls: {error}");
        }
    }
}

/// Works until the pool is gone or has idle threads enough.
fn work_on(first: Work, receiver: &Receiver<Work>, pool: &Weak<Idle>) {
    let mut next = Ok(first);
    while let Ok(Work { job, way_back }) = next {
        let mut way_back = Some(way_back);
        job(&mut || {
            let Some(pool) = pool.upgrade() else { return };
            let mut idle = take(&pool);
            if idle.len() < IDLE_MAX {
                idle.extend(way_back.take());
            }
        });
        // Without a way to it nothing is sent, so this ends the thread when it has not become idle.
        drop(way_back);
        next = receiver.recv();
    }
}

#[cfg(test)]
mod tests;
