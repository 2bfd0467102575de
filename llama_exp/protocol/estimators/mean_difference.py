"""See `mean_difference`."""

from __future__ import annotations

from llama_exp.limits.estimators import ARMS
from llama_exp.protocol.arms import answer_mean, average_by_seed, number_values, pair_arms
from llama_exp.protocol.obtained import Drawing, Obtained, Question, Series


def mean_difference(question: Question) -> Obtained:
    """The mean of paired differences, `of` minus `against`.

    Formula: mean over seeds of y(of) - y(against); pairs that share a seed are averaged first, and so are runs of one
    arm that share a pair.
    Interval: Student's t over the seeds, n - 1 degrees of freedom: 12.7 standard errors with 2 seeds, 4.3 with 3.
    Source: Student 1908; ADR 31 says why pairs, and why t.
    """
    pairs = pair_arms(question, "y")
    differences = {block: one - other for block, (one, other) in pairs.items()}
    name = question.names["y"]
    series = tuple(Series(arm, number_values(pair[side] for pair in pairs.values())) for side, arm in enumerate(ARMS))
    drawing = Drawing("pair, in order of seeds", name, series)
    return answer_mean(average_by_seed(differences), question.confidence, f"difference in {name}", drawing)
