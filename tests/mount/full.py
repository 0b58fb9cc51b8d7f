"""Fills the disk: values of its own keys, larger ones first, until not even a small one is taken. Says of each whether
it was taken, and what refused it. Works in its session."""
import os, sys

me, sizes = sys.argv[1], [int(size) for size in sys.argv[2:]]


def put(key, bytes, sync):
    doing = 'open'
    fd = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for at in range(0, len(bytes), 65536):
            doing = 'write'
            os.write(fd, bytes[at:at + 65536])
        if sync:
            doing = 'fsync'
            os.fsync(fd)
        doing, fd, closing = 'close', -1, fd
        os.close(closing)
        return 'taken'
    except OSError as e:
        if fd >= 0:
            try:
                os.close(fd)
            except OSError:
                pass
        return f'{doing} {os.strerror(e.errno)}'


number = name = 0
for size in sizes:
    refused = 0
    while refused < 3 and number < 3000:
        number += 1
        key = f'{me}.{name}'
        bytes = (f'{me} {number} {size}\n' * (size // 8 + 1)).encode()[:size]
        try:
            outcome = put(key, bytes, number % 3 == 0)
        except OSError as e:
            outcome = f'open {os.strerror(e.errno)}'
        refused += outcome != 'taken'
        # Every other one replaces what is there.
        name += outcome != 'taken' or number % 2
        print(key, number, size, outcome, flush=True)
