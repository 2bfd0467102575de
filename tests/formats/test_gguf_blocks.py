"""Decoded blocks against ggml's own Python package, and against the published layouts written out value by value."""

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from llama_exp.formats.gguf.blocks import BLOCK_TYPES, OTHER_TYPES

QUANTIZED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
BY_NAME = {block.name: block for block in BLOCK_TYPES.values()}
HALVES = {"d", "m", "dmin"}


def random_blocks(block, count, seed=0):
    """Blocks of random bits, but with finite numbers where the layout has floating-point ones."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, count * block.layout.itemsize, np.uint8).view(block.layout)
    for name in block.layout.names or ():
        if name in HALVES:
            blocks[name] = generator.normal(0, 3, count)
    return blocks if block.layout.names else generator.normal(0, 3, count).astype(block.layout)


def half(stored):
    return np.frombuffer(stored, "<f2")[0].astype(np.float32)


def nibble(q, i):
    """Value i of 32 in 16 bytes: the low halves come first."""
    return q[i] & 15 if i < 16 else q[i - 16] >> 4


def fifth_bit(high, i):
    return (high[i // 8] >> i % 8 & 1) << 4


def six_bits(packed, i):
    """Scale and minimum of sub-block i of 8 in 12 bytes."""
    if i < 4:
        return packed[i] & 63, packed[i + 4] & 63
    return packed[i + 4] & 15 | packed[i - 4] >> 6 << 4, packed[i + 4] >> 4 | packed[i] >> 6 << 4


def scalar_k(b, high, q):
    """Q4_K and Q5_K, value by value; `high` is empty for Q4_K."""
    d, dmin = half(b[0:2]), half(b[2:4])
    for i in range(256):
        sub, place = divmod(i, 32)
        scale, minimum = (np.float32(x) for x in six_bits(b[4:16], sub))
        packed = q[sub // 2 * 32 + place]
        value = packed >> 4 if sub % 2 else packed & 15
        if high:
            value |= (high[place] >> sub & 1) << 4
        yield d * scale * np.float32(value) - dmin * minimum


def scalar_q6_k(b):
    ql, qh, scales, d = b[:128], b[128:192], np.frombuffer(b[192:208], np.int8), half(b[208:])
    for i in range(256):
        part, rest = divmod(i, 128)
        run, place = divmod(rest, 32)
        low = ql[64 * part + 32 * (run % 2) + place]
        low = low >> 4 if run >= 2 else low & 15
        q = low | (qh[32 * part + place] >> 2 * run & 3) << 4
        yield d * np.float32(scales[i // 16]) * np.float32(q - 32)


SCALAR = {
    "Q8_0": lambda b: [half(b) * np.float32(q) for q in np.frombuffer(b[2:], np.int8)],
    "Q4_0": lambda b: [half(b) * np.float32(nibble(b[2:], i) - 8) for i in range(32)],
    "Q4_1": lambda b: [half(b) * np.float32(nibble(b[4:], i)) + half(b[2:4]) for i in range(32)],
    "Q5_0": lambda b: [half(b) * np.float32((nibble(b[6:], i) | fifth_bit(b[2:6], i)) - 16) for i in range(32)],
    "Q5_1": lambda b: [half(b) * np.float32(nibble(b[8:], i) | fifth_bit(b[4:8], i)) + half(b[2:4]) for i in range(32)],
    "Q4_K": lambda b: list(scalar_k(b, b"", b[16:])),
    "Q5_K": lambda b: list(scalar_k(b, b[16:48], b[48:])),
    "Q6_K": lambda b: list(scalar_q6_k(b)),
}


def test_every_quantized_type_is_tested():
    assert {block.name for block in BLOCK_TYPES.values() if block.values > 1} == set(QUANTIZED) == set(SCALAR)


@pytest.mark.parametrize("number", BLOCK_TYPES, ids=lambda number: BLOCK_TYPES[number].name)
def test_names_and_sizes_are_ggmls(number):
    block, theirs = BLOCK_TYPES[number], GGMLQuantizationType(number)
    assert block.name == theirs.name
    assert (block.values, block.layout.itemsize) == GGML_QUANT_SIZES[theirs]


def test_every_other_type_of_ggml_is_known_by_name():
    theirs = {kind.value: kind.name for kind in GGMLQuantizationType}
    assert theirs == OTHER_TYPES | {number: block.name for number, block in BLOCK_TYPES.items()}


@pytest.mark.parametrize("count", [1, 7, 300])
@pytest.mark.parametrize("number", BLOCK_TYPES, ids=lambda number: BLOCK_TYPES[number].name)
def test_bits_are_ggmls(number, count):
    block = BLOCK_TYPES[number]
    blocks = random_blocks(block, count, seed=count)
    theirs = gguf.dequantize(blocks.view(np.uint8).reshape(1, -1), GGMLQuantizationType(number)).ravel()
    ours = block.decode(blocks).ravel()
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


@pytest.mark.parametrize("name", QUANTIZED)
def test_equals_the_layout_written_out(name):
    block = BY_NAME[name]
    for one in random_blocks(block, 5, seed=9):
        expected = np.array(SCALAR[name](one.tobytes()), np.float32)
        np.testing.assert_array_equal(block.decode(np.array([one])).ravel(), expected)
