use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;

use super::super::testing::Script;
use super::*;

fn number(ino: u64) -> SeenAs {
    SeenAs { ino, but: 0 }
}

/// A file of the test's own and its inode number.
fn file() -> (tempfile::NamedTempFile, u64) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let ino = file.as_file().metadata().unwrap().ino();
    (file, ino)
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

#[test]
fn this_file_names_nothing_that_waits_for_an_exec() {
    let source = include_str!("../holders.rs");
    let code: String =
        source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let words: Vec<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let waits = [
        "environ",
        "exe",
        "cwd",
        "root",
        "maps",
        "smaps",
        "auxv",
        "wchan",
        "stack",
        "syscall",
        "personality",
        "ns",
        "kcmp",
        "pidfd_getfd",
        "read_link",
        "readlink",
        "readlinkat",
        "mountinfo",
        "map_files",
        "resolve",
    ];
    for word in waits {
        assert!(!words.contains(&word), "a FLUSH out of an exec would wait for ever for `{word}`");
    }
    for word in ["io", "mem"] {
        let named = code.contains(&format!("\"{word}\"")) || code.contains(&format!("/{word}"));
        assert!(!named, "`{word}` waits too");
    }
    let stats = words.iter().filter(|word| **word == "stat").count();
    assert_eq!(stats, 1, "`stat` waits, but for a task past exec: in `death`, and there only");
}

#[test]
fn a_thread_leads_to_its_process() {
    let me = std::process::id();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
            assert_ne!(tid, me);
            assert_eq!(tgid(tid), Some(me));
        });
    });
    assert_eq!(tgid(u32::MAX), None);
    assert_eq!(tgid(0), None);
}

#[test]
fn a_holder_is_itself_and_nobody_else() {
    let script = Script::start("$w", &[]);
    let (one, again) = (Holder::of(script.pid()).unwrap(), Holder::of(script.pid()).unwrap());
    assert_eq!(one, again);
    assert_ne!(one, Holder::of(std::process::id()).unwrap());
    assert_eq!(Holder::of(0), None);
    assert_eq!(Holder::of(u32::MAX), None);
}

#[test]
fn a_holder_ends_with_its_process_though_nobody_waited_for_it() {
    let mut script = Script::start("$w", &[]);
    let holder = Holder::of(script.pid()).unwrap();
    assert!(holder.is_alive());
    script.kill();
    while holder.is_alive() {
        std::thread::yield_now();
    }
    assert!(File::open(format!("/proc/{}/status", script.pid())).is_ok(), "it is still there, as a zombie");
    script.let_go();
    assert!(!holder.is_alive());
    assert_eq!(Holder::of(script.pid()), None);
}

#[test]
fn only_descriptors_that_can_write_this_file_count() {
    let (file, ino) = file();
    let (other, other_ino) = self::file();
    let script = format!("exec 4>{0} 5<{0} 6<>{0} 7>>{0} 8>{1}; exec 9>&4; echo 1; $w", path(&file), path(&other));
    let mut script = Script::start(&script, &[]);
    script.number();
    assert_eq!(writable_descriptors(script.pid(), number(ino)), Some(4), "4, 6, 7 and 9");
    assert_eq!(writable_descriptors(script.pid(), number(other_ino)), Some(1));
    assert_eq!(writable_descriptors(script.pid(), number(u64::MAX)), Some(0));
    assert_eq!(writable_descriptors(u32::MAX, number(ino)), None);
}

#[test]
fn a_table_longer_than_one_read_of_it_is_counted_whole() {
    let (file, ino) = file();
    let held: Vec<File> = (0..700).map(|_| OpenOptions::new().append(true).open(file.path()).unwrap()).collect();
    let one_more = 1; // the temporary file itself
    assert_eq!(writable_descriptors(std::process::id(), number(ino)), Some(held.len() + one_more));
}

#[test]
fn a_child_holds_what_it_was_given_and_the_parent_closed() {
    let (file, ino) = file();
    let script = format!("exec 3<&0 4>{0}; (echo 1; read x <&3; :) & exec 4>&-; echo 2; wait", path(&file));
    let mut script = Script::start(&script, &[]);
    script.number();
    script.number();
    assert_eq!(writable_descriptors(script.pid(), number(ino)), Some(0));
    let children = descendants(script.pid());
    assert_eq!(children.len(), 1);
    assert_eq!(writable_descriptors(children[0], number(ino)), Some(1));
}

#[test]
fn descendants_are_found_through_generations_and_threads() {
    let mut script = Script::start("sh -c 'sh -c \"echo \\$\\$; \\$w; :\"; :'; :", &[]);
    let grandchild = script.number();
    let below = descendants(script.pid());
    assert_eq!(below.len(), 2);
    assert!(below.contains(&grandchild));
    let (shell, ours) = (script.pid(), std::process::id());
    assert!(descendants(ours).contains(&shell), "tests run on threads, each with children of its own");
    assert_eq!(descendants(u32::MAX), Vec::<u32>::new());
}

#[test]
fn the_living_are_not_dying() {
    let me = std::process::id();
    assert!(!is_dying(me));
    assert!(!is_ending(me));
    assert_eq!(death(me), None);
    assert_eq!(death(u32::MAX), None);
}

#[test]
fn nothing_is_to_come_from_a_process_that_has_ended() {
    let mut script = Script::start("$w", &[]);
    let holder = Holder::of(script.pid()).unwrap();
    script.kill();
    while holder.is_alive() {
        std::thread::yield_now();
    }
    assert!(is_dying(script.pid()) && !is_ending(script.pid()), "it is a zombie");
    script.let_go();
    assert!(!is_ending(script.pid()));
}

/// A zombie shows what a dying process shows while its files close: no memory, no descriptor table, its end.
fn end_of(script: &str, finish: impl FnOnce(&mut Script)) -> Option<Death> {
    let mut script = Script::start(script, &[]);
    let holder = Holder::of(script.pid()).unwrap();
    finish(&mut script);
    while holder.is_alive() {
        std::thread::yield_now();
    }
    death(script.pid())
}

#[test]
fn the_dying_tell_how() {
    assert_eq!(end_of("$w", Script::kill), Some(Death::Signal(9)));
    assert_eq!(end_of("kill -TERM $$", |_| ()), Some(Death::Signal(15)));
    assert_eq!(end_of("exit 5", |_| ()), Some(Death::Exit(5)));
    assert_eq!(end_of("exit 0", |_| ()), Some(Death::Exit(0)));
    assert_eq!(end_of("ulimit -c 0; kill -SEGV $$", |_| ()), Some(Death::Signal(11)));
}

#[test]
fn flags_are_octal_and_only_the_access_mode_counts() {
    assert_eq!(is_writable(b"pos:\t0\nflags:\t0100001\nmnt_id:\t29\nino:\t7\n", number(7)), Some(true));
    assert_eq!(is_writable(b"pos:\t0\nflags:\t02102002\nmnt_id:\t29\nino:\t7\n", number(7)), Some(true));
    assert_eq!(is_writable(b"pos:\t0\nflags:\t0100000\nmnt_id:\t29\nino:\t7\n", number(7)), Some(false));
    assert_eq!(is_writable(b"pos:\t0\nflags:\t012000000\nmnt_id:\t29\nino:\t7\n", number(7)), Some(false), "O_PATH");
    assert_eq!(is_writable(b"pos:\t0\nflags:\t0100001\nmnt_id:\t29\nino:\t77\n", number(7)), None);
    let in_view = SeenAs { ino: 7, but: 0xf0 };
    assert_eq!(is_writable(b"pos:\t0\nflags:\t0100001\nmnt_id:\t29\nino:\t39\n", in_view), Some(true));
    assert_eq!(is_writable(b"pos:\t0\nflags:\t0100001\nmnt_id:\t29\nino:\t38\n", in_view), None);
    assert_eq!(is_writable(b"", number(7)), None);
}

#[test]
fn how_a_process_has_ended_is_known_before_and_after_somebody_has_waited_for_it() {
    for (script, death) in [("exit 3", Death::Exit(3)), ("kill -9 $$", Death::Signal(9))] {
        let mut child = std::process::Command::new("sh")
            .args(["-c", &format!("read line; {script}")])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let holder = Holder::of(child.id()).unwrap();
        assert_eq!(holder.death(), None);
        drop(child.stdin.take());
        while holder.is_alive() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(holder.death(), Some(death), "before");
        child.wait().unwrap();
        if kernel() >= (6, 15) {
            assert_eq!(holder.death(), Some(death), "after");
        } else {
            eprintln!("SKIPPED: this kernel forgets how a process has ended");
        }
    }
}

fn kernel() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
