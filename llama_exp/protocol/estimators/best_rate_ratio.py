"""See `best_rate_ratio`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from llama_exp.limits.estimators import AGAINST, ARMS, OF
from llama_exp.protocol.arms import take_logarithm
from llama_exp.protocol.minima import Minimum, Trial, combine_minima, find_minimum
from llama_exp.protocol.obtained import Drawing, NotSeen, Observation, Obtained, Question, Series

METHOD = "quantiles of 9 999 draws of the parabolas"


def best_rate_ratio(question: Question) -> Obtained:
    """The best learning rate of `of` over that of `against`.

    Formula: exp(u(of) - u(against)), u: minimum of a parabola of y in the logarithm of the rate, fitted to the best
    rate and `neighbours` on each side, with an offset of its own for each seed.
    Interval: quantiles over draws of the parabolas' coefficients from their Student distributions (a generalized
    interval). A minimum at or beyond the edge of the rates is not extrapolated: the interval is open there, or ends at
    the next rate if runs diverged at it.
    Source: Weerahandi 1993 (doi:10.1080/01621459.1993.10476355).
    """
    minima = {name: find_best(question, question.arms[name], number, name) for number, name in enumerate(ARMS)}
    value, low, high = combine_minima([minima[OF], minima[AGAINST]], [1.0, -1.0], question.confidence)
    series = tuple(draw_best(question.arms[name], minima[name], name) for name in ARMS)
    drawing = Drawing(question.names["rate"], question.names["y"], series, is_log_x=True)
    ends = (math.exp(value), math.exp(low), exponentiate(high))
    return Obtained(*ends, "", METHOD, drawing, tuple(list_edges(minima)))


def find_best(question: Question, arm: Sequence[Observation], stream: int, label: str) -> Minimum:
    """The minimum of an arm over the logarithm of its rates; raises `NotSeen` with the arm's label."""
    logarithm = take_logarithm("rate", question.names["rate"])
    trials = [Trial(logarithm(one), one.values["y"], one.block) for one in arm]
    try:
        return find_minimum(trials, question.counts["neighbours"], stream)
    except NotSeen as reason:
        raise NotSeen(f"{label}: {reason}") from None


def draw_best(arm: Sequence[Observation], minimum: Minimum, label: str) -> Series:
    """Runs and parabola of an arm over its rates."""
    points = tuple((one.values["rate"], one.values["y"]) for one in arm)
    line = tuple((math.exp(at), y) for at, y in minimum.line)
    return Series(label, points, line, math.exp(minimum.at))


def list_edges(minima: dict[str, Minimum]) -> Iterator[str]:
    """A sentence for each arm whose best rate lies at the edge of those that were run."""
    for label, minimum in minima.items():
        if minimum.is_edge:
            rate = f"{math.exp(minimum.at):.3g}"
            yield f"{label}: the best rate is at the edge of those that were run ({rate}), or beyond."


def exponentiate(value: float) -> float:
    """E to the power of a number; infinite where that overflows."""
    return math.exp(value) if value < 700.0 else math.inf
