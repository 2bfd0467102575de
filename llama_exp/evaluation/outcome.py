"""What an evaluation found, and what stops one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """Figures of one evaluation.

    figures: name -> number, None where there is none. results: of each item, in order; JSON. tokens: that were scored
    or written.
    """

    figures: Mapping[str, float | None]
    results: Sequence[Mapping[str, Any]]
    tokens: int


class Stopped(Exception):  # noqa: N818 - no error: somebody asked for it
    """An evaluation was asked to stop, and has no result."""


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean of the items' numbers and its standard error, s / sqrt(n); None for one item."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))
