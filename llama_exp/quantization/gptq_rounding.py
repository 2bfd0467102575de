"""4-bit integers of a matrix whose errors cancel in its products: second-order rounding (GPTQ). Compiled by Numba.

What is made small is the error of the products themselves, with second moments H of the inputs:

    error = sum over outputs of e^T H e,   e = w - (integer - zero) step,   H = x^T x

Frantar et al. 2022 (arXiv:2210.17323) round one input after the other and let those that are left make up for it.
With H = R R^T, R upper triangular, e^T H e is the sum over i of (R_ii e_i + sum over j < i of R_ji e_j)^2, so that
each input in turn is rounded from w_i + sum over j < i of e_j R_ji / R_ii, which is their update without an inverse. A
group takes its step when its turn comes, by the search of `rounding` with R_ii^2 as importance. Groups with the largest
input come first, and within them the largest inputs; that order needs nothing stored.

Numerics: H is factored in float64, the rest is float32. Every sum has an order of its own, in any number of threads,
and nothing is reassociated: the same H and matrix give the same integers everywhere.

Importing this module compiles nothing; what is compiled is kept beside it, or in Numba's cache folder.

Shape letters: I inputs, O outputs, G groups, g inputs of one group, T outputs of one tile.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from llama_exp import recipe
from llama_exp.formats.rounding import EPSILON, INT4_MAX, INT4_MIN, SHRINKS

_PANEL = 32  # columns that are factored before the rest learns of them
_TILE = 64  # outputs, so that their errors stay in a core's cache
_CENTRE = np.float32((INT4_MIN + INT4_MAX) / 2)
_SHRINKS = np.array(SHRINKS, np.float32)
_TINY = np.float32(1e-30)


class Factored(NamedTuple):
    """What rounding needs of the second moments of I inputs.

    order_I: of the inputs. importance_I: R_ii^2, of the largest one, float32. share_II: row i has R_ji / R_ii of each j
    before it, float32; both in `order_I`.
    """

    order_I: np.ndarray
    importance_I: np.ndarray
    share_II: np.ndarray


def factored(moments_II: np.ndarray, group_size: int | None) -> Factored:
    """H = R R^T in the order in which the inputs will be rounded.

    Args:
        moments_II: H, float64, finite, with a diagonal above 0 somewhere.
        group_size: inputs in a group; None: all in one.
    """
    largest_I, size = np.diag(moments_II), group_size or len(moments_II)
    starts = range(0, len(largest_I), size)
    groups = [np.arange(start, min(start + size, len(largest_I))) for start in starts]
    groups.sort(key=lambda group: -largest_I[group].max())  # stable, as the other one
    order_I = np.concatenate([group[np.argsort(-largest_I[group], kind="stable")] for group in groups])
    damped_II = moments_II * (1 - recipe.GPTQ["damping"])
    damped_II[np.diag_indices(len(largest_I))] = np.maximum(largest_I, recipe.GPTQ["floor"] * largest_I.max())
    backwards = order_I[::-1]
    lower_II = np.ascontiguousarray(damped_II[np.ix_(backwards, backwards)])
    _factor(lower_II)
    upper_II = lower_II[::-1, ::-1]
    importance_I = np.square(np.diag(upper_II))
    share_II = np.ascontiguousarray((upper_II / np.diag(upper_II)).T.astype("float32"))
    return Factored(order_I, (importance_I / importance_I.max()).astype("float32"), share_II)


def round_groups(
    matrix_IO: np.ndarray, group_size: int | None, moments: Factored
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `rounding.round_groups` for a kernel with inputs along axis 0.

    Args:
        matrix_IO: float32, finite.
        group_size: as there.
        moments: of the inputs, for the same group size.
    """
    num_inputs, num_outputs = matrix_IO.shape
    size, has_zero = group_size or num_inputs, group_size is not None
    integers_IO = np.empty(matrix_IO.shape, "int8")
    step_GO = np.empty((-(-num_inputs // size), num_outputs), "float32")
    zero_GO = np.zeros(step_GO.shape, "int8")
    ordered_IO = np.ascontiguousarray(matrix_IO[moments.order_I])
    _round(
        ordered_IO,
        moments.order_I,
        size,
        has_zero,
        moments.importance_I,
        moments.share_II,
        integers_IO,
        step_GO,
        zero_GO,
    )
    return integers_IO, step_GO, zero_GO


@numba.njit(cache=True, parallel=True)
def _factor(a_II):
    """Replaces a symmetric positive matrix by its lower triangular L, a = L L^T, and zeros above it (Cholesky)."""
    num = a_II.shape[0]
    columns = np.empty((_PANEL, num))
    for start in range(0, num, _PANEL):
        end = min(start + _PANEL, num)
        for i in range(start, end):
            _solve(a_II[i, start : i + 1], a_II[start:end, start:end], i - start)
            a_II[i, i] = np.sqrt(a_II[i, i])
        for i in numba.prange(end, num):
            _solve(a_II[i, start:end], a_II[start:end, start:end], end - start)
            for k in range(start, end):
                columns[k - start, i] = a_II[i, k]
        for back in numba.prange(num - end):
            i = num - 1 - back
            _subtract(a_II[i, end : i + 1], a_II[i, start:end], columns[:, end : i + 1])
    for i in range(num):
        a_II[i, i + 1 :] = 0


@numba.njit(cache=True)
def _solve(row, lower, num_columns):
    """Of a row of `a`, its columns in L: those before have been subtracted from it, and for the diagonal these too."""
    for k in range(len(row)):
        for m in range(min(k, num_columns)):
            row[k] -= row[m] * (row[m] if k == num_columns else lower[k, m])
        if k < num_columns:
            row[k] /= lower[k, k]


@numba.njit(cache=True)
def _subtract(sums, factors, rows):
    """Takes the sum over k of factors[k] rows[k] from `sums`, k after k; four at a time to write seldom."""
    last = len(factors) - len(factors) % 4
    for k in range(0, last, 4):
        f0, f1, f2, f3 = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
        r0, r1, r2, r3 = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        for n in range(len(sums)):
            sums[n] = sums[n] - f0 * r0[n] - f1 * r1[n] - f2 * r2[n] - f3 * r3[n]
    for k in range(last, len(factors)):
        factor, row = factors[k], rows[k]
        for n in range(len(sums)):
            sums[n] -= factor * row[n]


@numba.njit(cache=True, parallel=True)
def _round(w_IO, order_I, size, has_zero, importance_I, share_II, integers_IO, step_GO, zero_GO):
    """Rounds w, inputs in their `order_I`; what is written has theirs again."""
    num_inputs, num_outputs = w_IO.shape
    for tile in numba.prange((num_outputs + _TILE - 1) // _TILE):
        left = tile * _TILE
        right = min(left + _TILE, num_outputs)
        w_IT = w_IO[:, left:right].copy()
        gained_IT = np.empty_like(w_IT)  # -e
        step_T, zero_T = np.empty(right - left, np.float32), np.empty(right - left, np.float32)
        start = 0
        while start < num_inputs:
            group = order_I[start] // size
            end = start + min(size, num_inputs - group * size)
            for i in range(start, end):
                _subtract(w_IT[i], share_II[i, :start], gained_IT)
            _search(w_IT[start:end], importance_I[start:end], has_zero, step_T, zero_T)
            for i in range(start, end):
                _subtract(w_IT[i], share_II[i, start:i], gained_IT[start:end])
                for t in range(right - left):
                    k = _level(w_IT[i, t] / step_T[t], zero_T[t])
                    gained_IT[i, t] = k * step_T[t] - w_IO[i, left + t]
                    integers_IO[order_I[i], left + t] = np.int8(k + zero_T[t])
            for t in range(right - left):
                step_GO[group, left + t], zero_GO[group, left + t] = step_T[t], np.int8(zero_T[t])
            start = end


@numba.njit(cache=True)
def _level(multiple, zero):
    return min(max(np.rint(multiple), np.float32(INT4_MIN) - zero), np.float32(INT4_MAX) - zero)


@numba.njit(cache=True)
def _search(w_gT, importance_g, has_zero, step_T, zero_T):
    """The step and zero point of the smallest error of each column, as `rounding` searches for them."""
    num = len(step_T)
    low_T, high_T = np.zeros(num, np.float32), np.zeros(num, np.float32)
    for row in w_gT:
        for t in range(num):
            low_T[t], high_T[t] = min(low_T[t], row[t]), max(high_T[t], row[t])
    if not has_zero:  # the same range on both sides
        for t in range(num):
            high_T[t] = max(high_T[t], low_T[t] * np.float32(INT4_MAX / INT4_MIN))
            low_T[t] = high_T[t] * np.float32(INT4_MIN / INT4_MAX)
    range_T = (high_T - low_T + np.float32(EPSILON)) / np.float32(INT4_MAX - INT4_MIN)
    middle_T = (low_T + high_T) / np.float32(2)
    step_T[:], zero_T[:] = range_T, 0
    best_T, own_T = np.full(num, np.float32(-1)), np.zeros(num, np.float32)
    for shrink in _SHRINKS:
        candidate_T = range_T * shrink
        if has_zero:
            for t in range(num):
                zero = np.rint(_CENTRE - middle_T[t] / candidate_T[t])
                own_T[t] = min(max(zero, np.float32(INT4_MIN)), np.float32(INT4_MAX))
        inverse_T = np.float32(1) / candidate_T
        product_T, square_T = np.zeros(num, np.float32), np.zeros(num, np.float32)
        for i in range(len(w_gT)):
            row, importance = w_gT[i], importance_g[i]
            for t in range(num):
                k = _level(row[t] * inverse_T[t], own_T[t])
                product_T[t] += importance * k * row[t]
                square_T[t] += importance * k * k
        for t in range(num):
            explained = product_T[t] * product_T[t] / max(square_T[t], _TINY)
            if explained > best_T[t]:
                best_T[t], zero_T[t] = explained, own_T[t]
                step_T[t] = product_T[t] / square_T[t] if product_T[t] > 0 and square_T[t] > _TINY else range_T[t]
