//! The neighbour's rules for keys, conflicts and sidecars, on every engine.

use batonfs::engine::{Change, EngineError, sidecar};
use batonfs::store::{Base, Draft, Rule, StoreError, Write};
use batonfs::words::{Claim, Key, Policy, Writer};

use crate::engines::*;

#[test]
fn a_key_is_trimmed_and_its_dots_and_slashes_vanish() {
    for (raw, key) in [
        (" a ", "a"),
        ("\u{2003}a\u{a0}", "a"),
        ("./a//b/./c/", "a/b/c"),
        ("a /b", "a /b"),
        (".hidden", ".hidden"),
        (".agent_state_meta.json", ".agent_state_meta.json"),
        ("a\\b", "a\\b"),
        ("É", "É"),
        ("E\u{301}", "E\u{301}"),
        ("sub/.baton", "sub/.baton"),
    ] {
        assert_eq!(Key::parse(raw).unwrap().as_str(), key);
    }
}

#[test]
fn what_is_no_key_is_refused_in_the_neighbours_words() {
    for (raw, words) in [
        ("", "key must be a non-empty relative path"),
        (" \t\n", "key must be a non-empty relative path"),
        (".", "key must contain at least one path component"),
        ("./././/", "key must contain at least one path component"),
        ("/a", "key '/a' must be relative"),
        ("/", "key '/' must be relative"),
        ("..", "key '..' must not escape the session root"),
        ("a/../b", "key 'a/../b' must not escape the session root"),
        (".agent_state_meta", "key '.agent_state_meta' uses a reserved internal path"),
        ("a/.agent_state_meta/b", "key 'a/.agent_state_meta/b' uses a reserved internal path"),
        ("x/.k..agent_state_tmp.1", "key 'x/.k..agent_state_tmp.1' uses a reserved internal path"),
    ] {
        assert_eq!(Key::parse(raw).unwrap_err().to_string(), words, "{raw:?}");
    }
    assert!(Key::parse(&"x".repeat(250)).is_ok());
    assert!(Key::parse(&"x".repeat(251)).is_err());
}

#[test]
fn names_up_to_the_limit_have_value_and_sidecar() {
    for subject in with_session() {
        let name = "n".repeat(250);
        commit(&*subject.engine, put(&format!("d/{name}"), b"1", None));
        commit(&*subject.engine, put(&format!("d/{name}"), b"2", Some(1)));
        assert_eq!(value(&*subject.engine, &format!("d/{name}")).unwrap(), b"2");
        if let Some(dir) = &subject.dir {
            assert!(dir.path().join(format!("s/.agent_state_meta/d/{name}.json")).exists());
        }
    }
}

#[test]
fn deep_keys_keep_their_history() {
    for subject in with_session() {
        let path = vec!["d"; 1500].join("/");
        commit(&*subject.engine, put(&path, b"1", None));
        commit(&*subject.engine, put(&path, b"2", Some(1)));
        assert_eq!(subject.engine.versions(&session(), &key(&path)).unwrap(), [1, 2]);
        assert_eq!(keys(&*subject.engine), [path]);
    }
}

#[test]
fn keys_that_collide_in_the_sidecars_keep_their_own_writers() {
    for subject in with_session() {
        let engine = &*subject.engine;
        for (path, id) in [("a", "one"), ("a.json/b", "two")] {
            engine.commit(&session(), put(path, b"", None), &by(id)).unwrap();
        }
        for (path, id) in [("b.json/b", "three"), ("b", "four")] {
            engine.commit(&session(), put(path, b"", None), &by(id)).unwrap();
        }
        for (path, id) in [("a", "one"), ("a.json/b", "two"), ("b.json/b", "three"), ("b", "four")] {
            assert_eq!(engine.head(&session(), &key(path)).unwrap().unwrap().writer, writer(id));
        }
        if let Some(dir) = &subject.dir {
            let meta = dir.path().join("s/.agent_state_meta");
            assert!(meta.join("a.json").is_file());
            assert!(meta.join("b.json/b.json").is_file());
        }
        commit(engine, delete("a.json/b", 1));
        commit(engine, delete("b", 1));
    }
}

// F2
#[test]
fn a_sidecar_is_the_neighbours_byte_for_byte() {
    let full = Writer {
        writer_id: Some("w1".into()),
        stage_id: Some("build".into()),
        session_id: Some("p1".into()),
        worker_id: Some("w1".into()),
    };
    assert_eq!(sidecar(&full, 1_795_332_960), include_bytes!("../golden/sidecar_full.json"));
    assert_eq!(sidecar(&writer("w \"1\" é"), 0), include_bytes!("../golden/sidecar_one.json"));
}

// F3
#[test]
fn an_empty_writer_has_no_sidecar_and_removes_an_older_one() {
    let subject = local();
    make_session(&*subject.engine);
    let place = subject.dir.as_ref().unwrap().path().join("s/.agent_state_meta/k.json");
    commit(&*subject.engine, put("k", b"1", None));
    let head = subject.engine.head(&session(), &key("k")).unwrap().unwrap();
    assert_eq!(std::fs::read(&place).unwrap(), sidecar(&writer("w"), head.committed_at_s));
    subject.engine.commit(&session(), put("k", b"2", Some(1)), &by("")).unwrap();
    assert!(!place.exists());
    subject.engine.commit(&session(), put("k", b"3", Some(2)), &by("again")).unwrap();
    assert!(place.exists());
    commit(&*subject.engine, delete("k", 3));
    assert!(!place.exists());
}

#[test]
fn another_writer_is_refused_under_error_with_both_names_and_the_value_stays() {
    for subject in with_session() {
        let store = store(&subject.engine, Policy::Ignore);
        write(&store, "k", b"from-a", &caller("stage-a")).unwrap();
        assert_eq!(write(&store, "k", b"from-b", &caller("stage-b")).unwrap(), None);
        store.set_policy(&session(), Policy::Error, &caller("anyone")).unwrap();
        let error = write(&store, "k", b"from-c", &caller("stage-c")).unwrap_err();
        let words = "key 'k' was previously written by 'stage-b' and is now being written by 'stage-c'";
        assert_eq!(error.to_string(), words);
        assert_eq!(value(&*subject.engine, "k").unwrap(), b"from-b");
        write(&store, "k", b"again", &caller("stage-b")).unwrap();
        store.set_policy(&session(), Policy::Warn, &caller("anyone")).unwrap();
        assert_eq!(write(&store, "k", b"from-c", &caller("stage-c")).unwrap().as_deref(), Some(words));
        let line = subject.engine.changes(&session(), 0).unwrap().pop().unwrap();
        assert_eq!(line.conflict.as_deref(), Some(words));
    }
}

#[test]
fn the_strictest_of_all_policies_holds() {
    for subject in with_session() {
        let lax = store(&subject.engine, Policy::Ignore);
        write(&lax, "k", b"", &caller("a")).unwrap();
        let mut strict = caller("b");
        strict.policy = Some(Policy::Error);
        assert!(matches!(write(&lax, "k", b"", &strict), Err(StoreError::Conflict { .. })));
        let mounted = store(&subject.engine, Policy::Error);
        let mut lax_caller = caller("b");
        lax_caller.policy = Some(Policy::Ignore);
        assert!(matches!(write(&mounted, "k", b"", &lax_caller), Err(StoreError::Conflict { .. })));
    }
    for (raw, policy) in [
        ("", Policy::Ignore),
        (" Off ", Policy::Ignore),
        ("ignore", Policy::Ignore),
        ("WARNING", Policy::Warn),
        ("warn", Policy::Warn),
        ("strict", Policy::Error),
        ("error\n", Policy::Error),
    ] {
        assert_eq!(Policy::parse(raw).unwrap(), policy);
    }
    assert!(Policy::parse("maybe").unwrap_err().to_string().starts_with("unknown conflict policy 'maybe'"));
}

#[test]
fn an_empty_writer_never_conflicts_and_only_writer_ids_are_compared() {
    for subject in with_session() {
        let store = store(&subject.engine, Policy::Error);
        write(&store, "k", b"", &caller("")).unwrap();
        write(&store, "k", b"", &caller("a")).unwrap();
        write(&store, "k", b"", &caller("")).unwrap();
        write(&store, "k", b"", &caller("b")).unwrap();
        let mut same = caller("b");
        same.author.writer.stage_id = Some("another stage".into());
        write(&store, "k", b"", &same).unwrap();
        let mut no_id = caller("");
        no_id.author.writer.stage_id = Some("stage".into());
        write(&store, "k", b"", &no_id).unwrap();
        write(&store, "k", b"", &caller("c")).unwrap();
    }
}

#[test]
fn delete_never_checks_and_forgets_the_writer() {
    for subject in with_session() {
        let store = store(&subject.engine, Policy::Error);
        write(&store, "d/k", b"", &caller("a")).unwrap();
        assert!(store.delete(&session(), &key("d/k"), &caller("b"), true).unwrap());
        assert!(!store.delete(&session(), &key("d/k"), &caller("b"), true).unwrap());
        assert_eq!(subject.engine.entry(&session(), "d").unwrap(), None, "the empty parent goes");
        write(&store, "d/k", b"", &caller("c")).unwrap();
    }
}

#[test]
fn an_edit_of_an_older_version_is_a_conflict_whoever_wrote_it() {
    for subject in with_session() {
        let store = store(&subject.engine, Policy::Error);
        write(&store, "k", b"1", &caller("a")).unwrap();
        write(&store, "k", b"2", &caller("a")).unwrap();
        let (session, key) = (session(), key("k"));
        let edit = |base| Write {
            session: &session,
            key: &key,
            draft: Draft::Whole(b"edit".to_vec().into()),
            base: Base::Version(base),
            fresh: attributes(),
            own: false,
            set: Default::default(),
            rule: Rule::Policy,
        };
        assert!(matches!(store.write(&edit(1), &caller("a")), Err(StoreError::Outdated { base: 1, current: 2, .. })));
        assert_eq!(store.write(&edit(2), &caller("a")).unwrap().version, 3);
    }
}

#[test]
fn a_rename_meets_the_conflict_rule_at_its_destination() {
    for subject in with_session() {
        let store = store(&subject.engine, Policy::Error);
        write(&store, "mine", b"mine", &caller("a")).unwrap();
        write(&store, "theirs", b"theirs", &caller("b")).unwrap();
        let (from, to) = (key("mine"), key("theirs"));
        assert!(matches!(store.rename(&session(), &from, &to, true, &caller("a")), Err(StoreError::Conflict { .. })));
        assert!(matches!(
            store.rename(&session(), &from, &to, false, &caller("b")),
            Err(StoreError::Engine(EngineError::Exists(_)))
        ));
        store.rename(&session(), &from, &to, true, &caller("b")).unwrap();
        assert_eq!(value(&*subject.engine, "theirs").unwrap(), b"mine");
        assert!(matches!(
            store.rename(&session(), &from, &to, true, &caller("b")),
            Err(StoreError::Engine(EngineError::NotFound(_)))
        ));
    }
}

#[test]
fn the_writer_is_made_by_the_neighbours_chain() {
    let id = |text: &str| Some(text.to_owned());
    let claim = Claim { worker_id: id("k"), ..Claim::default() };
    let made = claim.writer(&session());
    assert_eq!((made.writer_id, made.stage_id, made.worker_id), (id("k"), id("k"), id("k")));
    let made = Claim { stage_id: id("g"), ..Claim::default() }.writer(&session());
    assert_eq!((made.writer_id, made.stage_id, made.worker_id), (id("g"), id("g"), None));
    let made = Claim::default().writer(&session());
    assert_eq!((made.writer_id, made.session_id, made.stage_id), (id("s"), id("s"), None));
}

#[test]
fn two_writers_and_a_policy_survive_reopening() {
    let subject = local();
    make_session(&*subject.engine);
    commit(&*subject.engine, put("k", b"kept", None));
    commit(&*subject.engine, Change::SetPolicy(Policy::Error));
    subject.engine.close().unwrap();
    let engine = batonfs::engine::local::LocalEngine::open(subject.dir.as_ref().unwrap().path()).unwrap();
    let engine: std::sync::Arc<dyn batonfs::engine::Engine> = std::sync::Arc::new(engine);
    let store = store(&engine, Policy::Ignore);
    assert!(matches!(write(&store, "k", b"", &caller("other")), Err(StoreError::Conflict { .. })));
    write(&store, "k", b"new", &caller("w")).unwrap();
    assert_eq!(version(&*engine, "k"), Some(2));
}

#[test]
fn a_draft_of_exactly_one_version_is_refused_over_another_under_every_policy() {
    for subject in with_session() {
        let store = store(&subject.engine, Policy::Ignore);
        write(&store, "k", b"one", &caller("a")).unwrap();
        write(&store, "k", b"two", &caller("a")).unwrap();
        let (session, key) = (session(), key("k"));
        let exactly = |version| Write {
            session: &session,
            key: &key,
            draft: Draft::Whole(b"cut".to_vec().into()),
            base: Base::Exactly(version),
            fresh: attributes(),
            own: false,
            set: Default::default(),
            rule: Rule::Policy,
        };
        for stale in [0, 1] {
            assert!(matches!(store.write(&exactly(stale), &caller("a")), Err(StoreError::Outdated { .. })));
        }
        assert_eq!(value(&*subject.engine, "k").unwrap(), b"two");
        assert_eq!(store.write(&exactly(2), &caller("a")).unwrap().version, 3);
    }
}
