//! What a file system has no room for, or does not let us do, is refused before the commit: a change that is
//! acknowledged can be put in its place.

use std::collections::BTreeMap;

use batonfs::engine::local::LocalEngine;
use batonfs::engine::{AttributeChange, Change, Context, EngineError, KEPT_VERSIONS};
use batonfs::words::{Author, Writer};

use crate::engines::*;

/// An author whose ids take the most room a mark can need.
fn widest() -> Context {
    let id = Some("\u{1}".repeat(256));
    let writer = Writer { writer_id: id.clone(), stage_id: id.clone(), session_id: id.clone(), worker_id: id };
    Context { author: Author { writer, ..Author::default() }, ..by("") }
}

fn set(path: &str, name: &str, len: usize) -> Change {
    let xattrs = BTreeMap::from([(format!("user.{name}"), Some(vec![b'x'; len]))]);
    Change::Attributes { path: path.to_owned(), set: AttributeChange { xattrs, ..AttributeChange::default() } }
}

/// Nothing of a session waits for its place, and the store opens again with what it had.
fn is_settled(subject: &Subject, path: &str, bytes: &[u8]) {
    let root = subject.dir.as_ref().unwrap().path();
    commit(&*subject.engine, put("probe", b"", version(&*subject.engine, "probe")));
    subject.engine.close().unwrap();
    let engine = LocalEngine::open(root).unwrap();
    assert_eq!(value(&engine, path).unwrap(), bytes);
    assert_eq!(std::fs::read_dir(root.join(".baton/drafts")).unwrap().count(), 0);
}

// F30
#[test]
fn xattrs_that_fill_a_file_are_refused_and_leave_room_for_every_later_version() {
    // Also where the file of an earlier version is written again.
    for others in [0, KEPT_VERSIONS + 3] {
        let subject = local();
        make_session(&*subject.engine);
        let other = |n: u64| commit(&*subject.engine, put("other", b"", Some(n).filter(|n| *n > 0)));
        for n in 0..others {
            other(n);
        }
        let again = || (others > 0).then(|| other(others));
        fill(&subject, || assert_eq!(again().is_some(), others > 0));
    }
}

/// `again` leaves a file to be written again.
fn fill(subject: &Subject, again: impl FnOnce()) {
    let engine = &*subject.engine;
    commit(engine, put("k", b"1", None));
    let mut taken = 0;
    // ext4 takes about 4 KB together; a file system without such a bound takes them all.
    for len in [900, 100, 10, 1] {
        for _ in 0..12 {
            match engine.commit(&session(), set("k", &format!("n{taken}"), len), &by("w")) {
                Ok(_) => taken += 1,
                Err(EngineError::NoSpace) => break,
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert_eq!(engine.head(&session(), &key("k")).unwrap().unwrap().attributes.xattrs.len(), taken);
    commit(engine, put("k", b"2", Some(1)));
    commit(engine, append("k", b"+", 2));
    commit(engine, rename("k", "d", 3, None));
    // Longer names of the writer may find no room beside them: then nothing changes.
    let attributes = engine.head(&session(), &key("d")).unwrap().unwrap().attributes;
    again();
    for change in [
        Change::Put { key: key("d"), content: b"3".to_vec().into(), expected: Some(1), attributes },
        append("d", b"+", 1),
        rename("d", "e", 1, None),
        Change::Declare { key: key("d"), expected: 1 },
    ] {
        if let Err(error) = engine.commit(&session(), change.clone(), &widest()) {
            assert!(matches!(error, EngineError::NoSpace), "{error}");
            assert_eq!((value(engine, "d").unwrap(), version(engine, "d")), (b"2+".to_vec(), Some(1)), "{change:?}");
        } else {
            // It had room, and is in its place.
            let path = if version(engine, "d").is_some() { "d" } else { "e" };
            return is_settled(subject, path, &value(engine, path).unwrap());
        }
    }
    is_settled(subject, "d", b"2+");
}

#[test]
fn a_writer_that_no_mark_can_hold_is_refused_and_the_value_stays() {
    let subject = local();
    let engine = &*subject.engine;
    make_session(engine);
    commit(engine, put("k", b"old", None));
    let made = engine.commit(&session(), put("k", b"new", Some(1)), &widest());
    let there = match made {
        Ok(_) => &b"new"[..],
        Err(EngineError::NoSpace) => b"old",
        Err(other) => panic!("{other}"),
    };
    assert_eq!(value(engine, "k").unwrap(), there);
    is_settled(&subject, "k", there);
}

#[test]
fn a_neighbours_endless_writer_id_does_not_keep_its_value_from_being_read() {
    let subject = local();
    let engine = &*subject.engine;
    make_session(engine);
    let root = subject.dir.as_ref().unwrap().path();
    std::fs::write(root.join("s/k"), b"theirs").unwrap();
    std::fs::create_dir(root.join("s/.agent_state_meta")).unwrap();
    let endless = batonfs::engine::sidecar(&writer(&"x".repeat(100_000)), 1);
    std::fs::write(root.join("s/.agent_state_meta/k.json"), endless).unwrap();
    assert_eq!((value(engine, "k").unwrap(), version(engine, "k")), (b"theirs".to_vec(), Some(1)));
    is_settled(&subject, "k", b"theirs");
}

/// Runs as somebody whom modes mean something to.
fn as_nobody(act: impl FnOnce() + Send + 'static) {
    let nobody = std::thread::spawn(|| {
        // SAFETY: both calls change numbers of this thread only.
        unsafe {
            libc::setfsgid(65_534);
            libc::setfsuid(65_534);
        }
        act();
    });
    nobody.join().unwrap();
}

#[test]
fn a_value_in_a_directory_that_may_not_be_written_is_replaced_as_it_would_be_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    let mode = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(&root, mode(0o777)).unwrap();
    as_nobody(move || {
        let engine = LocalEngine::open(&root).unwrap();
        make_session(&engine);
        commit(&engine, put("d/k", b"1", None));
        std::fs::set_permissions(root.join("s/d"), mode(0o555)).unwrap();
        commit(&engine, put("d/k", b"2", Some(1)));
        assert_eq!(std::fs::read(root.join("s/d/k")).unwrap(), b"2", "in its place");
        assert_eq!(std::fs::metadata(root.join("s/d")).unwrap().permissions().mode() & 0o777, 0o555);
        drop(engine);
        assert_eq!(value(&LocalEngine::open(&root).unwrap(), "d/k").unwrap(), b"2");
    });
}

/// A small ext4 of its own, where that can be mounted.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn make(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        std::fs::create_dir(dir.path().join("at")).unwrap();
        let disk = Self(dir);
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            std::process::Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
        };
        let made = run("mkfs.ext4", &["-q".as_ref(), image.as_ref()])
            && run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), disk.at().as_ref()]);
        made.then_some(disk)
    }

    fn at(&self) -> std::path::PathBuf {
        self.0.path().join("at")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.at()).output();
    }
}

#[test]
fn a_small_disk_is_not_filled_by_the_journal() {
    // Only root can try this.
    let Some(disk) = SmallDisk::make(16) else { return };
    let engine = LocalEngine::open(&disk.at()).unwrap();
    make_session(&engine);
    // Three times what the disk holds; with its history the value takes a tenth of it.
    for n in 0..1_000_u64 {
        commit(&engine, put("k", &[n as u8; 50_000], Some(n).filter(|n| *n > 0)));
    }
}
