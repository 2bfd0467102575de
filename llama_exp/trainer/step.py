"""One optimizer step, compiled: gradients of all micro-batches, guard, update.

    total = number of counted targets in the whole step                                   known before any forward pass
    for each micro-batch:  gradients += d(sum of its losses / total)
    if loss and gradient norm are finite:  update                              else nothing at all is written

Dividing by the step's total makes A micro-batches of B rows the same as one of A*B, also when their counts differ
(a mean of means would not be).

Shape letters: A micro-batches, B batch, S positions, D hidden_dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from llama_exp import backend
from llama_exp.architecture import INPUT_KEYS
from llama_exp.objective import next_token_loss
from llama_exp.optimizer import sum_of_squares


@dataclass(frozen=True)
class StepResult:
    """What one step did.

    loss: mean over the counted targets, without the z loss. grad_norm: of all gradients together, before clipping.
    learning_rate: the rate of this update. applied: whether the weights changed. loss_scale: the factor this step's
    loss was scaled by (1 except with float16). z_loss: the term that the objective adds to the loss; None: it adds
    none.
    """

    loss: float
    grad_norm: float
    learning_rate: float
    applied: bool
    loss_scale: float
    z_loss: float | None = None

    @property
    def finite(self) -> bool:
        """Whether losses and gradient norm are numbers."""
        return bool(np.isfinite([self.loss, self.z_loss or 0.0, self.grad_norm]).all())


class TrainStep:
    """`step(batch) -> StepResult`, changing the model's trainable variables, the optimizer's and the seeds.

    Args:
        backbone: a `LlamaBackbone`, or what is called and named like one.
        optimizer: a Keras optimizer; built here for the trainable variables.
        chunk_tokens: see `llama_exp.objective`.
        jit: whether XLA compiles the step.
        fuse: whether, without `jit`, XLA still compiles the parts between matrix products; see `backend.compiled`.
        z_loss: see `llama_exp.objective`.
    """

    def __init__(self, backbone, optimizer, *, chunk_tokens: int, jit: bool, fuse: bool = True, z_loss: float = 0.0):
        self._backbone = backbone
        self._optimizer = optimizer
        self._chunk_tokens, self._z_loss = chunk_tokens, z_loss
        self._scales_loss = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        self._trainable = list(backbone.trainable_variables)
        if not optimizer.built:
            optimizer.build(self._trainable)
        self._seeds = seed_states(backbone)
        frozen = [variable for variable in backbone.weights if not variable.trainable]
        writes = [*self._trainable, *optimizer.variables, *self._seeds]
        self._call = backend.compiled(self._step, frozen, writes, jit, fuse)

    def __call__(self, batch: dict[str, np.ndarray]) -> StepResult:
        """Runs a step on arrays (A, B, S) with the keys of `INPUT_KEYS`, `labels` and `loss_mask`."""
        values = {key: float(ops.convert_to_numpy(value)) for key, value in self._call(batch).items()}
        applied = bool(values.pop("applied"))
        return StepResult(**values, applied=applied)

    def _step(self, batch):
        total = ops.maximum(ops.sum(ops.cast(batch["loss_mask"], "float32")), 1.0)
        loss_scale = ops.cast(self._optimizer.scale_loss(1.0), "float32")
        learning_rate = ops.cast(ops.convert_to_tensor(self._optimizer.learning_rate), "float32")
        loss, gradients = self._accumulate(batch, loss_scale / total)
        loss = loss / loss_scale
        grad_norm = ops.sqrt(sum(sum_of_squares(gradient) for gradient in gradients)) / loss_scale
        finite = ops.logical_and(ops.all(ops.isfinite(loss)), ops.isfinite(grad_norm))
        # An overflow under loss scaling is the optimizer's to handle: it skips the update and lowers the scale.
        backend.update_if(
            ops.all(ops.isfinite(loss)) if self._scales_loss else finite,
            lambda: backend.apply_gradients(self._optimizer, gradients, self._trainable),
            [*self._trainable, *self._optimizer.variables],
        )
        return {
            **({"loss": loss[0], "z_loss": loss[1]} if self._z_loss else {"loss": loss}),
            "grad_norm": grad_norm,
            "learning_rate": learning_rate,
            "applied": ops.cast(finite, "float32"),
            "loss_scale": loss_scale,
        }

    def _accumulate(self, batch, factor):
        """Loss times `factor` and its gradients (float32), summed over the micro-batches; (2,) losses with a z loss."""
        if batch["labels"].shape[0] == 1:
            return self._micro_step({key: value[0] for key, value in batch.items()}, factor)

        def add(carry, micro_batch):
            loss, gradients = self._micro_step(micro_batch, factor)
            return (carry[0] + loss, [a + b for a, b in zip(carry[1], gradients, strict=True)]), None

        zeros = [ops.zeros(variable.shape, dtype="float32") for variable in self._trainable]
        loss = ops.zeros((2,) if self._z_loss else (), dtype="float32")
        carry, _ = backend.scan(add, (loss, zeros), batch, updates=self._seeds)
        return carry

    def _micro_step(self, batch, factor):
        def scaled_loss():
            inputs = {key: batch[key] for key in INPUT_KEYS if key in batch}
            hidden_BSD = self._backbone(inputs, training=True)
            loss, _ = next_token_loss(
                self._backbone.token_embedding,
                hidden_BSD,
                batch["labels"],
                batch["loss_mask"],
                chunk_tokens=self._chunk_tokens,
                training=True,
                z_loss=self._z_loss,
            )
            return (ops.sum(loss * factor), loss * factor) if self._z_loss else (loss * factor, None)

        (loss, losses), gradients = backend.value_and_gradients(scaled_loss, self._trainable)
        return loss if losses is None else losses, [ops.cast(gradient, "float32") for gradient in gradients]


def seed_states(model) -> list:
    """States of the model's seed generators, which Keras' `weights` leaves out."""
    known = {id(variable) for variable in [*model.weights, *model.metrics_variables]}
    return [variable for variable in model.variables if id(variable) not in known]
