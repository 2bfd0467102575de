"""Folders that appear under their name whole or not at all, also after a power cut; and what dead processes left.

    with whole_folder(folder) as draft: ...    the draft takes the place of `folder` when the block ends
    remove_folder                              gone at once, however long the removal takes

A draft is called `<target>.tmp-<eight digits>`. While its maker lives, the folder is locked, so that an unlocked draft
is nobody's. Process ids would not tell: another container or machine that shares the disk has its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from llama_exp.files.lock import lock_descriptor
from llama_exp.files.writing import sync

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which takes its place when the block ends and vanishes if it fails.

    A process killed at any moment leaves the old folder or the new one under the name, never a mixture; and perhaps a
    draft beside it, for `remove_stale`. Whether the old folder may go is the caller's business.

    Raises:
        OSError: it cannot be written.
    """
    draft, descriptor = _made(folder)
    try:
        yield draft
        for path in [*draft.rglob("*"), draft]:
            sync(path)
        _put_in_place(draft, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # the draft of a failure, or after an exchange the old folder
        os.close(descriptor)


def remove_stale(parent: Path, target: str, may_go: Callable[[Path], bool] | None = None, alone: bool = False) -> None:
    """Removes drafts whose makers are dead, where the file system can tell.

    Args:
        parent: where they lie.
        target: regular expression of the names that they would have got.
        may_go: whether nothing in a draft is foreign; None: nothing can be.
        alone: no other process makes drafts here, so that those on a file system without locks are stale too.
    """
    name = re.compile(rf"(?:{target})\.tmp-[0-9a-f]{{8}}")
    with contextlib.suppress(OSError):
        for path in [path for path in parent.iterdir() if name.fullmatch(path.name)]:
            _remove_if_stale(path, may_go, alone)


def remove_folder(folder: Path) -> None:
    """Removes a folder, which has a draft's name from the first moment on: nobody meets half of it. Raises OSError."""
    draft = _draft_name(folder)
    folder.rename(draft)
    shutil.rmtree(draft)


def _draft_name(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.tmp-{secrets.token_hex(4)}")


def _made(folder: Path) -> tuple[Path, int]:
    while True:
        draft = _draft_name(folder)
        draft.mkdir(parents=True)
        # Before it is locked, another process may take it for stale; then again.
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(draft, FLAGS)
            with contextlib.suppress(OSError):  # folders cannot be locked here: then nobody removes drafts here either
                lock_descriptor(descriptor, wait=True)
            if draft.exists():
                return draft, descriptor
            os.close(descriptor)


def _remove_if_stale(draft: Path, may_go: Callable[[Path], bool] | None, alone: bool) -> None:
    descriptor = -1
    with contextlib.suppress(OSError):  # a link, a file, or gone
        descriptor = os.open(draft, FLAGS)
        locked = lock_descriptor(descriptor)
        if (locked or (locked is None and alone)) and (may_go is None or may_go(draft)):
            shutil.rmtree(draft, ignore_errors=True)
    if descriptor >= 0:
        os.close(descriptor)


def _put_in_place(draft: Path, folder: Path) -> None:
    if not folder.exists():
        draft.rename(folder)
    elif not _exchange(draft, folder):
        old = folder.with_name(f"{folder.name}.old-{secrets.token_hex(4)}")
        folder.rename(old)
        try:
            draft.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two folders in a single step; false where the system cannot (another kernel or file system)."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    if (code := ctypes.get_errno()) in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code))
