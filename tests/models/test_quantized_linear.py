"""Products with quantized weights: exact where they can be, straight-through gradients, both forms of every mode."""

import keras
import ml_dtypes
import numpy as np
import pytest
from gradients import loss_and_gradients
from keras import ops

from llama_exp import backend
from llama_exp.architecture import Quantization
from llama_exp.formats.quantized import KERNEL, TABLE, dequantize, pack, quantize
from llama_exp.lora.adapter import LoraAdapter
from llama_exp.models.linear import Linear
from llama_exp.models.quantized.linear import QuantizedLinear, cast_exactly, product, unpack

pytestmark = pytest.mark.neutral

INT8, INT8_WEIGHTS = Quantization("int8", True), Quantization("int8", False)
ASYMMETRIC = Quantization("int8", True, asymmetric_activations=True)
MODES = {
    "int8": INT8,
    "int8_asymmetric": ASYMMETRIC,
    "int8_weight_only": INT8_WEIGHTS,
    "int4": Quantization("int4", False, 5),
    "int4_columns": Quantization("int4", False),
    "float8": Quantization("float8", False),
}
INPUTS, OUTPUTS = 12, 7
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(6, INPUTS)).astype("float32")
W = GENERATOR.normal(size=(INPUTS, OUTPUTS)).astype("float32")


def layer(mode, policy="float32"):
    linear = QuantizedLinear(OUTPUTS, mode, dtype=policy, name="query")
    linear.build((None, INPUTS))
    parts = quantize(W, KERNEL, mode)
    for suffix, array in parts.items():
        getattr(linear, "kernel" + suffix).assign(array)
    return linear, dequantize(parts, W.shape, KERNEL, mode)


def numpy_int8(x, parts, asymmetric):
    """The definition of int8 products, in integers and float64."""
    scale = 127 / (np.abs(x).max(-1, keepdims=True) + np.float32(1e-7))
    if asymmetric:  # every row has numbers of both signs
        scale = 255 / (x.max(-1, keepdims=True) - x.min(-1, keepdims=True) + np.float32(1e-7))
    rows = np.rint(x * scale).astype("int64")
    return (rows @ parts[""].astype("int64")) / (scale.astype("float64") * parts["_scale"])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [6, 5])
def test_unpacking_is_that_of_numpy(axis, size):
    shape = [4, 4]
    shape[axis] = size
    integers = np.random.default_rng(1).integers(-8, 8, shape).astype("int8")
    found = unpack(ops.convert_to_tensor(pack(integers, axis)), size, axis)
    assert keras.backend.standardize_dtype(found.dtype) == "int8"
    assert np.array_equal(ops.convert_to_numpy(found), integers)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_output_is_that_of_the_floats_it_stands_for(mode):
    linear, floats = layer(mode)
    found = ops.convert_to_numpy(linear(X))
    expected = X @ floats
    if mode.quantize_activations:
        expected = numpy_int8(X, quantize(W, KERNEL, mode), mode.asymmetric_activations)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert np.abs(expected - X @ W).max() > 1e-3  # or the test would not see a float kernel


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_bfloat16(mode):
    linear, _ = layer(mode, "mixed_bfloat16")
    expected = ops.convert_to_numpy(layer(mode)[0](X))
    found = linear(ops.cast(X, "bfloat16"))
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(found, "float32")), expected, atol=0.06)


def test_integer_products_are_exact():
    """1040 inputs of the largest numbers: the sum stays below 2^24, so that float32 holds it exactly."""
    inputs = 1040
    parts = {"": np.full((inputs, 3), 127, "int8"), "_scale": np.ones(3, "float32")}
    parts[""][::2, 1] = -126
    x = np.full((2, inputs), 1.0, "float32")
    tensors = {suffix: ops.convert_to_tensor(part) for suffix, part in parts.items()}
    found = ops.convert_to_numpy(product(ops.convert_to_tensor(x), tensors, (inputs, 3), KERNEL, INT8, "float32"))
    expected = 127 * parts[""].astype("int64").sum(0) / (127 / (np.float32(1) + np.float32(1e-7)))
    np.testing.assert_allclose(found, np.broadcast_to(expected, (2, 3)), rtol=1e-7)


def test_float16_sums_of_int8_weights_do_not_overflow():
    """Layers that are int8 under int4: 1040 times 127 is more than float16 holds, the product itself is not."""
    inputs = 1040
    parts = {"": np.full((inputs, 1), 127, "int8"), "_scale": np.full(1, 1270, "float32")}
    tensors = {suffix: ops.convert_to_tensor(part) for suffix, part in parts.items()}
    x = ops.convert_to_tensor(np.ones((1, inputs), "float16"))
    found = ops.convert_to_numpy(product(x, tensors, (inputs, 1), KERNEL, INT8_WEIGHTS, "float16"))
    np.testing.assert_allclose(found, inputs / 10, rtol=1e-3)


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_float8_is_exact_in_a_compute_dtype(dtype, fuse):
    numbers = np.arange(256).astype("uint8").view(ml_dtypes.float8_e4m3fn)
    numbers = numbers[np.isfinite(numbers.astype("float32"))]
    call = backend.compiled(lambda: cast_exactly(tensor, dtype), [], [], jit=False, fuse=fuse)
    tensor = ops.convert_to_tensor(numbers)
    found = call()
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    assert np.array_equal(ops.convert_to_numpy(ops.cast(found, "float32")), numbers.astype("float32"))


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("form", [KERNEL, TABLE], ids=["kernel", "table"])
def test_gradients_pass_the_rounding(mode, form):
    matrix = W if form is KERNEL else np.ascontiguousarray(W.T)
    parts = quantize(matrix, form, mode)
    floats = dequantize(parts, matrix.shape, form, mode)
    floats = floats if form is KERNEL else floats.T
    upstream = np.random.default_rng(2).normal(size=(6, OUTPUTS)).astype("float32")
    holder = keras.layers.Layer()
    x = holder.add_weight(name="x", shape=X.shape)
    x.assign(X)
    tensors = {suffix: ops.convert_to_tensor(part) for suffix, part in parts.items()}

    def loss():
        return ops.sum(product(ops.convert_to_tensor(x), tensors, matrix.shape, form, mode, "float32") * upstream)

    _, gradients = loss_and_gradients(loss, holder)
    np.testing.assert_allclose(gradients[x.path], upstream @ floats.T, atol=5e-6)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_an_adapter_is_added_to_the_quantized_product(mode):
    linear, _ = layer(mode)
    plain = ops.convert_to_numpy(linear(X))
    adapter = LoraAdapter(2, OUTPUTS, 0.5, 0.0, name="adapter")
    adapter.build((None, INPUTS))
    b_RO = np.ones((2, OUTPUTS), "float32")
    adapter.lora_b.assign(b_RO)
    linear.attach(adapter)
    a_IR = ops.convert_to_numpy(adapter.lora_a.value)
    np.testing.assert_allclose(ops.convert_to_numpy(linear(X)), plain + 0.5 * X @ a_IR @ b_RO, atol=1e-5)
    linear.attach(None)
    assert np.array_equal(ops.convert_to_numpy(linear(X)), plain)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_it_is_a_linear_that_does_not_train_and_stores_no_floats_of_its_size(mode):
    linear, _ = layer(mode)
    assert isinstance(linear, Linear) and (linear.input_dim, linear.output_dim) == (INPUTS, OUTPUTS)
    assert linear.trainable_weights == []
    assert [v.path for v in linear.weights][:2] == ["query/kernel", "query/kernel_scale"]
    num_bytes = {v.path: ops.convert_to_numpy(v.value).nbytes for v in linear.weights}
    assert num_bytes["query/kernel"] == INPUTS * (4 if mode.mode == "int4" else OUTPUTS)
    again = QuantizedLinear.from_config(linear.get_config())
    assert again.quantization == mode and again.output_dim == OUTPUTS
