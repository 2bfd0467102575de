"""Numbers as a reader wants them."""

from __future__ import annotations

import math

from llama_exp.results.statistics import Estimate

_DIGITS = 4  # that tell values apart, where no spread says how many do


def show_number(value: float, spread: float | None = None) -> str:
    """The value with as many decimals as its spread makes certain, one more for rounding: 2.8912, 0.00031, 1.2e+09.

    Args:
        value: any.
        spread: half of an interval, or a difference that should be seen; None: four digits.
    """
    if not math.isfinite(value):
        return {True: "inf", False: "-inf"}[value > 0] if math.isinf(value) else "NaN"
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{_DIGITS - 1}e}"
    return f"{value:.{_count_decimals(value, spread)}f}"


def show_estimate(estimate: Estimate) -> str:
    """2.891 ± 0.004: the mean and half of its interval; of one number, it alone."""
    if estimate.low is None or estimate.high is None:
        return show_number(estimate.mean)
    reach = (estimate.high - estimate.low) / 2.0
    return f"{show_number(estimate.mean, reach)} ± {show_number(reach, reach)}"


def show_interval(low: float, high: float) -> str:
    """[-0.021, -0.004]."""
    reach = (high - low) / 2.0
    return f"[{show_number(low, reach)}, {show_number(high, reach)}]"


def show_p(p: float) -> str:
    """0.125, 0.0039, < 0.0001."""
    return "< 0.0001" if p < 1e-4 else f"{p:.3g}"


def show_count(value: float) -> str:
    """1 234 567 tokens as 1.23M, 1.5e15 operations as 1.5e+15."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size <= abs(value) < 1000 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _count_decimals(value: float, spread: float | None) -> int:
    if spread and math.isfinite(spread):
        return min(10, max(0, 1 - math.floor(math.log10(spread))))
    return max(0, _DIGITS - 1 - (math.floor(math.log10(abs(value))) if value else 0))
