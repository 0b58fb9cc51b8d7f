"""Values that say their own length, writer and checksum, written and read by many processes at once on a few keys.
Counts what readers saw that no commit made. Knows a directory and nothing of what is behind it.

usage: values.py DIR SCRATCH SECONDS [ENOUGH]

Prints a JSON object: what was done, what was seen, and how often it was wrong, by kind. Ends when the seconds are over and
every kind of writing and seeing has happened; with ENOUGH, as soon as that many observations were wrong. SCRATCH is a
directory outside, for copies.
"""

import errno
import json
import mmap
import os
import random
import struct
import subprocess
import sys
import time
import zlib

# Magic, key, writer, counter, bytes in all, checksum of this (with 0 for itself) and the body.
HEADER = struct.Struct("<8sIIQQI")
MAGIC = b"VALUE-1\n"
MAX_BYTES = 2 << 20
PATTERN = random.Random(7).randbytes(MAX_BYTES + (1 << 16))
PROCESSES = 8

# No key but the one that is emptied on purpose is ever empty; none but the one that is unlinked ever goes away.
KEYS = ("plain", "replaced", "emptied", "unlinked")
# Cuts between two writes fall on no size of this ladder, so that no partial value has the size of a whole one.
LADDER = (HEADER.size, 60, 1_000, 4_090, 20_000, 131_072, 700_000, MAX_BYTES - len(KEYS))
OFTEN = (4, 6, 8, 8, 6, 4, 2, 1)
UNCOMMITTED = ".held-"
COMMITTED = ".temporary-"

WRITES = ("rewrite", "rename", "rename held", "edit", "shell", "emptied", "unlinked")
SEEN = ("read", "pread", "copy", "stat", "list")
WRONG = ("torn", "empty", "mixed", "older", "size", "missing", "listed", "vanished", "error")


def size_of(key, step):
    """Sizes differ from key to key: the size of another key's value is wrong."""
    return LADDER[step] + KEYS.index(key)


def is_size_of(key, size):
    return size - KEYS.index(key) in LADDER or (size == 0 and key == "emptied")


def value(key, writer, counter, size):
    start = (writer * 7919 + counter * 104_729) % (1 << 16)
    body = PATTERN[start:start + size - HEADER.size]
    fields = (MAGIC, KEYS.index(key), writer, counter, size)
    checksum = zlib.crc32(body, zlib.crc32(HEADER.pack(*fields, 0)))
    return HEADER.pack(*fields, checksum) + body


def origin_of(data):
    """Key, writer and counter of a whole value; None of anything else."""
    if len(data) < HEADER.size:
        return None
    *fields, checksum = HEADER.unpack_from(data)
    magic, index, writer, counter, size = fields
    body = memoryview(data)[HEADER.size:]
    if magic != MAGIC or size != len(data) or zlib.crc32(body, zlib.crc32(HEADER.pack(*fields, 0))) != checksum:
        return None
    return index, writer, counter


def judge(key, data):
    """What is wrong with it (or None), and who wrote it when."""
    if not data:
        return (None if key == "emptied" else "empty"), None
    origin = origin_of(data)
    if not origin or origin[0] != KEYS.index(key) or not is_size_of(key, len(data)):
        return "torn", None
    return None, origin[1:]


class Tally:
    """Counters in memory that all processes share, a row for each."""

    def __init__(self, names, rows):
        self.names, self.rows = names, rows
        self.memory = mmap.mmap(-1, 8 * (1 + len(names) * rows))
        self.cells = memoryview(self.memory).cast("Q")
        self.row = 0

    def add(self, name, n=1):
        self.cells[1 + self.row * len(self.names) + self.names.index(name)] += n

    def total(self, name):
        return sum(self.cells[1 + row * len(self.names) + self.names.index(name)] for row in range(self.rows))

    def totals(self, names):
        return {name: self.total(name) for name in names}

    def over(self):
        return self.cells[0] != 0

    def end(self):
        self.cells[0] = 1


class Actor:
    """One process: what it does is decided by its own random numbers."""

    def __init__(self, tally, number, scratch):
        self.tally, self.number, self.scratch = tally, number, scratch
        tally.row = number
        self.random = random.Random(number)
        self.newest = {}
        self.shown = 0

    def wrong(self, kind, what):
        self.tally.add(kind)
        self.shown += 1
        if self.shown <= 3:
            print(f"{kind}: {what}", file=sys.stderr, flush=True)

    def pause(self):
        if self.random.random() < 0.3:
            time.sleep(self.random.random() * 0.002)

    def run(self, actions):
        while not self.tally.over():
            key = self.random.choice(KEYS)
            action = self.random.choice(actions)
            try:
                action(self, key)
            except FileNotFoundError as e:
                if key != "unlinked":
                    self.wrong("missing", f"{action.__name__} {key}: {e}")
            except OSError as e:
                self.wrong("error", f"{action.__name__} {key}: {e}")

    def judge(self, key, data, how):
        """Judges a whole value read after an open: also that it is no older than one of the same writer seen before."""
        kind, origin = judge(key, data)
        if kind:
            self.wrong(kind, f"{how} {key}: {len(data)} bytes, {bytes(data[:HEADER.size])!r}")
        if origin:
            writer, counter = origin
            if counter < self.newest.get((key, writer), 0):
                self.wrong("older", f"{how} {key}: {counter} of {writer} after {self.newest[key, writer]}")
            self.newest[key, writer] = counter


# --- writing ---


def fresh(actor, key):
    actor.counter = getattr(actor, "counter", 0) + 1
    step = actor.random.choices(range(len(LADDER)), OFTEN)[0]
    return value(key, actor.number, actor.counter, size_of(key, step))


def put(actor, fd, data, key):
    """Writes in several pieces, with time between them for a reader to look."""
    cuts = {actor.random.randrange(1, len(data)) for _ in range(actor.random.randrange(4))}
    cuts = sorted(cut for cut in cuts if not is_size_of(key, cut))
    for start, end in zip([0, *cuts], [*cuts, len(data)]):
        while start < end:
            start += os.pwrite(fd, data[start:end], start)
        actor.pause()


def rewrite(actor, key):
    data = fresh(actor, key)
    fd = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    put(actor, fd, data, key)
    os.close(fd)
    actor.tally.add("rewrite")


def rename(actor, key):
    data = fresh(actor, key)
    temporary = f"{COMMITTED}{actor.number}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    put(actor, fd, data, key)
    os.close(fd)
    os.rename(temporary, key)
    actor.tally.add("rename")


def rename_held(actor, key):
    """Renamed before it is closed: the temporary name never had a value."""
    data = fresh(actor, key)
    temporary = f"{UNCOMMITTED}{actor.number}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.pwrite(fd, data[:HEADER.size], 0)
    actor.pause()
    os.rename(temporary, key)
    put(actor, fd, data, key)
    os.close(fd)
    actor.tally.add("rename held")


def edit(actor, key):
    data = fresh(actor, key)
    fd = os.open(key, os.O_RDWR)
    put(actor, fd, data, key)
    os.ftruncate(fd, len(data))
    actor.pause()
    os.close(fd)
    actor.tally.add("edit")


def shell(actor, key):
    if actor.random.random() < 0.9:
        return
    # Two processes and a builtin in turn, on one description.
    script = f"{{ head -c {HEADER.size}; cat; : ; }} > {key}"
    data = fresh(actor, key)
    if subprocess.run(["dash", "-c", script], input=data, check=False).returncode:
        actor.wrong("error", f"the shell failed on {key}")
    actor.tally.add("shell")


def empty_or_unlink(actor, key):
    key = actor.random.choice(("emptied", "unlinked"))
    if key == "emptied":
        os.close(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    else:
        try:
            os.unlink(key)
        except FileNotFoundError:
            pass
        rewrite(actor, key)
    actor.tally.add(key)


# --- reading ---


def read(actor, key):
    pieces = []
    fd = os.open(key, os.O_RDONLY)
    while piece := os.read(fd, actor.random.choice((512, 8192, 131_072, MAX_BYTES))):
        pieces.append(piece)
        actor.pause()
    os.close(fd)
    actor.judge(key, b"".join(pieces), "read")
    actor.tally.add("read")


def pread(actor, key):
    """Some pieces anywhere, then the whole, all of one handle: they are one version's."""
    fd = os.open(key, os.O_RDONLY)
    pieces = []
    for _ in range(4):
        offset = actor.random.choice((0, HEADER.size, 4000, 70_000, actor.random.randrange(MAX_BYTES)))
        pieces.append((offset, os.pread(fd, 5000, offset)))
        actor.pause()
    whole = b""
    while more := os.pread(fd, 300_000, len(whole)):
        whole += more
    size = os.fstat(fd).st_size
    os.close(fd)
    actor.judge(key, whole, "pread")
    if any(whole[offset:offset + 5000] != piece for offset, piece in pieces):
        actor.wrong("mixed", f"the pieces of {key} are not of its {len(whole)} bytes")
    if not is_size_of(key, size):
        actor.wrong("size", f"fstat of {key}: {size}")
    actor.tally.add("pread")


def copy(actor, key):
    if actor.random.random() < 0.9:
        return
    target = os.path.join(actor.scratch, f"copy-{actor.number}")
    ran = subprocess.run(["cp", key, target], stderr=subprocess.PIPE, text=True, check=False)
    if "was replaced while being copied" in ran.stderr:
        # cp compares inode numbers itself, and copies nothing then: on any filesystem.
        return
    if ran.returncode:
        raise OSError(errno.ENOENT if "No such file" in ran.stderr else errno.EIO, ran.stderr)
    with open(target, "rb") as file:
        actor.judge(key, file.read(), "cp")
    actor.tally.add("copy")


def stat(actor, key):
    size = os.stat(key).st_size
    if not is_size_of(key, size):
        actor.wrong("size", f"stat of {key}: {size}")
    actor.pause()
    with open(key, "rb") as file:
        actor.judge(key, file.read(), "open and read")
    actor.tally.add("stat")


def list_names(actor, _key):
    names = os.listdir(".")
    for name in names:
        if name not in KEYS and not name.startswith(COMMITTED):
            actor.wrong("listed", name)
    for key in KEYS:
        if key != "unlinked" and key not in names:
            actor.wrong("vanished", f"{key} is not among {names}")
    actor.tally.add("list")


# After a close, a writer sees its own value, or a later one.
WRITING = (rewrite, rename, rename_held, edit, shell, empty_or_unlink, read)
READING = (read, pread, copy, stat, list_names)


def start(tally, number, scratch):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            Actor(tally, number, scratch).run(WRITING if number < PROCESSES else READING)
            status = 0
        finally:
            sys.excepthook(*sys.exc_info()) if status else None
            os._exit(status)
    return pid


def main(directory, scratch, seconds, enough=0):
    os.chdir(directory)
    for key in KEYS:
        with open(key, "wb") as file:
            file.write(value(key, 0, 0, size_of(key, 3)))
    tally = Tally(WRITES + SEEN + WRONG, 2 * PROCESSES)
    children = [start(tally, number, scratch) for number in range(2 * PROCESSES)]
    began = time.monotonic()
    while True:
        time.sleep(0.05)
        if enough and sum(tally.totals(WRONG).values()) >= enough:
            break
        done = all(tally.totals(WRITES + SEEN).values())
        if not enough and done and time.monotonic() - began >= seconds:
            break
    tally.end()
    failed = [status for _, status in (os.waitpid(pid, 0) for pid in children) if status]
    wrong = {kind: n for kind, n in tally.totals(WRONG).items() if n}
    print(json.dumps({"written": tally.totals(WRITES), "seen": tally.totals(SEEN), "wrong": wrong}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), *map(int, sys.argv[4:]))
