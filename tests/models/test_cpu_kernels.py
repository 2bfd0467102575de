"""Products of a few rows, for every kind of stored weights, against NumPy products of what the weights stand for."""

import ml_dtypes
import numba
import numpy as np
import oracles
import pytest

from llama_exp.architecture import Quantization
from llama_exp.formats.quantized import KERNEL, SCALE, TABLE, ZERO, dequantize, quantize
from llama_exp.models.cpu import kernels as cpu_kernels
from llama_exp.models.cpu.kernels import Floats, Packed, Scaled

INT8, FLOAT8 = Quantization("int8", True, None), Quantization("float8", False)
RNG = np.random.default_rng(0)
# Rows, inputs, outputs; also odd ones. A third number of outputs would be compiled once more for each kind.
SHAPES = [(1, 8, (6,)), (3, 37, (5, 16, 1)), (2, 130, (33, 12, 7))]


@numba.njit
def run_products(x, kernels, ys, scratch):
    cpu_kernels.products(x, kernels, ys, scratch)


@numba.njit
def run_table(x, table, y):
    cpu_kernels.table_product(x, table, y)


def products(x, kernels, outputs, threads):
    """The results, and that nothing was written beside them."""
    ys = tuple(np.full((len(x), size), np.nan, np.float32) for size in outputs)
    scratch = np.full((threads, sum(y.size for y in ys) + 3), np.nan, np.float32)
    run_products(x, kernels, ys, scratch)
    assert np.isnan(scratch[:, -3:]).all()
    return ys


def rows(num_rows, num_inputs):
    return RNG.normal(size=(num_rows, num_inputs)).astype(np.float32)


def assert_close(result, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(result, expected, rtol=0, atol=oracles.EXACT_TOLERANCE * scale)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("num_rows, num_inputs, outputs", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_floats(dtype, num_rows, num_inputs, outputs, threads):
    x = rows(num_rows, num_inputs)
    matrices = [RNG.normal(size=(num_inputs, size)).astype(dtype) for size in outputs]
    stored = tuple(m.view(np.uint16) if m.dtype == ml_dtypes.bfloat16 else m for m in matrices)
    for y, matrix in zip(products(x, Floats(stored), outputs, threads), matrices, strict=True):
        assert_close(y, x.astype("float64") @ matrix.astype("float64"))


def rounded(x, asymmetric):
    """Rows as 8 bits would hold them: between their smallest and largest number, or as Keras' AbsMaxQuantizer."""
    if asymmetric:
        low, high = np.minimum(x.min(-1, keepdims=True), 0), np.maximum(x.max(-1, keepdims=True), 0)
        return np.rint(x * (255 / (high - low + 1e-7))) / (255 / (high - low + 1e-7))
    scale = 127 / (np.abs(x).max(axis=-1, keepdims=True) + 1e-7)
    return np.clip(np.rint(x * scale), -127, 127) / scale


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("rounds_rows", [(False, False, False), (True, True, True), (False, True, False)])
@pytest.mark.parametrize("num_rows, num_inputs, outputs", SHAPES)
def test_integers(asymmetric, rounds_rows, num_rows, num_inputs, outputs):
    x, how, rounds_rows = rows(num_rows, num_inputs), INT8, rounds_rows[: len(outputs)]
    parts = [quantize(rows(num_inputs, size), KERNEL, how) for size in outputs]
    kernels = Scaled(tuple(p[""] for p in parts), tuple(1 / p[SCALE] for p in parts), np.array(rounds_rows), asymmetric)
    for y, part, size, rounds in zip(products(x, kernels, outputs, 2), parts, outputs, rounds_rows, strict=True):
        assert_close(y, (rounded(x, asymmetric) if rounds else x) @ dequantize(part, (num_inputs, size), KERNEL, how))


@pytest.mark.parametrize("num_rows, num_inputs, outputs", SHAPES)
def test_float8(num_rows, num_inputs, outputs):
    x, how, not_rounded = 1e4 * rows(num_rows, num_inputs), FLOAT8, np.zeros(len(outputs), bool)
    parts = [quantize(rows(num_inputs, size), KERNEL, how) for size in outputs]
    kernels = Scaled(tuple(p[""].view(np.uint8) for p in parts), tuple(1 / p[SCALE] for p in parts), not_rounded, False)
    for y, part, size in zip(products(x, kernels, outputs, 2), parts, outputs, strict=True):
        assert_close(y, x @ dequantize(part, (num_inputs, size), KERNEL, how))
    part = quantize(x, TABLE, how)
    y = np.full((num_rows, num_rows), np.nan, np.float32)
    run_table(x, Scaled((part[""].view(np.uint8),), (1 / part[SCALE],), not_rounded[:1], False), y)
    assert_close(y, x @ dequantize(part, x.shape, TABLE, how).T)


def test_the_smallest_float8_count():
    """In every thread: a processor can be told to take subnormal numbers for zeros."""
    smallest = np.full((64, 5), 1, np.uint8)  # 2^-9
    kernels = Scaled((smallest,), (np.ones(5, np.float32),), np.zeros(1, bool), False)
    (y,) = products(np.ones((1, 64), np.float32), kernels, (5,), 4)
    assert y.tolist() == [[64 * 2.0**-9] * 5]


@pytest.mark.parametrize("group_size", [16, 5, None])
@pytest.mark.parametrize("num_rows, num_inputs, outputs", SHAPES)
def test_packed(group_size, num_rows, num_inputs, outputs):
    x, how = rows(num_rows, num_inputs), Quantization("int4", False, group_size)
    parts = [quantize(rows(num_inputs, size), KERNEL, how) for size in outputs]
    factors = [p[SCALE] if group_size else 1 / p[SCALE][None] for p in parts]
    zeros = [
        p[ZERO].astype(np.float32) if group_size else np.zeros_like(f) for p, f in zip(parts, factors, strict=True)
    ]
    kernels = Packed(tuple(p[""] for p in parts), tuple(factors), tuple(zeros), group_size or num_inputs)
    for y, part, size in zip(products(x, kernels, outputs, 3), parts, outputs, strict=True):
        assert_close(y, x @ dequantize(part, (num_inputs, size), KERNEL, how))


@pytest.mark.parametrize("rounds_rows, asymmetric", [(False, False), (True, False), (True, True)])
def test_tables(rounds_rows, asymmetric):
    x, matrix = rows(3, 21), rows(50, 21)
    y = np.full((3, 50), np.nan, np.float32)
    run_table(x, Floats((matrix,)), y)
    assert_close(y, x @ matrix.T)
    how = INT8
    part = quantize(matrix, TABLE, how)
    run_table(x, Scaled((part[""],), (1 / part[SCALE],), np.array([rounds_rows]), asymmetric), y)
    assert_close(y, (rounded(x, asymmetric) if rounds_rows else x) @ dequantize(part, matrix.shape, TABLE, how).T)


def test_what_is_not_finite_stays_so():
    """Also where weights are 0: the licence to reorder sums is none to assume that numbers are finite."""
    x = np.array([[1, np.nan], [np.inf, 1], [1, 1]], np.float32)
    (y,) = products(x, Floats((np.array([[0, 2], [0, 3]], np.float32),)), (2,), 2)
    np.testing.assert_array_equal(y, [[np.nan, np.nan], [np.nan, np.inf], [0, 5]])
