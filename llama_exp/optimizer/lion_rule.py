"""Lion: the sign of a mean of gradients, so that every weight moves by the learning rate.

    c = b1 m + (1 - b1) g
    w = w - lr * weight_decay * w [matrices only] - lr * sign(c)
    m = b2 m + (1 - b2) g

(Chen et al. 2023, arXiv:2302.06675, algorithm 2.)
"""

from __future__ import annotations

import keras
from keras import ops

from llama_exp import backend
from llama_exp.optimizer.float32 import Float32Optimizer, multiplied, taken_from


@keras.saving.register_keras_serializable(package="llama_exp")
class Lion(Float32Optimizer):
    """The formula of the module, with one moment for each variable."""

    NUMBERS = ("beta_1", "beta_2")

    def list_slots(self, variable):
        """The mean of gradients."""
        return {"momentum": variable.shape}

    def begin_update(self, learning_rate, update):
        """Keeps the rate."""
        self._rate = learning_rate

    def update(self, weight, gradient, slots, clip_factor, rate_factor, decay, variable_path):
        """New weight and moment."""
        del variable_path
        rate = multiplied(self._rate, rate_factor)
        return _move(weight, *slots, gradient, clip_factor, rate, decay, self.beta_1, self.beta_2)


@backend.fused
def _move(weight, m, gradient, clip_factor, rate, decay, beta_1, beta_2):
    gradient = gradient * clip_factor
    step = ops.sign(m * beta_1 + gradient * (1.0 - beta_1))
    return taken_from(weight, step * rate, decay), m * beta_2 + gradient * (1.0 - beta_2)
