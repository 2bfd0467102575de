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
from llama_exp.optimizer.adafactor_rule import Adafactor
from llama_exp.optimizer.adamw_rule import AdamW
from llama_exp.optimizer.float32 import Float32Optimizer
from llama_exp.optimizer.lion_rule import Lion
from llama_exp.optimizer.muon_rule import Muon
from llama_exp.optimizer.sgd_rule import SGD

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


def sgd(
    *,
    learning_rate,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    global_clipnorm: float | None,
    independent_weight_decay: bool = False,
    peak: float | None = None,
) -> SGD:
    """Gradient descent.

    momentum: how much of the sum of earlier gradients stays. nesterov: whether a step looks ahead along that sum.
    """
    return _checked(SGD, locals())


def lion(
    *,
    learning_rate,
    weight_decay: float,
    beta_1: float,
    beta_2: float,
    global_clipnorm: float | None,
    independent_weight_decay: bool = False,
    peak: float | None = None,
) -> Lion:
    """A Lion optimizer.

    beta_1: share of the mean of earlier gradients in a step. beta_2: decay of that mean.
    """
    return _checked(Lion, locals())


def adafactor(
    *,
    learning_rate,
    weight_decay: float,
    beta_2_decay: float,
    epsilon_1: float,
    epsilon_2: float,
    clip_threshold: float,
    multiply_by_parameter_scale: bool,
    global_clipnorm: float | None,
    independent_weight_decay: bool = False,
    peak: float | None = None,
) -> Adafactor:
    """An Adafactor optimizer.

    beta_2_decay: exponent, below 0, of the update's number: the share of the newest squares. epsilon_1: added to
    squared gradients. epsilon_2: smallest size of a variable. clip_threshold: largest root mean square of a step.
    multiply_by_parameter_scale: whether the learning rate is a share of each variable's size.
    """
    return _checked(Adafactor, locals())


def muon(
    *,
    learning_rate,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    update_rms: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    global_clipnorm: float | None,
    independent_weight_decay: bool = False,
    peak: float | None = None,
) -> Muon:
    """A Muon optimizer, with AdamW for what is no matrix of a hidden layer.

    momentum, nesterov: as for `sgd`. update_rms: root mean square of a step, over the learning rate. beta_1, beta_2,
    epsilon: as for `adamw`.
    """
    return _checked(Muon, locals())


def _checked(kind: type[Kind], arguments: Mapping[str, Any]) -> Kind:
    """An optimizer of possible arguments."""
    without_rate = {key: value for key, value in arguments.items() if key != "learning_rate"}
    LIMITS.require(**(dict(arguments) if is_number(arguments["learning_rate"]) else without_rate))
    return kind(**arguments)
