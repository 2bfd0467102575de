"""Models written as GGUF: what other readers and our own find in the file."""

import contextlib
import hashlib
from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType, LlamaFileType
from gguf_writer import llama_tensors
from oracles import numpy_frequencies
from tiny_configs import LLAMA_3_1, TINY_CONFIGS, random_arrays, stored_dtype

from llama_exp.architecture import ROPE_ADJUSTMENT, variable_shapes
from llama_exp.errors import InputError
from llama_exp.formats import open_checkpoint
from llama_exp.formats.checkpoint import Checkpoint, Tensor
from llama_exp.formats.gguf import export
from llama_exp.formats.gguf.encoding import BLOCK_NAMES

NUMPY_TYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def checkpoint_of(config, arrays):
    def tensor(path, array):
        def read(dtype):
            return array.astype(dtype or array.dtype)

        return Tensor(array.shape, array.dtype, path, read)

    tensors = {path: tensor(path, array) for path, array in arrays.items()}
    return Checkpoint(Path("made up"), "keras_hub", config, tensors)


def written(tmp_path, config, arrays, type_=None):
    """The path of a file, and what was planned for it."""
    checkpoint = checkpoint_of(config, arrays)
    plan = export.plan(checkpoint, type_, 128, "tiny")
    path, hasher = tmp_path / "m.gguf", hashlib.sha256()
    size = export.write(path, checkpoint, plan, {}, hasher)
    assert size == path.stat().st_size and hasher.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
    return path, plan


@contextlib.contextmanager
def tensors_of(path):
    """gguf-py's view of the file."""
    reader = gguf.GGUFReader(path)
    yield reader, {tensor.name: tensor for tensor in reader.tensors}


@pytest.mark.parametrize("name", TINY_CONFIGS)
@pytest.mark.parametrize("step", [100, 2**18])
def test_other_readers_find_the_weights(name, step, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_BLOCK_VALUES", step)
    config, dtype = TINY_CONFIGS[name], stored_dtype(name)
    arrays = random_arrays(config, dtype)
    path, _ = written(tmp_path, config, arrays)
    expected = llama_tensors(config, arrays)  # puts the rows of query and key in pairs one by one
    with tensors_of(path) as (_, tensors):
        assert tensors.keys() - {"rope_freqs.weight"} == expected.keys()
        for key, array in expected.items():
            assert NUMPY_TYPES[tensors[key].tensor_type.name] == array.dtype
            assert bytes(tensors[key].data.view(np.uint8)) == array.tobytes(), key


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_our_reader_finds_the_same_model(name, tmp_path):
    config, dtype = TINY_CONFIGS[name], stored_dtype(name)
    arrays = random_arrays(config, dtype)
    path, _ = written(tmp_path, config, arrays)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.config == config and checkpoint.context_length == 128
        for key, array in arrays.items():
            np.testing.assert_array_equal(checkpoint.tensors[key].read(None), array.astype(np.float32), err_msg=key)


def test_metadata_is_what_llama_cpp_asks_for(tmp_path):
    config = TINY_CONFIGS["linear_scaling"]
    path, _ = written(tmp_path, config, random_arrays(config, np.float32))
    with tensors_of(path) as (reader, _):
        found = {key: field.contents() for key, field in reader.fields.items()}
        types = {key: field.types[0].name for key, field in reader.fields.items()}
    assert found["general.architecture"] == "llama" and found["general.file_type"] == LlamaFileType.ALL_F32
    assert found["llama.rope.scaling.type"] == "linear" and found["llama.rope.scaling.factor"] == 4
    assert found["llama.rope.dimension_count"] == 8 and found["llama.attention.head_count_kv"] == 2
    whole = ("vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length")
    assert {types[f"llama.{key}"] for key in whole} == {"UINT32"}
    assert types["llama.attention.layer_norm_rms_epsilon"] == types["llama.rope.freq_base"] == "FLOAT32"


def test_divisors_of_llama_3_1(tmp_path):
    """rope_freqs.weight divides the frequencies as the reference formula does."""
    config = TINY_CONFIGS["llama_3_1"]
    path, _ = written(tmp_path, config, random_arrays(config, np.float32))
    plain = config | dict.fromkeys(LLAMA_3_1.keys() - {"rope_max_wavelength", "layer_norm_epsilon"})
    with tensors_of(path) as (_, tensors):
        found = tensors["rope_freqs.weight"].data
    np.testing.assert_allclose(found, numpy_frequencies(plain) / numpy_frequencies(config), rtol=1e-6)


@pytest.mark.parametrize("type_", BLOCK_NAMES)
@pytest.mark.parametrize("tied", [False, True])
def test_blocks(type_, tied, tmp_path):
    config = TINY_CONFIGS["llama_3_2" if tied else "llama_3_1"] | {"intermediate_dim": 96}
    arrays = random_arrays(config, np.float32)
    path, plan = written(tmp_path, config, arrays, type_)
    assert not plan.fallbacks
    last = "token_embd.weight" if tied else "output.weight"
    expected = llama_tensors(config, arrays)
    with tensors_of(path) as (reader, tensors), open_checkpoint(path) as checkpoint:
        assert reader.fields["general.file_type"].contents() == LlamaFileType[f"MOSTLY_{type_}"]
        for key, array in expected.items():
            name = "F32" if array.ndim == 1 else "Q8_0" if key == last else type_
            kind = GGMLQuantizationType[name]
            assert tensors[key].tensor_type == kind
            assert bytes(tensors[key].data.view(np.uint8)) == gguf.quants.quantize(array, kind).tobytes()
        for key, array in arrays.items():
            span = np.abs(array).max()
            error = np.abs(checkpoint.tensors[key].read(None) - array).max()
            assert error <= span / (100 if type_ == "Q8_0" else 6), key


def test_rows_that_are_no_whole_blocks_are_float16(tmp_path):
    config = TINY_CONFIGS["grouped_query"]  # 32 wide, 40 in the feed-forward
    path, plan = written(tmp_path, config, random_arrays(config, np.float32), "Q4_0")
    assert plan.fallbacks == [f"transformer_layer_{i}/feedforward_output_dense/kernel" for i in range(2)]
    with tensors_of(path) as (_, tensors):
        types = {name: tensor.tensor_type.name for name, tensor in tensors.items()}
    assert types["blk.0.ffn_down.weight"] == "F16" and types["blk.0.ffn_up.weight"] == "Q4_0"


@pytest.mark.parametrize("type_", ["F16", "Q8_0"])
def test_a_weight_that_is_too_large_is_named(type_, tmp_path):
    config = TINY_CONFIGS["grouped_query"]
    arrays = random_arrays(config, np.float32)
    arrays["transformer_layer_1/self_attention/value/kernel"][3, 4] = 1e30
    with pytest.raises(InputError, match="value/kernel: a weight is too large"):
        written(tmp_path, config, arrays, type_)


def test_numbers_that_a_file_rounds(tmp_path):
    config = TINY_CONFIGS["grouped_query"] | {"rope_max_wavelength": 10000.000123, "layer_norm_epsilon": 1e-5}
    rounded = export.round_config(config)
    assert rounded == config | {"rope_max_wavelength": 10000.0}
    path, _ = written(tmp_path, rounded, random_arrays(rounded, np.float32))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.config == rounded


@pytest.mark.parametrize("key", ROPE_ADJUSTMENT)
def test_an_impossible_adjustment_of_our_own_is_refused(key, tmp_path):
    config = TINY_CONFIGS["llama_3_1"]
    checkpoint = checkpoint_of(config, random_arrays(config, np.float32))
    plan = export.plan(checkpoint, None, 128, "tiny")
    plan.metadata[f"llama_exp.{key}"] = -1.0
    export.write(tmp_path / "m.gguf", checkpoint, plan, {}, hashlib.sha256())
    with pytest.raises(InputError, match="adjustment is impossible"), open_checkpoint(tmp_path / "m.gguf"):
        pass


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    """Each tensor is read once, in the file's order, and nothing of the one before is kept."""
    import weakref

    config, alive, read = TINY_CONFIGS["grouped_query"], [], []
    arrays = random_arrays(config, np.float32)

    class Counted(np.ndarray):
        """An array whose end can be watched."""

    def tensor(path, array):
        def give(dtype):
            assert not [one for one in alive if one() is not None]
            values = array.astype(dtype or array.dtype).view(Counted)
            alive.append(weakref.ref(values))
            read.append(path)
            return values

        return Tensor(array.shape, array.dtype, path, give)

    tensors = {path: tensor(path, array) for path, array in arrays.items()}
    checkpoint = Checkpoint(Path("made up"), "keras_hub", config, tensors)
    export.write(tmp_path / "m.gguf", checkpoint, export.plan(checkpoint, "Q8_0", 128, "x"), {}, hashlib.sha256())
    assert sorted(read) == sorted(variable_shapes(config))
