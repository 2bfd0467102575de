"""See `sensitivity_difference`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from llama_exp.limits.estimators import AGAINST, ARMS, OF
from llama_exp.protocol.arms import answer_mean, show_block
from llama_exp.protocol.obtained import Drawing, NotSeen, Observation, Obtained, Question, Series


def sensitivity_difference(question: Question) -> Obtained:
    """How much more the loss depends on the learning rate in `of` than in `against`.

    Formula: mean over seeds of s(of) - s(against), s: mean over the rates of min(y, start), less the least y. A run
    that diverged has `start`, the loss before training. Both sides have the same rates.
    Interval: Student's t over the seeds.
    Source: Wortsman et al. 2023 (arXiv:2309.14322), section 2.2, with a mean over the rates of a grid that is even in
    the logarithm.
    """
    starts = _find_starts(one for name in ARMS for one in question.arms[name])
    found = {name: _measure(question.arms[name], starts, name) for name in ARMS}
    rates = {name: {block: tuple(of_rate) for block, of_rate in found[name].items()} for name in ARMS}
    if rates[OF] != rates[AGAINST]:
        both = {**rates[OF], **rates[AGAINST]}
        differing = next(block for block in both if rates[OF].get(block) != rates[AGAINST].get(block))
        raise NotSeen(f"the two sides have other learning rates ({show_block(differing)})")
    differences = [_sensitivity(found[OF][block]) - _sensitivity(found[AGAINST][block]) for block in found[OF]]
    series = tuple(Series(name, _average(found[name].values())) for name in ARMS)
    drawing = Drawing(question.names["rate"], question.names["y"], series, is_log_x=True)
    return answer_mean(differences, question.confidence, question.names["y"], drawing)


def _find_starts(observations: Iterable[Observation]) -> dict[tuple[Any, ...], float]:
    """Block -> the loss before training, which is the same for all its runs: the least that one of them tells."""
    starts: dict[tuple[Any, ...], float] = {}
    for one in observations:
        start = one.values["start"]
        if math.isfinite(start):
            starts[one.block] = min(start, starts.get(one.block, math.inf))
    return starts


def _measure(
    arm: Sequence[Observation], starts: dict[tuple[Any, ...], float], label: str
) -> dict[tuple[Any, ...], dict[float, float]]:
    """Block -> rate, rising -> the loss, at most that before training."""
    found: dict[tuple[Any, ...], dict[float, list[float]]] = {}
    for one in sorted(arm, key=lambda one: one.values["rate"]):
        if one.block not in starts:
            raise NotSeen(f"{label}: no run of {show_block(one.block)} tells the loss before training")
        of_rate = found.setdefault(one.block, {})
        of_rate.setdefault(one.values["rate"], []).append(min(one.values["y"], starts[one.block]))
    means = {block: {rate: statistics.fmean(losses) for rate, losses in of.items()} for block, of in found.items()}
    if few := next((block for block, of_rate in means.items() if len(of_rate) < 2), None):
        raise NotSeen(f"{label}: {show_block(few)} has one learning rate, which shows no sensitivity")
    return dict(sorted(means.items(), key=lambda item: str(item[0])))


def _sensitivity(of_rate: dict[float, float]) -> float:
    return statistics.fmean(of_rate.values()) - min(of_rate.values())


def _average(blocks: Iterable[dict[float, float]]) -> tuple[tuple[float, float], ...]:
    several = list(blocks)
    return tuple((rate, statistics.fmean(block[rate] for block in several)) for rate in several[0])
