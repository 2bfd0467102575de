"""Models filled from files: every value arrives once, nothing is drawn first, and every format goes the same way."""

import logging

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import ops
from tiny_configs import TINY_CONFIGS, as_tensors, random_arrays

from llama_exp.architecture import draws
from llama_exp.errors import InputError, StorageError
from llama_exp.formats import open_checkpoint, writing
from llama_exp.formats.keras_hub import checkpoint as keras_hub
from llama_exp.models import Backbone, LlamaBackbone, LlamaCausalLM, weights

pytestmark = pytest.mark.neutral

CONFIG = TINY_CONFIGS["grouped_query"]
IDS = {"token_ids": np.random.default_rng(0).integers(0, 48, (2, 7)).astype("int32")}


def arrays_of(model):
    return {v.path: np.asarray(ops.convert_to_numpy(v.value)) for v in model.weights}


def assert_equal(ours, expected):
    assert ours.keys() == expected.keys()
    for path, value in ours.items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


def write_preset(folder, config=CONFIG, dtype=np.float32):
    arrays = random_arrays(config, dtype)
    with writing(folder) as draft:
        keras_hub.write(draft, config, as_tensors(arrays))
    return arrays


@pytest.fixture
def preset(tmp_path):
    write_preset(tmp_path / "preset")
    return tmp_path / "preset"


# --- loading


@pytest.mark.parametrize("name", ["grouped_query", "llama_3_2", "twelve_layers", "large_epsilon", "linear_scaling"])
def test_a_loaded_model_is_the_one_that_was_written(tmp_path, name):
    arrays = write_preset(tmp_path / "preset", TINY_CONFIGS[name])
    model = LlamaBackbone.from_preset(tmp_path / "preset")
    assert_equal(arrays_of(model), arrays)
    config = model.get_config()
    assert {key: config[key] for key in TINY_CONFIGS[name]} == TINY_CONFIGS[name]
    other = LlamaBackbone(**TINY_CONFIGS[name])
    for variable in other.weights:
        variable.assign(arrays[variable.path])
    expected = ops.convert_to_numpy(other(IDS))
    np.testing.assert_array_equal(ops.convert_to_numpy(model(IDS)), expected)


@pytest.mark.parametrize("stored", ["float32", "float16", ml_dtypes.bfloat16])
@pytest.mark.parametrize("policy", ["float32", "bfloat16", "mixed_bfloat16"])
def test_variables_have_the_types_of_the_policy(tmp_path, stored, policy):
    arrays = write_preset(tmp_path / "preset", dtype=stored)
    model = LlamaBackbone.from_preset(tmp_path / "preset", dtype=policy)
    wanted = ml_dtypes.bfloat16 if policy == "bfloat16" else np.float32
    loaded = arrays_of(model)
    assert {value.dtype for value in loaded.values()} == {np.dtype(wanted)}
    assert_equal(loaded, {path: array.astype(wanted) for path, array in arrays.items()})


def test_nothing_is_drawn_that_is_overwritten(preset, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("random weights")

    monkeypatch.setattr(draws, "_generator", refuse)
    LlamaBackbone.from_preset(preset)
    with pytest.raises(AssertionError, match="random weights"):
        LlamaBackbone.from_preset(preset, load_weights=False)


def test_on_a_cpu_a_variable_is_the_memory_that_was_read(preset):
    read = {}
    with open_checkpoint(preset) as checkpoint:
        model = weights.build_empty(lambda: LlamaBackbone(**CONFIG))
        for variable in model.weights:
            array = checkpoint.tensors[variable.path].read(np.dtype("float32"))
            read[variable.path] = array.ctypes.data
            weights._adopt(variable, array)
    where = {}
    for variable in model.weights:
        value = variable.value
        if keras.backend.backend() == "jax":
            where[variable.path] = value.unsafe_buffer_pointer()
        else:
            where[variable.path] = np.from_dlpack(value.value()).ctypes.data
    assert where == read


def test_a_loaded_model_trains_like_any_other(preset):
    models = [LlamaBackbone.from_preset(preset, dropout=0.5), LlamaBackbone(**CONFIG | {"dropout": 0.5})]
    for variable, other in zip(models[0].weights, models[1].weights, strict=True):
        other.assign(variable.value)
    for model in models:
        model.seed_generator.state.assign([1, 2])
        assert len(model.trainable_variables) == len(model.weights)
    outputs = [ops.convert_to_numpy(model(IDS, training=True)) for model in models]
    np.testing.assert_array_equal(*outputs)
    for model in models:
        for variable in model.weights:
            variable.assign_add(ops.ones(variable.shape))
    assert_equal(*map(arrays_of, models))
    assert_equal(arrays_of(LlamaBackbone.from_preset(preset)), random_arrays(CONFIG))  # the file is as it was


def test_seeds_of_dropout_are_drawn_and_reproducible(preset):
    states = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        model = LlamaBackbone.from_preset(preset, dropout=0.5)
        states.append(ops.convert_to_numpy(model.seed_generator.state.value).tolist())
        model(IDS, training=True)
    assert states[0] == states[1] != states[2]


def test_layers_made_later_have_values_again(preset):
    LlamaBackbone.from_preset(preset)
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    assert ops.convert_to_numpy(layer.kernel).shape == (3, 2)
    with keras.StatelessScope():
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
    assert ops.convert_to_numpy(layer.kernel).shape == (3, 2)  # Keras fills what is pending, and nothing of ours is


def test_the_callers_values_win_where_the_format_is_doubtful(preset, caplog):
    with caplog.at_level(logging.WARNING):
        model = LlamaBackbone.from_preset(preset, layer_norm_epsilon=1e-4, dropout=0.1, rope_scaling_factor=2.0)
    assert (model.layer_norm_epsilon, model.dropout, model.rope_position_scaling_factor) == (1e-4, 0.1, 2.0)
    assert "model.layer_norm_epsilon=0.0001 holds" in caplog.text


@pytest.mark.parametrize("load_weights", [True, False])
def test_another_shape_is_an_error(preset, load_weights):
    with pytest.raises(InputError, match="model: .*another architecture") as raised:
        Backbone.from_preset(preset, load_weights, num_layers=3, hidden_dim=64)
    (problem,) = raised.value.problems
    assert problem.found == "num_layers=3 (preset: 2), hidden_dim=64 (preset: 32)"


def test_without_weights_only_the_architecture_is_taken(preset):
    (preset / "model.weights.h5").unlink()
    model = LlamaBackbone.from_preset(preset, load_weights=False, name="mine", rope_max_wavelength=5.0)
    assert (model.name, model.num_layers, model.rope_max_wavelength) == ("mine", 2, 5.0)
    assert not any(np.isnan(array).any() for array in arrays_of(model).values())
    with pytest.raises(InputError, match="neither model.weights.h5 nor"):
        LlamaBackbone.from_preset(preset)


def test_a_model_larger_than_the_memory_is_not_begun(preset):
    path = preset / "config.json"
    path.write_text(path.read_text().replace('"intermediate_dim": 40', '"intermediate_dim": 1000000000'))
    with pytest.raises(InputError, match="no Llama is that large"):
        LlamaBackbone.from_preset(preset, load_weights=False)
    path.write_text(path.read_text().replace("1000000000", "1000000").replace('"num_layers": 2', '"num_layers": 1000'))
    path.write_text(path.read_text().replace('"hidden_dim": 32', '"hidden_dim": 1024'))
    with pytest.raises(InputError, match="does not fit into memory.*\n.*GiB as float32"):
        LlamaBackbone.from_preset(preset, load_weights=False, dtype="mixed_bfloat16")


def test_a_tied_model_takes_a_matrix_that_is_stored_twice(tmp_path):
    arrays = random_arrays(CONFIG)
    arrays["token_embedding/reverse_embeddings"] = arrays["token_embedding/embeddings"].T.copy()
    with writing(tmp_path / "preset") as draft:
        keras_hub.write(draft, CONFIG, as_tensors(arrays))
    untied = LlamaCausalLM.from_preset(tmp_path / "preset")
    tied = LlamaCausalLM.from_preset(tmp_path / "preset", tie_word_embeddings=True)
    assert len(tied.weights) == len(untied.weights) - 1
    outputs = [ops.convert_to_numpy(model(IDS)) for model in (tied, untied)]
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-5)


def test_a_damaged_tensor_stops_the_load(tmp_path):
    arrays = random_arrays(CONFIG)
    arrays["transformer_layer_1/feedforward_output_dense/kernel"][3, 3] = np.nan
    with writing(tmp_path / "preset") as draft:
        keras_hub.write(draft, CONFIG, as_tensors(arrays))
    with pytest.raises(InputError, match="_feedforward_output_dense/vars/0: the tensor is not finite"):
        LlamaBackbone.from_preset(tmp_path / "preset")
    LlamaBackbone(**CONFIG)(IDS)  # and leaves nothing behind that hurts the next model


def test_fill_needs_exactly_the_tensors_of_the_model(preset):
    with open_checkpoint(preset) as checkpoint:
        model = weights.build_empty(lambda: LlamaBackbone(**CONFIG | {"num_layers": 1}))
        with pytest.raises(ValueError, match="transformer_layer_1"):
            weights.fill(model, checkpoint)


# --- saving


@pytest.mark.parametrize("max_shard_size", [None, 2e-5])
def test_our_own_round_trip(tmp_path, max_shard_size):
    model = LlamaBackbone(**TINY_CONFIGS["llama_3_2"], dtype="bfloat16")
    model.save_to_preset(tmp_path / "preset", max_shard_size)
    assert len(list((tmp_path / "preset").glob("*.weights.h5"))) == (1 if max_shard_size is None else 7)
    loaded = LlamaBackbone.from_preset(tmp_path / "preset", dtype="bfloat16")
    assert_equal(arrays_of(loaded), arrays_of(model))
    config, other = model.get_config(), loaded.get_config()
    assert config | {"name": ""} == other | {"name": ""}


def test_tensors_of_a_model_are_its_variables():
    model = LlamaBackbone(**CONFIG | {"dropout": 0.1})  # whose seed is no weight
    tensors = weights.tensors_of(model)
    for path, value in arrays_of(model).items():
        assert tensors[path].shape == value.shape and tensors[path].dtype == value.dtype
        np.testing.assert_array_equal(tensors[path].read(None), value)
        assert tensors[path].read(np.dtype("float16")).dtype == np.float16
    assert len(tensors) == len(model.weights)


def test_a_tokenizer_travels_with_the_model(tmp_path):
    class Tokenizer:
        def save(self, folder):
            (folder / "tokenizer.json").write_text("x" * (2 << 20))  # those of Hugging Face have many megabytes

    model = LlamaBackbone(**CONFIG)
    for _ in range(2):  # the second time it replaces what it wrote the first time
        LlamaCausalLM(model, Tokenizer()).save_to_preset(tmp_path / "preset")
    assert (tmp_path / "preset" / "tokenizer.json").stat().st_size == 2 << 20
    assert LlamaCausalLM.from_preset(saved_without(tmp_path, model)).tokenizer is None


def saved_without(tmp_path, model):
    model.save_to_preset(tmp_path / "plain")
    return tmp_path / "plain"


def test_a_folder_with_other_things_is_not_replaced(preset):
    (preset / "thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match=r"thesis\.tex"):
        LlamaBackbone(**CONFIG).save_to_preset(preset)
    assert (preset / "thesis.tex").read_text() == "years of work"


def test_unmerged_adapters_are_not_lost_silently(tmp_path):
    model = LlamaBackbone(**CONFIG)
    next(iter(model.linear_layers().values())).attach(keras.layers.Identity())
    with pytest.raises(ValueError, match="unmerged adapters"):
        model.save_to_preset(tmp_path / "preset")
    assert not (tmp_path / "preset").exists()
