"""KerasHub's preset folders: both directions against keras_hub itself, and files that must be refused."""

import json
import os
import shutil

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest

from llama_exp.errors import InputError, StorageError
from llama_exp.formats import keras_hub, keras_hub_weights
from llama_exp.formats.keras_hub import check_preset, load_backbone, load_weights, save_preset
from llama_exp.formats.keras_hub_config import read_config
from llama_exp.models import LlamaBackbone

pytestmark = pytest.mark.neutral

TINY = dict(
    vocabulary_size=48, num_layers=2, num_query_heads=4, hidden_dim=32, intermediate_dim=40, num_key_value_heads=2
)
LLAMA_3_1 = dict(
    rope_max_wavelength=500000,
    rope_frequency_adjustment_factor=8.0,
    rope_low_freq_factor=1.0,
    rope_high_freq_factor=4.0,
    rope_pretraining_sequence_length=16,
    layer_norm_epsilon=1e-5,
)
QUERY = "layers/llama_transformer_decoder/_self_attention_layer/_query_dense/vars/0"
TOLERANCE = 1e-5


def backbone(**changes):
    model = LlamaBackbone(**(TINY | changes))
    rng = np.random.default_rng(0)
    for variable in model.variables:  # norms would be ones otherwise, and a lost one would go unnoticed
        variable.assign(rng.normal(0, 0.2, variable.shape))
    return model


def inputs():
    rng = np.random.default_rng(1)
    mask = np.ones((2, 9), "int32")
    mask[1, 6:] = 0
    return {"token_ids": rng.integers(0, TINY["vocabulary_size"], (2, 9)).astype("int32"), "padding_mask": mask}


def outputs(model):
    return keras.ops.convert_to_numpy(model(inputs())).astype("float32")[inputs()["padding_mask"] == 1]


def weights(model):
    return {v.path: np.asarray(keras.ops.convert_to_numpy(v.value)) for v in model.variables}


def assert_same_weights(model, other):
    ours, theirs = weights(model), weights(other)
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        np.testing.assert_array_equal(value, theirs[path], err_msg=path)


@pytest.fixture
def preset(tmp_path):
    save_preset(backbone(), tmp_path / "preset")
    return tmp_path / "preset"


def edit_config(folder, **changes):
    path = folder / "config.json"
    document = json.loads(path.read_text())
    for key, value in changes.items():
        if value is ...:
            del document["config"][key]
        else:
            document["config"][key] = value
    path.write_text(json.dumps(document))


def rejected(function, *args, **kwargs):
    with pytest.raises(InputError) as raised:
        function(*args, **kwargs)
    return str(raised.value)


# --- round trips -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("max_shard_gib", [None, 2e-5])
def test_our_own_round_trip(tmp_path, tied, max_shard_gib):
    model = backbone(tie_word_embeddings=tied, **LLAMA_3_1)
    save_preset(model, tmp_path / "preset", max_shard_gib=max_shard_gib)
    shards = list((tmp_path / "preset").glob("model_*.weights.h5"))
    assert (len(shards) > 1) == (max_shard_gib is not None)
    loaded = load_backbone(LlamaBackbone, tmp_path / "preset")
    assert_same_weights(model, loaded)
    config, loaded_config = model.get_config(), loaded.get_config()
    del config["name"], loaded_config["name"]
    assert config == loaded_config


@pytest.mark.parametrize("num_layers", [2, 12])  # group names sort differently from ten on
@pytest.mark.parametrize("class_name", ["LlamaBackbone", "Llama3Backbone"])
@pytest.mark.parametrize("tied", [False, True])
def test_keras_hub_presets_load_with_equal_outputs(tmp_path, num_layers, class_name, tied):
    keras_hub = pytest.importorskip("keras_hub")
    arguments = TINY | {"num_layers": num_layers, "tie_word_embeddings": tied} | LLAMA_3_1
    theirs = getattr(keras_hub.models, class_name)(**arguments)
    rng = np.random.default_rng(2)
    theirs.set_weights([rng.normal(0, 0.2, weight.shape) for weight in theirs.weights])
    theirs.save_to_preset(tmp_path / "preset", max_shard_size=None if tied else 5e-5)
    assert (tmp_path / "preset" / "model.weights.json").exists() != tied
    ours = load_backbone(LlamaBackbone, tmp_path / "preset")
    assert ours.tie_word_embeddings == tied  # their config.json does not say
    assert ours.count_params() == theirs.count_params()
    np.testing.assert_allclose(outputs(ours), outputs(theirs), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("max_shard_gib", [None, 2e-5])
def test_keras_hub_loads_our_presets_with_equal_outputs(tmp_path, tied, max_shard_gib):
    keras_hub = pytest.importorskip("keras_hub")
    ours = backbone(tie_word_embeddings=tied, num_layers=11, **LLAMA_3_1)
    save_preset(ours, tmp_path / "preset", max_shard_gib=max_shard_gib)
    theirs = keras_hub.models.Backbone.from_preset(str(tmp_path / "preset"))
    assert theirs.count_params() == ours.count_params()
    np.testing.assert_allclose(outputs(ours), outputs(theirs), rtol=0, atol=TOLERANCE)


def test_bfloat16_is_stored_as_keras_stores_it(tmp_path):
    keras_hub = pytest.importorskip("keras_hub")
    ours = backbone(dtype="bfloat16")
    save_preset(ours, tmp_path / "ours")
    with h5py.File(tmp_path / "ours" / "model.weights.h5") as file:
        assert file[QUERY].dtype == np.dtype("V2") and file[QUERY].attrs["dtype"] == "bfloat16"
    theirs = keras_hub.models.Backbone.from_preset(str(tmp_path / "ours"), dtype="bfloat16")
    theirs.save_to_preset(tmp_path / "theirs")
    assert_same_weights(ours, load_backbone(LlamaBackbone, tmp_path / "theirs", dtype="bfloat16"))
    wide = load_backbone(LlamaBackbone, tmp_path / "theirs", dtype="float32")
    for path, value in weights(wide).items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, weights(ours)[path].astype("float32"), err_msg=path)


def test_a_narrower_type_rounds_and_an_overflow_is_refused(tmp_path):
    model = backbone()
    save_preset(model, tmp_path / "preset")
    half = load_backbone(LlamaBackbone, tmp_path / "preset", dtype="bfloat16")
    for path, value in weights(half).items():
        np.testing.assert_array_equal(value, weights(model)[path].astype(ml_dtypes.bfloat16), err_msg=path)
    model.variables[0].assign(np.full(model.variables[0].shape, 1e6))
    save_preset(model, tmp_path / "preset")
    assert "not finite" in rejected(load_backbone, LlamaBackbone, tmp_path / "preset", dtype="float16")


def test_without_weights_only_the_shape_is_taken(preset):
    (preset / "model.weights.h5").unlink()
    model = load_backbone(LlamaBackbone, preset, load_weights=False)
    assert model.num_layers == TINY["num_layers"]
    assert "neither model.weights.h5 nor" in rejected(load_backbone, LlamaBackbone, preset)


def test_llama_3_2_presets_store_the_tied_matrix_twice(tmp_path):
    model = backbone(tie_word_embeddings=False)
    embedding = model.token_embedding
    embedding.reverse_embeddings.assign(keras.ops.transpose(embedding.embeddings))
    save_preset(model, tmp_path / "preset")
    edit_config(tmp_path / "preset", tie_word_embeddings=...)
    assert not load_backbone(LlamaBackbone, tmp_path / "preset").tie_word_embeddings
    tied = load_backbone(LlamaBackbone, tmp_path / "preset", tie_word_embeddings=True)
    np.testing.assert_array_equal(
        weights(tied)["token_embedding/embeddings"], weights(model)["token_embedding/embeddings"]
    )
    np.testing.assert_allclose(outputs(tied), outputs(model), rtol=0, atol=TOLERANCE)
    model.token_embedding.reverse_embeddings.assign(np.zeros((32, 48)))
    save_preset(model, tmp_path / "preset")
    edit_config(tmp_path / "preset", tie_word_embeddings=...)
    text = rejected(load_backbone, LlamaBackbone, tmp_path / "preset", tie_word_embeddings=True)
    assert "cannot be tied" in text


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
    assert load_backbone(LlamaBackbone, preset).rope_position_scaling_factor == 2.0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sliding_window": 4096}, "config.sliding_window"),
        ({"num_layers": 2.0}, "config.num_layers must be a whole number"),
        ({"hidden_dim": True}, "config.hidden_dim must be a whole number"),
        ({"vocabulary_size": 0}, "config.vocabulary_size must be"),
        ({"dropout": 1.0}, "config.dropout must be a number in [0, 1)"),
        ({"rope_max_wavelength": "10000"}, "config.rope_max_wavelength must be"),
        ({"tie_word_embeddings": 1}, "config.tie_word_embeddings must be true or false"),
        ({"rope_low_freq_factor": -1}, "config.rope_low_freq_factor must be"),
        ({"rope_scaling_factor": 2.0}, "disagree"),
        ({"num_layers": ...}, "no num_layers"),
        ({"dtype": {"class_name": "DTypePolicyMap", "config": {}}}, "quantized presets are not supported yet"),
        ({"dtype": {"class_name": "QuantizedDTypePolicy"}}, "quantized presets are not supported yet"),
        ({"dtype": "int8_from_float32"}, "quantized presets are not supported yet"),
    ],
)
def test_a_configuration_that_is_not_understood_is_refused(preset, changes, expected):
    edit_config(preset, **changes)
    text = rejected(read_config, preset)
    assert expected in text and "config.json" in text


def test_impossible_sizes_are_an_input_error_too(preset):
    edit_config(preset, num_query_heads=3)
    assert "num_query_heads=3" in rejected(load_backbone, LlamaBackbone, preset, load_weights=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not valid JSON"),
        ("[]", "does not hold a JSON object"),
        ('{"config": NaN}', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"model_type": "llama"}', "Hugging Face checkpoints are not supported yet"),
        ('{"registered_name": "os>system", "config": {}}', "not a Llama"),
        ('{"a": 1}', "not the configuration of a KerasHub preset"),
        (" " * (1 << 20) + "{}", "too large"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text, expected):
    (tmp_path / "config.json").write_text(text)
    assert expected in rejected(read_config, tmp_path)


def test_a_missing_configuration_names_the_file(tmp_path):
    assert str(tmp_path / "config.json") in rejected(read_config, tmp_path)


def test_every_differing_shape_is_listed(preset):
    stated = dict(TINY, num_layers=3, hidden_dim=64, rope_max_wavelength=500000.0, dropout=0.1)
    with pytest.raises(InputError) as raised:
        load_backbone(LlamaBackbone, preset, **stated)
    assert [problem.where for problem in raised.value.problems] == ["model.num_layers", "model.hidden_dim"]
    assert "3 (preset: 2)" in str(raised.value) and "64 (preset: 32)" in str(raised.value)
    assert "model.num_layers" in rejected(load_weights, LlamaBackbone(**dict(TINY, num_layers=3)), preset)
    assert "model.num_layers" in rejected(check_preset, preset, stated | {"tie_word_embeddings": False})


def test_other_hyperparameters_are_the_callers_and_are_named(preset, caplog):
    model = load_backbone(LlamaBackbone, preset, layer_norm_epsilon=1e-5, dropout=0.1)
    assert (model.layer_norm_epsilon, model.dropout) == (1e-5, 0.1)
    assert "model.layer_norm_epsilon=1e-05 holds" in caplog.text and "1e-06" in caplog.text
    assert "dropout" not in caplog.text


# --- weight files ----------------------------------------------------------------------------------------------


def replace(file, path, **dataset):
    attributes = dict(file[path].attrs) if path in file else {}
    if path in file:
        del file[path]
    file.create_dataset(path, **dataset).attrs.update(attributes)


def make_virtual(file):
    source = h5py.VirtualSource("other.h5", "x", shape=(32, 4, 8))
    target = h5py.VirtualLayout(shape=(32, 4, 8), dtype="f4")
    target[:] = source
    del file[QUERY]
    file.create_virtual_dataset(QUERY, target)


def make_external(file):
    del file[QUERY]
    file.create_dataset(QUERY, shape=(32, 4, 8), dtype="f4", external=[("/etc/passwd", 0, 4096)])


def make_link(link):
    def change(file):
        del file[QUERY]
        file[QUERY] = link

    return change


def make_cycle(file):
    file["layers/again"] = file["layers"]


def make_missing(file):
    del file[QUERY]


SHAPE = (32, 4, 8)
BROKEN_TENSORS = {
    "missing": (make_missing, f"{QUERY} (transformer_layer_0/self_attention/query/kernel)"),
    "unexpected": (lambda f: f.create_dataset("layers/extra/vars/0", data=[1.0]), "layers/extra/vars/0"),
    "shape": (lambda f: replace(f, QUERY, shape=(32, 8, 4), dtype="f4"), "shape (32, 8, 4) instead of (32, 4, 8)"),
    "huge": (lambda f: replace(f, QUERY, shape=(10**6, 10**6), dtype="f4", chunks=(64, 64)), "instead of (32, 4, 8)"),
    "int8": (lambda f: replace(f, QUERY, data=np.ones(SHAPE, "i1")), "quantized presets are not supported yet"),
    "text": (lambda f: replace(f, QUERY, shape=SHAPE, dtype="S4"), "instead of a float type"),
    "two bytes": (lambda f: replace(f, QUERY, data=np.zeros(SHAPE, "V2")), "instead of a float type"),
    "virtual": (make_virtual, "values lie in another file"),
    "external": (make_external, "values lie in another file"),
    "external link": (make_link(h5py.ExternalLink("other.h5", "x")), "ExternalLink"),
    "soft link": (make_link(h5py.SoftLink("/layers/reversible_embedding/vars/0")), "SoftLink"),
    "cycle": (make_cycle, "not laid out like weights"),
    "no values": (lambda f: replace(f, QUERY, shape=SHAPE, dtype="f4"), "does not hold all of its values"),
    "no chunks": (lambda f: replace(f, QUERY, shape=SHAPE, dtype="f4", chunks=(8, 4, 8)), "does not hold all"),
    "not finite": (lambda f: replace(f, QUERY, data=np.full(SHAPE, np.nan, "f4")), "not finite"),
}


@pytest.mark.parametrize("name", BROKEN_TENSORS)
def test_a_broken_tensor_is_refused_by_name(preset, name):
    change, expected = BROKEN_TENSORS[name]
    with h5py.File(preset / "model.weights.h5", "a") as file:
        change(file)
    text = rejected(load_backbone, LlamaBackbone, preset)
    assert expected in text
    assert str(preset) in text


def test_nothing_is_loaded_when_one_tensor_is_wrong(preset):
    with h5py.File(preset / "model.weights.h5", "a") as file:
        make_missing(file)
    model = LlamaBackbone(**TINY)
    before = weights(model)
    rejected(load_weights, model, preset)
    for path, value in weights(model).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)


def test_compressed_tensors_of_any_float_type_load(preset):
    model = backbone()
    with h5py.File(preset / "model.weights.h5", "a") as file:
        value = file[QUERY][()]
        replace(file, QUERY, data=value.astype(">f8"), chunks=(8, 4, 8), compression="gzip", shuffle=True)
    assert_same_weights(model, load_backbone(LlamaBackbone, preset))


@pytest.mark.parametrize("keep", [0, 1, 100, 2000, 0.5, -1])
def test_a_truncated_file_is_refused(preset, keep):
    path = preset / "model.weights.h5"
    size = path.stat().st_size
    os.truncate(path, int(size * keep) if isinstance(keep, float) else (keep if keep >= 0 else size + keep))
    assert str(preset) in rejected(load_backbone, LlamaBackbone, preset)


def test_flipped_bytes_never_escape_as_other_errors(preset):
    path = preset / "model.weights.h5"
    original = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    config = keras_hub._complete_config(preset, {})
    for _ in range(150):  # headers lie in the first pages
        data = bytearray(original)
        for position in rng.integers(0, 16384, 4):
            data[position] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
        try:
            keras_hub_weights.check_weights(preset, config)
        except InputError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    "name", ["../model.weights.h5", "/etc/x.weights.h5", "a/b.weights.h5", "model.h5", 3, ".weights.h5"]
)
def test_a_shard_outside_of_the_folder_is_refused(preset, name):
    (preset / "model.weights.h5").rename(preset.parent / "model.weights.h5")
    (preset / "model.weights.json").write_text(json.dumps({"weight_map": {"/a": [name]}}))
    text = rejected(load_backbone, LlamaBackbone, preset)
    assert "shard's name" in text and repr(name) in text


def test_a_missing_or_repeated_shard_is_named(tmp_path):
    save_preset(backbone(), tmp_path / "preset", max_shard_gib=2e-5)
    index = tmp_path / "preset" / "model.weights.json"
    shutil.copy(tmp_path / "preset" / "model_00001.weights.h5", tmp_path / "preset" / "copy.weights.h5")
    document = json.loads(index.read_text())
    document["weight_map"]["/again"] = "copy.weights.h5"
    index.write_text(json.dumps(document))
    assert "in two files" in rejected(load_backbone, LlamaBackbone, tmp_path / "preset")
    (tmp_path / "preset" / "model_00001.weights.h5").unlink()
    assert "model_00001.weights.h5" in rejected(load_backbone, LlamaBackbone, tmp_path / "preset")


# --- saving ----------------------------------------------------------------------------------------------------


def test_a_preset_is_replaced_and_nothing_else_remains(preset):
    model = backbone(tie_word_embeddings=True)
    save_preset(model, preset, max_shard_gib=2e-5)
    assert_same_weights(model, load_backbone(LlamaBackbone, preset))
    assert [path.name for path in preset.parent.iterdir()] == ["preset"]
    assert not (preset / "model.weights.h5").exists()


@pytest.mark.parametrize(
    ("assets", "class_name"),
    [("vocabulary.spm", "LlamaBackbone"), ("vocabulary.json", "Llama3Backbone"), (None, "LlamaBackbone")],
)
def test_the_class_for_keras_hub_follows_from_the_tokenizer(tmp_path, assets, class_name):
    class Tokenizer:
        def save(self, folder):
            if assets:
                (folder / "assets" / "tokenizer").mkdir(parents=True)
                (folder / "assets" / "tokenizer" / assets).write_text("{}")
            (folder / "tokenizer.json").write_text("x" * (2 << 20))  # those of Hugging Face have many megabytes
            (folder / "tokenizer_config.json").write_text("{}")

    for _ in range(2):  # the second time it replaces what it wrote the first time
        save_preset(backbone(), tmp_path / "preset", Tokenizer())
    document = json.loads((tmp_path / "preset" / "config.json").read_text())
    assert document["class_name"] == class_name
    assert document["registered_name"] == f"keras_hub>{class_name}"


def test_a_folder_with_other_things_is_not_replaced(preset):
    (preset / "thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match=r"thesis\.tex"):
        save_preset(backbone(), preset)
    assert (preset / "thesis.tex").read_text() == "years of work"
    with pytest.raises(StorageError, match="config.json"):
        save_preset(backbone(), preset / "config.json")


def test_a_failed_save_leaves_the_old_preset(preset, monkeypatch):
    before = {path.name: path.read_bytes() for path in preset.iterdir()}

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras_hub, "_metadata", fail)
    with pytest.raises(StorageError, match="No space left"):
        save_preset(backbone(), preset)
    assert {path.name: path.read_bytes() for path in preset.iterdir()} == before
    assert [path.name for path in preset.parent.iterdir()] == ["preset"]


def test_a_failed_rename_brings_the_old_preset_back(preset, monkeypatch):
    rename = type(preset).rename
    before = {path.name: path.read_bytes() for path in preset.iterdir()}

    def fail(self, target):
        if ".tmp-" in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(type(preset), "rename", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        save_preset(backbone(), preset)
    assert {path.name: path.read_bytes() for path in preset.iterdir()} == before


def test_an_unwritable_place_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        save_preset(backbone(), tmp_path / "file" / "preset")


def test_unmerged_adapters_are_not_lost_silently(tmp_path):
    model = backbone()
    next(iter(model.linear_layers().values())).attach(keras.layers.Identity())
    with pytest.raises(ValueError, match="unmerged adapters"):
        save_preset(model, tmp_path / "preset")
    assert not (tmp_path / "preset").exists()
