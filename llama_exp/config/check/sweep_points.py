"""The jobs of a sweep, expanded before the first one starts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hydra.core.override_parser.types import IntervalSweep, Override

# Larger grids are checked in full only along their diagonal, where each value occurs at least once.
MOST_POINTS = 128


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
