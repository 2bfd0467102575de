"""Folders under construction beside the one they will become, and those that dead processes left.

A draft is called `<target>.tmp-<eight digits>`. While its maker lives, the folder is locked (`flock`, which the kernel
gives back with the process), so that an unlocked draft is nobody's. Process ids would not tell: another container or
machine that shares the disk has its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def new_draft(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, locked by this process; what has its name when the block ends is removed.

    Raises:
        OSError: it cannot be made.
    """
    draft, descriptor = _made(folder)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(descriptor)


def remove_stale(folder: Path, may_go: Callable[[Path], bool]) -> None:
    """Removes the drafts of `folder` whose makers are dead, where the file system can tell.

    Args:
        folder: the target.
        may_go: whether nothing in a draft is foreign; called with an unlocked one.
    """
    name = re.compile(re.escape(folder.name) + r"\.tmp-[0-9a-f]{8}")
    with contextlib.suppress(OSError):
        for path in [path for path in folder.parent.iterdir() if name.fullmatch(path.name)]:
            _remove_if_stale(path, may_go)


def _made(folder: Path) -> tuple[Path, int]:
    while True:
        draft = folder.with_name(f"{folder.name}.tmp-{secrets.token_hex(4)}")
        draft.mkdir(parents=True)
        # Before it is locked, another process may take it for stale; then again.
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(draft, FLAGS)
            with contextlib.suppress(OSError):  # no locks here: then nobody removes drafts here either
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if draft.exists():
                return draft, descriptor
            os.close(descriptor)


def _remove_if_stale(draft: Path, may_go: Callable[[Path], bool]) -> None:
    descriptor = -1
    with contextlib.suppress(OSError):  # locked, a link, a file, gone, or no locks on this file system
        descriptor = os.open(draft, FLAGS)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if may_go(draft):
            shutil.rmtree(draft, ignore_errors=True)
    if descriptor >= 0:
        os.close(descriptor)
