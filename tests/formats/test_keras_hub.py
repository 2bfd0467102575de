"""KerasHub's presets without a framework: what is written is read, and configurations old, new and impossible."""

import json
import logging
import os
import resource
import subprocess
import sys

import h5py
import ml_dtypes
import numpy as np
import pytest
from promptness import within
from tiny_configs import LLAMA_3_1, TINY_CONFIGS, as_tensors, random_arrays, stored_dtype

from llama_exp.architecture import CONFIG_KEYS, DEFAULTS, LINEAR_NAMES, Quantization, linear_shapes
from llama_exp.errors import InputError, StorageError
from llama_exp.formats import open_checkpoint, read_architecture, writing
from llama_exp.formats.checkpoint import MAX_PARAMETERS, match_architecture, require_agreement
from llama_exp.formats.keras_hub import checkpoint as keras_hub
from llama_exp.formats.keras_hub.config import DOUBTFUL, config_document, read_config

CONFIG = TINY_CONFIGS["grouped_query"]
QUERY = "layers/llama_transformer_decoder/_self_attention_layer/_query_dense/vars/0"
SHARD_BYTES = 20_000


def write_preset(folder, config=CONFIG, arrays=None, max_shard_bytes=None):
    tensors = as_tensors(random_arrays(config) if arrays is None else arrays)
    with writing(folder) as draft:
        keras_hub.write(draft, config, tensors, max_shard_bytes=max_shard_bytes)
    return folder


@pytest.fixture
def preset(tmp_path):
    return write_preset(tmp_path / "preset")


def edit_config(folder, **changes):
    path = folder / "config.json"
    document = json.loads(path.read_text())
    for key, value in changes.items():
        if value is ...:
            del document["config"][key]
        else:
            document["config"][key] = value
    path.write_text(json.dumps(document))


def rejected(folder, function=None, *args):
    with pytest.raises(InputError) as raised:
        if function is None:
            with open_checkpoint(folder):
                pass
        else:
            function(folder, *args)
    for problem in raised.value.problems:
        assert all((problem.what, problem.where, problem.found, problem.action))
        assert len(str(problem)) < 1500
    return str(raised.value)


def assert_reads(folder, config, arrays, dtype=None):
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.format == "keras_hub" and checkpoint.quantization is None
        assert checkpoint.config == config and set(checkpoint.config) == set(CONFIG_KEYS)
        assert checkpoint.tensors.keys() == arrays.keys()
        for path, tensor in checkpoint.tensors.items():
            value = tensor.read(dtype)
            assert tensor.shape == value.shape and value.flags.c_contiguous
            assert tensor.dtype == arrays[path].dtype
            np.testing.assert_array_equal(value, arrays[path].astype(dtype or tensor.dtype), err_msg=path)


# --- round trips -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_shard_bytes", [None, SHARD_BYTES, 1])
@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_what_is_written_is_read(tmp_path, name, max_shard_bytes):
    config, arrays = TINY_CONFIGS[name], random_arrays(TINY_CONFIGS[name], stored_dtype(name))
    folder = write_preset(tmp_path / "preset", config, arrays, max_shard_bytes)
    assert (folder / "model.weights.json").exists() == any(folder.glob("model_*.weights.h5"))
    assert_reads(folder, config, arrays)
    assert_reads(folder, config, arrays, np.dtype("float32"))
    assert read_architecture(folder) == config
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["parameter_count"] == sum(array.size for array in arrays.values())


def test_the_context_length_stands_in_the_metadata(preset):
    def read():
        with open_checkpoint(preset) as checkpoint:
            return checkpoint.context_length

    path = preset / "metadata.json"
    metadata = json.loads(path.read_text())
    assert read() is None and "context_length" not in metadata
    path.write_text(json.dumps(metadata | {"context_length": 2048}))
    assert read() == 2048
    for length in (0, -1, 2048.0, True, "2048", []):
        path.write_text(json.dumps({"context_length": length}))
        with pytest.raises(InputError, match="context_length must be a whole number above 0"):
            read()
    path.unlink()
    assert read() is None


@pytest.mark.process
def test_no_framework_is_imported(preset):
    code = f"""
import sys
from llama_exp.formats import open_checkpoint
with open_checkpoint({str(preset)!r}) as checkpoint:
    [tensor.read(None) for tensor in checkpoint.tensors.values()]
print([name for name in ("keras", "tensorflow", "jax", "torch") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_values_in_the_file_lie_in_one_piece(tmp_path):
    """Then they are read at the speed of the memory; Keras does the same."""
    arrays = random_arrays(CONFIG, ml_dtypes.bfloat16)
    with h5py.File(write_preset(tmp_path / "preset", CONFIG, arrays) / "model.weights.h5") as file:
        assert file[QUERY].chunks is None and file[QUERY].id.get_offset()
        assert file[QUERY].dtype == np.dtype("V2") and file[QUERY].attrs["dtype"] == "bfloat16"
        assert file[QUERY].parent.parent["vars"].attrs["name"] == "query"


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    living = []

    class Watched(np.ndarray):
        def __array_finalize__(self, other):
            living.append(self.nbytes)

        def __del__(self):
            living.append(-self.nbytes)

    arrays = random_arrays(CONFIG)
    tensors = as_tensors(arrays)
    tensors = {
        path: type(tensor)(tensor.shape, tensor.dtype, path, lambda dtype, path=path: arrays[path].view(Watched))
        for path, tensor in tensors.items()
    }
    (tmp_path / "preset").mkdir()
    keras_hub.write(tmp_path / "preset", CONFIG, tensors)
    held = np.cumsum(living)
    largest = max(array.nbytes for array in arrays.values())
    assert 0 < held.max() <= 4 * largest < sum(array.nbytes for array in arrays.values())  # views of one array
    assert held[-1] == 0


def test_a_narrower_type_rounds_and_an_overflow_is_refused(tmp_path):
    arrays = random_arrays(CONFIG)
    folder = write_preset(tmp_path / "preset", CONFIG, arrays)
    with open_checkpoint(folder) as checkpoint:
        for path, tensor in checkpoint.tensors.items():
            expected = arrays[path].astype(ml_dtypes.bfloat16)
            np.testing.assert_array_equal(tensor.read(np.dtype(ml_dtypes.bfloat16)), expected, err_msg=path)
    arrays["token_embedding/embeddings"][:] = 1e6
    with open_checkpoint(write_preset(folder, CONFIG, arrays)) as checkpoint:
        with pytest.raises(InputError, match="not finite"):
            checkpoint.tensors["token_embedding/embeddings"].read(np.dtype("float16"))


@pytest.mark.parametrize("name", ["tied", "grouped_query"])
def test_an_interrupted_download_still_has_an_architecture(tmp_path, name):
    folder = write_preset(tmp_path / "preset", TINY_CONFIGS[name], max_shard_bytes=1)
    weight_map = json.loads((folder / "model.weights.json").read_text())["weight_map"]
    (of_embeddings,) = {file for group, file in weight_map.items() if group.startswith("/layers/reversible_embedding/")}
    for file in set(weight_map.values()) - {of_embeddings}:
        (folder / file).unlink()
    for says in (TINY_CONFIGS[name]["tie_word_embeddings"], ...):
        edit_config(folder, tie_word_embeddings=says)
        assert read_architecture(folder) == TINY_CONFIGS[name]
        assert "a shard is missing" in rejected(folder)
    (folder / of_embeddings).unlink()
    message = rejected(folder, read_architecture)
    assert "a shard is missing" in message and of_embeddings in message
    edit_config(folder, tie_word_embeddings=TINY_CONFIGS[name]["tie_word_embeddings"])
    assert read_architecture(folder) == TINY_CONFIGS[name]


# --- tied embeddings -------------------------------------------------------------------------------------------


def twice_stored(folder, says, **changes):
    """Like KerasHub's Llama 3.2: an untied file whose output matrix is the table."""
    arrays = random_arrays(CONFIG)
    arrays["token_embedding/reverse_embeddings"] = arrays["token_embedding/embeddings"].T.copy()
    write_preset(folder, CONFIG, arrays | changes)
    edit_config(folder, tie_word_embeddings=says)
    del arrays["token_embedding/reverse_embeddings"]
    return arrays


def test_a_tied_matrix_may_be_stored_twice(tmp_path):
    arrays = twice_stored(tmp_path / "preset", says=True)
    assert_reads(tmp_path / "preset", CONFIG | {"tie_word_embeddings": True}, arrays)
    assert read_architecture(tmp_path / "preset")["tie_word_embeddings"]


def test_a_file_that_does_not_say_is_tied_if_the_caller_says_so_and_the_values_do(tmp_path):
    arrays = twice_stored(tmp_path / "preset", says=...)
    stated = CONFIG | {"tie_word_embeddings": True}
    with open_checkpoint(tmp_path / "preset") as checkpoint:
        assert checkpoint.config == CONFIG
        assert match_architecture(checkpoint, CONFIG) is checkpoint
        tied = match_architecture(checkpoint, stated)
        assert tied.config == stated and tied.tensors.keys() == arrays.keys()
        with pytest.raises(InputError, match="num_layers"):
            match_architecture(checkpoint, stated | {"num_layers": 3})


@pytest.mark.parametrize("says", [True, ...])
def test_another_output_matrix_cannot_be_tied(tmp_path, says):
    twice_stored(tmp_path / "preset", says, **{"token_embedding/reverse_embeddings": np.zeros((32, 48), "f4")})
    with pytest.raises(InputError, match="cannot be tied"), open_checkpoint(tmp_path / "preset") as checkpoint:
        match_architecture(checkpoint, CONFIG | {"tie_word_embeddings": True})


def test_a_file_that_says_tied_or_untied_must_be_so(tmp_path):
    tied = TINY_CONFIGS["tied"]
    write_preset(tmp_path / "preset", tied)
    edit_config(tmp_path / "preset", tie_word_embeddings=...)  # as KerasHub writes it
    assert read_architecture(tmp_path / "preset") == tied
    with open_checkpoint(tmp_path / "preset") as checkpoint:
        assert checkpoint.config == tied
    edit_config(tmp_path / "preset", tie_word_embeddings=False)
    assert "token_embedding/reverse_embeddings" in rejected(tmp_path / "preset")


# --- agreement with the caller ---------------------------------------------------------------------------------


def test_every_difference_is_listed(preset):
    stated = CONFIG | dict(num_layers=3, hidden_dim=64, rope_max_wavelength=500000.0, dropout=0.1)
    with open_checkpoint(preset) as checkpoint, pytest.raises(InputError) as raised:
        require_agreement(checkpoint, stated)
    (problem,) = raised.value.problems
    assert "num_layers=3 (preset: 2), hidden_dim=64 (preset: 32)" in problem.found
    assert "rope_max_wavelength=500000.0 (preset: 10000.0)" in problem.found and "dropout" not in problem.found
    assert problem.where == "model" and "model.num_layers=2 model.hidden_dim=32" in problem.action


def test_positions_may_be_stretched(preset, caplog):
    with open_checkpoint(preset) as checkpoint, caplog.at_level(logging.WARNING):
        require_agreement(checkpoint, CONFIG | {"rope_position_scaling_factor": 2.0})
    assert "model.rope_position_scaling_factor=2.0 holds" in caplog.text


@pytest.mark.parametrize("key", sorted(DOUBTFUL))
def test_what_published_presets_get_wrong_only_warns(preset, caplog, key):
    with open_checkpoint(preset) as checkpoint, caplog.at_level(logging.WARNING):
        require_agreement(checkpoint, CONFIG | {key: 3.0, "dropout": 0.1})
    assert f"model.{key}=3.0 holds" in caplog.text and "dropout" not in caplog.text


# --- configuration ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["keras_nlp", "keras_hub"])
@pytest.mark.parametrize("class_name", ["LlamaBackbone", "Llama3Backbone"])
def test_older_files_are_understood(preset, package, class_name):
    path = preset / "config.json"
    document = json.loads(path.read_text())
    document |= {"registered_name": f"{package}>{class_name}", "assets": [], "weights": "model.weights.h5"}
    config = document["config"]
    for key in [key for key in config if key.startswith("rope_") and key != "rope_max_wavelength"]:
        del config[key]
    config["rope_scaling_factor"] = 2.0
    config["dtype"] = "float32"
    path.write_text(json.dumps(document))
    assert read_architecture(preset) == CONFIG | {"rope_position_scaling_factor": 2.0}


def test_what_a_file_leaves_out_has_the_constructors_default(preset):
    edit_config(preset, **dict.fromkeys(DEFAULTS, ...))
    assert read_architecture(preset) == CONFIG | {"layer_norm_epsilon": 1e-6}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sliding_window": 4096}, "config.sliding_window"),
        ({"num_layers": 2.0}, "config.num_layers must be a whole number"),
        ({"num_layers": "2"}, "config.num_layers must be a whole number"),
        ({"hidden_dim": True}, "config.hidden_dim must be a whole number"),
        ({"hidden_dim": None}, "config.hidden_dim must be a whole number"),
        ({"vocabulary_size": 0}, "config.vocabulary_size must be"),
        ({"vocabulary_size": -1}, "config.vocabulary_size must be"),
        ({"dropout": 1.0}, "config.dropout must be a number in [0, 1)"),
        ({"rope_max_wavelength": "10000"}, "config.rope_max_wavelength must be"),
        ({"tie_word_embeddings": 1}, "config.tie_word_embeddings must be true or false"),
        ({"rope_low_freq_factor": -1}, "config.rope_low_freq_factor must be"),
        ({"rope_low_freq_factor": 1.0}, "rope_frequency_adjustment_factor"),  # one of four alone
        ({"rope_scaling_factor": 2.0}, "disagree"),
        ({"num_layers": ...}, "no num_layers"),
        ({"num_query_heads": 3}, "num_query_heads=3"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3"),
    ],
)
def test_a_configuration_that_is_not_understood_is_refused(preset, changes, expected):
    edit_config(preset, **changes)
    for function in (read_config, read_architecture, None):
        text = rejected(preset, function)
        assert expected in text and "config.json" in text


HUGE = [
    {"hidden_dim": 10**9},
    {"num_layers": 10**7},
    {"vocabulary_size": 2**31},
    {"intermediate_dim": 10**18},
    {"num_query_heads": 10**6, "hidden_dim": 2 * 10**6},
    {"hidden_dim": 1 << 18, "intermediate_dim": 1 << 20, "num_layers": 1 << 11},
]


@pytest.mark.parametrize("changes", HUGE)
def test_huge_sizes_are_refused_before_anything_is_made(preset, changes):
    edit_config(preset, **changes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with within(2):
        for function in (read_architecture, None):
            assert "no Llama is that large" in rejected(preset, function)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # KiB


def test_the_largest_llama_is_not_huge(preset):
    sizes = dict(vocabulary_size=128256, num_layers=126, num_query_heads=128, hidden_dim=16384)
    sizes |= dict(intermediate_dim=53248, num_key_value_heads=8)  # Llama 3.1 405B
    edit_config(preset, **sizes, **LLAMA_3_1 | {"tie_word_embeddings": False})
    assert read_architecture(preset)["num_layers"] == 126
    assert MAX_PARAMETERS > 10 * 405e9
    assert "tensors do not fit" in rejected(preset) and "tensors are missing" in rejected(preset)


OBJECTS = [
    {"class_name": "Lambda", "config": {"function": "4wAAAAA=", "function_type": "lambda"}},
    {"class_name": "function", "config": "keras.utils.get_file", "registered_name": "get_file"},
    {"class_name": "TFSMLayer", "config": {"filepath": "/tmp/x"}},
    {"class_name": "TorchModuleWrapper", "config": {"module": {"class_name": "__bytes__", "value": "gASV"}}},
    {"module": "os", "class_name": "system", "config": "true"},
]


@pytest.mark.parametrize("nested", OBJECTS)
@pytest.mark.parametrize("key", ["dtype", "rope_low_freq_factor", "hidden_dim", "activation"])
def test_objects_in_a_configuration_are_refused_and_not_looked_up(preset, key, nested):
    edit_config(preset, **{key: nested})
    assert "config.json" in rejected(preset)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"registered_name": "keras_hub>GemmaBackbone", "config": {}}, "not a Llama"),
        ({"registered_name": "Functional", "config": {}}, "not a Llama"),
        ({"registered_name": "os>system", "config": {}}, "not a Llama"),
        ({"registered_name": ["keras_hub>LlamaBackbone"], "config": {}}, "not the configuration of a KerasHub preset"),
        ({"registered_name": "keras_hub>LlamaBackbone", "config": []}, "not the configuration of a KerasHub preset"),
        ({"registered_name": "keras_hub>LlamaBackbone", "config": {}, "enable_unsafe_deserialization": True}, "enable"),
        ({"a": 1}, "not the configuration of a model"),
    ],
)
def test_a_file_that_is_no_llamas_configuration_is_refused(preset, document, expected):
    (preset / "config.json").write_text(json.dumps(document))
    assert expected in rejected(preset) and expected in rejected(preset, read_architecture)


# --- quantized presets -----------------------------------------------------------------------------------------


def policy(mode):
    name = "Int4DTypePolicy" if mode.startswith("int4/") else "QuantizedDTypePolicy"
    return {"module": "keras", "class_name": name, "config": {"mode": mode, "source_name": None}}


def policy_map(modes, default=None):
    return {"class_name": "DTypePolicyMap", "config": {"default_policy": default, "policy_map": modes}}


LAYERS = ("token_embedding", *linear_shapes(CONFIG))
FLOAT = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "bfloat16"}}
INT8 = Quantization("int8", True)


@pytest.mark.parametrize(
    ("dtype", "quantization"),
    [
        (None, None),
        ("mixed_bfloat16", None),
        (FLOAT, None),
        (policy_map({}), None),
        (policy_map({"transformer_layer_0/feedforward_layernorm": FLOAT}, "float32"), None),
        ("int8_from_float32", INT8),
        (policy("int8"), INT8),
        (policy_map(dict.fromkeys(LAYERS, policy("int8"))), INT8),
        (policy_map(dict.fromkeys(LAYERS, "int8_from_bfloat16"), FLOAT), INT8),
        (policy_map({"sequence_output_layernorm": "float32"}, policy("int8")), INT8),
        (policy("int4/128"), Quantization("int4", False, 128)),
        ("int4/64_from_float32", Quantization("int4", False, 64)),
        (policy_map(dict.fromkeys(LAYERS, policy("int4/-1"))), Quantization("int4", False)),
        (policy("int4"), Quantization("int4", False)),
        (
            policy_map({layer: policy("int8") for layer in LAYERS if layer.endswith(("/key", "/query"))}, "int4"),
            Quantization("int4", False, int8_layers=("query", "key")),
        ),
        (
            policy_map(dict.fromkeys(LAYERS, policy("int8")) | dict.fromkeys(LAYERS[7::7], policy("int4/128"))),
            Quantization("int4", False, 128, "int8", int8_layers=LINEAR_NAMES[:-1]),
        ),
    ],
)
def test_dtype_policies_say_how_weights_are_stored(preset, dtype, quantization):
    edit_config(preset, dtype=dtype)
    assert read_config(preset).quantization == quantization


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (policy("gptq/4/128"), "no type of weights"),
        (policy("float8"), "no type of weights"),
        (policy("float8_e4m3fn"), "no type of weights"),
        (policy("int8/128"), "no type of weights"),
        (policy("int4/0"), "no type of weights"),
        ({"class_name": "QuantizedDTypePolicy"}, "no type of weights"),
        ({"class_name": "DTypePolicyMap", "config": {}}, "no type of weights"),
        (policy_map({"token_embedding": 8}), "dtype of token_embedding"),
        (7, "no type of weights"),
        (["int8"], "no type of weights"),
        (policy_map(dict.fromkeys(LAYERS[1:], policy("int8"))), "only some of the layers are quantized"),
        (policy_map(dict.fromkeys(LAYERS, policy("int8")) | {LAYERS[3]: policy("int4/128")}), "only some"),
        (
            policy_map({LAYERS[3]: policy("int8")}, policy("int4/128")),
            "int4 and int8, one of them in transformer_layer_1",
        ),
        (policy_map({LAYERS[3]: policy("int4/64")}, policy("int4/128")), "int4, one of them in"),
        (
            policy_map(dict.fromkeys(LAYERS[3::7], "float32"), policy("int4/128")),
            "floating point and int4, one of them",
        ),
        (policy_map({LAYERS[0]: policy("int4/128")}, policy("int8")), "only some"),
        (policy_map({"transformer_layer_7/feedforward_gate_dense": policy("int8")}), "layers that the model does not"),
    ],
)
def test_other_policies_are_refused(preset, dtype, expected):
    edit_config(preset, dtype=dtype)
    assert expected in rejected(preset, read_config) and "config.json" in rejected(preset)


@pytest.mark.parametrize("quantization", [INT8, Quantization("int4", False, 128), Quantization("int4", False)])
def test_written_policies_are_read(preset, quantization):
    document = config_document(CONFIG, "LlamaBackbone", "float32", quantization)
    (preset / "config.json").write_text(json.dumps(document))
    assert read_config(preset) == (CONFIG, quantization)


# --- writing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asset", "class_name"),
    [("vocabulary.spm", "LlamaBackbone"), ("vocabulary.json", "Llama3Backbone"), (None, "LlamaBackbone")],
)
def test_the_class_for_keras_hub_follows_from_the_tokenizer(tmp_path, asset, class_name):
    assets = tmp_path / "assets" / "tokenizer"
    assets.mkdir(parents=True)
    if asset:
        (assets / asset).write_text("{}")
    keras_hub.write(tmp_path, CONFIG, as_tensors(random_arrays(CONFIG)))
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["class_name"] == class_name and document["registered_name"] == f"keras_hub>{class_name}"


def test_shards_are_named_and_filled_as_keras_does(tmp_path):
    folder = write_preset(tmp_path / "preset", max_shard_bytes=SHARD_BYTES)
    index = json.loads((folder / "model.weights.json").read_text())
    files = sorted(path.name for path in folder.glob("*.h5"))
    assert files == [f"model_{number:05}.weights.h5" for number in range(len(files))] and len(files) > 1
    assert set(index["weight_map"].values()) == set(files)
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in random_arrays(CONFIG).values())
    for group, name in index["weight_map"].items():
        with h5py.File(folder / name) as file:
            assert isinstance(file[group]["0"], h5py.Dataset)


@pytest.mark.parametrize("limit", [0, 100, 3000, 20_000, 60_000])
def test_a_full_disk_is_an_error_of_its_own_and_leaves_the_old_preset(preset, limit, capfd):
    """HDF5 left to itself would try again at every closing, and end the process."""
    before = {path.name: path.read_bytes() for path in preset.iterdir()}
    assert (preset / "model.weights.h5").stat().st_size > 60_000
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        code = 1
        try:
            write_preset(preset, arrays=random_arrays(CONFIG, seed=1))
        except StorageError as error:
            code = 4 if "File too large" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    assert "Exception ignored" not in capfd.readouterr().err
    assert {path.name: path.read_bytes() for path in preset.iterdir()} == before
    assert os.listdir(preset.parent) == ["preset"]
