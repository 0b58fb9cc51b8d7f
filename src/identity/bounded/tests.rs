use super::*;

/// So long that a test which waited for it would be seen to hang.
const FOR_EVER: Duration = Duration::from_secs(3600);

fn blocked(pool: &Bounded) -> Sender<()> {
    let (free, gate) = channel::<()>();
    let nothing = pool.ask(Duration::from_millis(1), move |_: &Progress<u8>| wait(&gate));
    assert_eq!(nothing, None);
    free
}

fn wait(gate: &Receiver<()>) {
    assert!(gate.recv().is_err(), "nothing is ever sent: the gate opens when its sender is dropped");
}

fn until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::yield_now();
    }
}

#[test]
fn an_answer_comes_without_waiting_for_the_limit() {
    let pool = Bounded::default();
    assert_eq!(pool.ask(FOR_EVER, |progress| progress.say(7)), Some(7));
}

#[test]
fn a_blocked_reader_does_not_hold_its_asker_nor_the_next_one() {
    let pool = Bounded::default();
    let free = blocked(&pool);
    assert_eq!(pool.ask(FOR_EVER, |progress| progress.say("next")), Some("next"));
    drop(free);
    until(|| pool.stuck.load(Ordering::Relaxed) == 0);
}

#[test]
fn what_was_found_before_the_block_is_not_lost() {
    let pool = Bounded::default();
    // A busy machine may not even start the thread within the first limits.
    let found = (0..12).find_map(|power| {
        let (free, gate) = channel::<()>();
        let half = pool.ask(Duration::from_millis(1 << power), move |progress| {
            progress.say("first");
            wait(&gate);
            progress.say("second");
        });
        drop(free);
        half
    });
    assert_eq!(found, Some("first"));
}

#[test]
fn too_many_stuck_threads_answer_with_nothing_at_once_until_one_is_freed() {
    let pool = Bounded::default();
    let mut held: Vec<_> = (0..STUCK_MAX).map(|_| blocked(&pool)).collect();
    assert_eq!(pool.ask(FOR_EVER, |progress| progress.say(1)), None);
    held.pop();
    until(|| pool.stuck.load(Ordering::Relaxed) < STUCK_MAX);
    assert_eq!(pool.ask(FOR_EVER, |progress| progress.say(1)), Some(1));
    drop(held);
}

#[test]
fn work_that_panics_answers_with_nothing() {
    let pool = Bounded::default();
    let none = pool.ask(FOR_EVER, |_: &Progress<u8>| std::panic::resume_unwind(Box::new("on purpose")));
    assert_eq!(none, None);
    assert_eq!(pool.ask(FOR_EVER, |progress| progress.say(1)), Some(1));
}

#[test]
fn idle_threads_stay_few_and_end_with_their_pool() {
    let pool = Bounded::default();
    let (free, gate) = channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    std::thread::scope(|scope| {
        for _ in 0..3 * IDLE_MAX {
            let gate = Arc::clone(&gate);
            let pool = &pool;
            scope.spawn(move || pool.ask(FOR_EVER, move |progress| progress.say(take(&gate).recv().is_err())));
        }
        drop(free);
    });
    assert!(take(&pool.idle).len() <= IDLE_MAX);
    let idle = Arc::downgrade(&pool.idle);
    drop(pool);
    until(|| idle.strong_count() == 0);
}
