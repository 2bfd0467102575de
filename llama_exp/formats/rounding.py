"""Which integers or float8 and scales a matrix of floats gets, one matrix at a time. NumPy only.

    int8    the largest weight of an output becomes 127, as in Keras: 8 bits leave nothing to gain
    float8  the largest weight of an output becomes 448: the relative error of a weight hardly depends on the scale
    int4    each group of inputs of an output takes the step of the smallest error among `SHRINKS`

Keras' int4 takes the whole range of a group, so that its largest weight decides how coarse all others become, and each
weight counts the same. Here the error of a weight counts as often as its input is large
(`llama_exp.quantization.importance`):

    error = sum over the group of importance_i (w_i - k_i s)^2,  k_i whole numbers, 16 in a row with 0 among them

Each group tries ranges that are a little wider or narrower than its own. For given k the best step has a closed form,
s = <w, k> / <k, k> with <a, b> = sum of importance_i a_i b_i, and then error = <w, w> - <w, k>^2 / <k, k>. The integers
are the nearest ones to the step that is stored. Every sum is taken weight by weight, so that the same floats give the
same integers on every machine.

Shape letters: I inputs, O outputs, G groups, g inputs of one group, T outputs of one tile.
"""

from __future__ import annotations

from collections.abc import Iterator

import ml_dtypes
import numpy as np

from llama_exp import recipe
from llama_exp.formats.plain_arrays import aligned_empty

INT8, FLOAT8 = np.dtype("int8"), np.dtype(ml_dtypes.float8_e4m3fn)
INT8_MAX, UINT8_MAX = 127, 255
FLOAT8_MAX = 448  # Micikevicius et al. 2022, arXiv:2209.05433: 4 bits of exponent, 3 of fraction, no infinity
INT4_MIN, INT4_MAX = -8, 7
EPSILON = recipe.ROUNDING["epsilon"]
_WIDEST, _SPACING = recipe.INT4_SEARCH["widest"], recipe.INT4_SEARCH["spacing"]
SHRINKS = tuple(_WIDEST - _SPACING * i for i in range(recipe.INT4_SEARCH["num_ranges"]))  # of a group's range
_BLOCK_BYTES = 1 << 22  # scratch memory of a conversion
_TILE_NUMBERS = 1 << 16  # of float32, so that what is worked on stays in a core's cache


def round_outputs(matrix: np.ndarray, input_axis: int, dtype: np.dtype = INT8) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of one byte for `matrix` and a scale per output, float32: w = number / scale.

    Args:
        matrix: float32, finite.
        input_axis: the axis of the inputs.
        dtype: of the numbers: `INT8`, in [-127, 127], or `FLOAT8`, in [-448, 448].

    Numerics: the nearest number, ties to even; int8 is Keras' own, bit by bit.
    """
    limit = INT8_MAX if dtype == INT8 else FLOAT8_MAX
    largest = np.maximum(matrix.max(axis=input_axis, keepdims=True), -matrix.min(axis=input_axis, keepdims=True))
    scale = np.float32(limit) / (largest + np.float32(EPSILON))
    numbers = aligned_empty(matrix.shape, dtype)
    for rows in _row_blocks(matrix.shape):
        values = matrix[rows] * (scale if input_axis == 0 else scale[rows])
        if dtype == INT8:
            np.rint(values, out=values)
        numbers[rows] = np.clip(values, -limit, limit, out=values)  # ml_dtypes rounds to float8
    return numbers, np.squeeze(scale, input_axis)


def _row_blocks(shape) -> Iterator[slice]:
    step = max(1, _BLOCK_BYTES // (4 * shape[1]))
    return (slice(start, start + step) for start in range(0, shape[0], step))


def round_groups(
    matrix: np.ndarray, input_axis: int, group_size: int | None, importance: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integers in [-8, 7] and a step and a zero point for each group of inputs of an output: w = (integer - zero) step.

    Args:
        matrix: float32, finite.
        input_axis: the axis of the inputs.
        group_size: inputs in a group, the last one may be shorter; None: all in one, with a zero point of 0.
        importance: (I,) float32 above 0, how much each input counts; None: all the same.

    Returns:
        int8 integers of the matrix's shape; float32 steps and int8 zero points with G instead of I.
    """
    by_input = np.moveaxis(matrix, input_axis, 0)
    num_inputs, num_outputs = by_input.shape
    size = group_size or num_inputs
    starts = range(0, num_inputs, size)
    integers = np.moveaxis(np.empty(matrix.shape, "int8"), input_axis, 0)
    step_GO, zero_GO = np.empty((len(starts), num_outputs), "float32"), np.zeros((len(starts), num_outputs), "int8")
    importance = np.ones(num_inputs, "float32") if importance is None else importance
    width = max(1, _TILE_NUMBERS // size)

    for group, start in enumerate(starts):  # in one thread: two wait for the interpreter more than they gain
        rows = slice(start, start + size)
        for left in range(0, num_outputs, width):
            outputs = slice(left, left + width)
            w_gT = np.ascontiguousarray(by_input[rows, outputs])
            scratch = np.empty_like(w_gT), np.empty_like(w_gT)  # fresh memory for every step would cost more than it
            step_T, zero_T = _best_step(w_gT, importance[rows], group_size is not None, scratch)
            integers[rows, outputs] = _levels(w_gT, step_T, zero_T, scratch[0]) + zero_T
            step_GO[group, outputs], zero_GO[group, outputs] = step_T, zero_T

    integers, step_GO, zero_GO = (
        np.ascontiguousarray(np.moveaxis(part, 0, input_axis)) for part in (integers, step_GO, zero_GO)
    )
    return integers, step_GO, zero_GO


def _best_step(w_gT, importance_g, has_zero: bool, scratch):
    """The step and zero point (T,) of the smallest error, of the group in each column."""
    low_T, high_T = np.minimum(w_gT.min(axis=0), 0), np.maximum(w_gT.max(axis=0), 0)
    if not has_zero:  # the same range on both sides
        high_T = np.maximum(high_T, low_T * np.float32(INT4_MAX / INT4_MIN))
        low_T = high_T * np.float32(INT4_MIN / INT4_MAX)
    range_T = (high_T - low_T + np.float32(EPSILON)) / np.float32(INT4_MAX - INT4_MIN)
    middle_T, centre = (low_T + high_T) / 2, np.float32((INT4_MIN + INT4_MAX) / 2)
    share_g1 = (importance_g / importance_g.max())[:, None]
    counted_gT = w_gT * share_g1
    best_T, step_T, zero_T = np.full(range_T.shape, -1, "float32"), range_T, np.zeros_like(range_T)
    for shrink in SHRINKS:
        candidate_T, own_zero_T = range_T * np.float32(shrink), np.zeros_like(zero_T)
        if has_zero:
            own_zero_T = np.clip(np.rint(centre - middle_T / candidate_T), INT4_MIN, INT4_MAX)
        k_gT = _levels(w_gT, candidate_T, own_zero_T, scratch[0])
        product_T = np.add.reduce(np.multiply(counted_gT, k_gT, out=scratch[1]), axis=0)
        k_gT *= k_gT
        k_gT *= share_g1
        square_T = np.maximum(np.add.reduce(k_gT, axis=0), np.float32(EPSILON))
        explained_T = product_T * product_T / square_T  # <w, w> minus the error
        better_T = explained_T > best_T
        best_T = np.where(better_T, explained_T, best_T)
        zero_T = np.where(better_T, own_zero_T, zero_T)
        step_T = np.where(better_T & (product_T > 0), product_T / square_T, step_T)
    return step_T, zero_T


def _levels(w_gT, step_T, zero_T, out):
    """The whole numbers k, as floats in `out`, of which k * step is nearest to w and k + zero is in [-8, 7]."""
    np.multiply(w_gT, np.float32(1) / step_T, out=out)
    np.rint(out, out=out)
    np.maximum(out, np.float32(INT4_MIN) - zero_T, out=out)
    return np.minimum(out, np.float32(INT4_MAX) - zero_T, out=out)
