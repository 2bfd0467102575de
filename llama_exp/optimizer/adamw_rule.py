"""AdamW as language models are trained with it.

    m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2        a_u = lr sqrt(1 - b2^u) / (1 - b1^u)
    w = w - lr * weight_decay * w [matrices only] - a_u * m / (sqrt(v) + epsilon)        at update u = 1, 2, ...

(Kingma & Ba 2015, arXiv:1412.6980, section 2, last paragraph, for a_u: its epsilon is PyTorch's divided by
sqrt(1 - b2^u). Loshchilov & Hutter 2019, arXiv:1711.05101, for the decay.)
"""

from __future__ import annotations

import keras
from keras import ops

from llama_exp import backend
from llama_exp.optimizer.float32 import Float32Optimizer, multiplied, taken_from


@keras.saving.register_keras_serializable(package="llama_exp")
class AdamW(Float32Optimizer):
    """The formula of the module, with two moments for each variable."""

    NUMBERS = ("beta_1", "beta_2", "epsilon")

    def list_slots(self, variable):
        """The means of gradients and of their squares."""
        return {"momentum": variable.shape, "velocity": variable.shape}

    def begin_update(self, learning_rate, update):
        """Computes a_u."""
        self._step_size = learning_rate * bias_correction(update, self.beta_1, self.beta_2)

    def update(self, weight, gradient, slots, clip_factor, rate_factor, decay, variable_path):
        """New weight and moments."""
        del variable_path
        step_size = multiplied(self._step_size, rate_factor)
        numbers = (self.beta_1, self.beta_2, self.epsilon)
        return move_by_moments(weight, *slots, gradient, clip_factor, step_size, decay, *numbers)


def bias_correction(update, beta_1: float, beta_2: float):
    """a_u / lr, a float32 scalar."""
    return ops.sqrt(1.0 - ops.power(beta_2, update)) / (1.0 - ops.power(beta_1, update))


@backend.fused
def move_by_moments(weight, m, v, gradient, clip_factor, step_size, decay, beta_1, beta_2, epsilon):
    """New weight and moments; `step_size` is a_u of the module, `decay` lr * weight_decay."""
    gradient = gradient * clip_factor
    m = m + (gradient - m) * (1.0 - beta_1)
    v = v + (ops.square(gradient) - v) * (1.0 - beta_2)
    return taken_from(weight, m * step_size / (ops.sqrt(v) + epsilon), decay), m, v
