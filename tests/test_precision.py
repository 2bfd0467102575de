"""Policies by name, and loss scaling that makes float16 train where it would not."""

import keras
import numpy as np
import pytest
from gradients import loss_and_gradients
from keras import ops

from llama_exp import precision
from llama_exp.models import LlamaBackbone

pytestmark = pytest.mark.neutral


@pytest.mark.parametrize("name", precision.POLICIES)
def test_policies(name):
    assert precision.policy(name).name == name


def test_unknown_policy_is_named():
    with pytest.raises(ValueError, match="policy='float17' is not supported. Choose one of float32, bfloat16"):
        precision.policy("float17")


@pytest.mark.parametrize("name", precision.POLICIES)
def test_only_float16_is_scaled(name):
    optimizer = keras.optimizers.SGD(0.1)
    wrapped = precision.wrap_optimizer(optimizer, precision.policy(name))
    assert (wrapped is optimizer) == (name != "mixed_float16")
    if name == "mixed_float16":
        assert isinstance(wrapped, keras.optimizers.LossScaleOptimizer) and wrapped.inner_optimizer is optimizer


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
