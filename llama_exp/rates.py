"""Learning rate schedules as data: what each is made of, and how long two agree. Imports no framework.

`llama_exp.schedule` says what they compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

COSINE, LINEAR, SQRT = "cosine", "linear", "sqrt"


@dataclass(frozen=True)
class Curve:
    """Linear warm-up, a stable phase until `decay_start`, then a decay to `final_fraction` of the peak.

    learning_rate: the peak. warmup_steps: updates until the peak; 0 or 1: none. decay_start: last update at the peak.
    num_steps: update at which the decay ends. final_fraction: of the peak, from `num_steps` on. shape: of the decay,
    `cosine`, `linear` or `sqrt`.
    """

    learning_rate: float
    warmup_steps: int
    decay_start: int
    num_steps: int
    final_fraction: float
    shape: str

    def agrees_until(self, other: Curve) -> float:
        """The last update until which both have the same rate to the last bit, compiled or not; 0: from none on.

        Whoever compiles the formula may divide by a constant in its own way, so that rates of different numbers are
        never called equal: these are the same computation, or both at the peak.
        """
        if self._before_the_decay != other._before_the_decay:
            return 0
        if self._decay == other._decay:
            return math.inf
        return min(curve.decay_start if curve._decay else math.inf for curve in (self, other))

    @property
    def _before_the_decay(self) -> tuple:
        """All numbers until the decay; what the peak is multiplied with there is 1 or its neighbour in float32."""
        share = np.float32(self.final_fraction) + np.float32(1.0 - self.final_fraction)
        return self.learning_rate, max(self.warmup_steps, 1), float(share)

    @property
    def _decay(self) -> tuple | None:
        """All numbers of the decay; None: it never falls."""
        if self.final_fraction == 1.0:
            return None
        return self.decay_start, self.num_steps, self.final_fraction, self.shape


def cosine(*, learning_rate: float, num_steps: int, warmup_steps: int, final_fraction: float) -> Curve:
    """Warm-up, then half a cosine down to the last step."""
    return Curve(learning_rate, warmup_steps, warmup_steps, num_steps, final_fraction, COSINE)


def linear(*, learning_rate: float, num_steps: int, warmup_steps: int, final_fraction: float) -> Curve:
    """Warm-up, then a straight line down to the last step."""
    return Curve(learning_rate, warmup_steps, warmup_steps, num_steps, final_fraction, LINEAR)


def constant(*, learning_rate: float, num_steps: int, warmup_steps: int) -> Curve:
    """Warm-up, then the peak for ever."""
    return Curve(learning_rate, warmup_steps, warmup_steps, num_steps, 1.0, LINEAR)


def wsd(
    *,
    learning_rate: float,
    num_steps: int,
    warmup_steps: int,
    final_fraction: float,
    decay_steps: int,
    decay_shape: str,
) -> Curve:
    """Warm-up, stable, decay."""
    return Curve(learning_rate, warmup_steps, num_steps - decay_steps, num_steps, final_fraction, decay_shape)


CURVES = {f"llama_exp.schedule.{make.__name__}": make for make in (cosine, linear, constant, wsd)}
