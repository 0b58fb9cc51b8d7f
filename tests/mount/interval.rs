//! A mount whose closes are durable a moment later (`--durability interval=MS`): what is seen at once, what makes it
//! durable, and what an end leaves. Beside the mount only what is durable is in its place, which is how it is told here.

use std::fs;

use crate::harness::{self, Mount, eventually};

/// So long that nothing becomes durable by itself while a test runs.
const NEVER: &[&str] = &["--durability", "interval=60000"];

fn mounted() -> Option<Mount> {
    let mount = Mount::with(NEVER)?;
    fs::create_dir(mount.path("d")).expect("mkdir");
    Some(mount)
}

fn stored(mount: &Mount, key: &str) -> Option<String> {
    fs::read_to_string(mount.stored(key)).ok()
}

// D1
#[test]
fn d1_what_is_closed_is_seen_on_the_mount_at_once_and_beside_it_when_it_is_durable() {
    let Some(mount) = mounted() else { return };
    let script = "echo one > d/k; cat d/k; echo two >> d/k; cat d/k; echo three > d/k; stat -c %s d/k; ls d; \
                  echo other > l; tail -n 1 l; wc -l < .baton/log";
    assert_eq!(mount.bash(script).ok(), "one\none\ntwo\n6\nk\nother\n6\n");
    assert_eq!((stored(&mount, "d/k"), stored(&mount, "l")), (None, None));
    // Of another file, opened for reading only: everything before it.
    mount.bash("sync l").ok();
    assert_eq!(stored(&mount, "d/k").as_deref(), Some("three\n"));
    assert_eq!(mount.versions("d/k"), [1, 2, 3]);
}

// D1
#[test]
fn d1_fsync_of_a_file_that_is_being_written_or_of_a_directory_makes_everything_durable() {
    let Some(mount) = mounted() else { return };
    mount.write("k", "closed");
    mount.python("import os\nfd = os.open('l', os.O_CREAT | os.O_WRONLY)\nos.write(fd, b'synced')\nos.fsync(fd)").ok();
    assert_eq!((stored(&mount, "k").as_deref(), stored(&mount, "l").as_deref()), (Some("closed"), Some("synced")));
    mount.write("k", "closed again");
    mount.python("import os\nos.fsync(os.open('d', os.O_RDONLY))").ok();
    assert_eq!(stored(&mount, "k").as_deref(), Some("closed again"));
}

// D1
// K33
#[test]
fn d1_a_handoff_a_change_of_names_and_the_command_are_durable_at_once_and_all_before_them() {
    let Some(mount) = mounted() else { return };
    let (command, store) = (harness::BATONFS, mount.store());
    let by_command = format!("echo value | {command} write {} {} by-command", store.display(), harness::SESSION);
    let makes = [
        ("handoff", "echo '{\"status\": \"done\"}' > __handoff.json"),
        ("mkdir", "mkdir e"),
        ("rename", "mv d/moves d/moved"),
        ("unlink", "rm d/moved"),
        ("policy", "echo warn > .baton/policy"),
        ("command", &by_command),
    ];
    mount.write("d/moves", "moves");
    for (name, script) in makes {
        let text = format!("before the {name}");
        mount.write("k", &text);
        assert_ne!(stored(&mount, "k").as_deref(), Some(text.as_str()), "{name}");
        mount.bash(script).ok();
        assert_eq!(stored(&mount, "k").as_deref(), Some(text.as_str()), "{name}");
    }
    assert!(stored(&mount, "by-command").is_some());
}

// D1
#[test]
fn d1_it_becomes_durable_by_itself() {
    let Some(mount) = Mount::with(&["--durability", "interval=30"]) else { return };
    mount.write("k", "kept");
    eventually("it is in its place", || stored(&mount, "k").as_deref() == Some("kept"));
    assert_eq!(mount.status()["durability"], "interval=30");
}

// D2
#[test]
fn d2_the_death_of_the_daemon_loses_nothing_that_was_closed() {
    let Some(mut mount) = mounted() else { return };
    mount.bash("for n in 1 2 3 4 5; do echo $n > d/k; echo $n >> log; done; head -c 100000 /dev/zero > large").ok();
    assert_eq!(stored(&mount, "d/k"), None);
    mount.crash();
    assert_eq!((mount.read("d/k"), mount.read("log")), ("5\n".to_owned(), "1\n2\n3\n4\n5\n".to_owned()));
    assert_eq!(mount.read("large").len(), 100_000);
    assert_eq!(mount.versions("d/k"), [1, 2, 3, 4, 5]);
}

// D2
#[test]
fn d2_a_clean_end_makes_everything_durable() {
    let Some(mut mount) = mounted() else { return };
    mount.write("k", "kept");
    assert_eq!(stored(&mount, "k"), None);
    mount.unmount();
    assert_eq!(stored(&mount, "k").as_deref(), Some("kept"));
}
