"""Integers and steps: int8 as Keras defines it, int4 and float8 against a plain search for the nearest."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_exp.formats import rounding
from llama_exp.formats.rounding import FLOAT8, SHRINKS, round_groups, round_outputs


def matrix(shape=(24, 7), seed=0, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 1.0, shape).astype("float32")


def floats(integers, step, zero, axis, group_size):
    """What integers, steps and zero points stand for, one number at a time, with inputs along axis 0."""
    integers, step, zero = (np.moveaxis(part, axis, 0) for part in (integers, step, zero))
    result = np.empty(integers.shape, "float64")
    for i, row in enumerate(integers):
        group = i // (group_size or len(integers))
        for o, integer in enumerate(row):
            result[i, o] = (int(integer) - int(zero[group, o])) * float(step[group, o])
    return np.moveaxis(result, 0, axis)


def plain_error(values, has_zero):
    """The smallest squared error of a group among the ranges that are tried, in float64 and one weight at a time."""
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    if not has_zero:
        high = max(high, -low * 7 / 8)
        low = -8 / 7 * high
    best = None
    for shrink in SHRINKS:
        step = (high - low) / 15 * shrink
        zero = min(max(round(-0.5 - (low + high) / 2 / step), -8), 7) if has_zero else 0
        levels = np.array([min(max(round(value / step), -8 - zero), 7 - zero) for value in values])
        fitted = values @ levels / (levels @ levels)
        nearest = [min(max(round(value / fitted), -8 - zero), 7 - zero) * fitted for value in values]
        unfitted = np.square(values - levels * fitted).sum()
        if best is None or unfitted < best[0]:
            best = unfitted, np.square(values - nearest).sum()
    return best[1]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("group_size", [8, 5, None])
def test_each_group_has_the_best_of_its_ranges(axis, group_size):
    w = matrix(mean=0.4)
    w = w if axis == 0 else np.ascontiguousarray(w.T)
    found = floats(*round_groups(w, axis, group_size), axis, group_size)
    errors = np.square(np.moveaxis(found - w, axis, 0))
    by_input = np.moveaxis(w, axis, 0).astype("float64")
    size = group_size or len(by_input)
    for start in range(0, len(by_input), size):
        for o in range(by_input.shape[1]):
            expected = plain_error(by_input[start : start + size, o], group_size is not None)
            assert errors[start : start + size, o].sum() == pytest.approx(expected, rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 9),
    st.one_of(st.none(), st.integers(1, 40)),
    st.sampled_from([-30.0, -1.0, 0.0, 0.5, 30.0]),
    st.sampled_from([1e-12, 1e-3, 1.0, 1e6]),
    st.integers(0, 2**32 - 1),
)
def test_what_is_stored_is_possible_and_nearest(inputs, outputs, group_size, mean, scale, seed):
    w = matrix((inputs, outputs), seed, mean) * np.float32(scale)
    integers, step, zero = round_groups(w, 0, group_size)
    assert (integers.dtype, step.dtype, zero.dtype) == (np.int8, np.float32, np.int8)
    assert (step > 0).all() and np.isfinite(step).all()
    assert ((integers >= -8) & (integers <= 7)).all() and ((zero >= -8) & (zero <= 7)).all()
    assert group_size is not None or not zero.any()
    size = group_size or inputs
    one_by_one = np.repeat(step, size, 0)[:inputs], np.repeat(zero, size, 0)[:inputs].astype("int64")
    error = np.abs((integers - one_by_one[1]) * one_by_one[0] - w)
    for change in (-1, 1):  # no other integer is nearer, beyond rounding
        other = np.clip(integers.astype("int64") + change, -8, 7)
        tolerance = 1e-5 * (np.abs(w) + one_by_one[0])
        assert (error <= np.abs((other - one_by_one[1]) * one_by_one[0] - w) + tolerance).all()


def test_a_group_on_one_side_of_zero_is_not_cut_off():
    """As it is by a zero point of the group's own minimum, which would lie outside of [-8, 7]."""
    w = np.linspace(5, 6, 16, dtype="float32")[:, None]
    integers, step, zero = round_groups(w, 0, 16)
    assert np.abs((integers.astype("float32") - zero) * step - w).max() < 0.21


def test_tiles_change_nothing(monkeypatch):
    w = matrix((40, 33))
    whole = round_groups(w, 0, 10)
    monkeypatch.setattr(rounding, "_TILE_NUMBERS", 70)
    assert all(np.array_equal(part, other) for part, other in zip(whole, round_groups(w, 0, 10), strict=True))
    assert all(part.flags.c_contiguous for axis in (0, 1) for part in round_groups(w, axis, 10))


@pytest.mark.parametrize("axis", [0, 1])
def test_int8_gives_127_to_the_largest(axis, monkeypatch):
    w = matrix()
    monkeypatch.setattr(rounding, "_BLOCK_BYTES", 4 * 24 * 3)
    integers, scale = round_outputs(w, axis)
    for row, integer_row, one_scale in zip(*((w.T, integers.T) if axis == 0 else (w, integers)), scale, strict=True):
        assert one_scale == np.float32(127) / (np.abs(row).max() + np.float32(1e-7))
        assert integer_row.tolist() == [min(max(round(float(value * one_scale)), -127), 127) for value in row]
        assert np.abs(integer_row).max() == 127


# Every finite float8, by the format's own rule: bits -> sign (1 + fraction / 8) 2^(exponent - 7), and below that / 512.
FLOAT8_VALUES = {
    bits: (-1 if bits & 0x80 else 1)
    * ((bits & 7) * 2.0**-9 if bits & 0x78 == 0 else (8 + (bits & 7)) * 2.0 ** ((bits >> 3 & 15) - 10))
    for bits in range(256)
    if bits & 0x7F != 0x7F
}


def nearest_float8(value: float) -> int:
    """The bits of the float8 next to a value; of two that are as near, those that end in 0."""
    return min(FLOAT8_VALUES, key=lambda bits: (abs(FLOAT8_VALUES[bits] - value), bits & 1, bits & 0x80))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=12),
    st.sampled_from([1e-9, 1.0, 1e20]),
)
def test_float8_is_the_nearest_with_ties_to_even(values, scale):
    """448 for the largest of an output; ml_dtypes agrees bit by bit."""
    w = (np.array(values, "float64") / max(map(abs, [*values, 1.0])) * scale).astype("float32")[:, None]
    found, (one_scale,) = round_outputs(w, 0, FLOAT8)
    assert one_scale == np.float32(448) / (np.abs(w).max() + np.float32(1e-7))
    scaled = w * one_scale
    assert found.dtype == FLOAT8 and np.abs(scaled).max() <= 448.0001
    expected = np.clip(scaled, -448, 448)
    assert np.array_equal(found.view("uint8"), expected.astype(ml_dtypes.float8_e4m3fn).view("uint8"))
    for bits, value in zip(found.view("uint8").ravel(), expected.ravel(), strict=True):
        assert FLOAT8_VALUES[int(bits)] == FLOAT8_VALUES[nearest_float8(float(value))]


def test_float8_ties():
    """Halfway between two numbers, in the middle and at the lower end, and zeros with their sign."""
    w = np.array([[448], [17], [19], [2.0**-10], [3 * 2.0**-10], [-17], [0.0], [-0.0]], "float32")
    w *= (np.float32(448) + np.float32(1e-7)) / 448
    found, scale = round_outputs(w, 0, FLOAT8)
    assert scale.tolist() == [1.0]
    assert found.astype("float32").ravel().tolist() == [448, 16, 20, 0, 2.0**-8, -16, 0, 0]
    assert found.view("uint8")[-1, 0] == 0x80


@pytest.mark.parametrize("axis", [0, 1])
def test_float8_gives_448_to_the_largest(axis, monkeypatch):
    w = matrix()
    monkeypatch.setattr(rounding, "_BLOCK_BYTES", 4 * 24 * 3)
    numbers, scale = round_outputs(w, axis, FLOAT8)
    assert numbers.shape == w.shape and scale.shape == (w.shape[1 - axis],)
    assert (np.abs(numbers.astype("float32")).max(axis=axis) == 448).all()
    error = np.abs(numbers.astype("float32") / np.expand_dims(scale, axis) - w)
    assert (error <= np.abs(w) / 16 + np.abs(w).max() / 448 / 1024).all()
