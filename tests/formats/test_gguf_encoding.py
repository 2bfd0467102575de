"""Blocks of GGUF are those of the reference quantizers, byte for byte."""

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from llama_exp.formats.gguf.encoding import BLOCK_NAMES, KINDS, encode

SPECIAL = {
    "zeros": np.zeros((2, 64)),
    "ties": np.arange(-64, 64).reshape(2, 64) / 2,
    "one sign": -np.abs(np.linspace(1e-3, 3, 64))[None],
    "the same twice": np.tile([7.5, -7.5], 32)[None],
    "tiny": np.full((1, 32), 1e-30),
    "scales that float16 rounds to 0": np.linspace(-1e-7, 1e-7, 32)[None],
    "constant": np.full((1, 32), 2.7),
}


def reference(rows, name):
    with np.errstate(all="ignore"):
        return gguf.quants.quantize(rows, GGMLQuantizationType[name]).view(np.uint8).tobytes()


@pytest.mark.parametrize("name", BLOCK_NAMES)
@pytest.mark.parametrize("case", SPECIAL)
def test_special_blocks(name, case):
    rows = SPECIAL[case].astype(np.float32)
    assert encode(rows, name).tobytes() == reference(rows, name)


@pytest.mark.parametrize("name", [*BLOCK_NAMES, "F32", "F16", "BF16"])
def test_weights(name):
    rows = np.random.default_rng(0).normal(0, 0.05, (96, 160)).astype(np.float32)
    assert encode(rows, name).tobytes() == reference(rows, name)


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float32, (2, 32), elements=st.floats(-6e4, 6e4, width=32)), st.sampled_from(BLOCK_NAMES))
def test_any_block(rows, name):
    assert encode(rows, name).tobytes() == reference(rows, name)


@given(st.floats(-(2.0**127), 2.0**127, width=32))
@settings(max_examples=60, deadline=None)
def test_bfloat16_rounds_as_ggml_does(value):
    rows = np.array([[value]], np.float32)
    assert encode(rows, "BF16").tobytes() == reference(rows, "BF16")
    assert encode(rows, "BF16").dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("F16", 7e4, "F16"), ("Q8_0", 1e8, "float16"), ("Q4_0", -6e5, "Q4_0"), ("Q4_1", -7e4, "Q4_1")],
)
def test_what_is_too_large_is_told(name, value, told):
    rows = np.full((1, 32), 0.5, np.float32)
    rows[0, 5] = value
    with pytest.raises(OverflowError, match=told):
        encode(rows, name)


def test_every_type_is_known_to_ggml():
    for name, kind in KINDS.items():
        assert GGMLQuantizationType[name] == kind
