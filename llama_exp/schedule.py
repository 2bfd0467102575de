"""Learning rates over optimizer steps, as functions of the update number u = 1, 2, ..., num_steps.

Keras counts updates from 0 (`optimizer.iterations`), so u = iterations + 1: the first update already has a rate
above 0, the peak is reached at u = warmup_steps exactly, and the last update has the final rate exactly.

    warm-up   u < warmup_steps:   peak * u / warmup_steps
    constant  then:               peak
    cosine    then:               peak * (f + (1 - f) * (1 + cos(pi * p)) / 2)
    linear    then:               peak * (f + (1 - f) * (1 - p))
    wsd       then:               peak, and over the last decay_steps as linear; with decay_shape sqrt
                                  peak * (f + (1 - f) * (1 - sqrt(p)))

    f = final_fraction;  p = (u - start) / (num_steps - start) in [0, 1], with start = warmup_steps, or for wsd
    num_steps - decay_steps. Behind num_steps the rate stays what it was there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from llama_exp import rates
from llama_exp.limits import choose, raise_first
from llama_exp.limits.schedule import LIMITS, DecayShape, check_steps
from llama_exp.rates import COSINE, SQRT, Curve


@keras.saving.register_keras_serializable(package="llama_exp")
class WarmupThenDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, a stable phase until `decay_start`, then a decay to `final_fraction` of the peak.

    Args:
        learning_rate: the peak.
        warmup_steps: updates until the peak; 0 or 1: none.
        decay_start: last update at the peak.
        num_steps: update at which the decay ends.
        final_fraction: of the peak, from `num_steps` on.
        shape: of the decay: `cosine`, `linear`, or `sqrt`, which falls as 1 - sqrt.

    Numerics: float32; the update number is exact up to 2**24.
    """

    def __init__(
        self,
        learning_rate: float,
        warmup_steps: int,
        decay_start: int,
        num_steps: int,
        final_fraction: float,
        shape: str,
    ):
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.decay_start = decay_start
        self.num_steps = num_steps
        self.final_fraction = final_fraction
        self.shape = shape

    def __call__(self, step):
        """The rate of the update that follows `step` finished ones; a float32 scalar tensor."""
        update = ops.cast(step, "float32") + 1.0
        warmup = ops.minimum(update / max(self.warmup_steps, 1), 1.0)
        decay_steps = max(self.num_steps - self.decay_start, 1)
        progress = ops.clip((update - self.decay_start) / decay_steps, 0.0, 1.0)
        if self.shape == COSINE:
            falling = (1.0 + ops.cos(math.pi * progress)) / 2.0
        else:
            falling = 1.0 - (ops.sqrt(progress) if self.shape == SQRT else progress)
        return self.learning_rate * warmup * (self.final_fraction + (1.0 - self.final_fraction) * falling)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return dict(vars(self))


def cosine(*, learning_rate: float, num_steps: int, warmup_steps: int, final_fraction: float) -> WarmupThenDecay:
    """Warm-up, then half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983) down to the last step."""
    return _follow(rates.cosine, locals())


def linear(*, learning_rate: float, num_steps: int, warmup_steps: int, final_fraction: float) -> WarmupThenDecay:
    """Warm-up, then a straight line down to the last step."""
    return _follow(rates.linear, locals())


def constant(*, learning_rate: float, num_steps: int, warmup_steps: int) -> WarmupThenDecay:
    """Warm-up, then the peak for ever."""
    return _follow(rates.constant, locals())


def wsd(
    *,
    learning_rate: float,
    num_steps: int,
    warmup_steps: int,
    final_fraction: float,
    decay_steps: int,
    decay_shape: str,
) -> WarmupThenDecay:
    """Warm-up, stable, decay (Hu et al. 2024, arXiv:2404.06395).

    The decay is linear, or falls as 1 - sqrt (Hägele et al. 2024, arXiv:2405.18392).
    """
    return _follow(rates.wsd, locals())


def _follow(make: Callable[..., Curve], arguments: Mapping[str, Any]) -> WarmupThenDecay:
    """The schedule of a curve of possible arguments.

    Raises ValueError for the first value that is impossible, or does not fit into `num_steps`.
    """
    LIMITS.require(**{key: arguments[key] for key in LIMITS.values if key in arguments})
    decay_steps = int(arguments.get("decay_steps", 0))
    raise_first(check_steps(int(arguments["warmup_steps"]), decay_steps, arguments["num_steps"]))
    if "decay_shape" in arguments:
        choose(DecayShape, arguments["decay_shape"], "schedule.decay_shape")
    return WarmupThenDecay(**dataclasses.asdict(make(**arguments)))
