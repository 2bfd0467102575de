"""A Llama as data: constructor arguments, their limits, the shape of every weight.

Imports no framework: files are read and converted, and plans are made, by these names alone.

Shape letters: D hidden_dim, F intermediate_dim, N query heads, K key/value heads, H head_dim, V vocabulary.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping

ROPE_ADJUSTMENT = (
    "rope_frequency_adjustment_factor",
    "rope_low_freq_factor",
    "rope_high_freq_factor",
    "rope_pretraining_sequence_length",
)
SIZES = (
    "vocabulary_size",
    "num_layers",
    "num_query_heads",
    "hidden_dim",
    "intermediate_dim",
    "num_key_value_heads",
)
CONFIG_KEYS = (
    *SIZES,
    "rope_max_wavelength",
    "rope_position_scaling_factor",
    *ROPE_ADJUSTMENT,
    "layer_norm_epsilon",
    "dropout",
    "tie_word_embeddings",
)
# What a file leaves out has these values, which are the constructor's defaults.
DEFAULTS = {
    "rope_max_wavelength": 10000.0,
    "rope_position_scaling_factor": 1.0,
    **dict.fromkeys(ROPE_ADJUSTMENT),
    "layer_norm_epsilon": 1e-6,
    "dropout": 0.0,
    "tie_word_embeddings": False,
}
# Standard deviations of random weights: no part of the architecture, so that no preset states them.
INITIALIZER_RANGES = {"initializer_range": 0.02, "embedding_initializer_range": 0.01}
EMBEDDINGS = "token_embedding/embeddings"
REVERSE_EMBEDDINGS = "token_embedding/reverse_embeddings"
FINAL_NORM = "sequence_output_layernorm/scale"
TOKEN_EMBEDDING = "token_embedding"
LINEAR_NAMES = (
    "query",
    "key",
    "value",
    "attention_output",
    "feedforward_gate_dense",
    "feedforward_intermediate_dense",
    "feedforward_output_dense",
)


def one_scaling_factor(rope_scaling_factor: float | None, rope_position_scaling_factor: float | None) -> float:
    """The position scaling factor, whichever of its two names it came under; 1.0 where it came under neither."""
    given = {value for value in (rope_scaling_factor, rope_position_scaling_factor) if value is not None}
    if len(given) > 1:
        raise ValueError(
            f"rope_scaling_factor={rope_scaling_factor} and rope_position_scaling_factor="
            f"{rope_position_scaling_factor} are two names of one thing and disagree. Give only the second."
        )
    return given.pop() if given else 1.0


def check_arguments(**config) -> None:
    """Raises ValueError naming argument, value and remedy for the first impossible value of `config`."""
    for key in SIZES:
        value = config[key]
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{key}={value!r} must be a whole number of at least 1.")
    _check_heads(config["hidden_dim"], config["num_query_heads"], config["num_key_value_heads"])
    stated_ranges = [key for key in INITIALIZER_RANGES if key in config]  # not those of a model in a file
    for key in ("rope_max_wavelength", "rope_position_scaling_factor", "layer_norm_epsilon", *stated_ranges):
        if not config[key] > 0:
            raise ValueError(f"{key}={config[key]!r} must be greater than 0.")
    if not 0 <= config["dropout"] < 1:
        raise ValueError(f"dropout={config['dropout']!r} must be a probability in [0, 1).")
    _check_rope_adjustment({key: config[key] for key in ROPE_ADJUSTMENT})


def _check_heads(hidden_dim, num_query_heads, num_key_value_heads):
    if hidden_dim % num_query_heads or (hidden_dim // num_query_heads) % 2:
        raise ValueError(
            f"hidden_dim={hidden_dim} must be num_query_heads={num_query_heads} times an even number, because rotary "
            f"embedding turns pairs within a head. Choose a multiple of {2 * num_query_heads}."
        )
    if num_query_heads % num_key_value_heads:
        raise ValueError(
            f"num_query_heads={num_query_heads} is no multiple of num_key_value_heads={num_key_value_heads}, but "
            f"each key/value head serves the same number of query heads. Choose a divisor of {num_query_heads}."
        )


def _check_rope_adjustment(adjustment):
    missing = [key for key, value in adjustment.items() if value is None]
    if missing and len(missing) < len(adjustment):
        raise ValueError(f"{', '.join(missing)} missing: give all of {', '.join(adjustment)}, or none of them.")
    if missing:
        return
    for key, value in adjustment.items():
        if not value > 0:
            raise ValueError(f"{key}={value!r} must be greater than 0.")
    low, high = adjustment["rope_low_freq_factor"], adjustment["rope_high_freq_factor"]
    if not low < high:
        raise ValueError(f"rope_low_freq_factor={low} must be less than rope_high_freq_factor={high}.")


def linear_shapes(config: Mapping) -> dict[str, tuple[int, int]]:
    """Shape (inputs, outputs) of every linear layer by path, in order of use."""
    D, F = config["hidden_dim"], config["intermediate_dim"]
    key_value_dim = D // config["num_query_heads"] * config["num_key_value_heads"]  # K * H
    block = {
        "self_attention/query": (D, D),
        "self_attention/key": (D, key_value_dim),
        "self_attention/value": (D, key_value_dim),
        "self_attention/attention_output": (D, D),
        "feedforward_gate_dense": (D, F),
        "feedforward_intermediate_dense": (D, F),
        "feedforward_output_dense": (F, D),
    }
    return {
        f"transformer_layer_{i}/{name}": shape for i in range(config["num_layers"]) for name, shape in block.items()
    }


def variable_shapes(config: Mapping) -> dict[str, tuple[int, ...]]:
    """Shape of every variable of a `LlamaBackbone` by path, block by block: embeddings (V, D), kernels, norms (D,)."""
    V, D = config["vocabulary_size"], config["hidden_dim"]
    shapes: dict[str, tuple[int, ...]] = {EMBEDDINGS: (V, D)}
    for path, shape in linear_shapes(config).items():
        block, _, name = path.partition("/")
        if name == "self_attention/query":
            shapes[f"{block}/self_attention_layernorm/scale"] = (D,)
        elif name == "feedforward_gate_dense":
            shapes[f"{block}/feedforward_layernorm/scale"] = (D,)
        shapes[f"{path}/kernel"] = shape
    shapes[FINAL_NORM] = (D,)
    if not config["tie_word_embeddings"]:
        shapes[REVERSE_EMBEDDINGS] = (D, V)
    return shapes


def count_parameters(config: Mapping) -> int:
    """Parameters of the backbone, the output matrix included."""
    return sum(math.prod(shape) for shape in variable_shapes(config).values())
