"""Files that came from anywhere: opened only if they are ordinary and where they should be; JSON without surprises.

Two readers of one JSON file must not see two things in it. So what the standard leaves open is refused: duplicate
keys, NaN and numbers that overflow, a byte order mark, halves of characters. Imports no framework.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from llama_exp.errors import InputError

MAX_BYTES = 1 << 20  # published configurations have 1 to 60 KB
# An empty list takes three bytes of text and 64 of memory. Larger files have more than this only to fill the memory.
MAX_VALUES = 1 << 20
OBJECT_VALUES = 4  # an object takes as much memory as some other values
NAMES_SHOWN = 5
MAX_RECORD_BYTES = 1 << 24  # of a run's own records, which hold what callbacks and libraries say
_BYTE_ORDER_MARK = "\ufeff"
# A number is taken whole, whatever it is: tried digit by digit, a long one would take the square of its length.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?|[{}\[\]]|-?Infinity|NaN|-?\d++(?:\.\d++)?+(?:[eE][-+]?\d++)?+')
_MAX_DIGITS = 30  # of whole numbers
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> dict:
    """The JSON object in a file; UTF-8, every number finite, no key twice in an object.

    Args:
        path: an ordinary file, or a link to one.
        max_bytes: larger files are refused before they are read.
        max_values: files with more commas and brackets are refused before they are taken apart.

    Raises:
        InputError: the file cannot be read, is too large, or is not such an object; line and column where known.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise InputError.about(path, "the file is too large for what it holds", f"{size} bytes, limit {max_bytes}")
        try:
            data = file.read(max_bytes)
        except OSError as error:
            raise _unreadable(path, error) from error
    return parse_json(path, data, max_values)


def parse_json(path: Path, data: bytes, max_values: int = MAX_VALUES) -> dict:
    """As `read_json`, for JSON that is a part of the file `path`."""
    num_values = data.count(b",") + data.count(b"[") + OBJECT_VALUES * data.count(b"{")
    if num_values > max_values:
        what = "the file has too many values for what it holds"
        raise InputError.about(path, what, f"about {num_values}, limit {max_values}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"line {data[: error.start].count(10) + 1}, byte {error.start}"
        raise InputError.about(path, "the file is not UTF-8 text", f"{where}: {error.reason}") from error
    return parse_text(path, text)


def read_record(path: Path) -> dict | None:
    """The JSON object in a file that this package wrote; None if there is none, half of one, or somebody else's."""
    try:
        return read_json(path, MAX_RECORD_BYTES)
    except InputError:
        return None


def read_lines(path: Path) -> list[dict]:
    """The JSON objects in a file of one a line; a last line without its newline was cut short by a kill and is none.

    Raises:
        InputError: for a whole line that is no such object, with its number; or the file cannot be read.
    """
    with open_regular(path) as file:
        lines = file.read().split(b"\n")
    found = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            found.append(parse_json(path, line))
        except InputError as error:
            (problem,) = error.problems
            action = "restore the line, or delete it"
            raise InputError.about(path, problem.what, f"line {number}: {problem.found}", action) from error
    return found


def open_regular(path: Path) -> FileIO:
    """Opens a file for reading; one that is not an ordinary file (a pipe, a device, a folder) is refused at once.

    Raises:
        InputError: no such file, no permission, or not an ordinary file.
    """
    descriptor = -1
    try:
        # A pipe without a writer would make the opening wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return FileIO(descriptor, "rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        if descriptor >= 0:
            os.close(descriptor)
        raise _unreadable(path, error) from error
    os.close(descriptor)
    raise InputError.about(path, "not an ordinary file", "a folder, a pipe or a device", "give an ordinary file")


def inside(folder: Path, name: str) -> Path:
    """The path of a file of `folder`, which may not exist.

    Links may lead to other places of the folder, or into the `blobs` of the Hugging Face cache that it lies in.

    Args:
        folder: the model's folder.
        name: relative path in it, from a file that may come from anywhere.

    Raises:
        InputError: the name or a link leads out of the folder.
    """
    folder = Path(folder)
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise InputError.about(
            folder, "a file's name leads out of its folder", repr(name)[:80], "do not use this model"
        )
    try:
        root, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise _unreadable(path, error) from error
    allowed = [root, *([root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [])]
    if not any(target.is_relative_to(place) for place in allowed):
        action = "replace the link by the file itself, if you trust it"
        raise InputError.about(path, "a link leads out of the model's folder", f"to {target}", action)
    return path


def names_in(folder: Path) -> str:
    """The first few names in a folder, for messages."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        return error.strerror or str(error)
    more = f" and {len(names) - NAMES_SHOWN} more" if names[NAMES_SHOWN:] else ""
    return (", ".join(repr(name)[1:-1][:60] for name in names[:NAMES_SHOWN]) + more) or "an empty folder"


def parse_text(path: object, text: str) -> dict:
    """As `parse_json`, for text of any size; `path` is what messages say where it stands."""
    if text.startswith(_BYTE_ORDER_MARK):
        raise InputError.about(
            path, "the file starts with a byte order mark", "line 1, column 1", "save it as plain UTF-8"
        )
    try:
        document = json.loads(
            text, object_pairs_hook=_unique, parse_float=_finite, parse_int=_int, parse_constant=_no_constant
        )
        if _SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()  # pairs pass, halves do not
    except json.JSONDecodeError as error:
        found = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise InputError.about(path, "the file is not valid JSON", found) from error
    except RecursionError as error:
        raise InputError.about(path, "the file is not valid JSON", "nested too deeply") from error
    except UnicodeEncodeError as error:
        raise InputError.about(path, "the file is not valid JSON", "half a surrogate pair") from error
    except ValueError as error:
        found = next((f"{place}: {error}" for place in _culprits(text)), str(error))
        raise InputError.about(path, "the file is not valid JSON", found) from error
    if not isinstance(document, dict):
        found = f"line 1, column 1: {type(document).__name__}"
        raise InputError.about(path, "the file does not hold a JSON object", found)
    return document


def _unique(pairs: list[tuple[str, object]]) -> dict:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:60]!r} stands twice in one object")
            seen.add(key)
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:30]} is no finite number")
    return number


def _int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"{text[:_MAX_DIGITS]}... has too many digits")
    return int(text)


def _no_constant(text: str):
    raise ValueError(f"{text} is no finite number")


def _culprits(text: str) -> Iterator[str]:
    """Where the duplicate keys and refused numbers of a text are; the text is JSON otherwise."""
    keys: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        symbol, is_key = token[0], token[1] is not None
        if symbol in "{[":
            keys.append(set())
        elif symbol in "}]":
            keys.pop()
        elif is_key:
            key = json.loads(symbol[: symbol.rindex('"') + 1])
            if key in keys[-1]:
                yield _place(text, token.start())
            keys[-1].add(key)
        elif symbol[0] != '"' and _is_refused(symbol):
            yield _place(text, token.start())


def _is_refused(number: str) -> bool:
    if number.removeprefix("-").isdigit():
        return len(number) > _MAX_DIGITS
    return not math.isfinite(float(number.replace("Infinity", "inf")))


def _place(text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    return f"line {line}, column {position - text.rfind(chr(10), 0, position)}"


def _unreadable(path: Path, error: Exception) -> InputError:
    found = getattr(error, "strerror", None) or str(error)
    if isinstance(error, FileNotFoundError) and path.parent.is_dir():
        found += f" (the folder holds: {names_in(path.parent)})"
    return InputError.about(
        path, "the file cannot be read", found, "check the path and its permissions, or download it again"
    )
