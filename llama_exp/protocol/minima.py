"""Where a quantity is least over a logarithmic axis, such as loss over learning rates, and how sure that is.

    find_minimum(trials)             a parabola through the best value and its neighbours, never extrapolated
    combine_minima(minima, weights)  a weighted sum of several, such as a difference or a slope

A parabola is a good picture of a loss only near its minimum: far from it a loss rises faster to high rates than to low
ones. Therefore it is fitted to the best value on the axis and `neighbours` on each side, by means over the runs.

Each minimum carries `DRAWS` possible ones, of `regression.draw_coefficients`: with 2 seeds and 3 rates the noise has 2
degrees of freedom, and the draws say so by their long tails. Resampling two seeds would not: three resamples differ. A
draw whose minimum lies outside of the values that were run is no number but a range, from the last value to infinity.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from llama_exp.protocol.obtained import NotSeen
from llama_exp.protocol.regression import draw_coefficients, fit_blocks

DRAWS = 9_999
_LEAST = 3  # values on the axis for a parabola
_LINE_POINTS = 41  # of a drawn fit
_NO_WEIGHT = 1e-12


@dataclass(frozen=True)
class Trial:
    """A run. at: logarithm of its value on the axis. y: what is to be least; infinite where the run diverged."""

    at: float
    y: float
    block: Hashable


@dataclass(frozen=True)
class Minimum:
    """at: logarithm of the value on the axis. low, high: (DRAWS,) ends of each possible one, infinite where it is open.

    is_edge: whether it lies at the first or last of the values that were run, or beyond: `at` is that value then. line:
    of the fit, for a picture, over logarithms.
    """

    at: float
    low: np.ndarray
    high: np.ndarray
    is_edge: bool
    line: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Axis:
    """Sorted values that converged side by side, the best among them. below, above: of what diverged beside them."""

    values: np.ndarray
    best: int
    below: float
    above: float


def find_minimum(trials: Sequence[Trial], neighbours: int, stream: int) -> Minimum:
    """The minimum of a parabola.

    Args:
        trials: runs of one arm; several blocks at each value on the axis.
        neighbours: values on each side of the best that the parabola is fitted to.
        stream: number that is not the same for two minima of one answer: their draws are independent.

    Raises:
        NotSeen: too few values converged, or too few runs to know the noise.
    """
    axis = _find_axis(trials)
    chosen = _choose_window(axis, neighbours)
    near = [trial for trial in trials if any(trial.at == value for value in chosen)]
    middle = float(chosen.mean())
    u = np.array([trial.at - middle for trial in near])
    fit = fit_blocks(np.stack([u, u**2], axis=1), np.array([t.y for t in near]), [t.block for t in near])
    if fit is None or fit.degrees < 1:
        raise NotSeen(
            f"{len(near)} runs at {len(chosen)} values leave no freedom to know the noise: run more seeds, or raise"
            " neighbours"
        )
    generator = np.random.default_rng([stream, len(near)])
    vertices = middle + _find_vertices(draw_coefficients(fit, DRAWS, generator))
    at = middle + float(_find_vertices(fit.coefficients[None])[0])
    low, high, at, is_edge = _bound(axis, vertices, at)
    shown = np.linspace(chosen[0], chosen[-1], _LINE_POINTS)
    heights = fit.offset + fit.coefficients[0] * (shown - middle) + fit.coefficients[1] * (shown - middle) ** 2
    return Minimum(at, low, high, is_edge, tuple(zip(shown.tolist(), heights.tolist(), strict=True)))


def combine_minima(
    minima: Sequence[Minimum], weights: Sequence[float], confidence: float
) -> tuple[float, float, float]:
    """Value, low and high of the sum of weight times minimum; ends are infinite where one that counts is open."""
    value, low, high = 0.0, np.zeros(DRAWS), np.zeros(DRAWS)
    for minimum, weight in zip(minima, weights, strict=True):
        if abs(weight) < _NO_WEIGHT:  # else nothing times infinity
            continue
        ends = (minimum.low, minimum.high) if weight > 0 else (minimum.high, minimum.low)
        value, low, high = value + weight * minimum.at, low + weight * ends[0], high + weight * ends[1]
    tail = (1.0 - confidence) / 2.0
    # No value lies between a number and infinity.
    return (
        value,
        float(np.quantile(low, tail, method="lower")),
        float(np.quantile(high, 1.0 - tail, method="higher")),
    )


def _find_axis(trials: Sequence[Trial]) -> _Axis:
    """The values around the best that converged in every run; a diverged run is worse than all others."""
    values = np.array(sorted({trial.at for trial in trials}))
    means = np.array([np.mean([trial.y for trial in trials if trial.at == value]) for value in values])
    means = np.where(np.isfinite(means), means, math.inf)
    if np.isinf(means).all():
        raise NotSeen("runs diverged at every value")
    best = int(np.argmin(means))
    first = last = best
    while first > 0 and math.isfinite(means[first - 1]):
        first -= 1
    while last + 1 < len(values) and math.isfinite(means[last + 1]):
        last += 1
    if last - first + 1 < _LEAST:
        raise NotSeen(f"only {last - first + 1} values side by side converged, and a parabola needs {_LEAST}")
    below = values[first - 1] if first > 0 else -math.inf
    above = values[last + 1] if last + 1 < len(values) else math.inf
    return _Axis(values[first : last + 1], best - first, float(below), float(above))


def _choose_window(axis: _Axis, neighbours: int) -> np.ndarray:
    """The best value and its neighbours; at an edge as many as a parabola needs, to the inside."""
    first = max(0, axis.best - neighbours)
    last = min(len(axis.values) - 1, axis.best + neighbours)
    while last - first + 1 < _LEAST:
        first, last = (first, last + 1) if first == 0 else (first - 1, last)
    return axis.values[first : last + 1]


def _find_vertices(coefficients: np.ndarray) -> np.ndarray:
    """(N,) lowest places of slope * u + curve * u^2; infinite, on the lower side, where it does not curve up."""
    slope, curve = coefficients[:, 0], coefficients[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        vertices = -slope / (2.0 * curve)
    return np.where(curve > 0, vertices, np.where(slope > 0, -math.inf, math.inf))


def _bound(axis: _Axis, vertices: np.ndarray, at: float) -> tuple[np.ndarray, np.ndarray, float, bool]:
    """Ends of each possible minimum, the found one within the values that were run, and whether it is at their edge."""
    first, last = float(axis.values[0]), float(axis.values[-1])
    at_first, at_last = axis.best == 0 or at < first, axis.best == len(axis.values) - 1 or at > last
    low = np.where(vertices < first, axis.below, np.minimum(vertices, last))
    high = np.where(vertices > last, axis.above, np.maximum(vertices, first))
    if at_first:
        low, at = np.full_like(low, axis.below), first
    if at_last:
        high, at = np.full_like(high, axis.above), last
    return low, high, at, bool(at_first or at_last)
