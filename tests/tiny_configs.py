"""Twelve tiny Llamas that differ in everything a file format can get wrong, with random weights; NumPy only.

Every key of `architecture.CONFIG_KEYS` is stated, so that a config compares equal to what a format reads back.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from llama_exp.architecture import DEFAULTS, variable_shapes
from llama_exp.formats.checkpoint import Tensor

LLAMA_3_1 = dict(
    rope_max_wavelength=500000.0,
    rope_frequency_adjustment_factor=8.0,
    rope_low_freq_factor=1.0,
    rope_high_freq_factor=4.0,
    rope_pretraining_sequence_length=16,
    layer_norm_epsilon=1e-5,
)


def _config(vocabulary_size, num_layers, num_query_heads, hidden_dim, intermediate_dim, num_key_value_heads, **changes):
    return DEFAULTS | dict(
        vocabulary_size=vocabulary_size,
        num_layers=num_layers,
        num_query_heads=num_query_heads,
        hidden_dim=hidden_dim,
        intermediate_dim=intermediate_dim,
        num_key_value_heads=num_key_value_heads,
        **changes,
    )


TINY_CONFIGS = {
    "multi_head": _config(48, 2, 4, 32, 40, 4),
    "grouped_query": _config(48, 2, 4, 32, 40, 2, layer_norm_epsilon=1e-5),
    "multi_query": _config(48, 2, 4, 32, 40, 1),
    "tied": _config(64, 2, 4, 32, 48, 2, tie_word_embeddings=True),
    "linear_scaling": _config(48, 2, 4, 32, 40, 2, rope_position_scaling_factor=4.0),
    "llama_3_1": _config(56, 2, 4, 64, 48, 2, **LLAMA_3_1),
    "llama_3_2": _config(56, 3, 4, 64, 48, 1, **LLAMA_3_1 | dict(tie_word_embeddings=True)),
    "odd_widths": _config(97, 2, 3, 42, 37, 3),
    "one_layer": _config(33, 1, 2, 12, 17, 1, layer_norm_epsilon=1e-5),
    "twelve_layers": _config(48, 12, 2, 16, 24, 2),
    "big_theta": _config(101, 2, 6, 36, 29, 2, rope_max_wavelength=5e6),
    "large_epsilon": _config(48, 2, 4, 32, 40, 2, layer_norm_epsilon=1e-2),
}
# How the weights are stored; the others are float32.
STORED_DTYPES = {"multi_query": "bfloat16", "llama_3_2": "bfloat16", "one_layer": "float16"}
# KerasHub's model ignores the position scaling factor, so it cannot judge this one.
IGNORED_BY_KERAS_HUB = frozenset({"linear_scaling"})


def stored_dtype(name: str) -> np.dtype:
    """The type in which the weights of `TINY_CONFIGS[name]` are stored."""
    stored = STORED_DTYPES.get(name, "float32")
    return np.dtype(ml_dtypes.bfloat16 if stored == "bfloat16" else stored)


def random_arrays(config: dict, dtype=np.float32, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights by path, large enough that a wrong head, order or scale shows; norms around 1, no two alike."""
    generator = np.random.default_rng(seed)
    return {
        path: (generator.normal(0, 0.15, shape) + path.endswith("scale")).astype(dtype)
        for path, shape in variable_shapes(config).items()
    }


def as_tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Arrays in memory as what a format writes; `read` gives a new array, as that of a file does."""
    return {
        path: Tensor(
            array.shape,
            array.dtype,
            f"memory: {path}",
            lambda dtype, array=array: np.array(array, dtype),
        )
        for path, array in arrays.items()
    }
