"""What low-rank adapters add to products of a few rows, in functions that Numba compiles for NumPy arrays.

Numerics: float32 throughout.

Shape letters: M rows (one per sequence), I inputs, O outputs, R rank.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba import types
from numba.extending import overload

from llama_exp.models.cpu.kernels import FAST


class Adapter(NamedTuple):
    """What an adapter makes of y: (y + (x a) b) * factor, the scale in b."""

    a: np.ndarray  # (I, R) float32
    b: np.ndarray  # (R, O) float32
    factor: np.ndarray  # (O,) float32: DoRA's, or ones


def adapt(x, adapters, ys):
    """Adapts each of `ys` (M, O) whose `adapters` is not None, for the input x (M, I); for compiled code."""
    raise NotImplementedError


@overload(adapt)
def _adapt(x, adapters, ys):
    if all(isinstance(adapter, types.NoneType) for adapter in adapters):
        return lambda x, adapters, ys: None
    return [_adapt_first, _adapt_two, _adapt_three][len(adapters) - 1]


def _adapt_first(x, adapters, ys):
    _adapt_one(x, adapters[0], ys[0])


def _adapt_two(x, adapters, ys):
    _adapt_one(x, adapters[0], ys[0])
    _adapt_one(x, adapters[1], ys[1])


def _adapt_three(x, adapters, ys):
    _adapt_one(x, adapters[0], ys[0])
    _adapt_one(x, adapters[1], ys[1])
    _adapt_one(x, adapters[2], ys[2])


def _adapt_one(x, adapter, y):
    raise NotImplementedError  # compiled code only


@overload(_adapt_one)
def _adapt_one_of_type(x, adapter, y):
    if isinstance(adapter, types.NoneType):
        return lambda x, adapter, y: None
    return lambda x, adapter, y: _adapt_rows(x, adapter.a, adapter.b, adapter.factor, y)


@numba.njit(fastmath=FAST, cache=True)
def _adapt_rows(x, a, b, factor, y):
    for m in range(x.shape[0]):
        low, y_m = np.zeros(a.shape[1], np.float32), y[m]
        for i in range(a.shape[0]):
            for r in range(a.shape[1]):
                low[r] += x[m, i] * a[i, r]
        for r in range(b.shape[0]):
            for o in range(b.shape[1]):
                y_m[o] += low[r] * b[r, o]
        y_m *= factor
