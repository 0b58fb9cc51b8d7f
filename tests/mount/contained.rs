//! A writer view mounted alone, as a container has it: what a program inside tries, and what comes of it.

use crate::harness::{self, Mount, Ran};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mount/contained.py");

/// Runs the program in mount and pid namespaces of its own, with the view of `a` in a place of its own and the mountpoint
/// and the store covered; `as_whom` starts it there.
fn contained(mount: &Mount, as_whom: &str, words: &[&str]) -> Ran {
    let script = format!(
        "mkdir -p \"$TMP/box\" && mount --bind \"$MNT/.baton/as/a\" \"$TMP/box\" && \
         mount -t tmpfs none \"$MNT\" && mount -t tmpfs none \"$STORE\" && mount -t proc proc /proc && \
         cd \"$TMP/box\" && exec {as_whom} \"$@\""
    );
    let mut command =
        mount.command(&["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", &script, "-"]);
    command.args(words);
    mount.run(command)
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only root can make a container here");
    }
    root
}

/// The tries of the program (only those of these names, if any), each with how it ended.
fn tries(mount: &Mount, as_whom: &str, only: &[&str]) -> Vec<(String, String)> {
    let (point, store) = (mount.point(), mount.store());
    let (point, store) = (point.to_string_lossy(), store.to_string_lossy());
    let words = [harness::python(), PROGRAM, "a", "b", &point, &store, harness::BATONFS];
    let said = contained(mount, as_whom, &[words.as_slice(), only].concat()).ok();
    said.lines()
        .map(|line| line.split_once('\t').unwrap_or_else(|| panic!("{line}")))
        .map(|(what, how)| (what.to_owned(), how.to_owned()))
        .collect()
}

/// A session with a key of `b`'s, under the policy `error`.
fn mount() -> Option<Mount> {
    let mount = is_root().then(|| Mount::with(&["--conflict-policy", "error"]))??;
    mount.by("a", "echo mine > owned").ok();
    mount.by("b", "echo theirs > theirs; echo error > .baton/policy; echo theirs | cat > owned").refused("busy");
    Some(mount)
}

/// Nothing of what was tried was recorded as another's, or has changed what is another's.
fn is_intact(mount: &Mount) {
    assert_eq!((mount.read("theirs"), mount.writer_of("theirs")), ("theirs\n".to_owned(), "b".to_owned()));
    assert_eq!(mount.versions("theirs"), [1]);
    assert_eq!(mount.read(".baton/policy"), "error\n");
    let log = mount.log();
    let by_b: Vec<_> = log.iter().filter(|line| line["writer"]["writer_id"] == "b").collect();
    assert_eq!(by_b.len(), 2, "the key and the policy: {by_b:?}");
    assert!(mount.errors().contains("\"writer_id\":\"b\""), "{}", mount.errors());
    let sessions = std::fs::read_dir(mount.point()).expect("the root").count();
    assert_eq!(sessions, 1);
}

// V7
#[test]
fn no_way_leads_out_of_a_view_that_is_mounted_alone() {
    let Some(mount) = mount() else { return };
    let tries = tries(&mount, "setpriv --bounding-set=-all --inh-caps=-all", &[]);
    let escaped: Vec<_> = tries.iter().filter(|(_, how)| how.starts_with("ESCAPED")).collect();
    assert!(escaped.is_empty(), "{escaped:#?}");
    assert!(tries.len() > 50, "{tries:#?}");
    let how = |what: &str| &tries.iter().find(|(tried, _)| tried == what).unwrap_or_else(|| panic!("{what}")).1;
    for (what, expected) in [
        ("another view, by the view's control directory", "ENOENT"),
        ("a session that makes itself", "ENOENT"),
        // By its mode, for who lacks every capability.
        ("the policy, written", "EACCES"),
        ("another's value, written", "EBUSY"),
        ("another's value, by a temporary file", "EBUSY"),
        ("another's value, replaced", "EBUSY"),
        ("another's value, mapped", "ENODEV"),
        ("another's sidecar, by a temporary file", "EPERM"),
        ("a sidecar that names another", "nothing there"),
        ("the environment of a program", "nothing there"),
        ("another's lines of the log", "nothing there"),
        ("a key, moved out", "EXDEV"),
        ("an exchange", "EINVAL"),
    ] {
        assert_eq!(how(what), expected, "{what}");
    }
    is_intact(&mount);
}

// V7: with every capability in namespaces of its own, what is ours holds still; what the kernel gives such a process
// (taking away what covers the mountpoint) is not asked here.
#[test]
fn no_file_handle_opens_what_is_beside_a_view() {
    let Some(mount) = mount() else { return };
    let (number, handle) = ("a file handle made from a number", "a file handle of what is here");
    let refused = [(number, "ESTALE"), (handle, "ENOTSUP"), ("batonfs write", "nothing there")];
    let tried = tries(&mount, "", &refused.map(|(what, _)| what));
    let tried: Vec<_> = tried.iter().map(|(what, how)| (what.as_str(), how.as_str())).collect();
    if tried.len() < refused.len() {
        return eprintln!("SKIPPED: before Linux 6.9 a file system cannot refuse file handles");
    }
    assert_eq!(tried, [refused[2], refused[0], refused[1]]);
    is_intact(&mount);
}

// V7, K27: the command says what a view is not.
#[test]
fn the_command_does_not_take_a_view_for_a_store() {
    let Some(mount) = mount() else { return };
    let wrong = [harness::BATONFS, "write", ".", "s", "k"];
    let ran = contained(&mount, "", &wrong);
    assert_eq!(ran.code, Some(2));
    ran.refused("a part of one, not a store");
    let inside = mount.point().join(".baton/as/a");
    mount.batonfs(&["read", &inside.to_string_lossy(), "s", "theirs"]).refused("not a store");
    let whole = mount.point();
    assert_eq!(mount.batonfs(&["read", &whole.to_string_lossy(), "s", "theirs"]).ok(), "theirs\n");
    is_intact(&mount);
}
