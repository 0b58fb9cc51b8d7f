//! Programs beside the store, and readers, meet what a failure has left half done; others bring copies and links of what
//! is ours. No version is lost for it, none is another's, and the session goes on.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use batonfs::engine::local::LocalEngine;
use batonfs::engine::{Change, Engine, EngineError, KEPT_VERSIONS};
use batonfs::words::{Op, Policy, SessionId};

use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;
use crate::neighbour::{neighbour_writes, place};
use crate::sound::{assert_sound, checked};

/// Long enough for another thread to come to where it waits. Nothing fails when it does not.
const A_MOMENT: Duration = Duration::from_millis(100);

fn watched() -> (tempfile::TempDir, Watch, Arc<LocalEngine>) {
    let (dir, watch) = (fresh(), Watch::default());
    let engine = Arc::new(LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap());
    make_session(&*engine);
    (dir, watch, engine)
}

/// The disk fails for good after `more` changes from the first one on that begins with `moment`; `stranger` comes right
/// before that.
fn fail_at(watch: &Watch, moment: &'static str, more: usize, stranger: impl Fn() + Send + 'static) {
    let (failing, mut left) = (watch.clone(), 1);
    watch.before(move |what| {
        if left > 0 && what.starts_with(moment) {
            left -= 1;
            stranger();
            failing.fail(Some((more, libc::EIO)));
        }
    });
}

/// The disk is well again. `boot`: the process had died, and with another boot power was lost too.
fn mend(dir: &Path, watch: &Watch, engine: Arc<LocalEngine>, boot: Option<Option<&str>>) -> Arc<LocalEngine> {
    watch.before(|_| {});
    watch.fail(None);
    let Some(boot) = boot else { return engine };
    drop(engine);
    boot.iter().for_each(|boot| watch.reboot(boot));
    Arc::new(LocalEngine::open_on(RecordingDisk::open(dir, watch)).unwrap())
}

/// Nothing but the failure; the process dies; power goes.
const ENDS: [Option<Option<&str>>; 3] = [None, Some(None), Some(Some("another boot"))];

fn text(engine: &dyn Engine, path: &str, version: u64) -> Option<String> {
    let snapshot = engine.open_version(&session(), &key(path), version).unwrap()?;
    Some(String::from_utf8(snapshot.read_all().unwrap()).unwrap())
}

#[test]
fn f25_an_append_that_a_full_disk_cut_is_never_taken_for_a_strangers_value() {
    let (dir, watch, engine) = watched();
    commit(&*engine, put("k", b"one", None));
    let (other, full) = (Arc::clone(&engine), watch.clone());
    let (tell, told) = channel();
    let mut step = 0;
    watch.before(move |what| {
        if step == 0 && what == "write s/k" {
            step = 1;
            let (other, tell) = (Arc::clone(&other), tell.clone());
            std::thread::spawn(move || tell.send(other.head(&session(), &key("k"))).is_ok());
            // The reader waits for the value by then, and looks at it before it is known that the disk is full.
            std::thread::sleep(A_MOMENT);
            full.fail(Some((0, libc::ENOSPC)));
        } else if step == 1 {
            step = 2;
            full.fail(None);
        }
    });
    commit(&*engine, append("k", b" and all of ours", 1));
    assert_eq!(told.recv().unwrap().unwrap().unwrap().version, 2);
    assert_eq!(value(&*engine, "k").unwrap(), b"one and all of ours");
    let lines = engine.changes(&session(), 1).unwrap();
    assert_eq!(lines.iter().map(|line| line.op).collect::<Vec<_>>(), [Op::Put, Op::Append]);
    engine.close().unwrap();
    drop(engine);
    assert_sound(dir.path());
}

// F6 F23 F25
#[test]
fn a_version_that_an_exchange_brought_out_before_a_failure_stays_that_version() {
    for replaced in [true, false] {
        for boot in ENDS {
            let at = format!("replaced {replaced}, {boot:?}");
            let (dir, watch, engine) = watched();
            commit(&*engine, put("k", b"one", None));
            fail_at(&watch, "rename .baton/drafts/", 0, || {});
            commit(&*engine, put("k", b"ours", Some(1)));
            if replaced {
                neighbour_writes(dir.path(), "k", b"theirs", "n");
            } else {
                fs::remove_file(dir.path().join("s/k")).unwrap();
            }
            let engine = mend(dir.path(), &watch, engine, boot);
            // What is not in its place yet is put there again by whoever reads.
            let expected: &[u8] = if replaced { b"theirs" } else { b"ours" };
            assert_eq!(value(&*engine, "k").as_deref(), Some(expected), "{at}");
            assert_eq!(text(&*engine, "k", 1).as_deref(), Some("one"), "{at}");
            assert_eq!(text(&*engine, "k", 2).as_deref(), Some("ours"), "{at}");
        }
    }
}

// F23 F25
#[test]
fn a_strangers_value_that_a_delete_took_for_ours_goes_back_after_a_failure() {
    for boot in ENDS {
        for newer in [false, true] {
            let (dir, watch, engine) = watched();
            commit(&*engine, put("k", b"one", None));
            let root = dir.path().to_owned();
            fail_at(&watch, "rename_new s/k", 1, move || place(&root.join("s/k"), b"theirs"));
            commit(&*engine, delete("k", 1));
            if newer {
                place(&dir.path().join("s/k"), b"newer");
            }
            let engine = mend(dir.path(), &watch, engine, boot);
            let expected: &[u8] = if newer { b"newer" } else { b"theirs" };
            assert_eq!(value(&*engine, "k").as_deref(), Some(expected), "{boot:?}");
            assert_eq!(version(&*engine, "k"), Some(2), "{boot:?}");
            commit(&*engine, delete("k", 2));
            assert_eq!(value(&*engine, "k"), None);
        }
    }
}

#[test]
fn f25_a_file_that_comes_where_a_directory_was_keeps_nobody_from_the_session() {
    let (dir, watch, engine) = watched();
    commit(&*engine, make_dir("d"));
    let (root, mut left) = (dir.path().to_owned(), 1);
    watch.before(move |what| {
        if left > 0 && what.starts_with("rename_new .baton/drafts/") {
            left -= 1;
            fs::remove_dir(root.join("s/d")).unwrap();
            place(&root.join("s/d"), b"theirs");
        }
    });
    commit(&*engine, put("d/k", b"ours", None));
    assert_eq!(value(&*engine, "d").unwrap(), b"theirs");
    assert_eq!(text(&*engine, "d/k", 1).as_deref(), Some("ours"), "in history");
    commit(&*engine, put("other", b"", None));
    engine.close().unwrap();
}

// F29 F36
#[test]
fn a_directory_of_either_name_made_around_a_crash_in_a_rename_keeps_nobody_from_the_session() {
    // Before the rename the new name is taken, after it the old one is made again.
    for (more, taken, expected) in [(0, "n/x", ["n/d/k", "n/k", "n/x"]), (1, "m/x", ["m/x", "n/d/k", "n/k"])] {
        for boot in ENDS.into_iter().flatten() {
            for more in more..more + if more == 0 { 1 } else { 4 } {
                let (dir, watch, engine) = watched();
                commit(&*engine, make_dir("m"));
                commit(&*engine, put("m/k", b"k1", None));
                commit(&*engine, put("m/d/k", b"dk1", None));
                fail_at(&watch, "rename s/m s/n", more, || {});
                commit(&*engine, rename_dir("m", "n"));
                neighbour_writes(dir.path(), taken, b"theirs", "neighbour");
                let engine = mend(dir.path(), &watch, engine, Some(boot));
                let at = format!("dead {more} later, boot {boot:?}");
                assert_eq!(keys(&*engine), expected, "{at}");
                let writer_of = |path| engine.head(&session(), &key(path)).unwrap().unwrap().writer;
                for (path, by) in [(taken, "neighbour"), ("n/k", "w"), ("n/d/k", "w")] {
                    assert_eq!(writer_of(path), writer(by), "{at}: {path}");
                }
                commit(&*engine, put("n/k", b"k2", Some(1)));
                engine.close().unwrap();
                drop(engine);
                assert_sound(dir.path());
            }
        }
    }
}

// F29
#[test]
fn of_many_readers_who_find_a_renamed_directory_between_two_names_one_makes_a_checkpoint() {
    let (dir, watch, engine) = watched();
    commit(&*engine, put("m/k", b"m", None));
    watch.bar(Some("rename s/m"));
    commit(&*engine, rename_dir("m", "n"));
    drop(engine);
    let engine = Arc::new(LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap());
    assert!(engine.list(&session()).is_err(), "it is between two names");
    watch.bar(None);
    watch.take();
    let (readers, mut started) = (Arc::clone(&engine), false);
    let (send, ended) = channel();
    watch.before(move |what| {
        if what.starts_with("rename s/m") && !std::mem::replace(&mut started, true) {
            for _ in 0..4 {
                let (engine, send) = (Arc::clone(&readers), send.clone());
                std::thread::spawn(move || send.send(keys(&*engine)).unwrap());
            }
            std::thread::sleep(A_MOMENT);
        }
    });
    assert_eq!(keys(&*engine), ["n/k"]);
    for _ in 0..4 {
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)).unwrap(), ["n/k"]);
    }
    assert_eq!(watch.count("sync_everything"), 1);
    engine.close().unwrap();
    assert_sound(dir.path());
}

// F25 F29
#[test]
fn a_renamed_directory_whose_line_cannot_be_written_closes_the_store_to_nobody_else() {
    let (dir, watch, engine) = watched();
    let other = SessionId::parse("t").unwrap();
    engine.commit(&other, make_dir(""), &by("w")).unwrap();
    commit(&*engine, put("m/k", b"m", None));
    watch.bar(Some("rename s/m"));
    commit(&*engine, rename_dir("m", "n"));
    drop(engine);
    let engine = Arc::new(LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap());
    watch.bar(Some(".baton/sessions/s/log"));
    for n in 1..4 {
        let listed = engine.list(&session());
        let receipt = engine.commit(&other, put(&format!("k{n}"), b"t", None), &by("w"));
        assert!(receipt.is_ok(), "{receipt:?}");
        assert!(listed.is_err(), "it is not in its place for good");
    }
    watch.bar(None);
    assert_eq!(keys(&*engine), ["n/k"]);
    commit(&*engine, put("n/k", b"n", Some(1)));
    engine.close().unwrap();
    assert_sound(dir.path());
}

// F2 F25
#[test]
fn a_sidecar_that_the_disk_refuses_to_replace_is_replaced_later() {
    let (dir, watch, engine) = watched();
    commit(&*engine, put("a", b"one", None));
    let barring = watch.clone();
    watch.before(move |what| {
        if what.starts_with("exchange") && what.contains(".meta ") {
            barring.bar(Some(what));
        }
    });
    engine.commit(&session(), put("a", b"two", Some(1)), &by("another")).unwrap();
    watch.before(|_| {});
    watch.bar(None);
    assert_eq!(value(&*engine, "a").unwrap(), b"two");
    let sidecar = fs::read_to_string(dir.path().join("s/.agent_state_meta/a.json")).unwrap();
    assert!(sidecar.contains("another"), "{sidecar}");
    engine.close().unwrap();
    assert_sound(dir.path());
}

// F12 F32
#[test]
fn a_sidecar_of_ours_without_its_mark_names_nobody_whichever_change_made_it() {
    let cases = [
        ("a", put("a", b"two", Some(1))),
        ("a", append("a", b" more", 1)),
        ("b", rename("a", "b", 1, None)),
        ("a", Change::Declare { key: key("a"), expected: 1 }),
    ];
    for (path, change) in cases {
        let told = format!("{change:?}");
        let (dir, watch, engine) = watched();
        commit(&*engine, put("a", b"one", None));
        engine.close().unwrap();
        let engine = mend(dir.path(), &watch, engine, Some(None));
        engine.commit(&session(), change, &by("ours")).unwrap();
        // What power has taken, and an older file that a program beside the store has moved there.
        let (at_key, meta) = (dir.path().join("s").join(path), format!("s/.agent_state_meta/{path}.json"));
        rustix::fs::removexattr(dir.path().join(meta), "user.batonfs").unwrap();
        place(&at_key, b"theirs");
        fs::File::open(&at_key).unwrap().set_modified(at(1)).unwrap();
        let engine = mend(dir.path(), &watch, engine, Some(Some("another boot")));
        let head = engine.head(&session(), &key(path)).unwrap().unwrap();
        assert_eq!(value(&*engine, path).unwrap(), b"theirs");
        assert_eq!(head.writer.writer_id, None, "{told}");
    }
}

// F32 F36
#[test]
fn a_neighbours_sidecar_that_may_not_be_read_keeps_nobody_from_the_store_after_a_power_cut() {
    let (dir, watch, engine) = watched();
    commit(&*engine, put("a", b"one", None));
    let sidecar = dir.path().join("s/.agent_state_meta/a.json");
    place(&sidecar, b"theirs");
    watch.shut(Some(".agent_state_meta/a.json"));
    let engine = mend(dir.path(), &watch, engine, Some(Some("another boot")));
    assert_eq!(value(&*engine, "a").unwrap(), b"one");
    watch.shut(None);
    engine.close().unwrap();
    assert_sound(dir.path());
    assert!(fs::read_to_string(sidecar).unwrap().contains("\"w\""));
}

// F32 F36
#[test]
fn a_sidecar_that_cannot_be_marked_after_a_power_cut_is_made_anew() {
    let (dir, watch, engine) = watched();
    commit(&*engine, put("a", b"one", None));
    watch.bar(Some("set_xattr user.batonfs s/.agent_state_meta"));
    let engine = mend(dir.path(), &watch, engine, Some(Some("another boot")));
    watch.bar(None);
    assert_eq!(value(&*engine, "a").unwrap(), b"one");
    engine.close().unwrap();
    assert_sound(dir.path());
}

// F27
#[test]
fn a_directory_that_is_made_again_after_a_power_cut_changes_nothing_of_a_file_that_has_its_name() {
    let (dir, watch, engine) = watched();
    commit(&*engine, make_dir("d"));
    commit(&*engine, remove_dir("d"));
    place(&dir.path().join("s/d"), b"theirs");
    let attributes =
        || fs::metadata(dir.path().join("s/d")).map(|it| (it.mode(), it.mtime(), it.mtime_nsec())).unwrap();
    let before = attributes();
    let engine = mend(dir.path(), &watch, engine, Some(Some("another boot")));
    assert_eq!(attributes(), before);
    assert_eq!(value(&*engine, "d").unwrap(), b"theirs");
}

// F7 F10
#[test]
fn a_copy_of_a_version_that_was_appended_to_makes_no_number_twice() {
    let subject = local();
    let (engine, root) = (&*subject.engine, subject.dir.as_ref().unwrap().path());
    make_session(engine);
    commit(engine, put("k", b"1", None));
    commit(engine, put("k", b"2", Some(1)));
    back_up(&root.join("s/k"), &root.join("copy"));
    commit(engine, append("k", b" and more", 2));
    fs::rename(root.join("copy"), root.join("s/k")).unwrap();
    let refused = refused(engine, put("k", b"new", Some(2)));
    assert!(matches!(refused, EngineError::Stale { current: Some(4) }), "{refused}");
    assert_eq!(commit(engine, put("k", b"new", Some(4))).version, Some(5));
}

// F7 F10
#[test]
fn an_old_copy_put_back_makes_no_number_twice_and_takes_no_version_from_history() {
    let subject = local();
    let engine = &*subject.engine;
    make_session(engine);
    let root = subject.dir.as_ref().unwrap().path().to_owned();
    commit(engine, put("k", b"1", None));
    back_up(&root.join("s/k"), &root.join("copy"));
    // The copy's own number is no longer in history.
    let last = KEPT_VERSIONS + 8;
    for n in 1..last {
        commit(engine, put("k", (n + 1).to_string().as_bytes(), Some(n)));
    }
    fs::rename(root.join("copy"), root.join("s/k")).unwrap();
    let store = store(&subject.engine, Policy::Ignore);
    write(&store, "k", b"new", &caller("w")).unwrap();
    let lines = engine.changes(&session(), 1 + last).unwrap();
    let made: Vec<_> = lines.iter().map(|line| (line.op, line.version)).collect();
    assert_eq!(made, [(Op::Adopt, Some(last + 1)), (Op::Put, Some(last + 2))]);
    for kept in last - 20..last {
        assert_eq!(text(engine, "k", kept), Some(kept.to_string()));
    }
    assert_eq!(text(engine, "k", last + 1).as_deref(), Some("1"));
}

// F10 F11
#[test]
fn a_hard_link_of_a_value_is_a_value_of_its_own() {
    let subject = local();
    let engine = &*subject.engine;
    make_session(engine);
    let root = subject.dir.as_ref().unwrap().path().to_owned();
    commit(engine, put("a", b"one", None));
    fs::hard_link(root.join("s/a"), root.join("s/b")).unwrap();
    let meta =
        |path: &str| fs::metadata(root.join(path)).map(|it| (it.mode(), it.uid(), it.mtime(), it.len())).unwrap();
    let before = meta("s/b");
    for _ in 0..3 {
        assert_eq!((version(engine, "b"), version(engine, "a")), (Some(1), Some(1)));
    }
    assert_eq!(meta("s/b"), before);
    assert_eq!(engine.head(&session(), &key("a")).unwrap().unwrap().writer, writer("w"));
    commit(engine, append("b", b" more", 1));
    assert_eq!(value(engine, "a").unwrap(), b"one");
    assert_eq!(value(engine, "b").unwrap(), b"one more");
    let adopted = engine.changes(&session(), 0).unwrap().into_iter().filter(|line| line.op == Op::Adopt).count();
    assert_eq!(adopted, 1);
    assert_eq!(fs::read_dir(root.join(".baton/drafts")).unwrap().count(), 0);
}

/// A value whose bytes a disk has changed in silence, while the journal still has them.
fn rotten() -> (tempfile::TempDir, Watch, Arc<LocalEngine>) {
    let (dir, watch, engine) = watched();
    commit(&*engine, put("k", b"what was committed", None));
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("s/k")).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"W", 0).unwrap();
    file.set_modified(modified).unwrap();
    (dir, watch, engine)
}

// F1 F10
#[test]
fn a_repair_that_dies_at_any_operation_leaves_what_the_next_one_mends() {
    let mut survived = 0;
    for n in 0.. {
        let (dir, watch, engine) = rotten();
        watch.take();
        watch.fail(Some((n, libc::EIO)));
        let repaired = engine.verify(true, &mut |_| ControlFlow::Continue(()));
        let done = watch.take().len();
        watch.fail(None);
        drop(engine);
        checked(dir.path(), true);
        let engine = LocalEngine::open(dir.path()).unwrap();
        assert_eq!(value(&engine, "k").unwrap(), b"what was committed", "dead after {n}");
        let head = engine.head(&session(), &key("k")).unwrap().unwrap();
        assert_eq!((head.version, head.writer), (1, writer("w")), "dead after {n}");
        survived += 1;
        if repaired.is_ok() && done < n {
            break;
        }
    }
    assert!(survived > 5, "only {survived} deaths");
}

// F11
#[test]
fn a_strangers_value_that_comes_while_a_torn_one_is_mended_stays() {
    for n in 0_usize.. {
        let (dir, watch, engine) = rotten();
        let (root, mut left) = (dir.path().to_owned(), n);
        let (tell, told) = channel();
        watch.before(move |what| {
            if left == 0 {
                place(&root.join("s/k"), b"theirs");
                drop(tell.send(what.to_owned()));
            }
            left = left.wrapping_sub(1);
        });
        drop(engine.verify(true, &mut |_| ControlFlow::Continue(())));
        watch.before(|_| {});
        let Ok(moment) = told.recv() else { break };
        assert_eq!(value(&*engine, "k").unwrap(), b"theirs", "before {moment}");
    }
}
