"""Single files on the disk: whole or not at all, also after a power cut, without secrets, writable by their owner only.

    with replaced(path) as draft: ...   any file; `write_text` and `write_json` for the records of a run
    write_blocks                        a large file as a stream, new or continued
    append_line                         a file that several processes add to

Whole folders: whole_folder.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from llama_exp.errors import Problem, StorageError
from llama_exp.files.json_text import dump_json
from llama_exp.files.redact import redact

FILE_MODE = 0o644
# A link in the place of a file that is opened by its name would send what is written somewhere else.
OWN = os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER_MODE = 0o755
_ACTIONS = {
    errno.ENOSPC: "free some space, then run the same command with resume=auto",
    errno.EDQUOT: "free some of your quota, then run the same command with resume=auto",
    errno.EACCES: "make it writable, or choose another folder with hydra.run.dir=<folder>",
    errno.EPERM: "make it writable, or choose another folder with hydra.run.dir=<folder>",
    errno.EROFS: "choose a folder on a writable file system with hydra.run.dir=<folder>",
    errno.ENAMETOOLONG: "choose a shorter `name`, or another folder with hydra.run.dir=<folder>",
    errno.ENOTDIR: "a part of the path is a file: choose another folder with hydra.run.dir=<folder>",
    errno.EEXIST: "a file is in the way: move it, or choose another folder with hydra.run.dir=<folder>",
    errno.ELOOP: "a link is in the way: remove it, or choose another folder with hydra.run.dir=<folder>",
    errno.ENOENT: "moved, deleted, or impossible there: choose another folder with hydra.run.dir=<folder>",
}


@contextlib.contextmanager
def storage_errors(path: Path, describe: Callable[[OSError], Problem] | None = None) -> Iterator[None]:
    """Turns operating system errors of the block into a `StorageError` that says what to do.

    Args:
        path: what is written.
        describe: words of a caller whose files are not a run's; by default they name `path` and `hydra.run.dir`.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(_described(path, error) if describe is None else describe(error)) from error
    except ValueError as error:  # of the operating system's calls, for a NUL character in the name
        if "\0" not in str(path):
            raise
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


def free_name(path: Path) -> Path:
    """The path, or if there is something the first of `<name>-2`, `-3` ... where there is nothing."""
    number, found = 1, path
    while os.path.lexists(found):
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def claim_folder(path: Path) -> bool:
    """Makes the folder for this process alone; False: another process was quicker. Raises `StorageError`."""
    with storage_errors(path):
        make_folder(path.parent)
        try:
            path.mkdir(mode=FOLDER_MODE)
        except FileExistsError:
            return False
    return True


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Raises `StorageError` if one of the names in a folder is a symbolic link, wherever it leads."""
    for path in (folder / name for name in names):
        with storage_errors(path):
            if path.is_symlink():
                raise OSError(errno.ELOOP, f"a link to {_shown(path.readlink())}")


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A draft beside `path` that the block fills and that takes its place: readers find the old content or the new.

    Raises:
        OSError: it cannot be written; the old file is intact then, as after any exception of the block.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield draft
        sync(draft)
        os.replace(draft, path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
    sync(path.parent)


def remove_drafts(path: Path) -> None:
    """Removes what processes that were killed in `replaced` left beside `path`, which nobody else writes now."""
    for draft in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError):
            draft.unlink()


def write_text(path: Path, text: str) -> None:
    """Replaces a file atomically: readers find the old text or the new one, also after a power cut.

    Raises:
        StorageError: if it cannot be written; the old file is intact then.
    """
    with storage_errors(path), replaced(path) as draft:
        write_blocks(draft, [redact(text).encode("utf-8", "backslashreplace")])


def write_json(path: Path, value: Any) -> None:
    """Replaces a file atomically with strict, indented JSON; raises `StorageError`."""
    write_text(path, dump_json(value, indent=2) + "\n")


def write_blocks(path: Path, blocks: Iterable, start: int | None = None, hasher: Any = None) -> int:
    """Writes blocks of bytes as they come, then through to the disk.

    Args:
        path: a file that does not exist; with `start` one that may.
        blocks: bytes-like; each is written before the next is asked for.
        start: the file's length that is kept, in bytes, before the first block; None: the file is new.
        hasher: of `hashlib`, is fed every block; None: none.

    Returns:
        The bytes that were written.

    Raises:
        OSError: it cannot be written, or exists; what was written so far stays.
    """
    flags = os.O_WRONLY | os.O_CREAT | OWN | (os.O_EXCL if start is None else 0)
    descriptor, size = os.open(path, flags, FILE_MODE), 0
    try:
        if start is not None:
            os.ftruncate(descriptor, start)
            os.lseek(descriptor, start, os.SEEK_SET)
        for block in blocks:
            if hasher is not None:
                hasher.update(block)
            size += len(block)
            _write_whole(descriptor, block)
            del block  # else a tensor would be kept while the next is read
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return size


def append_line(path: Path, value: Any) -> None:
    """Adds a line of strict JSON, through to the disk, to a file which only its owner may read.

    A single write, so that the lines of several processes do not mix. Behind half a line, which a kill left, a new one
    begins. Raises `StorageError`.
    """
    make_folder(path.parent)
    with storage_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | OWN, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            begin = b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""
            _write_whole(descriptor, begin + (dump_json(value) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Gives a file or folder another name on the same disk, also for the time after a power cut; raises OSError."""
    source.rename(target)
    sync(target.parent)


def set_aside(path: Path, reason: str) -> Path:
    """Renames to the first free of `<name>.<reason>-1`, `-2` ..., which is returned; raises OSError."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{reason}-{number}")).exists():
        number += 1
    move(path, aside)
    return aside


def replace_link(link: Path, target: str) -> None:
    """Makes `link` a symbolic link to `target`, atomically; raises OSError, also where there are no such links."""
    draft = link.with_name(f".{link.name}.{secrets.token_hex(4)}.tmp")
    draft.symlink_to(target)
    try:
        os.replace(draft, link)
    except OSError:
        draft.unlink()
        raise
    sync(link.parent)


def sync(path: Path) -> None:
    """Brings a file's content, or a folder's names, through to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_whole(descriptor: int, data) -> None:
    view = memoryview(data)
    while len(view):
        view = view[os.write(descriptor, view) :]


def _described(path: Path, error: OSError) -> Problem:
    code = error.errno or 0
    action = _ACTIONS.get(code, "check the disk, or choose another folder with hydra.run.dir=<folder>")
    found = f"{errno.errorcode.get(code, 'error')}: {error.strerror or error}"
    return Problem("cannot be written", _shown(path), found, action)


def _shown(path: Path) -> str:
    """The path on one line of limited length, undecodable bytes spelled out."""
    text = str(path).encode("utf-8", "backslashreplace").decode().replace("\n", "\\n")
    return text if len(text) <= 300 else f"{text[:140]}...{text[-140:]}"
