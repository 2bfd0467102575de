"""See `best_rate_drift`."""

from __future__ import annotations

import numpy as np

from llama_exp.protocol.arms import group_by, take_logarithm
from llama_exp.protocol.estimators.best_rate_ratio import METHOD, draw_best, find_best, list_edges
from llama_exp.protocol.minima import combine_minima
from llama_exp.protocol.obtained import ALL, Drawing, NotSeen, Obtained, Question

_LEAST = 2  # values of x


def best_rate_drift(question: Question) -> Obtained:
    """How the best learning rate moves with x, in octaves per doubling of x: -1 halves it, 0 keeps it.

    Formula: the least-squares slope of log2 of the best rate over log2 of x; each best rate as in `best_rate_ratio`.
    Interval: quantiles over draws of all parabolas. It says how sure this slope is, and not whether the best rates lie
    on a line.
    Source: as `best_rate_ratio`.
    """
    groups = group_by(question.arms[ALL], "x")
    if len(groups) < _LEAST:
        raise NotSeen(f"{question.names['x']} has one value only")
    logarithm = take_logarithm("x", question.names["x"])
    at = np.array([logarithm(arm[0]) for arm in groups.values()])
    labels = [f"{question.names['x']}={value:g}" for value in groups]
    minima = {
        label: find_best(question, arm, number, label)
        for number, (label, arm) in enumerate(zip(labels, groups.values(), strict=True))
    }
    centred = at - at.mean()
    weights = (centred / (centred @ centred)).tolist()
    value, low, high = combine_minima(list(minima.values()), weights, question.confidence)
    series = tuple(draw_best(arm, minima[label], label) for label, arm in zip(labels, groups.values(), strict=True))
    drawing = Drawing(question.names["rate"], question.names["y"], series, is_log_x=True)
    return Obtained(value, low, high, "octaves per doubling", METHOD, drawing, tuple(list_edges(minima)))
