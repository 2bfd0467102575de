"""A matrix product with integer or float8 weights, and a `Linear` made of it.

Numerics, with c the compute dtype (what numbers and scales mean: `llama_exp.formats.quantized`):

    int8, activations too   y = (k W) / (r scale), with the whole numbers k and r of `integer_product`
    int8, float8            y = (x W) / scale
    int4                    y = x ((W - zero) scale), or x (W / scale) without groups
    int8 under int4         y = (x W) / scale; in float16 x (W / scale), because x W may exceed 65504

Whole numbers up to 256 and float8 are exact in every c, so that their products run on the fast units for c; where the
processor multiplies bytes faster, `integer_product` has them from there. In float32 a sum of integers is exact below
2^24, which 518 inputs cannot exceed; a larger one is rounded once per addition, relatively by 2^-24. In bfloat16 it
accumulates in float32 and is rounded once. Scales are applied in float32.

Gradients reach x as if rounding were the identity (Bengio et al. 2013, arXiv:1308.3432). The backward pass casts the
numbers again instead of keeping floats of them, and numbers and scales have no gradient.

Shape letters: M rows (B * S tokens), I inputs, O outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from llama_exp import backend
from llama_exp.architecture import Quantization
from llama_exp.formats.quantized import KERNEL, SCALE, ZERO, Form, dequantize, part_shapes
from llama_exp.formats.rounding import FLOAT8
from llama_exp.models.linear import Linear
from llama_exp.models.quantized.integer_product import has_fast_product, integer_product, round_rows


def add_parts(layer: keras.layers.Layer, name: str, shape: tuple, form: Form, quantization: Quantization) -> dict:
    """Frozen variables of `layer` for a matrix of `shape`: `name`, `name_scale` and perhaps `name_zero`, by suffix."""
    return {
        suffix: layer.add_weight(
            name=name + suffix,
            shape=part_shape,
            dtype=dtype.name,
            initializer="ones" if suffix == SCALE else _zeros,
            trainable=False,
            autocast=False,
        )
        for suffix, (part_shape, dtype) in part_shapes(shape, form, quantization).items()
    }


def _zeros(shape, dtype):
    return ops.cast(ops.zeros(shape, "float32"), dtype)  # TensorFlow makes no zeros of float8


def write_numbers(variables, store) -> None:
    """Writes `variables` of a quantized layer into Keras' `store`, float8 as bytes, which its files know."""
    for variable in variables:
        store[variable.name] = backend.view(variable)


def read_numbers(variables, store) -> None:
    """Sets `variables` to what `write_numbers` wrote.

    Raises:
        ValueError: the store has not these variables.
    """
    names = sorted(variable.name for variable in variables)
    if sorted(store.keys()) != names:
        raise ValueError(f"the weights file has {sorted(store.keys())} where the model has {names}.")
    for variable in variables:
        numbers = np.asarray(store[variable.name])
        variable.assign(numbers.view(FLOAT8) if variable.dtype == FLOAT8.name else numbers)


def tensors_of(parts: Mapping) -> dict:
    """The values of the variables `parts`, as tensors."""
    # On TensorFlow `.value` is a variable, and custom gradients may not close over one.
    return {suffix: ops.stop_gradient(variable.value) for suffix, variable in parts.items()}


def unpack(packed, size: int, axis: int):
    """`llama_exp.formats.quantized.unpack` for tensors: integers in [-8, 7] as int8."""
    low = ops.right_shift(ops.left_shift(packed, 4), 4)  # arithmetic: copies the sign
    high = ops.right_shift(packed, 4)
    shape = list(ops.shape(packed))
    shape[axis] *= 2
    integers = ops.reshape(ops.stack([low, high], axis=axis + 1), shape)
    return integers if shape[axis] == size else ops.take(integers, np.arange(size), axis=axis)


def to_floats(parts: Mapping, shape: tuple, form: Form, quantization: Quantization, dtype: str):
    """The matrix of `shape` that tensors `parts` stand for, computed in float32, in `dtype`."""
    options = (shape, *form, quantization.mode == "int4", quantization.group_size, dtype)
    return _to_floats(parts[""], parts[SCALE], parts.get(ZERO), *options)


@backend.fused
def _to_floats(integers, scale, zero, shape, input_axis, packed_axis, is_packed, group_size, dtype):
    if is_packed:
        integers = unpack(integers, shape[packed_axis], packed_axis)
    matrix, size = ops.cast(integers, "float32"), shape[input_axis]
    if group_size is None:
        return ops.cast(matrix / ops.expand_dims(scale, input_axis), dtype)
    zero = repeat_groups(ops.cast(zero, "float32"), size, input_axis, group_size)
    return ops.cast((matrix - zero) * repeat_groups(scale, size, input_axis, group_size), dtype)


def repeat_groups(per_group, size: int, axis: int, group_size: int):
    """Repeats what each group of inputs shares, to `size` inputs along `axis`."""
    if size % group_size == 0:  # a broadcast, which costs no memory where XLA compiles it
        return ops.repeat(per_group, group_size, axis=axis)
    return ops.take(per_group, np.arange(size) // group_size, axis=axis)


def cast_exactly(numbers, dtype: str):
    """int8 or float8 in a compute dtype, which holds each of them."""
    return (_cast_by_xla if keras.backend.standardize_dtype(numbers.dtype) == FLOAT8.name else ops.cast)(numbers, dtype)


@backend.fused
def _cast_by_xla(numbers, dtype: str):
    return ops.cast(numbers, dtype)  # TensorFlow's own cast of float8 takes 30 times as long on a CPU


def product(x_MI, parts: Mapping, shape: tuple, form: Form, quantization: Quantization, result_dtype: str):
    """Multiplies rows by a quantized matrix.

    Args:
        x_MI: (M, I) in the compute dtype.
        parts: tensors of the matrix, by suffix.
        shape: of the matrix: (I, O), or (O, I) if `form.input_axis` is 1.
        form: see there.
        quantization: how the matrix is stored.
        result_dtype: of the result, which is rescaled in float32 first.

    Returns:
        (M, O) in `result_dtype`.
    """
    dtype = keras.backend.standardize_dtype(x_MI.dtype)
    forward, backward = ("mi,io->mo", "mo,io->mi") if form.input_axis == 0 else ("mi,oi->mo", "mo,oi->mi")
    rounds, asymmetric = quantization.quantize_activations, quantization.asymmetric_activations
    # The scale is the result's; otherwise the matrix' own, as for sums that would pass float16's largest number.
    by_output = quantization.mode != "int4" and (rounds or dtype != "float16")

    def matrix(rows, parts):
        # Not before its rows are there: whoever runs the graph would make floats of all matrices at once.
        parts = backend.after(rows, parts)
        if by_output:
            return cast_exactly(parts[""], dtype)
        return to_floats(parts, shape, form, quantization, dtype)

    def multiply(x_MI, parts):
        if rounds and form.input_axis == 0 and has_fast_product(parts[""]):
            return integer_product(x_MI, parts[""], parts[SCALE], asymmetric, result_dtype), parts
        rows_MI, scale_M1 = round_rows(x_MI, asymmetric, dtype) if rounds else (x_MI, None)
        y_MO = ops.einsum(forward, rows_MI, matrix(rows_MI, parts))
        if by_output:
            return _rescale(y_MO, parts[SCALE], scale_M1, result_dtype), parts
        return ops.cast(y_MO, result_dtype), parts

    def gradient(parts, upstream_MO):
        if by_output:
            upstream_MO = _rescale(upstream_MO, parts[SCALE], None, dtype)
        dx_MI = ops.einsum(backward, ops.cast(upstream_MO, dtype), matrix(upstream_MO, parts))
        return dx_MI, dict.fromkeys(parts)

    return backend.with_gradient(multiply, gradient)(x_MI, parts)


@backend.fused
def _rescale(y_MO, scale_O, scale_M1, dtype: str):
    """The result y / scale, computed in float32, in `dtype`: scales by output and, where there are some, by row."""
    return ops.cast(ops.cast(y_MO, "float32") / (scale_O if scale_M1 is None else scale_O * scale_M1), dtype)


@keras.saving.register_keras_serializable(package="llama_exp")
class QuantizedLinear(Linear):
    """A `Linear` with integer or float8 weights that do not train.

    Its variables are `kernel`, `kernel_scale` and, for int4 with groups, `kernel_zero`.

    Args:
        output_dim: O.
        quantization: of the model, or of this layer; the attribute is this layer's own (`Quantization.of`).
        **kwargs: Keras layer arguments (`name`, `dtype`).
    """

    def __init__(self, output_dim: int, quantization: Quantization | dict, **kwargs):
        super().__init__(output_dim, **kwargs)
        quantization = Quantization(**quantization) if isinstance(quantization, dict) else quantization
        self.quantization = quantization.of(self.name)

    def build(self, input_shape):
        """Creates the variables for inputs (M, I): a kernel of zeros."""
        self.input_dim = input_shape[-1]
        parts = add_parts(self, "kernel", (self.input_dim, self.output_dim), KERNEL, self.quantization)
        self.kernel, self.kernel_scale, self.kernel_zero = parts[""], parts[SCALE], parts.get(ZERO)
        self._parts = parts
        self.built = True

    def _product(self, x_MI, exact: bool = False):
        shape, quantization = (self.input_dim, self.output_dim), self.quantization
        if exact:
            quantization = dataclasses.replace(quantization, quantize_activations=False)
        return product(x_MI, tensors_of(self._parts), shape, KERNEL, quantization, self.compute_dtype)

    def save_own_variables(self, store) -> None:
        """Writes the stored numbers into one of Keras' files."""
        write_numbers(self._parts.values(), store)

    def load_own_variables(self, store) -> None:
        """Reads the stored numbers from one of Keras' files."""
        read_numbers(self._parts.values(), store)

    def float_kernel(self) -> np.ndarray:
        """The weights that the stored numbers stand for; see `Linear.float_kernel`."""
        parts = {suffix: ops.convert_to_numpy(variable.value) for suffix, variable in self._parts.items()}
        return dequantize(parts, (self.input_dim, self.output_dim), KERNEL, self.quantization)

    def get_config(self) -> dict:
        """Constructor arguments."""
        return super().get_config() | {"quantization": vars(self.quantization)}
