//! C1 to C7 by what shells do with redirections.

use super::case::{BASH, Case, case, run, run_in_both_shells};
use crate::harness::Mount;

const OLD: &[(&str, &str)] = &[("k", "old\n")];

/// Runs cases in both shells.
#[track_caller]
fn both(cases: &[Case]) {
    let Some(mount) = Mount::new() else { return };
    run_in_both_shells(&mount, cases);
}

// C1, C3, C4
#[test]
fn a_redirection_makes_one_version_by_whoever_wrote() {
    both(&[
        case(&[], "echo new > k", &[("k", "put $", "new\n")]),
        case(OLD, "echo new > k", &[("k", "put $", "new\n")]),
        case(OLD, "/bin/echo new > k", &[("k", "put echo", "new\n")]),
        case(&[], ": > k", &[("k", "put $", "")]),
        case(OLD, ": > k", &[("k", "put $", "")]),
        case(&[("k", "")], ": > k", &[]),
        case(&[], "false > k || :", &[("k", "put $", "")]),
        case(&[], "nosuchprogram > k 2> /dev/null || :", &[("k", "put $", "")]),
        case(OLD, "echo NEW 1<> k", &[("k", "put $", "NEW\n")]),
        case(&[("k", "old and more\n")], "printf NEW 1<> k", &[("k", "put $", "NEW and more\n")]),
        case(OLD, "set -C; echo new > k || echo forced >| k", &[("k", "put $", "forced\n")]),
        case(&[], "cat > k <<E\none\ntwo\nE", &[("k", "put cat", "one\ntwo\n")]),
        case(OLD, "echo one > k; /bin/echo two > k", &[("k", "put $", "one\n"), ("k", "put echo", "two\n")]),
        case(OLD, "for i in 1 2; do echo $i > k; done", &[("k", "put $", "1\n"), ("k", "put $", "2\n")]),
    ]);
}

// C1
#[test]
fn what_writes_through_one_redirection_makes_one_version() {
    both(&[
        case(OLD, "{ echo a; /bin/echo b; echo c; } > k", &[("k", "put $", "a\nb\nc\n")]),
        case(OLD, "( echo a; /bin/echo b ) > k", &[("k", "put echo", "a\nb\n")]),
        case(&[], "for i in 1 2 3; do echo $i; /bin/echo .; done > k", &[("k", "put echo", "1\n.\n2\n.\n3\n.\n")]),
        case(&[], "f() { echo a; /bin/echo b; }; f > k", &[("k", "put echo", "a\nb\n")]),
        case(OLD, "{ echo a; echo b >&2; /bin/echo c >&2; } > k 2>&1", &[("k", "put echo", "a\nb\nc\n")]),
        case(OLD, "exec > k; echo a; /bin/echo b; echo c", &[("k", "put $", "a\nb\nc\n")]),
        case(OLD, "exec 3> k; echo a >&3; /bin/echo b >&3; echo c >&3; exec 3>&-", &[("k", "put $", "a\nb\nc\n")]),
        case(OLD, "exec 3> k; echo a >&3; sleep 0.05; /bin/echo b >&3", &[("k", "put echo", "a\nb\n")]),
        case(OLD, "exec 3> k 4>&3; echo a >&3; echo b >&4; exec 3>&-; echo c >&4", &[("k", "put $", "a\nb\nc\n")]),
        case(OLD, "trap 'echo end >&3' EXIT; exec 3> k; /bin/echo a >&3", &[("k", "put $", "a\nend\n")]),
        case(OLD, "exec 3> k; echo a >&3; exec /bin/echo b >&3", &[("k", "put echo", "a\nb\n")]),
        case(OLD, "{ echo a; eval 'echo b'; . /dev/stdin; } > k <<E\necho c\nE", &[("k", "put $", "a\nb\nc\n")]),
    ]);
}

// C1, C2
#[test]
fn what_goes_on_in_the_background_is_waited_for() {
    both(&[
        case(OLD, "(sleep 0.1; echo x) > k & wait", &[("k", "put $", "x\n")]),
        case(&[], "{ sleep 0.2 & echo a; } > k; wait", &[("k", "put $", "a\n")]),
        case(OLD, "{ sleep 0.2 & echo a; } > k", &[("k", "put $", "a\n")]),
        case(OLD, "{ (sleep 0.1; echo b) & echo a; } > k; wait", &[("k", "put $", "a\nb\n")]),
        case(OLD, "{ (sleep 0.1; /bin/echo b) & /bin/echo a; } > k", &[("k", "put echo", "a\nb\n")]),
        case(OLD, "{ (sleep 0.05; echo a) & (sleep 0.15; echo b) & } > k; wait", &[("k", "put $", "a\nb\n")]),
        case(
            OLD,
            "exec 3> k; for i in 1 2 3 4; do (sleep 0.0$i; /bin/echo x >&3) & done; echo x >&3; wait",
            &[("k", "put echo", "x\nx\nx\nx\nx\n")],
        ),
        case(
            &[],
            "{ for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 0.0$i & done; echo a; } > k; wait",
            &[("k", "put $", "a\n")],
        ),
        case(
            OLD,
            "mkfifo $TMP/p$$; exec 3> k; (read x; echo b >&3; echo > $TMP/p$$) < $TMP/p$$ & \
             (echo a >&3; echo > $TMP/p$$; read x < $TMP/p$$; /bin/echo c >&3) & exec 3>&-; wait",
            &[("k", "put echo", "a\nb\nc\n")],
        ),
    ]);
}

// C1
#[test]
fn the_last_program_of_a_pipeline_makes_the_version() {
    both(&[
        case(OLD, "echo a | cat > k", &[("k", "put cat", "a\n")]),
        case(OLD, "{ echo a; sleep 0.05; echo b; } | cat > k", &[("k", "put cat", "a\nb\n")]),
        case(OLD, "{ echo a; sleep 0.05; echo b; } | while read x; do echo $x; done > k", &[("k", "put $", "a\nb\n")]),
        case(
            OLD,
            "{ echo a; sleep 0.05; echo b; } | tee k j > /dev/null",
            &[("k", "put tee", "a\nb\n"), ("j", "put tee", "a\nb\n")],
        ),
        case(OLD, "{ echo a; sleep 0.05; echo b; } | { cat; /bin/echo c; } > k", &[("k", "put echo", "a\nb\nc\n")]),
    ]);
}

// C7
#[test]
fn each_append_is_a_version() {
    both(&[
        case(&[], "echo a >> k", &[("k", "put $", "a\n")]),
        case(OLD, "echo a >> k", &[("k", "append $", "old\na\n")]),
        case(
            OLD,
            "/bin/echo a >> k; echo b >> k",
            &[("k", "append echo", "old\na\n"), ("k", "append $", "old\na\nb\n")],
        ),
        case(
            OLD,
            "{ /bin/echo a; /bin/echo b; } >> k",
            &[("k", "append echo", "old\na\n"), ("k", "append echo", "old\na\nb\n")],
        ),
        case(OLD, "echo a | tee -a k > /dev/null", &[("k", "append tee", "old\na\n")]),
        case(OLD, ": >> k", &[]),
        case(&[], ": >> k", &[("k", "put $", "")]),
    ]);
}

// C1
#[test]
fn what_only_bash_can_do_is_as_whole() {
    let Some(mount) = Mount::new() else { return };
    run(
        &mount,
        BASH,
        &[
            case(OLD, "cat <(echo a; sleep 0.05) <(/bin/echo b) > k", &[("k", "put cat", "a\nb\n")]),
            case(OLD, "echo a > >(sleep 0.05; cat > k)", &[("k", "put cat", "a\n")]),
            case(OLD, "{ echo a; /bin/echo b >&2; } &> k", &[("k", "put echo", "a\nb\n")]),
            case(OLD, "cat > k <<< a", &[("k", "put cat", "a\n")]),
            case(
                OLD,
                "coproc cat > k; echo a >&\"${COPROC[1]}\"; sleep 0.05; echo b >&\"${COPROC[1]}\"; eval \"exec ${COPROC[1]}>&-\"; wait",
                &[("k", "put cat", "a\nb\n")],
            ),
            case(OLD, "exec {fd}> k; echo a >&$fd; /bin/echo b >&$fd; exec {fd}>&-", &[("k", "put echo", "a\nb\n")]),
        ],
    );
}
