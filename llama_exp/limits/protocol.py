"""What the section `protocol` accepts."""

from __future__ import annotations

import enum

from llama_exp.limits import FILLED, Limits, allow_null


class Half(enum.Enum):
    """Which half of an experiment a stage belongs to."""

    first = "first"  # many seeds on a small model that the experiment trains itself
    pretrained = "pretrained"  # a few runs on a pre-trained model that the user gives


LIMITS = Limits("protocol", {"title": allow_null(FILLED), "method": allow_null(FILLED), "stage": allow_null(FILLED)})
