"""What the objective accepts."""

from __future__ import annotations

import enum

from llama_exp.limits import COUNT, Limits, allow_from


class LossOn(enum.Enum):
    """Which target tokens count in the loss."""

    completion = "completion"  # not those of a prompt; plain text has no prompt, so all of it counts
    all = "all"


LIMITS = Limits("objective", {"chunk_tokens": COUNT, "z_loss": allow_from(0)})
