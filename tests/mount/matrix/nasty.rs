//! C1, C2 and C6 by writers that detach themselves, change who they are, are killed, or hold a file in unusual ways.

use std::collections::BTreeSet;

use super::case::{BASH, Case, Made, Program, case, fresh_dir, play, run};
use crate::harness::Mount;

const OLD: &[(&str, &str)] = &[("k", "old\n")];

#[track_caller]
fn all(program: Program, cases: &[Case]) {
    let Some(mount) = Mount::new() else { return };
    run(&mount, program, cases);
}

// C1, C2
#[test]
fn who_detaches_itself_is_waited_for() {
    all(
        BASH,
        &[
            case(OLD, "setsid bash -c 'echo a; sleep 0.1; echo b' > k", &[("k", "put bash", "a\nb\n")]),
            case(OLD, "setsid --fork bash -c 'echo a; sleep 0.1; echo b' > k", &[("k", "put bash", "a\nb\n")]),
            case(OLD, "nohup bash -c 'sleep 0.1; echo a' > k 2> /dev/null &", &[("k", "put bash", "a\n")]),
            case(
                OLD,
                "setsid nohup bash -c 'echo a; sleep 0.1; /bin/echo b' > k 2> /dev/null & exit 0",
                &[("k", "put echo", "a\nb\n")],
            ),
            case(OLD, "( (echo a; sleep 0.1; echo b) & ) > k", &[("k", "put bash", "a\nb\n")]),
            case(OLD, "( (sleep 0.05; /bin/echo a) & (sleep 0.5; /bin/echo b) & ) > k", &[("k", "put echo", "a\nb\n")]),
            case(
                OLD,
                "{ bash -c '(sleep 0.1; echo b) & exec >&-; sleep 0.2' & echo a; } > k; wait",
                &[("k", "put bash", "a\nb\n")],
            ),
            case(
                OLD,
                "exec 3> k; (exec 3>&-; sleep 0.1) & (echo a >&3; exec 3>&-; sleep 0.1) & wait; echo b >&3",
                &[("k", "put bash", "a\nb\n")],
            ),
        ],
    );
}

// C1, C2
#[test]
fn a_daemon_whose_parents_are_gone_is_waited_for() {
    all(
        Program::Python,
        &[
            case(
                OLD,
                "import os, time\nfd = os.open('k', os.O_WRONLY | os.O_TRUNC); os.write(fd, b'half ')\nme = os.getpid()\n\
                   if os.fork() == 0:\n child = os.getpid()\n if os.fork() == 0:\n  os.setsid()\n  \
                   while os.path.exists(f'/proc/{me}') or os.path.exists(f'/proc/{child}'): time.sleep(0.01)\n  \
                   os.write(fd, b'whole')\n  os._exit(0)\n os._exit(0)\nos.wait()",
                &[("k", "put $", "half whole")],
            ),
            // Nothing was written when their parent went: its close had nothing to commit.
            case(&[("k", "0123")], ORPHANS, &[("k", "put $", "ab23")]),
            case(&[("k", "")], ORPHANS_OF_AN_EMPTY_ONE, &[("k", "put $", "ab")]),
        ],
    );
}

/// Two siblings whose parent closes before anything is written, and goes.
const ORPHANS: &str = "import os, time\nfd = os.open('k', os.O_RDWR)\nme = os.getpid()\nfor i in range(2):\n \
                       if os.fork() == 0:\n  while os.getppid() == me: time.sleep(0.01)\n  time.sleep(0.2 * i)\n  \
                       os.write(fd, b'ab'[i:i + 1])\n  os._exit(0)\nos.close(fd)";
const ORPHANS_OF_AN_EMPTY_ONE: &str = "import os, time\nfd = os.open('k', os.O_RDWR | os.O_TRUNC)\nme = os.getpid()\nfor i in range(2):\n \
                       if os.fork() == 0:\n  while os.getppid() == me: time.sleep(0.01)\n  time.sleep(0.2 * i)\n  \
                       os.write(fd, b'ab'[i:i + 1])\n  os._exit(0)\nos._exit(0)";

// C1, C2
#[test]
fn a_descriptor_that_moves_while_it_is_counted_is_held() {
    all(Program::Python, &[case(OLD, MOVED_ABOUT, WHOLE), case(OLD, PASSED_ON, WHOLE)]);
}

// C1
#[test]
fn who_changes_its_user_or_its_view_of_the_world_is_still_seen() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can change who it is");
        return;
    }
    let Some(mount) = Mount::with(&["--allow-other"]) else { return };
    run(
        &mount,
        BASH,
        &[
            case(OLD, "setpriv --reuid 65534 --clear-groups bash -c 'echo a; sleep 0.05; /bin/echo b' > k", AB),
            case(OLD, "{ setpriv --reuid 65534 --clear-groups /bin/echo a; /bin/echo b; } > k", AB),
            case(OLD, "unshare -m bash -c 'echo a; /bin/echo b' > k", AB),
            case(OLD, "unshare -m bash -c 'exec 3> k; echo a >&3; sleep 0.05; /bin/echo b >&3'", AB),
            case(OLD, "unshare -p -f bash -c 'echo a; sleep 0.05; /bin/echo b' > k", AB),
            case(OLD, "unshare -p -f bash -c '{ (sleep 0.05; /bin/echo b) & echo a; } > k; wait'", AB),
        ],
    );
    run(
        &mount,
        Program::Python,
        &[
            case(OLD, "import os; f = open('k', 'w'); os.setuid(65534); f.write('a'); f.close()", A),
            case(
                OLD,
                "import os, time; os.chroot(os.environ['TMP']); f = open('k', 'w'); f.write('a'); f.flush(); time.sleep(0.05)",
                A,
            ),
            case(
                OLD,
                "import os, time; f = open('k', 'w'); f.write('a'); f.flush(); os.chroot(os.environ['TMP']); time.sleep(0.05)",
                A,
            ),
        ],
    );
}

const WHOLE: &[Made] = &[("k", "put $", "half whole")];
/// One descriptor under one number after the other, each dropped only once the next is there.
const MOVED_ABOUT: &str = "import os\nfd = os.open('k', os.O_WRONLY | os.O_TRUNC); os.write(fd, b'half ')\n\
                           for i in range(600):\n to = 100 + i * 37 % 101\n os.dup2(fd, to); os.close(fd); fd = to\n\
                           os.write(fd, b'whole')";
/// One descriptor from parent to child, many times, each parent letting go of it and then ending.
const PASSED_ON: &str = "import os\nfd = os.open('k', os.O_WRONLY | os.O_TRUNC); os.write(fd, b'half ')\n\
                         done, last = os.pipe()\nif os.fork() == 0:\n os.close(done)\n for i in range(60):\n  \
                         if os.fork() != 0:\n   os.close(fd)\n   os._exit(0)\n os.write(fd, b'whole')\n os._exit(0)\n\
                         os.close(fd); os.close(last); os.read(done, 1)";

const A: &[Made] = &[("k", "put $", "a")];
const AB: &[Made] = &[("k", "put echo", "a\nb\n")];

// C6
#[test]
fn what_a_killed_child_left_half_is_dropped() {
    all(
        BASH,
        &[
            case(OLD, "timeout 0.3 bash -c 'echo half; sleep 60' > k || [ $? = 124 ]", &[("k", "drop bash", "half\n")]),
            case(
                &[],
                "timeout 0.3 bash -c 'echo half; exec sleep 60' > k || [ $? = 124 ]",
                &[("k", "drop bash", "half\n")],
            ),
            case(
                OLD,
                "(timeout -s KILL 0.3 bash -c 'echo half; exec sleep 60' > k) 2> /dev/null || [ $? = 137 ]",
                &[("k", "drop bash", "half\n")],
            ),
            case(
                OLD,
                "{ timeout 0.3 bash -c 'echo half; exec sleep 60' || echo late; } > k",
                &[("k", "put bash", "half\nlate\n")],
            ),
            case(
                OLD,
                "bash -c 'echo whole > k; sleep 60' & until [ $(cat k) = whole ]; do sleep 0.02; done; kill -9 $!",
                &[("k", "put bash", "whole\n")],
            ),
            case(
                OLD,
                "bash -c 'exec 3>> k; echo kept >&3; kill -9 $$' 2> /dev/null || [ $? = 137 ]",
                &[("k", "append bash", "old\nkept\n")],
            ),
        ],
    );
    all(
        Program::Python,
        &[
            case(
                OLD,
                "import subprocess\nwith open('k', 'w') as f:\n try: subprocess.run(['bash', '-c', 'echo half; exec sleep 60'], stdout=f, timeout=0.3)\n \
                   except subprocess.TimeoutExpired: pass",
                &[("k", "drop bash", "half\n")],
            ),
            case(
                OLD,
                "import subprocess\nwith open('k', 'w') as f:\n try: subprocess.run('echo half; sleep 0.6; :', shell=True, stdout=f, timeout=0.3)\n \
                   except subprocess.TimeoutExpired: pass",
                &[("k", "drop sh", "half\n")],
            ),
        ],
    );
}

// C1, Limits
#[test]
fn two_handles_of_one_key_are_two_drafts() {
    all(
        BASH,
        &[
            case(OLD, "{ echo out; echo err >&2; } > k 2> k", &[("k", "put $", "err\n"), ("k", "put $", "out\n")]),
            case(
                OLD,
                "exec 3> k 4> k; echo a >&3; echo b >&4; exec 4>&-; exec 3>&-",
                &[("k", "put $", "b\n"), ("k", "put $", "a\n")],
            ),
            case(OLD, "{ echo a; tail -n 1 k; } > k", &[("k", "put tail", "a\nold\n")]),
        ],
    );
    all(Program::Python, &[
        // Both descriptors are then the first handle's: the second one's end shows at its RELEASE.
        case(OLD, "import os\na, b = (os.open('k', os.O_WRONLY | os.O_TRUNC) for i in 'ab')\nos.write(a, b'one ')\nos.write(b, b'two')\n\
                   os.dup2(a, b)\nwhile open('k').read() != 'two': pass\nos.write(b, b'and more')\nos.close(a); os.close(b)", &[
            ("k", "put $", "two"),
            ("k", "put $", "one and more"),
        ]).released(1),
        // A daemon that is nobody's descendant holds another handle: it is not one of ours.
        case(OLD, "import os, subprocess, time\nf = open('k', 'w'); subprocess.run(['setsid', '-f', 'sleep', '0.6'], stdout=f); f.close()\n\
                   with open('k', 'w') as f:\n f.write('half '); f.flush(); os.close(os.dup(f.fileno())); time.sleep(0.1); f.write('whole')", &[
            ("k", "put $", "half whole"),
            ("k", "put $", ""),
        ]),
    ]);
}

// C7
#[test]
fn many_appenders_to_one_key_add_whole_lines() {
    let Some(mount) = Mount::new() else { return };
    const SCRIPT: &str = "seq 100 140 | xargs -P 4 -I N bash -c 'if [ $((N % 2)) = 0 ]; then echo line-N; else /bin/echo line-N; fi >> k'";
    let dir = fresh_dir();
    let played = play(&mount, BASH, &case(&[("k", "line-000\n")], SCRIPT, &[("k", "", "")]), &dir, true);
    assert_eq!(played.lines.len(), 41);
    assert_eq!(played.late, (0, 0));
    let value = mount.read(&format!("{dir}/k"));
    let lines: BTreeSet<&str> = value.lines().collect();
    assert_eq!((lines.len(), value.len()), (42, 42 * 9));
    let seen = played.seen.expect("somebody watched");
    for state in seen.values["k"].iter().flatten() {
        assert!(
            value.as_bytes().starts_with(state),
            "{:?} is no beginning of {value:?}",
            String::from_utf8_lossy(state)
        );
        assert_eq!(state.len() % 9, 0, "half a line");
    }
    assert!(seen.sizes["k"].iter().all(|size| size.is_some_and(|size| size % 9 == 0)), "{:?}", seen.sizes);
}
