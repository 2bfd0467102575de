"""Whole models in GGUF files: written from known weights, read back; what is not exactly a Llama is refused by name."""

import os
import struct

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf_writer import Blocks, Typed, gguf_bytes, llama_metadata, llama_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import numpy_frequencies
from tiny_configs import LLAMA_3_1, TINY_CONFIGS, random_arrays, stored_dtype

import llama_exp.formats
from llama_exp.architecture import CONFIG_KEYS, variable_shapes
from llama_exp.errors import InputError
from llama_exp.formats.gguf import checkpoint as gguf_format
from llama_exp.formats.gguf.checkpoint import open_checkpoint, read_architecture
from llama_exp.formats.gguf.config import decimal

# GGUF has the adjustment only as the divisors it leads to, and those of 16 positions are nobody's.
CONFIGS = {name: config for name, config in TINY_CONFIGS.items() if not name.startswith("llama_3")}
SMALL = TINY_CONFIGS["grouped_query"]
PUBLISHED = {"rope_pretraining_sequence_length": 8192}
ADJUSTED = TINY_CONFIGS["llama_3_1"] | PUBLISHED


def divisors(config):
    """rope_freqs.weight of a config: how much slower than without adjustment each pair turns, float32."""
    plain = config | dict.fromkeys(LLAMA_3_1.keys() - {"rope_max_wavelength", "layer_norm_epsilon"})
    return (numpy_frequencies(plain) / numpy_frequencies(config)).astype("f4")


def parts(config=SMALL, dtype=np.float32):
    return llama_metadata(config), llama_tensors(config, random_arrays(config, dtype))


def written(tmp_path, metadata, tensors):
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes(metadata, tensors))
    return path


def rejection(tmp_path, metadata, tensors):
    path = written(tmp_path, metadata, tensors)
    with pytest.raises(InputError) as caught, open_checkpoint(path):
        pass
    (problem,) = caught.value.problems
    assert problem.where == str(path) and problem.action
    return f"{problem.what} | {problem.found}"


@pytest.mark.parametrize("small_blocks", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_reads_what_was_written(tmp_path, name, small_blocks, monkeypatch):
    if small_blocks:  # several blocks for each tensor, and two threads
        monkeypatch.setattr(gguf_format, "_BLOCK_VALUES", 100)
        monkeypatch.setattr(gguf_format, "_THREADED_VALUES", 400)
    config, dtype = TINY_CONFIGS[name], stored_dtype(name)
    arrays = random_arrays(config, dtype)
    path = written(tmp_path, llama_metadata(config), llama_tensors(config, arrays))
    assert read_architecture(path) == config
    assert llama_exp.formats.read_architecture(path) == config
    with open_checkpoint(path) as checkpoint:
        assert (checkpoint.path, checkpoint.format) == (path, "gguf")
        assert checkpoint.config == config and checkpoint.config.keys() == set(CONFIG_KEYS)
        assert checkpoint.quantization is None
        assert checkpoint.tensors.keys() == arrays.keys()
        for variable, expected in arrays.items():
            tensor = checkpoint.tensors[variable]
            assert tensor.dtype == ("f4" if expected.ndim == 1 else dtype)
            for wanted in (None, np.float32, ml_dtypes.bfloat16):
                array = tensor.read(wanted)
                assert array.shape == tensor.shape == variable_shapes(config)[variable]
                assert array.dtype == (wanted or tensor.dtype) and array.flags.c_contiguous
                np.testing.assert_array_equal(array, expected.astype(array.dtype), err_msg=variable)


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q8_0", "Q4_K", "Q6_K"])
def test_quantized_tensors_are_decoded_and_put_in_order(tmp_path, kind, monkeypatch):
    """The same file, read by ggml's package; the pairs of each head are undone row by row."""
    monkeypatch.setattr(gguf_format, "_BLOCK_VALUES", 20_000)
    number = GGMLQuantizationType[kind]
    values, size = GGML_QUANT_SIZES[number]
    config = SMALL | dict(hidden_dim=256, intermediate_dim=512, num_layers=1)
    generator = np.random.default_rng(0)
    tensors = {}
    for name, tensor in llama_tensors(config, random_arrays(config)).items():
        blocks = generator.integers(0, 48, (tensor.size // values, size), np.uint8)  # below any half's infinity
        quantized = tensor.ndim == 2
        tensors[name] = Blocks(number, tensor.shape, blocks.tobytes()) if quantized else tensor
    path = written(tmp_path, llama_metadata(config), tensors)
    theirs = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    with open_checkpoint(path) as checkpoint:
        block = "transformer_layer_0"
        for ours, name in {
            f"{block}/feedforward_output_dense/kernel": "blk.0.ffn_down.weight",
            f"{block}/self_attention/value/kernel": "blk.0.attn_v.weight",
            "token_embedding/reverse_embeddings": "output.weight",
        }.items():
            np.testing.assert_array_equal(checkpoint.tensors[ours].read(None), theirs[name].T)
        embeddings = checkpoint.tensors["token_embedding/embeddings"]
        assert embeddings.dtype == np.float32
        np.testing.assert_array_equal(embeddings.read(None), theirs["token_embd.weight"])
        for ours, name, heads in (("query", "attn_q", 4), ("key", "attn_k", 2)):
            kernel = checkpoint.tensors[f"{block}/self_attention/{ours}/kernel"].read(None)
            rows, head_dim = theirs[f"blk.0.{name}.weight"], 64
            for head in range(heads):
                for i in range(head_dim // 2):
                    for half in range(2):
                        here, there = head * head_dim + half * 32 + i, head * head_dim + 2 * i + half
                        np.testing.assert_array_equal(kernel[:, here], rows[there])


def test_the_numbers_before_rounding_are_restored():
    for value in (1e-5, 1e-6, 1e-2, 500000.0, 10000.0, 8.0, 2.5, 3e-6):
        assert decimal(float(np.float32(value))) == value == decimal(value)
    assert float(np.float32(1e-5)) != 1e-5
    assert decimal(1e300) == 1e300 and decimal(1 / 3) == 1 / 3  # of a float64


@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_a_damaged_model_is_refused_or_read(tmp_path_factory, changes):
    content = bytearray(gguf_bytes(*parts(TINY_CONFIGS["one_layer"])))
    for place, byte in changes:
        content[place % (1500 if place % 3 else len(content))] = byte  # most of them in the head
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(content)
    try:
        with open_checkpoint(path) as checkpoint:
            for tensor in checkpoint.tensors.values():
                assert np.isfinite(tensor.read(None)).all()
    except InputError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3_adjustment_is_recovered_from_its_divisors(tmp_path, factor):
    config = ADJUSTED | {"rope_frequency_adjustment_factor": factor}
    stored = divisors(config)
    assert len(np.unique(stored)) > 1 and (stored[0], stored[-1]) == (1, factor)
    metadata, tensors = parts(config)
    path = written(tmp_path, metadata, tensors | {"rope_freqs.weight": stored})
    assert read_architecture(path) == config
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.tensors.keys() == variable_shapes(config).keys()


def test_divisors_of_one_adjust_nothing(tmp_path):
    metadata, tensors = parts()
    path = written(tmp_path, metadata, tensors | {"rope_freqs.weight": np.ones(4, "f4")})
    assert read_architecture(path) == SMALL


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (divisors(TINY_CONFIGS["llama_3_1"]), "is not the adjustment of Llama 3.1"),  # 16 positions
        (divisors(ADJUSTED) * np.float32(1.001), "is not the adjustment of Llama 3.1"),
        (divisors(ADJUSTED)[::-1], "is not the adjustment of Llama 3.1"),
        (np.full(8, 8, "f4"), "is not the adjustment of Llama 3.1"),
        (np.full(8, np.nan, "f4"), "is not the adjustment of Llama 3.1"),
        (-divisors(ADJUSTED), "is not the adjustment of Llama 3.1"),
        (np.ones(7, "f4"), "rope_freqs.weight has another shape | (7,), expected (8,)"),
        (np.ones((2, 4), "f4"), "rope_freqs.weight has another shape"),
    ],
)
def test_other_divisors_are_refused(tmp_path, stored, expected):
    metadata, tensors = parts(ADJUSTED)
    tensors["rope_freqs.weight"] = np.ascontiguousarray(stored)
    assert expected in rejection(tmp_path, metadata, tensors)


@pytest.mark.parametrize(
    ("scaling", "factor"),
    [
        ({}, 1.0),
        ({"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}, 1.0),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.5}, 2.5),
        ({"llama.rope.scale_linear": 4.0}, 4.0),
        ({"llama.rope.scaling.factor": 0.0}, 1.0),
    ],
)
def test_linear_scaling(tmp_path, scaling, factor):
    metadata, tensors = parts()
    path = written(tmp_path, metadata | scaling, tensors)
    assert read_architecture(path)["rope_position_scaling_factor"] == factor


@pytest.mark.parametrize(("stated", "expected"), [({}, 128), ({"llama.context_length": 0}, None)])
def test_the_context_length(tmp_path, stated, expected):
    metadata, tensors = parts()
    with open_checkpoint(written(tmp_path, metadata | stated, tensors)) as checkpoint:
        assert checkpoint.context_length == expected
    assert "must not be negative | -5" in rejection(
        tmp_path, metadata | {"llama.context_length": Typed(5, struct.pack("<i", -5))}, tensors
    )
    assert "llama.context_length" in rejection(tmp_path, metadata | {"llama.context_length": "long"}, tensors)


def test_what_is_left_out_has_llama_cpps_defaults(tmp_path):
    config = TINY_CONFIGS["multi_head"]
    metadata, tensors = parts(config)
    for key in ("attention.head_count_kv", "rope.freq_base", "rope.dimension_count", "vocab_size", "context_length"):
        del metadata[f"llama.{key}"]
    assert read_architecture(written(tmp_path, metadata, tensors)) == config


def test_keys_that_say_nothing_about_the_model_are_read_over(tmp_path):
    metadata, tensors = parts()
    metadata |= {
        "llama.expert_count": 0,
        "llama.attention.key_length": 8,
        "llama.attention.value_length": 8,
        "general.anything": ["a"],
        "quantize.imatrix.file": "x",
        "tokenizer.ggml.model": "unheard of",
        "tokenizer.ggml.tokens": ["a"] * 48,
        "somebody.else": 1,
    }
    assert read_architecture(written(tmp_path, metadata, tensors)) == SMALL


NO = object()
REFUSED = {
    "general.architecture": [("qwen2", "architecture is not supported | qwen2"), (NO, "no general.architecture")],
    "general.type": [("adapter", "not a model | general.type adapter")],
    "split.count": [(3, "split over several files | 3 parts")],
    "llama.block_count": [
        (NO, "no llama.block_count"),
        (2**32 - 1, "too few tensors for its layers | 4294967295 layers"),
        (3, "too few tensors for its layers"),
        (1, "9 tensors have no place in the model | blk.1."),
        (0, "num_layers=0"),
        (2.0, "llama.block_count must be a whole number"),
    ],
    "llama.embedding_length": [(64, "llama.rope.dimension_count is not supported | 8"), (31, "hidden_dim=31 with")],
    "llama.feed_forward_length": [(41, "another shape | (40, 32), expected (41, 32)"), ([40, 40], "a whole number")],
    "llama.attention.head_count": [(5, "hidden_dim=32 with num_query_heads=5"), (0, "num_query_heads=0")],
    "llama.attention.head_count_kv": [(3, "num_key_value_heads=3 with"), ([2, 2], "a whole number")],
    "llama.attention.layer_norm_rms_epsilon": [
        (NO, "no llama.attention.layer_norm_rms_epsilon"),
        (0.0, "(layer_norm_epsilon=0.0): give a number above 0"),
        (float("nan"), "must be finite"),
    ],
    "llama.attention.key_length": [(16, "llama.attention.key_length is not supported | 16")],
    "llama.attention.value_length": [(16, "llama.attention.value_length is not supported | 16")],
    "llama.rope.dimension_count": [(4, "llama.rope.dimension_count is not supported | 4")],
    "llama.rope.freq_base": [(-1.0, "(rope_max_wavelength=-1.0): give a number above 0")],
    "llama.rope.scaling.type": [("yarn", "llama.rope.scaling.type is not supported | yarn")],
    "llama.rope.scale_linear": [(-2.0, "(rope_position_scaling_factor=-2.0): give a number above 0")],
    "llama.rope.scaling.attn_factor": [(1.5, "llama.rope.scaling.attn_factor is not supported | 1.5")],
    "llama.vocab_size": [(49, "llama.vocab_size and token_embd.weight disagree | 49 and 48")],
    "llama.expert_count": [
        (8, "llama.expert_count is not supported | 8"),
        ([8], "llama.expert_count is not supported"),
    ],
    "llama.logit_scale": [(2.0, "llama.logit_scale is not supported | 2.0")],
    "llama.attention.sliding_window": [(64, "llama.attention.sliding_window is not supported | 64")],
    "tokenizer.ggml.tokens": [(["a"] * 49, "more tokens than embeddings | 49 and 48")],
}


@pytest.mark.parametrize(("key", "index"), [(key, i) for key, cases in REFUSED.items() for i in range(len(cases))])
def test_what_is_not_understood_is_refused_by_name(tmp_path, key, index):
    content, expected = REFUSED[key][index]
    metadata, tensors = parts()
    metadata[key] = content
    if content is NO:
        del metadata[key]
    assert expected in rejection(tmp_path, metadata, tensors)


def test_two_factors_that_disagree(tmp_path):
    metadata, tensors = parts()
    metadata |= {"llama.rope.scaling.factor": 2.0, "llama.rope.scale_linear": 4.0}
    assert "scale_linear disagree | [2.0, 4.0]" in rejection(tmp_path, metadata, tensors)


@pytest.mark.parametrize("name", ["blk.1.attn_q.weight", "output_norm.weight", "blk.0.ffn_norm.weight"])
def test_a_missing_tensor(tmp_path, name):
    metadata, tensors = parts()
    del tensors[name]
    tensors["blk.0.attn_q.bias"] = np.zeros(32, "f4")
    assert f"1 tensors are missing | {name}" in rejection(tmp_path, metadata, tensors)


def test_no_embeddings(tmp_path):
    metadata, tensors = parts()
    del tensors["token_embd.weight"]
    assert "no token_embd.weight" in rejection(tmp_path, metadata, tensors)


@pytest.mark.parametrize("name", ["blk.0.attn_q.bias", "blk.2.attn_q.weight", "x", "blk.0.ffn_gate_inp.weight"])
def test_a_tensor_without_a_place(tmp_path, name):
    metadata, tensors = parts()
    tensors[name] = np.zeros(32, "f4")
    assert f"1 tensors have no place in the model | {name}" in rejection(tmp_path, metadata, tensors)


def test_a_turned_tensor(tmp_path):
    metadata, tensors = parts()
    tensors["blk.0.ffn_up.weight"] = np.ascontiguousarray(tensors["blk.0.ffn_up.weight"].T)
    assert "blk.0.ffn_up.weight has another shape | (32, 40), expected (40, 32)" in rejection(
        tmp_path, metadata, tensors
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_values_that_are_not_finite_are_refused_when_read(tmp_path, value, dtype):
    metadata, tensors = parts(dtype=dtype)
    tensors["blk.1.attn_k.weight"][3, 5] = value
    with open_checkpoint(written(tmp_path, metadata, tensors)) as checkpoint:
        tensor = checkpoint.tensors["transformer_layer_1/self_attention/key/kernel"]
        for wanted in (None, np.float32):
            with pytest.raises(InputError, match="tensor blk.1.attn_k.weight is not finite"):
                tensor.read(wanted)


def test_values_that_overflow_are_refused_when_read(tmp_path):
    metadata, tensors = parts()
    tensors["output_norm.weight"][2] = 1e5
    with open_checkpoint(written(tmp_path, metadata, tensors)) as checkpoint:
        tensor = checkpoint.tensors["sequence_output_layernorm/scale"]
        assert tensor.read(None)[2] == np.float32(1e5)
        with pytest.raises(InputError, match="NaN or infinity as float16"):
            tensor.read(np.float16)


def test_reads_the_file_that_was_checked(tmp_path):
    """Another file under the same name changes nothing; the same file made shorter is noticed."""
    metadata, tensors = parts()
    path = written(tmp_path, metadata, tensors)
    with open_checkpoint(path) as checkpoint:
        (tmp_path / "other").write_bytes(b"something else")
        (tmp_path / "other").replace(path)
        np.testing.assert_array_equal(
            checkpoint.tensors["token_embedding/embeddings"].read(None), tensors["token_embd.weight"]
        )
    path = written(tmp_path, metadata, tensors)
    with open_checkpoint(path) as checkpoint:
        os.truncate(path, path.stat().st_size - 100)
        with pytest.raises(InputError, match="is cut short"):
            for tensor in checkpoint.tensors.values():
                tensor.read(None)
