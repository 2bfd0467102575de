"""Random weights as a checkpoint: what a layer would draw when it is built, one tensor at a time.

A quantized backbone begins as zeros. Drawn into a floating-point model first, 7 billion weights would need 13 or 27 GB
before the first of them is an integer; read from here they are quantized one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llama_exp.architecture import CONFIG_KEYS, variable_shapes
from llama_exp.architecture.draws import draw_normal
from llama_exp.architecture.parametrization import first_value
from llama_exp.formats.checkpoint import RANDOM, Checkpoint, Tensor


def random_checkpoint(config: Mapping, seed: int) -> Checkpoint:
    """The first values of a floating-point backbone of `config`, those that its layers would draw.

    Args:
        config: every constructor argument of a `LlamaBackbone`, the initializer ranges and the parametrization
            among them.
        seed: the backbone's.
    """
    shapes = variable_shapes(config)
    tensors = {path: _tensor(path, shape, seed, config) for path, shape in shapes.items()}
    return Checkpoint(Path("random weights"), RANDOM, {key: config[key] for key in CONFIG_KEYS}, tensors)


def _tensor(path: str, shape: tuple[int, ...], seed: int, config: Mapping) -> Tensor:
    first = first_value(config, path)

    def read(dtype: np.dtype | None = None) -> np.ndarray:
        if len(shape) == 1:
            return np.full(shape, first, dtype or np.float32)
        values = draw_normal(seed, path, shape, first)
        return values if dtype is None else values.astype(dtype, copy=False)

    return Tensor(shape, np.dtype(np.float32), f"random {path}", read)
