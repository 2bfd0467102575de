"""Muon: matrices move by an orthogonal matrix, everything else by AdamW.

    b = momentum * b + g                       G = g + momentum * b (Nesterov), or b
    O = orthogonalize(G)                       near U V' of G = U S V'; see there
    w = w - lr * weight_decay * w - lr * update_rms * sqrt(max(I, O)) * O        for w (I, O)

(Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. The factor before O is that of Liu et al. 2025,
arXiv:2502.16982, section 2.2: an orthogonal (I, O) has a root mean square of 1 / sqrt(max(I, O)), so that elements move
by about update_rms * lr, as much as AdamW's, and one rate and one decay serve both.)

A matrix is a variable with exactly two axes outside of embeddings: a hidden layer's kernel, or an adapter's A or B. An
embedding or output matrix is a table of vectors, norm scales have one axis: AdamW updates them.

Numerics: float32 throughout. The published code multiplies in bfloat16, for speed on accelerators.
"""

from __future__ import annotations

import math

import keras
from keras import ops

from llama_exp import backend, recipe
from llama_exp.optimizer.adamw_rule import bias_correction, move_by_moments
from llama_exp.optimizer.float32 import Float32Optimizer, multiplied, taken_from


@keras.saving.register_keras_serializable(package="llama_exp")
class Muon(Float32Optimizer):
    """The formula of the module: one moment for each matrix, two for each other variable."""

    NUMBERS = ("momentum", "nesterov", "update_rms", "beta_1", "beta_2", "epsilon")

    def list_slots(self, variable):
        """The decaying sum of a matrix' gradients; AdamW's two moments of others."""
        if is_matrix(variable.path, variable.shape):
            return {"momentum": variable.shape}
        return {"momentum": variable.shape, "velocity": variable.shape}

    def begin_update(self, learning_rate, update):
        """Computes AdamW's step size."""
        self._rate = learning_rate
        self._step_size = learning_rate * bias_correction(update, self.beta_1, self.beta_2)

    def update(self, weight, gradient, slots, clip_factor, rate_factor, decay, variable_path):
        """New weight and moments."""
        if not is_matrix(variable_path, weight.shape):
            step_size = multiplied(self._step_size, rate_factor)
            numbers = (self.beta_1, self.beta_2, self.epsilon)
            return move_by_moments(weight, *slots, gradient, clip_factor, step_size, decay, *numbers)
        (b,) = slots
        direction, b = _averaged(b, gradient, clip_factor, self.momentum, self.nesterov)
        shape = tuple(weight.shape)
        direction = backend.repeated(("orthogonalize", shape), orthogonalize, direction)
        step = multiplied(self._rate, rate_factor * self.update_rms * math.sqrt(max(shape)))
        return _move(weight, direction, step, decay), b


def is_matrix(path: str, shape) -> bool:
    """Whether Muon updates a variable itself; a part of an embedding's path contains `embedding`."""
    return len(shape) == 2 and "embedding" not in path


def orthogonalize(matrix_IO):
    """A matrix (I, O) with the singular vectors of `matrix_IO`, and singular values near 1, float32.

        X = G / (||G|| + epsilon)        then, five times,        X = a X + (b A + c A A) X        with A = X X'

    takes singular values from 0.01 on into about [0.7, 1.2] (Newton-Schulz with a steep polynomial); zero stays zero.
    """
    numbers = recipe.NEWTON_SCHULZ
    is_tall = matrix_IO.shape[0] > matrix_IO.shape[1]
    x = ops.transpose(matrix_IO) if is_tall else matrix_IO  # the smaller of both products
    x = x / (ops.sqrt(ops.sum(ops.square(x))) + numbers["epsilon"])
    for _ in range(numbers["steps"]):
        gram = ops.matmul(x, ops.transpose(x))
        polynomial = gram * numbers["b"] + ops.matmul(gram, gram) * numbers["c"]
        x = x * numbers["a"] + ops.matmul(polynomial, x)
    return ops.transpose(x) if is_tall else x


@backend.fused
def _averaged(b, gradient, clip_factor, momentum, nesterov):
    gradient = gradient * clip_factor
    b = b * momentum + gradient
    return (gradient + b * momentum if nesterov else b), b


@backend.fused
def _move(weight, direction, step, decay):
    return taken_from(weight, direction * step, decay)
