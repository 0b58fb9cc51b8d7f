"""Writers that end in every way. Takes cells, a JSON document a line; plays each, and prints how the process that had
to end did end (as `wait` tells) once every process of the cell is gone."""
import ctypes, json, os, resource, signal, sys, threading

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans of a cell are waited for here
sys.tracebacklimit = 0

FLAGS = {
    'new': os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    'emptied': os.O_WRONLY | os.O_TRUNC,
    'edited': os.O_RDWR,
    'appended': os.O_WRONLY | os.O_APPEND,
    'handoff': os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    'temporary': os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    'moved': os.O_WRONLY | os.O_CREAT | os.O_EXCL,
}


def by(number):
    os.kill(os.getpid(), number)


def broken_pipe():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    read, write = os.pipe()
    os.close(read)
    os.write(write, b'x')


def out_of_memory():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))
    bytearray(1 << 32)


def fail():
    raise ValueError('unhandled')


def interrupted():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()


def handled():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    by(signal.SIGTERM)
    signal.pause()


def raised_again():
    def again(number, _):
        signal.signal(number, signal.SIG_DFL)
        by(number)
    signal.signal(signal.SIGTERM, again)
    by(signal.SIGTERM)
    signal.pause()


ENDS = {
    'KILL': lambda: by(signal.SIGKILL),
    'TERM': lambda: by(signal.SIGTERM),
    'HUP': lambda: by(signal.SIGHUP),
    'fault': lambda: ctypes.string_at(0),
    'abort': os.abort,
    'broken pipe': broken_pipe,
    'Ctrl-C': interrupted,
    'TERM raised again': raised_again,
    'TERM handled': handled,
    '_exit': lambda: os._exit(0),
    '_exit 3': lambda: os._exit(3),
    'sys.exit': lambda: sys.exit('words'),
    'exception': fail,
    'MemoryError': out_of_memory,
}


class Cell:
    def __init__(self, line):
        self.__dict__.update(json.loads(line))
        os.chdir(self.dir)
        self.tmp = self.key + '.tmp'
        self.result, self.report = os.pipe()

    def open(self):
        self.file = os.open(self.tmp if self.kind in ('temporary', 'moved') else self.key, FLAGS[self.kind])

    def write(self, text):
        os.write(self.file, text.encode())
        self.move()

    def move(self):
        if self.kind == 'moved' and os.path.exists(self.tmp):
            os.rename(self.tmp, self.key)

    def die(self):
        """As the cell says; the killer from outside strikes while bytes are written, again and again the same."""
        if self.end != 'killed while it writes':
            return ENDS[self.end]()
        me = os.getpid()
        if os.fork() == 0:
            os.close(self.file)
            os.kill(me, signal.SIGKILL)
            os._exit(0)
        while True:
            if self.kind == 'appended':
                os.write(self.file, self.first.encode())
            else:
                os.pwrite(self.file, self.first.encode(), 0)

    def tell(self, pid):
        os.write(self.report, str(os.waitpid(pid, 0)[1]).encode())


def child(work):
    """A process that does this and nothing else. What it raises goes up to the interpreter, which ends it."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid


def in_thread(work):
    def quietly():
        try:
            work()
        except (Exception, SystemExit):
            pass
    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    return thread


def alone(cell):
    cell.open()
    cell.write(cell.first)
    cell.die()


def silent(cell):
    cell.open()
    cell.move()
    cell.die()


def child_of_a_shell(cell):
    cell.open()
    def writer():
        cell.write(cell.first)
        cell.die()
    cell.tell(child(writer))
    os.close(cell.file)


def written_by_a_thread(cell):
    cell.open()
    written, never = threading.Event(), threading.Event()
    def writer():
        cell.write(cell.first)
        written.set()
        never.wait()
    in_thread(writer)
    written.wait()
    cell.die()


def another_thread_ends_it(cell):
    cell.open()
    cell.write(cell.first)
    in_thread(cell.die).join()


def opener_ends_first(cell):
    cell.open()
    read, write = os.pipe()
    def writer():
        os.close(write)
        os.read(read, 1)
        cell.write(cell.first)
    child(writer)
    cell.die()


def parent_writes_the_rest(cell):
    cell.open()
    def writer():
        cell.write(cell.first)
        cell.die()
    cell.tell(child(writer))
    cell.move()
    os.lseek(cell.file, len(cell.first), os.SEEK_SET)
    cell.write(cell.rest)


def bystander_ends(cell):
    cell.open()
    cell.write(cell.first)
    cell.tell(child(cell.die))


SHAPES = {
    'alone': alone,
    'silent': silent,
    'child of a shell': child_of_a_shell,
    'written by a thread': written_by_a_thread,
    'another thread ends it': another_thread_ends_it,
    'opener ends first': opener_ends_first,
    'parent writes the rest': parent_writes_the_rest,
    'bystander ends': bystander_ends,
}

# Who started the tests may have had it ignored (nohup), and that is inherited.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

for line in sys.stdin:
    cell = Cell(line)
    pid = child(lambda: SHAPES[cell.shape](cell))
    ended = {}
    while True:
        try:
            one, status = os.wait()
        except ChildProcessError:
            break
        ended[one] = status
    os.close(cell.report)
    print(int(os.read(cell.result, 64) or ended[pid]), flush=True)
    os.close(cell.result)
