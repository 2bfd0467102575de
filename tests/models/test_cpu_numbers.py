"""Every pattern of bits against the type that it belongs to."""

import ml_dtypes
import numba
import numpy as np
import pytest

from llama_exp.models.cpu.numbers import times


@numba.njit
def all_of(values):
    result = np.empty(values.shape, np.float32)
    for i in range(len(values)):
        result[i] = times(np.float32(1), values[i])
    return result


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [("uint8", ml_dtypes.float8_e4m3fn), ("uint16", ml_dtypes.bfloat16), ("int8", np.int8)],
)
def test_every_number(bits, dtype):
    """With the sign of zero, and numbers that are subnormal in their own type."""
    values = np.arange(256 ** np.dtype(bits).itemsize).astype(bits)
    expected = values.view(dtype).astype("float32")
    known = np.isfinite(expected)
    assert np.array_equal(all_of(values)[known].view("uint32"), expected[known].view("uint32"))
    assert known.sum() == len(values) - {"uint8": 2, "uint16": 256, "int8": 0}[bits]


def test_float32_is_itself():
    values = np.array([0, -0.0, 1e-45, np.inf, -np.nan], np.float32)
    assert np.array_equal(all_of(values).view("uint32"), values.view("uint32"))
