"""Root-mean-square normalization (Zhang & Sennrich 2019, arXiv:1910.07467).

Shape letters: D hidden_dim.
"""

from __future__ import annotations

import keras

from llama_exp import backend
from llama_exp.models.fused import rms_norm
from llama_exp.models.keras_methods import InnerLayer


@keras.saving.register_keras_serializable(package="llama_exp")
class RMSNorm(InnerLayer):
    """Activations divided by their root mean square over the last axis, times a learned `scale`.

        y = x / sqrt(mean(x^2) + epsilon) * scale

    Numerics: all of it in float32, the product with `scale` included; one cast back to the compute dtype.

    Args:
        epsilon: added to the mean square, so that a zero row stays finite.
        first_scale: what every number of `scale` is at first.
        train_scale: whether `scale` trains.
        **kwargs: Keras layer arguments (`name`, `dtype`).
    """

    def __init__(self, epsilon: float, first_scale: float = 1.0, train_scale: bool = True, **kwargs):
        super().__init__(autocast=False, **kwargs)  # casts are written out where they happen
        self.epsilon, self.first_scale, self.train_scale = epsilon, first_scale, train_scale

    def build(self, input_shape):
        """Creates `scale` (D,) for inputs of shape (..., D)."""
        self.scale = self.add_weight(
            name="scale",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.first_scale),
            trainable=self.train_scale,
            autocast=False,
        )
        self.built = True

    def call(self, x):
        """Normalizes x (..., D); same shape in the compute dtype."""
        return rms_norm(x, self.scale.value, self.epsilon, self.compute_dtype, self.scale.trainable)

    def get_config(self) -> dict:
        """Constructor arguments."""
        return backend.layer_config(self) | {
            "epsilon": self.epsilon,
            "first_scale": self.first_scale,
            "train_scale": self.train_scale,
        }
