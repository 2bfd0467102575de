"""What a Llama's constructor accepts: sizes, heads, rotary embedding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from llama_exp.architecture import INITIALIZER_RANGES, ROPE_ADJUSTMENT, SIZES
from llama_exp.architecture.parametrization import Parametrization
from llama_exp.errors import Problem
from llama_exp.limits import COUNT, POSITIVE, PROBABILITY, Limits, allow_null


def find_nearest_divisor(value: int, number: int) -> int:
    """The divisor of `number` that is nearest to `value`, the smaller of two."""
    divisors = (candidate for candidate in range(1, number + 1) if number % candidate == 0)
    return min(divisors, key=lambda candidate: (abs(candidate - value), candidate))


def check_heads(model: Mapping[str, Any]) -> Iterator[Problem]:
    """Query heads divide the hidden size into even heads; key/value heads divide the query heads."""
    hidden_dim, num_query_heads = model["hidden_dim"], model["num_query_heads"]
    num_key_value_heads = model["num_key_value_heads"]
    if hidden_dim % (2 * num_query_heads):
        step = 2 * num_query_heads
        yield Problem(
            "is no even multiple of model.num_query_heads: rotary embedding turns pairs within a head",
            "model.hidden_dim",
            f"hidden_dim={hidden_dim} with num_query_heads={num_query_heads}",
            f"the nearest hidden_dim is {max(1, round(hidden_dim / step)) * step}",
        )
    if num_query_heads % num_key_value_heads:
        yield Problem(
            "does not divide model.num_query_heads: each key/value head serves the same number of query heads",
            "model.num_key_value_heads",
            f"num_key_value_heads={num_key_value_heads} with num_query_heads={num_query_heads}",
            f"the nearest num_key_value_heads is {find_nearest_divisor(num_key_value_heads, num_query_heads)}",
        )


def check_rope(model: Mapping[str, Any]) -> Iterator[Problem]:
    """Llama 3.1's four rotary keys come together, the low frequency factor below the high one."""
    values = {key: model[key] for key in ROPE_ADJUSTMENT}
    absent = [key for key, value in values.items() if value is None]
    if absent and len(absent) < len(values):
        yield Problem(
            "Llama 3.1's four rotary keys come together or not at all",
            f"model.{absent[0]}",
            ", ".join(f"{key}={'null' if value is None else value}" for key, value in values.items()),
            f"set {', '.join(absent)} too, or all four to null",
        )
    elif not absent and not model["rope_low_freq_factor"] < model["rope_high_freq_factor"]:
        yield Problem(
            "is not below model.rope_high_freq_factor",
            "model.rope_low_freq_factor",
            f"rope_low_freq_factor={model['rope_low_freq_factor']} with "
            f"rope_high_freq_factor={model['rope_high_freq_factor']}",
            "Llama 3.1 uses 1 and 4",
        )


def check_parametrization(model: Mapping[str, Any]) -> Iterator[Problem]:
    """Widths are measured by a base under muP; a file of weights states neither."""
    if Parametrization(model.get("parametrization", "standard")) is Parametrization.standard:
        return
    if model["base_hidden_dim"] is None:
        yield Problem(
            "is null, and mup changes first values and learning rates by the ratio to it",
            "model.base_hidden_dim",
            "base_hidden_dim=null with parametrization=mup",
            "give the hidden_dim of the model whose learning rate you know, or set model.parametrization=standard",
        )


def find_overrun(num_tokens: int, context_length: int | None) -> str | None:
    """What is to be said of a text that is longer than a model was made for; None: nothing.

    Args:
        num_tokens: of the text.
        context_length: tokens that the model was made for; None: not known.
    """
    if context_length is None or num_tokens <= context_length:
        return None
    factor = math.ceil(num_tokens / context_length)
    return (
        f"{num_tokens} tokens, and the model was made for {context_length}: behind them its text tends to be nonsense. "
        f"Shorten it, or stretch the positions: train with model.rope_position_scaling_factor={factor}"
    )


LIMITS = Limits(
    "model",
    {
        **dict.fromkeys(SIZES, COUNT),
        "rope_max_wavelength": POSITIVE,
        "rope_position_scaling_factor": POSITIVE,
        **dict.fromkeys(ROPE_ADJUSTMENT, allow_null(POSITIVE)),
        "rope_pretraining_sequence_length": allow_null(COUNT),
        "layer_norm_epsilon": POSITIVE,
        **dict.fromkeys(INITIALIZER_RANGES, POSITIVE),
        "dropout": PROBABILITY,
        "base_hidden_dim": allow_null(COUNT),
        "base_head_dim": allow_null(COUNT),
    },
    (check_heads, check_rope, check_parametrization),
)
