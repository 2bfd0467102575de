"""See `isoflop_exponent` and `isoflop_prediction`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llama_exp.protocol.arms import group_by, take_logarithm
from llama_exp.protocol.minima import Minimum, Trial, combine_minima, find_minimum
from llama_exp.protocol.obtained import ALL, Drawing, NotSeen, Observation, Obtained, Question, Series

METHOD = "quantiles of 9 999 draws of the parabolas"
_LEAST = 3  # budgets that a power law is judged by
_NO_WEIGHT = 1e-9


@dataclass(frozen=True)
class _Optimum:
    """The best size of one budget. minimum: over log size. compute: coefficients of log compute in log size."""

    budget: float
    arm: Sequence[Observation]
    minimum: Minimum
    compute: np.ndarray

    def compute_at(self, log_size: np.ndarray) -> np.ndarray:
        """(N,) log compute at sizes; those beyond the ones that were run count as the nearest of these."""
        sizes = [math.log(one.values["size"]) for one in self.arm]
        return np.polyval(self.compute, np.clip(log_size, min(sizes), max(sizes)))


def isoflop_exponent(question: Question) -> Obtained:
    """The exponent a of size ~ compute^a, of the sizes that reach the lowest loss at each budget.

    Formula: the least-squares slope of u_k over log c_k. u_k: minimum of a parabola of y in the logarithm of the size,
    through the best of the budget's sizes and `neighbours` on each side, with an offset of its own for each seed. c_k:
    compute at that size, by a parabola of log compute in log size; where compute is the budget itself, that number.
    Interval: quantiles over draws of all parabolas, as in `best_rate_ratio`. It says how sure this slope is, and not
    whether the sizes lie on a line. A minimum at the edge of a budget's sizes is not extrapolated: the interval is open
    there.
    Source: Hoffmann et al. 2022 (arXiv:2203.15556), approach 2.
    """
    optima = _find_optima(question)
    at = [np.array([optimum.minimum.at]) for optimum in optima]
    centre = np.array([optimum.compute_at(size)[0] for optimum, size in zip(optima, at, strict=True)])
    is_late = centre > centre.mean()
    # The flattest line has the lowest sizes where compute is large, and the highest where it is small.
    pairs = zip(optima, is_late, strict=True)
    ends = [(o.minimum.low, o.minimum.high) if late else (o.minimum.high, o.minimum.low) for o, late in pairs]
    value = float(_find_slopes(optima, at)[0])
    tail = (1.0 - question.confidence) / 2.0
    slopes = [_find_slopes(optima, list(sizes)) for sizes in zip(*ends, strict=True)]
    low, high = (np.where(np.isnan(s), end, s) for s, end in zip(slopes, (-math.inf, math.inf), strict=True))
    low, high = np.quantile(low, tail, method="lower"), np.quantile(high, 1.0 - tail, method="higher")
    return Obtained(value, float(low), float(high), "", METHOD, _draw(question, optima), tuple(_list_notes(optima)))


def isoflop_prediction(question: Question) -> Obtained:
    """The best size at the largest budget, as a multiple of the one that the smaller budgets predict.

    Formula: exp(u_K - v), u_k as in `isoflop_exponent`, v: the least-squares line of u_k over the logarithm of the
    budget, of all budgets but the largest, at the largest. 1: as predicted.
    Interval: quantiles over draws of all parabolas, those of the prediction too; open as there.
    Source: Hoffmann et al. 2022 (arXiv:2203.15556), section 3.4, which trains one model of the predicted size.
    """
    optima = _find_optima(question)
    if len(optima) <= _LEAST:
        raise NotSeen(f"{question.names['budget']} has {len(optima)} values: one is predicted from {_LEAST} others")
    x = np.array([math.log(optimum.budget) for optimum in optima])
    known = x[:-1] - x[:-1].mean()
    line = 1.0 / len(known) + (x[-1] - x[:-1].mean()) * known / (known @ known)
    minima = [optimum.minimum for optimum in optima]
    value, low, high = combine_minima(minima, [*(-line).tolist(), 1.0], question.confidence)
    found = math.exp(minima[-1].at)
    note = f"At the largest budget {found / math.exp(value):,.0f} was predicted, and {found:,.0f} found."
    ends = (math.exp(value), math.exp(low), math.exp(high) if high < math.inf else high)
    return Obtained(*ends, "", METHOD, _draw(question, optima), (note, *_list_notes(optima)))


def _find_optima(question: Question) -> list[_Optimum]:
    """The best size of each budget, by budget; raises `NotSeen`."""
    groups = group_by(question.arms[ALL], "budget")
    if len(groups) < _LEAST:
        raise NotSeen(f"{question.names['budget']} has {len(groups)} values, and a power law is judged by {_LEAST}")
    return [_find_optimum(question, budget, arm, number) for number, (budget, arm) in enumerate(groups.items())]


def _find_optimum(question: Question, budget: float, arm: Sequence[Observation], stream: int) -> _Optimum:
    sizes = list(map(take_logarithm("size", question.names["size"]), arm))
    compute = list(map(take_logarithm("compute", question.names["compute"]), arm))
    trials = [Trial(size, one.values["y"], one.block) for size, one in zip(sizes, arm, strict=True)]
    try:
        minimum = find_minimum(trials, question.counts["neighbours"], stream)
    except NotSeen as reason:
        raise NotSeen(f"{question.names['budget']}={budget:.3g}: {reason}") from None
    return _Optimum(budget, arm, minimum, np.polyfit(sizes, compute, 2))


def _find_slopes(optima: Sequence[_Optimum], log_sizes: Sequence[np.ndarray]) -> np.ndarray:
    """(N,) least-squares slopes of log size over log compute; infinite where a size that counts is.

    NaN where infinite ones cancel, or all compute is the same: the slope may be any.
    """
    compute = np.stack([optimum.compute_at(sizes) for optimum, sizes in zip(optima, log_sizes, strict=True)])
    centred = compute - compute.mean(axis=0)
    sizes = np.stack(log_sizes) - optima[0].minimum.at  # equal ones are 0, and so is their slope
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = centred / (centred**2).sum(axis=0)
        counts = ~(np.abs(weights) <= _NO_WEIGHT)  # else nothing times infinity
        return (weights * np.where(counts, sizes, 0.0)).sum(axis=0)


def _draw(question: Question, optima: Sequence[_Optimum]) -> Drawing:
    """The losses of each budget over sizes, with their parabolas: the picture of the source."""
    series = [
        Series(
            f"{question.names['budget']}={optimum.budget:.3g}",
            tuple((one.values["size"], one.values["y"]) for one in optimum.arm),
            tuple((math.exp(at), y) for at, y in optimum.minimum.line),
            math.exp(optimum.minimum.at),
        )
        for optimum in optima
    ]
    return Drawing(question.names["size"], question.names["y"], tuple(series), is_log_x=True)


def _list_notes(optima: Sequence[_Optimum]) -> Iterator[str]:
    """The best sizes, and which of them lie at an edge."""
    best = ", ".join(f"{math.exp(optimum.minimum.at):,.0f} at {optimum.budget:.3g}" for optimum in optima)
    yield f"Best sizes: {best}."
    for optimum in optima:
        if optimum.minimum.is_edge:
            yield f"At {optimum.budget:.3g} the best size is at the edge of those that were run, or beyond."
