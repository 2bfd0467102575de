"""Blocks that are alike are traced once, and others are not mistaken for them."""

import keras
import numpy as np
import oracles
import pytest
from keras import ops

from llama_exp import backend
from llama_exp.models import LlamaBackbone, decoder
from llama_exp.models.stack import identify

pytestmark = pytest.mark.neutral

IDS = np.random.default_rng(0).integers(0, 40, (2, 8)).astype("int32")


def make(num_layers=4, **lora):
    backbone = LlamaBackbone(40, num_layers, 4, 32, 48, 2)
    oracles.randomize(backbone)
    if lora:
        backbone.enable_lora(**lora)
        oracles.randomize(backbone)
    return backbone


def call(backbone):
    jit = keras.backend.backend() == "jax"
    function = backend.compiled(lambda token_ids: backbone({"token_ids": token_ids}), backbone.variables, [], jit=jit)
    return ops.convert_to_numpy(function(IDS))


def test_python_runs_a_block_once_for_all_that_are_alike(monkeypatch):
    calls = []
    original = decoder.TransformerDecoder._feedforward
    counted = lambda self, *arguments: calls.append(self) or original(self, *arguments)  # noqa: E731
    monkeypatch.setattr(decoder.TransformerDecoder, "_feedforward", counted)
    backbone = make(num_layers=6)
    assert len({identify(block) for block in backbone.transformer_layers}) == 1
    call(backbone)
    assert len(calls) == 1


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="XLA, which JAX always uses, needs the copies")
def test_tensorflow_optimizes_a_block_once_for_all_that_are_alike():
    from tensorflow.python.eager import context

    def nodes(num_layers, op):
        backbone = make(num_layers)
        context.context().enable_graph_collection()
        try:
            call(backbone)
            collected = context.context().export_run_metadata().function_graphs
        finally:
            context.context().disable_graph_collection()
        return sum(op in node.op for part in collected for node in part.post_optimization_graph.node)

    assert nodes(6, "PartitionedCall") - nodes(2, "PartitionedCall") == 4
    assert nodes(6, "MatMul") == 0  # those are in the function that is called


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"rank": 2},
        {"rank": 2, "targets": ["transformer_layer_[12]/self_attention/query"]},
        {"rank": 2, "targets": ["transformer_layer_0/.*", "transformer_layer_3/self_attention/value"]},
        {"rank": 2, "use_dora": True, "rank_pattern": {"transformer_layer_2/.*": 3}},
    ],
)
def test_compiled_equals_block_after_block(lora):
    backbone = make(**lora)
    eager = ops.convert_to_numpy(backbone({"token_ids": IDS}))
    np.testing.assert_allclose(call(backbone), eager, atol=1e-5)


def test_blocks_differ_by_adapter_scale_and_trainability():
    backbone = make(num_layers=2, rank=2, alpha=4)
    one, other = backbone.transformer_layers
    assert identify(one) == identify(other)
    other.self_attention.query.adapter.scale = 7.0
    assert identify(one) != identify(other)
    other.self_attention.query.adapter.scale = one.self_attention.query.adapter.scale
    other.self_attention.query.adapter.lora_a.trainable = False
    assert identify(one) != identify(other)
    dora = make(num_layers=2, rank=2, alpha=4, use_dora=True)
    assert identify(dora.transformer_layers[0]) == identify(dora.transformer_layers[1]) != identify(one)


def test_quantized_blocks_equal_too():
    backbone = make()
    backbone.quantize("int8", quantize_activations=False)  # a rounding that falls the other way would be a large step
    eager = ops.convert_to_numpy(backbone({"token_ids": IDS}))
    np.testing.assert_allclose(call(backbone), eager, atol=1e-5)
