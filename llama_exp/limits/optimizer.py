"""What optimizers accept, all of them together: a key of one name has one meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llama_exp.errors import Problem
from llama_exp.limits import POSITIVE, PROBABILITY, Limit, Limits, allow_from, allow_null, is_number


def check_independent_decay(optimizer: Mapping[str, Any]) -> Iterator[Problem]:
    """Decay that does not know the learning rate takes its own share of the weights at every step."""
    if optimizer.get("independent_weight_decay") and optimizer["weight_decay"] >= 1:
        yield Problem(
            "would take all of the weights away at every step",
            "optimizer.weight_decay",
            f"weight_decay={optimizer['weight_decay']} with independent_weight_decay=true",
            "give the share of a weight that one step takes away, such as 1e-4: weight_decay * learning_rate of before",
        )


def check_nesterov(optimizer: Mapping[str, Any]) -> Iterator[Problem]:
    """Without momentum there is nothing to look ahead along."""
    if optimizer.get("nesterov") and optimizer["momentum"] == 0:
        found, action = "nesterov=true with momentum=0", "set optimizer.momentum=0.9, or optimizer.nesterov=false"
        yield Problem("needs momentum", "optimizer.nesterov", found, action)


LIMITS = Limits(
    "optimizer",
    {
        "learning_rate": POSITIVE,
        "weight_decay": allow_from(0),
        "beta_1": PROBABILITY,
        "beta_2": PROBABILITY,
        "epsilon": POSITIVE,
        "global_clipnorm": allow_null(POSITIVE),
        "momentum": PROBABILITY,
        "update_rms": POSITIVE,
        "beta_2_decay": Limit(lambda value: is_number(value) and value < 0, "a number below 0"),
        "epsilon_1": POSITIVE,
        "epsilon_2": POSITIVE,
        "clip_threshold": POSITIVE,
    },
    (check_independent_decay, check_nesterov),
)
