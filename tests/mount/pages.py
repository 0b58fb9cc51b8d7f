"""What reads through the kernel's page cache while a key is rewritten: sendfile and private mappings, counted.

usage: pages.py READS READERS PLACE=DIR ...       copies go to $TMP; prints a JSON list of [place, writing, sizes, reading, reads, {how wrong: times}]
"""

import json
import mmap
import os
import random
import shutil
import signal
import sys
import time

from values import HEADER, Tally, origin_of, value

KEY = "plain"
SAME_BYTES = 1 << 20


def write_by(way, data):
    name = KEY if way == "rewrite" else ".temporary"
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    step = -(-len(data) // 8)
    for start in range(0, len(data), step):
        os.write(fd, data[start:start + step])
    os.close(fd)
    if way == "rename":
        os.rename(name, KEY)


def write_on(way, sizes):
    counter = 0
    while True:
        counter += 1
        size = SAME_BYTES if sizes == "same size" else random.randrange(HEADER.size, SAME_BYTES * 3 // 2)
        write_by(way, value(KEY, 0, counter, size))
        time.sleep(0.002)


def judge(data):
    if not data:
        return "empty"
    return None if origin_of(data) else "torn"


def by_sendfile(number):
    """As shutil.copyfile does it on Linux."""
    target = os.path.join(os.environ["TMP"], f"copy-{number}")
    try:
        shutil.copyfile(KEY, target)
        with open(target, "rb") as file:
            return judge(file.read())
    finally:
        os.unlink(target)


def by_mapping(_number):
    fd = os.open(KEY, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        if size == 0:
            return "empty"
        return judge(mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ)[:])
    finally:
        os.close(fd)


WRONG = ("empty", "torn", "error", "SIGBUS")


def in_child(read, number):
    """A read in a process of its own: a fault kills that alone."""
    pid = os.fork()
    if pid == 0:
        code = 1 + WRONG.index("error")
        try:
            kind = read(number)
            code = 1 + WRONG.index(kind) if kind else 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    code = os.WEXITSTATUS(status)
    return WRONG[code - 1] if code else None


def measure(way, sizes, read, reads, readers):
    """Readers at once, each with its part of the reads, while one process writes."""
    write_by("rewrite", value(KEY, 0, 0, SAME_BYTES))
    tally = Tally(WRONG, readers)
    writer = os.fork()
    if writer == 0:
        write_on(way, sizes)
    at_work = []
    for reader in range(readers):
        at_work.append(os.fork())
        if at_work[-1] == 0:
            tally.row = reader
            for _ in range(reads // readers):
                kind = in_child(read, reader)
                if kind:
                    tally.add(kind)
            os._exit(0)
    failed = any(os.waitpid(reader, 0)[1] for reader in at_work)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    if failed:
        sys.exit("a reader failed")
    return {kind: n for kind, n in tally.totals(WRONG).items() if n}


def main(reads, readers, places):
    rows = []
    for way in ("rewrite", "rename"):
        for sizes in ("same size", "sizes vary"):
            for reading, read in (("sendfile", by_sendfile), ("mapping", by_mapping)):
                for place, directory in places:
                    os.chdir(directory)
                    rows.append([place, way, sizes, reading, reads, measure(way, sizes, read, reads, readers)])
    print(json.dumps(rows))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [place.split("=", 1) for place in sys.argv[3:]])
