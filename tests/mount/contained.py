"""Tries to get out of a writer view that is bind-mounted alone and is the working directory, or to write as another.

usage: contained.py VIEW_WRITER OTHER MOUNTPOINT STORE BATONFS [TRY...]

The session s has the key theirs, written by OTHER, under the policy error. Prints a line for each try: what, a tab, and
how it was refused, or ESCAPED and what was reached. With names of tries: these alone. Needs nothing of the machine but /proc.
"""

import ctypes
import errno
import itertools
import json
import mmap
import os
import socket
import subprocess
import sys

me, other, mountpoint, store, batonfs, *only = sys.argv[1:]
numbers = itertools.count()
libc = ctypes.CDLL(None, use_errno=True)


def call(function, *arguments):
    if function(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def attempt(what, way):
    """A try that is to end in an error, or in a value that shows it was of no use (falsy)."""
    if only and what not in only:
        return
    try:
        reached = way()
        print(f"{what}\t{'ESCAPED: ' + repr(reached) if reached else 'nothing there'}")
    except OSError as e:
        print(f"{what}\t{errno.errorcode[e.errno]}")


def write(path, text, mode="w"):
    with open(path, mode) as file:
        file.write(text)
    return f"{path} written"


def reads(path):
    with open(path) as file:
        return file.read() or "empty"


def last_writer(key):
    lines = [json.loads(line) for line in open("s/.baton/log")]
    return [line["writer"]["writer_id"] for line in lines if line.get("to", line["key"]) == key][-1:]


def is_not_mine(key):
    """Through the view only own lines are seen: another's would be missing."""
    return None if last_writer(key) == [me] else f"{key} is not recorded as {me}'s"


def parents():
    """Is any directory above this one of the same file system?"""
    here, at = os.stat("."), "."
    for _ in range(50):
        at += "/.."
        if os.stat(at).st_dev == here.st_dev:
            return at
    return None


def by_descriptor():
    """The directory above, by a descriptor of the view's root instead of a path."""
    root = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    above = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
    names = os.listdir(above)
    return names if "as" in names or other in names or "status" in names else None


def by_environment():
    given = {f"BATON_{name}_ID": other for name in ["WRITER", "STAGE", "WORKER", "SESSION"]}
    subprocess.run(["sh", "-c", "exec /bin/echo mine > s/environment"], env={**os.environ, **given}, check=True)
    return is_not_mine("environment")


def by_own_environment():
    os.environ["BATON_WRITER_ID"] = other
    write("s/own", "mine")
    return is_not_mine("own")


def by_run():
    run = [batonfs, "run", "--writer-id", other, "--", "sh", "-c", "echo mine > s/run"]
    subprocess.run(run, check=True)
    return is_not_mine("run")


def by_command(*words):
    ran = subprocess.run([batonfs, *words], input=b"by command", capture_output=True)
    return f"{words}: {ran.stdout!r}" if ran.returncode == 0 else None


def by_rename(source, target):
    os.rename(source, target)
    return f"{target} replaced"


def scratch(text, target):
    """As the neighbour's programs do."""
    temporary = f"s/.x.agent_state_tmp.{next(numbers)}"
    write(temporary, text)
    return by_rename(temporary, target)


def declare_as_other():
    write("s/.y.agent_state_tmp.1", "mine")
    os.rename("s/.y.agent_state_tmp.1", "s/declared")
    scratch('{"writer": {"writer_id": "%s"}}' % other, "s/.agent_state_meta/declared.json")
    recorded = json.load(open("s/.agent_state_meta/declared.json"))["writer"]["writer_id"]
    return is_not_mine("declared") or (None if recorded == me else recorded)


def open_by_number():
    """The mount's own root, whose number everybody knows, by a file handle that nobody has given us."""
    handle = ctypes.create_string_buffer(8 + 12)
    ctypes.memmove(handle, (ctypes.c_uint32 * 5)(12, 0x81, 0, 1, 0), 20)
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    found = libc.open_by_handle_at(here, handle, os.O_RDONLY)
    call(lambda: found)
    return os.listdir(found) or "the root"


def handle_of(path):
    handle = ctypes.create_string_buffer(8 + 128)
    ctypes.memmove(handle, (ctypes.c_uint32 * 2)(128, 0), 8)
    mount_id = ctypes.c_int()
    call(libc.name_to_handle_at, -100, path.encode(), handle, ctypes.byref(mount_id), 0)
    return bytes(handle[:40])


def connect(path):
    socket.socket(socket.AF_UNIX).connect(path)
    return "connected"


def processes():
    """What the processes we see have for root, working directory and open files."""
    reached = []
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        links = ["root", "cwd"] + [f"fd/{n}" for n in os.listdir(f"/proc/{pid}/fd")]
        reached += [f"{pid} {link}" for link in links if os.path.exists(f"/proc/{pid}/{link}/.baton/as")]
        paths = [mountpoint + "/s/theirs", mountpoint + "/.baton/status", store + "/s"]
        reached += [f"{pid} {path}" for path in paths if os.path.exists(f"/proc/{pid}/root{path}")]
    return reached


def shared_mapping():
    with open("s/theirs", "r+b") as file:
        mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED)
        return "mapped"


def temporary_file():
    file = os.open("s", os.O_TMPFILE | os.O_WRONLY)
    os.link(f"/proc/self/fd/{file}", "s/theirs", follow_symlinks=True)
    return "linked"


def own_lines(name):
    lines = open(f"s/.baton/{name}").read()
    return lines if f'"writer_id":"{other}"' in lines else None


def truncate_by_descriptor():
    with open("s/theirs", "r+") as file:
        os.ftruncate(file.fileno(), 0)
    return "truncated"


write("s/mine", "mine")
attempt("control: an own key is written", lambda: None if reads("s/mine") == "mine" else "lost")
attempt("the directories above", parents)
attempt("the directory above, by a descriptor", by_descriptor)
attempt("the mountpoint by its path", lambda: reads(mountpoint + "/s/theirs"))
attempt("the store by its path", lambda: reads(store + "/s/theirs"))
attempt("another view, by the view's control directory", lambda: write(f".baton/as/{other}/s/x", "x"))
attempt("another view, by the session's", lambda: write(f"s/.baton/as/{other}/s/x", "x"))
attempt("another view, beside this one", lambda: write(f"../{other}/s/x", "x"))
attempt("a session that makes itself", lambda: reads(".baton/new"))
attempt("the socket", lambda: connect(".baton/socket"))
attempt("the journal", lambda: os.listdir(".baton/journal"))
attempt("the policy, written", lambda: write("s/.baton/policy", "ignore"))
attempt("the policy, appended", lambda: write("s/.baton/policy", "ignore", "a"))
attempt("the policy, replaced", lambda: by_rename("s/mine", "s/.baton/policy"))
attempt("the policy, by a temporary file", lambda: scratch("ignore", "s/.baton/policy"))
attempt("the policy, removed", lambda: os.unlink("s/.baton/policy") or "removed")
attempt("the policy, made writable", lambda: os.chmod("s/.baton/policy", 0o666) or "made")
attempt("the control directory, removed", lambda: os.rmdir("s/.baton") or "removed")
attempt("another's value, written", lambda: write("s/theirs", "mine"))
attempt("another's value, appended", lambda: write("s/theirs", "mine", "a"))
attempt("another's value, edited", lambda: write("s/theirs", "mine", "r+"))
attempt("another's value, truncated", lambda: os.truncate("s/theirs", 0) or "truncated")
attempt("another's value, truncated by a descriptor", truncate_by_descriptor)
attempt("another's value, replaced", lambda: by_rename("s/mine", "s/theirs"))
attempt("another's value, by a temporary file", lambda: scratch("mine", "s/theirs"))
attempt("another's value, mapped", shared_mapping)
attempt("another's value, by a file without a name", temporary_file)
attempt("another's sidecar, by a temporary file", lambda: scratch('{"writer": {"writer_id": "%s"}}' % me, "s/.agent_state_meta/theirs.json"))
attempt("another's sidecar, written", lambda: write("s/.agent_state_meta/theirs.json", "{}"))
attempt("another's sidecar, removed", lambda: os.unlink("s/.agent_state_meta/theirs.json") or "removed")
attempt("a sidecar that names another", declare_as_other)
attempt("the environment of a program", by_environment)
attempt("the own environment", by_own_environment)
attempt("batonfs run", by_run)
attempt("batonfs write", lambda: by_command("write", ".", "s", "command", "--writer-id", other))
attempt("batonfs policy", lambda: by_command("policy", ".", "s", "ignore"))
attempt("batonfs write to the store", lambda: by_command("write", store, "s", "command", "--writer-id", other))
attempt("batonfs read beside the view", lambda: by_command("read", mountpoint, "s", "theirs"))
attempt("an attribute that says who wrote", lambda: os.setxattr("s/theirs", "user.baton.writer_id", me.encode()) or "set")
attempt("the store's own attribute", lambda: os.setxattr("s/mine", "user.batonfs", b"x") or "set")
attempt("a symbolic link", lambda: os.symlink("/", "s/link") or "made")
attempt("a hard link out", lambda: os.link("s/mine", "../out") or "made")
attempt("a hard link in", lambda: os.link("/proc/self/environ", "s/in") or "made")
attempt("a device", lambda: os.mknod("s/device", 0o60666, os.makedev(7, 0)) or "made")
attempt("a key, moved out", lambda: by_rename("s/mine", "../out"))
attempt("a session, moved out", lambda: by_rename("s", "../out"))
attempt("an exchange", lambda: call(libc.renameat2, -100, b"s/mine", -100, b"s/theirs", 2) or "exchanged")
attempt("an exchange out", lambda: call(libc.renameat2, -100, b"s", -100, b"..", 2) or "exchanged")
attempt("a file handle made from a number", open_by_number)
if tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 9):
    # Before, the kernel gives them to everyone, and opens them to who may read everything anyway.
    attempt("a file handle of what is here", lambda: handle_of("s/theirs"))
attempt("the files of other processes", processes)
attempt("another's lines of the log", lambda: own_lines("log"))
attempt("another's refusals", lambda: own_lines("errors"))
attempt("a mount of the same file system", lambda: call(libc.mount, b"none", b"/tmp", b"fuse.batonfs", 0, b"") or "mounted")
attempt("a mount over the view", lambda: call(libc.mount, b"/", b"s", None, 4096, None) or "mounted")
attempt("what lies over the mountpoint, taken away", lambda: call(libc.umount2, mountpoint.encode(), 2) or "taken away")
attempt("another root", lambda: os.chroot("..") or "changed")
