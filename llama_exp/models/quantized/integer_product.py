"""Rows rounded to 8 bits, and their product with int8 weights on the processor's own instructions.

    symmetric, as Keras     r = 127 / (max|x| + 1e-7);                     k = round(x r)      in [-127, 127]
    asymmetric              r = 255 / (max(x, 0) - min(x, 0) + 1e-7);      k = round(x r)      in [-z, 255 - z]
                            z = round(-min(x, 0) r)

per row, so that x = k / r up to half a step, and y = (k W) / (r scale). One large number decides how coarse its row
becomes; where all large ones have one sign, as in a Llama, asymmetric steps are half as long (docs/adr/0010).

`integer_product` has the same numbers as a product of floats has from these whole numbers, in fewer operations: a
processor with VNNI multiplies four pairs of bytes per lane and instruction, two of bfloat16, and W is read as it lies.
One operand of these instructions is unsigned. So rows carry their zero point z more (128 where they are symmetric), and
z times the sums of W's columns is taken off again, which one more row of ones finds out.

The sum is that of whole numbers in int32, exact up to `MOST_INPUTS`.

Shape letters: M rows (B * S tokens), L = M + 1, I inputs, O outputs.
"""

from __future__ import annotations

from keras import ops

from llama_exp import backend
from llama_exp.formats.rounding import EPSILON, INT8_MAX, UINT8_MAX

SYMMETRIC_ZERO = 128
MOST_INPUTS = (2**31 - 1) // (UINT8_MAX * INT8_MAX)  # of the largest sum that int32 holds


@backend.fused
def round_rows(x, asymmetric: bool, dtype: str):
    """Each row of x (..., I) as whole numbers, in `dtype`, which must hold 255, and their scale (..., 1) float32."""
    integers, scale, _ = _round(x, asymmetric)
    return ops.cast(integers, dtype), scale


def _round(x, asymmetric: bool):
    """The whole numbers k, the scale r and the zero point z of x, as above; float32."""
    x = ops.cast(x, "float32")
    if not asymmetric:
        scale = INT8_MAX / (ops.max(ops.abs(x), axis=-1, keepdims=True) + EPSILON)
        return ops.clip(ops.round(x * scale), -INT8_MAX, INT8_MAX), scale, SYMMETRIC_ZERO
    low = ops.minimum(ops.min(x, axis=-1, keepdims=True), 0.0)
    high = ops.maximum(ops.max(x, axis=-1, keepdims=True), 0.0)
    scale = UINT8_MAX / (high - low + EPSILON)
    zero = ops.round(-low * scale)
    return ops.clip(ops.round(x * scale), -zero, UINT8_MAX - zero), scale, zero


def has_fast_product(kernel_IO) -> bool:
    """Whether `integer_product` can be called here, and is faster than a product of floats."""
    return kernel_IO.shape[0] <= MOST_INPUTS and backend.multiplies_integers()


def integer_product(x_MI, kernel_IO, scale_O, asymmetric: bool, result_dtype: str):
    """Multiplies rows, rounded one by one, by int8 weights.

    Args:
        x_MI: (M, I) floats.
        kernel_IO: (I, O) int8.
        scale_O: (O,) float32.
        asymmetric: how rows are rounded.
        result_dtype: of the result, which is rescaled in float32 first.

    Returns:
        (M, O) in `result_dtype`.
    """
    rows_LI, scale_M1, zero = _unsigned_rows(x_MI, asymmetric)
    return _rescale(backend.unsigned_product(rows_LI, kernel_IO), scale_O, scale_M1, zero, result_dtype)


@backend.fused
def _unsigned_rows(x_MI, asymmetric):
    integers_MI, scale_M1, zero = _round(x_MI, asymmetric)
    rows_MI = ops.cast(integers_MI + zero, "uint8")
    return ops.pad(rows_MI, ((0, 1), (0, 0)), constant_values=1), scale_M1, ops.cast(zero, "int32")


@backend.fused
def _rescale(y_LO, scale_O, scale_M1, zero, dtype):
    y_MO = ops.cast(y_LO[:-1] - zero * y_LO[-1:], "float32")
    return ops.cast(y_MO / (scale_O * scale_M1), dtype)
