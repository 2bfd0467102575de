"""The NumPy forward pass against the tests' own oracle, on every tiny architecture; NumPy only."""

import numpy as np
import pytest
from oracles import numpy_hidden, numpy_logits
from tiny_configs import TINY_CONFIGS, as_tensors, random_arrays

from llama_exp.formats.checkpoint import Checkpoint
from llama_exp.reference import _StoredWeights, layer_outputs, run

TOKEN_IDS = np.random.default_rng(1).integers(0, 33, (2, 21))


def outputs(config, arrays, dtype=None):
    checkpoint = Checkpoint("memory", "keras_hub", config, as_tensors(arrays))
    return dict(layer_outputs(checkpoint, TOKEN_IDS, dtype))


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_it_is_a_llama(name):
    config = TINY_CONFIGS[name]
    arrays = random_arrays(config)
    found = outputs(config, arrays)
    doubles = {path: array.astype("float64") for path, array in arrays.items()}
    hidden = numpy_hidden(config, doubles, TOKEN_IDS)
    np.testing.assert_allclose(found["sequence_output_layernorm"], hidden, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found["logits"], numpy_logits(config, doubles, hidden), rtol=1e-9, atol=1e-9)
    blocks = [f"transformer_layer_{index}" for index in range(config["num_layers"])]
    assert list(found) == ["token_embedding", *blocks, "sequence_output_layernorm", "logits"]


def test_weights_are_rounded_as_the_model_has_them():
    config = TINY_CONFIGS["grouped_query"]
    arrays = random_arrays(config)
    rounded = {path: array.astype("float16").astype("float32") for path, array in arrays.items()}
    exact, half, same = outputs(config, arrays), outputs(config, arrays, np.dtype("float16")), outputs(config, rounded)
    assert np.array_equal(half["logits"], same["logits"]) and not np.array_equal(half["logits"], exact["logits"])


def test_keys_and_values_of_before_change_nothing():
    config = TINY_CONFIGS["llama_3_1"]
    weights, past = _StoredWeights(as_tensors(random_arrays(config)), None, None), {}
    ids = np.random.default_rng(0).integers(0, 48, (3, 9))
    whole = dict(run(config, weights, ids))
    parts = [dict(run(config, weights, ids[:, piece], past)) for piece in (slice(0, 4), slice(4, 9))]
    for layer in whole:
        joined = np.concatenate([part[layer] for part in parts], axis=1)
        np.testing.assert_allclose(joined, whole[layer], rtol=1e-9, atol=1e-9)
