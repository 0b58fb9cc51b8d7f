//! Programs beside the store: the neighbour's system calls, strangers that come at the worst moment.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use batonfs::engine::local::LocalEngine;
use batonfs::engine::{Engine, EngineError, sidecar};
use batonfs::store::{Draft, StoreError};
use batonfs::words::{Op, Policy};

use crate::disks::{RecordingDisk, Watch};
use crate::engines::*;

/// A file put in place as the neighbour does: temporary file, fsync, rename, fsync of the directory.
pub(crate) fn place(path: &Path, bytes: &[u8]) {
    let dir = path.parent().unwrap();
    fs::create_dir_all(dir).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let temporary = dir.join(format!(".{name}..agent_state_tmp.{}", uuid::Uuid::now_v7()));
    fs::write(&temporary, bytes).unwrap();
    fs::File::open(&temporary).unwrap().sync_all().unwrap();
    fs::rename(&temporary, path).unwrap();
    fs::File::open(dir).unwrap().sync_all().unwrap();
}

/// The neighbour's write: the value, then its sidecar.
pub(crate) fn neighbour_writes(root: &Path, path: &str, bytes: &[u8], id: &str) {
    place(&root.join("s").join(path), bytes);
    place(&root.join(format!("s/.agent_state_meta/{path}.json")), &sidecar(&writer(id), 1));
}

fn local_session() -> (Subject, PathBuf) {
    let subject = local();
    make_session(&*subject.engine);
    let root = subject.dir.as_ref().unwrap().path().to_owned();
    (subject, root)
}

// F11 F12
#[test]
fn f11_a_strangers_value_becomes_the_next_version_with_its_writer_and_a_line() {
    let (subject, root) = local_session();
    let engine = &*subject.engine;
    neighbour_writes(&root, "d/k", b"theirs", "neighbour");
    assert_eq!(engine.entry(&session(), "d/k").unwrap().unwrap().size_bytes, 6, "stat does not adopt");
    assert_eq!(engine.changes(&session(), 1).unwrap(), vec![]);
    let head = engine.head(&session(), &key("d/k")).unwrap().unwrap();
    assert_eq!((head.version, head.writer, head.size_bytes), (1, writer("neighbour"), 6));
    let lines = engine.changes(&session(), 1).unwrap();
    assert_eq!((lines.len(), lines[0].op, lines[0].version), (1, Op::Adopt, Some(1)));
    assert_eq!(lines[0].writer, writer("neighbour"));
    engine.head(&session(), &key("d/k")).unwrap();
    assert_eq!(engine.changes(&session(), 2).unwrap(), vec![], "once is enough");
    commit(engine, append("d/k", b" and ours", 1));
    assert_eq!(value(engine, "d/k").unwrap(), b"theirs and ours");
    neighbour_writes(&root, "d/k", b"again", "neighbour");
    assert_eq!(version(engine, "d/k"), Some(3));
}

#[test]
fn f12_the_writer_is_unknown_until_the_sidecar_comes() {
    let (subject, root) = local_session();
    let engine = &*subject.engine;
    commit(engine, put("k", b"ours", None));
    place(&root.join("s/k"), b"theirs");
    let head = engine.head(&session(), &key("k")).unwrap().unwrap();
    assert_eq!((head.version, head.writer.is_empty()), (2, true), "our own sidecar is older than their value");
    place(&root.join("s/.agent_state_meta/k.json"), &sidecar(&writer("late"), 1));
    assert_eq!(engine.head(&session(), &key("k")).unwrap().unwrap().writer, writer("late"));
    place(&root.join("s/.agent_state_meta/k.json"), b"{ torn");
    assert!(engine.head(&session(), &key("k")).unwrap().unwrap().writer.is_empty());
    place(
        &root.join("s/.agent_state_meta/k.json"),
        b"{\"writer\":{\"writer_id\":\"x\",\"more\":1},\"updated_at\":null}",
    );
    assert_eq!(engine.head(&session(), &key("k")).unwrap().unwrap().writer, writer("x"));
}

#[test]
fn an_old_value_put_back_is_not_taken_for_the_last_writers() {
    let (subject, root) = local_session();
    let engine = &*subject.engine;
    // Also where the sidecar's file is written again.
    for n in 0..3_u64 {
        commit(engine, put("k", b"ours", Some(n).filter(|n| *n > 0)));
    }
    fs::write(root.join("backup"), b"theirs").unwrap();
    fs::File::open(root.join("backup")).unwrap().set_modified(at(1000)).unwrap();
    fs::rename(root.join("backup"), root.join("s/k")).unwrap();
    let head = engine.head(&session(), &key("k")).unwrap().unwrap();
    assert_eq!((head.version, head.writer.is_empty()), (4, true), "{:?}", head.writer);
    assert!(engine.changes(&session(), 4).unwrap()[0].writer.is_empty());
}

// F22
#[test]
fn what_a_neighbours_sidecar_was_like_passes_to_no_other_key() {
    let (subject, root) = local_session();
    let engine = &*subject.engine;
    let sidecar_of = |path: &str| root.join(format!("s/.agent_state_meta/{path}.json"));
    neighbour_writes(&root, "k", b"theirs", "neighbour");
    let theirs = fs::File::open(sidecar_of("k")).unwrap();
    theirs.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    rustix::fs::fsetxattr(&theirs, "user.theirs", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    let us = rustix::process::geteuid();
    if us.is_root() {
        rustix::fs::fchown(&theirs, Some(rustix::fs::Uid::from_raw(12345)), None).unwrap();
    }
    drop(theirs);
    commit(engine, put("k", b"ours", Some(1)));
    commit(engine, put("another", b"ours", None));
    let modes = ["k", "another"].map(|path| {
        let there = fs::metadata(sidecar_of(path)).unwrap();
        (there.uid(), there.mode())
    });
    assert_eq!(modes, [(us.as_raw(), modes[0].1); 2], "{modes:?}");
    let another = fs::File::open(sidecar_of("another")).unwrap();
    assert!(rustix::fs::fgetxattr(&another, "user.theirs", &mut [0; 8]).is_err());
}

#[test]
fn a_sidecar_that_collides_leaves_no_draft_and_keeps_the_others() {
    let (subject, root) = local_session();
    let engine = &*subject.engine;
    commit(engine, put("a", b"", None));
    commit(engine, put("a.json/b", b"", None));
    commit(engine, put("c.json/d", b"", None));
    commit(engine, put("c", b"", None));
    for path in ["a.json/b", "c"] {
        assert_eq!(engine.head(&session(), &key(path)).unwrap().unwrap().writer, writer("w"), "{path}");
    }
    assert!(root.join("s/.agent_state_meta/c.json/d.json").is_file());
    // The one of `c`, to be written again.
    for version in [None, Some(1), Some(2)] {
        if version.is_some() {
            commit(engine, put("a", b"", version));
        }
        let left: Vec<_> = fs::read_dir(root.join(".baton/drafts")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.len() == 1 && left[0].to_str().unwrap().ends_with(".meta"), "{left:?}");
    }
}

#[test]
fn the_sidecars_of_a_directory_outlive_a_crash_between_two_exchanges() {
    let dir = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
    make_session(&engine);
    commit(&engine, put("c.json/d", b"", None));
    let failing = watch.clone();
    let mut left = 1;
    watch.before(move |what| {
        if left > 0 && what.starts_with("exchange") && what.ends_with("c.json") {
            left -= 1;
            failing.fail(Some((1, libc::EIO)));
        }
    });
    commit(&engine, put("c", b"", None));
    drop(engine);
    assert!(dir.path().join("s/.agent_state_meta/c.json").is_file(), "cut off in between");
    let engine = LocalEngine::open(dir.path()).unwrap();
    assert_eq!(keys(&engine), ["c", "c.json/d"]);
    assert!(dir.path().join("s/.agent_state_meta/c.json/d.json").is_file());
}

#[test]
fn a_strangers_value_is_given_back_after_a_crash_that_came_before_it_could_be() {
    for crash in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::default();
        let engine = LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap();
        make_session(&engine);
        commit(&engine, put("k", b"one", None));
        let (failing, root) = (watch.clone(), dir.path().to_owned());
        let mut left = 1;
        watch.before(move |what| {
            if left > 0 && what.starts_with("exchange") {
                left -= 1;
                place(&root.join("s/k"), b"theirs");
                failing.fail(Some((1, libc::EIO)));
            }
        });
        commit(&engine, put("k", b"ours", Some(1)));
        let engine = if crash {
            drop(engine);
            LocalEngine::open(dir.path()).unwrap()
        } else {
            watch.fail(None);
            engine
        };
        assert_eq!(value(&engine, "k").unwrap(), b"theirs", "crash: {crash}");
        assert_eq!(version(&engine, "k"), Some(3));
        let ours = engine.open_version(&session(), &key("k"), 2).unwrap().unwrap();
        assert_eq!(ours.read_all().unwrap(), b"ours");
    }
}

#[test]
fn a_copy_put_back_with_its_mark_never_makes_a_number_twice() {
    let (subject, root) = local_session();
    let engine = &*subject.engine;
    commit(engine, put("k", b"one", None));
    back_up(&root.join("s/k"), &root.join("copy"));
    commit(engine, put("k", b"two", Some(1)));
    commit(engine, put("k", b"three", Some(2)));
    fs::rename(root.join("copy"), root.join("s/k")).unwrap();
    let store = store(&subject.engine, Policy::Ignore);
    write(&store, "k", b"four", &caller("w")).unwrap();
    let lines = engine.changes(&session(), 1).unwrap();
    let made: Vec<_> = lines.iter().map(|line| (line.op, line.version)).collect();
    let expected = [(Op::Put, 1), (Op::Put, 2), (Op::Put, 3), (Op::Adopt, 4), (Op::Put, 5)];
    assert_eq!(made, expected.map(|(op, version)| (op, Some(version))));
    let kept = engine.open_version(&session(), &key("k"), 4).unwrap().unwrap();
    assert_eq!(kept.read_all().unwrap(), b"one");
}

#[test]
fn a_strangers_access_list_is_never_another_versions() {
    let (subject, root) = local_session();
    let engine = &*subject.engine;
    // user::rw-, user:65534:rw-, group::r--, mask::rw-, other::---
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 6, 65_534), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)]
    {
        list.extend([tag.to_le_bytes(), bits.to_le_bytes()].concat());
        list.extend(id.to_le_bytes());
    }
    place(&root.join("s/k"), b"theirs");
    let file = fs::File::open(root.join("s/k")).unwrap();
    if rustix::fs::fsetxattr(&file, "system.posix_acl_access", &list, rustix::fs::XattrFlags::empty()).is_err() {
        // The file system has no access lists.
        return;
    }
    drop(file);
    assert_eq!(version(engine, "k"), Some(1));
    for n in 1..=40_u64 {
        commit(engine, put("k", b"ours", Some(n)));
        let file = fs::File::open(root.join("s/k")).unwrap();
        let found = rustix::fs::fgetxattr(&file, "system.posix_acl_access", &mut [0_u8; 256][..]);
        assert!(found.is_err(), "version {}", n + 1);
    }
}

#[test]
fn the_neighbours_value_meets_the_conflict_rule() {
    let (subject, root) = local_session();
    let store = store(&subject.engine, Policy::Error);
    neighbour_writes(&root, "k", b"theirs", "neighbour");
    assert!(matches!(write(&store, "k", b"ours", &caller("w")), Err(StoreError::Conflict { .. })));
    write(&store, "k", b"same writer", &caller("neighbour")).unwrap();
    assert_eq!(version(&*subject.engine, "k"), Some(2));
    assert_eq!(subject.engine.versions(&session(), &key("k")).unwrap(), [1, 2]);
}

#[test]
fn a_session_the_neighbour_made_is_a_session() {
    let (subject, root) = local_session();
    place(&root.join("theirs/k"), b"1");
    let id = batonfs::words::SessionId::parse("theirs").unwrap();
    assert_eq!(subject.engine.sessions().unwrap().len(), 2);
    assert_eq!(subject.engine.list(&id).unwrap(), vec![key("k")]);
    subject.engine.commit(&id, put("own", b"", None), &by("w")).unwrap();
    assert_eq!(subject.engine.head(&id, &key("k")).unwrap().unwrap().seq, 2);
}

#[test]
fn a_commit_over_an_unseen_value_is_stale_and_loses_nothing() {
    let (subject, root) = local_session();
    let engine = &*subject.engine;
    commit(engine, put("k", b"ours", None));
    place(&root.join("s/k"), b"theirs");
    assert!(matches!(refused(engine, put("k", b"newer", Some(1))), EngineError::Stale { current: Some(2) }));
    assert!(matches!(refused(engine, put("fresh", b"", Some(1))), EngineError::Stale { current: None }));
    place(&root.join("s/fresh"), b"theirs");
    assert!(matches!(refused(engine, put("fresh", b"", None)), EngineError::Stale { current: Some(1) }));
    assert_eq!(value(engine, "k").unwrap(), b"theirs");
    assert_eq!(fs::read_dir(root.join(".baton/drafts")).unwrap().count(), 0);
}

#[test]
fn f10_a_file_moved_or_changed_in_place_is_a_strangers() {
    let (subject, root) = local_session();
    let engine = &*subject.engine;
    commit(engine, put("a", b"a1", None));
    commit(engine, put("b", b"b1", None));
    commit(engine, put("b", b"b2", Some(1)));
    fs::rename(root.join("s/a"), root.join("s/b")).unwrap();
    assert_eq!(version(engine, "b"), Some(3));
    assert_eq!(value(engine, "b").unwrap(), b"a1");
    assert_eq!(version(engine, "a"), None);
    fs::write(root.join("s/b"), b"in place").unwrap();
    assert_eq!(version(engine, "b"), Some(4));
    fs::remove_file(root.join("s/b")).unwrap();
    assert_eq!(version(engine, "b"), None);
    assert_eq!(commit(engine, put("b", b"", None)).version, Some(5));
}

/// An engine on a watched disk; `stranger` runs once, right before the first change that begins with `moment`.
fn interrupted(
    moment: &'static str,
    stranger: impl Fn(&Path) + Send + 'static,
) -> (tempfile::TempDir, Arc<dyn Engine>) {
    let dir = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let engine: Arc<dyn Engine> = Arc::new(LocalEngine::open_on(RecordingDisk::open(dir.path(), &watch)).unwrap());
    make_session(&*engine);
    commit(&*engine, put("k", b"one", None));
    let root = dir.path().to_owned();
    let mut left = 1;
    watch.before(move |what| {
        if left > 0 && what.starts_with(moment) {
            left -= 1;
            stranger(&root);
        }
    });
    (dir, engine)
}

#[test]
fn f23_a_strangers_value_between_decision_and_publication_is_kept_and_so_is_ours() {
    for moment in ["sync_data", "exchange"] {
        let (_dir, engine) = interrupted(moment, |root| neighbour_writes(root, "k", b"theirs", "n"));
        assert_eq!(commit(&*engine, put("k", b"ours", Some(1))).version, Some(2));
        let head = engine.head(&session(), &key("k")).unwrap().unwrap();
        assert_eq!((head.version, head.writer), (3, writer("n")), "at {moment}");
        assert_eq!(value(&*engine, "k").unwrap(), b"theirs");
        let ours = engine.open_version(&session(), &key("k"), 2).unwrap().unwrap();
        assert_eq!((ours.read_all().unwrap(), ours.head.writer.clone()), (b"ours".to_vec(), writer("w")));
    }
}

#[test]
fn a_strangers_value_that_comes_while_ours_is_exchanged_is_kept() {
    // Between our exchange and the look at what came out, and before the exchange back.
    let (_dir, engine) = interrupted("set_xattr user.batonfs .baton/drafts", |root| {
        let path = root.join("s/k");
        place(&path, b"first");
    });
    commit(&*engine, put("k", b"ours", Some(1)));
    assert_eq!(value(&*engine, "k").unwrap(), b"first");
}

#[test]
fn a_strangers_value_at_a_fresh_key_is_kept() {
    let (_dir, engine) = interrupted("rename_new", |root| neighbour_writes(root, "new", b"theirs", "n"));
    assert_eq!(commit(&*engine, put("new", b"ours", None)).version, Some(1));
    assert_eq!(value(&*engine, "new").unwrap(), b"theirs");
    assert_eq!(version(&*engine, "new"), Some(2));
    assert_eq!(engine.open_version(&session(), &key("new"), 1).unwrap().unwrap().read_all().unwrap(), b"ours");
}

#[test]
fn a_strangers_value_outlives_a_delete_that_did_not_see_it() {
    for moment in ["sync_data", "rename_new"] {
        let (_dir, engine) = interrupted(moment, |root| neighbour_writes(root, "k", b"theirs", "n"));
        commit(&*engine, delete("k", 1));
        assert_eq!(value(&*engine, "k").unwrap(), b"theirs");
        assert_eq!(version(&*engine, "k"), Some(2));
    }
}

#[test]
fn a_strangers_value_at_the_source_of_a_rename_stays() {
    for moment in ["sync_data", "unlink s/k"] {
        let (_dir, engine) = interrupted(moment, |root| place(&root.join("s/k"), b"theirs"));
        commit(&*engine, rename("k", "to", 1, None));
        assert_eq!(value(&*engine, "to").unwrap(), b"one", "at {moment}");
        if moment == "sync_data" {
            assert_eq!(value(&*engine, "k").unwrap(), b"theirs");
        }
    }
}

#[test]
fn a_value_the_stranger_deleted_meanwhile_is_published_again() {
    let (_dir, engine) = interrupted("exchange", |root| fs::remove_file(root.join("s/k")).unwrap());
    commit(&*engine, put("k", b"ours", Some(1)));
    assert_eq!(value(&*engine, "k").unwrap(), b"ours");
}

#[test]
fn the_neighbour_and_we_write_at_once_and_no_commit_of_ours_is_lost() {
    let (subject, root) = local_session();
    let neighbour = std::thread::spawn(move || {
        for n in 0..100 {
            neighbour_writes(&root, "k", format!("their {n}").as_bytes(), "n");
        }
    });
    let store = store(&subject.engine, Policy::Ignore);
    let mut made = 0_u64;
    while !neighbour.is_finished() {
        made += u64::from(write(&store, "k", format!("our {made}").as_bytes(), &caller("w")).is_ok());
    }
    neighbour.join().unwrap();
    subject.engine.head(&session(), &key("k")).unwrap();
    let lines = subject.engine.changes(&session(), 0).unwrap();
    assert_eq!(lines.iter().filter(|line| line.op == Op::Put).count() as u64, made);
    let versions: Vec<_> = lines.iter().filter_map(|line| line.version).collect();
    assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>());
    let current = value(&*subject.engine, "k").unwrap();
    assert!(current.starts_with(b"their ") || current.starts_with(b"our "));
}

// F8
#[test]
fn f8_what_is_no_key_is_not_listed_and_not_followed() {
    use std::os::unix::ffi::OsStrExt;
    let (subject, root) = local_session();
    let engine = &*subject.engine;
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), b"secret").unwrap();
    symlink(outside.path().join("secret"), root.join("s/link")).unwrap();
    symlink(outside.path(), root.join("s/dir")).unwrap();
    symlink(outside.path(), root.join("linked")).unwrap();
    fs::write(root.join("s").join(std::ffi::OsStr::from_bytes(b"\xff")), b"").unwrap();
    fs::write(root.join("s/.k..agent_state_tmp.1"), b"").unwrap();
    let fifo = std::ffi::CString::new(root.join("s/fifo").to_str().unwrap()).unwrap();
    // SAFETY: the path is a string with its end.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    commit(engine, put("k", b"", None));
    assert_eq!(keys(engine), ["k"]);
    assert_eq!(engine.read_dir(&session(), &dir("")).unwrap().len(), 1);
    assert_eq!(engine.sessions().unwrap(), vec![session()]);
    for path in ["link", "dir/secret", "fifo"] {
        assert_eq!(engine.entry(&session(), path).unwrap(), None, "{path}");
        assert_eq!(value(engine, path), None, "{path}");
        assert!(engine.commit(&session(), put(path, b"", None), &by("w")).is_err(), "{path}");
    }
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
    assert!(matches!(refused(engine, remove_dir("")), EngineError::NotEmpty(_)));
}

#[test]
fn a_directory_with_only_reserved_names_is_empty() {
    let (subject, root) = local_session();
    let engine = &*subject.engine;
    commit(engine, make_dir("d"));
    fs::write(root.join("s/d/.k..agent_state_tmp.1"), b"").unwrap();
    commit(engine, remove_dir("d"));
    commit(engine, put("k", b"", None));
    commit(engine, delete("k", 1));
    fs::write(root.join("s/.left..agent_state_tmp.1"), b"").unwrap();
    assert!(root.join("s/.agent_state_meta").exists());
    commit(engine, remove_dir(""));
    assert!(!root.join("s").exists());
}

#[test]
fn a_waiting_append_goes_after_a_strangers_value() {
    let (subject, root) = local_session();
    let store = store(&subject.engine, Policy::Ignore);
    write(&store, "log", b"ours\n", &caller("w")).unwrap();
    place(&root.join("s/log"), b"theirs\n");
    let (session, key) = (session(), key("log"));
    let append = batonfs::store::Write {
        session: &session,
        key: &key,
        draft: Draft::Append(b"more\n".to_vec()),
        base: batonfs::store::Base::Fresh,
        fresh: attributes(),
        own: false,
        set: Default::default(),
        rule: batonfs::store::Rule::Policy,
    };
    store.write(&append, &caller("w")).unwrap();
    assert_eq!(value(&*subject.engine, "log").unwrap(), b"theirs\nmore\n");
}

#[test]
fn f37_what_a_neighbour_left_half_written_goes_after_a_day_unless_somebody_has_it_open() {
    let subject = local();
    make_session(&*subject.engine);
    commit(&*subject.engine, put("d/k", b"kept", None));
    let root = subject.dir.as_ref().unwrap().path().join("s");
    let make = |name: &str, hours: u64| {
        let file = fs::File::create(root.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(hours * 3600)).unwrap();
        file
    };
    let left = [".k..agent_state_tmp.1", "d/.k..agent_state_tmp.2", ".agent_state_meta/d/.k.json..agent_state_tmp.3"];
    left.iter().for_each(|name| drop(make(name, 25)));
    drop(make("d/.k..agent_state_tmp.young", 23));
    let open = make("d/.k..agent_state_tmp.open", 25);
    let stop = std::sync::atomic::AtomicBool::new(false);
    assert_eq!(subject.engine.sweep(std::time::SystemTime::now(), &stop).unwrap(), 3);
    assert!(left.iter().all(|name| !root.join(name).exists()));
    assert!(root.join("d/.k..agent_state_tmp.young").exists() && root.join("d/.k..agent_state_tmp.open").exists());
    drop(open);
    assert_eq!(subject.engine.sweep(std::time::SystemTime::now(), &stop).unwrap(), 1);
    assert_eq!(value(&*subject.engine, "d/k").unwrap(), b"kept");
}
