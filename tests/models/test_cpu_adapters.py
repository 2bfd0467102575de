"""What adapters add to products of a few rows, against the same formula in NumPy."""

import numba
import numpy as np
import oracles
import pytest

from llama_exp.models.cpu.adapters import Adapter, adapt

RNG = np.random.default_rng(0)


@numba.njit
def run_adapt(x, adapters, ys):
    adapt(x, adapters, ys)


def rows(num_rows, size):
    return RNG.normal(size=(num_rows, size)).astype(np.float32)


@pytest.mark.parametrize("present", [(True,), (False, True), (True, False, True), (False, False, False)])
def test_adapters(present):
    x = rows(2, 9)
    adapters = tuple(
        Adapter(rows(9, 2), rows(2, 4 + i), rows(1, 4 + i)[0]) if there else None for i, there in enumerate(present)
    )
    ys = tuple(rows(2, 4 + i) for i in range(len(present)))
    expected = [(y + x @ a.a @ a.b) * a.factor if a else y.copy() for y, a in zip(ys, adapters, strict=True)]
    run_adapt(x, adapters, ys)
    for y, wanted in zip(ys, expected, strict=True):
        np.testing.assert_allclose(y, wanted, rtol=0, atol=oracles.EXACT_TOLERANCE * np.abs(wanted).max())
