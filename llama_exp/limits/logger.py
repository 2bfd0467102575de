"""What the mirrors of a run accept: W&B's own limits, and MLflow's."""

from __future__ import annotations

import enum

from llama_exp.limits import FILLED, Limit, Limits, allow_null

# W&B's own limits: what it refuses, it refuses when the run has begun, and the run is not mirrored.
_FORBIDDEN = "/\\#?%:"
_LONGEST_NAME = 128
_LONGEST_TAG = 64


class LoggerMode(enum.Enum):
    """Where W&B data goes."""

    offline = "offline"  # into the run folder; `llama-exp sync` sends it later
    online = "online"
    disabled = "disabled"


def _is_name(value: str) -> bool:
    return 0 < len(value) <= _LONGEST_NAME and not set(value) & set(_FORBIDDEN)


_NAME = Limit(_is_name, f"a name of 1 to {_LONGEST_NAME} characters without any of {' '.join(_FORBIDDEN)}")
_TITLE = Limit(lambda value: 0 < len(value) <= _LONGEST_NAME, f"a text of 1 to {_LONGEST_NAME} characters")
_TAGS = Limit(
    lambda tags: all(0 < len(tag) <= _LONGEST_TAG for tag in tags), f"tags of 1 to {_LONGEST_TAG} characters each"
)
LIMITS = Limits("logger", {"project": allow_null(_NAME), "entity": allow_null(_NAME), "tags": allow_null(_TAGS)})
# What only W&B's variables say (WANDB_RUN_GROUP, WANDB_NAME, WANDB_JOB_TYPE), under the names of its own arguments.
_OF_W_AND_B = {"project": _NAME, "entity": _NAME, "tags": _TAGS}
OF_VARIABLES = Limits("logger", {**_OF_W_AND_B, "group": _TITLE, "name": _TITLE, "job_type": _TITLE})
MLFLOW = Limits("logger.mlflow", {"tracking_uri": allow_null(FILLED), "experiment": FILLED})
