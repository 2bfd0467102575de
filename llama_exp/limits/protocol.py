"""What the section `protocol` accepts."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping

from llama_exp.limits import FILLED, Limits, allow_null


class Half(enum.Enum):
    """Which half of an experiment a stage belongs to."""

    first = "first"  # many seeds on a small model that the experiment trains itself
    pretrained = "pretrained"  # a few runs on a pre-trained model that the user gives


# Models that the user gives -> the variable that may name each.
MODELS = {"smollm2": "LLAMA_EXP_SMOLLM2"}
# `{name}` in a stage's overrides and grid; `${...}` is an interpolation of the configuration.
_PLACE = re.compile(r"(?<!\$)\{([A-Za-z0-9][\w-]*)\}", re.ASCII)


def find_places(text: str) -> list[str]:
    """The names in braces: of earlier stages, and of models."""
    return _PLACE.findall(text)


def fill_places(text: str, places: Mapping[str, str]) -> str:
    """The text with each name in braces replaced by what it stands for; one that is not in `places` stays."""
    return _PLACE.sub(lambda match: places.get(match[1], match[0]), text)


LIMITS = Limits("protocol", {"title": allow_null(FILLED), "method": allow_null(FILLED), "stage": allow_null(FILLED)})
