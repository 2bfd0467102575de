"""Local files of a data set: patterns -> paths, and the text in them."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from llama_exp.errors import InputError, Problem
from llama_exp.files.digest import file_digest
from llama_exp.limits.dataset import EncodingErrors

log = logging.getLogger("llama_exp")


def resolve(patterns: Sequence[str]) -> list[Path]:
    """The files that paths or glob patterns (** goes into folders) name, sorted within each pattern, each once.

    A file is one file under however many names and links.

    Raises:
        InputError: a pattern that names no file.
    """
    found: dict[tuple[int, int], Path] = {}
    for pattern in patterns:
        names = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
        files = [Path(name) for name in names if os.path.isfile(name)]
        if not files:
            raise InputError(
                Problem(
                    what="no file of this name",
                    where="dataset.files",
                    found=f"{pattern!r}" + (" (a folder)" if names else ""),
                    action=f"give files or a pattern such as 'texts/**/*.txt'; relative paths start at {Path.cwd()}",
                )
            )
        for path in files:
            found.setdefault(_identity(path), path)
    return list(found.values())


def _identity(path: Path) -> tuple[int, int]:
    """Device and number, the same for all names of a file."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def digest_files(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file; InputError where one cannot be read."""
    try:
        return [file_digest(path) for path in paths]
    except OSError as error:
        raise explain_unreadable(error) from None


def explain_unreadable(error: OSError) -> InputError:
    """The InputError for a file that the system does not let us read."""
    return InputError(
        Problem(
            what="a file of the data set cannot be read",
            where="dataset.files",
            found=f"{error.filename}: {error.strerror}",
            action="check that it exists and that this user may read it",
        )
    )


def decode(data: bytes, path: Path, errors: EncodingErrors = EncodingErrors.strict, first_line: int = 1) -> str:
    """The text of UTF-8 bytes, without a byte order mark and with line ends made newlines.

    Args:
        data: The bytes.
        path: Their file, for messages.
        errors: What happens to bytes that are not UTF-8.
        first_line: Number of the first line in `data`.

    Raises:
        InputError: bytes that are not UTF-8, under strict; names file, line and byte.
    """
    data = data.removeprefix(b"\xef\xbb\xbf") if first_line == 1 else data
    try:
        text = data.decode("utf-8", errors=errors.value)
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        raise InputError(
            Problem(
                what="bytes that are not UTF-8",
                where=f"{path}:{line}",
                found=f"0x{data[error.start]:02x}, {error.reason}",
                action="convert the file to UTF-8; the text_files data set can also take encoding_errors: replace",
            )
        ) from None
    if errors is EncodingErrors.replace:
        replaced = text.count("\ufffd") - data.count("\ufffd".encode())
        if replaced:
            log.warning("%s: %d stretches of bytes that are not UTF-8 became U+FFFD", path, replaced)
    return text.replace("\r\n", "\n").replace("\r", "\n")
