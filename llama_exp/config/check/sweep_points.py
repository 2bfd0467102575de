"""The jobs of a sweep, counted without listing them, and listed before the first one starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from llama_exp.errors import Problem

MOST_POINTS = 10_000
MOST_VALUES = 100_000  # of one key


def find_wrong_count(sweep: Override, line: str) -> Problem | None:
    """The problem of a sweep without values, or whose values nobody can list."""
    try:
        count = count_values(sweep)
    except (ValueError, ArithmeticError) as error:
        return Problem(f"cannot be listed: {error}", sweep.key_or_group, line, "give a list of values: a,b,c")
    if count == 0:
        action = "give at least one: a list of values, range(start,stop,step), or a pattern that a choice matches"
        return Problem("has no values to sweep over", sweep.key_or_group, line, action)
    if count > MOST_VALUES:
        return Problem(f"has too many values: {count}", sweep.key_or_group, line, f"give at most {MOST_VALUES}")
    return None


def find_too_many(sweeps: Sequence[Override]) -> Problem | None:
    """The problem of a grid with more points than anybody means."""
    count = count_points(sweeps)
    if count <= MOST_POINTS:
        return None
    factors = " x ".join(f"{count_values(sweep)} of {sweep.key_or_group}" for sweep in sweeps)
    action = f"give at most {MOST_POINTS} jobs; hydra/sweeper=search tries a part of a larger space"
    return Problem("the sweep has too many jobs", "command line", f"{count} = {factors}", action)


def count_points(sweeps: Sequence[Override]) -> int:
    """How many points a grid has, without listing them."""
    return math.prod(count_values(sweep) for sweep in sweeps)


def count_values(sweep: Override) -> int:
    """How many values a key has, without listing a range; raises ValueError for one that has no end."""
    value = sweep.value()
    if not isinstance(value, RangeSweep):
        return sum(1 for _ in sweep.sweep_string_iterator())
    start, stop, step = (Decimal(str(number)) for number in (value.start, value.stop, value.step))
    if step == 0:
        raise ValueError("range() with a step of 0")
    return max(0, math.ceil((stop - start) / step))


def list_points(sweeps: Sequence[Override]) -> Iterator[tuple[str, ...]]:
    """The `key=value` lines of each point of a grid, in the order in which Hydra's basic sweeper numbers them."""
    axes = [[f"{sweep.get_key_element()}={value}" for value in sweep.sweep_string_iterator()] for sweep in sweeps]
    return itertools.product(*axes)


def list_corners(sweeps: Sequence[Override]) -> Iterator[tuple[str, ...]]:
    """Points of a space in which each value of a choice, and each end of an interval or a range, occurs."""
    axes = [[f"{sweep.get_key_element()}={value}" for value in _ends(sweep)] for sweep in sweeps]
    for index in range(max(map(len, axes), default=1)):
        yield tuple(axis[index % len(axis)] for axis in axes)


def list_single_changes(sweeps: Sequence[Override]) -> Iterator[tuple[str, ...]]:
    """The first point, and those that differ from it in one key: each value occurs, beside values that stay."""
    axes = [[f"{sweep.get_key_element()}={value}" for value in _ends(sweep)] for sweep in sweeps]
    first = tuple(axis[0] for axis in axes)
    yield first
    for index, axis in enumerate(axes):
        for line in axis[1:]:
            yield (*first[:index], line, *first[index + 1 :])


def drop_repeated(sweep: Override) -> tuple[str, int]:
    """A list of values as an override in which each stands once, and how many are left out."""
    values = list(sweep.sweep_string_iterator())
    unique = list(dict.fromkeys(values))
    return f"{sweep.get_key_element()}={','.join(unique)}", len(values) - len(unique)


def _ends(sweep: Override) -> list[str]:
    value: Any = sweep.value()
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    if isinstance(value, RangeSweep):
        last = value.start + (count_values(sweep) - 1) * value.step  # type: ignore[operator]
        return [str(value.start), str(last)]
    return list(sweep.sweep_string_iterator())
