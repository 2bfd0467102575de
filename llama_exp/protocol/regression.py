"""Least squares with an offset of its own for each block, and Student's draws of its coefficients.

A block is what shares a seed: the same order of data and the same initial weights move all of its runs up or down
together, which is no noise of a slope or of a minimum.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Fit:
    """coefficients: of the terms. scale: their covariance for noise of variance 1. variance: of the noise, estimated.

    degrees: of freedom that the estimate has; 0: none is left, and the variance is 0. offset: mean of the blocks'.
    """

    coefficients: np.ndarray
    scale: np.ndarray
    variance: float
    degrees: int
    offset: float


def fit_blocks(terms: np.ndarray, y: np.ndarray, blocks: Sequence[Hashable]) -> Fit | None:
    """Fits y = offset of its block + terms @ coefficients + noise of equal variance.

    Args:
        terms: (N, T), one row per run.
        y: (N,), finite.
        blocks: of each run.

    Returns:
        The fit; None where the runs do not determine it.
    """
    names = list(dict.fromkeys(blocks))
    dummies = np.array([[block == name for name in names] for block in blocks], np.float64)
    design = np.concatenate([terms, dummies], axis=1)
    degrees = len(y) - design.shape[1]
    if degrees < 0 or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    solution = np.linalg.lstsq(design, y, rcond=None)[0]
    residuals = y - design @ solution
    num_terms = terms.shape[1]
    scale = np.linalg.inv(design.T @ design)[:num_terms, :num_terms]
    variance = float(residuals @ residuals) / degrees if degrees else 0.0
    weights = dummies.mean(axis=0)
    return Fit(solution[:num_terms], scale, variance, degrees, float(weights @ solution[num_terms:]))


def draw_coefficients(fit: Fit, count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, T) coefficients that the runs leave possible: a multivariate Student t around the fit.

    With normal noise each coefficient's quantiles are the ends of its exact t interval. What is computed from several
    has a generalized interval (Weerahandi 1993, doi:10.1080/01621459.1993.10476355).
    """
    normal = generator.standard_normal((count, len(fit.coefficients)))
    spread = np.sqrt(fit.variance * fit.degrees / generator.chisquare(fit.degrees, count))
    return fit.coefficients + spread[:, None] * (normal @ np.linalg.cholesky(fit.scale).T)
