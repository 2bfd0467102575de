"""LoRA is the paper's formula and trains nothing else."""

import keras
import numpy as np
import oracles
import pytest
from adapted import IDS, fill, hidden, make
from gradients import loss_and_gradients
from keras import ops

from llama_exp import lora
from llama_exp.limits.trainer import Remat
from llama_exp.models import LlamaBackbone

pytestmark = pytest.mark.neutral

PATHS = list(make().linear_layers())


def test_fresh_adapters_change_nothing():
    backbone = make()
    before = hidden(backbone)
    backbone.enable_lora(4, targets=["all-linear"])
    np.testing.assert_array_equal(hidden(backbone), before)
    for adapter in lora.adapters(backbone).values():
        a_IR = ops.convert_to_numpy(adapter.lora_a.value)
        bound = 1 / np.sqrt(a_IR.shape[0])
        assert np.abs(a_IR).max() <= bound and a_IR.std() == pytest.approx(bound / np.sqrt(3), rel=0.25)


@pytest.mark.parametrize(
    ("arguments", "scale"),
    [
        ({"rank": 4}, 1.0),
        ({"rank": 4, "alpha": 12.0}, 3.0),
        ({"rank": 4, "alpha": 12.0, "use_rslora": True}, 6.0),
    ],
)
def test_adapters_equal_the_formula(arguments, scale):
    backbone = make()
    backbone.enable_lora(**arguments, targets=["query", "value", "mlp"])
    fill(backbone)
    weights = oracles.arrays(backbone)
    deltas = {
        path: scale * weights[f"{path}/adapter/lora_a"] @ weights[f"{path}/adapter/lora_b"]
        for path in PATHS
        if not path.endswith(("key", "attention_output"))
    }
    expected = oracles.numpy_hidden(backbone.get_config(), weights, IDS, deltas=deltas)
    plain = oracles.numpy_hidden(backbone.get_config(), weights, IDS)
    assert np.abs(expected - plain).max() > 0.1
    np.testing.assert_allclose(hidden(backbone), expected, atol=oracles.TOLERANCE)


@pytest.mark.parametrize("alpha", [None, 12.0])
@pytest.mark.parametrize("use_rslora", [False, True])
def test_every_layer_has_its_own_rank_and_scale(alpha, use_rslora):
    backbone = make()
    backbone.enable_lora(
        4,
        alpha,
        use_rslora=use_rslora,
        targets=["attention"],
        rank_pattern={"query": 9, "transformer_layer_1/.*/(key|value)": 2},
        alpha_pattern={"value": 3.0},
    )
    for path, adapter in lora.adapters(backbone).items():
        name = path.rpartition("/")[2]
        rank = 2 if path.startswith("transformer_layer_1") and name in ("key", "value") else 4
        rank = 9 if name == "query" else rank
        own = 3.0 if name == "value" else alpha or rank  # no alpha: a scale of 1
        assert adapter.rank == rank and tuple(adapter.lora_a.shape)[1] == tuple(adapter.lora_b.shape)[0] == rank
        assert adapter.scale == pytest.approx(own / (np.sqrt(rank) if use_rslora else rank))


def test_only_adapters_train_and_the_base_stays_bit_identical():
    backbone = make()
    backbone.enable_lora(4, alpha=8, targets=["query", "value"])
    fill(backbone)
    paths = {v.path for v in backbone.trainable_variables}
    assert paths == set(lora.adapter_variables(backbone)) and len(paths) == 8
    before, digest = oracles.arrays(backbone), lora.base_digest(backbone)
    optimizer = keras.optimizers.AdamW(0.1)
    for _ in range(2):
        _, gradients = loss_and_gradients(
            lambda: ops.mean(ops.square(backbone({"token_ids": IDS}, training=True))), backbone
        )
        assert set(gradients) == paths
        optimizer.apply([gradients[v.path] for v in backbone.trainable_variables], backbone.trainable_variables)
    after = oracles.arrays(backbone)
    assert {path for path in before if not np.array_equal(before[path], after[path])} == paths
    assert lora.base_digest(backbone) == digest


def test_base_digest_sees_every_base_weight_and_no_adapter():
    backbone = make()
    plain = lora.base_digest(backbone)
    backbone.enable_lora(2)
    fill(backbone)
    assert lora.base_digest(backbone) == plain
    for variable in backbone.weights:
        if "adapter" not in variable.path:
            old = ops.convert_to_numpy(variable.value)
            variable.assign(old + np.eye(1, old.size).reshape(old.shape))
            assert lora.base_digest(backbone) != plain, variable.path
            variable.assign(old)
    assert lora.base_digest(backbone) == plain


@pytest.mark.parametrize("remat", Remat)
def test_gradients_of_the_base_are_not_computed(remat):
    """The compiled backward pass holds no product of the shape of a frozen kernel's gradient."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("reads a TensorFlow graph; on JAX only the requested arguments are differentiated")
    import tensorflow as tf

    backbone = LlamaBackbone(40, 1, 4, 32, 56, 2)
    backbone.enable_lora(2)
    backbone.remat = remat

    @tf.function
    def step():
        values = [variable.value for variable in backbone.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            loss = ops.mean(ops.square(backbone({"token_ids": IDS}, training=True)))
        return tape.gradient(loss, values)

    operations = step.get_concrete_function().graph.get_operations()
    shapes = [tuple(op.outputs[0].shape) for op in operations if op.type == "MatMul"]
    assert (32, 2) in shapes  # lora_a's gradient is there
    assert not {(32, 56), (56, 32)} & set(shapes)


@pytest.mark.parametrize("policy", ["float32", "bfloat16"])
def test_merged_equals_unmerged(policy):
    backbone = make(dtype=policy)
    backbone.enable_lora(4, alpha=2, targets=["attention"])
    fill(backbone)
    before = hidden(backbone)
    lora.merge(backbone)
    assert lora.adapters(backbone) == {} and len(backbone.trainable_variables) == len(backbone.weights) == 21
    tolerance = oracles.EXACT_TOLERANCE if policy == "float32" else 0.15
    np.testing.assert_allclose(hidden(backbone), before, atol=tolerance)
    assert np.abs(before - hidden(make(dtype=policy))).max() > 0.3
    backbone.enable_lora(2)  # the slot is free again


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_bfloat16", "mixed_float16"])
def test_adapters_are_float32_over_any_base(policy):
    backbone = make(dtype=policy)
    backbone.enable_lora(2)
    assert {keras.backend.standardize_dtype(v.dtype) for v in backbone.trainable_variables} == {"float32"}
    states = backbone({"token_ids": IDS})
    assert keras.backend.standardize_dtype(states.dtype) == backbone.compute_dtype


@pytest.mark.parametrize("target", ["querry", "q_proj", "transformer_layer_7/.*", "("])
def test_unmatched_target_raises(target):
    backbone = make()
    with pytest.raises(ValueError) as error:
        backbone.enable_lora(4, targets=["value", target])
    assert target in str(error.value) and "attention_output" in str(error.value)
    assert len(backbone.trainable_variables) == 21  # nothing half done
    if target == "querry":
        assert "did you mean query?" in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"rank": 0}, "rank=0"),
        ({"rank": 2.5}, "rank=2.5"),
        ({"rank": 4, "alpha": 0}, "alpha=0"),
        ({"rank": 4, "dropout": 1.0}, "dropout=1.0"),
        ({"rank": 4, "targets": []}, "lora.targets"),
        ({"rank": 4096}, "rank=4096.*exceeds|exceeds.*rank=4096"),
        ({"rank": 4, "rank_pattern": {"query": 0}}, "lora.rank_pattern"),
        ({"rank": 4, "rank_pattern": {"query": 2.5}}, "lora.rank_pattern"),
        ({"rank": 4, "alpha_pattern": {"query": 0}}, "lora.alpha_pattern"),
        ({"rank": 4, "rank_pattern": {"key": 2}}, "lora.rank_pattern: a pattern matches no adapted layer"),
        ({"rank": 4, "alpha_pattern": {"query": 2, ".*": 3}}, "lora.alpha_pattern: two patterns give one layer"),
    ],
)
def test_impossible_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        make().enable_lora(**arguments)


def test_second_call_raises():
    backbone = make()
    backbone.enable_lora(4)
    with pytest.raises(ValueError, match="adapters already"):
        backbone.enable_lora(4)


def test_keras_hub_name_of_targets():
    backbone = make()
    backbone.enable_lora(4, target_layer_names=["key"])
    assert {path.rpartition("/")[2] for path in lora.adapters(backbone)} == {"key"}


def test_dropout_reaches_the_adapter():
    backbone = make()
    backbone.enable_lora(4, dropout=0.5)
    fill(backbone)
    calm = hidden(backbone)
    moving = [ops.convert_to_numpy(backbone({"token_ids": IDS}, training=True)) for _ in range(2)]
    assert np.abs(moving[0] - moving[1]).max() > 1e-3 and np.abs(moving[0] - calm).max() > 1e-3
