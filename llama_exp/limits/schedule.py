"""What learning rate schedules accept."""

from __future__ import annotations

import enum
from collections.abc import Iterator

from llama_exp.errors import Problem
from llama_exp.limits import COUNT, COUNT_OR_ZERO, SHARE, Limits


class DecayShape(enum.Enum):
    """How wsd's learning rate falls; p runs from 0 to 1 over the decay."""

    linear = "linear"  # 1 - p
    sqrt = "sqrt"  # 1 - sqrt(p): at first faster


LIMITS = Limits("schedule", {"warmup_steps": COUNT_OR_ZERO, "final_fraction": SHARE, "decay_steps": COUNT})


def check_steps(warmup_steps: int, decay_steps: int, max_steps: int) -> Iterator[Problem]:
    """Warm-up and decay fit into the run of `max_steps` optimizer steps."""
    if warmup_steps > max_steps:
        yield Problem(
            "is longer than the run",
            "schedule.warmup_steps",
            f"warmup_steps={warmup_steps} with trainer.max_steps={max_steps}",
            f"give at most {max_steps}, or raise trainer.max_steps",
        )
    elif warmup_steps + decay_steps > max_steps:
        yield Problem(
            "does not fit into the run behind the warm-up",
            "schedule.decay_steps",
            f"decay_steps={decay_steps}, warmup_steps={warmup_steps}, trainer.max_steps={max_steps}",
            f"give at most {max_steps - warmup_steps}, or raise trainer.max_steps",
        )
