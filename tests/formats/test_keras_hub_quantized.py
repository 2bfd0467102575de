"""Quantized KerasHub presets as files; keras_hub itself reads and writes them in test_quantization."""

import json
import math

import h5py
import numpy as np
import pytest
from tiny_configs import TINY_CONFIGS, as_tensors, random_arrays

from llama_exp.architecture import Quantization
from llama_exp.errors import InputError
from llama_exp.formats import open_checkpoint, read_architecture, writing
from llama_exp.formats.checkpoint import Checkpoint
from llama_exp.formats.keras_hub import checkpoint as keras_hub
from llama_exp.formats.keras_hub import quantized as keras_hub_quantized
from llama_exp.formats.quantized import quantize_checkpoint

MODES = {
    "int8": Quantization("int8", True),
    "int8_weight_only": Quantization("int8", False),
    "int4": Quantization("int4", False, 20),
    "int4_columns": Quantization("int4", False),
    "int8_with_floats": Quantization("int8", True, float_activations=("query", "token_embedding")),
    "int8_asymmetric": Quantization("int8", True, asymmetric_activations=True),
    "gptq": Quantization("int4", False, 4, gptq=True),
    "int4_with_int8": Quantization("int4", False, 20, "int8"),
    "int4_columns_with_int8": Quantization("int4", False, None, "int8"),
    "int8_layers": Quantization("int4", False, 20, "int8", int8_layers=("key", "value")),
    "int8_layers_by_gptq": Quantization("int4", False, gptq=True, int8_layers=("query", "feedforward_gate_dense")),
}
TABLE = "layers/reversible_embedding/vars"
QUERY = "layers/llama_transformer_decoder/_self_attention_layer/_query_dense/vars"


def write(folder, name, mode, max_shard_bytes=None):
    config = TINY_CONFIGS[name]
    source = Checkpoint("memory", "test", config, as_tensors(random_arrays(config)))
    arrays = {path: tensor.read(None) for path, tensor in quantize_checkpoint(source, mode).tensors.items()}
    with writing(folder) as draft:
        keras_hub.write(draft, config, as_tensors(arrays), mode, max_shard_bytes)
    return arrays


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize(
    "name, shard", [("odd_widths", None), ("tied", None), ("llama_3_2", 4000), ("multi_query", 4000)]
)
def test_round_trip(tmp_path, name, shard, mode):
    arrays = write(tmp_path / "preset", name, mode, shard)
    assert (tmp_path / "preset" / "model.weights.json").exists() == (shard is not None)
    with open_checkpoint(tmp_path / "preset") as checkpoint:
        assert checkpoint.quantization == mode
        assert checkpoint.config == TINY_CONFIGS[name]
        assert set(checkpoint.tensors) == set(arrays)
        for path, array in arrays.items():
            tensor = checkpoint.tensors[path]
            assert (tensor.shape, tensor.dtype) == (array.shape, array.dtype), path
            assert np.array_equal(tensor.read(None), array), path
            assert np.array_equal(tensor.read(np.dtype("float32")), array.astype("float32")), path
    assert read_architecture(tmp_path / "preset") == TINY_CONFIGS[name]
    stored = json.loads((tmp_path / "preset" / "metadata.json").read_text())["parameter_count"]
    assert stored == sum(math.prod(t.file_shape) for t in keras_hub_quantized.layout(TINY_CONFIGS[name], mode).values())


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("name", ["tied", "multi_head"])
def test_whether_embeddings_are_tied_shows_in_the_tensors(tmp_path, name, mode):
    """KerasHub's own files do not say."""
    write(tmp_path / "preset", name, mode)
    document = json.loads((tmp_path / "preset" / "config.json").read_text())
    del document["config"]["tie_word_embeddings"]
    (tmp_path / "preset" / "config.json").write_text(json.dumps(document))
    with open_checkpoint(tmp_path / "preset") as checkpoint:
        assert checkpoint.config == TINY_CONFIGS[name]


def test_shapes_of_published_presets():
    """Of the first blocks of llama2_7b_en_int8 and llama3_8b_en_int8, as KerasHub's layers declare them."""
    config = TINY_CONFIGS["grouped_query"]
    layout = keras_hub_quantized.layout(config, MODES["int8"])
    attention = "layers/llama_transformer_decoder_1/_self_attention_layer"
    assert layout[f"{attention}/_query_dense/vars/0"].file_shape == (32, 4, 8)
    assert layout[f"{attention}/_query_dense/vars/1"].file_shape == (1, 1, 4, 8)
    assert layout[f"{attention}/_key_dense/vars/1"].file_shape == (1, 1, 2, 8)
    assert layout[f"{attention}/_output_dense/vars/0"].file_shape == (4, 8, 32)
    assert layout[f"{attention}/_output_dense/vars/1"].file_shape == (1, 1, 32)
    assert layout["layers/llama_transformer_decoder/_feedforward_gate_dense/vars/1"].file_shape == (40,)
    assert layout[f"{TABLE}/3"].variable == "token_embedding/reverse_embeddings_scale"


@pytest.mark.parametrize("num_heads, head_dim", [(4, 4), (2, 8), (8, 2)])
def test_scales_of_square_kernels(num_heads, head_dim):
    """Heads of as many as there are numbers in one: only which axes are summed tells inputs from outputs."""
    config = TINY_CONFIGS["multi_head"] | {
        "hidden_dim": 16,
        "num_query_heads": num_heads,
        "num_key_value_heads": num_heads,
    }
    layout = keras_hub_quantized.layout(config, MODES["int8"])
    assert layout[f"{QUERY}/1"].file_shape == (1, 1, num_heads, head_dim)
    assert layout[f"{QUERY.replace('query', 'output')}/1"].file_shape == (1, 1, 16)


def damage(folder, path, change):
    with h5py.File(folder / "model.weights.h5", "r+") as file:
        array = file[path][()]
        del file[path]
        file[path] = change(array)


@pytest.mark.parametrize(
    "mode, path, change, message",
    [
        ("int8", f"{QUERY}/1", lambda scale: scale * 0, "a scale is not above 0"),
        ("int8", f"{QUERY}/1", lambda scale: -scale, "a scale is not above 0"),
        ("int8", f"{QUERY}/1", lambda scale: scale * np.float32("nan"), "not finite"),
        ("int4", f"{QUERY}/3", lambda index: index[::-1].copy(), "not in groups one after the other"),
        ("int4", f"{TABLE}/6", lambda zero: zero + 0.5, "a zero point is no integer of 4 bits"),
        ("int4", f"{TABLE}/6", lambda zero: zero + 100, "a zero point is no integer of 4 bits"),
        ("int4", f"{QUERY}/2", lambda zero: zero + 100, "a zero point is no integer of 4 bits"),
    ],
)
def test_impossible_values_are_named_when_they_are_read(tmp_path, mode, path, change, message):
    write(tmp_path / "preset", "multi_head", MODES[mode])
    damage(tmp_path / "preset", path, change)
    with open_checkpoint(tmp_path / "preset") as checkpoint, pytest.raises(InputError, match=message) as caught:
        for tensor in checkpoint.tensors.values():
            tensor.read(None)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    "path, change, message",
    [
        (f"{QUERY}/0", lambda kernel: kernel.astype("float32"), "do not fit"),
        (f"{QUERY}/1", lambda scale: scale.astype("int8"), "do not fit"),
        (f"{QUERY}/1", lambda scale: scale.reshape(-1), "do not fit"),
    ],
)
def test_other_shapes_and_types_are_refused_before_anything_is_read(tmp_path, path, change, message):
    write(tmp_path / "preset", "multi_head", MODES["int8"])
    damage(tmp_path / "preset", path, change)
    with pytest.raises(InputError, match=message), open_checkpoint(tmp_path / "preset"):
        pass


def test_a_tied_model_with_an_output_matrix_of_its_own_is_refused(tmp_path):
    write(tmp_path / "preset", "multi_head", MODES["int8"])
    document = json.loads((tmp_path / "preset" / "config.json").read_text())
    document["config"]["tie_word_embeddings"] = True
    (tmp_path / "preset" / "config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="2 tensors are not the model's"), open_checkpoint(tmp_path / "preset"):
        pass


@pytest.mark.parametrize("value", [0, "query", None, ["mlp"], {"query": 1}, [["query"]]])
@pytest.mark.parametrize("mode", ["int8_with_floats", "int4"])
def test_float_activations_are_names_of_layers(tmp_path, value, mode):
    write(tmp_path / "preset", "multi_head", MODES[mode])
    document = json.loads((tmp_path / "preset" / "config.json").read_text())
    stated = document["config"]["dtype"].get("float_activations")
    assert stated == (["query", "token_embedding"] if mode == "int8_with_floats" else None)
    document["config"]["dtype"]["float_activations"] = value
    (tmp_path / "preset" / "config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="float_activations"), open_checkpoint(tmp_path / "preset"):
        pass


@pytest.mark.parametrize("value", [1, "no", None, [True]])
@pytest.mark.parametrize("mode", ["int8_asymmetric", "int8_weight_only", "gptq"])
@pytest.mark.parametrize("key, stating", [("asymmetric_activations", "int8_asymmetric"), ("gptq", "gptq")])
def test_how_numbers_are_rounded_is_a_boolean(tmp_path, value, mode, key, stating):
    write(tmp_path / "preset", "multi_head", MODES[mode])
    document = json.loads((tmp_path / "preset" / "config.json").read_text())
    assert document["config"]["dtype"].get(key) == (True if mode == stating else None)
    document["config"]["dtype"][key] = value
    (tmp_path / "preset" / "config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=f"{key} must be"), open_checkpoint(tmp_path / "preset"):
        pass


@pytest.mark.parametrize("value", [0, "no", None, [False]])
def test_whether_activations_are_rounded_is_a_boolean(tmp_path, value):
    write(tmp_path / "preset", "multi_head", MODES["int8_weight_only"])
    document = json.loads((tmp_path / "preset" / "config.json").read_text())
    assert document["config"]["dtype"]["quantize_activations"] is False
    document["config"]["dtype"]["quantize_activations"] = value
    (tmp_path / "preset" / "config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="quantize_activations must be"), open_checkpoint(tmp_path / "preset"):
        pass
