"""Numbers as a reader wants them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from llama_exp.results.statistics import Estimate

_DIGITS = 4  # that tell values apart, where no interval says how many do
_SMALL, _LARGE, _MOST_DECIMALS = 1e-4, 1e7, 8  # beyond, a number is written with an exponent


def show_number(value: float, decimals: int | None = None) -> str:
    """2.891, 0.0003100, 1.200e+09, NaN.

    Args:
        value: any.
        decimals: of its column; None: as many as make four digits.
    """
    if not math.isfinite(value):
        return {True: "inf", False: "-inf"}[value > 0] if math.isinf(value) else "NaN"
    is_far = abs(value) >= _LARGE or (decimals > _MOST_DECIMALS if decimals is not None else 0 < abs(value) < _SMALL)
    if is_far:
        return f"{value:.{_DIGITS - 1}e}"
    own = max(0, _DIGITS - 1 - (math.floor(math.log10(abs(value))) if value else 0))
    return f"{value:.{own if decimals is None else decimals}f}"


def show_estimate(estimate: Estimate, decimals: int | None = None) -> str:
    """2.891 ± 0.004: the mean and half of its interval; of one number, it alone."""
    if estimate.low is None or estimate.high is None:
        return show_number(estimate.mean, decimals)
    reach = (estimate.high - estimate.low) / 2.0
    return f"{show_number(estimate.mean, decimals)} ± {show_number(reach, decimals)}"


def show_interval(low: float, high: float, decimals: int | None = None) -> str:
    """[-0.021, -0.004]."""
    return f"[{show_number(low, decimals)}, {show_number(high, decimals)}]"


def choose_decimals(estimates: Iterable[Estimate | None]) -> int | None:
    """For all of a column: two digits of the half of an interval that is in the middle; None: there are none."""
    reaches = sorted(_list_reaches(estimates))
    return max(0, 1 - math.floor(math.log10(reaches[len(reaches) // 2]))) if reaches else None


def show_p(p: float) -> str:
    """0.125, 0.0039, < 0.0001."""
    return "< 0.0001" if p < 1e-4 else f"{p:.3g}"


def show_count(value: float) -> str:
    """1 234 567 tokens as 1.23M, 1.5e15 operations as 1.5e+15."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size <= abs(value) < 1000 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _list_reaches(estimates: Iterable[Estimate | None]) -> Iterator[float]:
    for estimate in estimates:
        if estimate is not None and estimate.low is not None and estimate.high is not None:
            reach = (estimate.high - estimate.low) / 2.0
            if 0.0 < reach < math.inf:
                yield reach
