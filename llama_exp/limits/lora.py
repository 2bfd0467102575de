"""What low-rank adaptation accepts, as far as it does not depend on the model's layers (see `lora.targets`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from llama_exp.errors import Problem
from llama_exp.limits import (
    COUNT,
    COUNT_OR_ZERO,
    FILLED,
    POSITIVE,
    PROBABILITY,
    Limit,
    Limits,
    allow_null,
    is_number,
    is_whole,
)

PATTERNS = ("rank_pattern", "alpha_pattern")
# Keys that mean something beside adapters only -> the value that means nothing.
UNUSED: dict[str, Any] = {**dict.fromkeys(PATTERNS, {}), "learning_rate_ratio": 1.0}


def check_switch(lora: Mapping[str, Any]) -> Iterator[Problem]:
    """An adapter to go on from, and ranks of single layers, mean adapters that train."""
    if lora["rank"] > 0:
        return
    if lora["source"] is not None:
        yield Problem(
            "names an adapter, but lora.rank=0 means none",
            "lora.source",
            f"source={lora['source']} with rank=0",
            "set lora.rank, lora.alpha and lora.targets to those of the adapter, or lora.source=null",
        )
    for key, off in UNUSED.items():
        if lora[key] != off:
            yield Problem(
                "is about adapters, but lora.rank=0 means none",
                f"lora.{key}",
                f"{key}={lora[key]} with rank=0",
                f"set lora.rank, the rank of {'all other' if key in PATTERNS else 'the'} layers of lora.targets, or "
                f"lora.{key}={off}",
            )


def _are_ranks(pattern: Mapping[str, Any]) -> bool:
    return all(pattern) and all(is_whole(rank, 1) for rank in pattern.values())


def _are_alphas(pattern: Mapping[str, Any]) -> bool:
    return all(pattern) and all(is_number(alpha) and 0 < alpha < math.inf for alpha in pattern.values())


LIMITS = Limits(
    "lora",
    {
        "rank": COUNT_OR_ZERO,
        "alpha": POSITIVE,
        "dropout": PROBABILITY,
        "targets": FILLED,
        "rank_pattern": Limit(_are_ranks, "targets with an integer of at least 1 each"),
        "alpha_pattern": Limit(_are_alphas, "targets with a number above 0 each"),
        "learning_rate_ratio": POSITIVE,
        "source": allow_null(FILLED),
    },
    (check_switch,),
)
# Of adapters that are there: rank 0 is no size of a matrix, and without an alpha each layer's rank stands for it.
ADAPTERS = replace(LIMITS, values={**LIMITS.values, "rank": COUNT, "alpha": allow_null(POSITIVE)}, together=())
