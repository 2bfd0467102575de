"""Weights as integers or float8: what is stored for a matrix of floats, and what that means. NumPy only.

What is stored instead of a matrix `name`, by mode (G groups along the inputs; `scale` is float32, `name` of float8 is
float8_e4m3fn, the rest int8):

    int8              name (I, O)            name_scale (O,)                       w = integer / scale
    float8            name (I, O)            name_scale (O,)                       w = number / scale
    int4, one scale   name (I, ceil(O / 2))  name_scale (O,)                       w = integer / scale
    int4, groups      name (I, ceil(O / 2))  name_scale (G, O)   name_zero (G, O)  w = (integer - zero) * scale

This is Keras' own format (3.15), except that scales are float32 whatever the model's policy, and that Keras stores no
float8: a model in its mode of that name trains, with floats for weights. Which numbers a matrix gets:
`llama_exp.formats.rounding`. Two 4-bit integers share a byte, the one of even index in the low half. Under int4
embeddings and output matrix may be int8 (`Quantization.embeddings`), and some of the kernels (`int8_layers`).

    matrix                           inputs along    packed along
    kernel (I, O)                    axis 0          axis 1
    embeddings (V, D)                axis 1: D       axis 1         a scale per token, or per token and group
    reverse_embeddings (D, V)        axis 0: D       axis 0         likewise

Norm scales stay floating-point. Reading a float checkpoint through `quantize_checkpoint`, or a quantized one through
`dequantize_checkpoint`, converts tensor by tensor: neither ever holds the whole model.

Shape letters: I inputs, O outputs, V vocabulary, D hidden_dim, G groups.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from llama_exp.architecture import EMBEDDINGS, REVERSE_EMBEDDINGS, Quantization, variable_shapes
from llama_exp.formats.checkpoint import Checkpoint, Tensor
from llama_exp.formats.rounding import FLOAT8, INT8, round_groups, round_outputs

SCALE, ZERO = "_scale", "_zero"


class Form(NamedTuple):
    """Which axis of a matrix holds the inputs, and along which axis 4-bit integers are packed."""

    input_axis: int
    packed_axis: int


KERNEL, TABLE, REVERSE_TABLE = Form(0, 1), Form(1, 1), Form(0, 0)


def require_possible(quantization: Quantization | None, compute_dtype: str) -> None:
    """Raises ValueError if the products cannot run in `compute_dtype`."""
    if quantization is not None and quantization.mode != "int4" and compute_dtype == "float16":
        raise ValueError(
            f"{quantization.mode} with compute dtype float16: sums of products with numbers of up to 127 (int8) or 448 "
            "(float8) exceed float16's largest number, 65504. Use mixed_bfloat16, bfloat16 or float32."
        )


def form_of(path: str) -> Form | None:
    """How the variable of that path is quantized; None for those that stay floating-point."""
    if path in (EMBEDDINGS, REVERSE_EMBEDDINGS):
        return TABLE if path == EMBEDDINGS else REVERSE_TABLE
    return KERNEL if path.endswith("/kernel") else None


def of_matrix(path: str, quantization: Quantization) -> Quantization:
    """How the matrix that is the variable of that path is stored; what the functions of one matrix take."""
    return quantization.of(path.rpartition("/")[0])


def part_shapes(shape: tuple[int, ...], form: Form, quantization: Quantization) -> dict[str, tuple]:
    """Suffix -> (shape, dtype) of what is stored for a matrix: `""` numbers, then `_scale` and perhaps `_zero`."""
    numbers, scales = list(shape), list(shape)
    if quantization.mode == "int4":
        numbers[form.packed_axis] = math.ceil(shape[form.packed_axis] / 2)
    parts = {"": (tuple(numbers), FLOAT8 if quantization.mode == "float8" else INT8)}
    if quantization.group_size is None:
        del scales[form.input_axis]
        return parts | {SCALE: (tuple(scales), np.dtype("float32"))}
    scales[form.input_axis] = math.ceil(shape[form.input_axis] / quantization.group_size)
    return parts | {SCALE: (tuple(scales), np.dtype("float32")), ZERO: (tuple(scales), INT8)}


def variable_parts(config: Mapping, quantization: Quantization) -> dict[str, tuple]:
    """Path -> (shape, dtype) of every variable of a quantized model; a dtype of None is the policy's own."""
    parts: dict[str, tuple] = {}
    for path, shape in variable_shapes(config).items():
        form = form_of(path)
        if form is None:
            parts[path] = (shape, None)
        else:
            own = of_matrix(path, quantization)
            parts |= {path + suffix: part for suffix, part in part_shapes(shape, form, own).items()}
    return parts


def quantize(
    matrix: np.ndarray, form: Form, quantization: Quantization, importance: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Numbers and scales of a matrix, by the suffixes of `part_shapes`.

    Args:
        matrix: floats.
        form: see there.
        quantization: the matrix' own.
        importance: (I,) how much each input counts, for int4; None: all the same.

    Numerics: float32; see `llama_exp.formats.rounding`.

    Raises:
        ValueError: a value is not finite.
    """
    matrix = finite(matrix)
    if quantization.mode != "int4":
        numbers, scale = round_outputs(matrix, form.input_axis, FLOAT8 if quantization.mode == "float8" else INT8)
        return {"": numbers, SCALE: scale}
    return stored_groups(
        *round_groups(matrix, form.input_axis, quantization.group_size, importance), form, quantization
    )


def finite(matrix: np.ndarray) -> np.ndarray:
    """The matrix in float32; ValueError if a value is not finite."""
    matrix = np.asarray(matrix, "float32")
    if not (np.isfinite(matrix.max()) and np.isfinite(matrix.min())):
        raise ValueError(
            "a matrix with values that are not finite cannot be quantized; look for the step that made them"
        )
    return matrix


def stored_groups(
    integers: np.ndarray, step: np.ndarray, zero: np.ndarray, form: Form, quantization: Quantization
) -> dict[str, np.ndarray]:
    """What `quantize` returns for int4, of the results of `rounding.round_groups`."""
    packed = pack(integers, form.packed_axis)
    if quantization.group_size is None:
        return {"": packed, SCALE: 1 / np.squeeze(step, form.input_axis)}
    return {"": packed, SCALE: step, ZERO: zero}


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
    numbers = parts[""]
    if quantization.mode == "int4":
        numbers = unpack(numbers, shape[form.packed_axis], form.packed_axis)
    matrix = numbers.astype("float32")
    axis, scale = form.input_axis, parts[SCALE]
    if quantization.group_size is None:
        matrix /= np.expand_dims(scale, axis)
        return matrix
    for index, start in enumerate(range(0, shape[axis], quantization.group_size)):
        group = (slice(None),) * axis + (slice(start, start + quantization.group_size),)
        one = (slice(None),) * axis + (slice(index, index + 1),)
        matrix[group] = (matrix[group] - parts[ZERO][one]) * scale[one]
    return matrix


def quantize_checkpoint(
    checkpoint: Checkpoint,
    quantization: Quantization,
    importance: Mapping[str, np.ndarray] | None = None,
    done: Mapping[str, dict[str, np.ndarray]] | None = None,
) -> Checkpoint:
    """A float checkpoint as if it had been stored with `quantization`; tensors are converted when they are read.

    `importance` is that of `quantize`, by path; a matrix that is not in it has inputs that count all the same. `done`
    are matrices that `quantize` has already been called for, by path; they are not read again.
    """
    tensors = {}
    for path, tensor in checkpoint.tensors.items():
        form = form_of(path)
        if form is None:
            tensors[path] = tensor
            continue
        own = of_matrix(path, quantization)
        converted = _Converted(tensor, form, own, (importance or {}).get(path))
        for suffix, (shape, dtype) in part_shapes(tensor.shape, form, own).items():
            read = _reader(done[path][suffix]) if done is not None and path in done else converted.reader(suffix)
            tensors[path + suffix] = Tensor(shape, dtype, tensor.origin, read)
    return dataclasses.replace(checkpoint, tensors=tensors, quantization=quantization)


def _reader(part):
    return lambda dtype: part.copy() if dtype is None else part.astype(dtype)


class _Converted:
    """The parts of one tensor, read and quantized once for all of them, and kept until each has been fetched."""

    def __init__(self, tensor: Tensor, *how):
        self._tensor, self._how = tensor, how  # what `quantize` takes beside the matrix
        self._parts: dict[str, np.ndarray] = {}

    def reader(self, suffix: str):
        """The `read` of the part with that suffix."""

        def read(dtype):
            if suffix not in self._parts:
                self._parts = quantize(self._tensor.read(np.dtype("float32")), *self._how)
            part = self._parts.pop(suffix)
            return part if dtype is None else part.astype(dtype, copy=False)

        return read


def dequantize_checkpoint(checkpoint: Checkpoint) -> Checkpoint:
    """A quantized checkpoint as if it had been stored in float32; the activations' rounding, if any, is lost."""
    tensors, stored, quantization = {}, checkpoint.tensors, checkpoint.quantization
    if quantization is None:
        return checkpoint
    for path, shape in variable_shapes(checkpoint.config).items():
        form = form_of(path)
        if form is None:
            tensors[path] = stored[path]
            continue
        own = of_matrix(path, quantization)
        parts = {suffix: stored[path + suffix] for suffix in part_shapes(shape, form, own)}
        read = _float_reader(parts, shape, form, own)
        tensors[path] = Tensor(shape, np.dtype("float32"), stored[path].origin, read)
    return dataclasses.replace(checkpoint, tensors=tensors, quantization=None)


def _float_reader(parts, shape, form, quantization):
    def read(dtype):
        matrix = dequantize({suffix: part.read(None) for suffix, part in parts.items()}, shape, form, quantization)
        return matrix if dtype is None else matrix.astype(dtype, copy=False)

    return read
