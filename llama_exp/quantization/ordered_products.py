"""Products whose sums have one order, in any number of threads and on every machine. Compiled by Numba.

BLAS adds up as it likes: other threads or another processor give other bits, and it waits for its threads in a loop,
which on a busy machine takes many times as long as the product. Here each output is summed input after input.

Numerics: float32. x is shortened to so many bits that each single product is exact, so that it does not matter either
whether a processor fuses multiplication and addition.

Importing this module compiles nothing; what is compiled is kept beside it, or in Numba's cache folder.

Shape letters: M rows, I inputs, O outputs.
"""

from __future__ import annotations

import numba
import numpy as np

from llama_exp import recipe

_TILE = 64  # rows, inputs and outputs that a thread works on at once, in the nearest cache


def product(x_MI: np.ndarray, matrix_IO: np.ndarray) -> np.ndarray:
    """The product with a matrix of int8, (M, O) float32; x is shortened to 17 significant bits."""
    output_MO = np.empty((len(x_MI), matrix_IO.shape[1]), np.float32)
    _multiply(_shortened(x_MI, recipe.GPTQ["input_bits"]), matrix_IO, False, output_MO)
    return output_MO


def moments(x_MI: np.ndarray) -> np.ndarray:
    """x^T x, (I, I) float32; x is shortened to 12 significant bits."""
    x_MI = _shortened(x_MI, recipe.GPTQ["factor_bits"])
    sums_II = np.zeros((x_MI.shape[1],) * 2, np.float32)
    _multiply(np.ascontiguousarray(x_MI.T), x_MI, True, sums_II)
    return np.triu(sums_II) + np.triu(sums_II, 1).T


def _shortened(x: np.ndarray, bits: int) -> np.ndarray:
    """The nearest float32 with that many significant bits."""
    dropped = 24 - bits
    word = x.astype(np.float32).view(np.uint32)
    half = np.uint32((1 << dropped - 1) - 1) + (word >> np.uint32(dropped) & np.uint32(1))  # ties to even
    return ((word + half) & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)).view(np.float32)


@numba.njit(cache=True, parallel=True)
def _multiply(x_MI, matrix_IO, upper, output_MO):
    """Writes x times the matrix; if `upper`, tiles that are below the diagonal as a whole are left out."""
    num_rows, num_outputs = output_MO.shape
    rows, columns = (num_rows + _TILE - 1) // _TILE, (num_outputs + _TILE - 1) // _TILE
    for tile in numba.prange(rows * columns):
        if not upper or tile // columns <= tile % columns:
            _multiply_tile(x_MI, matrix_IO, tile // columns * _TILE, tile % columns * _TILE, output_MO)


@numba.njit(cache=True, fastmath={"contract"})
def _multiply_tile(x_MI, matrix_IO, top, left, output_MO):
    """A tile of the product, input after input; eight at a time to write seldom, in the nearest cache."""
    bottom, right = min(top + _TILE, output_MO.shape[0]), min(left + _TILE, output_MO.shape[1])
    sums = np.zeros((_TILE, _TILE), np.float32)
    block = np.zeros((_TILE, _TILE), np.float32)
    for start in range(0, x_MI.shape[1], _TILE):
        end = min(start + _TILE, x_MI.shape[1])
        for i in range(start, end):
            for o in range(left, right):
                block[i - start, o - left] = np.float32(matrix_IO[i, o])
        last = end - start - (end - start) % 8
        for m in range(bottom - top):
            for k in range(0, last, 8):
                i, row = start + k, top + m
                x0, x1, x2, x3 = x_MI[row, i], x_MI[row, i + 1], x_MI[row, i + 2], x_MI[row, i + 3]
                x4, x5, x6, x7 = x_MI[row, i + 4], x_MI[row, i + 5], x_MI[row, i + 6], x_MI[row, i + 7]
                for o in range(_TILE):
                    total = sums[m, o] + x0 * block[k, o] + x1 * block[k + 1, o] + x2 * block[k + 2, o]
                    total = total + x3 * block[k + 3, o] + x4 * block[k + 4, o] + x5 * block[k + 5, o]
                    sums[m, o] = total + x6 * block[k + 6, o] + x7 * block[k + 7, o]
            for k in range(last, end - start):
                for o in range(_TILE):
                    sums[m, o] += x_MI[top + m, start + k] * block[k, o]
    output_MO[top:bottom, left:right] = sums[: bottom - top, : right - left]
