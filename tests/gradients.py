"""Gradients of a loss with respect to a backbone's trainable variables, compiled, on either backend."""

from __future__ import annotations

import keras
import numpy as np


def loss_and_gradients(loss, backbone):
    """(loss, {path: gradient}) of `loss()`; variables that it does not depend on are left out."""
    variables = backbone.trainable_variables
    if keras.backend.backend() == "tensorflow":
        value, gradients = _tensorflow(loss, variables)
    else:
        value, gradients = _jax(loss, variables, backbone.non_trainable_variables)
    pairs = zip(variables, gradients, strict=True)
    unused = "token_embedding/reverse_embeddings"
    return np.asarray(value), {v.path: np.asarray(gradient) for v, gradient in pairs if v.path != unused}


def _tensorflow(loss, variables):
    import tensorflow as tf

    @tf.function
    def step():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in variables])
            value = loss()
        gradients = tape.gradient(value, [variable.value for variable in variables])
        # A table's gradient is sparse rows; a variable that the loss does not use has none.
        return value, [tf.zeros(()) if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]

    return step()


def _jax(loss, variables, others):
    import jax

    def function(values, other_values):
        mapping = [*zip(variables, values, strict=True), *zip(others, other_values, strict=True)]
        with keras.StatelessScope(state_mapping=mapping):
            return loss()

    values, other_values = [v.value for v in variables], [v.value for v in others]
    return jax.jit(jax.value_and_grad(function))(values, other_values)
