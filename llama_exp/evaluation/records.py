"""Items of a task from a file of JSON lines, and texts made of their keys."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.files.json_file import open_regular, parse_text
from llama_exp.limits import is_number
from llama_exp.limits.evaluation import read_template

MAX_LINE_BYTES = 1 << 24  # an item of a task is text that a model reads at once


def read_records(file: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of a file of JSON lines, with `file:line`; blank lines are skipped.

    Raises:
        InputError: the file cannot be read, holds no object at all, or a line that is none; file and line are named.
    """
    path = Path(os.path.expanduser(file))
    found = False
    with open_regular(path) as raw, os.fdopen(os.dup(raw.fileno()), "rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES + 1), b""), start=1):
            where = f"{path}:{number}"
            if len(line) > MAX_LINE_BYTES:
                action = "write one item a line; a long text belongs into a set (evaluation.sets)"
                raise InputError.about(
                    where, "the line is too long for an item", f"over {MAX_LINE_BYTES} bytes", action
                )
            if line.strip():
                found = True
                yield where, _parse(line, where, number == 1)
    if not found:
        raise InputError.about(path, "the file has no items", "only blank lines, or nothing", "write one item a line")


def _parse(line: bytes, where: str, is_first: bool) -> dict[str, Any]:
    line = line.removeprefix(b"\xef\xbb\xbf") if is_first else line
    try:
        return parse_text(where, line.decode("utf-8"))
    except UnicodeDecodeError as error:
        found = f"0x{error.object[error.start]:02x}, {error.reason}"
        action = "save the file as UTF-8 (from Windows: iconv -f WINDOWS-1252 -t UTF-8)"
        raise InputError.about(where, "bytes that are not UTF-8", found, action) from None
    except InputError as error:
        (problem,) = error.problems
        what, found = problem.what.replace("the file", "the line"), problem.found.removeprefix("line 1, ")
        raise InputError.about(where, what, found, "each line must be one JSON object") from None


def fill(template: str, record: Mapping[str, Any], where: str, key: str) -> str:
    """A template with the record's values in the place of its keys.

    Args:
        template: see `read_template`.
        record: JSON.
        where: file and line, for messages.
        key: of the task, whose value the template is; for messages.

    Raises:
        InputError: the record lacks a key, or its value is neither text nor number.
    """
    return "".join(
        literal + ("" if name is None else read_text(record, name, where, key))
        for literal, name in read_template(template)
    )


def read_text(record: Mapping[str, Any], name: str, where: str, key: str) -> str:
    """The text or number at a key of a record; arguments as in `fill`."""
    value = read_value(record, name, where, key)
    if isinstance(value, str) or is_number(value):
        return str(value)
    found = f"{name}={_shown(value)}"
    raise InputError.about(where, f"a value is neither text nor number ({key} asks for it)", found, "write it as text")


def read_value(record: Mapping[str, Any], name: str, where: str, key: str) -> Any:
    """The value at a key of a record; arguments as in `fill`."""
    if name not in record:
        found = f"keys present: {', '.join(map(repr, record)) or 'none'}"
        action = f"add it to the record, or name another key in {key} of the task"
        raise InputError.about(where, f"the record has no key {name!r}", found[:200], action)
    return record[name]


def read_texts(record: Mapping[str, Any], name: str, where: str, key: str) -> list[str]:
    """The list of texts or numbers at a key of a record; arguments as in `fill`."""
    values = read_value(record, name, where, key)
    if not isinstance(values, list) or not all(isinstance(value, str) or is_number(value) for value in values):
        found = f"{name}={_shown(values)}"
        raise InputError.about(where, f"a value is no list of texts ({key} asks for it)", found, 'write ["...", "..."]')
    return [str(value) for value in values]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
