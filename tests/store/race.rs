//! Many at once: one wins, and the order of a session has no gap.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use batonfs::engine::local::LocalEngine;
use batonfs::engine::{Engine, EngineError, KEPT_VERSIONS};
use batonfs::store::StoreError;
use batonfs::words::Policy;

use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;
use crate::sound::assert_sound;

const WRITERS: usize = 16;
const ROUNDS: usize = 200;

#[test]
fn of_many_writers_of_a_fresh_key_exactly_one_wins() {
    for subject in with_session() {
        let store = Arc::new(store(&subject.engine, Policy::Error));
        let start = Arc::new(Barrier::new(WRITERS));
        let threads: Vec<_> = (0..WRITERS)
            .map(|n| {
                let (store, start) = (Arc::clone(&store), Arc::clone(&start));
                std::thread::spawn(move || {
                    let mut won = Vec::new();
                    for round in 0..ROUNDS {
                        start.wait();
                        let id = format!("w{n}");
                        match write(&store, &format!("k{round}"), id.as_bytes(), &caller(&id)) {
                            Ok(_) => won.push(round),
                            Err(StoreError::Conflict { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    (n, won)
                })
            })
            .collect();
        let mut winners = vec![Vec::new(); ROUNDS];
        for thread in threads {
            let (n, won) = thread.join().unwrap();
            won.into_iter().for_each(|round| winners[round].push(n));
        }
        for (round, winners) in winners.iter().enumerate() {
            assert_eq!(winners.len(), 1, "round {round}");
            assert_eq!(value(&*subject.engine, &format!("k{round}")).unwrap(), format!("w{}", winners[0]).as_bytes());
        }
        let seqs: Vec<_> = subject.engine.changes(&session(), 0).unwrap().into_iter().map(|line| line.seq).collect();
        assert_eq!(seqs, (1..=ROUNDS as u64 + 1).collect::<Vec<_>>());
    }
}

#[test]
fn a_commit_that_returned_is_in_the_log_and_in_its_place() {
    for subject in with_session() {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let engine = Arc::clone(&subject.engine);
                std::thread::spawn(move || {
                    let path = format!("d{n}/k");
                    for round in 1..=50_u64 {
                        let expected = Some(round - 1).filter(|v| *v > 0);
                        let receipt = commit(&*engine, put(&path, &round.to_le_bytes(), expected));
                        assert_eq!(receipt.version, Some(round));
                        assert_eq!(value(&*engine, &path).unwrap(), round.to_le_bytes());
                        let lines = engine.changes(&session(), receipt.seq - 1).unwrap();
                        assert_eq!((lines[0].seq, lines[0].key.as_str()), (receipt.seq, path.as_str()));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(subject.engine.changes(&session(), 0).unwrap().len(), 401);
    }
}

#[test]
fn a_reader_never_sees_half_a_value_or_two_names() {
    for subject in with_session() {
        let engine = &subject.engine;
        commit(&**engine, put("a", &[0; 5000], None));
        let writing = Arc::clone(engine);
        let writer = std::thread::spawn(move || {
            for n in 1..=150_u64 {
                let (from, to) = if n % 2 == 1 { ("a", "b") } else { ("b", "a") };
                let current = version(&*writing, from).unwrap();
                commit(&*writing, put(from, &vec![n as u8; 5000 + n as usize], Some(current)));
                commit(&*writing, append(from, &[n as u8; 10], current + 1));
                commit(&*writing, rename(from, to, current + 2, None));
            }
        });
        while !writer.is_finished() {
            let names = engine.read_dir(&session(), &dir("")).unwrap();
            assert_eq!(names.len(), 1, "{names:?}");
            for path in ["a", "b"] {
                if let Some(bytes) = value(&**engine, path) {
                    let n = bytes[0];
                    let sizes = [5000 + n as usize, 5010 + n as usize, 5000];
                    assert!(sizes.contains(&bytes.len()), "{} bytes of {n}", bytes.len());
                    assert!(bytes.iter().all(|b| *b == n));
                }
            }
        }
        writer.join().unwrap();
    }
}

#[test]
fn of_a_key_and_a_key_below_its_name_at_once_one_is_refused_and_the_session_goes_on() {
    for [first, second] in [["d", "d/k"], ["d/k", "d"], ["d/e/k", "d/e"], ["d", "d/e/k"]] {
        let (dir, watch) = (fresh(), Watch::default());
        let engine = Arc::new(LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap());
        make_session(&*engine);
        let (other, (tell, told)) = (Arc::clone(&engine), channel());
        let mut left = 1;
        watch.before(move |what| {
            // The first is judged by now, and nothing of it can be seen.
            if left > 0 && what.starts_with("create .baton/drafts/") {
                left -= 1;
                let (other, tell, (done, is_done)) = (Arc::clone(&other), tell.clone(), channel::<()>());
                std::thread::spawn(move || {
                    tell.send(other.commit(&session(), put(second, b"two", None), &by("w")).is_ok()).unwrap();
                    drop(done);
                });
                // It comes at once, or not before the first is done.
                is_done.recv_timeout(Duration::from_millis(100)).unwrap_or_default();
            }
        });
        let made = [engine.commit(&session(), put(first, b"one", None), &by("w")).is_ok(), told.recv().unwrap()];
        let values = [first, second].map(|path| value(&*engine, path).is_some());
        assert_eq!(made, values, "{first}, {second}: what was made is there, and nothing else");
        assert_eq!(made.iter().filter(|made| **made).count(), 1, "{first}, {second}");
        commit(&*engine, put("other", b"", None));
        engine.close().unwrap();
    }
}

#[test]
fn no_version_is_left_out_while_it_is_replaced() {
    let dir = fresh();
    let engine = Arc::new(LocalEngine::open(dir.path()).unwrap());
    make_session(&*engine);
    commit(&*engine, put("k", b"1", None));
    let writing = {
        let engine = Arc::clone(&engine);
        std::thread::spawn(move || {
            for version in 1..=300 {
                commit(&*engine, put("k", b"v", Some(version)));
            }
        })
    };
    while !writing.is_finished() {
        let before = version(&*engine, "k").unwrap();
        let versions = engine.versions(&session(), &key("k")).unwrap();
        // The next one may be on its way, and then the oldest one has gone for it.
        let oldest = (version(&*engine, "k").unwrap() + 1).saturating_sub(KEPT_VERSIONS).max(1);
        for kept in oldest..=before {
            assert!(versions.contains(&kept), "{kept} is not in {versions:?}");
        }
    }
    writing.join().unwrap();
}

// F18 F19
#[test]
fn who_makes_a_checkpoint_while_a_sync_of_the_store_fails_drops_no_record() {
    let (dir, watch) = (fresh(), Watch::default());
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    make_session(&engine);
    let headers = || std::fs::read(dir.path().join(".baton/journal")).unwrap()[..8192].to_vec();
    let (before, (begun, begins), (ended, ends)) = (headers(), channel(), channel());
    let failing = watch.clone();
    watch.before_each("sync_everything", move || {
        begun.send(()).unwrap();
        // Where the other one does not wait, it ends before this one fails.
        let _ = ends.recv_timeout(Duration::from_millis(300));
        failing.fail(Some((0, libc::EIO)));
    });
    std::thread::scope(|scope| {
        let fails = scope.spawn(|| engine.checkpoint());
        begins.recv().unwrap();
        let other = scope.spawn(|| engine.checkpoint().inspect(|()| ended.send(()).unwrap()));
        for made in [fails, other].map(|made| made.join().unwrap()) {
            assert!(matches!(made, Err(EngineError::Closed(_))), "{made:?}");
        }
    });
    watch.before(|_| {});
    watch.fail(None);
    assert_eq!(headers(), before, "the records are forgotten");
}

// F19 F27 F51
#[test]
fn checkpoints_are_in_nobodys_way_and_lose_nothing() {
    for subject in [local(), late()] {
        make_session(&*subject.engine);
        let stopped = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let engine = &*subject.engine;
            scope.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    engine.checkpoint().unwrap();
                    engine.versions(&session(), &key("k0")).unwrap();
                }
            });
            let writers: Vec<_> = (0..4)
                .map(|n| {
                    scope.spawn(move || {
                        let path = format!("k{n}");
                        for round in 1..=60_u64 {
                            let now = version(engine, &path);
                            assert_eq!(now, Some(round - 1).filter(|round| *round > 0));
                            commit(engine, put(&path, format!("{n} in round {round}").as_bytes(), now));
                        }
                    })
                })
                .collect();
            let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            stopped.store(true, Ordering::Relaxed);
            ended.into_iter().for_each(|writer| writer.unwrap());
        });
        subject.engine.close().unwrap();
        let root = subject.dir.as_ref().unwrap().path();
        drop(subject.engine);
        let engine = LocalEngine::open(root).unwrap();
        for n in 0..4 {
            let path = format!("k{n}");
            assert_eq!(value(&engine, &path).unwrap(), format!("{n} in round 60").as_bytes());
            assert_eq!(version(&engine, &path), Some(60));
        }
        drop(engine);
        assert_sound(root);
    }
}
