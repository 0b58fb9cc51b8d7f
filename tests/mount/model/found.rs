//! What random steps have found, played again at every run: each is a case that the mount once did not meet.

use super::steps::{Flags, Op};

const fn flags(reads: bool, writes: bool, create: bool) -> Flags {
    Flags { reads, writes, create, exclusive: false, truncate: false, append: false }
}

const MAKE_FOR_READING: Flags = flags(true, false, true);
const MAKE: Flags = flags(false, true, true);
const WRITE: Flags = flags(false, true, false);
const LOG: Flags = Flags { append: true, ..MAKE };
const READ: Flags = flags(true, false, false);
const UPDATE: Flags = flags(true, true, false);

/// Name, processes at the start, and what they do. The key 0 is there, of ten bytes; 1 and 2 are not.
pub(super) const CASES: &[(&str, usize, &[Op])] = &[
    // C8: it resolves for those that hold it.
    ("who inherits a descriptor sees the name", 1, &[Op::Open(0, 1, MAKE_FOR_READING), Op::Fork(0), Op::Stat(1, 1)]),
    // C1: the parent's exit is not the child's close.
    (
        "a second handle of who exits explains no descriptor of its child",
        1,
        &[
            Op::Open(0, 1, MAKE),
            Op::Write(0, 4, None),
            Op::Fork(0),
            Op::Open(0, 1, UPDATE),
            Op::Exit(0),
            Op::Stat(0, 1),
        ],
    ),
    // C1: at a death some handles go and some stay.
    (
        "handles that a killed process takes along explain no descriptor of its parent",
        1,
        &[
            Op::Open(0, 1, MAKE),
            Op::Open(0, 1, WRITE),
            Op::Fork(0),
            Op::Close(57),
            Op::Open(1, 1, WRITE),
            Op::Dup(0),
            Op::Write(0, 1, None),
            Op::Close(0),
            Op::Kill(1),
            Op::Open(0, 1, READ),
            Op::Close(0),
            Op::Write(0, 1, None),
        ],
    ),
    // C11, C13
    ("what is unlinked keeps its size", 1, &[Op::Open(0, 0, UPDATE), Op::Unlink(0, 0), Op::Fstat(0)]),
    // C13
    (
        "a handle that has written nothing to what is unlinked has the size of what was there",
        1,
        &[
            Op::Open(0, 1, MAKE_FOR_READING),
            Op::Sync(0),
            Op::Open(0, 1, WRITE),
            Op::Write(1, 1, None),
            Op::Unlink(0, 1),
            Op::Seek(0, None),
        ],
    ),
    // C10, C6
    (
        "a dropped draft takes nothing from readers of the value it would have replaced",
        2,
        &[
            Op::Open(0, 1, MAKE),
            Op::Rename(0, 1, 0, true),
            Op::Open(1, 0, READ),
            Op::Kill(0),
            Op::Start,
            Op::List(0),
            Op::Stat(0, 0),
            Op::Stat(1, 2),
            Op::Read(0, 20, None),
        ],
    ),
    // C10, C7
    (
        "what was appended to a name of its own replaces what the name is moved onto",
        1,
        &[Op::Open(0, 2, LOG), Op::Write(0, 3, None), Op::Rename(0, 2, 0, true), Op::Stat(0, 0), Op::Close(0)],
    ),
    // C12
    (
        "a reader follows what was appended before the name went",
        1,
        &[
            Op::Open(0, 0, READ),
            Op::Read(0, 1, Some(5)),
            Op::Open(0, 0, LOG),
            Op::Write(1, 3, None),
            Op::Sync(1),
            Op::Unlink(0, 0),
            Op::Read(0, 20, None),
        ],
    ),
    // C13, C11
    (
        "who has only made a name that is unlinked has none of what another writes to it",
        2,
        &[
            Op::Open(0, 1, MAKE_FOR_READING),
            Op::Open(1, 1, MAKE),
            Op::Write(1, 1, None),
            Op::Unlink(0, 1),
            Op::Seek(0, None),
        ],
    ),
    // C10, C8
    (
        "who has only made a name that another has made for appending gives way at a rename",
        3,
        &[
            Op::Open(2, 0, MAKE_FOR_READING),
            Op::Open(1, 1, Flags { append: true, ..MAKE_FOR_READING }),
            Op::Open(2, 1, MAKE_FOR_READING),
            Op::Rename(1, 1, 0, true),
            Op::Exit(1),
            Op::Exit(2),
        ],
    ),
    // C7, C11
    (
        "what is appended to what is unlinked goes after what another has put into the name that was truncated empty",
        2,
        &[
            Op::Open(1, 1, MAKE_FOR_READING),
            Op::Open(1, 1, Flags { truncate: true, append: true, ..UPDATE }),
            Op::Open(1, 1, WRITE),
            Op::Write(2, 1, None),
            Op::Sync(2),
            Op::Unlink(0, 1),
            Op::Write(1, 1, Some(0)),
            Op::Read(1, 1, None),
            Op::Read(1, 2, Some(0)),
        ],
    ),
    // C6, C9
    (
        "a name whose first draft was dropped with a killed process is truncated by who holds it still",
        1,
        &[
            Op::Open(0, 1, MAKE_FOR_READING),
            Op::Open(0, 1, WRITE),
            Op::Fork(0),
            Op::Kill(1),
            Op::Truncate(0, 1, 0),
            Op::Open(0, 1, Flags { truncate: true, ..READ }),
        ],
    ),
    ("and so does nothing at all", 1, &[Op::Open(0, 2, LOG), Op::Rename(0, 2, 0, true), Op::Stat(0, 0), Op::Close(0)]),
];
