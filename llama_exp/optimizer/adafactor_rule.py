"""Adafactor: second moments of a matrix from the means of its rows and of its columns.

    t = u^beta_2_decay                                   u = 1, 2, ...: the first update has no past
    r = (1 - t) r + t mean_columns(g^2 + epsilon_1)      c likewise of the rows; a vector keeps v itself
    v = r c / mean(r)                                    never stored
    U = g / sqrt(v)                                      Û = U / max(1, RMS(U) / clip_threshold)
    w = w - lr * weight_decay * w [matrices only] - lr * s * Û      s = max(epsilon_2, RMS(w)), or 1

(Shazeer & Stern 2018, arXiv:1804.04235, algorithms 4 and 5 without a first moment.) s makes the rate a share of each
variable's own size: `multiply_by_parameter_scale`. The paper's own rate is min(1e-2, 1/sqrt(u)); here it is the
schedule's, whatever u is. The last two axes of a variable are its rows and columns.
"""

from __future__ import annotations

import keras
from keras import ops

from llama_exp import backend
from llama_exp.optimizer.float32 import Float32Optimizer, multiplied, taken_from


@keras.saving.register_keras_serializable(package="llama_exp")
class Adafactor(Float32Optimizer):
    """The formula of the module: I + O numbers for a matrix (I, O)."""

    NUMBERS = ("beta_2_decay", "epsilon_1", "epsilon_2", "clip_threshold", "multiply_by_parameter_scale")

    def list_slots(self, variable):
        """Means of squared gradients: of rows and of columns, or of each element."""
        shape = tuple(variable.shape)
        if len(shape) < 2:
            return {"velocity": shape}
        return {"row_velocity": shape[:-1], "column_velocity": (*shape[:-2], shape[-1])}

    def begin_update(self, learning_rate, update):
        """Computes t."""
        self._rate, self._share = learning_rate, ops.power(update, self.beta_2_decay)

    def update(self, weight, gradient, slots, clip_factor, rate_factor, decay, variable_path):
        """New weight and means."""
        del variable_path
        rate = multiplied(self._rate, rate_factor)
        numbers = [getattr(self, name) for name in self.NUMBERS[1:]]
        move = _move_matrix if len(slots) == 2 else _move_vector
        return move(weight, *slots, gradient, clip_factor, rate, decay, self._share, *numbers)


@backend.fused
def _move_matrix(weight, rows, columns, gradient, clip_factor, rate, decay, share, epsilon_1, *numbers):
    gradient = gradient * clip_factor
    squares = ops.square(gradient) + epsilon_1
    rows = rows + (ops.mean(squares, axis=-1) - rows) * share
    columns = columns + (ops.mean(squares, axis=-2) - columns) * share
    relative_rows = rows / ops.mean(rows, axis=-1, keepdims=True)
    direction = gradient * ops.expand_dims(ops.rsqrt(relative_rows), -1) * ops.expand_dims(ops.rsqrt(columns), -2)
    return taken_from(weight, _scaled(direction, weight, *numbers) * rate, decay), rows, columns


@backend.fused
def _move_vector(weight, v, gradient, clip_factor, rate, decay, share, epsilon_1, *numbers):
    gradient = gradient * clip_factor
    v = v + (ops.square(gradient) + epsilon_1 - v) * share
    return taken_from(weight, _scaled(gradient * ops.rsqrt(v), weight, *numbers) * rate, decay), v


def _scaled(direction, weight, epsilon_2, clip_threshold, multiply_by_parameter_scale):
    """The step of the module before the rate, s Û."""
    direction = direction / ops.maximum(root_mean_square(direction) / clip_threshold, 1.0)
    if not multiply_by_parameter_scale:
        return direction
    return direction * ops.maximum(root_mean_square(ops.cast(weight, "float32")), epsilon_2)


def root_mean_square(x):
    """Of all elements, a scalar."""
    return ops.sqrt(ops.mean(ops.square(x)))
