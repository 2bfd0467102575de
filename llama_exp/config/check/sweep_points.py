"""The jobs of a sweep, expanded before the first one starts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hydra.core.override_parser.types import IntervalSweep, Override

from llama_exp.errors import Problem

# Larger grids are checked in full only along their diagonal, where each value occurs at least once.
MOST_POINTS = 128
MOST_VALUES = 100_000  # of one key


def find_wrong_count(sweep: Override, line: str) -> Problem | None:
    """The problem of a sweep without values, or with more than anybody means."""
    try:
        count = sum(1 for _ in itertools.islice(sweep.sweep_string_iterator(), MOST_VALUES + 1))
    except ValueError as error:
        return Problem(f"cannot be listed: {error}", sweep.key_or_group, line, "give a list of values: a,b,c")
    if count == 0:
        action = "give at least one: a list of values, range(start,stop,step), or a pattern that a choice matches"
        return Problem("has no values to sweep over", sweep.key_or_group, line, action)
    if count > MOST_VALUES:
        return Problem("has too many values", sweep.key_or_group, line, f"give at most {MOST_VALUES}")
    return None


def list_points(sweeps: Sequence[Override]) -> list[list[str]]:
    """One list of `key=value` lines per point of the grid; at most about MOST_POINTS of a larger one.

    A range that a sweeper samples from (`interval(a,b)`) stands in with its two ends.
    """
    axes = [[f"{sweep.get_key_element()}={value}" for value in _values(sweep)] for sweep in sweeps]
    num_points = 1
    for axis in axes:
        num_points *= len(axis)
    if num_points <= MOST_POINTS:
        return [list(point) for point in itertools.product(*axes)]
    longest = max(len(axis) for axis in axes)
    diagonal = [[axis[index % len(axis)] for axis in axes] for index in range(min(longest, 2 * MOST_POINTS))]
    first = [list(point) for point in itertools.islice(itertools.product(*axes), MOST_POINTS)]
    return [point for index, point in enumerate(first + diagonal) if point not in (first + diagonal)[:index]]


def _values(sweep: Override) -> list[str]:
    value = sweep.value()
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    return list(sweep.sweep_string_iterator())
