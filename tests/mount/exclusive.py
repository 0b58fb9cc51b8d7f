"""Races of processes for one name, for tests: who makes it first has it.

usage: exclusive.py ROUNDS fresh | WAY        in the directory where the names are made

`fresh`: every round all race for a new name `race-N`; prints a line a round: the number and pid of the winner.
WAY (create, noclobber, mkdir, rename): one name again and again, as a lock: its winner works alone and removes it. Prints how
often it was had, and how often somebody else had it too.
"""

import ctypes
import errno
import mmap
import multiprocessing
import os
import subprocess
import sys

PROCESSES = 8
RENAME_NOREPLACE = 1
libc = ctypes.CDLL(None, use_errno=True)


def create(name, number):
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(fd, b"%d" % number)
    os.close(fd)


def noclobber(name, number):
    script = f"set -C; echo {number} > {name}"
    if subprocess.run(["dash", "-c", script], stderr=subprocess.DEVNULL, check=False).returncode:
        raise FileExistsError(errno.EEXIST, "the shell was refused")


def rename(name, number):
    own = f"own-{number}"
    with open(own, "w", encoding="ascii") as file:
        file.write(str(number))
    if libc.renameat2(-100, own.encode(), -100, name.encode(), RENAME_NOREPLACE):
        raise OSError(ctypes.get_errno(), "renameat2")


def mkdir(name, _number):
    os.mkdir(name)


WAYS = {"create": create, "noclobber": noclobber, "mkdir": mkdir, "rename": rename}


def wins(way, name, number):
    try:
        way(name, number)
    except FileExistsError:
        return False
    return True


def race(number, rounds, barrier):
    won = []
    for n in range(rounds):
        barrier.wait()
        if wins(create, f"race-{n}", number):
            won.append(n)
    for n in won:
        os.write(1, b"%d %d %d\n" % (n, number, os.getpid()))


def lock(number, rounds, way, had):
    """`had`: how often it was had, how many have it now, how often it was not ours alone."""
    name = "lock"
    while had[0] < rounds:
        if not wins(way, name, number):
            # A reader finds a lock whole or not at all.
            if way is create or way is rename:
                try:
                    with open(name, encoding="ascii") as file:
                        had[2] += not file.read().isdecimal()
                except FileNotFoundError:
                    pass
            continue
        had[1] += 1
        alone = had[1] == 1
        if way is not mkdir:
            with open(name, encoding="ascii") as file:
                alone = alone and int(file.read()) == number
        had[2] += not alone
        had[0] += 1
        had[1] -= 1
        os.rmdir(name) if way is mkdir else os.unlink(name)


def main(rounds, what):
    context = multiprocessing.get_context("fork")
    had = memoryview(mmap.mmap(-1, 24)).cast("Q")
    if what == "fresh":
        work, arguments = race, (rounds, context.Barrier(PROCESSES))
    else:
        work, arguments = lock, (rounds, WAYS[what], had)
    racers = [context.Process(target=work, args=(number, *arguments)) for number in range(PROCESSES)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    if what != "fresh":
        print(had[0], had[2])
    sys.exit(any(racer.exitcode for racer in racers))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
