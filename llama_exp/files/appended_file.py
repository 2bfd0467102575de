"""A text file that only grows, and that a resume cuts back to what it held at the checkpoint."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from llama_exp.files.redact import redact
from llama_exp.files.writing import FILE_MODE, OWN, storage_errors

_log = logging.getLogger(__name__)


class AppendedFile:
    """A text file that only grows, and that a resume cuts back to what it held at the checkpoint.

    Nothing is touched before the first `append`: without a `restore` before it the run starts from the beginning, and
    what an earlier attempt wrote is discarded.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor: int | None = None
        self._restored = False

    def append(self, text: str) -> None:
        """Hands the text to the operating system, whole: it survives a kill of this process."""
        data = redact(text).encode("utf-8", "backslashreplace")
        with storage_errors(self.path):
            descriptor = self._open()
            size = os.fstat(descriptor).st_size
            try:
                written = 0
                while written < len(data):
                    written += os.write(descriptor, data[written:])
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise

    def state(self) -> dict[str, int]:
        """The length in bytes of what is safely on the disk, for a checkpoint."""
        with storage_errors(self.path):
            if self._descriptor is not None:
                os.fsync(self._descriptor)
                return {"offset": os.fstat(self._descriptor).st_size}
            return {"offset": self.path.stat().st_size if self._restored and self.path.exists() else 0}

    def restore(self, state: Mapping[str, int]) -> None:
        """Cuts the file back to the length it had at the checkpoint."""
        self.close()
        self._restored = True
        offset = state["offset"]
        with storage_errors(self.path):
            size = self.path.stat().st_size if self.path.exists() else 0
            if size < offset:
                _log.warning("%s holds %d of the %d bytes it had at the checkpoint", self.path, size, offset)
            elif size > offset:
                os.ftruncate(self._open(), offset)
                self.close()

    def close(self) -> None:
        """Closes the file; a later `append` goes on at its end."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            self._restored = True

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | OWN, FILE_MODE)
            if not self._restored:
                os.ftruncate(self._descriptor, 0)
        return self._descriptor
