"""Products in a fixed order: exact where float64 is, and the same bits in any number of threads."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_exp.quantization import ordered_products as fixed_order

sizes = st.sampled_from([1, 7, 8, 63, 64, 65, 130])


def rows(num, inputs, seed=0):
    return np.random.default_rng(seed).normal(size=(num, inputs))


def integers(inputs, outputs, seed=0):
    return np.random.default_rng(seed).integers(-127, 128, (inputs, outputs)).astype("int8")


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, sizes, st.booleans())
def test_products(num, inputs, outputs, transposed):
    x, matrix = rows(num, inputs), integers(inputs, outputs)
    if transposed:
        matrix = np.ascontiguousarray(matrix.T).T
    found, expected = fixed_order.product(x, matrix), x @ matrix
    scale = np.abs(x) @ np.abs(matrix.astype(float))
    assert found.dtype == np.float32 and (np.abs(found - expected) <= 1e-5 * scale).all()
    whole = np.rint(x * 8)  # sums of such numbers are exact
    assert np.array_equal(fixed_order.product(whole, matrix), whole @ matrix)


@settings(max_examples=20, deadline=None)
@given(sizes, sizes)
def test_moments(num, inputs):
    x = rows(num, inputs)
    found, size = fixed_order.moments(x), np.abs(x).T @ np.abs(x)
    assert np.array_equal(found, found.T) and (np.abs(found - x.T @ x) <= 2.001 * 2.0**-12 * size).all()
    whole = np.rint(x * 8)
    assert np.array_equal(fixed_order.moments(whole), whole.T @ whole)


def test_any_number_of_threads_gives_the_same_bits():
    x, matrix, found = rows(130, 200), integers(200, 130), []
    before = numba.get_num_threads()
    try:
        for threads in {1, numba.config.NUMBA_NUM_THREADS}:
            numba.set_num_threads(threads)
            found.append((fixed_order.product(x, matrix), fixed_order.moments(x)))
    finally:
        numba.set_num_threads(before)
    assert all(np.array_equal(part, first) for parts in found for part, first in zip(parts, found[0], strict=True))


def test_sums_are_taken_input_after_input():
    x, matrix = rows(3, 100), integers(100, 5)
    short = fixed_order._shortened(x, 17)
    expected = np.zeros((3, 5), np.float32)
    for i in range(100):
        expected += short[:, i : i + 1] * matrix[i].astype(np.float32)
    assert np.array_equal(fixed_order.product(x, matrix), expected)


@pytest.mark.parametrize("bits", [12, 17])
def test_shortened_numbers(bits):
    x = np.concatenate([rows(1, 1000)[0], [0.0, -0.0, 1.0, -1.0, 1e30, -1e-30]])
    found = fixed_order._shortened(x, bits)
    assert (np.abs(found - x) <= np.abs(x) * 2.0**-bits).all()
    assert not (found.view(np.uint32) & np.uint32((1 << 24 - bits) - 1)).any()
    assert np.array_equal(fixed_order._shortened(found, bits), found)
    assert fixed_order._shortened(np.array([1 + 2.0**-bits, 1 + 3 * 2.0**-bits]), bits).tolist() == [
        1.0,
        1 + 2.0 ** (2 - bits),
    ]
