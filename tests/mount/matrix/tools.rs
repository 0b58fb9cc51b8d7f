//! C1 to C10 by what everyday programs do with files.

use super::case::{ANY, BASH, Case, MUCH, bytes, case, run};
use crate::harness::Mount;

const OLD: &[(&str, &str)] = &[("k", "old\n")];
const OLD_AND_J: &[(&str, &str)] = &[("k", "old\n"), ("j", "of j\n")];
#[track_caller]
fn all(cases: &[Case]) {
    let Some(mount) = Mount::new() else { return };
    let much = mount.scratch().join("much");
    std::fs::write(much, bytes(MUCH)).expect("a file outside");
    run(&mount, BASH, cases);
}

// C1
#[test]
fn copying_makes_one_version() {
    all(&[
        case(&[], "cp $TMP/much k", &[("k", "put cp", MUCH)]),
        case(OLD, "cp $TMP/much k", &[("k", "put cp", MUCH)]),
        case(OLD_AND_J, "cp j k", &[("k", "put cp", "of j\n")]),
        case(
            OLD,
            "echo new > $TMP/f; touch -d @1000000000 $TMP/f; cp -a $TMP/f k; [ $(stat -c %Y k) = 1000000000 ]",
            &[("k", "put cp", "new\n")],
        ),
        case(&[], "echo new > $TMP/f; cp -a $TMP/f k", &[("k", "put cp", "new\n")]),
        case(
            OLD,
            "echo new > $TMP/f; cp --remove-destination $TMP/f k",
            &[("k", "delete cp", ""), ("k", "put cp", "new\n")],
        ),
        case(&[], "echo new > $TMP/f; install -m 640 $TMP/f k", &[("k", "put install", "new\n")]),
        case(OLD, "echo new > $TMP/f; install $TMP/f k", &[("k", "delete install", ""), ("k", "put install", "new\n")]),
        case(OLD, "cat $TMP/much > k", &[("k", "put cat", MUCH)]),
        case(
            OLD,
            "mkdir -p $TMP/d/e; echo 1 > $TMP/d/1; echo 2 > $TMP/d/e/2; cp -r $TMP/d .",
            &[("d/1", "put cp", "1\n"), ("d/e/2", "put cp", "2\n")],
        ),
    ]);
}

// C1, C5, C9
#[test]
fn dd_makes_one_version_however_small_its_blocks_are() {
    all(&[
        case(OLD, "dd if=$TMP/much of=k bs=100000 status=none", &[("k", "put dd", MUCH)]),
        case(OLD, "echo by bytes | dd of=k bs=1 status=none", &[("k", "put dd", "by bytes\n")]),
        case(OLD, "printf LD | dd of=k bs=1 seek=1 conv=notrunc status=none", &[("k", "put dd", "oLD\n")]),
        case(OLD, "printf LD | dd of=k bs=2 seek=1 status=none", &[("k", "put dd", "olLD")]),
        case(OLD, "echo more | dd of=k oflag=append conv=notrunc status=none", &[("k", "append dd", "old\nmore\n")]),
        case(OLD, "echo more | dd bs=2 status=none > k", &[("k", "put dd", "more\n")]),
        case(OLD, "echo new | dd of=k conv=fsync status=none", &[("k", "put dd", "new\n")]),
        case(OLD, "echo new | dd of=k conv=fdatasync status=none", &[("k", "put dd", "new\n")]),
    ]);
}

// C10
#[test]
fn moving_is_one_version_of_the_destination() {
    all(&[
        case(OLD, "mv k j", &[("j", "rename mv", "old\n")]),
        case(OLD_AND_J, "mv j k", &[("k", "rename mv", "of j\n")]),
        case(&[], "echo new > $TMP/f; mv $TMP/f k", &[("k", "put mv", "new\n")]),
        case(OLD, "echo new > $TMP/f; mv $TMP/f k", &[("k", "delete mv", ""), ("k", "put mv", "new\n")]),
        case(OLD, "mv k $TMP/out; [ \"$(cat $TMP/out)\" = old ]", &[("k", "delete mv", "")]),
        case(OLD, "echo new > t; mv t k", &[("t", "put $", "new\n"), ("k", "rename mv", "new\n")]),
        case(OLD_AND_J, "mkdir d; mv k j d", &[("d/k", "rename mv", "old\n"), ("d/j", "rename mv", "of j\n")]),
    ]);
}

// C1, C10
#[test]
fn editing_in_place_makes_no_half_version() {
    all(&[
        case(OLD, "sed -i s/old/new/ k", &[("sed*", "put sed", "new\n"), ("k", "rename sed", "new\n")]),
        case(&[("k", "2\n1\n")], "sort -o k k", &[("k", "put sort", "1\n2\n")]),
        case(&[("k", "2\n1\n")], "sort k > j", &[("j", "put sort", "1\n2\n")]),
        case(OLD, "truncate -s 2 k", &[("k", "put truncate", "ol")]),
        case(OLD, "truncate -s 5 k", &[("k", "put truncate", "old\n\0")]),
        case(OLD, "truncate -s 0 k", &[("k", "put truncate", "")]),
        case(&[], "truncate -s 2 k", &[("k", "put truncate", "\0\0")]),
        case(OLD, "touch k", &[]),
        case(&[], "touch k", &[("k", "put touch", "")]),
        case(
            &[],
            "git config -f j a.b c",
            &[("j.lock", "put git", "[a]\n\tb = c\n"), ("j", "rename git", "[a]\n\tb = c\n")],
        ),
    ]);
}

// C1
#[test]
fn filters_make_one_version() {
    all(&[
        case(OLD, "echo '{\"a\": 1}' | jq -c . > k", &[("k", "put jq", "{\"a\":1}\n")]),
        case(OLD, "echo '{\"a\": 1}' > j; jq -c .a j > k", &[("j", "put $", "{\"a\": 1}\n"), ("k", "put jq", "1\n")]),
        case(OLD_AND_J, "diff k j > d || [ $? = 1 ]", &[("d", "put diff", "1c1\n< old\n---\n> of j\n")]),
        case(OLD, "gzip -c < $TMP/much > k; gzip -dc < k | cmp - $TMP/much", &[("k", "put gzip", ANY)]),
        case(OLD, "gzip -k k; gzip -dc k.gz | cmp - k", &[("k.gz", "put gzip", ANY)]),
        case(OLD, "tar -cf k -C $TMP much; tar -xOf k much | cmp - $TMP/much", &[("k", "put tar", ANY)]),
        case(OLD, "(cd $TMP && tar -cf - much) | tar -xf -", &[("much", "put tar", MUCH)]),
        case(
            &[("much", "old\n")],
            "(cd $TMP && tar -cf - much) | tar -xf -",
            &[("much", "delete tar", ""), ("much", "put tar", MUCH)],
        ),
        case(&[("much", "old\n")], "(cd $TMP && tar -cf - much) | tar --overwrite -xf -", &[("much", "put tar", MUCH)]),
        case(
            &[],
            "seq 20 | split -l 10 - x; cat xaa xab > k; rm xaa xab; seq 20 | cmp - k; rm k",
            &[
                ("xaa", "put split", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n"),
                ("xaa", "delete rm", ""),
                ("xab", "put split", "11\n12\n13\n14\n15\n16\n17\n18\n19\n20\n"),
                ("xab", "delete rm", ""),
                ("k", "put cat", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n15\n16\n17\n18\n19\n20\n"),
                ("k", "delete rm", ""),
            ],
        ),
    ]);
}

// C1
#[test]
fn programs_that_start_programs_make_a_version_each() {
    const FOUR: &[(&str, &str, &str)] =
        &[("1", "put bash", "1\n"), ("2", "put bash", "2\n"), ("3", "put bash", "3\n"), ("4", "put bash", "4\n")];
    all(&[
        case(&[], "seq 4 | xargs -P 4 -I N bash -c 'sleep 0.02; echo N > N'", FOUR),
        case(
            &[],
            "printf '%%:; sleep 0.02; echo $@ > $@\\n' > $TMP/Makefile; make -sj4 -f $TMP/Makefile SHELL=/bin/bash 1 2 3 4",
            FOUR,
        ),
        case(
            &[],
            "printf 'k:; { /bin/echo a; sleep 0.05; echo b; } > $@\\n' > $TMP/Makefile; make -s -f $TMP/Makefile SHELL=/bin/bash k",
            &[("k", "put bash", "a\nb\n")],
        ),
        case(
            &[],
            "printf '.DELETE_ON_ERROR:\\nk:; echo half > $@; false\\n' > $TMP/Makefile; ! make -s -f $TMP/Makefile SHELL=/bin/bash k 2> /dev/null",
            &[("k", "put bash", "half\n"), ("k", "delete make", "")],
        ),
        case(
            OLD_AND_J,
            "find k j -exec bash -c 'echo {} > {}' \\;",
            &[("k", "put bash", "k\n"), ("j", "put bash", "j\n")],
        ),
    ]);
}
