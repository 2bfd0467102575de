"""The weight-decomposed adapter DoRA (Liu et al. 2024, arXiv:2402.09353) as a layer for the slot of a `Linear`.

The norm of an adapted kernel's columns, without forming it; `squares` and A^T W need W alone, which is frozen:

    ||W + s A B||^2 = ||W||^2 + 2 s sum_r (A^T W)_r B_r + s^2 sum_r B_r (A^T A B)_r        per output

Shape letters: M rows (tokens), I inputs, O outputs, R rank.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from keras import ops

from llama_exp import backend
from llama_exp.formats.adapter import SMALLEST_SQUARES
from llama_exp.lora.adapter import LoraAdapter

KERNEL_SQUARES = "kernel_squares"


def is_derived(variable) -> bool:
    """Whether a variable only repeats what the base's kernel says: no parameter, and part of no digest."""
    return variable.path.endswith(f"/{KERNEL_SQUARES}")


class DoraAdapter(LoraAdapter):
    """m / ||W + s A B|| * (x W + s (x A) B): a low-rank adapter that turns columns, and a magnitude m for each.

    The norm is a constant for the gradient (section 4.3 of the paper). m begins as ||W||, so that y is unchanged. With
    dropout the function is PEFT's: what dropout leaves of x also goes through the frozen part of the change,

        x W + (m / ||W + s A B|| - 1) dropout(x) W + m / ||W + s A B|| * s (dropout(x) A) B

    Numerics: m, norms and their quotient in float32; A^T W in the compute dtype, never with rounded activations.
    """

    def build(self, input_shape):
        """Also creates `lora_magnitude` (O,), and the frozen `kernel_squares` (O,); `measure` must follow."""
        super().build(input_shape)
        shape = (self.output_dim,)
        self.lora_magnitude = self.add_weight(name="lora_magnitude", shape=shape, initializer="ones", autocast=False)
        self.kernel_squares = self.add_weight(
            name=KERNEL_SQUARES, shape=shape, initializer="ones", trainable=False, autocast=False
        )

    def measure(self, kernel_IO) -> None:
        """Takes ||W||^2, and ||W|| as the first magnitude, from the kernel, an array (I, O) float32."""
        # Every backend sums in an order of its own; magnitudes train, and must begin the same on all.
        squares_O = np.einsum("io,io->o", kernel_IO, kernel_IO, dtype=np.float64).astype(np.float32)
        self.kernel_squares.assign(squares_O)
        self.lora_magnitude.assign(np.sqrt(squares_O))

    def call(self, x_MI, product: Callable, seeds=None):
        """What the adapted layer computes; see `LoraAdapter.call`."""
        dropped_MI = self._dropped(x_MI, seeds)
        frozen_MO = product(dropped_MI)
        magnitude_O = ops.convert_to_tensor(self.lora_magnitude)
        y_MO = with_magnitude(frozen_MO + self._low_rank(dropped_MI), magnitude_O, self._norm(x_MI, product))
        return y_MO if dropped_MI is x_MI else product(x_MI) + (y_MO - frozen_MO)

    def factors(self, product: Callable):
        """M / ||W + s A B||, (O,) float32: what the output of a layer with these variables is multiplied by."""
        norm_O = self._norm(ops.zeros((1, self.lora_a.shape[0]), dtype=self.compute_dtype), product)
        return ops.convert_to_tensor(self.lora_magnitude) / norm_O

    def _norm(self, x_MI, product):
        """||W + s A B|| per output, (O,) float32, without gradient."""
        a_IR, b_RO, squares_O = (
            ops.stop_gradient(ops.convert_to_tensor(v)) for v in (self.lora_a, self.lora_b, self.kernel_squares)
        )
        a_RI = ops.transpose(a_IR)
        # Not before x is there: whoever runs the graph would make floats of all integer kernels at once.
        rows_RI = backend.after(ops.stop_gradient(x_MI), ops.cast(a_RI, self.compute_dtype))
        cross_RO = ops.stop_gradient(product(rows_RI, exact=True))
        return adapted_norm(squares_O, cross_RO, ops.matmul(ops.matmul(a_RI, a_IR), b_RO), b_RO, self.scale)

    def variables_by_name(self) -> dict:
        """What trains, by the names of `Matrices`."""
        return super().variables_by_name() | {"magnitude_O": self.lora_magnitude}


def with_magnitude(y_MO, magnitude_O, norm_O):
    """The product y * magnitude / norm, in the dtype of `y_MO`; `norm_O` gets no gradient."""

    def forward(y_MO, magnitude_O, norm_O):
        return _magnitude_forward(y_MO, magnitude_O, norm_O), (y_MO, magnitude_O, norm_O)

    def backward(kept, upstream_MO):
        return *_magnitude_backward(*kept, upstream_MO), None

    return backend.with_gradient(forward, backward)(y_MO, magnitude_O, norm_O)


@backend.fused
def _magnitude_forward(y_MO, magnitude_O, norm_O):
    return ops.cast(backend.float32(y_MO) * (magnitude_O / norm_O), y_MO.dtype)


@backend.fused
def _magnitude_backward(y_MO, magnitude_O, norm_O, upstream_MO):
    dtype, upstream_MO = y_MO.dtype, backend.float32(upstream_MO)
    dy_MO = ops.cast(upstream_MO * (magnitude_O / norm_O), dtype)
    return dy_MO, ops.sum(upstream_MO * backend.float32(y_MO), axis=0) / norm_O


@backend.fused
def adapted_norm(squares_O, cross_RO, gram_b_RO, b_RO, scale: float):
    """The norm ||W + s A B|| by output, (O,) float32, which has no gradient.

    Args:
        squares_O: ||W||^2.
        cross_RO: A^T W.
        gram_b_RO: A^T A B.
        b_RO: B.
        scale: s.
    """
    change_O = ops.sum(b_RO * (2 * scale * backend.float32(cross_RO) + scale**2 * gram_b_RO), axis=0)
    return ops.sqrt(ops.maximum(squares_O + change_O, SMALLEST_SQUARES))
