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
        **kwargs: Keras layer arguments (`name`, `dtype`).
    """

    def __init__(self, epsilon: float, **kwargs):
        super().__init__(autocast=False, **kwargs)  # casts are written out where they happen
        self.epsilon = epsilon

    def build(self, input_shape):
        """Creates `scale` (D,), ones, for inputs of shape (..., D)."""
        self.scale = self.add_weight(name="scale", shape=(input_shape[-1],), initializer="ones", autocast=False)
        self.built = True

    def call(self, x):
        """Normalizes x (..., D); same shape in the compute dtype."""
        return rms_norm(x, self.scale.value, self.epsilon, self.compute_dtype, self.scale.trainable)

    def get_config(self) -> dict:
        """Constructor arguments."""
        return backend.layer_config(self) | {"epsilon": self.epsilon}
