"""A mean, or a frequency, with the interval that its few numbers allow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from llama_exp.results.statistics.beta import find_beta_quantile, find_t_quantile


@dataclass(frozen=True)
class Estimate:
    """The mean of n numbers.

    deviation: sample standard deviation. low, high: Student t interval of the mean. These three are None where n is 1.
    """

    n: int
    mean: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Share:
    """How often something happened: count of n, with an exact interval of its probability."""

    count: int
    n: int
    low: float
    high: float


def estimate(values: Sequence[float], confidence: float) -> Estimate:
    """Mean and Student t interval of at least one finite number.

    Args:
        values: independent of each other: one per seed.
        confidence: of the interval, 0.95.
    """
    exponent = math.frexp(max(map(abs, values)))[1]  # else squares of large numbers are infinite
    scaled, n = [math.ldexp(value, -exponent) for value in values], len(values)
    mean = math.ldexp(statistics.fmean(scaled), exponent)
    if n < 2:
        return Estimate(n, mean)
    deviation = math.ldexp(statistics.stdev(scaled), exponent)
    reach = find_t_quantile(confidence, n - 1) * deviation / math.sqrt(n)
    return Estimate(n, mean, deviation, mean - reach, mean + reach)


def count_share(count: int, n: int, confidence: float) -> Share:
    """A frequency with the interval of Clopper and Pearson (1934), which holds for any n and any count.

    A bootstrap, as in Bouthillier et al. 2021 (arXiv:2103.03098), has no width where all of n agree.
    """
    tail = (1.0 - confidence) / 2.0
    low = find_beta_quantile(tail, count, n - count + 1) if count > 0 else 0.0
    high = find_beta_quantile(1.0 - tail, count + 1, n - count) if count < n else 1.0
    return Share(count, n, low, high)
