"""A process that dies at the n-th of its calls to the operating system which change files."""

import os

CALLS = ("mkdir", "open", "write", "fsync", "close", "rename", "replace", "unlink", "rmdir")
STATUS = 37


def die_at(count, power=False, torn=False):
    """Replaces the calls of `os` in this process by ones that end it at the count-th.

    Args:
        count: from 1 on.
        power: files that were not synced keep only half of their bytes.
        torn: a write that it dies at has written half.
    """
    paths, unsynced, calls = {}, set(), [0]

    def die(name, original, args):
        for path in unsynced if power else ():
            if os.path.exists(path):
                os.truncate(path, os.path.getsize(path) // 2)
        if torn and name == "write":
            original(args[0], bytes(args[1])[: len(args[1]) // 2])
        os._exit(STATUS)

    def wrap(name, original):
        def call(*args, **kwargs):
            calls[0] += 1
            if calls[0] == count:
                die(name, original, args)
            result = original(*args, **kwargs)
            if name == "open":
                paths[result] = os.fspath(args[0])
            elif name == "write":
                unsynced.add(paths.get(args[0], ""))
            elif name == "fsync":
                unsynced.discard(paths.get(args[0], ""))
            elif name in ("rename", "replace"):
                old, new = map(os.fspath, args)
                for path in [path for path in unsynced if path.startswith(old)]:
                    unsynced.discard(path)
                    unsynced.add(path.replace(old, new))
            return result

        return call

    for name in CALLS:
        setattr(os, name, wrap(name, getattr(os, name)))


def run_dying(count, work, **modes):
    """Whether `work()` came to its end in a forked process that dies at its count-th call."""
    child = os.fork()
    if child == 0:
        try:
            die_at(count, **modes)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, STATUS), status
    return status == 0
