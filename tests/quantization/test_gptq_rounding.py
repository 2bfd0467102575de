"""Second-order rounding: against brute force, against rounding to the nearest, in any number of threads."""

import itertools

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_exp.architecture import Quantization
from llama_exp.formats import rounding
from llama_exp.formats.quantized import KERNEL, dequantize, stored_groups
from llama_exp.quantization import gptq_rounding as second_order


def moments(size, seed=0, num=200):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(num, size)) @ (np.eye(size) + 0.3 * generator.normal(size=(size, size)))
    return x.T @ x / num


def rounded(w, group_size, h):
    return second_order.round_groups(w, group_size, second_order.factored(h, group_size))


def floats(integers, step, zero, group_size):
    size = group_size or len(integers)
    steps, zeros = (np.repeat(part, size, 0)[: len(integers)].astype("float64") for part in (step, zero))
    return (integers - zeros) * steps


def error(found, w, h):
    e_IO = found - w
    return np.einsum("io,ij,jo->o", e_IO, h, e_IO)


def matrix(inputs, outputs, seed=0):
    return np.random.default_rng(seed).normal(size=(inputs, outputs)).astype("float32")


@pytest.mark.parametrize("num", [1, 31, 33, 70])
def test_the_factor_is_that_of_cholesky(num):
    h = moments(num)
    found = h.copy()
    second_order._factor(found)
    np.testing.assert_allclose(found, np.linalg.cholesky(h), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("group_size", [8, 13, 32, None])
def test_products_are_closer_than_with_the_nearest_integers(group_size):
    w, h = matrix(70, 65), moments(70)
    parts = rounded(w, group_size, h)
    steps = np.repeat(parts[1], group_size or 70, 0)[:70].astype("float64")
    zeros = np.repeat(parts[2], group_size or 70, 0)[:70].astype("float64")
    nearest = np.clip(np.rint(w / steps), -8 - zeros, 7 - zeros) * steps
    found = error(floats(*parts, group_size), w, h)
    assert found.sum() < 0.7 * error(nearest, w, h).sum()
    importance = (np.diag(h) / np.diag(h).max()).astype("float32")
    searched = floats(*rounding.round_groups(w, 0, group_size, importance), group_size)
    assert found.sum() < 0.8 * error(searched, w, h).sum()


def test_it_is_near_the_best_of_all_integers():
    w, h = matrix(5, 12), moments(5)
    integers, step, zero = rounded(w, 5, h)
    found = error(floats(integers, step, zero, 5), w, h)
    best = []
    for o in range(12):
        levels = np.clip(np.rint(w[:, o] / step[0, o]) + zero[0, o], -8, 7)
        around = [np.unique(np.clip(level + np.arange(-2, 3), -8, 7)) for level in levels]
        tried = (
            np.array(np.array(choice) - zero[0, o]) * step[0, o] - w[:, o] for choice in itertools.product(*around)
        )
        best.append(min(float(e @ h @ e) for e in tried))
    assert (found >= np.array(best) * (1 - 1e-5)).all()
    assert found.sum() < 1.5 * sum(best)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.one_of(st.none(), st.integers(1, 80)),
    st.sampled_from([1e-12, 1e-3, 1.0, 1e6]),
    st.integers(0, 2**32 - 1),
)
def test_what_is_stored_is_possible(inputs, outputs, group_size, scale, seed):
    w = matrix(inputs, outputs, seed) * np.float32(scale)
    integers, step, zero = rounded(w, group_size, moments(inputs, seed, num=3))
    assert (integers.dtype, step.dtype, zero.dtype) == (np.int8, np.float32, np.int8)
    assert (step > 0).all() and np.isfinite(step).all()
    assert ((integers >= -8) & (integers <= 7)).all() and ((zero >= -8) & (zero <= 7)).all()
    assert group_size is not None or not zero.any()


def test_dead_constant_and_zero_inputs():
    h, w = moments(64), matrix(64, 9)
    h[3] = h[:, 3] = 0
    w[40], w[:, 0], w[:, 1] = 0, 0, 0.5
    found = floats(*rounded(w, 32, h), 32)
    assert np.isfinite(found).all() and not found[:, 0].any()
    np.testing.assert_allclose(found[:, 1], 0.5, rtol=0.1)


def test_the_number_of_threads_changes_nothing():
    w, h = matrix(200, 300), moments(200, num=900)
    before = numba.get_num_threads()
    try:
        found = []
        for threads in {1, before}:
            numba.set_num_threads(threads)
            found.append(rounded(w, 32, h))
    finally:
        numba.set_num_threads(before)
    assert all(np.array_equal(part, other) for part, other in zip(found[0], found[-1], strict=True))


def test_a_kernel_is_stored_so():
    w, h, int4 = matrix(64, 7), moments(64), Quantization("int4", False, 32)
    parts = rounded(w, 32, h)
    found = dequantize(stored_groups(*parts, KERNEL, int4), w.shape, KERNEL, int4)
    np.testing.assert_allclose(found, floats(*parts, 32), rtol=1e-6)
