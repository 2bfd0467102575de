"""Integers and scales against plain loops, and conversion tensor by tensor; against Keras: test_quantization."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_configs import TINY_CONFIGS, as_tensors, random_arrays

from llama_exp.architecture import (
    LINEAR_NAMES,
    OPTIONS,
    Quantization,
    count_parameters,
    make_quantization,
    quantization_problems,
    to_section,
    variable_shapes,
)
from llama_exp.formats.checkpoint import Checkpoint
from llama_exp.formats.quantized import (
    KERNEL,
    REVERSE_TABLE,
    TABLE,
    dequantize,
    dequantize_checkpoint,
    form_of,
    of_matrix,
    pack,
    part_shapes,
    quantize,
    quantize_checkpoint,
    unpack,
    variable_parts,
)

INT8, COLUMNS, GROUPS = Quantization("int8", True), Quantization("int4", False), Quantization("int4", False, 5)
WIDE, FLOAT8 = Quantization("int4", False, 5, "int8"), Quantization("float8", False)
MIXED = Quantization("int4", False, 5, int8_layers=("key", "feedforward_output_dense"))
SINGLE = {"int8": INT8, "int4": COLUMNS, "groups": GROUPS, "float8": FLOAT8}
FORMS = {"kernel": KERNEL, "embeddings": TABLE, "reverse_embeddings": REVERSE_TABLE}


def checkpoint(name, quantization=None):
    arrays = random_arrays(TINY_CONFIGS[name])
    return Checkpoint("memory", "test", TINY_CONFIGS[name], as_tensors(arrays), quantization), arrays


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1), st.integers(0, 2**32 - 1))
def test_two_integers_share_a_byte(rows, columns, axis, seed):
    integers = np.random.default_rng(seed).integers(-8, 8, (rows, columns)).astype("int8")
    packed = pack(integers, axis)
    assert packed.shape[axis] == math.ceil(integers.shape[axis] / 2)
    assert np.array_equal(unpack(packed, integers.shape[axis], axis), integers)


def test_the_even_index_is_in_the_low_half():
    assert pack(np.array([[1, -1, 7]], "int8"), 1).view("uint8").tolist() == [[0xF1, 0x07]]


@pytest.mark.parametrize("mode", SINGLE.values(), ids=SINGLE)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_parts_stand_for_the_matrix(form, mode):
    """Every weight by the formulas of the module, with the integers and scales of `rounding`."""
    matrix = np.random.default_rng(1).normal(0.3, 1.0, (12, 13)).astype("float32")  # 5 divides neither
    parts = quantize(matrix, form, mode)
    shapes = part_shapes(matrix.shape, form, mode)
    assert {suffix: (part.shape, part.dtype) for suffix, part in parts.items()} == shapes
    size, axis = matrix.shape[form.packed_axis], form.packed_axis
    numbers = unpack(parts[""], size, axis) if mode.mode == "int4" else parts[""].astype("float32")
    found = dequantize(parts, matrix.shape, form, mode)
    for index, number in np.ndenumerate(numbers):
        i, o = index if form.input_axis == 0 else index[::-1]
        if mode is not GROUPS:
            expected = number / parts["_scale"][o]
        else:
            one = (i // 5, o) if form.input_axis == 0 else (o, i // 5)
            expected = (number - parts["_zero"][one]) * parts["_scale"][one]
        assert found[index] == pytest.approx(expected, rel=1e-6)
    assert np.abs(found - matrix).max() < {INT8: 0.02, COLUMNS: 0.4, GROUPS: 0.4, FLOAT8: 0.12}[mode]


@pytest.mark.parametrize("mode", SINGLE.values(), ids=SINGLE)
def test_zeros_stay_zeros(mode):
    matrix = np.zeros((6, 4), "float32")
    assert not dequantize(quantize(matrix, KERNEL, mode), (6, 4), KERNEL, mode).any()


@pytest.mark.parametrize("mode", SINGLE.values(), ids=SINGLE)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(mode, value):
    matrix = np.ones((6, 4), "float32")
    matrix[5, 3] = value
    with pytest.raises(ValueError, match="not finite"), np.errstate(all="ignore"):
        quantize(matrix, KERNEL, mode)


@pytest.mark.parametrize("mode", [*SINGLE.values(), WIDE, MIXED], ids=[*SINGLE, "wide", "mixed"])
@pytest.mark.parametrize("name", ["odd_widths", "tied", "llama_3_2"])
def test_a_checkpoint_is_quantized_while_it_is_read(name, mode):
    source, arrays = checkpoint(name)
    view = quantize_checkpoint(source, mode)
    expected = variable_parts(TINY_CONFIGS[name], mode)
    assert view.quantization == mode and set(view.tensors) == set(expected)
    for path, (shape, dtype) in expected.items():
        array = view.tensors[path].read(None)
        assert array.shape == shape == view.tensors[path].shape
        assert array.dtype == (dtype or np.float32) == view.tensors[path].dtype
    back = dequantize_checkpoint(view)
    assert back.quantization is None and set(back.tensors) == set(arrays)
    for path, array in arrays.items():
        form, found = form_of(path), back.tensors[path].read(None)
        if form is None:
            assert np.array_equal(found, array)
        else:
            own = of_matrix(path, mode)
            parts = quantize(array, form, own)
            assert np.array_equal(found, dequantize(parts, array.shape, form, own))
            # A second time nothing is lost but the last bits of the scale.
            assert np.array_equal(quantize(found, form, own)[""], parts[""]) or own.mode == "int4"


def test_each_tensor_is_read_once_and_never_before_it_is_asked_for():
    source, _ = checkpoint("multi_head")
    reads = []

    def counted(path, tensor):
        def read(dtype):
            reads.append(path)
            return tensor.read(dtype)

        return type(tensor)(tensor.shape, tensor.dtype, tensor.origin, read)

    source.tensors.update({path: counted(path, tensor) for path, tensor in list(source.tensors.items())})
    view = quantize_checkpoint(source, GROUPS)
    assert reads == []
    for tensor in view.tensors.values():
        tensor.read(None)
    assert sorted(reads) == sorted(source.tensors)


def test_scales_are_all_that_an_int8_model_adds():
    sizes = {"vocabulary_size": 32000, "num_layers": 32, "num_query_heads": 32, "hidden_dim": 4096}
    sizes |= {"intermediate_dim": 11008, "num_key_value_heads": 32, "tie_word_embeddings": False}
    llama_3 = sizes | {"vocabulary_size": 128256, "intermediate_dim": 14336, "num_key_value_heads": 8}
    for config, published in ((sizes, 6739839488), (llama_3, 8031894016)):
        count = sum(math.prod(shape) for shape, _ in variable_parts(config, INT8).values())
        assert count == published
    assert 6739839488 - count_parameters(sizes) == 1423872


def test_sizes_of_parts():
    config = TINY_CONFIGS["odd_widths"]
    shapes = variable_shapes(config)
    kernel = "transformer_layer_0/feedforward_output_dense/kernel"
    assert shapes[kernel] == (37, 42)
    assert {suffix: shape for suffix, (shape, _) in part_shapes((37, 42), KERNEL, GROUPS).items()} == {
        "": (37, 21),
        "_scale": (8, 42),
        "_zero": (8, 42),
    }
    assert part_shapes((97, 42), TABLE, GROUPS)["_scale"][0] == (97, 9)
    assert part_shapes((42, 97), REVERSE_TABLE, GROUPS)[""][0] == (21, 97)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mode": "fp4"}, "give one of int8, int4, float8, none"),
        ({"mode": "int4", "quantize_activations": True}, "only int8 has integer products"),
        ({"mode": "int8", "group_size": 64}, "only int4 has groups"),
        ({"mode": "none", "group_size": 64}, "only int4 has groups"),
        ({"mode": "float8", "group_size": 64}, "only int4 has groups"),
        ({"mode": "int4", "group_size": -1}, "at least 0"),
        ({"mode": "int4", "group_size": 1.5}, "at least 0"),
        ({"mode": "int4", "int8_layers": ["mlp"]}, "give names out of query, key,"),
        ({"mode": "int4", "int8_layers": ["token_embedding"]}, "give names out of query, key,"),
        ({"mode": "int4", "int8_layers": LINEAR_NAMES}, "not all of them (that is quantization=int8_weight_only)"),
        ({"mode": "int8", "int8_layers": ["key"]}, 'int8_layers=["key"] with mode=int8'),
        ({"mode": "none", "int8_layers": []}, "int8_layers=[] with mode=none"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match="quantiz|mode|group_size|int8_layers") as caught:
        make_quantization(**options)
    assert message in str(caught.value)


def test_what_the_modes_mean_by_themselves():
    assert make_quantization("none") is None
    floats = ("token_embedding", "query", "key", "value", "feedforward_output_dense")
    assert make_quantization("int8") == Quantization("int8", True, None, None, floats, asymmetric_activations=True)
    assert make_quantization("int8", float_activations=[], asymmetric_activations=False) == INT8
    assert make_quantization("int8", False) == Quantization("int8", False)
    int4 = Quantization("int4", False, 32, "int8", int8_layers=("key", "value"))
    assert make_quantization("int4") == int4
    assert make_quantization("int4", int8_layers=["value", "key", "value"]) == int4
    assert make_quantization("float8") == FLOAT8
    assert make_quantization("int4", group_size=0, int8_layers=[]) == Quantization("int4", False, None, "int8")
    assert make_quantization("int4", group_size=5, embeddings="int4", int8_layers=()) == GROUPS


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "none"},
        {"mode": "int8"},
        {"mode": "int8", "quantize_activations": False},
        {"mode": "int8", "float_activations": ["key"], "asymmetric_activations": False},
        {"mode": "int4"},
        {"mode": "int4", "group_size": 0, "embeddings": "int4", "int8_layers": ["value", "query"], "gptq": True},
        {"mode": "float8"},
    ],
)
def test_a_section_states_a_quantization_in_full(options):
    made = make_quantization(**options)
    section = to_section(made)
    assert list(section) == ["mode", *OPTIONS] and list(quantization_problems(section)) == []
    assert make_quantization(**section) == made
    # Each number is needed and says something: without it, or under another mode, there is a problem.
    for name in OPTIONS:
        assert (section[name] is None) != bool(list(quantization_problems(section | {name: None})))
    with pytest.raises(TypeError, match="block_size"):
        make_quantization(**options, block_size=4)


def test_each_layer_s_own():
    int8 = Quantization("int8", True, float_activations=("value", "token_embedding"))
    assert int8.of("transformer_layer_1/self_attention/value") == Quantization("int8", False)
    assert int8.of("transformer_layer_1/self_attention/key") == INT8
    assert int8.of("token_embedding") == Quantization("int8", False)
    assert WIDE.of("token_embedding") == Quantization("int8", False) and GROUPS.of("token_embedding") == GROUPS
    assert WIDE.of("transformer_layer_1/feedforward_gate_dense") == GROUPS
    assert MIXED.of("transformer_layer_1/self_attention/key") == MIXED.of("key") == Quantization("int8", False)
    assert MIXED.of("transformer_layer_1/self_attention/value") == MIXED.of("token_embedding") == GROUPS
