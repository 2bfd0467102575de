"""A Llama as data: constructor arguments and the shape of every weight.

Imports no framework: files are read and converted, and plans are made, by these names alone.

Shape letters: D hidden_dim, F intermediate_dim, N query heads, K key/value heads, H head_dim, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

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
# What a model is called with: integers (batch, length) by name, of which only the first is required.
INPUT_KEYS = ("token_ids", "position_ids", "segment_ids", "padding_mask")
# Standard deviations of random weights: no part of the architecture, so that no preset states them.
INITIALIZER_RANGES = {"initializer_range": 0.02, "embedding_initializer_range": 0.01}
# How first values and learning rates follow the width, and whether norms train: no part of it either. The meaning of
# the keys: `llama_exp.architecture.parametrization`.
PARAMETRIZATION: dict[str, Any] = {
    "parametrization": "standard",
    "base_hidden_dim": None,
    "base_head_dim": None,
    "train_norms": True,
}
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


def count_flops_per_token(config: Mapping, adapter_ranks: Mapping[str, int], sequence_length: int) -> int:
    """Additions and multiplications that training needs per token (Chowdhery et al. 2022, arXiv:2204.02311, app. B).

        2 P forward + 2 P backward to the activations + 2 P_trained for the matrices' own gradients + 12 L D S

    P: numbers in matrices that multiply (the output kernel, tied or not, counts; looking a row up does not), L: blocks,
    D: hidden_dim, S: sequence_length. Attention counts in full, masked half included; what rematerialization computes
    again, and DoRA's magnitudes, which cost next to nothing, do not count.

    Args:
        config: constructor arguments of the backbone.
        adapter_ranks: path of a linear layer -> rank of its adapter; without any the whole backbone trains.
        sequence_length: S.
    """
    shapes = linear_shapes(config)
    frozen = sum(map(math.prod, shapes.values())) + config["vocabulary_size"] * config["hidden_dim"]
    adapters = sum(rank * sum(shapes[path]) for path, rank in adapter_ranks.items())
    trained = adapters if adapter_ranks else frozen
    attention = 12 * config["num_layers"] * config["hidden_dim"] * sequence_length
    return 4 * (frozen + adapters) + 2 * trained + attention
