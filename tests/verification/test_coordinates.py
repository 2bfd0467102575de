"""muP's coordinate check: what it says of muP and of the standard parametrization, on one and the same model."""

import pytest
import tensorflow as tf

from llama_exp.architecture.parametrization import rate_factors
from llama_exp.models import LlamaBackbone, LlamaCausalLM
from llama_exp.optimizer import adamw
from llama_exp.verification.coordinates import STEPS, TOLERANCE, measure

BASE, HEAD_DIM = 32, 16
ADAMW = {"weight_decay": 0.1, "beta_1": 0.9, "beta_2": 0.95, "epsilon": 1e-8, "global_clipnorm": 1.0}


@pytest.fixture(autouse=True)
def eager():
    """Without graphs: to trace a step at each width takes longer than to take twenty."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def build(width, seed, parametrization):
    sizes = {"vocabulary_size": 64, "num_layers": 1, "hidden_dim": width, "intermediate_dim": 2 * width}
    heads = {"num_query_heads": width // HEAD_DIM, "num_key_value_heads": width // HEAD_DIM // 2}
    first = {"initializer_range": BASE**-0.5, "tie_word_embeddings": True, "seed": seed}
    rule = {"parametrization": parametrization, "base_hidden_dim": BASE, "train_norms": False}
    backbone = LlamaBackbone(**sizes, **heads, **first, **rule, dtype="float32")
    optimizer = adamw(learning_rate=0.01, **ADAMW)
    optimizer.multiply_rates(rate_factors(backbone))
    return LlamaCausalLM(backbone), optimizer


def test_activations_keep_their_size_under_mup_and_grow_with_the_width_otherwise():
    widths, said = [32, 64, 128, 256, 512], []
    slopes = measure(lambda width, seed: build(width, seed, "mup"), widths, said.append, 1)
    layers = ["token_embedding", "transformer_layer_0/self_attention", "transformer_layer_0", "logits"]
    assert {(one.layer, one.step) for one in slopes} == {(layer, step) for layer in layers for step in STEPS}
    assert [one for one in slopes if not one.is_flat] == []
    assert said == [f"width {width}" for width in widths]

    slopes = measure(lambda width, seed: build(width, seed, "standard"), [32, 128, 512], said.append, 1)
    grows = {layer: [one.change for one in slopes if one.layer == layer] for layer in layers[1:]}
    assert all(change > TOLERANCE for changes in grows.values() for change in changes), grows
    assert not any(one.is_flat for one in slopes if one.layer in layers[1:])
