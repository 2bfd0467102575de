"""The low-rank adapter (Hu et al. 2021, arXiv:2106.09685) as a layer for the slot of a `Linear`.

Shape letters: M rows (tokens), I inputs, O outputs, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from llama_exp import backend
from llama_exp.architecture.draws import draw_uniform
from llama_exp.backend.initial import Initializer
from llama_exp.formats.adapter import Matrices

# Variables stay float32 over any base: an update of 1e-4 relative size is lost in bfloat16's 8 bits.
POLICY_OF_COMPUTE_DTYPE = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


class LoraAdapter(keras.layers.Layer):
    """x W + s * (dropout(x) A) B, with A (I, R) and B (R, O); the product A B is never formed.

        before         x ──> W ──────────────> y          W (I, O) trainable
        with adapter   x ──> W ──────────> + ─> y         W frozen
                       └──> A ──> B ──> *s ┘              A, B trainable; B = 0 at first, so y is unchanged

    A is drawn from U(-1/sqrt(I), 1/sqrt(I)), which is PEFT's kaiming_uniform(a=sqrt(5)).

    Numerics: variables in float32, products in the base's compute dtype.

    Args:
        rank: R.
        output_dim: O.
        scale: s, that is alpha / R, or alpha / sqrt(R) for rsLoRA.
        dropout: probability of zeroing an element of x, in training.
        seed: of A's first values, see `Initializer`.
        **kwargs: Keras layer arguments (`name`, `dtype`).
    """

    def __init__(self, rank: int, output_dim: int, scale: float, dropout: float, seed: int | None = None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.rank = rank
        self.output_dim = output_dim
        self.scale = scale
        self.dropout = dropout
        self.seed = seed

    def build(self, input_shape):
        """Creates `lora_a` (I, R) and `lora_b` (R, O) for inputs (M, I)."""
        uniform = Initializer(draw_uniform, self.seed, f"{self.path}/lora_a", 1 / math.sqrt(input_shape[-1]))
        shape_a, shape_b = (input_shape[-1], self.rank), (self.rank, self.output_dim)
        self.lora_a = self.add_weight(name="lora_a", shape=shape_a, initializer=uniform, autocast=False)
        self.lora_b = self.add_weight(name="lora_b", shape=shape_b, initializer="zeros", autocast=False)
        self.built = True

    def call(self, x_MI, product: Callable, seeds=None):
        """What the adapted layer computes.

        Args:
            x_MI: (M, I) in the compute dtype.
            product: multiplies rows by the frozen kernel; see `Linear._product`.
            seeds: as in `Linear.call`.

        Returns:
            (M, O) in the compute dtype.
        """
        return product(x_MI) + self._low_rank(self._dropped(x_MI, seeds))

    def _dropped(self, x_MI, seeds):
        return x_MI if seeds is None or self.dropout == 0 else seeds.dropout(x_MI, self.dropout)

    def _low_rank(self, x_MI):
        low_MR = ops.matmul(x_MI, ops.cast(self.lora_a, self.compute_dtype)) * self.scale
        return ops.matmul(low_MR, ops.cast(self.lora_b, self.compute_dtype))

    def variables_by_name(self) -> dict:
        """What trains, by the names of `Matrices`."""
        return {"a_IR": self.lora_a, "b_RO": self.lora_b}

    def matrices(self) -> Matrices:
        """Host copies of what trains."""
        return Matrices(**{name: ops.convert_to_numpy(v.value) for name, v in self.variables_by_name().items()})

    def assign(self, matrices: Matrices) -> None:
        """Sets what trains."""
        for name, variable in self.variables_by_name().items():
            variable.assign(np.asarray(getattr(matrices, name)))

    def get_config(self) -> dict:
        """Constructor arguments."""
        return backend.layer_config(self) | {
            "rank": self.rank,
            "output_dim": self.output_dim,
            "scale": self.scale,
            "dropout": self.dropout,
            "seed": self.seed,
        }
