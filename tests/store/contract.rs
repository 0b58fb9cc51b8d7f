//! Every sentence of the engine's promise, on every engine.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use batonfs::engine::{AttributeChange, Attributes, Change, Engine, EngineError, Kind, Staged, XATTRS_MAX_BYTES};
use batonfs::words::{LogLine, Lost, Op, Policy, SessionId};

use crate::engines::*;

#[test]
fn the_changes_of_a_session_that_was_removed_are_there_still() {
    on_all(|engine| {
        commit(engine, put("k", b"v", None));
        commit(engine, delete("k", 1));
        commit(engine, remove_dir(""));
        let ops = |after| engine.changes(&session(), after).unwrap().iter().map(|line| line.op).collect::<Vec<_>>();
        assert_eq!(ops(1), [Op::Put, Op::Delete, Op::Rmdir]);
        make_session(engine);
        assert_eq!(ops(3), [Op::Rmdir, Op::Mkdir]);
    });
}

/// Runs a claim on every engine, with the session `s` made.
fn on_all(claim: impl Fn(&dyn Engine)) {
    for subject in with_session() {
        claim(&*subject.engine);
        subject.engine.close().unwrap();
    }
}

#[test]
fn a_put_is_what_readers_see_with_its_writer_and_attributes() {
    on_all(|engine| {
        let receipt = commit(engine, put("a/b", b"one", None));
        assert_eq!((receipt.seq, receipt.version), (2, Some(1)));
        let snapshot = engine.open(&session(), &key("a/b")).unwrap().unwrap();
        assert_eq!(snapshot.read_all().unwrap(), b"one");
        let head = engine.head(&session(), &key("a/b")).unwrap().unwrap();
        assert_eq!(head, snapshot.head);
        assert_eq!((head.version, head.appends_since, head.seq, head.size_bytes), (1, 1, 2, 3));
        assert_eq!(head.writer, writer("w"));
        assert_eq!(head.attributes, attributes());
        assert!(head.committed_at_s > 1_700_000_000);
    });
}

#[test]
fn versions_count_on_through_puts_appends_and_deletes() {
    on_all(|engine| {
        commit(engine, put("k", b"1", None));
        commit(engine, put("k", b"2", Some(1)));
        commit(engine, append("k", b"3", 2));
        assert_eq!(version(engine, "k"), Some(3));
        commit(engine, delete("k", 3));
        assert_eq!(version(engine, "k"), None);
        assert_eq!(engine.last_version(&session(), &key("k")).unwrap(), 3);
        assert_eq!(commit(engine, put("k", b"4", None)).version, Some(4));
        assert_eq!(engine.last_version(&session(), &key("never")).unwrap(), 0);
    });
}

#[test]
fn a_change_that_expects_another_version_changes_nothing() {
    on_all(|engine| {
        commit(engine, put("k", b"one", None));
        let stale = |change| match refused(engine, change) {
            EngineError::Stale { current } => current,
            other => panic!("{other}"),
        };
        assert_eq!(stale(put("k", b"x", None)), Some(1));
        assert_eq!(stale(put("k", b"x", Some(2))), Some(1));
        assert_eq!(stale(put("other", b"x", Some(1))), None);
        assert_eq!(stale(append("k", b"x", 2)), Some(1));
        assert_eq!(stale(append("other", b"x", 1)), None);
        assert_eq!(stale(delete("k", 2)), Some(1));
        assert_eq!(stale(rename("k", "other", 2, None)), Some(1));
        assert_eq!(stale(rename("k", "other", 1, Some(1))), None);
        assert_eq!(stale(rename("absent", "other", 1, None)), None);
        assert_eq!(stale(Change::Declare { key: key("k"), expected: 2 }), Some(1));
        assert_eq!(value(engine, "k").unwrap(), b"one");
        assert_eq!(engine.changes(&session(), 0).unwrap().len(), 2);
    });
}

#[test]
fn an_append_goes_after_the_value_and_keeps_its_attributes() {
    on_all(|engine| {
        commit(engine, put("log", b"one\n", None));
        commit(engine, append("log", b"two\n", 1));
        commit(engine, append("log", b"", 2));
        let head = engine.head(&session(), &key("log")).unwrap().unwrap();
        assert_eq!(value(engine, "log").unwrap(), b"one\ntwo\n");
        assert_eq!((head.version, head.appends_since, head.size_bytes), (3, 1, 8));
        assert_eq!(head.attributes, Attributes { mtime: at(2_000_000), ..attributes() });
        commit(engine, put("log", b"new", Some(3)));
        assert_eq!(engine.head(&session(), &key("log")).unwrap().unwrap().appends_since, 4);
    });
}

#[test]
fn a_snapshot_never_changes() {
    on_all(|engine| {
        commit(engine, put("k", b"old", None));
        let pinned = engine.open(&session(), &key("k")).unwrap().unwrap();
        commit(engine, append("k", b" and more", 1));
        assert_eq!(pinned.read_all().unwrap(), b"old");
        assert_eq!(pinned.read(1, 100).unwrap(), b"ld");
        assert_eq!(pinned.read(3, 1).unwrap(), b"");
        commit(engine, put("k", b"new", Some(2)));
        commit(engine, delete("k", 3));
        assert_eq!(pinned.read_all().unwrap(), b"old");
    });
}

#[test]
fn a_missing_session_is_told_from_a_missing_key() {
    for subject in all() {
        let engine = &*subject.engine;
        assert!(matches!(refused(engine, put("k", b"", None)), EngineError::NoSession(_)));
        assert!(matches!(refused(engine, make_dir("d")), EngineError::NoSession(_)));
        assert!(matches!(refused(engine, rename_dir("d", "e")), EngineError::NoSession(_)));
        assert_eq!(engine.entry(&session(), "").unwrap(), None);
        assert_eq!(engine.head(&session(), &key("k")).unwrap(), None);
        assert!(matches!(engine.list(&session()), Err(EngineError::NotFound(_))));
        assert!(matches!(engine.policy(&session()), Err(EngineError::NotFound(_))));
        assert!(matches!(engine.changes(&session(), 0), Err(EngineError::NotFound(_))));
        assert!(matches!(engine.read_dir(&session(), &dir("")), Err(EngineError::NotFound(_))));
        assert_eq!(engine.sessions().unwrap(), vec![]);
        make_session(engine);
        assert_eq!(engine.sessions().unwrap(), vec![session()]);
        assert!(matches!(refused(engine, make_dir("")), EngineError::Exists(_)));
        assert_eq!(engine.list(&session()).unwrap(), vec![]);
    }
}

#[test]
fn sessions_are_sorted_and_see_nothing_of_each_other() {
    for subject in all() {
        let engine = &*subject.engine;
        for id in ["b", "a", "c d"] {
            engine.commit(&SessionId::parse(id).unwrap(), make_dir(""), &by("w")).unwrap();
        }
        let ids: Vec<String> = engine.sessions().unwrap().into_iter().map(String::from).collect();
        assert_eq!(ids, ["a", "b", "c d"]);
        engine.commit(&SessionId::parse("a").unwrap(), put("k", b"", None), &by("w")).unwrap();
        assert_eq!(engine.list(&SessionId::parse("b").unwrap()).unwrap(), vec![]);
    }
}

#[test]
fn a_put_makes_missing_parents_and_a_key_is_no_parent() {
    on_all(|engine| {
        commit(engine, put("a/b/c", b"", None));
        assert_eq!(engine.entry(&session(), "a/b").unwrap().unwrap().kind, Kind::Dir);
        assert!(matches!(refused(engine, put("a/b/c/d", b"", None)), EngineError::NotADirectory(_)));
        assert!(matches!(refused(engine, put("a/b/c/d/e", b"", None)), EngineError::NotADirectory(_)));
        assert!(matches!(refused(engine, put("a/b", b"", None)), EngineError::IsADirectory(_)));
        assert!(matches!(refused(engine, delete("a/b", 1)), EngineError::IsADirectory(_)));
        assert!(matches!(refused(engine, rename("a/b/c", "a", 1, None)), EngineError::IsADirectory(_)));
        assert!(matches!(refused(engine, make_dir("a/b/c/d")), EngineError::NotADirectory(_)));
        assert!(matches!(refused(engine, remove_dir("a/b/c")), EngineError::NotADirectory(_)));
        assert_eq!(keys(engine), ["a/b/c"]);
    });
}

#[test]
fn directories_are_made_listed_and_removed_when_empty() {
    on_all(|engine| {
        assert!(matches!(refused(engine, make_dir("d/e")), EngineError::NotFound(_)));
        commit(engine, make_dir("d"));
        commit(engine, make_dir("d/e"));
        assert!(matches!(refused(engine, make_dir("d")), EngineError::Exists(_)));
        let entry = engine.entry(&session(), "d").unwrap().unwrap();
        assert_eq!((entry.kind, entry.attributes.mode), (Kind::Dir, 0o750));
        commit(engine, put("d/b", b"", None));
        commit(engine, put("d/a", b"", None));
        let names: Vec<_> =
            engine.read_dir(&session(), &dir("d")).unwrap().into_iter().map(|e| (e.name, e.kind)).collect();
        let expected = [("a", Kind::File), ("b", Kind::File), ("e", Kind::Dir)];
        assert_eq!(names, expected.map(|(name, kind)| (name.to_owned(), kind)));
        assert!(matches!(refused(engine, remove_dir("d")), EngineError::NotEmpty(_)));
        assert!(matches!(refused(engine, remove_dir("none")), EngineError::NotFound(_)));
        assert!(matches!(refused(engine, remove_dir("")), EngineError::NotEmpty(_)));
        commit(engine, remove_dir("d/e"));
        commit(engine, delete("d/a", 1));
        commit(engine, delete("d/b", 1));
        commit(engine, remove_dir("d"));
        assert_eq!(engine.entry(&session(), "d").unwrap(), None);
        assert!(matches!(engine.read_dir(&session(), &dir("d")), Err(EngineError::NotFound(_))));
    });
}

#[test]
fn a_removed_session_leaves_its_numbers_and_takes_its_policy() {
    on_all(|engine| {
        commit(engine, put("k", b"", None));
        commit(engine, Change::SetPolicy(Policy::Error));
        commit(engine, delete("k", 1));
        commit(engine, remove_dir(""));
        assert_eq!(engine.sessions().unwrap(), vec![]);
        assert_eq!(engine.entry(&session(), "").unwrap(), None);
        assert!(matches!(engine.list(&session()), Err(EngineError::NotFound(_))));
        make_session(engine);
        assert_eq!(engine.policy(&session()).unwrap(), Policy::Ignore);
        assert_eq!(commit(engine, put("k", b"", None)).version, Some(2));
        let seqs: Vec<_> = engine.changes(&session(), 0).unwrap().into_iter().map(|line| line.seq).collect();
        assert_eq!(seqs, (1..=7).collect::<Vec<_>>());
    });
}

#[test]
fn a_rename_is_a_version_of_its_destination() {
    on_all(|engine| {
        commit(engine, put("a", b"from a", None));
        commit(engine, put("b", b"old", None));
        commit(engine, put("b", b"older", Some(1)));
        let receipt = engine.commit(&session(), rename("a", "b", 1, Some(2)), &by("mover")).unwrap();
        assert_eq!(receipt.version, Some(3));
        let head = engine.head(&session(), &key("b")).unwrap().unwrap();
        assert_eq!((head.version, head.writer, head.size_bytes), (3, writer("mover"), 6));
        assert_eq!(value(engine, "b").unwrap(), b"from a");
        assert_eq!(version(engine, "a"), None);
        assert_eq!(keys(engine), ["b"]);
        assert_eq!(commit(engine, put("a", b"", None)).version, Some(2), "the source goes on counting");
        commit(engine, rename("b", "c", 3, None));
        assert_eq!(version(engine, "c"), Some(1));
        assert_eq!(commit(engine, append("c", b"!", 1)).version, Some(2));
        assert_eq!(value(engine, "c").unwrap(), b"from a!");
        assert!(matches!(refused(engine, rename("c", "none/c", 2, None)), EngineError::NotFound(_)));
    });
}

#[test]
fn a_rename_may_bring_other_bytes() {
    on_all(|engine| {
        commit(engine, put("a", b"plain", None));
        let content = Some(Staged::from(b"envelope".to_vec()));
        let change = Change::Rename { from: key("a"), to: key("b"), expected_from: 1, expected_to: None, content };
        commit(engine, change);
        assert_eq!(value(engine, "b").unwrap(), b"envelope");
        assert_eq!(keys(engine), ["b"]);
    });
}

#[test]
fn a_rename_to_itself_is_a_version_with_the_same_bytes() {
    on_all(|engine| {
        commit(engine, put("a", b"same", None));
        assert_eq!(commit(engine, rename("a", "a", 1, Some(1))).version, Some(2));
        assert_eq!(value(engine, "a").unwrap(), b"same");
    });
}

#[test]
fn a_renamed_directory_takes_its_keys_with_their_versions() {
    on_all(|engine| {
        commit(engine, put("d/x/k", b"1", None));
        commit(engine, put("d/x/k", b"2", Some(1)));
        commit(engine, put("d/y", b"y", None));
        commit(engine, make_dir("target"));
        commit(engine, rename_dir("d", "target"));
        assert_eq!(keys(engine), ["target/x/k", "target/y"]);
        let head = engine.head(&session(), &key("target/x/k")).unwrap().unwrap();
        assert_eq!((head.version, head.writer), (2, writer("w")));
        assert_eq!(engine.versions(&session(), &key("target/x/k")).unwrap(), [1, 2]);
        assert_eq!(commit(engine, put("target/x/k", b"3", Some(2))).version, Some(3));
        assert_eq!(engine.entry(&session(), "d").unwrap(), None);
    });
}

#[test]
fn a_renamed_directory_never_makes_a_number_twice() {
    on_all(|engine| {
        commit(engine, put("to/k", b"1", None));
        commit(engine, put("to/k", b"2", Some(1)));
        commit(engine, delete("to/k", 2));
        commit(engine, put("from/k", b"moved", None));
        commit(engine, rename_dir("from", "to"));
        assert_eq!(version(engine, "to/k"), Some(1));
        assert_eq!(engine.last_version(&session(), &key("to/k")).unwrap(), 2);
        assert_eq!(commit(engine, put("to/k", b"3", Some(1))).version, Some(3));
    });
}

#[test]
fn what_was_kept_under_the_new_name_of_a_directory_stays_beside_what_comes_along() {
    on_all(|engine| {
        for n in 1..=4 {
            commit(engine, put("to/k", format!("old {n}").as_bytes(), Some(n - 1).filter(|n| *n > 0)));
        }
        commit(engine, delete("to/k", 4));
        commit(engine, put("from/k", b"moved 1", None));
        commit(engine, put("from/k", b"moved 2", Some(1)));
        commit(engine, rename_dir("from", "to"));
        assert_eq!(engine.versions(&session(), &key("from/k")).unwrap(), Vec::<u64>::new());
        let kept = engine.versions(&session(), &key("to/k")).unwrap();
        let read = |version: u64| engine.open_version(&session(), &key("to/k"), version).unwrap().unwrap();
        let kept: Vec<_> = kept.into_iter().map(|v| String::from_utf8(read(v).read_all().unwrap()).unwrap()).collect();
        assert_eq!(kept, ["moved 1", "moved 2", "old 3", "old 4"]);
    });
}

#[test]
fn a_directory_is_not_renamed_into_itself_or_over_what_is_there() {
    on_all(|engine| {
        commit(engine, put("d/k", b"", None));
        commit(engine, put("e/k", b"", None));
        assert!(matches!(refused(engine, rename_dir("d", "d/x")), EngineError::IntoItself(_)));
        assert!(matches!(refused(engine, rename_dir("", "x")), EngineError::IntoItself(_)));
        assert!(matches!(refused(engine, rename_dir("d", "e")), EngineError::NotEmpty(_)));
        assert!(matches!(refused(engine, rename_dir("d", "")), EngineError::NotEmpty(_)));
        assert!(matches!(refused(engine, rename_dir("d", "e/k")), EngineError::NotADirectory(_)));
        assert!(matches!(refused(engine, rename_dir("none", "x")), EngineError::NotFound(_)));
        assert!(matches!(refused(engine, rename_dir("d", "none/x")), EngineError::NotFound(_)));
        commit(engine, rename_dir("d", "d"));
        commit(engine, rename_dir("d", "dd"));
        assert_eq!(keys(engine), ["dd/k", "e/k"]);
    });
}

#[test]
fn xattrs_without_room_are_refused_before_they_are_committed() {
    on_all(|engine| {
        commit(engine, put("k", b"1", None));
        let set = |name: &str| {
            let xattrs = BTreeMap::from([(name.to_owned(), Some(vec![b'x'; XATTRS_MAX_BYTES / 2 - 100]))]);
            Change::Attributes { path: "k".to_owned(), set: AttributeChange { xattrs, ..Default::default() } }
        };
        commit(engine, set("user.a"));
        commit(engine, set("user.b"));
        assert!(matches!(refused(engine, set("user.c")), EngineError::NoSpace));
        assert_eq!(engine.head(&session(), &key("k")).unwrap().unwrap().attributes.xattrs.len(), 2);
        commit(engine, put("k", b"2", Some(1)));
    });
}

#[test]
fn attributes_change_without_a_version_and_survive_commits() {
    on_all(|engine| {
        commit(engine, put("k", b"1", None));
        let xattrs = BTreeMap::from([("user.color".to_owned(), Some(b"red".to_vec()))]);
        let set = AttributeChange { mode: Some(0o600), mtime: Some(at(42)), xattrs, ..Default::default() };
        commit(engine, Change::Attributes { path: "k".to_owned(), set: set.clone() });
        let head = engine.head(&session(), &key("k")).unwrap().unwrap();
        assert_eq!((head.version, head.attributes.mode, head.attributes.mtime), (1, 0o600, at(42)));
        assert_eq!(head.attributes.xattrs["user.color"], b"red");
        commit(engine, append("k", b"2", 1));
        assert_eq!(engine.head(&session(), &key("k")).unwrap().unwrap().attributes.xattrs["user.color"], b"red");
        let gone = AttributeChange { xattrs: [("user.color".to_owned(), None)].into(), ..Default::default() };
        commit(engine, Change::Attributes { path: "k".to_owned(), set: gone });
        assert!(engine.head(&session(), &key("k")).unwrap().unwrap().attributes.xattrs.is_empty());
        commit(engine, make_dir("d"));
        for path in ["d", ""] {
            commit(engine, Change::Attributes { path: path.to_owned(), set: set.clone() });
            assert_eq!(engine.entry(&session(), path).unwrap().unwrap().attributes.mode, 0o600);
        }
        let missing = Change::Attributes { path: "none".to_owned(), set };
        assert!(matches!(refused(engine, missing), EngineError::NotFound(_)));
    });
}

#[test]
fn times_before_1970_are_kept() {
    on_all(|engine| {
        let mtime = std::time::UNIX_EPOCH - std::time::Duration::new(86_400, 5);
        let attributes = Attributes { mtime, ..attributes() };
        let content = Staged::from(b"old".to_vec());
        commit(engine, Change::Put { key: key("k"), content, expected: None, attributes });
        assert_eq!(engine.head(&session(), &key("k")).unwrap().unwrap().attributes.mtime, mtime);
    });
}

#[test]
fn a_declared_writer_belongs_to_exactly_that_version() {
    on_all(|engine| {
        commit(engine, put("k", b"1", None));
        let declare = Change::Declare { key: key("k"), expected: 1 };
        let receipt = engine.commit(&session(), declare, &by("declared")).unwrap();
        assert_eq!(receipt.version, None);
        let head = engine.head(&session(), &key("k")).unwrap().unwrap();
        assert_eq!((head.version, head.writer), (1, writer("declared")));
        commit(engine, put("k", b"2", Some(1)));
        assert_eq!(engine.head(&session(), &key("k")).unwrap().unwrap().writer, writer("w"));
    });
}

#[test]
fn the_policy_is_ignore_until_it_is_set() {
    on_all(|engine| {
        assert_eq!(engine.policy(&session()).unwrap(), Policy::Ignore);
        for policy in [Policy::Error, Policy::Warn, Policy::Ignore] {
            commit(engine, Change::SetPolicy(policy));
            assert_eq!(engine.policy(&session()).unwrap(), policy);
        }
    });
}

#[test]
fn the_log_tells_every_change_in_order_without_gaps() {
    on_all(|engine| {
        commit(engine, put("k", b"abc", None));
        commit(engine, append("k", b"de", 1));
        commit(engine, rename("k", "l", 2, None));
        commit(engine, lost("l", Lost::Dropped, b"nine byte"));
        commit(engine, delete("l", 1));
        commit(engine, make_dir("d"));
        commit(engine, rename_dir("d", "e"));
        commit(engine, remove_dir("e"));
        commit(engine, Change::SetPolicy(Policy::Warn));
        let lines = engine.changes(&session(), 0).unwrap();
        assert_eq!(lines.iter().map(|l| l.seq).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
        let told: Vec<_> =
            lines.iter().skip(1).map(|l| (l.op, l.key.as_str(), l.to.as_deref(), l.version, l.size_bytes)).collect();
        let expected = [
            (Op::Put, "k", None, Some(1), Some(3)),
            (Op::Append, "k", None, Some(2), Some(5)),
            (Op::Rename, "k", Some("l"), Some(1), Some(5)),
            (Op::Drop, "l", None, None, Some(9)),
            (Op::Delete, "l", None, None, None),
            (Op::Mkdir, "d", None, None, None),
            (Op::Rename, "d", Some("e"), None, None),
            (Op::Rmdir, "e", None, None, None),
            (Op::Policy, "", None, None, None),
        ];
        assert_eq!(told, expected);
        assert_eq!(engine.changes(&session(), 8).unwrap(), lines[8..]);
        assert_eq!(engine.changes(&session(), 10).unwrap(), vec![]);
    });
}

#[test]
fn changes_are_given_one_by_one_until_there_is_enough() {
    on_all(|engine| {
        for n in 0..5 {
            commit(engine, put("k", b"v", (n > 0).then_some(n)));
        }
        for (after, enough, expected) in [(0, 9, &[1, 2, 3, 4, 5, 6][..]), (2, 2, &[3, 4]), (5, 1, &[6]), (6, 1, &[])] {
            let mut given = Vec::new();
            let mut each = |line: LogLine| {
                given.push(line.seq);
                if given.len() == enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            engine.each_change(&session(), after, &mut each).unwrap();
            assert_eq!(given, expected, "after {after}");
        }
    });
}

#[test]
fn a_conflict_that_was_accepted_is_in_the_log_line() {
    on_all(|engine| {
        let context = batonfs::engine::Context { conflict: Some("words".to_owned()), ..by("w") };
        engine.commit(&session(), put("k", b"", None), &context).unwrap();
        let line = engine.changes(&session(), 1).unwrap().remove(0);
        assert_eq!(line.conflict.as_deref(), Some("words"));
        assert_eq!(line.operation, context.operation.to_string());
        assert_eq!(line.writer, writer("w"));
    });
}

#[test]
fn an_operation_asked_again_is_made_once() {
    on_all(|engine| {
        let context = by("w");
        assert_eq!(engine.receipt(&session(), context.operation).unwrap(), None);
        let receipt = engine.commit(&session(), put("k", b"1", None), &context).unwrap();
        assert_eq!(engine.receipt(&session(), context.operation).unwrap(), Some(receipt));
        assert_eq!(engine.commit(&session(), put("k", b"1", None), &context).unwrap(), receipt);
        assert_eq!(version(engine, "k"), Some(1));
        let other = by("w");
        assert!(engine.commit(&session(), put("k", b"1", None), &other).is_err());
        assert_eq!(engine.receipt(&session(), other.operation).unwrap(), None);
    });
}

#[test]
fn a_stage_reads_back_what_was_written_with_zeros_between() {
    on_all(|engine| {
        for far in [10, 200_000] {
            let mut stage = engine.stage();
            assert!(stage.is_empty());
            stage.write_at(far, b"end").unwrap();
            stage.write_at(0, b"start").unwrap();
            assert_eq!(stage.len(), far + 3);
            let mut bytes = [1; 7];
            assert_eq!(stage.read_at(0, &mut bytes).unwrap(), 7);
            assert_eq!(&bytes, b"start\0\0");
            assert_eq!(stage.read_at(far + 1, &mut bytes).unwrap(), 2);
            stage.set_len(2).unwrap();
            stage.set_len(4).unwrap();
            assert_eq!(stage.freeze().read_all().unwrap(), b"st\0\0");
            let mut stage = engine.stage();
            assert!(stage.write_at(u64::MAX, b"x").is_err());
        }
    });
}

#[test]
fn a_large_value_takes_the_same_road() {
    on_all(|engine| {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let mut stage = engine.stage();
        for (n, part) in bytes.chunks(100_000).enumerate() {
            stage.write_at(n as u64 * 100_000, part).unwrap();
        }
        let content = stage.freeze();
        let change = |path: &str, expected| Change::Put {
            key: key(path),
            content: content.clone(),
            expected,
            attributes: attributes(),
        };
        commit(engine, change("big", None));
        assert_eq!(value(engine, "big").unwrap(), bytes);
        // The same draft again: the two values stay two.
        commit(engine, change("other", None));
        commit(engine, append("other", b"!", 1));
        assert_eq!(value(engine, "big").unwrap(), bytes);
        assert_eq!(value(engine, "other").unwrap().len(), bytes.len() + 1);
        // A draft that is a copy of a version, edited.
        let mut copy = engine.stage();
        copy.copy_from(&engine.open(&session(), &key("big")).unwrap().unwrap()).unwrap();
        copy.write_at(0, b"edited").unwrap();
        let content = copy.freeze();
        commit(engine, Change::Put { key: key("big"), content, expected: Some(1), attributes: attributes() });
        let edited = value(engine, "big").unwrap();
        assert_eq!((&edited[..6], &edited[6..]), (&b"edited"[..], &bytes[6..]));
        assert_eq!(engine.open_version(&session(), &key("big"), 1).unwrap().unwrap().read_all().unwrap(), bytes);
    });
}

#[test]
fn a_copy_of_a_shorter_version_is_shorter() {
    on_all(|engine| {
        commit(engine, put("k", b"short", None));
        let mut stage = engine.stage();
        stage.write_at(0, b"something longer").unwrap();
        stage.copy_from(&engine.open(&session(), &key("k")).unwrap().unwrap()).unwrap();
        assert_eq!(stage.freeze().read_all().unwrap(), b"short");
    });
}

#[test]
fn a_list_is_sorted_as_whole_strings() {
    on_all(|engine| {
        let sorted = ["a b", "a-b", "a.b", "a/b", "a/b-c", "a0", "b/.dot", "é"];
        for path in sorted.iter().rev() {
            commit(engine, put(path, b"", None));
        }
        commit(engine, make_dir("empty"));
        assert_eq!(keys(engine), sorted);
    });
}

#[test]
fn earlier_versions_are_kept_and_the_oldest_go() {
    on_all(|engine| {
        for n in 1..=40_u64 {
            commit(engine, put("k", format!("{n}").as_bytes(), n.checked_sub(1).filter(|n| *n > 0)));
        }
        assert_eq!(engine.versions(&session(), &key("k")).unwrap(), (8..=40).collect::<Vec<_>>());
        let old = engine.open_version(&session(), &key("k"), 8).unwrap().unwrap();
        assert_eq!(
            (old.read_all().unwrap(), old.head.version, old.head.writer.clone()),
            (b"8".to_vec(), 8, writer("w"))
        );
        assert!(engine.open_version(&session(), &key("k"), 7).unwrap().is_none());
        commit(engine, append("k", b"+", 40));
        commit(engine, append("k", b"+", 41));
        commit(engine, put("k", b"new", Some(42)));
        let versions = engine.versions(&session(), &key("k")).unwrap();
        assert!(versions.ends_with(&[39, 42, 43]), "{versions:?}");
        assert_eq!(engine.open_version(&session(), &key("k"), 42).unwrap().unwrap().read_all().unwrap(), b"40++");
        commit(engine, delete("k", 43));
        assert_eq!(engine.open_version(&session(), &key("k"), 43).unwrap().unwrap().read_all().unwrap(), b"new");
    });
}

#[test]
fn reserved_names_are_nothing() {
    on_all(|engine| {
        commit(engine, put("k", b"", None));
        for path in
            [".agent_state_meta", ".agent_state_meta/k.json", ".k..agent_state_tmp.1", ".baton", "..", "a//b", "/"]
        {
            assert_eq!(engine.entry(&session(), path).unwrap(), None, "{path}");
        }
        let names: Vec<_> = engine.read_dir(&session(), &dir("")).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["k"]);
    });
}

#[test]
fn a_closed_engine_accepts_nothing_more() {
    on_all(|engine| {
        commit(engine, put("k", b"kept", None));
        engine.close().unwrap();
        engine.close().unwrap();
        assert!(matches!(refused(engine, put("l", b"", None)), EngineError::Closed(_)));
        assert_eq!(value(engine, "k").unwrap(), b"kept");
    });
}

#[test]
fn names_and_space_are_told() {
    let names: Vec<_> = all().iter().map(|subject| subject.engine.name()).collect();
    assert_eq!(names, ["memory", "filesystem", "filesystem"]);
    for subject in all() {
        assert!(subject.engine.space().unwrap().block_bytes > 0);
    }
}
