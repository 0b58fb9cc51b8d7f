"""The load of the soak: one process in one role, until $TMP/stop is there. Works in its session; checks what it can."""
import contextlib, errno, fcntl, json, mmap, os, random, shutil, signal, subprocess, sys, time

role, number, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
random.seed(number)
stop = os.environ['TMP'] + '/stop'
rounds = 0


def going():
    global rounds
    rounds += 1
    return not os.path.exists(stop)


def put(path, text, mode='w'):
    with open(path, mode) as f:
        f.write(text)


def get(path):
    with open(path) as f:
        return f.read()


def may(*errnos):
    """What another process does at the same time may be in the way, in these ways alone."""
    @contextlib.contextmanager
    def context():
        try:
            yield
        except OSError as e:
            if e.errno not in errnos:
                raise
    return context()


def rewrites():
    os.makedirs(f'r{number}', exist_ok=True)
    while going():
        key = f'r{number}/{random.randrange(50)}'
        value = random.choice('abc') * random.choice((1, 100, 5000, 70000))
        if random.random() < 0.3:
            put(key + '.tmp', value)
            os.replace(key + '.tmp', key)
        else:
            put(key, value)
        assert get(key) == value, key


def one_handle():
    """Rewrites through one handle: each is ended by an fsync or by the close of a duplicate."""
    fd = os.open(f'held{number}', os.O_RDWR | os.O_CREAT)
    while going():
        os.pwrite(fd, b'%020d' % rounds, 0)
        if rounds % 100 == 0:
            os.ftruncate(fd, 20)
        if rounds % 2:
            os.fsync(fd)
        else:
            os.close(os.dup(fd))
    os.close(fd)


def rewrites_alone():
    global rounds
    fd = os.open('alone', os.O_RDWR | os.O_CREAT)
    for rounds in range(1, size + 1):
        os.pwrite(fd, b'%020d' % rounds, 0)
        if rounds % 2:
            os.fsync(fd)
        else:
            os.close(os.dup(fd))
    os.close(fd)
    assert get('alone') == '%020d' % size


def fill():
    for n in range(size):
        if n % 100 == 0:
            os.makedirs(f'keys/{n // 100}')
        put(f'keys/{n // 100}/{n}', str(n))


def many_keys():
    while going():
        n = random.randrange(size)
        put(f'keys/{n // 100}/{n}', str(n))


def walks():
    while going():
        for dir, dirs, names in os.walk('.'):
            for name in names:
                with may(errno.ENOENT):
                    os.stat(os.path.join(dir, name))
            if not going():
                break


def appends():
    held = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while going():
        os.write(held, b'held %d %d\n' % (number, rounds))
        put('log', f'opened {number} {rounds}\n', 'a')
        if rounds % 50 == 0:
            os.close(held)
            if os.stat('log').st_size > 1 << 20:
                with may(errno.ENOENT):
                    os.rename('log', 'log.1')
            held = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.close(held)


def names():
    top = f'n{number}'
    while going():
        os.makedirs(f'{top}/a/b')
        for n in range(5):
            put(f'{top}/a/b/{n}', 'x')
        os.rename(f'{top}/a/b/0', f'{top}/moved')
        os.unlink(f'{top}/moved')
        with open(f'{top}/unlinked', 'w') as f:
            f.write('never committed')
            os.unlink(f'{top}/unlinked')
        with open(f'{top}/first', 'w') as f:
            f.write('x')
            os.rename(f'{top}/first', f'{top}/second')
        if rounds % 10 == 0:
            os.rename(f'{top}/a', f'{top}/c')
        shutil.rmtree(top)


def big():
    block = os.urandom(1 << 20)
    while going():
        with open(f'big{number}', 'wb') as f:
            for _ in range(4):
                f.write(block)
        os.truncate(f'big{number}', 3 << 20)
        with open(f'big{number}', 'rb') as f:
            assert f.read() == block * 3
        shutil.copyfile(f'big{number}', f'big{number}.copy')
        time.sleep(0.2)


def locks():
    while going():
        with open('lock', 'a+') as f:
            (fcntl.flock if rounds % 2 else fcntl.lockf)(f, fcntl.LOCK_EX)
            f.seek(0)
            before = f.read()
            f.truncate(0)
            f.write(str(int(before or 0) + 1)[-9:])
            f.flush()
            os.fsync(f.fileno())


def readers():
    with may(errno.EEXIST), open('read', 'x') as f:
        f.write('read\n' * 1000)
    while going():
        held = []
        for _ in range(30):
            f = open('read', 'rb')
            f.read(random.choice((0, 1, 10000)))
            held.append(f)
        put('read', 'read\n' * random.choice((1000, 1001)))
        for f in held:
            f.seek(0)
            assert set(f.read().split()) <= {b'read'}
        with may(errno.EINVAL), open('read', 'rb') as f, open(os.environ['TMP'] + f'/sent{number}', 'wb') as to:
            os.sendfile(to.fileno(), f.fileno(), 0, 5000)
            mmap.mmap(f.fileno(), 5, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ).close()
        for f in held:
            f.close()


def killed():
    """Writers that die in the middle of a draft, of an append, of a rename, holding a file that others hold too."""
    put(f'half{number}', 'whole')
    while going():
        child = os.fork()
        if child == 0:
            f = open(f'half{number}', 'w')
            f.write('half')
            f.flush()
            open(f'new{number}', 'w').write('x')
            os.write(os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT), b'killed\n')
            if rounds % 3 == 0:
                os.fork()
            os.kill(os.getpid(), signal.SIGKILL)
            os._exit(0)
        os.waitpid(child, 0)
        assert get(f'half{number}') == 'whole'
        time.sleep(0.02)


def policies():
    """Two writers under `error`: the second is refused, and its words are kept."""
    script = 'echo x > contested || exit 0'
    while going():
        for writer in 'one', 'two':
            env = {**os.environ, 'BATON_WRITER_ID': writer, 'BATON_CONFLICT_POLICY': 'error'}
            subprocess.run(['sh', '-c', script], env=env, stderr=subprocess.DEVNULL, check=True)


def handoffs():
    while going():
        put('__handoff.json', json.dumps({'round': rounds}))
        assert json.loads(get('__handoff.json'))['summary'] is not None
        with may(errno.EINVAL):
            put('__handoff.json', 'not an object')


def controls():
    while going():
        for name in '../.baton/status', '.baton/handle', '.baton/errors', '.baton/policy':
            get(name)
        os.listdir('.baton')
        for name in 'user.baton.version', 'user.baton.writer_id':
            with may(errno.ENOENT, errno.ENODATA):
                os.getxattr('read', name)
        put('.baton/policy', 'ignore')
        with may(errno.ENOENT):
            os.stat(f'nothing{rounds}')


def sessions():
    """Sessions that come and go, each with a refusal of its own."""
    while going():
        session = f'../of-{number}-{rounds}'
        os.makedirs(session + '/dir')
        for n in range(3):
            put(f'{session}/dir/{n}', 'x')
        with may(errno.EINVAL):
            put(session + '/__handoff.json', 'no object')
        get(session + '/.baton/log')
        shutil.rmtree(session)


globals()[role]()
print(rounds)
