"""Random weights as a checkpoint: what a layer would draw when it is built, one tensor at a time.

A quantized backbone begins as zeros. Drawn into a floating-point model first, 7 billion weights would need 13 or 27 GB
before the first of them is an integer; read from here they are quantized one after the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llama_exp.architecture import CONFIG_KEYS, EMBEDDINGS, REVERSE_EMBEDDINGS, variable_shapes
from llama_exp.formats.checkpoint import RANDOM, Checkpoint, Tensor
from llama_exp.models.embedding import EMBEDDING_STDDEV
from llama_exp.models.linear import KERNEL_STDDEV


def random_checkpoint(config: Mapping, seed: int) -> Checkpoint:
    """A floating-point model of `config`: kernels and tables drawn from the layers' own distributions, norms of ones.

    Args:
        config: constructor arguments of a `LlamaBackbone`.
        seed: a tensor's values depend on it, on the tensor's path and on nothing else.
    """
    shapes = variable_shapes(config)
    tensors = {path: _tensor(path, shape, seed) for path, shape in shapes.items()}
    return Checkpoint(Path("random weights"), RANDOM, {key: config[key] for key in CONFIG_KEYS}, tensors)


def _tensor(path: str, shape: tuple[int, ...], seed: int) -> Tensor:
    def read(dtype: np.dtype | None = None) -> np.ndarray:
        if len(shape) == 1:
            return np.ones(shape, dtype or np.float32)
        stddev = EMBEDDING_STDDEV if path in (EMBEDDINGS, REVERSE_EMBEDDINGS) else KERNEL_STDDEV
        values = _generator(path, seed).standard_normal(shape, np.float32)
        values *= stddev
        return values if dtype is None else values.astype(dtype, copy=False)

    return Tensor(shape, np.dtype(np.float32), f"random {path}", read)


def _generator(path: str, seed: int) -> np.random.Generator:
    key = hashlib.sha256(f"{seed} {path}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
