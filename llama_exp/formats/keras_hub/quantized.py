"""The tensors of a quantized KerasHub preset <-> quantized tensors by this project's names.

A layer's tensors are numbered in the order in which Keras declares them:

    vars/0 kernel    vars/1 kernel_scale    vars/2 kernel_zero, vars/3 g_idx (int4 with groups)
    vars/0 embeddings, then its scale, zero and g_idx, then reverse_embeddings with scale and zero (untied)

The integers are ours, int4 in the same packing; a layer that is int8 under int4 looks as it does under int8.
Differences: Keras shapes an int8 scale for its einsum (1, 1, N, H); it stores for each layer which group an input is in
(`g_idx`), which follows from the group size and is checked; and the zero points of the output matrix are floats.

Shape letters: D hidden_dim, N query heads, H head_dim, I inputs, O outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from llama_exp.architecture import REVERSE_EMBEDDINGS, Quantization, variable_shapes
from llama_exp.errors import InputError, Problem
from llama_exp.formats.checkpoint import Tensor
from llama_exp.formats.hdf5_file import Stored, make_tensor
from llama_exp.formats.keras_hub import weights as keras_hub_weights
from llama_exp.formats.keras_hub.weights import FileTensor
from llama_exp.formats.quantized import REVERSE_TABLE, SCALE, ZERO, form_of, of_matrix, part_shapes
from llama_exp.formats.rounding import INT4_MAX, INT4_MIN

GROUP_INDEX = "_group_index"
INT8, FLOAT32 = np.dtype("int8"), np.dtype("float32")


def layout(config: Mapping, quantization: Quantization) -> dict[str, FileTensor]:
    """Every tensor of a quantized preset by its path in the HDF5 file; see `keras_hub_weights.layout`."""
    tensors: dict[str, FileTensor] = {}
    shapes = variable_shapes(config)
    counts: dict[str, int] = {}
    for path, tensor in keras_hub_weights.layout(config).items():
        group = path.rpartition("/")[0]
        for part in _file_parts(tensor, shapes[tensor.variable], of_matrix(tensor.variable, quantization)):
            index = counts[group] = counts.get(group, -1) + 1
            tensors[f"{group}/{index}"] = part
    return tensors


def _file_parts(tensor: FileTensor, shape: tuple, quantization: Quantization) -> list[FileTensor]:
    """What a file has for one matrix, in its order; `quantization` is the matrix' own."""
    form = form_of(tensor.variable)
    if form is None:
        return [tensor]
    parts = []
    for suffix, (part_shape, dtype) in part_shapes(shape, form, quantization).items():
        file_dtype = INT8 if dtype == INT8 and not (suffix == ZERO and form is REVERSE_TABLE) else None
        parts.append(FileTensor(tensor.variable + suffix, part_shape, tensor.layer_name, file_dtype))
    if quantization.mode == "int8":
        parts[0] = parts[0]._replace(file_shape=tensor.file_shape)
        if len(tensor.file_shape) == 3:  # the heads are inputs, or outputs
            outputs = tensor.file_shape[1:] if tensor.file_shape[0] == shape[0] else tensor.file_shape[2:]
            parts[1] = parts[1]._replace(file_shape=(1, 1, *outputs))
    if quantization.group_size is not None and form is not REVERSE_TABLE:  # which shares that of the other table
        size = shape[form.input_axis]
        parts.append(FileTensor(tensor.variable + GROUP_INDEX, (size,), tensor.layer_name))
    return parts


def output_matrix_path(quantization: Quantization) -> str:
    """Where a file has the output matrix, if it has one of its own."""
    table = FileTensor("token_embedding/embeddings", (1, 1), "token_embedding")
    num_before = len(_file_parts(table, (1, 1), of_matrix(table.variable, quantization)))
    return f"{keras_hub_weights.EMBEDDINGS.rpartition('/')[0]}/{num_before}"


def read_tensors(stored: Mapping[str, Stored], config: Mapping, quantization: Quantization) -> dict[str, Tensor]:
    """The tensors of an open preset whose headers were compared with `layout`, by our paths.

    Reading one raises InputError, beside what `Tensor.read` does, if scales are not positive, or zero points or groups
    are not those of such a file.
    """
    ours, found = {}, {tensor.variable: stored[path] for path, tensor in layout(config, quantization).items()}
    for path, shape in variable_shapes(config).items():
        form = form_of(path)
        if form is None:
            ours[path] = make_tensor(found[path], shape)
            continue
        own = of_matrix(path, quantization)
        parts = part_shapes(shape, form, own)
        tensors = {suffix: make_tensor(found[path + suffix], part_shape) for suffix, (part_shape, _) in parts.items()}
        tensors[SCALE] = _checked(tensors[SCALE], lambda scale: (scale > 0).all(), "a scale is not above 0")
        if ZERO in tensors:
            tensors[ZERO] = _as_int8(_checked(tensors[ZERO], _is_zero_point, "a zero point is no integer of 4 bits"))
        if path + GROUP_INDEX in found:
            size = shape[form.input_axis]
            index = make_tensor(found[path + GROUP_INDEX], (size,))
            tensors[SCALE] = _with_groups(tensors[SCALE], index, np.arange(size) // (own.group_size or size))
        ours |= {path + suffix: tensor for suffix, tensor in tensors.items()}
    return ours


def file_tensors(config: Mapping, tensors: Mapping[str, Tensor], quantization: Quantization) -> dict[str, Tensor]:
    """`tensors` with what only the file has: every variable of `layout`."""
    written = dict(tensors)
    for tensor in layout(config, quantization).values():
        path = tensor.variable
        if path.endswith(GROUP_INDEX):
            (size,) = tensor.file_shape
            groups = (np.arange(size) // (quantization.group_size or size)).astype(FLOAT32)
            written[path] = _constant(path, groups)
    zero = REVERSE_EMBEDDINGS + ZERO
    if zero in written:
        integers = written[zero]
        written[zero] = dataclasses.replace(
            integers, dtype=FLOAT32, read=lambda dtype: integers.read(None).astype(FLOAT32)
        )
    return written


def _constant(path: str, values: np.ndarray) -> Tensor:
    return Tensor(values.shape, values.dtype, path, lambda dtype: values)


def _checked(tensor: Tensor, is_sound, what: str) -> Tensor:
    def read(dtype=None):
        array = tensor.read(dtype)
        if not is_sound(array):
            raise _damaged(tensor, what)
        return array

    return dataclasses.replace(tensor, read=read)


def _is_zero_point(array) -> bool:
    return bool(((array >= INT4_MIN) & (array <= INT4_MAX) & (array == np.rint(array.astype(FLOAT32)))).all())


def _as_int8(tensor: Tensor) -> Tensor:
    """Zero points, whatever they are in the file; they are checked before they are cast."""

    def read(dtype=None):
        return tensor.read(None).astype(dtype or INT8)

    return dataclasses.replace(tensor, dtype=INT8, read=read)


def _with_groups(scale: Tensor, index: Tensor, groups: np.ndarray) -> Tensor:
    """The scales, which are only right if the inputs are in these groups."""

    def read(dtype=None):
        if not np.array_equal(index.read(FLOAT32), groups):
            raise _damaged(index, "the inputs are not in groups one after the other")
        return scale.read(dtype)

    return dataclasses.replace(scale, read=read)


def _damaged(tensor: Tensor, what: str) -> InputError:
    action = "download the preset again, or use one with floating-point weights"
    return InputError(Problem(what, tensor.origin, f"shape {tensor.shape}", action))
