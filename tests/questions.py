"""Questions to estimators on drawn data whose true answer is known."""

import math

import numpy as np

from llama_exp.protocol.estimators import ESTIMATORS
from llama_exp.protocol.obtained import NotSeen, Observation, Question

ROUNDS = 80


def observe(seed, *more, **values):
    return Observation(0, (seed, *more), values)


def ask(name, arms, confidence=0.95, **counts):
    arms = arms if isinstance(arms, dict) else {"all": arms}
    names = {argument: argument for argument in next(iter(arms.values()))[0].values}
    question = Question({arm: tuple(runs) for arm, runs in arms.items()}, names, counts, confidence)
    return ESTIMATORS[name](question)


def draw_arm(rng, best, rates, seeds, noise, shape=None, **values):
    """Runs over rates whose loss is least at `best`; the runs of a seed share an offset larger than the noise."""
    shape = shape or (lambda distance: 0.05 * distance**2)
    offsets = {seed: 10 * noise * rng.normal() for seed in range(seeds)}
    return [
        observe(seed, rate=rate, y=3.0 + offset + shape(math.log(rate / best)) + noise * rng.normal(), **values)
        for seed, offset in offsets.items()
        for rate in rates
    ]


def measure_coverage(draw, truth, rounds=ROUNDS):
    """Share of intervals that hold the truth, and the share of finite ones."""
    rng = np.random.default_rng(20)
    hits = finite = 0
    for _ in range(rounds):
        found = draw(rng)
        hits += found.low <= truth <= found.high
        finite += math.isfinite(found.low) and math.isfinite(found.high)
    return hits / rounds, finite / rounds


def reason_of(call):
    try:
        call()
    except NotSeen as reason:
        return str(reason)
    raise AssertionError("the question was answered")
