"""The neighbour's operations as their sequence of system calls, for tests: on the mount and beside it in the store.

usage: neighbour.py ROOT SESSION WRITER POLICY write KEY VALUE | read KEY | delete KEY | list | handoff JSON
"""

import json
import os
import sys
import time
import uuid

META = ".agent_state_meta"
TMP = ".agent_state_tmp"


def put(path, data):
    """Parents, temporary file, sync, rename, sync of the directory; both closed only at the end."""
    parent = os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    temporary = os.path.join(parent, f".{os.path.basename(path)}.{TMP}.{uuid.uuid4()}")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    os.write(file, data)
    os.fsync(file)
    if os.environ.get("ABORT_BEFORE_RENAME") and META not in path:
        os.abort()
    os.rename(temporary, path)
    directory = os.open(parent, os.O_RDONLY | os.O_CLOEXEC)
    os.fsync(directory)
    os.close(directory)
    os.close(file)


def name_of(writer):
    members = ("writer_id", "worker_id", "stage_id", "session_id")
    return next((writer[m] for m in members if m in writer), "unknown")


def write(home, key, data, writer, policy):
    sidecar = os.path.join(home, META, key + ".json")
    try:
        with open(sidecar, encoding="utf-8") as file:
            previous = json.load(file).get("writer", {})
    except FileNotFoundError:
        previous = {}
    if previous.get("writer_id", writer["writer_id"]) != writer["writer_id"] and policy == "error":
        names = f"'{name_of(previous)}' and is now being written by '{name_of(writer)}'"
        sys.exit(f"key '{key}' was previously written by {names}")
    put(os.path.join(home, key), data)
    record = {"writer": writer, "updated_at": int(time.time())}
    put(sidecar, json.dumps(record, indent=2).encode())


def delete(home, key):
    for path in (os.path.join(home, key), os.path.join(home, META, key + ".json")):
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        parent = os.path.dirname(path)
        while parent != home:
            try:
                os.rmdir(parent)
            except OSError:
                break
            parent = os.path.dirname(parent)


def keys(home, below=""):
    for entry in os.scandir(os.path.join(home, below)):
        path = os.path.join(below, entry.name)
        if entry.name == META or TMP in entry.name or entry.name == ".baton":
            continue
        os.stat(os.path.join(home, path))
        if entry.is_dir():
            yield from keys(home, path)
        else:
            yield path


def main():
    root, session, writer_id, policy, verb, *rest = sys.argv[1:]
    home = os.path.join(root, session)
    writer = {"writer_id": writer_id, "stage_id": "nil", "session_id": session, "worker_id": "nil"}
    if verb == "write":
        os.makedirs(home, exist_ok=True)
        write(home, rest[0], rest[1].encode(), writer, policy)
    elif verb == "handoff":
        envelope = {"_type": "agent_state_handoff", "key": "__handoff.json", "root": root, "session_id": session,
                    "summary": json.loads(rest[0]), "version": 1, "writer": writer, "written_at": int(time.time())}
        write(home, "__handoff.json", json.dumps(envelope, indent=2, sort_keys=True).encode(), writer, policy)
    elif verb == "read":
        with open(os.path.join(home, rest[0]), encoding="utf-8") as file:
            sys.stdout.write(file.read())
    elif verb == "delete":
        delete(home, rest[0])
    elif verb == "list":
        print(json.dumps(sorted(keys(home))))


main()
