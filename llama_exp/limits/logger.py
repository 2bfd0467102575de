"""What the mirror in W&B accepts."""

from __future__ import annotations

import enum

from llama_exp.limits import Limit, Limits, allow_null

# W&B's own limits: what it refuses, it refuses when the run has begun, and the run is not mirrored.
_FORBIDDEN = "/\\#?%:"
_LONGEST_NAME = 128
_LONGEST_TAG = 64


class LoggerMode(enum.Enum):
    """Where W&B data goes."""

    offline = "offline"  # into the run folder; `wandb sync` sends it later
    online = "online"
    disabled = "disabled"


def _is_name(value: str) -> bool:
    return 0 < len(value) <= _LONGEST_NAME and not set(value) & set(_FORBIDDEN)


_NAME = Limit(_is_name, f"a name of 1 to {_LONGEST_NAME} characters without any of {' '.join(_FORBIDDEN)}")
_TAGS = Limit(
    lambda tags: all(0 < len(tag) <= _LONGEST_TAG for tag in tags), f"tags of 1 to {_LONGEST_TAG} characters each"
)
LIMITS = Limits("logger", {"project": _NAME, "entity": allow_null(_NAME), "tags": _TAGS})
