"""What a training step computes, without its update: for those who compare two ways to compute it.

The step is the one that trains (`TrainStep`), compiled and accumulated as it is there; only the optimizer is another,
which keeps the gradients and leaves the weights alone.

Shape letters: A micro-batches, B batch, S positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from llama_exp import precision
from llama_exp.trainer.step import TrainStep


@dataclass(frozen=True)
class Measured:
    """What a step computed.

    loss: mean over the counted targets, without the z loss. gradients: path of each trainable variable -> its gradient,
    float32; NaN where loss or gradients are not finite.
    """

    loss: float
    gradients: dict[str, np.ndarray]


class GradientProbe:
    """`probe(batch) -> Measured`, of a model as it is; nothing of it changes but the seeds of dropout.

    Args:
        backbone: a `LlamaBackbone`, or what is called and named like one.
        chunk_tokens: see `llama_exp.objective`.
        jit: whether XLA compiles the step.
        fuse, z_loss: as in `TrainStep`.
    """

    def __init__(self, backbone, *, chunk_tokens: int, jit: bool, fuse: bool = True, z_loss: float = 0.0):
        self._keeper = GradientKeeper()
        self._names = [variable.path for variable in backbone.trainable_variables]
        optimizer = precision.wrap_optimizer(self._keeper, backbone.dtype_policy)
        self._step = TrainStep(backbone, optimizer, chunk_tokens=chunk_tokens, jit=jit, fuse=fuse, z_loss=z_loss)

    def __call__(self, batch: dict[str, np.ndarray]) -> Measured:
        """Runs a step on arrays (A, B, S), as `TrainStep` takes them."""
        result = self._step(batch)
        arrays = [np.array(ops.convert_to_numpy(variable)) for variable in self._keeper.kept]
        if not result.applied:
            arrays = [np.full_like(array, np.nan) for array in arrays]
        return Measured(result.loss, dict(zip(self._names, arrays, strict=True)))


class GradientKeeper(keras.optimizers.Optimizer):
    """An optimizer whose update is to keep the gradients.

    Attributes:
        kept: a variable for each trainable one, in their order, float32.
    """

    def __init__(self):
        super().__init__(learning_rate=1.0)

    def build(self, variables):
        """Makes room for the gradients of `variables`."""
        super().build(variables)
        self.kept = [
            self.add_variable(shape=variable.shape, initializer="zeros", dtype="float32", name=f"gradient_{number}")
            for number, variable in enumerate(variables)
        ]

    def apply(self, grads, trainable_variables=None):
        """Keeps the gradients; no weight changes."""
        del trainable_variables  # they are those of `build`
        for variable, gradient in zip(self.kept, grads, strict=True):
            variable.assign(ops.cast(gradient, "float32"))
