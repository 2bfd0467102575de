"""What an estimator is asked and what it answers, as plain data: the common form of all of them.

estimator(Question) -> Obtained, or raises NotSeen
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ALL = "all"  # the one arm of an estimator that compares none


class NotSeen(Exception):  # noqa: N818 - no error: an answer
    """The runs do not answer the question; holds the reason, a sentence without its period."""


@dataclass(frozen=True)
class Observation:
    """A run as an estimator sees it.

    run: its index. block: the seed, then values of further keys that runs are paired by. values: argument -> number of
    the quantity that the argument names; infinite where the run diverged, which only comparisons of rates take.
    """

    run: int
    block: tuple[Any, ...]
    values: Mapping[str, float]


@dataclass(frozen=True)
class Question:
    """What a claim asks.

    arms: `of` and `against`, or `ALL` -> their runs, none empty. names: argument -> quantity, for labels. counts:
    argument -> whole number. confidence: of the interval.
    """

    arms: Mapping[str, tuple[Observation, ...]]
    names: Mapping[str, str]
    counts: Mapping[str, int]
    confidence: float


@dataclass(frozen=True)
class Series:
    """A part of a picture. points: (x, y), one per run or pair. line: of the fit. marked: the x that was sought."""

    label: str
    points: tuple[tuple[float, float], ...]
    line: tuple[tuple[float, float], ...] = ()
    marked: float | None = None


@dataclass(frozen=True)
class Drawing:
    """Points and fits that an answer rests on. x, y: titles of the axes."""

    x: str
    y: str
    series: tuple[Series, ...]
    is_log_x: bool = False
    is_log_y: bool = False


@dataclass(frozen=True)
class Obtained:
    """The answer.

    low, high: of its interval; infinite where it is open. unit: of all three, empty for a plain number. method: of the
    interval, in a few words. notes: what a reader must know, sentences.
    """

    value: float
    low: float
    high: float
    unit: str
    method: str
    drawing: Drawing
    notes: tuple[str, ...] = ()
