"""Files that a run leaves: strict JSON, whole or not at all, without secrets, writable by their owner only."""

from __future__ import annotations

import contextlib
import datetime
import enum
import errno
import json
import logging
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_exp.errors import Problem, StorageError
from llama_exp.files.redact import MASK, is_secret_name, redact

FILE_MODE = 0o644
FOLDER_MODE = 0o755
_log = logging.getLogger(__name__)
_ACTIONS = {
    errno.ENOSPC: "free some space, then run the same command with resume=auto",
    errno.EDQUOT: "free some of your quota, then run the same command with resume=auto",
    errno.EACCES: "make it writable, or choose another folder with hydra.run.dir=<folder>",
    errno.EPERM: "make it writable, or choose another folder with hydra.run.dir=<folder>",
    errno.EROFS: "choose a folder on a writable file system with hydra.run.dir=<folder>",
    errno.ENAMETOOLONG: "choose a shorter `name`, or another folder with hydra.run.dir=<folder>",
    errno.ENOTDIR: "a part of the path is a file: choose another folder with hydra.run.dir=<folder>",
    errno.EEXIST: "a file is in the way: move it, or choose another folder with hydra.run.dir=<folder>",
    errno.ENOENT: "moved, deleted, or impossible there: choose another folder with hydra.run.dir=<folder>",
}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns operating system errors of the block into a `StorageError` that names `path` and says what to do."""
    try:
        yield
    except OSError as error:
        action = _ACTIONS.get(error.errno, "check the disk, or choose another folder with hydra.run.dir=<folder>")
        found = f"{errno.errorcode.get(error.errno, 'error')}: {error.strerror or error}"
        raise StorageError(Problem("cannot be written", _shown(path), found, action)) from error
    except ValueError as error:  # a NUL character in the name
        action = "choose another folder with hydra.run.dir=<folder>"
        raise StorageError(Problem("is no file name", _shown(path), str(error), action)) from error


def restrict_umask() -> None:
    """From here on nothing that this process or its children create can be written by group or world."""
    os.umask(os.umask(0o077) | 0o022)


def make_folder(path: Path) -> None:
    """The folder and its parents, if they do not exist yet; raises `StorageError`."""
    with storage_errors(path):
        if path.parent != path and not path.parent.exists():
            make_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=FOLDER_MODE)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder")


def plain(value: Any) -> Any:
    """The value as strict JSON knows it.

    NaN and the infinities, which JSON has no numbers for, become the strings "NaN", "Infinity" and "-Infinity"; NumPy
    scalars their Python numbers; enums their value; paths and times strings. Secrets become `***`.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str | os.PathLike):
        return redact(str(value))
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): MASK if _is_secret(key, entry) else plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return plain(value.item())
    raise TypeError(f"{type(value).__name__} has no place in JSON: {value!r}")


def dump_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON in ASCII, so that no reader can take a character inside a string for the end of a line."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def write_text(path: Path, text: str) -> None:
    """Replaces a file atomically: readers find the old text or the new one, also after a power cut.

    Raises:
        StorageError: if it cannot be written; the old file is intact then.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with storage_errors(path):
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE & ~0o022)
            with os.fdopen(descriptor, "wb") as file:
                file.write(redact(text).encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replaces a file atomically with strict, indented JSON; raises `StorageError`."""
    write_text(path, dump_json(value, indent=2) + "\n")


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
                os.truncate(self.path, offset)

    def close(self) -> None:
        """Closes the file; a later `append` goes on at its end."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            self._restored = True

    def _open(self) -> int:
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, FILE_MODE & ~0o022)
            if not self._restored:
                os.ftruncate(self._descriptor, 0)
        return self._descriptor


def _is_secret(key: Any, value: Any) -> bool:
    """Whether a mapping's entry is a secret by its name. Only text can be one, so nested sections stay readable."""
    return isinstance(value, str) and is_secret_name(str(key))


def sync_folder(folder: Path) -> None:
    """Makes a rename inside the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _shown(path: Path) -> str:
    """The path on one line of limited length, undecodable bytes spelled out."""
    text = str(path).encode("utf-8", "backslashreplace").decode().replace("\n", "\\n")
    return text if len(text) <= 300 else f"{text[:140]}...{text[-140:]}"
