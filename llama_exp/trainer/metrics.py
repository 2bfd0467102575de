"""Throughput and how much of the machine's arithmetic it is."""

from __future__ import annotations

import functools
import math
import time

import numpy as np
from keras import ops

from llama_exp import backend


def flops_per_token(backbone, sequence_length: int) -> int:
    """Additions and multiplications that training needs per token (Chowdhery et al. 2022, arXiv:2204.02311, app. B).

        2 P forward + 2 P backward to the activations + 2 P_trainable for the matrices' own gradients + 12 L D S

    P: numbers in matrices that multiply (the output kernel, tied or not, counts; looking a row up does not), L:
    blocks, D: hidden_dim, S: sequence_length. So 6 per number in full training, 4 per frozen one with LoRA.
    Attention counts in full, masked half included; what rematerialization computes again does not count.
    """
    table = backbone.token_embedding
    looked_up = None if table.reverse_embeddings is None else table.embeddings
    matrices = [v for v in backbone.trainable_weights if len(v.shape) == 2 and v is not looked_up]
    trained = sum(math.prod(variable.shape) for variable in matrices)
    multiplied = table.vocabulary_size * table.hidden_dim
    # Sizes of layers, not of variables: integers may be packed.
    for linear in backbone.linear_layers().values():
        multiplied += linear.input_dim * linear.output_dim
        if linear.adapter is not None:
            multiplied += linear.adapter.rank * (linear.input_dim + linear.output_dim)
    return 4 * multiplied + 2 * trained + 12 * backbone.num_layers * backbone.hidden_dim * sequence_length


@functools.cache
def gemm_flops_per_second(dtype: str, jit: bool) -> float:
    """This machine's rate in one large matrix product, measured once per process: what MFU is a share of.

    The best of several runs: other programs only ever make it slower.
    """
    # On a CPU no power of two: rows 4096 bytes apart share cache sets, which halved the rate of one.
    size = 1152 if backend.device_kind() == "cpu" else 8192
    multiply = backend.compiled(lambda x: ops.sum(ops.cast(ops.matmul(x, x), "float32")), [], [], jit)
    x = ops.cast(np.random.default_rng(0).normal(size=(size, size)).astype("float32"), dtype)
    best = float("inf")
    for _ in range(8):  # the first compiles
        start = time.perf_counter()
        float(ops.convert_to_numpy(multiply(x)))
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


class Meter:
    """Tokens and seconds since the last reading; the first step, which compiles, does not count."""

    def __init__(self, flops_per_token: int, roof: float):
        self._flops_per_token = flops_per_token
        self._roof = roof
        self._compiled = False
        self._tokens, self._seconds = 0, 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Notes one step."""
        if self._compiled:
            self._tokens += tokens
            self._seconds += seconds
        self._compiled = True

    def read(self) -> dict[str, float | int | None]:
        """tokens_per_second and mfu since the last call (None before the second step), peak_memory_bytes so far."""
        rate = self._tokens / self._seconds if self._seconds else None
        self._tokens, self._seconds = 0, 0.0
        return {
            "tokens_per_second": rate,
            "mfu": None if rate is None else rate * self._flops_per_token / self._roof,
            "peak_memory_bytes": backend.peak_memory_bytes(),
        }
