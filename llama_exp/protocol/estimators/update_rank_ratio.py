"""See `update_rank_ratio`."""

from __future__ import annotations

import math

from llama_exp.protocol.arms import answer_mean, average_by_seed, pair_arms, show_block
from llama_exp.protocol.estimators.best_rate_ratio import exponentiate
from llama_exp.protocol.obtained import Drawing, NotSeen, Obtained, Question, Series


def update_rank_ratio(question: Question) -> Obtained:
    """The rank of what `of` changed over the rank of what `against` changed.

    Formula: exp(mean over seeds of ln y(of) - ln y(against)), a geometric mean of paired ratios; pairs that share a
    seed are averaged first. y is a run's mean rank over the linear layers that it changed, so that arms should change
    the same ones.
    Interval: Student's t over the seeds' logarithms, n - 1 degrees of freedom.
    Source: rank as Biderman et al. 2024 (arXiv:2405.09673) count, see `llama_exp.inspection.spectrum`.
    """
    logarithms = {}
    for block, ranks in pair_arms(question, "y").items():
        if min(ranks) <= 0.0:
            raise NotSeen(f"a run of {show_block(block)} changed nothing: its rank is 0")
        logarithms[block] = math.log(ranks[0] / ranks[1])
    points = tuple((float(number), math.exp(value)) for number, value in enumerate(logarithms.values()))
    title = f"ratio of {question.names['y']}"
    drawing = Drawing("pair, in order of seeds", title, (Series("", points),), is_log_y=True)
    found = answer_mean(average_by_seed(logarithms), question.confidence, "", drawing)
    ends = [exponentiate(value) for value in (found.value, found.low, found.high)]
    return Obtained(ends[0], ends[1], ends[2], "", f"{found.method}, of logarithms", drawing)
