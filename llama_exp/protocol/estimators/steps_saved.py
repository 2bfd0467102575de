"""See `steps_saved`."""

from __future__ import annotations

from llama_exp.limits.estimators import AGAINST, OF
from llama_exp.protocol.arms import answer_mean, number_values, show_block
from llama_exp.protocol.obtained import Drawing, NotSeen, Obtained, Question, Series


def steps_saved(question: Question) -> Obtained:
    """The share of the steps of `against` that `of` does not need.

    Formula: 1 - (sum of steps of `of`) / (sum of steps of `against`), for each seed, then the mean.
    Interval: Student's t over the seeds; steps that are the same for every seed are counted and not measured, and the
    interval has no width.
    Source: a count.
    """
    sums: dict[str, dict[object, float]] = {OF: {}, AGAINST: {}}
    for name, of_seed in sums.items():
        for one in question.arms[name]:
            of_seed[one.block[0]] = of_seed.get(one.block[0], 0.0) + one.values["steps"]
    if alone := sorted(sums[OF].keys() ^ sums[AGAINST].keys(), key=str):
        raise NotSeen(f"{show_block((alone[0],))} stands on one side only")
    if not all(sums[AGAINST].values()):
        raise NotSeen(f"{question.names['steps']} is 0 in all runs of one seed")
    shares = [1.0 - steps / sums[AGAINST][seed] for seed, steps in sums[OF].items()]
    drawing = Drawing("seed, in order", "share of steps saved", (Series("", number_values(shares)),))
    return answer_mean(shares, question.confidence, "share of steps", drawing)
