"""The backbone as a whole: equal to three independent implementations, whatever the architecture and the padding."""

import keras
import numpy as np
import oracles
import pytest
from keras import ops

from llama_exp.models import Backbone, LlamaBackbone
from llama_exp.preset import PRESETS

pytestmark = pytest.mark.neutral

BASE = {
    "vocabulary_size": 61,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 48,
    "num_key_value_heads": 2,
}
LLAMA31 = {
    "rope_max_wavelength": 500.0,
    "rope_frequency_adjustment_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_pretraining_sequence_length": 64,
}
VARIANTS = {
    "gqa": {},
    "mha": {"num_key_value_heads": 4},
    "mqa": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "epsilon": {"layer_norm_epsilon": 0.1},
    "llama31": LLAMA31,
    "linear_scaling": {"rope_position_scaling_factor": 4.0},
}


def make(variant="gqa", **overrides):
    backbone = LlamaBackbone(**(BASE | VARIANTS[variant] | overrides))
    oracles.randomize(backbone)
    return backbone


def tokens(rows=2, length=9, seed=1):
    return np.random.default_rng(seed).integers(0, BASE["vocabulary_size"], (rows, length)).astype("int32")


def hidden(backbone, token_ids, **inputs):
    return ops.convert_to_numpy(backbone({"token_ids": token_ids, **inputs}))


def causal(length):
    return np.tril(np.ones((length, length), bool))


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_numpy(variant):
    backbone, ids = make(variant), tokens()
    expected = oracles.numpy_hidden(backbone.get_config(), oracles.arrays(backbone), ids)
    np.testing.assert_allclose(hidden(backbone, ids), expected, atol=oracles.TOLERANCE)


@pytest.mark.oracle
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "linear_scaling"])
def test_equals_keras_hub(variant):
    """linear_scaling is missing because it has no effect in keras_hub; the others know it."""
    backbone, ids = make(variant), tokens()
    mask = np.ones_like(ids)
    mask[0, 6:] = 0
    mask[1, :3] = 0
    inputs = {"token_ids": ids, "padding_mask": mask}
    other = oracles.keras_hub_backbone(backbone)
    expected = ops.convert_to_numpy(other(inputs))
    actual = hidden(backbone, ids, padding_mask=mask)
    np.testing.assert_allclose(actual[mask > 0], expected[mask > 0], atol=oracles.TOLERANCE)
    logits = backbone.token_embedding.project(actual)
    expected_logits = ops.convert_to_numpy(other.token_embedding(expected, reverse=True))
    np.testing.assert_allclose(
        ops.convert_to_numpy(logits)[mask > 0], expected_logits[mask > 0], atol=oracles.TOLERANCE
    )


@pytest.mark.oracle
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_transformers(variant):
    import torch

    backbone, ids = make(variant), tokens()
    mask = np.ones_like(ids)
    mask[0, 6:] = 0
    mask[1, :3] = 0
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0).astype("int32")
    with torch.no_grad():
        expected = oracles.transformers_model(backbone)(
            input_ids=torch.tensor(ids, dtype=torch.long),
            attention_mask=torch.tensor(mask),
            position_ids=torch.tensor(positions, dtype=torch.long),
        ).logits.numpy()
    states = backbone({"token_ids": ids, "padding_mask": mask, "position_ids": positions})
    logits = ops.convert_to_numpy(backbone.token_embedding.project(states))
    assert logits.dtype == "float32" and np.abs(expected[mask > 0]).max() > 0.5
    np.testing.assert_allclose(logits[mask > 0], expected[mask > 0], atol=oracles.TOLERANCE)


@pytest.mark.parametrize("side", ["front", "behind"])
def test_padding_changes_nothing(side):
    backbone, ids = make(), tokens(rows=1, length=6)
    pad = ((0, 0), (3, 0)) if side == "front" else ((0, 0), (0, 3))
    padded, mask = np.pad(ids, pad, constant_values=7), np.pad(np.ones_like(ids), pad)
    actual = hidden(backbone, padded, padding_mask=mask)
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual[mask > 0], hidden(backbone, ids)[0], atol=oracles.EXACT_TOLERANCE)


def test_packed_documents_equal_separate_ones():
    backbone = make("llama31")
    documents = [tokens(1, 4, seed=2), tokens(1, 3, seed=3)]
    row = np.concatenate([*documents, np.zeros((1, 2), "int32")], axis=1)
    packed = hidden(
        backbone,
        row,
        segment_ids=np.array([[1, 1, 1, 1, 2, 2, 2, 0, 0]], "int32"),
        position_ids=np.array([[0, 1, 2, 3, 0, 1, 2, 0, 1]], "int32"),
        padding_mask=np.array([[1, 1, 1, 1, 1, 1, 1, 0, 0]], "int32"),
    )
    assert np.isfinite(packed).all()
    for document, found in zip(documents, (packed[:, :4], packed[:, 4:7]), strict=True):
        np.testing.assert_allclose(found, hidden(backbone, document), atol=oracles.EXACT_TOLERANCE)


def test_causality():
    backbone, ids = make(), tokens(rows=1)
    changed = ids.copy()
    changed[0, 5] = (ids[0, 5] + 1) % BASE["vocabulary_size"]
    before, after = hidden(backbone, ids), hidden(backbone, changed)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (np.abs(before[:, 5:] - after[:, 5:]).max(axis=-1) > 1e-3).all()


def test_shifted_positions_change_nothing_and_stretched_ones_do():
    backbone, ids = make(), tokens()
    positions = np.tile(np.arange(9, dtype="int32"), (2, 1))
    plain = hidden(backbone, ids)
    np.testing.assert_allclose(hidden(backbone, ids, position_ids=positions), plain, atol=oracles.EXACT_TOLERANCE)
    np.testing.assert_allclose(hidden(backbone, ids, position_ids=positions + 100), plain, atol=oracles.TOLERANCE)
    assert np.abs(hidden(backbone, ids, position_ids=positions * 2) - plain).max() > 1e-2


def test_cached_pieces_equal_the_whole():
    backbone, ids = make("llama31"), tokens()
    cache = backbone.new_cache(batch_size=2, max_length=12)
    pieces = []
    for start, stop in ((0, 4), (4, 5), (5, 6), (6, 9)):
        states, cache = backbone.call_with_cache(ids[:, start:stop], cache, start)
        pieces.append(ops.convert_to_numpy(states))
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), hidden(backbone, ids), atol=oracles.EXACT_TOLERANCE)


def test_cache_and_whole_read_the_same_precision():
    """Keras casts variables to the compute dtype in a model's call, but not outside; norm scales must not notice."""
    backbone = make(dtype="mixed_float16")
    next(v for v in backbone.weights if v.path == "sequence_output_layernorm/scale").assign(np.full(32, 1 + 2**-12))
    ids = tokens(1, 2)
    states, _ = backbone.call_with_cache(ids, backbone.new_cache(1, 2), 0)
    np.testing.assert_array_equal(ops.convert_to_numpy(states), hidden(backbone, ids))


def test_cached_padded_prompts_equal_single_ones():
    """Two prompts of lengths 5 and 3, the second padded in front, then one more token each."""
    backbone, ids = make(), tokens(rows=2, length=6)
    ids[1, :2] = 0
    mask = np.array([[1] * 6, [0, 0, 1, 1, 1, 1]], "int32")
    slots = np.pad(mask, ((0, 0), (0, 2)), constant_values=1)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0).astype("int32")
    cache = backbone.new_cache(2, 8)
    _, cache = backbone.call_with_cache(ids[:, :5], cache, 0, padding_mask=slots, position_ids=positions[:, :5])
    index = ops.convert_to_tensor(5, dtype="int32")
    last, _ = backbone.call_with_cache(ids[:, 5:], cache, index, padding_mask=slots, position_ids=positions[:, 5:])
    expected = [hidden(backbone, ids[:1])[:, -1], hidden(backbone, ids[1:, 2:])[:, -1]]
    np.testing.assert_allclose(ops.convert_to_numpy(last)[:, 0], np.concatenate(expected), atol=oracles.EXACT_TOLERANCE)


@pytest.mark.parametrize(
    ("policy", "variables", "computation"),
    [
        ("float32", "float32", "float32"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("mixed_bfloat16", "float32", "bfloat16"),
        ("mixed_float16", "float32", "float16"),
    ],
)
def test_dtypes(policy, variables, computation):
    backbone, ids = make(dtype=policy), tokens()
    states = backbone({"token_ids": ids, "padding_mask": np.array([[0] + [1] * 8, [1] * 9])})
    assert {keras.backend.standardize_dtype(v.dtype) for v in backbone.weights} == {variables}
    assert keras.backend.standardize_dtype(states.dtype) == computation
    logits = backbone.token_embedding.project(states)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert {keras.backend.standardize_dtype(k.dtype) for k, _ in backbone.new_cache(1, 3)} == {computation}
    exact = oracles.numpy_hidden(backbone.get_config(), oracles.arrays(backbone), ids)[1]
    error = np.abs(ops.convert_to_numpy(ops.cast(states, "float32"))[1] - exact).max()
    assert error < {"float32": oracles.TOLERANCE, "bfloat16": 0.15, "float16": 0.02}[computation]


@pytest.mark.parametrize("variant", VARIANTS)
def test_config_round_trip(variant):
    backbone = make(variant, dtype="mixed_bfloat16", dropout=0.1)
    config = backbone.get_config()
    again = LlamaBackbone.from_config(config)
    assert again.get_config() == config
    assert [(v.path, v.shape) for v in again.weights] == [(v.path, v.shape) for v in backbone.weights]
    assert config | VARIANTS[variant] == config


def test_keras_saving_round_trip(tmp_path):
    backbone, ids = make("tied"), tokens()
    backbone.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(hidden(again, ids), hidden(backbone, ids))


def test_config_is_what_keras_serializes():
    backbone = make(dtype="mixed_bfloat16")
    assert backbone.get_config()["dtype"] == keras.dtype_policies.serialize(backbone.dtype_policy)


def test_old_and_new_scaling_names():
    assert LlamaBackbone(**BASE, rope_scaling_factor=2.0).get_config()["rope_position_scaling_factor"] == 2.0
    both = LlamaBackbone(**BASE, rope_scaling_factor=2.0, rope_position_scaling_factor=2.0)
    assert both.rope_position_scaling_factor == 2.0
    with pytest.raises(ValueError, match="rope_scaling_factor=2.0 and rope_position_scaling_factor=3.0"):
        LlamaBackbone(**BASE, rope_scaling_factor=2.0, rope_position_scaling_factor=3.0)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("num_layers", 0),
        ("vocabulary_size", 2.5),
        ("hidden_dim", 30),
        ("num_query_heads", 32),
        ("num_key_value_heads", 3),
        ("rope_max_wavelength", 0),
        ("layer_norm_epsilon", -1e-6),
        ("dropout", 1.0),
        ("rope_low_freq_factor", 1.0),
        ("dtype", "float33"),
    ],
)
def test_impossible_arguments_are_named(argument, value):
    with pytest.raises(ValueError) as error:
        LlamaBackbone(**(BASE | {argument: value}))
    assert argument in str(error.value) or argument.replace("low_freq", "high_freq") in str(error.value)


def test_inverted_llama31_factors_are_refused():
    with pytest.raises(ValueError, match="rope_low_freq_factor=4.0 with rope_high_freq_factor=1.0"):
        LlamaBackbone(**BASE, **(LLAMA31 | {"rope_low_freq_factor": 4.0, "rope_high_freq_factor": 1.0}))


def test_variables():
    """The paths that the preset codec, adapters and checkpoints are keyed by."""
    expected = [("token_embedding/embeddings", (61, 32)), ("token_embedding/reverse_embeddings", (32, 61))]
    for i in range(2):
        block = f"transformer_layer_{i}"
        expected += [
            (f"{block}/self_attention/query/kernel", (32, 32)),
            (f"{block}/self_attention/key/kernel", (32, 16)),
            (f"{block}/self_attention/value/kernel", (32, 16)),
            (f"{block}/self_attention/attention_output/kernel", (32, 32)),
            (f"{block}/self_attention_layernorm/scale", (32,)),
            (f"{block}/feedforward_intermediate_dense/kernel", (32, 48)),
            (f"{block}/feedforward_gate_dense/kernel", (32, 48)),
            (f"{block}/feedforward_output_dense/kernel", (48, 32)),
            (f"{block}/feedforward_layernorm/scale", (32,)),
        ]
    expected.append(("sequence_output_layernorm/scale", (32,)))
    backbone = make()
    assert sorted((v.path, tuple(v.shape)) for v in backbone.weights) == sorted(expected)
    assert all(v.trainable for v in backbone.weights)
    assert "token_embedding/reverse_embeddings" not in {v.path for v in make("tied").weights}


def test_initial_weights():
    backbone = LlamaBackbone(**(BASE | {"hidden_dim": 256, "vocabulary_size": 500}))
    values = oracles.arrays(backbone)
    assert values["token_embedding/embeddings"].std() == pytest.approx(0.01, rel=0.05)
    assert values["token_embedding/reverse_embeddings"].std() == pytest.approx(0.01, rel=0.05)
    kernels = [array for path, array in values.items() if path.endswith("kernel")]
    assert [array.std() for array in kernels] == pytest.approx([0.02] * len(kernels), rel=0.05)
    assert not np.array_equal(kernels[0], kernels[3])


def test_presets_are_a_copy_of_the_table():
    assert LlamaBackbone.presets == PRESETS and Backbone is LlamaBackbone
    LlamaBackbone.presets.clear()
    assert "llama2_7b_en" in LlamaBackbone.presets


@pytest.mark.parametrize("variant", ["gqa", "tied", "llama31"])
def test_preset_round_trip(tmp_path, variant):
    backbone, ids = make(variant), tokens()
    backbone.save_to_preset(tmp_path / "preset")
    again = Backbone.from_preset(str(tmp_path / "preset"))
    assert again.get_config() | {"name": None} == backbone.get_config() | {"name": None}
    np.testing.assert_array_equal(hidden(again, ids), hidden(backbone, ids))
    fresh = LlamaBackbone.from_preset(str(tmp_path / "preset"), load_weights=False, dropout=0.25)
    assert fresh.dropout == 0.25
    assert not np.array_equal(hidden(fresh, ids), hidden(backbone, ids))
