"""Throughput and how much of the machine's arithmetic it is."""

from __future__ import annotations

import functools
import time

import numpy as np
from keras import ops

from llama_exp import backend
from llama_exp.architecture import count_flops_per_token
from llama_exp.lora.dora import is_derived

# The rate of a product is known after a tenth of a second, which every job of a sweep pays; a GPU needs less.
FEWEST_PRODUCTS, MOST_PRODUCTS, ENOUGH_SECONDS = 3, 7, 0.1


def flops_per_token(backbone, sequence_length: int) -> int:
    """What `count_flops_per_token` says of a backbone as it is, with its adapters."""
    adapters = {path: linear.adapter for path, linear in backbone.linear_layers().items()}
    ranks = {path: adapter.rank for path, adapter in adapters.items() if adapter is not None}
    return count_flops_per_token(backbone.get_config(), ranks, sequence_length)


def count_parameters(backbone) -> dict[str, int]:
    """`num_parameters`, those of adapters included, and `num_trainable_parameters`."""
    trained = sum(int(np.prod(variable.shape)) for variable in backbone.trainable_variables)
    all_of_them = sum(int(np.prod(variable.shape)) for variable in backbone.weights if not is_derived(variable))
    return {"num_parameters": all_of_them, "num_trainable_parameters": trained}


@functools.cache
def gemm_flops_per_second(dtype: str, jit: bool) -> float:
    """This machine's rate in one large matrix product, measured once per process: what MFU is a share of.

    The best of several runs: other programs only ever make it slower.
    """
    # On a CPU no power of two: rows 4096 bytes apart share cache sets, which halved the rate of one.
    size = 1152 if backend.device_kind() == "cpu" else 8192
    multiply = backend.compiled(lambda x: ops.sum(ops.cast(ops.matmul(x, x), "float32")), [], [], jit)
    x = ops.cast(np.random.default_rng(0).normal(size=(size, size)).astype("float32"), dtype)
    float(ops.convert_to_numpy(multiply(x)))  # compiles
    times: list[float] = []
    while len(times) < FEWEST_PRODUCTS or (len(times) < MOST_PRODUCTS and sum(times) < ENOUGH_SECONDS):
        start = time.perf_counter()
        float(ops.convert_to_numpy(multiply(x)))
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


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
