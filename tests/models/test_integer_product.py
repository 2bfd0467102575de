"""Rounded rows, and their product by the processor's own instructions: whole numbers, exact to the last one."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from keras import ops

from llama_exp import backend
from llama_exp.models.quantized.integer_product import MOST_INPUTS, integer_product, round_rows

pytestmark = pytest.mark.neutral

GENERATOR = np.random.default_rng(0)


def numpy_rows(x, asymmetric):
    """k and r by the formulas of the module, row by row, in float32."""
    x, one = np.asarray(x, "float32"), np.float32(1e-7)
    if not asymmetric:
        r = np.float32(127) / (np.abs(x).max(-1, keepdims=True) + one)
        return np.clip(np.rint(x * r), -127, 127), r
    low, high = np.minimum(x.min(-1, keepdims=True), 0), np.maximum(x.max(-1, keepdims=True), 0)
    r = np.float32(255) / (high - low + one)
    z = np.rint(-low * r)
    return np.clip(np.rint(x * r), -z, 255 - z), r


def compiled_product(asymmetric):
    """`integer_product` as a step has it, or None where nothing can run it."""
    offered = []

    def call(x, kernel, scale):
        offered.append(backend.multiplies_integers())
        return integer_product(x, kernel, scale, asymmetric, "float32") if offered[-1] else ops.sum(x)

    compiled = backend.compiled(call, [], [], jit=False)
    compiled(np.zeros((1, 3), "float32"), np.zeros((3, 2), "int8"), np.ones(2, "float32"))
    return compiled if offered[-1] else None


@pytest.fixture(scope="module")
def products():
    """A product for each way of rounding; skips where there are none."""
    found = {asymmetric: compiled_product(asymmetric) for asymmetric in (False, True)}
    if found[True] is None:
        pytest.skip("no products of bytes on this machine")
    return found


@pytest.mark.parametrize("asymmetric", [False, True])
@settings(max_examples=50, deadline=None)
@given(
    x=arrays.arrays("float32", st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.floats(-1e6, 1e6, width=32))
)
def test_rows_are_rounded_by_half_a_step_at_most(asymmetric, x):
    integers, scale = (ops.convert_to_numpy(part) for part in round_rows(x, asymmetric, "float32"))
    expected, expected_scale = numpy_rows(x, asymmetric)
    np.testing.assert_allclose(scale, expected_scale, rtol=1e-6)
    assert np.abs(integers - expected).max() <= 1  # a tie that another last bit decides
    assert (integers.max(-1) - integers.min(-1)).max() <= (255 if asymmetric else 254)
    error, step = np.abs(integers / scale - x), 1 / scale
    assert (error <= 0.5001 * step + (0.5 * step if asymmetric else 0)).all()  # a zero point is rounded too


@pytest.mark.parametrize("asymmetric", [False, True])
def test_rows_are_rounded_one_by_one(asymmetric):
    x = GENERATOR.normal(size=(3, 12)).astype("float32") * np.array([[1], [1000], [0]], "float32")
    together = [ops.convert_to_numpy(part) for part in round_rows(x, asymmetric, "float32")]
    for m in range(3):
        alone = [ops.convert_to_numpy(part) for part in round_rows(x[m : m + 1], asymmetric, "float32")]
        assert all(np.array_equal(a, t[m : m + 1]) for a, t in zip(alone, together, strict=True))
    assert not together[0][2].any()


def test_numbers_of_one_sign_have_steps_half_as_long():
    x = np.abs(GENERATOR.normal(size=(5, 64))).astype("float32")
    steps = [1 / ops.convert_to_numpy(round_rows(x, asymmetric, "float32")[1]) for asymmetric in (False, True)]
    np.testing.assert_allclose(steps[0] / steps[1], 255 / 127, rtol=1e-5)


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("num_rows, num_inputs, num_outputs", [(1, 1, 1), (3, 17, 5), (65, 576, 193), (2, 5000, 3)])
def test_products_are_those_of_whole_numbers(products, asymmetric, num_rows, num_inputs, num_outputs):
    x = GENERATOR.normal(size=(num_rows, num_inputs)).astype("float32")
    kernel = GENERATOR.integers(-127, 128, (num_inputs, num_outputs)).astype("int8")
    scale = GENERATOR.uniform(50, 200, num_outputs).astype("float32")
    found = ops.convert_to_numpy(products[asymmetric](x, kernel, scale))
    k, r = (ops.convert_to_numpy(part) for part in round_rows(x, asymmetric, "float32"))
    exact = k.astype("int64") @ kernel.astype("int64")
    np.testing.assert_allclose(found, exact / (scale.astype("float64") * r), rtol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_the_largest_sums_are_exact(products, asymmetric, sign):
    kernel = np.full((MOST_INPUTS, 2), 127, "int8")
    kernel[:, 1] = -127
    x = np.full((2, MOST_INPUTS), sign, "float32")
    found = ops.convert_to_numpy(products[asymmetric](x, kernel, np.ones(2, "float32")))
    expected = sign * 127 * MOST_INPUTS * np.array([1, -1])
    np.testing.assert_allclose(found, np.broadcast_to(expected, (2, 2)), rtol=1e-6)


def test_new_weights_count(products):
    """The operation may keep weights in an order of its own, but not those of an earlier call."""
    weights = keras.Variable(np.ones((32, 8), "int8"), dtype="int8", trainable=False)
    x = GENERATOR.normal(size=(4, 32)).astype("float32")
    call = backend.compiled(
        lambda x: integer_product(x, ops.convert_to_tensor(weights), np.ones(8, "float32"), True, "float32"),
        [weights],
        [],
        jit=False,
    )
    first = ops.convert_to_numpy(call(x))
    weights.assign(np.full((32, 8), -2, "int8"))
    np.testing.assert_allclose(ops.convert_to_numpy(call(x)), -2 * first, rtol=1e-6)


def test_instructions_that_round_sums_are_not_used(monkeypatch):
    """Without VNNI the sum of two products is cut to 16 bits."""
    if keras.backend.backend() != "tensorflow":
        assert not backend.multiplies_integers()
        return
    from llama_exp.backend import _tensorflow

    def saturating(rows, matrix):
        rows, matrix = ops.cast(rows, "int32"), ops.cast(matrix, "int32")
        pairs = rows[:, ::2, None] * matrix[None, ::2] + rows[:, 1::2, None] * matrix[None, 1::2]
        return ops.sum(ops.clip(pairs, -(2**15), 2**15 - 1), axis=1)

    tried_out = _tensorflow._unsigned_products_are_exact.__wrapped__
    assert tried_out() == (compiled_product(True) is not None)
    monkeypatch.setattr(_tensorflow, "unsigned_product", saturating)
    assert not tried_out()


@pytest.mark.parametrize("jit, fuse", [(True, True), (False, False)])
def test_it_is_for_graphs_in_parts(jit, fuse):
    """XLA has no such operation, and a graph without compiled parts is what all else is measured against."""
    seen = []

    def call(x):
        seen.append(backend.multiplies_integers())
        return x

    backend.compiled(call, [], [], jit=jit, fuse=fuse)(np.zeros(1, "float32"))
    assert seen == [False] and not backend.multiplies_integers()
