"""A counter in a key, incremented by many processes, for tests.

usage: locked.py WAY N        in the directory of the counter `k`

Each process increments N times; WAY says under which lock and how (WAYS below). Prints how many increments the processes were
told had succeeded; an EBUSY is none. `together` lets all read before any writes; `no lock` prints first, a line a process,
its pid and the values it has written.
"""

import contextlib
import errno
import fcntl
import mmap
import multiprocessing
import os
import subprocess
import sys

PROCESSES = 8
BARRIER = multiprocessing.get_context("fork").Barrier(PROCESSES)
KEY, BESIDE = "k", "k.lock"


def edit(file):
    """In place, through one handle: what it read is what it changes."""
    count = int(file.read())
    file.seek(0)
    file.write(b"%d\n" % (count + 1))
    return count + 1


def edit_opened():
    with open(KEY, "r+b") as file:
        return edit(file)


def count():
    with open(KEY, "rb") as file:
        return int(file.read())


def rewrite():
    number = count()
    with open(KEY, "wb") as file:
        file.write(b"%d\n" % (number + 1))


def rename():
    temporary = f"tmp-{os.getpid()}"
    number = count()
    with open(temporary, "wb") as file:
        file.write(b"%d\n" % (number + 1))
    os.rename(temporary, KEY)


@contextlib.contextmanager
def locked(name, lock):
    """Unlocked by close."""
    with open(name, "ab") as file:
        lock(file, fcntl.LOCK_EX)
        yield


def own_handle(lock):
    with open(KEY, "r+b") as file:
        lock(file, fcntl.LOCK_EX)
        edit(file)


def created_before():
    """All have made the key before anyone writes."""
    with open(os.open(KEY, os.O_RDWR | os.O_CREAT), "r+b") as file:
        BARRIER.wait()
        fcntl.flock(file, fcntl.LOCK_EX)
        number = int(file.read() or 0)
        file.seek(0)
        file.write(b"%d\n" % (number + 1))


def opened_before():
    with open(KEY, "r+b") as file, locked(KEY, fcntl.flock):
        edit(file)
        file.close()


def unlocked_early(synced):
    """Unlocked by LOCK_UN, with the close still to come."""
    with open(KEY, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        edit(file)
        file.flush()
        if synced:
            os.fsync(file.fileno())
        fcntl.flock(file, fcntl.LOCK_UN)


def under(name, lock, update):
    with locked(name, lock):
        update()


def shell(lock, script):
    subprocess.run(["flock", lock, "dash", "-c", script], check=True)


NEXT = "n=$(cat k); n=$((n+1));"
WAYS = {
    "own handle, flock": lambda: own_handle(fcntl.flock),
    "own handle, lockf": lambda: own_handle(fcntl.lockf),
    "created before the lock": created_before,
    "opened before the lock": opened_before,
    "flock on the key, edit": lambda: under(KEY, fcntl.flock, edit_opened),
    "flock on the key, rewrite": lambda: under(KEY, fcntl.flock, rewrite),
    "flock beside, edit": lambda: under(BESIDE, fcntl.flock, edit_opened),
    "flock beside, rewrite": lambda: under(BESIDE, fcntl.flock, rewrite),
    "flock beside, rename": lambda: under(BESIDE, fcntl.flock, rename),
    "lockf beside, rewrite": lambda: under(BESIDE, fcntl.lockf, rewrite),
    "lockf beside, rename": lambda: under(BESIDE, fcntl.lockf, rename),
    "shell, rewrite": lambda: shell("k", NEXT + "echo $n > k"),
    "shell, edit": lambda: shell("k", NEXT + "echo $n 1<> k"),
    "shell, rename": lambda: shell("k.lock", NEXT + "echo $n > tmp-$$; mv tmp-$$ k"),
    "unlocked early, synced": lambda: unlocked_early(True),
    "unlocked early": lambda: unlocked_early(False),
    "no lock": edit_opened,
}


def together(barrier):
    barrier.wait()
    file = os.open(KEY, os.O_RDWR)
    number = int(os.pread(file, 20, 0))
    barrier.wait()
    try:
        os.pwrite(file, b"%d\n" % (number + 1), 0)
    finally:
        os.close(file)


def work(way, number, n, barrier, succeeded):
    written = []
    for _ in range(n):
        try:
            written.append(together(barrier) if way == "together" else WAYS[way]())
            succeeded[number] += 1
        except OSError as e:
            if e.errno != errno.EBUSY:
                raise
    if way == "no lock":
        os.write(1, f"{os.getpid()} {written}\n".encode())


def main(way, n):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(PROCESSES)
    succeeded = memoryview(mmap.mmap(-1, 8 * PROCESSES)).cast("Q")
    workers = [context.Process(target=work, args=(way, i, n, barrier, succeeded)) for i in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(sum(succeeded))
    sys.exit(any(worker.exitcode for worker in workers))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
