"""Differences and verdicts as lines and tables for a person, and as plain data for programs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from llama_exp.results.differences import ABSENT, Difference, Effect

_DIGEST = re.compile(r"([0-9a-f]{12})[0-9a-f]{4,}(.*)")
WIDEST = 60
DIGITS = 8  # of numbers: more than float32 has
MOST = 12  # of one part
NAMED = 3  # of one part, in a sentence


def list_lines(differences: Sequence[Difference]) -> list[tuple[str, str]]:
    """Name and `before -> after` of each difference; of a part with many of them the first."""
    lines: list[tuple[str, str]] = []
    for part, entries in _by_part(sorted(differences, key=lambda entry: -entry.effect)):
        lines += [(str(entry), f"{show_value(entry.before)} -> {show_value(entry.after)}") for entry in entries[:MOST]]
        if len(entries) > MOST:
            lines.append((f"{part}: ...", f"{len(entries) - MOST} more"))
    return lines


def name_causes(differences: Iterable[Difference], effect: Effect) -> str:
    """The differences of one effect in a few words: `code (models/norm.py), versions (numpy, jax and 2 more)`."""
    parts = _by_part(entry for entry in differences if entry.effect is effect)
    return ", ".join(f"{part} ({_first_names(entries)})" for part, entries in parts)


def _first_names(entries: Sequence[Difference]) -> str:
    names = ", ".join(entry.name for entry in entries[:NAMED])
    return names if len(entries) <= NAMED else f"{names} and {len(entries) - NAMED} more"


def show_value(value: Any) -> str:
    """A value on one short line: digests cut, long texts too."""
    if value is None:
        return "none"
    if isinstance(value, str) and (match := _DIGEST.fullmatch(value)):
        return match[1] + match[2]
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}"
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def show_pair(before: Any, after: Any) -> tuple[str, str]:
    """Two values that differ, with as many digits as that takes."""
    one, other = show_value(before), show_value(after)
    return (one, other) if one != other else (repr(before), repr(after))


def to_data(differences: Iterable[Difference]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {
            "part": entry.part,
            "name": entry.name,
            "before": None if entry.before == ABSENT else entry.before,
            "after": None if entry.after == ABSENT else entry.after,
            "can_change": entry.effect.name,
        }
        for entry in differences
    ]


def _by_part(differences: Iterable[Difference]) -> list[tuple[str, list[Difference]]]:
    parts: dict[str, list[Difference]] = {}
    for entry in differences:
        parts.setdefault(entry.part, []).append(entry)
    return list(parts.items())
