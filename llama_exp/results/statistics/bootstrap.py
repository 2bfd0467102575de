"""An interval that does not take the numbers for normally distributed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

LEAST_FOR_BOOTSTRAP = 8  # with fewer numbers its intervals are too narrow
RESAMPLES = 9_999
_NORMAL = statistics.NormalDist()


def bootstrap_mean(values: Sequence[float], confidence: float) -> tuple[float, float] | None:
    """The BCa interval of a mean (Efron 1987), from resamples by a generator seeded with 0.

    Args:
        values: independent of each other.
        confidence: of the interval, 0.95.

    Returns:
        Its ends; None for fewer than `LEAST_FOR_BOOTSTRAP` values.
    """
    sample = np.asarray(values, np.float64)
    n = len(sample)
    if n < LEAST_FOR_BOOTSTRAP:
        return None
    if np.ptp(sample) == 0.0:
        return float(sample[0]), float(sample[0])
    generator = np.random.default_rng(0)
    rows = max(1, 10_000_000 // n)  # at once, for the memory
    chunks = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    means = np.concatenate([sample[generator.integers(0, n, (count, n))].mean(axis=1) for count in chunks])
    bias = _NORMAL.inv_cdf(_share_below(means, sample.mean()))
    # Acceleration, by leaving out one at a time.
    influence = sample - sample.mean()
    acceleration = (influence**3).sum() / (6.0 * (influence**2).sum() ** 1.5)
    tail = (1.0 - confidence) / 2.0
    shares = [_shift(_NORMAL.inv_cdf(share), bias, acceleration) for share in (tail, 1.0 - tail)]
    low, high = np.quantile(means, shares)
    return float(low), float(high)


def _share_below(means: np.ndarray, mean: float) -> float:
    """Of the resamples below the mean, those at it counted half, and never none or all of them."""
    below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / 2.0
    return float(min(max(below, 0.5), len(means) - 0.5)) / len(means)


def _shift(normal: float, bias: float, acceleration: float) -> float:
    return _NORMAL.cdf(bias + (bias + normal) / (1.0 - acceleration * (bias + normal)))
