"""Gradient descent with momentum.

    b = momentum * b + g                                        no momentum: b = g, and no state
    w = w - lr * weight_decay * w [matrices only] - lr * b      Nesterov: g + momentum * b in the place of b

(Sutskever et al. 2013, for momentum and Nesterov's; Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 1, for the
decay, which is no part of g.) The rate stands outside of b, as in PyTorch: a schedule that falls slows all of b down.
Keras keeps lr * g in b, which goes on at the rates of earlier steps.
"""

from __future__ import annotations

import keras

from llama_exp import backend
from llama_exp.optimizer.float32 import Float32Optimizer, multiplied, taken_from


@keras.saving.register_keras_serializable(package="llama_exp")
class SGD(Float32Optimizer):
    """The formula of the module, with one moment for each variable, or none without momentum."""

    NUMBERS = ("momentum", "nesterov")

    def list_slots(self, variable):
        """The decaying sum of gradients."""
        return {"momentum": variable.shape} if self.momentum else {}

    def begin_update(self, learning_rate, update):
        """Keeps the rate."""
        self._rate = learning_rate

    def update(self, weight, gradient, slots, clip_factor, rate_factor, decay, variable_path):
        """New weight and moment."""
        del variable_path
        rate = multiplied(self._rate, rate_factor)
        if not slots:
            return (_move(weight, gradient, clip_factor, rate, decay),)
        return _move_with_momentum(weight, *slots, gradient, clip_factor, rate, decay, self.momentum, self.nesterov)


@backend.fused
def _move(weight, gradient, clip_factor, rate, decay):
    return taken_from(weight, gradient * clip_factor * rate, decay)


@backend.fused
def _move_with_momentum(weight, b, gradient, clip_factor, rate, decay, momentum, nesterov):
    gradient = gradient * clip_factor
    b = b * momentum + gradient
    step = gradient + b * momentum if nesterov else b
    return taken_from(weight, step * rate, decay), b
