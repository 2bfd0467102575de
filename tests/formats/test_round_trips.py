"""From one format into another and back: the same bits, and on both backends the same logits as the source's own model.

KerasHub's model ignores the position scaling factor, so that it judges all of the tiny models but that one.
"""

import hf_models
import numpy as np
import oracles
import pytest
from daily import with_others
from tiny_configs import IGNORED_BY_KERAS_HUB, TINY_CONFIGS, as_tensors, random_arrays, stored_dtype

from llama_exp import formats
from llama_exp.formats.hugging_face import checkpoint as hugging_face
from llama_exp.formats.keras_hub import checkpoint as keras_hub

WRITERS = {"hugging_face": hugging_face.write, "keras_hub": keras_hub.write}
SMALL = 1500  # bytes; several shards for every tiny model


def convert(source, format_name, folder, max_shard_bytes=None):
    with formats.open_checkpoint(source) as checkpoint, formats.writing(folder) as draft:
        WRITERS[format_name](draft, checkpoint.config, checkpoint.tensors, max_shard_bytes=max_shard_bytes)
    return folder


def contents(folder):
    with formats.open_checkpoint(folder) as checkpoint:
        return checkpoint.config, {path: tensor.read(None) for path, tensor in checkpoint.tensors.items()}


def assert_same(folder, config, arrays):
    read_config, read_arrays = contents(folder)
    assert read_config == config
    assert read_arrays.keys() == arrays.keys()
    for path, array in arrays.items():
        assert read_arrays[path].dtype == array.dtype
        np.testing.assert_array_equal(read_arrays[path], array, err_msg=path)


@pytest.mark.parametrize("max_shard_bytes", [None, SMALL])
@pytest.mark.parametrize("source", WRITERS)
@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_there_and_back_is_the_same_to_the_bit(tmp_path, name, source, max_shard_bytes):
    (other,) = set(WRITERS) - {source}
    config, arrays = TINY_CONFIGS[name], random_arrays(TINY_CONFIGS[name], stored_dtype(name))
    with formats.writing(tmp_path / "source") as draft:
        WRITERS[source](draft, config, as_tensors(arrays), max_shard_bytes=max_shard_bytes)
    convert(tmp_path / "source", other, tmp_path / "other", max_shard_bytes)
    convert(tmp_path / "other", source, tmp_path / "back", max_shard_bytes)
    assert_same(tmp_path / "other", config, arrays)
    assert_same(tmp_path / "back", config, arrays)
    assert len(list((tmp_path / "source").glob("model*"))) > (2 if max_shard_bytes else 0)


@pytest.mark.parametrize("name", ["llama_3_2", "odd_widths"])
def test_the_same_tensors_give_the_same_file(tmp_path, name):
    with formats.writing(tmp_path / "source") as draft:
        config, arrays = TINY_CONFIGS[name], random_arrays(TINY_CONFIGS[name], stored_dtype(name))
        hugging_face.write(draft, config, as_tensors(arrays))
    convert(tmp_path / "source", "keras_hub", tmp_path / "other")
    back = convert(tmp_path / "other", "hugging_face", tmp_path / "back")
    for file in back.iterdir():
        assert file.read_bytes() == (tmp_path / "source" / file.name).read_bytes()


# --- what the model computes


def our_logits(folder, ids):
    from keras import ops

    from llama_exp.models import LlamaCausalLM

    model = LlamaCausalLM.from_preset(str(folder), dtype="float32")
    return ops.convert_to_numpy(model({"token_ids": ids, "padding_mask": np.ones_like(ids)}))


def assert_close(logits, expected):
    np.testing.assert_allclose(logits, expected, rtol=0, atol=oracles.EXACT_TOLERANCE)


@pytest.mark.oracle
@pytest.mark.neutral
@pytest.mark.parametrize("name", with_others(list(TINY_CONFIGS)[:2], list(TINY_CONFIGS)[2:]))
def test_logits_are_those_of_transformers(tmp_path, name):
    config = TINY_CONFIGS[name]
    model, ids = hf_models.random_model(name, config), hf_models.token_ids(config)
    expected = hf_models.logits(model, ids)
    assert np.abs(expected).max() > 1
    model.to(hf_models.torch_dtype(name)).save_pretrained(tmp_path / "source")
    assert_close(our_logits(tmp_path / "source", ids), expected)
    assert_close(our_logits(convert(tmp_path / "source", "keras_hub", tmp_path / "other"), ids), expected)


# KerasHub's model takes seconds on JAX, where each shape is compiled anew.
ON_JAX_TOO = {name: pytest.mark.neutral for name in ("grouped_query", "llama_3_2")}


@pytest.mark.oracle
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=ON_JAX_TOO.get(name, ())) for name in sorted(set(TINY_CONFIGS) - IGNORED_BY_KERAS_HUB)],
)
def test_logits_are_those_of_keras_hub(tmp_path, name):
    from keras import ops
    from keras_hub.models import LlamaBackbone

    config = TINY_CONFIGS[name]
    arrays, ids = random_arrays(config, stored_dtype(name)), hf_models.token_ids(config)
    backbone = LlamaBackbone(**config, dtype="float32")
    for variable in backbone.weights:
        variable.assign(arrays[variable.path].astype("float32").reshape(variable.shape))
    hidden = backbone({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    expected = ops.convert_to_numpy(backbone.token_embedding(hidden, reverse=True))
    backbone.save_to_preset(str(tmp_path / "source"))
    converted = convert(tmp_path / "source", "hugging_face", tmp_path / "other")
    assert_close(our_logits(converted, ids), expected)
    assert_close(hf_models.logits(hf_models.load(converted), ids), expected)
