"""GGUF's tensor types: blocks of bytes decoded to float32.

A quantized row is a sequence of blocks, each a few integers with their scales. The layouts are those that ggml
publishes (`block_q4_0` to `block_q6_K` in ggml-common.h); sums and products are formed in float32 in ggml's order.

    Q8_0, Q4_0, Q5_0   value = scale * q                         32 values share a scale
    Q4_1, Q5_1         value = scale * q + minimum               32 values share both
    Q4_K, Q5_K         value = (d * s) * q - (dmin * m)          256 values share d and dmin, 32 share s and m
    Q6_K               value = (d * s) * q                       256 values share d, 16 share s

Shape letters: U blocks. Sub-blocks and the values of each follow as numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

_LOW_NIBBLE = np.uint8(15)


@dataclass(frozen=True)
class BlockType:
    """How a tensor type stores its values.

    Attributes:
        name: ggml's.
        values: how many values one block holds.
        layout: one block; its size is that of the block in bytes.
        decode: blocks (U,) of `layout` -> values float32, U * `values` of them in order.
        dtype: what the values are said to be; of quantized blocks, what they are decoded to.
    """

    name: str
    values: int
    layout: np.dtype
    decode: Callable[[np.ndarray], np.ndarray]
    dtype: np.dtype


def _plain(blocks_U):
    return blocks_U.astype(np.float32)


def _scale(half_U):
    """(U,) float16 -> (U, 1) float32."""
    return half_U.astype(np.float32)[:, None]


def _nibbles(packed):
    """(U, n) bytes -> (U, 2n) float32: the low halves of the bytes, then the high ones."""
    values = np.empty((len(packed), 2, packed.shape[1]), np.float32)
    values[:, 0] = packed & _LOW_NIBBLE
    values[:, 1] = packed >> 4
    return values.reshape(len(packed), -1)


def _five_bits(blocks_U):
    """(U, 32) float32: four bits of each value from `q`, the fifth from `high`."""
    values = _nibbles(blocks_U["q"])
    values += np.unpackbits(blocks_U["high"], axis=1, bitorder="little") << np.uint8(4)
    return values


def _q8_0(blocks_U):
    return blocks_U["q"] * _scale(blocks_U["d"])


def _q4_0(blocks_U):
    values = _nibbles(blocks_U["q"])
    values -= 8
    values *= _scale(blocks_U["d"])
    return values


def _q4_1(blocks_U):
    values = _nibbles(blocks_U["q"])
    values *= _scale(blocks_U["d"])
    values += _scale(blocks_U["m"])
    return values


def _q5_0(blocks_U):
    values = _five_bits(blocks_U)
    values -= 16
    values *= _scale(blocks_U["d"])
    return values


def _q5_1(blocks_U):
    values = _five_bits(blocks_U)
    values *= _scale(blocks_U["d"])
    values += _scale(blocks_U["m"])
    return values


def _scales_and_minima(packed):
    """The 6-bit scales and minima of 8 sub-blocks, each (U, 8) uint8, from 12 bytes (U, 12).

    Bytes 0..3 hold the scales of sub-blocks 0..3 in six bits, bytes 4..7 the minima; bytes 8..11 hold four bits of the
    scale and of the minimum of sub-blocks 4..7, whose two upper bits are the upper bits of bytes 0..7.
    """
    first, second, rest = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([first & 63, (rest & 15) | (first >> 6) << 4], axis=1)
    minima = np.concatenate([second & 63, (rest >> 4) | (second >> 6) << 4], axis=1)
    return scales, minima


def _scaled_sub_blocks(blocks_U, values):
    """`values` (U, 8, 32) float32 times its scales less its minima, in place."""
    scales, minima = _scales_and_minima(blocks_U["scales"])
    values *= (_scale(blocks_U["d"]) * scales)[:, :, None]
    values -= (_scale(blocks_U["dmin"]) * minima)[:, :, None]
    return values


def _pairs_of_nibbles(blocks_U):
    """(U, 8, 32) float32: each 32 bytes hold sub-block 2i in their low halves and sub-block 2i + 1 in their high."""
    packed = blocks_U["q"].reshape(-1, 4, 32)
    values = np.empty((len(packed), 4, 2, 32), np.float32)
    values[:, :, 0] = packed & _LOW_NIBBLE
    values[:, :, 1] = packed >> 4
    return values.reshape(-1, 8, 32)


def _q4_k(blocks_U):
    return _scaled_sub_blocks(blocks_U, _pairs_of_nibbles(blocks_U))


def _q5_k(blocks_U):
    values = _pairs_of_nibbles(blocks_U)
    # Bit i of byte j is the fifth bit of value j of sub-block i.
    bits = (blocks_U["high"][:, None, :] >> np.arange(8, dtype=np.uint8)[:, None]) & np.uint8(1)
    values += bits << np.uint8(4)
    return _scaled_sub_blocks(blocks_U, values)


def _q6_k(blocks_U):
    # Each half of a block holds 4 runs of 32 values: two in the low halves of its 64 bytes `q`, two in the high ones;
    # run i has its two upper bits at position 2i of the 32 bytes `high`.
    packed = blocks_U["q"].reshape(-1, 2, 1, 2, 32)
    low = (packed >> np.array([0, 4], np.uint8)[:, None, None]) & _LOW_NIBBLE  # (U, 2 halves, 2 nibbles, 2 runs, 32)
    high = blocks_U["high"].reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    q = low.reshape(-1, 2, 4, 32) | (high & np.uint8(3)) << np.uint8(4)
    values = q.astype(np.float32).reshape(-1, 16, 16)
    values -= 32
    values *= (_scale(blocks_U["d"]) * blocks_U["scales"])[:, :, None]
    return values


def _block(name, values, fields, decode, dtype=np.float32):
    return BlockType(name, values, np.dtype(fields), decode, np.dtype(dtype))


_D, _M, _DMIN = ("d", "<f2"), ("m", "<f2"), ("dmin", "<f2")
BLOCK_TYPES = {
    0: _block("F32", 1, "<f4", _plain),
    1: _block("F16", 1, "<f2", _plain, np.float16),
    2: _block("Q4_0", 32, [_D, ("q", "u1", 16)], _q4_0),
    3: _block("Q4_1", 32, [_D, _M, ("q", "u1", 16)], _q4_1),
    6: _block("Q5_0", 32, [_D, ("high", "u1", 4), ("q", "u1", 16)], _q5_0),
    7: _block("Q5_1", 32, [_D, _M, ("high", "u1", 4), ("q", "u1", 16)], _q5_1),
    8: _block("Q8_0", 32, [_D, ("q", "i1", 32)], _q8_0),
    12: _block("Q4_K", 256, [_D, _DMIN, ("scales", "u1", 12), ("q", "u1", 128)], _q4_k),
    13: _block("Q5_K", 256, [_D, _DMIN, ("scales", "u1", 12), ("high", "u1", 32), ("q", "u1", 128)], _q5_k),
    14: _block("Q6_K", 256, [("q", "u1", 128), ("high", "u1", 64), ("scales", "i1", 16), _D], _q6_k),
    30: _block("BF16", 1, ml_dtypes.bfloat16, _plain, ml_dtypes.bfloat16),
}
# Known to ggml and not read here, so that a refusal can say what the file has.
OTHER_TYPES = {
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
    41: "Q1_0",
}
