"""A matrix product with integer weights, and a `Linear` made of it.

Numerics, with c the compute dtype (what integers and scales mean: `llama_exp.formats.quantized`):

    int8, activations too   r = 127 / (max|x| + 1e-7) per row;  y = (round(x r) W) / (r scale)
    int8                    y = (x W) / scale
    int4                    y = x ((W - zero) scale), or x (W / scale) without groups

Integers below 128 are exact in every c, so that their products run on the fast units for c: on CPU, products of
integer tensors are several times slower. In float32 a sum is exact below 2^24, which 1040 inputs cannot exceed; a
larger one is rounded once per addition, relatively by 2^-24. In bfloat16 it accumulates in float32 and is rounded once.
Scales are applied in float32.

Gradients reach x as if rounding were the identity (Bengio et al. 2013, arXiv:1308.3432). The backward pass makes
floats of the integers again instead of keeping them, and integers and scales have no gradient.

Shape letters: M rows (B * S tokens), I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from llama_exp.architecture import Quantization
from llama_exp.formats.quantized import EPSILON, INT8_MAX, KERNEL, SCALE, ZERO, Form, part_shapes
from llama_exp.models.linear import Linear


def add_parts(layer: keras.layers.Layer, name: str, shape: tuple, form: Form, quantization: Quantization) -> dict:
    """Frozen variables of `layer` for a matrix of `shape`: `name`, `name_scale` and perhaps `name_zero`, by suffix."""
    return {
        suffix: layer.add_weight(
            name=name + suffix,
            shape=part_shape,
            dtype=dtype.name,
            initializer="ones" if suffix == SCALE else "zeros",
            trainable=False,
            autocast=False,
        )
        for suffix, (part_shape, dtype) in part_shapes(shape, form, quantization).items()
    }


def tensors_of(parts: Mapping) -> dict:
    """The values of the variables `parts`, as tensors."""
    # On TensorFlow `.value` is a variable, and custom gradients may not close over one.
    return {suffix: ops.stop_gradient(variable.value) for suffix, variable in parts.items()}


def unpacked(packed, size: int, axis: int):
    """`llama_exp.formats.quantized.unpack` for tensors: integers in [-8, 7] as int8."""
    low = ops.right_shift(ops.left_shift(packed, 4), 4)  # arithmetic: copies the sign
    high = ops.right_shift(packed, 4)
    shape = list(packed.shape)
    shape[axis] *= 2
    integers = ops.reshape(ops.stack([low, high], axis=axis + 1), shape)
    return integers if shape[axis] == size else ops.take(integers, np.arange(size), axis=axis)


def dequantized(parts: Mapping, shape: tuple, form: Form, quantization: Quantization, dtype: str):
    """The matrix of `shape` that tensors `parts` stand for, computed in float32, in `dtype`."""
    integers = parts[""]
    if quantization.mode == "int4":
        integers = unpacked(integers, shape[form.packed_axis], form.packed_axis)
    matrix, axis = ops.cast(integers, "float32"), form.input_axis
    if quantization.group_size is None:
        return ops.cast(matrix / ops.expand_dims(parts[SCALE], axis), dtype)
    zero = grouped(ops.cast(parts[ZERO], "float32"), shape[axis], axis, quantization.group_size)
    return ops.cast((matrix - zero) * grouped(parts[SCALE], shape[axis], axis, quantization.group_size), dtype)


def grouped(per_group, size: int, axis: int, group_size: int):
    """Repeats what each group of inputs shares, to `size` inputs along `axis`."""
    return ops.take(per_group, np.arange(size) // group_size, axis=axis)


def rounded_rows(x, dtype: str):
    """Each row of x (..., I) as integers of [-127, 127], in `dtype`, and their scale (..., 1) float32."""
    x = ops.cast(x, "float32")
    scale = INT8_MAX / (ops.max(ops.abs(x), axis=-1, keepdims=True) + EPSILON)
    return ops.cast(ops.clip(ops.round(x * scale), -INT8_MAX, INT8_MAX), dtype), scale


def product(x_MI, parts: Mapping, shape: tuple, form: Form, quantization: Quantization):
    """Multiplies rows by a quantized matrix.

    Args:
        x_MI: (M, I) in the compute dtype.
        parts: tensors of the matrix, by suffix.
        shape: of the matrix: (I, O), or (O, I) if `form.input_axis` is 1.
        form: see there.
        quantization: how the matrix is stored.

    Returns:
        (M, O) float32.
    """
    dtype = keras.backend.standardize_dtype(x_MI.dtype)
    forward, backward = ("mi,io->mo", "mo,io->mi") if form.input_axis == 0 else ("mi,oi->mo", "mo,oi->mi")
    by_output = quantization.mode == "int8"  # the scale is the result's; otherwise the matrix' own

    def matrix():
        if by_output:
            return ops.cast(parts[""], dtype)
        return dequantized(parts, shape, form, quantization, dtype)

    @ops.custom_gradient
    def multiply(x_MI):
        rows_MI, scale = x_MI, parts[SCALE]
        if quantization.quantize_activations:
            rows_MI, scale_M1 = rounded_rows(x_MI, dtype)
            scale = scale * scale_M1
        y_MO = ops.cast(ops.einsum(forward, rows_MI, matrix()), "float32")

        def gradient(upstream_MO):
            if by_output:
                upstream_MO = upstream_MO / parts[SCALE]
            return ops.einsum(backward, ops.cast(upstream_MO, dtype), matrix())

        return y_MO / scale if by_output else y_MO, gradient

    return multiply(x_MI)


@keras.saving.register_keras_serializable(package="llama_exp")
class QuantizedLinear(Linear):
    """y = x W with integer weights that do not train, plus adapter(x) where an adapter is attached.

    Its variables are `kernel`, `kernel_scale` and, for int4 with groups, `kernel_zero`.

    Args:
        output_dim: O.
        quantization: how the kernel is stored.
        **kwargs: Keras layer arguments (`name`, `dtype`).
    """

    def __init__(self, output_dim: int, quantization: Quantization | dict, **kwargs):
        super().__init__(output_dim, **kwargs)
        self.quantization = Quantization(**quantization) if isinstance(quantization, dict) else quantization

    def build(self, input_shape):
        """Creates the variables for inputs (M, I): a kernel of zeros."""
        self.input_dim = input_shape[-1]
        parts = add_parts(self, "kernel", (self.input_dim, self.output_dim), KERNEL, self.quantization)
        self.kernel, self.kernel_scale, self.kernel_zero = parts[""], parts[SCALE], parts.get(ZERO)
        self._parts = parts
        self.built = True

    def _product(self, x_MI):
        shape = (self.input_dim, self.output_dim)
        return ops.cast(product(x_MI, tensors_of(self._parts), shape, KERNEL, self.quantization), self.compute_dtype)

    def get_config(self) -> dict:
        """Constructor arguments."""
        return super().get_config() | {"quantization": vars(self.quantization)}
