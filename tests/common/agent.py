# Processes that do what a test tells them, one system call at a time: `agent.py SOCKET`.
# A line on the standard input starts one. It connects to SOCKET, says its pid, and answers each line with "ok ..." or
# "err ERRNO". What it forks does the same over a connection of its own.
import ctypes, gc, os, socket, signal, sys

RENAME_NOREPLACE = 1
libc = ctypes.CDLL(None, use_errno=True)


def rename(source, target, flags):
    if libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), int(flags)) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def stat_of(info):
    return f"{info.st_size} {info.st_nlink}"


OPS = {
    "open": lambda path, flags: os.open(path, int(flags), 0o644),
    "read": lambda fd, size: os.read(int(fd), int(size)).hex(),
    "pread": lambda fd, size, at: os.pread(int(fd), int(size), int(at)).hex(),
    "write": lambda fd, data: os.write(int(fd), bytes.fromhex(data)),
    "pwrite": lambda fd, data, at: os.pwrite(int(fd), bytes.fromhex(data), int(at)),
    "ftruncate": lambda fd, size: os.ftruncate(int(fd), int(size)),
    "truncate": lambda path, size: os.truncate(path, int(size)),
    "seek": lambda fd, at, whence: os.lseek(int(fd), int(at), int(whence)),
    "fstat": lambda fd: stat_of(os.fstat(int(fd))),
    "stat": lambda path: stat_of(os.stat(path)),
    "list": lambda path: " ".join(sorted(os.listdir(path))),
    "rename": rename,
    "unlink": lambda path: os.unlink(path),
    "fsync": lambda fd: os.fsync(int(fd)),
    "dup": lambda fd: os.dup(int(fd)),
    "dup2": lambda fd, onto: os.dup2(int(fd), int(onto)),
    "close": lambda fd: os.close(int(fd)),
}


def serve(path):
    """Serves one connection to its end; the children come back out of it to serve theirs."""
    while True:
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rw", newline="\n") as lines:
            connection.connect(path)
            print(os.getpid(), file=lines, flush=True)
            forked = False
            for line in lines:
                words = line.split()
                if words[0] == "exit":
                    os._exit(0)
                try:
                    if words[0] == "fork":
                        answer = os.fork()
                        forked = answer == 0
                        if forked:
                            break
                    else:
                        answer = OPS[words[0]](*words[1:])
                    print("ok", "" if answer is None else answer, file=lines, flush=True)
                except OSError as error:
                    print("err", error.errno, file=lines, flush=True)
            if not forked:
                os._exit(0)


def main():
    # What ends is nobody's to wait for, and what loses its parent comes to this process.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    libc.prctl(36, 1)
    gc.disable()
    gc.freeze()
    for _ in sys.stdin:
        if os.fork() == 0:
            try:
                serve(sys.argv[1])
            except ConnectionError:
                # The test has ended before us.
                os._exit(0)


main()
