"""Tests of paired differences, and of several of them together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST_EXACT = 20  # pairs: a million flips
FLIPS = 100_000  # of a sample, where there are more pairs
_CHUNK = 10_000
# Sums of the same numbers with other signs may differ in their last bits and be the same number nevertheless.
_SAME = 1e-12


def find_sign_flip_p(differences: Sequence[float]) -> tuple[float, bool]:
    """The two-sided p-value of a mean difference, if each difference could as well have had the other sign.

    Up to `MOST_EXACT` pairs all 2^n flips are counted (Fisher 1935, section 21); beyond, a sample of `FLIPS` from a
    generator seeded with 0, of which the observed one counts as one more (Phipson and Smyth 2010).

    Args:
        differences: one per pair, finite, at least one.

    Returns:
        p, and whether it is exact.
    """
    values = np.asarray(differences, np.float64)
    least = abs(values.sum()) - _SAME * np.abs(values).sum()
    if len(values) <= MOST_EXACT:
        sums = values[:1]  # the first keeps its sign: the other half of the flips mirrors this one
        for value in values[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= least)), True
    generator = np.random.default_rng(0)
    extreme = 0
    for _ in range(FLIPS // _CHUNK):
        signs = generator.integers(0, 2, (_CHUNK, len(values)), np.int8) * 2 - 1
        extreme += int(np.count_nonzero(np.abs(signs @ values) >= least))
    return (1 + extreme) / (1 + FLIPS), False


def find_smallest_p(n: int) -> float:
    """What `find_sign_flip_p` of n pairs can be at least: all differences of one sign."""
    return 2.0 ** (1 - n) if n <= MOST_EXACT else 1 / (1 + FLIPS)


def hold_family(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the same order: the chance of any false one is kept."""
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = largest
    return corrected
