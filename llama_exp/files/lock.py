"""One process per run folder: an advisory lock that the kernel releases when its owner dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path

from llama_exp.errors import BusyError, Problem
from llama_exp.files.writing import FILE_MODE, dump_json, storage_errors

LOCK_NAME = ".lock"
# How long a loser waits for the winner to write its name, which takes microseconds.
_NAME_SECONDS = 1.0
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
_log = logging.getLogger(__name__)


class FolderLock:
    """Exclusive ownership of a folder from construction until `release` or the death of this process.

    The lock is `flock` on the file `.lock`, which holds pid, host and start time of the owner while the lock is held
    and nothing after an orderly release. So a name in a free lock belongs to a process that died.

    Attributes:
        dead_owner: pid, host and start time of an earlier owner that died without releasing the folder, or None.

    Raises:
        BusyError: another live process owns the folder; names it.
        StorageError: the lock file cannot be written.
    """

    def __init__(self, folder: Path):
        self.path = folder / LOCK_NAME
        with storage_errors(self.path):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor: int | None = os.open(self.path, flags, FILE_MODE & ~0o022)
        self.dead_owner: dict[str, str] | None = None
        try:
            self._take()
        except BaseException:
            os.close(self._descriptor)
            raise
        _held.add(self)

    def release(self) -> None:
        """Gives the folder back; a second call does nothing."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            self._close()

    def _take(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._busy() from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _log.warning("%s: this file system has no locks, so nothing keeps a second process out", self.path)
        self.dead_owner = self._owner()
        name = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        with storage_errors(self.path):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, dump_json(name).encode(), 0)

    def _busy(self) -> BusyError:
        deadline = time.monotonic() + _NAME_SECONDS
        while (owner := self._owner()) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if owner is None:
            found = "a process that has not said its name yet"
        else:
            found = f"pid {owner['pid']} on host {owner['host']}, started {owner['started']}"
        action = "wait for it or stop it, or choose another folder with hydra.run.dir=<folder>"
        return BusyError(Problem("the run folder is in use by another process", str(self.path.parent), found, action))

    def _owner(self) -> dict[str, str] | None:
        """The name in the lock file; None while there is none or only a part of one."""
        try:
            owner = json.loads(os.pread(self._descriptor, 4096, 0))
            return {key: str(owner[key]) for key in ("pid", "host", "started")}
        except (ValueError, KeyError, TypeError):
            return None

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self)


_held: set[FolderLock] = set()


def _forget_locks() -> None:
    """A forked child shares its parent's locks; were it to outlive the parent, it would hold the folder for ever."""
    for lock in list(_held):
        lock._close()


os.register_at_fork(after_in_child=_forget_locks)
