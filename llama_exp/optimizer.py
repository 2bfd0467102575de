"""AdamW as language models are trained with it.

    m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2        a_u = lr sqrt(1 - b2^u) / (1 - b1^u)
    w = w - lr * weight_decay * w [matrices only] - a_u * m / (sqrt(v) + epsilon)        at update u = 1, 2, ...

(Kingma & Ba 2015, arXiv:1412.6980, section 2, last paragraph, for a_u: its epsilon is PyTorch's divided by
sqrt(1 - b2^u). Loshchilov & Hutter 2019, arXiv:1711.05101, for the decay.)

Decay acts on every variable with two or more axes: projections, adapters and also the embeddings, as in the open
Llama and GPT trainers (nanoGPT, Lingua, torchtitan decay them too). Norm scales never decay.
"""

from __future__ import annotations

import keras
from keras import ops

from llama_exp import backend
from llama_exp.limits import is_number
from llama_exp.limits.optimizer import LIMITS


@keras.saving.register_keras_serializable(package="llama_exp")
class AdamW(keras.optimizers.AdamW):
    """Keras' AdamW with decay on matrices only, and float32 state and arithmetic for every variable.

    Why float32: in bfloat16, Keras' own update computes 1 - 0.999**u as 0 and never moves a weight, and a second moment
    that changes by less than 2**-8 of itself stands still. Clipping, decay and the update of a variable are one pass
    over it; each by itself would read and write the whole model.
    """

    def build(self, variables):
        """Creates two float32 moments for each of `variables`."""
        if not self.built:
            self.exclude_from_weight_decay(var_list=[variable for variable in variables if len(variable.shape) < 2])
        super().build(variables)

    def add_variable_from_reference(self, reference_variable, name=None, initializer="zeros"):
        """A moment of a model variable: its shape, but float32."""
        return self.add_variable(
            shape=reference_variable.shape,
            initializer=initializer,
            dtype="float32",
            name=f"{reference_variable.path.replace('/', '_')}_{name}",
        )

    def _clip_gradients(self, gradients):
        """Keeps the factor that clips; `update_step` applies it."""
        self._clip_factor = ops.ones((), dtype="float32")
        if self.global_clipnorm is not None and self.global_clipnorm > 0:
            norm = ops.sqrt(sum(sum_of_squares(gradient) for gradient in gradients))
            self._clip_factor = self.global_clipnorm / ops.maximum(norm, self.global_clipnorm)
        return gradients

    def _apply_weight_decay(self, variables):
        """Nothing: `update_step` does it."""

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        """Updates every variable. What they share is computed once: traced again for each it delays the first step."""
        learning_rate, update = ops.cast(learning_rate, "float32"), ops.cast(self.iterations + 1, "float32")
        correction = ops.sqrt(1.0 - ops.power(self.beta_2, update)) / (1.0 - ops.power(self.beta_1, update))
        self._step_size, self._decay = learning_rate * correction, learning_rate * self.weight_decay
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def update_step(self, gradient, variable, learning_rate):
        """One update of one variable; the formula of the module."""
        del learning_rate  # the two factors have it
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        values = _updated(
            *(ops.convert_to_tensor(x) for x in (variable, m.value, v.value)),  # TensorFlow's variable is its own here
            ops.cast(gradient, "float32"),
            self._clip_factor,
            self._step_size,
            self._decay if self._use_weight_decay(variable) else self._decay * 0.0,
            self.beta_1,
            self.beta_2,
            self.epsilon,
        )
        for x, value in zip((variable, m, v), values, strict=True):
            self.assign(x, value)


@backend.fused
def sum_of_squares(x):
    """Sum of squares, a float32 scalar."""
    return ops.sum(ops.square(ops.cast(x, "float32")))


@backend.fused
def _updated(weight, m, v, gradient, clip_factor, step_size, decay, beta_1, beta_2, epsilon):
    """New weight and moments; `step_size` is a_u of the module, `decay` lr * weight_decay."""
    gradient = gradient * clip_factor
    m = m + (gradient - m) * (1.0 - beta_1)
    v = v + (ops.square(gradient) - v) * (1.0 - beta_2)
    change = ops.cast(weight, "float32") * decay + m * step_size / (ops.sqrt(v) + epsilon)
    return ops.cast(ops.cast(weight, "float32") - change, weight.dtype), m, v


def adamw(
    *,
    learning_rate,
    weight_decay: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    global_clipnorm: float | None,
) -> AdamW:
    """An AdamW optimizer.

    Args:
        learning_rate: a number or a `LearningRateSchedule`.
        weight_decay: decoupled, multiplied by the learning rate.
        beta_1: decay of the mean of gradients.
        beta_2: decay of the mean of squared gradients.
        epsilon: added to the root of the second moment.
        global_clipnorm: longest allowed gradient over all variables together; None: any.

    Raises:
        ValueError: an impossible value.
    """
    rate = {"learning_rate": learning_rate} if is_number(learning_rate) else {}
    moments = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
    LIMITS.require(weight_decay=weight_decay, global_clipnorm=global_clipnorm, **moments, **rate)
    return AdamW(
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        beta_1=beta_1,
        beta_2=beta_2,
        epsilon=epsilon,
        global_clipnorm=global_clipnorm,
    )
