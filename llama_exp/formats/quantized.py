"""Weights as integers: how a matrix of floats becomes integers and scales, and back. NumPy only.

What is stored instead of a matrix `name`, by mode (G groups along the inputs; `scale` is float32, the rest int8):

    int8              name (I, O)            name_scale (O,)                       w = integer / scale
    int4, one scale   name (I, ceil(O / 2))  name_scale (O,)                       w = integer / scale
    int4, groups      name (I, ceil(O / 2))  name_scale (G, O)   name_zero (G, O)  w = (integer - zero) * scale

The integers, scales and zero points are those of Keras 3.15 on float32 weights, bit by bit. Scales are float32
whatever the model's policy. Two 4-bit integers share a byte, the one of even index in the low half.

    matrix                           inputs along    packed along
    kernel (I, O)                    axis 0          axis 1
    embeddings (V, D)                axis 1: D       axis 1         a scale per token, or per token and group
    reverse_embeddings (D, V)        axis 0: D       axis 0         likewise

Norm scales stay floating-point. Reading a float checkpoint through `quantized`, or a quantized one through
`dequantized`, converts tensor by tensor: neither ever holds the whole model.

Shape letters: I inputs, O outputs, V vocabulary, D hidden_dim, G groups.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from llama_exp.architecture import EMBEDDINGS, REVERSE_EMBEDDINGS, Quantization, variable_shapes
from llama_exp.formats.checkpoint import Checkpoint, Tensor
from llama_exp.formats.raw import aligned_empty

INT8_MAX = 127
INT4_MIN, INT4_MAX = -8, 7
EPSILON = 1e-7  # keeps the scale of a zero column finite
SCALE, ZERO = "_scale", "_zero"
_BLOCK_BYTES = 1 << 22  # scratch memory of a conversion


class Form(NamedTuple):
    """Which axis of a matrix holds the inputs, and along which axis 4-bit integers are packed."""

    input_axis: int
    packed_axis: int


KERNEL, TABLE, REVERSE_TABLE = Form(0, 1), Form(1, 1), Form(0, 0)


def require_possible(quantization: Quantization | None, compute_dtype: str) -> None:
    """Raises ValueError if the products cannot run in `compute_dtype`."""
    if quantization is not None and quantization.mode == "int8" and compute_dtype == "float16":
        raise ValueError(
            "int8 with compute dtype float16: sums of integer products exceed float16's largest number, 65504. "
            "Use mixed_bfloat16, bfloat16 or float32."
        )


def form_of(path: str) -> Form | None:
    """How the variable of that path is quantized; None for those that stay floating-point."""
    if path in (EMBEDDINGS, REVERSE_EMBEDDINGS):
        return TABLE if path == EMBEDDINGS else REVERSE_TABLE
    return KERNEL if path.endswith("/kernel") else None


def part_shapes(shape: tuple[int, int], form: Form, quantization: Quantization) -> dict[str, tuple]:
    """Suffix -> (shape, dtype) of what is stored for a matrix: `""` integers, then `_scale` and perhaps `_zero`."""
    integers, scales = list(shape), list(shape)
    if quantization.mode == "int4":
        integers[form.packed_axis] = math.ceil(shape[form.packed_axis] / 2)
    parts = {"": (tuple(integers), np.dtype("int8"))}
    if quantization.group_size is None:
        del scales[form.input_axis]
        return parts | {SCALE: (tuple(scales), np.dtype("float32"))}
    scales[form.input_axis] = math.ceil(shape[form.input_axis] / quantization.group_size)
    return parts | {SCALE: (tuple(scales), np.dtype("float32")), ZERO: (tuple(scales), np.dtype("int8"))}


def variable_parts(config: Mapping, quantization: Quantization) -> dict[str, tuple]:
    """Path -> (shape, dtype) of every variable of a quantized model; a dtype of None is the policy's own."""
    parts = {}
    for path, shape in variable_shapes(config).items():
        form = form_of(path)
        if form is None:
            parts[path] = (shape, None)
        else:
            parts |= {path + suffix: part for suffix, part in part_shapes(shape, form, quantization).items()}
    return parts


def quantize(matrix: np.ndarray, form: Form, quantization: Quantization) -> dict[str, np.ndarray]:
    """Integers and scales of a matrix, by the suffixes of `part_shapes`.

    Numerics: float32; ties round to even.

    Raises:
        ValueError: a value is not finite.
    """
    matrix = np.asarray(matrix, "float32")
    if quantization.group_size is not None:
        parts = _quantize_groups(matrix, form.input_axis, quantization.group_size)
    else:
        limits = (-INT8_MAX, INT8_MAX) if quantization.mode == "int8" else (INT4_MIN, INT4_MAX)
        parts = _quantize_outputs(matrix, form.input_axis, *limits)
    if quantization.mode == "int4":
        parts[""] = pack(parts[""], form.packed_axis)
    return parts


def _quantize_outputs(matrix, axis, lowest, highest):
    largest = np.maximum(matrix.max(axis=axis, keepdims=True), -matrix.min(axis=axis, keepdims=True))
    _require_finite(largest)
    scale = np.float32(highest) / (largest + np.float32(EPSILON))
    integers = aligned_empty(matrix.shape, "int8")
    for rows in _row_blocks(matrix.shape):
        values = matrix[rows] * (scale if axis == 0 else scale[rows])
        np.clip(np.rint(values, out=values), lowest, highest, out=values)
        integers[rows] = values
    return {"": integers, SCALE: np.squeeze(scale, axis)}


def _quantize_groups(matrix, axis, group_size):
    """Groups have a zero point: [min, max] becomes [-8, 7]. A shorter last group counts as filled up with zeros."""
    size = matrix.shape[axis]
    integers = np.empty(matrix.shape, "int8")
    scales, zeros = [], []
    for start in range(0, size, group_size):
        group = (slice(None),) * axis + (slice(start, start + group_size),)
        values = matrix[group]
        low, high = values.min(axis=axis, keepdims=True), values.max(axis=axis, keepdims=True)
        if start + group_size > size:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
        _require_finite(high - low)
        scale = (high - low + np.float32(EPSILON)) / np.float32(INT4_MAX - INT4_MIN)
        zero = np.clip(np.rint(-low / scale) + INT4_MIN, INT4_MIN, INT4_MAX)
        values = np.rint(values / scale) + zero
        integers[group] = np.clip(values, INT4_MIN, INT4_MAX, out=values)
        scales.append(scale)
        zeros.append(zero.astype("int8"))
    return {"": integers, SCALE: np.concatenate(scales, axis), ZERO: np.concatenate(zeros, axis)}


def _require_finite(extremes):
    if not np.isfinite(extremes).all():
        raise ValueError(
            "a matrix with values that are not finite cannot be quantized; look for the step that made them"
        )


def _row_blocks(shape) -> Iterator[slice]:
    step = max(1, _BLOCK_BYTES // (4 * shape[1]))
    return (slice(start, start + step) for start in range(0, shape[0], step))


def pack(integers: np.ndarray, axis: int) -> np.ndarray:
    """Two integers of [-8, 7] per byte along `axis`; an odd last one shares its byte with a 0."""
    even = np.moveaxis(integers, axis, 0)[::2]
    odd = np.moveaxis(integers, axis, 0)[1::2]
    packed = (even & 0x0F).astype("int8")
    packed[: len(odd)] |= (odd << 4).astype("int8")
    return np.ascontiguousarray(np.moveaxis(packed, 0, axis))


def unpack(packed: np.ndarray, size: int, axis: int) -> np.ndarray:
    """The `size` integers along `axis` that `pack` was given."""
    packed = np.moveaxis(packed, axis, 0)
    integers = np.empty((2 * len(packed), *packed.shape[1:]), "int8")
    integers[::2] = (packed << 4).astype("int8") >> 4
    integers[1::2] = packed >> 4
    return np.ascontiguousarray(np.moveaxis(integers[:size], 0, axis))


def dequantize(parts: Mapping[str, np.ndarray], shape: tuple, form: Form, quantization: Quantization) -> np.ndarray:
    """The float32 matrix of `shape` that `parts` stand for."""
    integers = parts[""]
    if quantization.mode == "int4":
        integers = unpack(integers, shape[form.packed_axis], form.packed_axis)
    matrix = integers.astype("float32")
    axis, scale = form.input_axis, parts[SCALE]
    if quantization.group_size is None:
        matrix /= np.expand_dims(scale, axis)
        return matrix
    for index, start in enumerate(range(0, shape[axis], quantization.group_size)):
        group = (slice(None),) * axis + (slice(start, start + quantization.group_size),)
        one = (slice(None),) * axis + (slice(index, index + 1),)
        matrix[group] = (matrix[group] - parts[ZERO][one]) * scale[one]
    return matrix


def quantized(checkpoint: Checkpoint, quantization: Quantization) -> Checkpoint:
    """A float checkpoint as if it had been stored with `quantization`; tensors are converted when they are read."""
    tensors = {}
    for path, tensor in checkpoint.tensors.items():
        form = form_of(path)
        if form is None:
            tensors[path] = tensor
            continue
        converted = _Converted(tensor, form, quantization)
        for suffix, (shape, dtype) in part_shapes(tensor.shape, form, quantization).items():
            tensors[path + suffix] = Tensor(shape, dtype, tensor.origin, converted.reader(suffix))
    return dataclasses.replace(checkpoint, tensors=tensors, quantization=quantization)


class _Converted:
    """The parts of one tensor, read and quantized once for all of them, and kept until each has been fetched."""

    def __init__(self, tensor: Tensor, form: Form, quantization: Quantization):
        self._tensor, self._form, self._quantization = tensor, form, quantization
        self._parts: dict[str, np.ndarray] = {}

    def reader(self, suffix: str):
        """The `read` of the part with that suffix."""

        def read(dtype):
            if suffix not in self._parts:
                self._parts = quantize(self._tensor.read(np.dtype("float32")), self._form, self._quantization)
            part = self._parts.pop(suffix)
            return part if dtype is None else part.astype(dtype, copy=False)

        return read


def dequantized(checkpoint: Checkpoint) -> Checkpoint:
    """A quantized checkpoint as if it had been stored in float32; the activations' rounding, if any, is lost."""
    tensors, stored, quantization = {}, checkpoint.tensors, checkpoint.quantization
    for path, shape in variable_shapes(checkpoint.config).items():
        form = form_of(path)
        if form is None:
            tensors[path] = stored[path]
            continue
        parts = {suffix: stored[path + suffix] for suffix in part_shapes(shape, form, quantization)}
        read = _float_reader(parts, shape, form, quantization)
        tensors[path] = Tensor(shape, np.dtype("float32"), stored[path].origin, read)
    return dataclasses.replace(checkpoint, tensors=tensors, quantization=None)


def _float_reader(parts, shape, form, quantization):
    def read(dtype):
        matrix = dequantize({suffix: part.read(None) for suffix, part in parts.items()}, shape, form, quantization)
        return matrix if dtype is None else matrix.astype(dtype, copy=False)

    return read
