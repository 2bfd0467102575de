"""A matrix product without bias, with room for one adapter.

Shape letters: M rows (B * S tokens), I inputs, O outputs.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from llama_exp import backend
from llama_exp.architecture import INITIALIZER_RANGES
from llama_exp.architecture.draws import draw_normal
from llama_exp.backend.initial import Initializer
from llama_exp.models.keras_methods import InnerLayer


@keras.saving.register_keras_serializable(package="llama_exp")
class Linear(InnerLayer):
    """y = x W, or what an adapter makes of x and this product where one is attached.

    The kernel is the plain 2-D matrix (I, O); attention heads are a reshape of the result. Rows are flattened
    tokens: with a third axis TensorFlow multiplies batch by batch and sums the kernel's gradient over the batch.

    Args:
        output_dim: O.
        initializer_range: standard deviation of the kernel's first values.
        seed: of these values, see `Initializer`.
        **kwargs: Keras layer arguments (`name`, `dtype`).
    """

    def __init__(
        self,
        output_dim: int,
        initializer_range: float = INITIALIZER_RANGES["initializer_range"],
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # casts are written out where they happen
        self.output_dim = output_dim
        self.initializer_range = initializer_range
        self.seed = seed
        self.input_dim = None  # known when it is built
        self.adapter = None

    def build(self, input_shape):
        """Creates `kernel` (I, O), drawn from N(0, initializer_range^2), for inputs of shape (M, I)."""
        self.input_dim = input_shape[-1]
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.input_dim, self.output_dim),
            initializer=Initializer(draw_normal, self.seed, f"{self.path}/kernel", self.initializer_range),
            autocast=False,
        )
        self.built = True

    def attach(self, adapter: keras.layers.Layer | None) -> None:
        """Puts `adapter` into the slot, or empties it with None."""
        # Keras locks a built layer against new state; its own adapters open it in the same way.
        self._tracker.unlock()
        self._tracker.untrack(self.adapter)
        self.adapter = adapter
        self._tracker.lock()

    def call(self, x_MI, seeds=None):
        """Multiplies x_MI by the kernel.

        Args:
            x_MI: (M, I) in the compute dtype.
            seeds: `DropoutSeeds` in training, for the adapter; None otherwise.

        Returns:
            (M, O) in the compute dtype.
        """
        if self.adapter is None:
            return self._product(x_MI)
        return self.adapter(x_MI, product=self._product, seeds=seeds)

    def _product(self, x_MI, exact: bool = False):
        """The product x W in the compute dtype; `exact`: with x as it is, also where a layer rounds it."""
        del exact  # nothing is rounded here anyway
        return ops.matmul(x_MI, ops.cast(self.kernel, self.compute_dtype))

    def float_kernel(self) -> np.ndarray:
        """The numbers that the kernel stands for, (I, O) float32, on the host: the same on every backend."""
        return np.asarray(ops.convert_to_numpy(self.kernel.value), np.float32)

    def get_config(self) -> dict:
        """Constructor arguments."""
        return backend.layer_config(self) | {
            "output_dim": self.output_dim,
            "initializer_range": self.initializer_range,
            "seed": self.seed,
        }
