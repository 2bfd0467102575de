"""Float32 into GGUF's blocks: what `blocks.py` reads, written bit by bit as ggml's own reference code does it.

    Q8_0   scale = largest |value| / 127      q = value / scale, halves away from zero         -127..127
    Q4_0   scale = the value farthest from 0 / -8      q = value / scale + 8, to the nearest        0..15
    Q4_1   scale = (largest - least) / 15     q = (value - least) / scale, to the nearest          0..15

Scales are float16, but values are divided by what they were before that rounding (`quantize_row_*_ref` in
ggml-quants.c, `gguf.quants` in Python).

Shape letters: U blocks of 32 values.
"""

from __future__ import annotations

import numpy as np

from llama_exp.formats.gguf.blocks import BLOCK_TYPES

KINDS = {block.name: kind for kind, block in BLOCK_TYPES.items()}
BLOCK_NAMES = ("Q8_0", "Q4_0", "Q4_1")


def encode(rows: np.ndarray, name: str) -> np.ndarray:
    """Blocks of the layout of a type, in order.

    Args:
        rows: (rows, columns) float32, finite; for quantized types the columns are whole blocks.
        name: a plain type, or one of `BLOCK_NAMES`.

    Raises:
        OverflowError: a value, or the scale of a block, is too large for its type.
    """
    block = BLOCK_TYPES[KINDS[name]]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if block.values == 1:
            encoded = numbers = rows.astype(block.dtype)
        else:
            out = np.empty(rows.size // block.values, block.layout)
            encoded = _ENCODERS[name](rows.reshape(-1, block.values), out)
            numbers = np.stack([encoded[part] for part in ("d", "m") if part in block.layout.names])
    if not np.isfinite(numbers.astype(np.float32)).all():
        raise OverflowError(name if block.values == 1 else f"float16, in which {name} has its scales")
    return encoded


def _inverse(scales_U1):
    """1 / scale, and 0 where the scale is 0."""
    return np.where(scales_U1 == 0, np.float32(0), np.float32(1) / scales_U1)


def _q8_0(values_U32, out_U):
    scale_U1 = abs(values_U32).max(axis=1, keepdims=True) / np.float32(127)
    scaled = values_U32 * _inverse(scale_U1)
    size = abs(scaled)
    floor = np.floor(size)
    out_U["q"] = np.sign(scaled) * (floor + np.floor(2 * (size - floor)))
    out_U["d"] = scale_U1[:, 0]
    return out_U


def _q4_0(values_U32, out_U):
    farthest = abs(values_U32).argmax(axis=1)[:, None]
    scale_U1 = np.take_along_axis(values_U32, farthest, axis=1) / np.float32(-8)
    out_U["q"] = _packed(values_U32 * _inverse(scale_U1) + np.float32(8.5))
    out_U["d"] = scale_U1[:, 0]
    return out_U


def _q4_1(values_U32, out_U):
    least_U1 = values_U32.min(axis=1, keepdims=True)
    scale_U1 = (values_U32.max(axis=1, keepdims=True) - least_U1) / np.float32(15)
    out_U["q"] = _packed((values_U32 - least_U1) * _inverse(scale_U1) + np.float32(0.5))
    out_U["d"], out_U["m"] = scale_U1[:, 0], least_U1[:, 0]
    return out_U


def _packed(values_U32):
    """(U, 16) bytes: the whole part of value i in the low half of byte i, of value i + 16 in the high one."""
    q = np.trunc(values_U32).astype(np.uint8).clip(0, 15)
    return q[:, :16] | q[:, 16:] << np.uint8(4)


_ENCODERS = {"Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1}
