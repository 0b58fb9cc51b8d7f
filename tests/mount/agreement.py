"""One of many writers: changes random keys of the session it works in, as often as it is told, and again when the mount
comes back. Every line it writes begins with its name and a number."""
import os, random, sys, time

me, steps, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
random.seed(f'{seed} {me}')
here = os.environ['HERE']
keys = [f'{here}/{name}' for name in ('a', 'b', 'c', 'd/a', 'd/b', 'd/e/a') for name in (name, name + '.json', name + '-2')]


def write(path, flags, number):
    with os.fdopen(os.open(path, flags | os.O_WRONLY | os.O_CREAT, 0o644), 'w') as f:
        f.write(f'{me} {number} {"x" * random.choice((0, 10, 500, 5000, 5000, 80000 if random.random() < .05 else 50))}\n')


def make(path):
    try:
        os.mkdir(path)
    except FileExistsError:
        pass


def step(number):
    what, path = random.random(), random.choice(keys)
    if what < .45:
        write(path, os.O_TRUNC, number)
    elif what < .70:
        write(path, os.O_APPEND, number)
    elif what < .85:
        write(path + f'.{me}.tmp', os.O_TRUNC, number)
        os.rename(path + f'.{me}.tmp', path)
    elif what < .93:
        os.rename(path, random.choice(keys))
    else:
        os.unlink(path)


done = 0
while done < steps:
    try:
        for path in f'{here}/d', f'{here}/d/e':
            if not os.path.isdir(path):
                make(path)
        step(done)
        done += 1
    except OSError as e:
        if os.path.isdir(here) and isinstance(e, FileNotFoundError):
            # Another has renamed or removed it.
            done += 1
        else:
            # The mount is gone for a moment.
            time.sleep(.02)
print('done', flush=True)
