"""A writer of the kill loop: changes keys of its own and shared ones, until the mount is gone. It says each step before
it takes it, and "ok" once the system call that commits it has returned. Works in its session's directory, so that the
mount it began on is the only one it can reach."""
import os, random, sys

me, number, keys = sys.argv[1], int(sys.argv[2]), ('a', 'd/b')
random.seed(f'{sys.argv[3]} {me}')
sessions = ('../s', '../s1', '../s2')


def say(line):
    os.write(1, (line + '\n').encode())


def text(number, size):
    """Who wrote it, the number, the size, and bytes that tell both anywhere in it."""
    head = f'{me} {number} {size}\n'.encode()
    return (head + f'{me}.{number}/'.encode() * (size // 4 + 1))[:max(size, len(head))]


def step(what, path, size, take, *more):
    """Takes a step that the system call commits which `take` makes last."""
    global number
    number += 1
    say(' '.join([what, str(number), str(size), path[3:], *more]))
    after = take()
    say('ok')
    if after:
        after()


def write(path, flags, bytes, pieces, sync):
    def take():
        fd = os.open(path, flags | os.O_WRONLY | os.O_CREAT, 0o644)
        for n in range(pieces):
            os.write(fd, bytes[len(bytes) * n // pieces:len(bytes) * (n + 1) // pieces])
        if not sync:
            return os.close(fd)
        os.fsync(fd)
        return lambda: os.close(fd)
    return take


def put(path):
    size = random.choice((0, 20, 300, 3000, 3000, 30000) if random.random() < .95 else (70000, 200000))
    bytes = text(number + 1, size)
    step('put', path, size, write(path, os.O_TRUNC, bytes, random.randint(1, 3), random.random() < .3))


def append(path):
    size = random.choice((20, 100, 500))
    step('append', path, size, write(path, os.O_APPEND, text(number + 1, size), 1, random.random() < .3))


def move(path):
    put(path + '.tmp')
    step('move', path + '.tmp', 0, lambda: os.rename(path + '.tmp', path), path[3:])


def delete(path):
    if os.path.exists(path):
        step('delete', path, 0, lambda: os.unlink(path))


ways = [put] * 8 + [append] * 5 + [move] * 4 + [delete] * 2
try:
    while True:
        session, way = random.choice(sessions), random.choice(ways)
        shared = random.random() < .2 and way in (put, append)
        key = ('log' if random.random() < .7 else 'd/log') if way == append else random.choice(keys)
        way(f'{session}/{key}' if shared else f'{session}/{key}.{me}')
except OSError as e:
    say(f'failed {e.errno}')
