"""Rematerialization: keep a block's inputs, compute its inside again in the backward pass.

`keras.remat` alone is not enough. On TensorFlow the second computation reads the variables again, at a moment when
the optimizer may be writing them (seen as rare wrong gradients), and on JAX a seed variable that advances inside
leaks a tracer. So everything that the block depends on goes in as a tensor: its trainable variables, read once,
and the seed of its dropouts.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops


def recomputed(layer: keras.layers.Layer, function: Callable, x):
    """`function(x)` with the inside of `layer` recomputed when gradients are taken.

    Args:
        layer: what `function` calls; gradients flow to its trainable variables as usual.
        function: reads no variables but those of `layer`, changes none, and depends on nothing else that gradients
            should flow to.
        x: a float tensor.

    Returns:
        What `function` returns: one tensor.
    """
    trainable, frozen = layer.trainable_variables, layer.non_trainable_variables
    # On TensorFlow `.value` is still a variable; what goes in as an argument is read there, and the frozen ones are
    # read here. These are closed over, so that nothing asks for their gradients.
    frozen_mapping = [(variable, ops.stop_gradient(variable.value)) for variable in frozen]

    def run(x, *trainable_values):
        mapping = frozen_mapping + list(zip(trainable, trainable_values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return function(x)

    return keras.remat(run)(x, *(variable.value for variable in trainable))
