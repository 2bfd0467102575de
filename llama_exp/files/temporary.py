"""Folders that are gone when nobody needs them any more."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from llama_exp.errors import Problem
from llama_exp.files.writing import storage_errors


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of this user's alone, deleted at the end of the block with everything in it; TMPDIR says where.

    Raises:
        StorageError: it cannot be made.
    """
    with storage_errors(Path(os.environ.get("TMPDIR", os.sep)), _no_folder):
        folder = Path(tempfile.mkdtemp(prefix="llama_exp-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _no_folder(error: OSError) -> Problem:
    action = "make room, or set TMPDIR to a folder that this user may write"
    return Problem("no temporary folder can be made", "TMPDIR", str(error.strerror or error), action)
