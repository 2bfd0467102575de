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


@keras.saving.register_keras_serializable(package="llama_exp")
class AdamW(keras.optimizers.AdamW):
    """Keras' AdamW with decay on matrices only, and float32 state and arithmetic for every variable.

    Why: in bfloat16, Keras' own update computes 1 - 0.999**u as 0 and never moves a weight, and a second moment
    that changes by less than 2**-8 of itself stands still. float32 variables get Keras' own update.
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

    def update_step(self, gradient, variable, learning_rate):
        """One update of one variable; the formula of the module."""
        gradient = ops.cast(gradient, "float32")
        update = ops.cast(self.iterations + 1, "float32")
        correction = ops.sqrt(1.0 - ops.power(self.beta_2, update)) / (1.0 - ops.power(self.beta_1, update))
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        self.assign_add(m, (gradient - m) * (1.0 - self.beta_1))
        self.assign_add(v, (ops.square(gradient) - v) * (1.0 - self.beta_2))
        change = m * (ops.cast(learning_rate, "float32") * correction) / (ops.sqrt(v) + self.epsilon)
        self.assign(variable, ops.cast(ops.cast(variable, "float32") - change, variable.dtype))


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
    """
    return AdamW(
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        beta_1=beta_1,
        beta_2=beta_2,
        epsilon=epsilon,
        global_clipnorm=global_clipnorm,
    )
