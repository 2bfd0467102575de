"""What optimizers accept."""

from __future__ import annotations

from llama_exp.limits import POSITIVE, PROBABILITY, Limits, allow_from, allow_null

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
)
