"""Presets that keras_hub wrote load here, and ours there, with equal outputs."""

import json

import keras
import numpy as np
import pytest
from daily import SLOW_ON_JAX, with_others
from oracles import EXACT_TOLERANCE
from tiny_configs import IGNORED_BY_KERAS_HUB, LLAMA_3_1, TINY_CONFIGS

from llama_exp.models import LlamaBackbone

pytestmark = [pytest.mark.neutral, pytest.mark.oracle, *SLOW_ON_JAX]
SHARD_GIB = 5e-6


def inputs(config):
    rng = np.random.default_rng(1)
    mask = np.ones((2, 9), "int32")
    mask[1, 6:] = 0
    return {"token_ids": rng.integers(0, config["vocabulary_size"], (2, 9)).astype("int32"), "padding_mask": mask}


def outputs(model, config):
    batch = inputs(config)
    return keras.ops.convert_to_numpy(model(batch)).astype("float32")[batch["padding_mask"] == 1]


def randomized(model):
    rng = np.random.default_rng(2)
    for weight in model.weights:  # norms would be ones otherwise, and a lost one would go unnoticed
        weight.assign(rng.normal(0, 0.2, weight.shape))
    return model


THEIRS = [
    # layers, class, tied, shards: group names sort differently from ten layers on
    (2, "LlamaBackbone", False, True),
    (12, "LlamaBackbone", True, False),
    (12, "Llama3Backbone", False, True),
    (11, "Llama3Backbone", True, True),
]


@pytest.mark.parametrize(("num_layers", "class_name", "tied", "sharded"), with_others(THEIRS[:1], THEIRS[1:]))
def test_their_presets_load_with_equal_outputs(tmp_path, num_layers, class_name, tied, sharded):
    import keras_hub

    config = TINY_CONFIGS["grouped_query"] | LLAMA_3_1 | {"num_layers": num_layers, "tie_word_embeddings": tied}
    theirs = randomized(getattr(keras_hub.models, class_name)(**config))
    theirs.save_to_preset(tmp_path / "preset", max_shard_size=5e-5 if sharded else None)
    index = tmp_path / "preset" / "model.weights.json"
    assert index.exists() == sharded
    ours = LlamaBackbone.from_preset(tmp_path / "preset")
    assert ours.tie_word_embeddings == tied  # their config.json does not say
    assert ours.count_params() == theirs.count_params()
    np.testing.assert_allclose(outputs(ours, config), outputs(theirs, config), rtol=0, atol=EXACT_TOLERANCE)
    if sharded:  # an entry of the index is a name or a list of names
        document = json.loads(index.read_text())
        for group, entry in document["weight_map"].items():
            document["weight_map"][group] = (
                [entry] if isinstance(entry, str) else entry[0] if len(entry) == 1 else entry
            )
        index.write_text(json.dumps(document))
        again = LlamaBackbone.from_preset(tmp_path / "preset")
        np.testing.assert_array_equal(outputs(again, config), outputs(ours, config))


# On JAX, where a file is read as elsewhere, one is enough each day: KerasHub's model takes seconds.
OURS = sorted({"grouped_query", "llama_3_2", "twelve_layers", "tied", "one_layer"} - IGNORED_BY_KERAS_HUB)


@pytest.mark.parametrize("max_shard_gib", [None, SHARD_GIB])
@pytest.mark.parametrize("name", with_others(["odd_widths"], OURS))
def test_they_load_our_presets_with_equal_outputs(tmp_path, name, max_shard_gib):
    import keras_hub

    config = TINY_CONFIGS[name]
    ours = randomized(LlamaBackbone(**config))
    ours.save_to_preset(tmp_path / "preset", max_shard_size=max_shard_gib)
    assert (tmp_path / "preset" / "model.weights.json").exists() == (max_shard_gib is not None)
    metadata = json.loads((tmp_path / "preset/metadata.json").read_text())
    (tmp_path / "preset/metadata.json").write_text(json.dumps(metadata | {"context_length": 2048}))  # as convert may
    theirs = keras_hub.models.Backbone.from_preset(str(tmp_path / "preset"))
    assert theirs.count_params() == ours.count_params()
    np.testing.assert_allclose(outputs(ours, config), outputs(theirs, config), rtol=0, atol=EXACT_TOLERANCE)


def test_bfloat16_is_stored_as_keras_stores_it(tmp_path):
    import keras_hub

    ours = randomized(LlamaBackbone(**TINY_CONFIGS["grouped_query"], dtype="bfloat16"))
    ours.save_to_preset(tmp_path / "ours")
    theirs = keras_hub.models.Backbone.from_preset(str(tmp_path / "ours"), dtype="bfloat16")
    theirs.save_to_preset(tmp_path / "theirs")
    back = LlamaBackbone.from_preset(tmp_path / "theirs", dtype="bfloat16")
    for weight, other in zip(ours.weights, back.weights, strict=True):
        assert weight.path == other.path and weight.dtype == other.dtype == "bfloat16"
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), keras.ops.convert_to_numpy(other))
