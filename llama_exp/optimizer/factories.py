"""The optimizers by the names that a YAML gives them; each checks its numbers.

All take, beside their own:

    learning_rate              a number or a `LearningRateSchedule`
    weight_decay               decoupled; multiplied by the learning rate
    independent_weight_decay   whether it is multiplied by the schedule's share of its peak instead
    global_clipnorm            longest allowed gradient over all variables together; None: any
    peak                       the schedule's highest rate, for independent decay; None: `learning_rate` is a number

and raise ValueError for an impossible value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from llama_exp.limits import is_number
from llama_exp.limits.optimizer import LIMITS
from llama_exp.optimizer.adamw_rule import AdamW
from llama_exp.optimizer.float32 import Float32Optimizer

Kind = TypeVar("Kind", bound=Float32Optimizer)


def adamw(
    *,
    learning_rate,
    weight_decay: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    global_clipnorm: float | None,
    independent_weight_decay: bool = False,
    peak: float | None = None,
) -> AdamW:
    """An AdamW optimizer.

    beta_1: decay of the mean of gradients. beta_2: decay of the mean of squared gradients. epsilon: added to the root
    of the second moment.
    """
    return _checked(AdamW, locals())


def _checked(kind: type[Kind], arguments: Mapping[str, Any]) -> Kind:
    """An optimizer of possible arguments."""
    without_rate = {key: value for key, value in arguments.items() if key != "learning_rate"}
    LIMITS.require(**(dict(arguments) if is_number(arguments["learning_rate"]) else without_rate))
    return kind(**arguments)
