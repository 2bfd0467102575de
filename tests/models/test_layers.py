"""The small layers: norm, linear, embedding, decoder block. Values, dtypes, configuration round trips."""

import keras
import numpy as np
import oracles
import pytest
from keras import ops

from llama_exp.lora.adapter import LoraAdapter
from llama_exp.models.attention import SelfAttention
from llama_exp.models.decoder import TransformerDecoder
from llama_exp.models.embedding import TokenEmbedding
from llama_exp.models.linear import Linear
from llama_exp.models.norm import RMSNorm

pytestmark = pytest.mark.neutral

LAYERS = {
    RMSNorm: {"epsilon": 1e-5},
    Linear: {"output_dim": 6},
    TokenEmbedding: {"vocabulary_size": 7, "hidden_dim": 4, "tie_word_embeddings": True},
    SelfAttention: {"num_query_heads": 4, "num_key_value_heads": 2, "dropout": 0.1},
    LoraAdapter: {"rank": 2, "output_dim": 6, "scale": 0.5, "dropout": 0.1},
    TransformerDecoder: {
        "intermediate_dim": 8,
        "num_query_heads": 4,
        "num_key_value_heads": 2,
        "layer_norm_epsilon": 1e-5,
        "dropout": 0.1,
    },
}


@pytest.mark.parametrize("layer_class", LAYERS, ids=lambda layer_class: layer_class.__name__)
def test_config_round_trip(layer_class):
    layer = layer_class(**LAYERS[layer_class], dtype="mixed_bfloat16", name="some_name")
    config = layer.get_config()
    assert config | LAYERS[layer_class] == config
    again = layer_class.from_config(config)
    assert again.get_config() == config and again.dtype_policy.name == "mixed_bfloat16"


def test_norm():
    norm = RMSNorm(0.5)
    x = np.array([[3.0, 4.0], [0.0, 0.0]], "float32")
    norm.build(x.shape)
    norm.scale.assign([1.0, 10.0])
    expected = x / np.sqrt(np.array([[12.5], [0.0]]) + 0.5) * [1.0, 10.0]
    np.testing.assert_allclose(ops.convert_to_numpy(norm(x)), expected, rtol=1e-6)


def test_norm_computes_in_float32():
    """300 squared is above float16's 65504: a half-precision mean square would be infinite and the result 0."""
    norm = RMSNorm(1e-5, dtype="mixed_float16")
    norm.build((1, 2))
    y = norm(ops.convert_to_tensor(np.array([[300.0, -300.0]], "float16")))
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    np.testing.assert_allclose(ops.convert_to_numpy(y), [[1.0, -1.0]])


def test_linear_adds_its_adapter_and_lets_it_go():
    linear, x = Linear(3), np.eye(2, dtype="float32")
    linear.build((None, 2))
    linear.kernel.assign(np.ones((2, 3)))
    adapter = LoraAdapter(rank=1, output_dim=3, scale=1.0, dropout=0.0)
    adapter.build((None, 2))
    adapter.lora_a.assign(np.ones((2, 1)))
    adapter.lora_b.assign(np.full((1, 3), 5.0))
    linear.attach(adapter)
    assert len(linear.weights) == 3
    np.testing.assert_array_equal(ops.convert_to_numpy(linear(x)), np.full((2, 3), 6.0))
    linear.attach(None)
    assert len(linear.weights) == 1
    np.testing.assert_array_equal(ops.convert_to_numpy(linear(x)), np.ones((2, 3)))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_embedding_and_projection(tied, policy):
    embedding = TokenEmbedding(7, 4, tied, dtype=policy, name="token_embedding")
    embedding.build()
    generator = np.random.default_rng(0)
    for variable in embedding.weights:
        variable.assign(generator.integers(-4, 4, tuple(variable.shape)))  # exact in bfloat16
    table = ops.convert_to_numpy(embedding.embeddings.value)
    ids = np.array([[1, 6, 0]], "int32")
    rows = embedding(ids)
    assert keras.backend.standardize_dtype(rows.dtype) == embedding.compute_dtype
    np.testing.assert_array_equal(ops.convert_to_numpy(ops.cast(rows, "float32")), table[ids])
    matrix = table.T if tied else ops.convert_to_numpy(embedding.reverse_embeddings.value)
    for shape in ((3, 4), (1, 3, 4)):
        logits = embedding.project(ops.reshape(rows, shape))
        assert keras.backend.standardize_dtype(logits.dtype) == "float32"
        np.testing.assert_array_equal(ops.convert_to_numpy(logits), (table[ids] @ matrix).reshape(*shape[:-1], 7))


def test_tolerances_are_the_agreed_ones():
    assert (oracles.TOLERANCE, oracles.EXACT_TOLERANCE) == (1e-4, 1e-5)
