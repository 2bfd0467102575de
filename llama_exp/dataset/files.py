"""Local files of a data set: patterns -> paths, and the text in them."""

from __future__ import annotations

import difflib
import glob
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from llama_exp.errors import InputError, Problem
from llama_exp.files.digest import file_digest

_HEAD_BYTES = 4096
# First bytes -> what the file is, and the command that makes text of it ({} is the file).
_NO_TEXT = {
    b"\x1f\x8b": ("a gzip archive", "gunzip -c {}"),
    b"BZh": ("a bzip2 archive", "bunzip2 -c {}"),
    b"\xfd7zXZ\x00": ("an xz archive", "xz -dc {}"),
    b"\x28\xb5\x2f\xfd": ("a zstd archive", "zstd -dc {}"),
    b"PK\x03\x04": ("a zip archive", "unzip -p {}"),
    b"%PDF-": ("a PDF document", "pdftotext {} -"),
    b"\xff\xfe": ("text in UTF-16", "iconv -f UTF-16 -t UTF-8 {}"),
    b"\xfe\xff": ("text in UTF-16", "iconv -f UTF-16 -t UTF-8 {}"),
}
_PACKED_SUFFIXES = {".gz", ".bz2", ".xz", ".zst", ".zip", ".pdf"}
_MAX_NUL_SHARE = 0.2  # of the first bytes; UTF-16 of English text has a half


def resolve(patterns: Sequence[str]) -> list[Path]:
    """The files that paths or glob patterns (** goes into folders) name, sorted within each pattern, each once.

    A file is one file under however many names and links.

    Raises:
        InputError: a pattern that names no file, or a file that is no text: an archive, another encoding.
    """
    found: dict[tuple[int, int], Path] = {}
    for pattern in patterns:
        typed = os.path.expanduser(pattern)
        # A file that is called so comes first: "[2025] notes.txt" as a pattern would name other files.
        names = [typed] if os.path.isfile(typed) else sorted(glob.glob(typed, recursive=True))
        files = [Path(name) for name in names if os.path.isfile(name)]
        if not files:
            raise InputError(
                Problem(
                    what="no file of this name",
                    where="dataset.files",
                    found=f"{pattern!r}" + (" (a folder)" if names else ""),
                    action=f"{_suggestion(pattern)}; relative paths start at {Path.cwd()}",
                )
            )
        for path in files:
            found.setdefault(_identity(path), path)
    for path in found.values():
        _require_text(path)
    return list(found.values())


def _identity(path: Path) -> tuple[int, int]:
    """Device and number, the same for all names of a file."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _suggestion(pattern: str) -> str:
    """What to give instead of a pattern that names no file."""
    path = Path(os.path.expanduser(pattern))
    if path.is_dir():
        suffixes = Counter(file.suffix for file in path.rglob("*") if file.is_file())
        ((suffix, _),) = suffixes.most_common(1) or [(".txt", 0)]
        inside = os.path.join(pattern, "**", f"*{suffix}")
        return f"give the files in it: dataset.files={shlex.quote(inside)}"
    beside = [file.name for file in path.parent.glob("*") if file.is_file()]
    if near := difflib.get_close_matches(path.name, beside, n=1):
        return f"did you mean dataset.files={shlex.quote(str(path.with_name(near[0])))}"
    return "give files or a pattern such as 'texts/**/*.txt'"


def _require_text(path: Path) -> None:
    """Refuses what would otherwise be read as nonsense, or replaced by it."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise explain_unreadable(error) from None
    for first, (kind, command) in _NO_TEXT.items():
        if head.startswith(first):
            plain = path.with_suffix("") if path.suffix in _PACKED_SUFFIXES else path.with_name(f"{path.name}.utf8.txt")
            packed, result = shlex.quote(str(path)), shlex.quote(str(plain))
            action = f"{command.format(packed)} > {result}, then give dataset.files={result}"
            raise InputError(Problem("this is no text in UTF-8", str(path), kind, action))
    if head.count(0) > _MAX_NUL_SHARE * len(head):
        what, found = "this is no text in UTF-8", f"{head.count(0)} zero bytes in its first {len(head)}"
        raise InputError(Problem(what, str(path), found, "convert it (iconv -f UTF-16 -t UTF-8 ...), or leave it out"))


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


def explain_encoding(path: Path, line: int, error: UnicodeDecodeError) -> InputError:
    """The InputError for bytes that are not UTF-8, in a line of a file."""
    file, result = shlex.quote(str(path)), shlex.quote(str(path.with_name(f"{path.stem}.utf8{path.suffix}")))
    return InputError(
        Problem(
            what="bytes that are not UTF-8",
            where=f"{path}:{line}",
            found=f"0x{error.object[error.start]:02x}, {error.reason}",
            action=f"convert the file (from Windows: iconv -f WINDOWS-1252 -t UTF-8 {file} > {result}) and give"
            f" dataset.files={result}; or, for text files only, dataset.encoding_errors=replace",
        )
    )


def decode_line(data: bytes, path: Path, line: int) -> str:
    """The text of a line of UTF-8, the first one without a byte order mark; InputError names file, line and byte."""
    data = data.removeprefix(b"\xef\xbb\xbf") if line == 1 else data
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise explain_encoding(path, line, error) from None
