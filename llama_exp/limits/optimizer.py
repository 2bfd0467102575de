"""What optimizers accept, all of them together: a key of one name has one meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llama_exp.errors import Problem
from llama_exp.limits import POSITIVE, PROBABILITY, Limits, allow_from, allow_null


def check_independent_decay(optimizer: Mapping[str, Any]) -> Iterator[Problem]:
    """Decay that does not know the learning rate takes its own share of the weights at every step."""
    if optimizer.get("independent_weight_decay") and optimizer["weight_decay"] >= 1:
        yield Problem(
            "would take all of the weights away at every step",
            "optimizer.weight_decay",
            f"weight_decay={optimizer['weight_decay']} with independent_weight_decay=true",
            "give the share of a weight that one step takes away, such as 1e-4: weight_decay * learning_rate of before",
        )


LIMITS = Limits(
    "optimizer",
    {
        "learning_rate": POSITIVE,
        "weight_decay": allow_from(0),
        "beta_1": PROBABILITY,
        "beta_2": PROBABILITY,
        "epsilon": POSITIVE,
        "global_clipnorm": allow_null(POSITIVE),
    },
    (check_independent_decay,),
)
