"""Policies by name, and loss scaling that makes float16 train where it would not."""

import keras
import numpy as np
import pytest
from gradients import loss_and_gradients
from keras import ops

from llama_exp import backend, precision
from llama_exp.limits import name_choices
from llama_exp.limits.precision import Policy
from llama_exp.models import LlamaBackbone, LlamaCausalLM
from llama_exp.models.fused import rms_norm, swiglu
from llama_exp.objective import next_token_loss
from llama_exp.optimizer import adamw

pytestmark = pytest.mark.neutral

RATES = {"learning_rate": 0.1, "weight_decay": 0.1, "beta_1": 0.9, "beta_2": 0.95, "epsilon": 1e-8}
RATES |= {"global_clipnorm": None}


@pytest.mark.parametrize("name", name_choices(Policy))
def test_policies(name):
    assert precision.policy(name).name == name


def test_unknown_policy_is_named():
    with pytest.raises(ValueError, match="policy='float17'.*one of float32, bfloat16"):
        precision.policy("float17")


@pytest.mark.parametrize("name", name_choices(Policy))
def test_only_float16_is_scaled(name):
    optimizer = keras.optimizers.SGD(0.1)
    wrapped = precision.wrap_optimizer(optimizer, precision.policy(name))
    assert (wrapped is optimizer) == (name != "mixed_float16")
    if name == "mixed_float16":
        assert isinstance(wrapped, keras.optimizers.LossScaleOptimizer) and wrapped.inner_optimizer is optimizer


TABLE = {
    "float32": {"base": "float32", "products": "float32"},
    "bfloat16": {"base": "bfloat16", "products": "bfloat16"},
    "mixed_bfloat16": {"base": "float32", "products": "bfloat16"},
    "mixed_float16": {"base": "float32", "products": "float16"},
}


def dtypes(values):
    return {keras.backend.standardize_dtype(value.dtype) for value in values}


@pytest.mark.parametrize("name", name_choices(Policy))
def test_the_table_of_what_stays_float32(name):
    """The rows of the module's table that can be seen from outside: variables, products, logits, loss, moments."""
    stated = TABLE[name]
    backbone = LlamaBackbone(16, 1, 2, 8, 8, 1, dtype=precision.policy(name))
    assert dtypes(backbone.weights) == {stated["base"]}
    base = list(backbone.weights)
    backbone.enable_lora(2)
    assert dtypes(base) == {stated["base"]} and dtypes(backbone.trainable_variables) == {"float32"}
    optimizer = adamw(learning_rate=1e-3, weight_decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-8, global_clipnorm=1.0)
    optimizer.build(backbone.weights)
    moments = [variable for variable in optimizer.variables if variable.ndim]
    assert len(moments) == 2 * len(backbone.weights) and dtypes(moments) == {"float32"}
    inputs = {"token_ids": np.arange(6, dtype="int32").reshape(1, 6)}
    hidden = backbone(inputs)
    linear = next(iter(backbone.linear_layers().values()))
    assert dtypes([hidden, linear(hidden[0]), *backbone.rope(np.arange(6)[None])]) == {stated["products"]}
    assert dtypes([LlamaCausalLM(backbone)(inputs)]) == {"float32"}

    def loss(token_ids, loss_mask):
        hidden = backbone({"token_ids": token_ids})
        options = {"chunk_tokens": 6, "training": False}
        return next_token_loss(backbone.token_embedding, hidden, token_ids, loss_mask, **options)

    call = backend.compiled(loss, backbone.variables, [], jit=True)
    assert dtypes(call(inputs["token_ids"], np.ones((1, 6), "float32"))) == {"float32"}


@pytest.mark.parametrize("name", [name for name in name_choices(Policy) if name != "mixed_float16"])
@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_scales_stay_float32(name, mode):
    backbone = LlamaBackbone(16, 1, 2, 8, 8, 1, dtype=precision.policy(name))
    backbone.quantize(mode)
    scales = [variable for variable in backbone.weights if variable.path.endswith("_scale")]
    assert len(scales) >= 8 and dtypes(scales) == {"float32"}
    assert dtypes([backbone({"token_ids": np.zeros((1, 3), "int32")})]) == {TABLE[name]["products"]}


@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 2e-6), ("bfloat16", 2.0**-8), ("float16", 2.0**-11)])
def test_norm_and_silu_round_once(dtype, rounding):
    """Against NumPy in float64: nothing in between is rounded to the compute dtype, only the result."""
    generator = np.random.default_rng(0)
    x, y = (ops.cast(3 * generator.normal(size=(64, 32)).astype("float32"), dtype) for _ in range(2))
    x64, y64 = (ops.convert_to_numpy(ops.cast(value, "float32")).astype("float64") for value in (x, y))
    norm = rms_norm(x, ops.ones(32, dtype="float32"), 1e-6, dtype, False)
    pairs = [
        (norm, x64 / np.sqrt(np.mean(x64**2, axis=-1, keepdims=True) + 1e-6)),
        (swiglu(x, y), x64 / (1 + np.exp(-x64)) * y64),
    ]
    for found, expected in pairs:
        assert dtypes([found]) == {dtype}
        found = ops.convert_to_numpy(ops.cast(found, "float32"))
        np.testing.assert_allclose(found, expected, rtol=1.01 * rounding, atol=1e-6)


def tiny_loss(backbone, scale_loss):
    """A loss whose gradients, about 1e-9, are zero in float16 unless it is scaled."""
    ids = np.random.default_rng(0).integers(0, 16, (2, 6)).astype("int32")
    return scale_loss(ops.mean(ops.cast(backbone({"token_ids": ids})[..., 0], "float32")) * 1e-7)


def apply(optimizer, gradients, trainable_variables):
    """One optimizer step on either backend; on JAX the wrapper's branches need the stateless form."""
    if keras.backend.backend() != "jax":
        optimizer.apply([ops.convert_to_tensor(gradient) for gradient in gradients])
        return
    old = [v.value for v in trainable_variables], [v.value for v in optimizer.variables]
    new_trainable, new_own = optimizer.stateless_apply(old[1], gradients, old[0])
    pairs = [*zip(trainable_variables, new_trainable, strict=True), *zip(optimizer.variables, new_own, strict=True)]
    for variable, value in pairs:
        variable.assign(value)


def test_loss_scaling_rescues_small_gradients():
    keras.utils.set_random_seed(0)
    backbone = LlamaBackbone(16, 1, 2, 8, 8, 1, dtype=precision.policy("mixed_float16"))
    optimizer = precision.wrap_optimizer(keras.optimizers.SGD(1.0), backbone.dtype_policy)
    optimizer.build(backbone.trainable_variables)
    path = "transformer_layer_0/self_attention/value/kernel"
    kernel = next(v for v in backbone.trainable_variables if v.path == path)
    before = ops.convert_to_numpy(kernel.value)

    _, unscaled = loss_and_gradients(lambda: tiny_loss(backbone, lambda loss: loss), backbone)
    assert np.abs(unscaled[path]).max() == 0
    loss, scaled = loss_and_gradients(lambda: tiny_loss(backbone, optimizer.scale_loss), backbone)
    assert np.isfinite(loss) and np.abs(scaled[path]).max() > 0
    gradients = [scaled.get(v.path, np.zeros(tuple(v.shape), "float32")) for v in backbone.trainable_variables]
    apply(optimizer, gradients, backbone.trainable_variables)
    step = ops.convert_to_numpy(kernel.value) - before
    expected = -scaled[path] / float(optimizer.initial_scale)
    assert np.abs(step).max() > 0
    np.testing.assert_allclose(step, expected, atol=np.abs(before).max() * 1e-7)


def test_doubtful_types_are_told():
    trains = keras.Variable(np.zeros(3, "float32"), dtype="bfloat16")
    theirs, ours = keras.optimizers.AdamW(), adamw(**RATES)
    for optimizer in (theirs, ours):
        optimizer.build([trains])
    (text,) = precision.doubts("bfloat16", "cpu", theirs.variables)
    assert "its state in bfloat16" in text and "optimizer=adamw" in text
    (text,) = precision.doubts("float16", "cpu", ours.variables)
    assert "no fast float16" in text
    for compute_dtype, device_kind in (("float16", "gpu"), ("bfloat16", "cpu"), ("float32", "cpu")):
        assert list(precision.doubts(compute_dtype, device_kind, ours.variables)) == []
