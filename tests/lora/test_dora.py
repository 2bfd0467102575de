"""DoRA is the paper's formula with PEFT's dropout, over any base, and never forms a merged kernel."""

import keras
import numpy as np
import oracles
import pytest
from adapted import IDS, fill, hidden, make
from gradients import loss_and_gradients
from keras import ops

from llama_exp import lora
from llama_exp.lora.dora import DoraAdapter, is_derived
from llama_exp.models.linear import Linear
from llama_exp.models.quantized.linear import QuantizedLinear

pytestmark = pytest.mark.neutral

MODES = {
    "float": None,
    "int8": {"mode": "int8"},
    "int8_weight_only": {"mode": "int8", "quantize_activations": False},
    "int4": {"mode": "int4", "group_size": 8},
    "int4_whole": {"mode": "int4", "group_size": 0},
    "float8": {"mode": "float8"},
}
NUM_INPUTS, NUM_OUTPUTS, R, SCALE = 32, 24, 3, 0.7


def prepared(mode="float", **arguments):
    backbone = make()
    if MODES[mode]:
        backbone.quantize(**MODES[mode])
    backbone.enable_lora(R, **{"alpha": R * SCALE, "targets": ["all-linear"], "use_dora": True, **arguments})
    return backbone


@pytest.mark.parametrize("mode", MODES)
def test_fresh_adapters_change_no_bit(mode):
    plain = make()
    if MODES[mode]:
        plain.quantize(**MODES[mode])
    np.testing.assert_array_equal(hidden(prepared(mode)), hidden(plain))


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_bfloat16"])
def test_fresh_adapters_change_no_bit_of_bfloat16(policy):
    plain, adapted = make(dtype=policy), make(dtype=policy)
    adapted.enable_lora(R, use_dora=True)
    np.testing.assert_array_equal(hidden(adapted), hidden(plain))
    assert {v.dtype for adapter in lora.adapters(adapted).values() for v in adapter.weights} == {"float32"}


@pytest.mark.parametrize("arguments", [{}, {"use_rslora": True, "rank_pattern": {"query": 5, "mlp": 2}}])
def test_a_backbone_equals_the_formula(arguments):
    backbone = prepared(**arguments)
    fill(backbone)
    weights = oracles.arrays(backbone)
    deltas = {}
    for path, adapter in lora.adapters(backbone).items():
        kernel, a, b, m = (weights[f"{path}/{name}"] for name in ("kernel", *_names("a", "b", "magnitude")))
        sums = kernel + adapter.scale * a @ b
        deltas[path] = m / np.linalg.norm(sums, axis=0) * sums - kernel
    expected = oracles.numpy_hidden(backbone.get_config(), weights, IDS, deltas=deltas)
    assert np.abs(expected - oracles.numpy_hidden(backbone.get_config(), weights, IDS)).max() > 0.1
    np.testing.assert_allclose(hidden(backbone), expected, atol=oracles.TOLERANCE)


def _names(*names):
    return [f"adapter/lora_{name}" for name in names]


class Masks:
    """Dropout with one known mask."""

    def __init__(self, mask_MI):
        self.mask_MI = mask_MI

    def dropout(self, x_MI, rate):
        return x_MI * self.mask_MI / (1 - rate)


def layer(rng, dropout=0.0):
    """A `Linear` with a DoRA adapter of random values, and these values."""
    linear = Linear(NUM_OUTPUTS, name="linear")
    linear.build((None, NUM_INPUTS))
    linear.kernel.assign(rng.normal(size=(NUM_INPUTS, NUM_OUTPUTS)) * 0.3)
    linear.kernel.trainable = False
    adapter = DoraAdapter(R, NUM_OUTPUTS, SCALE, dropout, name="adapter")
    adapter.build((None, NUM_INPUTS))
    adapter.measure(linear.float_kernel())
    for variable in adapter.trainable_variables:
        variable.assign(rng.normal(size=tuple(variable.shape)) * 0.5)
    linear.attach(adapter)
    return linear, [ops.convert_to_numpy(linear.kernel), *adapter.matrices()]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_outputs_and_gradients_are_pefts(dropout):
    """PEFT's own layer with the same values; in training with the same mask of dropout."""
    import peft
    import torch

    rng = np.random.default_rng(0)
    linear, (kernel, a, b, magnitude) = layer(rng, dropout)
    x_MI, upstream_MO = (
        rng.normal(size=(7, NUM_INPUTS)).astype("float32"),
        rng.normal(size=(7, NUM_OUTPUTS)).astype("float32"),
    )
    mask_MI = (rng.random((7, NUM_INPUTS)) > dropout).astype("float32")
    config = peft.LoraConfig(r=R, lora_alpha=R * SCALE, target_modules=["0"], use_dora=True, lora_dropout=dropout)
    module = torch.nn.Sequential(torch.nn.Linear(NUM_INPUTS, NUM_OUTPUTS, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor(kernel.T))
    theirs = peft.get_peft_model(module, config).base_model.model[0]
    parameters = [theirs.lora_A["default"], theirs.lora_B["default"], theirs.lora_magnitude_vector["default"]]
    parameters = [one.weight for one in parameters]
    with torch.no_grad():
        for parameter, value in zip(parameters, (a.T, b.T, magnitude), strict=True):
            parameter.copy_(torch.tensor(value))
    if dropout:

        class Mask(torch.nn.Module):
            def forward(self, x):
                return x * torch.tensor(mask_MI) / (1 - dropout)

        theirs.lora_dropout["default"] = Mask()
    expected = theirs.train()(torch.tensor(x_MI))
    (expected * torch.tensor(upstream_MO)).sum().backward()

    def loss():
        y_MO = linear(ops.convert_to_tensor(x_MI), seeds=Masks(mask_MI) if dropout else None)
        return ops.sum(y_MO * upstream_MO)

    y_MO = linear(ops.convert_to_tensor(x_MI), seeds=Masks(mask_MI) if dropout else None)
    np.testing.assert_allclose(ops.convert_to_numpy(y_MO), expected.detach().numpy(), atol=1e-4, rtol=1e-4)
    _, gradients = loss_and_gradients(loss, linear)
    found = [gradients[v.path] for v in linear.adapter.variables_by_name().values()]
    for gradient, parameter in zip(found, parameters, strict=True):
        np.testing.assert_allclose(gradient, parameter.grad.numpy().T, atol=2e-4, rtol=1e-4)


def test_no_tensor_of_a_kernels_size_is_made():
    """The compiled forward and backward pass hold no product of the shape of a merged kernel."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("reads a TensorFlow graph")
    import tensorflow as tf

    linear, _ = layer(np.random.default_rng(0))

    @tf.function
    def step(x_MI):
        values = [variable.value for variable in linear.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            loss = ops.sum(linear(x_MI))
        return tape.gradient(loss, values)

    operations = step.get_concrete_function(tf.TensorSpec((7, NUM_INPUTS))).graph.get_operations()
    shapes = [tuple(op.outputs[0].shape) for op in operations if op.outputs and op.outputs[0].shape.rank]
    assert (NUM_INPUTS, R) in shapes and (R, NUM_OUTPUTS) in shapes
    made = [op.type for op in operations if op.outputs and op.outputs[0].shape == (NUM_INPUTS, NUM_OUTPUTS)]
    assert set(made) <= {"ReadVariableOp", "StopGradient", "Identity", "Cast"}


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "float"])
def test_over_integers_the_norm_is_that_of_what_they_stand_for(mode):
    backbone = prepared(mode)
    fill(backbone)
    linear = backbone.linear_layers()["transformer_layer_0/self_attention/query"]
    assert isinstance(linear, QuantizedLinear)
    adapter, x_MI = (
        linear.adapter,
        ops.convert_to_tensor(np.random.default_rng(1).normal(size=(5, 32)).astype("float32")),
    )
    (a, b, magnitude), kernel = adapter.matrices(), ops.convert_to_numpy(linear.float_kernel())
    norm = np.linalg.norm(kernel + adapter.scale * a @ b, axis=0)
    frozen = ops.convert_to_numpy(linear._product(x_MI))  # with rounded activations, if the mode rounds them
    expected = magnitude / norm * (frozen + adapter.scale * ops.convert_to_numpy(x_MI) @ a @ b)
    np.testing.assert_allclose(ops.convert_to_numpy(linear(x_MI)), expected, atol=oracles.TOLERANCE, rtol=1e-4)


def test_a_column_of_zeros_stays_zero():
    linear, (kernel, *_) = layer(np.random.default_rng(0))
    linear.kernel.assign(kernel * (np.arange(NUM_OUTPUTS) > 0))
    linear.adapter.lora_b.assign(np.zeros((R, NUM_OUTPUTS)))
    linear.adapter.measure(linear.float_kernel())
    y_MO = ops.convert_to_numpy(linear(ops.ones((2, NUM_INPUTS))))
    assert np.isfinite(y_MO).all() and (y_MO[:, 0] == 0).all() and (y_MO[:, 1:] != 0).all()


@pytest.mark.parametrize("mode", ["float", "int8", "int4"])
def test_only_what_the_paper_trains_is_trained(mode):
    backbone = prepared(mode)
    before, digest = oracles.arrays(backbone), lora.base_digest(backbone)
    plain = make()
    if MODES[mode]:
        plain.quantize(**MODES[mode])
    assert digest == lora.base_digest(plain)
    own = set(lora.adapter_variables(backbone))
    assert own == {v.path for v in backbone.trainable_variables} and len(own) == 3 * 14
    derived = [v for v in backbone.weights if is_derived(v)]
    assert len(derived) == 14 and not any(v.trainable for v in derived)
    optimizer = keras.optimizers.SGD(0.1)
    for _ in range(2):
        _, gradients = loss_and_gradients(
            lambda: ops.mean(ops.square(backbone({"token_ids": IDS}, training=True) - 1.0)), backbone
        )
        optimizer.apply([gradients[v.path] for v in backbone.trainable_variables], backbone.trainable_variables)
    after = oracles.arrays(backbone)
    assert {path for path in before if not np.array_equal(before[path], after[path])} == own
    assert lora.base_digest(backbone) == digest


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "int8"])
def test_merged_equals_unmerged(mode):
    backbone = prepared(mode)
    fill(backbone)
    before = hidden(backbone)
    lora.merge(backbone)
    assert lora.adapters(backbone) == {} and len(backbone.trainable_variables) == len(backbone.weights) == 21
    np.testing.assert_allclose(hidden(backbone), before, atol=oracles.EXACT_TOLERANCE * np.abs(before).max())
