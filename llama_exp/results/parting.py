"""From which row on the metrics of two runs part, and how far.

Rows are found by step and split (evaluations: by name), so that a run that was cut, or made longer, is compared as far
as both go. What a clock or a machine's memory decides is not compared. Imports no framework.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What a clock or the machine decides, not the run; `file` names where items of an evaluation stand.
NOT_COMPARED = frozenset({"tokens_per_second", "seconds", "peak_memory_bytes", "mfu", "file"})
Key = tuple[int, str]


@dataclass(frozen=True)
class Gap:
    """Two values of one figure. step, split: of the row. relative: how far apart, of the larger one."""

    step: int
    split: str
    figure: str
    before: Any
    after: Any
    relative: float


@dataclass(frozen=True)
class Parting:
    """How the rows of two runs compare.

    compared: rows that both have. missing: step and split of rows of the first run that the second lacks, up to the
    last step that the second reached; added: the other way round. gaps: every value that differs, in order.
    """

    compared: int
    missing: tuple[Key, ...]
    added: tuple[Key, ...]
    gaps: tuple[Gap, ...]

    @property
    def first(self) -> Gap | None:
        """The first value that differs; None: there is none."""
        return self.gaps[0] if self.gaps else None

    def find_largest(self, figure: str) -> Gap | None:
        """The largest relative gap of one figure; None: all are equal."""
        return max((gap for gap in self.gaps if gap.figure == figure), key=lambda gap: gap.relative, default=None)


def compare_rows(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Parting:
    """Compares what two runs measured.

    Args:
        before: rows of the first run, of metrics.jsonl and evaluation.jsonl.
        after: of the second.
    """
    one, other = _by_key(before), _by_key(after)
    both = sorted(one.keys() & other.keys(), key=_order)
    gaps = tuple(gap for key in both for gap in _find_gaps(key, one[key], other[key]))
    return Parting(len(both), _lacking(one, other), _lacking(other, one), gaps)


def measure_gap(before: Any, after: Any) -> float:
    """How far two numbers are apart, of the larger one's size; infinite for what is no number, or one NaN."""
    if before == after or (_is_nan(before) and _is_nan(after)):
        return 0.0
    if not (_is_number(before) and _is_number(after)) or _is_nan(before) or _is_nan(after):
        return math.inf
    if math.isinf(before) or math.isinf(after):
        return math.inf
    return abs(before - after) / max(abs(before), abs(after))


def _find_gaps(key: Key, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Gap]:
    for figure in [*before, *(name for name in after if name not in before)]:
        if figure not in NOT_COMPARED:
            relative = measure_gap(before.get(figure), after.get(figure))
            if relative:
                yield Gap(*key, figure, before.get(figure), after.get(figure), relative)


def _by_key(rows: Iterable[Mapping[str, Any]]) -> dict[Key, Mapping[str, Any]]:
    """Rows by step and split; of several of one key the last, which a run that went on wrote."""
    found = {}
    for row in rows:
        step = row.get("step")
        found[(step if isinstance(step, int) else -1, str(row.get("split", row.get("name", ""))))] = row
    return found


def _lacking(one: Mapping[Key, Any], other: Mapping[Key, Any]) -> tuple[Key, ...]:
    """Keys of `one` that `other` lacks as far as `other` goes."""
    last = max((step for step, _ in other), default=-1)
    return tuple(sorted((key for key in one.keys() - other.keys() if key[0] <= last), key=_order))


def _order(key: Key) -> tuple[int, bool, str]:
    """Training before what is measured after it."""
    return key[0], key[1] != "train", key[1]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
