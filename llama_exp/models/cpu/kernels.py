"""A few rows times a matrix, on a CPU: each weight is read once, in the type in which it is stored.

A token that is decoded multiplies one row with every matrix of the model, so that its time is that of reading them.
XLA and TensorFlow turn matrices of smaller types into float32 before such a product and lose what their small types
gain. These functions are compiled by Numba for NumPy arrays. A thread takes a range of the inputs, which lies in one
stretch of memory, and sums into rows of its own:

    kernel (I, O), inputs first     thread t:  y_t = sum over its inputs i of x[i] kernel[i, :]        y = sum of y_t
    table (V, D), outputs first     thread t:  y[v] = x . table[v, :] for its outputs v

Numerics: float32 throughout. Sums are in another order than elsewhere, for another number of threads too.

Importing this module compiles nothing; what is compiled is kept beside it, or in Numba's cache folder.

Shape letters: M rows (one per sequence), I inputs, O outputs, V vocabulary, D hidden_dim, G groups of inputs,
P threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from llama_exp.formats.rounding import EPSILON, INT8_MAX, UINT8_MAX
from llama_exp.models.cpu.numbers import times

# What lets sums be vectorized, and nothing that would break not-a-number or infinity.
FAST = {"reassoc", "contract", "nsz"}
_AHEAD_BYTES = 4096  # how far in front of its use memory is asked for: the processor itself stops at page borders
_LINE_BYTES = 64


class Floats(NamedTuple):
    """Matrices of float32, or of bfloat16 as uint16, for the same rows: kernels (I, O), or one table (V, D)."""

    matrices: tuple


class Scaled(NamedTuple):
    """The same of int8, or of float8 as uint8, with the factor of each output, and whether rows are integers too."""

    matrices: tuple
    factors: tuple  # (O,) or (V,) float32 each
    rounds_rows: np.ndarray  # bool, one per matrix
    asymmetric: bool  # how rows are rounded: `integer_product`


class Packed(NamedTuple):
    """Kernels of 4-bit integers, two outputs a byte, (I, ceil(O / 2)), with a factor and a zero point per group.

    A weight is factor * (integer - zero).
    """

    matrices: tuple
    factors: tuple  # (G, O) float32 each
    zeros: tuple  # (G, O) float32 each
    group_size: int  # inputs


@intrinsic
def _prefetch(typing_context, array, offset):
    """Asks for the cache line `offset` bytes behind the beginning of `array`; any address is allowed."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.gep(builder.bitcast(data, ir.IntType(8).as_pointer()), [arguments[1]])
        word = ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", (address.type,), signature)
        read, keep, data_cache = (ir.Constant(word, number) for number in (0, 2, 1))
        builder.call(function, [address, read, keep, data_cache])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@numba.njit(fastmath=FAST, cache=True)
def _ask_ahead(matrix, row, num_rows):
    row_bytes = matrix.shape[1] * matrix.itemsize
    for offset in range(0, num_rows * row_bytes, _LINE_BYTES):
        _prefetch(matrix, row * row_bytes + _AHEAD_BYTES + offset)


@numba.njit(fastmath=FAST, cache=True)
def _sum_rows(x, matrix, first, last, y):
    """Sums into y (M, O) the products of inputs first .. last - 1, two at a time."""
    num_outputs = matrix.shape[1]
    y[:] = 0
    for i in range(first, last - 1, 2):
        _ask_ahead(matrix, i, 2)
        w0, w1 = matrix[i], matrix[i + 1]
        for m in range(x.shape[0]):
            x0, x1, y_m = x[m, i], x[m, i + 1], y[m]
            for o in range(num_outputs):
                y_m[o] += times(x0, w0[o]) + times(x1, w1[o])
    if (last - first) % 2:
        w0 = matrix[last - 1]
        for m in range(x.shape[0]):
            x0, y_m = x[m, last - 1], y[m]
            for o in range(num_outputs):
                y_m[o] += times(x0, w0[o])


@numba.njit(fastmath=FAST, cache=True)
def _sum_packed_rows(x, matrix, first, last, y):
    """As `_sum_rows` for 4-bit integers; y (M, 2, O / 2) has outputs of even index, then those of odd index."""
    num_bytes = matrix.shape[1]
    y[:] = 0
    for i in range(first, last):
        _ask_ahead(matrix, i, 1)
        bytes_i = matrix[i]
        for m in range(x.shape[0]):
            x_i, even, odd = x[m, i], y[m, 0], y[m, 1]
            for o in range(num_bytes):
                byte = bytes_i[o]
                even[o] += x_i * np.float32(np.int8(byte << 4) >> 4)
                odd[o] += x_i * np.float32(byte >> 4)


def products(x, kernels, ys, scratch):
    """Multiplies x (M, I) by each of `kernels` into each of `ys` (M, O); for compiled code.

    Args:
        x: float32.
        kernels: `Floats`, `Scaled` or `Packed`; or `cpu.mixed.Mixed`.
        ys: tuple of float32 arrays, overwritten.
        scratch: (P, at least the sum of all M * O) float32, P threads.
    """
    raise NotImplementedError


@overload(products)
def _products(x, kernels, ys, scratch):
    if kernels.instance_class is Floats:
        return _float_products
    if kernels.instance_class is Packed:
        return _packed_products
    return _scaled_products if kernels.instance_class is Scaled else None  # None: of `cpu.mixed`


def _packed_products(x, kernels, ys, scratch):
    _multiply_packed(x, kernels.matrices, kernels.factors, kernels.zeros, kernels.group_size, ys, scratch)


def _float_products(x, kernels, ys, scratch):
    _multiply(x, x, np.zeros(len(ys), np.bool_), kernels.matrices, ys, scratch)


def _scaled_products(x, kernels, ys, scratch):
    rounds_rows, plain = kernels.rounds_rows, np.ones(len(x), np.float32)
    integers, scale = _round_rows(x, kernels.asymmetric) if rounds_rows.any() else (x, plain)
    _multiply(x, integers, rounds_rows, kernels.matrices, ys, scratch)
    for j in range(len(ys)):
        _rescale(ys[j], kernels.factors[j], scale if rounds_rows[j] else plain)


@numba.njit(fastmath=FAST, cache=True, parallel=True)
def _multiply(x, integers, rounds_rows, matrices, ys, scratch):
    num_threads, num_inputs = scratch.shape[0], x.shape[1]
    for t in numba.prange(num_threads):
        first, last, start = num_inputs * t // num_threads, num_inputs * (t + 1) // num_threads, 0
        for j in range(len(matrices)):
            end = start + ys[j].size
            rows = integers if rounds_rows[j] else x
            _sum_rows(rows, matrices[j], first, last, scratch[t, start:end].reshape(ys[j].shape))
            start = end
    _add_shares(scratch, ys)


@numba.njit(fastmath=FAST, cache=True, parallel=True)
def _multiply_packed(x, matrices, factors, zeros, group_size, ys, scratch):
    num_threads, num_groups = scratch.shape[0], factors[0].shape[0]
    for t in numba.prange(num_threads):
        first, last, start = num_groups * t // num_threads, num_groups * (t + 1) // num_threads, 0
        for j in range(len(matrices)):
            end = start + ys[j].size
            y = scratch[t, start:end].reshape(ys[j].shape)
            _sum_groups(x, matrices[j], factors[j], zeros[j], group_size, first, last, y)
            start = end
    _add_shares(scratch, ys)


@numba.njit(fastmath=FAST, cache=True)
def _sum_groups(x, matrix, factor, zero, group_size, first, last, y):
    """As `_sum_rows` for the groups first .. last - 1 of 4-bit integers."""
    sums = np.empty((x.shape[0], 2, matrix.shape[1]), np.float32)
    y[:] = 0
    for g in range(first, last):
        begin, end = g * group_size, min((g + 1) * group_size, x.shape[1])
        _sum_packed_rows(x, matrix, begin, end, sums)
        for m in range(x.shape[0]):
            sum_x, y_m = np.float32(0), y[m]
            for i in range(begin, end):
                sum_x += x[m, i]
            for o in range(y.shape[1]):
                y_m[o] += factor[g, o] * (sums[m, o % 2, o // 2] - zero[g, o] * sum_x)


@numba.njit(fastmath=FAST, cache=True)
def _add_shares(scratch, ys):
    start = 0
    for j in range(len(ys)):
        y = ys[j].reshape(-1)
        y[:] = scratch[0, start : start + y.size]
        for t in range(1, scratch.shape[0]):
            share = scratch[t, start : start + y.size]
            for o in range(y.size):
                y[o] += share[o]
        start += y.size


@numba.njit(fastmath=FAST, cache=True)
def _round_rows(x, asymmetric):
    """As `integer_product.round_rows`."""
    integers, scale = np.empty_like(x), np.empty(x.shape[0], np.float32)
    for m in range(x.shape[0]):
        low, high = np.float32(0), np.float32(0)
        for i in range(x.shape[1]):
            low, high = min(low, x[m, i]), max(high, x[m, i])
        if asymmetric:
            scale[m] = np.float32(UINT8_MAX) / (high - low + np.float32(EPSILON))
            least = -np.rint(-low * scale[m])
            most = np.float32(UINT8_MAX) + least
        else:
            scale[m] = np.float32(INT8_MAX) / (max(-low, high) + np.float32(EPSILON))
            least, most = np.float32(-INT8_MAX), np.float32(INT8_MAX)
        for i in range(x.shape[1]):
            integers[m, i] = min(max(np.rint(x[m, i] * scale[m]), least), most)
    return integers, scale


@numba.njit(fastmath=FAST, cache=True)
def _rescale(y, factor, scale):
    """Takes y (M, O) times the factor of its output, and by the scale of its row."""
    for m in range(y.shape[0]):
        inverse, y_m = np.float32(1) / scale[m], y[m]
        for o in range(y.shape[1]):
            y_m[o] *= inverse * factor[o]


def table_product(x, table, y):
    """Multiplies x (M, D) by a table transposed into y (M, V); for compiled code.

    Args:
        x: float32.
        table: `Floats` or `Scaled` of one matrix.
        y: float32, overwritten.
    """
    raise NotImplementedError


@overload(table_product)
def _table_product(x, table, y):
    if table.instance_class is Floats:
        return lambda x, table, y: _multiply_table(x, table.matrices[0], y)
    return _scaled_table_product


def _scaled_table_product(x, table, y):
    rows, scale = _round_rows(x, table.asymmetric) if table.rounds_rows[0] else (x, np.ones(len(x), np.float32))
    _multiply_table(rows, table.matrices[0], y)
    _rescale(y, table.factors[0], scale)


@numba.njit(fastmath=FAST, cache=True, parallel=True)
def _multiply_table(x, table, y):
    for v in numba.prange(table.shape[0]):
        row = table[v]
        for m in range(x.shape[0]):
            x_m, total = x[m], np.float32(0)
            for d in range(row.shape[0]):
                total += times(x_m[d], row[d])
            y[m, v] = total
