"""What the mirror in W&B accepts."""

from __future__ import annotations

import enum

from llama_exp.limits import FILLED, Limits, allow_null


class LoggerMode(enum.Enum):
    """Where W&B data goes."""

    offline = "offline"  # into the run folder; `wandb sync` sends it later
    online = "online"
    disabled = "disabled"


LIMITS = Limits("logger", {"project": FILLED, "entity": allow_null(FILLED)})
