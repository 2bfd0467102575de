"""Advisory locks between processes, which the kernel releases when their owner dies.

`lock_descriptor` is the one call of `flock` and knows file systems without locks. `held`: one process at a time in a
block, others wait. `FolderLock`: one process per run or sweep folder, others are told who has it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from llama_exp.errors import BusyError, InputError, Problem
from llama_exp.files.json_file import parse_json
from llama_exp.files.json_text import dump_json
from llama_exp.files.writing import FILE_MODE, OWN, storage_errors

LOCK_NAME = ".lock"
# How long a loser waits for the winner to write its name, which takes microseconds.
_NAME_SECONDS = 1.0
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
_WITHOUT_LOCKS = "%s: this file system has no locks, so nothing keeps a second process out"
_log = logging.getLogger(__name__)


def lock_descriptor(descriptor: int, wait: bool = False) -> bool | None:
    """Locks an open file or folder for this process alone, until it is closed.

    Args:
        descriptor: of the file or folder.
        wait: until whoever has it releases it.

    Returns:
        True: it is ours. False: another process has it. None: this file system has no locks.

    Raises:
        OSError: anything else.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None


@contextlib.contextmanager
def held(path: Path, while_waiting: str | None = None) -> Iterator[None]:
    """A block that one process at a time is in; the others wait.

    Args:
        path: the file whose lock it is, made if needed.
        while_waiting: is logged if this process has to wait.

    Raises:
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | OWN, FILE_MODE)
    try:
        locked = lock_descriptor(descriptor)
        if locked is None:
            _log.warning(_WITHOUT_LOCKS, path)
        elif not locked:
            if while_waiting is not None:
                _log.warning(while_waiting)
            lock_descriptor(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a process owns the folder now, also one on another machine whose file system has locks."""
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | OWN)
    except OSError:
        return False
    try:
        return lock_descriptor(descriptor) is False
    finally:
        os.close(descriptor)


class FolderLock:
    """Exclusive ownership of a folder from construction until `release` or the death of this process.

    The lock is on the file `.lock`, which holds pid, host and start time of the owner while the lock is held and
    nothing after an orderly release. So a name in a free lock belongs to a process that died.

    Args:
        folder: it exists.
        kind: what it is the folder of, and the part of Hydra's config that names it: `run`, `sweep`.

    Attributes:
        dead_owner: pid, host and start time of an earlier owner that died without releasing the folder, or None.

    Raises:
        BusyError: another live process owns the folder; names it.
        StorageError: the lock file cannot be written.
    """

    def __init__(self, folder: Path, kind: str = "run"):
        self.path, self._kind = folder / LOCK_NAME, kind
        with storage_errors(self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | OWN, FILE_MODE)
        try:
            self.dead_owner = self._take(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor: int | None = descriptor
        _held.add(self)

    def release(self) -> None:
        """Gives the folder back; a second call does nothing."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            self._close()

    def _take(self, descriptor: int) -> dict[str, str] | None:
        """Locks the file and writes this process' name into it; returns the name of an owner that died."""
        locked = lock_descriptor(descriptor)
        if locked is None:
            _log.warning(_WITHOUT_LOCKS, self.path)
        elif not locked:
            raise self._busy(descriptor)
        dead_owner = self._owner(descriptor)
        name = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        with storage_errors(self.path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, dump_json(name).encode(), 0)
        return dead_owner

    def _busy(self, descriptor: int) -> BusyError:
        deadline = time.monotonic() + _NAME_SECONDS
        while (owner := self._owner(descriptor)) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if owner is None:
            found = "a process that has not said its name yet"
        else:
            found = f"pid {owner['pid']} on host {owner['host']}, started {owner['started']}"
        action = f"wait for it or stop it, or choose another folder with hydra.{self._kind}.dir=<folder>"
        what = f"the {self._kind} folder is in use by another process"
        return BusyError(Problem(what, str(self.path.parent), found, action))

    def _owner(self, descriptor: int) -> dict[str, str] | None:
        """The name in the lock file; None while there is none or only a part of one."""
        try:
            owner = parse_json(self.path, os.pread(descriptor, 4096, 0))
        except InputError:
            return None
        name = {key: str(owner.get(key)) for key in ("pid", "host", "started")}
        is_name = name["pid"].isdecimal() and all(re.fullmatch(r"[\w.:+-]{1,300}", text) for text in name.values())
        return name if is_name else None

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
