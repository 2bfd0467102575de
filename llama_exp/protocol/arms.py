"""Arms of a comparison: pairs of them, their means, and each at its best setting."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llama_exp.limits.estimators import AGAINST, OF
from llama_exp.protocol.obtained import Drawing, NotSeen, Observation, Obtained, Question
from llama_exp.results.statistics import estimate


def average_by_block(arm: Iterable[Observation], argument: str) -> dict[tuple[Any, ...], float]:
    """Block -> mean of a quantity over the arm's runs of the block; raises `NotSeen` for a value that is not finite."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for observation in arm:
        found.setdefault(observation.block, []).append(_finite(observation, argument))
    return {block: statistics.fmean(values) for block, values in sorted(found.items(), key=lambda item: str(item[0]))}


def pair_arms(question: Question, argument: str) -> dict[tuple[Any, ...], tuple[float, float]]:
    """Block -> means of `of` and of `against`; raises `NotSeen` where a block stands on one side only."""
    one, other = (average_by_block(question.arms[name], argument) for name in (OF, AGAINST))
    if alone := sorted(one.keys() ^ other.keys(), key=str):
        blocks = ", ".join(map(show_block, alone[:4]))
        raise NotSeen(f"{len(alone)} of the pairs have one side only ({blocks})")
    return {block: (one[block], other[block]) for block in one}


def average_by_seed(values: dict[tuple[Any, ...], float]) -> list[float]:
    """One number for each first entry of a block, the seed: what shares it is not independent."""
    found: dict[Any, list[float]] = {}
    for block, value in values.items():
        found.setdefault(block[0], []).append(value)
    return [statistics.fmean(group) for group in found.values()]


def answer_mean(values: Sequence[float], confidence: float, unit: str, drawing: Drawing) -> Obtained:
    """The mean of independent numbers with its Student t interval; raises `NotSeen` for a single one."""
    found = estimate(values, confidence)
    if found.low is None or found.high is None:
        raise NotSeen("one seed has no interval: run a second one")
    return Obtained(found.mean, found.low, found.high, unit, f"Student t over {found.n} seeds", drawing)


def number_values(values: Iterable[float]) -> tuple[tuple[float, float], ...]:
    """Points of a picture over their number, from 1 on."""
    return tuple((float(number), value) for number, value in enumerate(values, start=1))


def group_by(arm: Iterable[Observation], argument: str) -> dict[float, list[Observation]]:
    """Value of a quantity -> the arm's runs that have it, by value."""
    found: dict[float, list[Observation]] = {}
    for observation in arm:
        found.setdefault(_finite(observation, argument), []).append(observation)
    return dict(sorted(found.items()))


def take_logarithm(argument: str, name: str) -> Callable[[Observation], float]:
    """Function from a run to the natural logarithm of a quantity; raises `NotSeen` where it is not positive."""

    def take(observation: Observation) -> float:
        value = _finite(observation, argument)
        if value <= 0.0:
            raise NotSeen(f"{name} is {value:g} in a run, which has no logarithm")
        return math.log(value)

    return take


def show_block(block: tuple[Any, ...]) -> str:
    """`seed 0`, or all that runs are paired by."""
    return f"seed {block[0]}" + "".join(f", {value}" for value in block[1:])


def _finite(observation: Observation, argument: str) -> float:
    value = observation.values[argument]
    if not math.isfinite(value):
        raise NotSeen(f"{argument} is {value} in a run")
    return value
