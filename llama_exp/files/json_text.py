"""Values as strict JSON without secrets, the form of every record that a run leaves."""

from __future__ import annotations

import datetime
import enum
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from llama_exp.files.redact import MASK, is_secret_name, list_secrets, redact

_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def as_number(value: Any) -> Any:
    """A value of a record, where `plain` may have written a number as text; anything else as it is."""
    return _NUMBERS.get(value, value) if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """The value as strict JSON knows it.

    NaN and the infinities, which JSON has no numbers for, become the strings "NaN", "Infinity" and "-Infinity"; NumPy
    scalars their Python numbers; enums their value; paths and times strings, undecodable bytes of a path spelled out.
    Secrets become `***`.

    Raises:
        TypeError: for anything else.
    """
    return _plain(value, list_secrets())


def dump_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON in ASCII, so that no reader can take a character inside a string for the end of a line."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def _is_secret(key: Any, value: Any) -> bool:
    """Whether a mapping's entry is a secret by its name. Only text can be one, so nested sections stay readable."""
    return isinstance(value, str) and is_secret_name(str(key))


def _plain(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, enum.Enum):
        return _plain(value.value, secrets)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str | os.PathLike):
        # Half a character is no text for strict readers, which would refuse the whole record.
        return redact(str(value).encode("utf-8", "backslashreplace").decode(), secrets)
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): MASK if _is_secret(key, entry) else _plain(entry, secrets) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry, secrets) for entry in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return _plain(value.item(), secrets)
    raise TypeError(f"{type(value).__name__} has no place in JSON: {value!r}")
