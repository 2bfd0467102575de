"""Dropout whose masks depend on nothing but a seed tensor and the order of the calls.

Keras' Dropout layer advances a seed variable at each call. A block that is computed a second time in the backward
pass would then draw a second mask (TensorFlow) or leak a tracer (JAX). Here the backbone draws one seed per
forward pass, and each block derives the seeds of its own dropouts from it.
"""

from __future__ import annotations

import keras
from keras import ops

# A block has fewer dropouts than this: two of its own and one per projection with an adapter.
SEEDS_PER_BLOCK = 64


class DropoutSeeds:
    """The seeds of one block in one forward pass, handed out in call order.

    Args:
        seed: integer tensor (2,), drawn once per forward pass from a `keras.random.SeedGenerator`.
        block: index of the block; different blocks get different seeds.
    """

    def __init__(self, seed, block: int):
        self._seed = seed
        self._next = block * SEEDS_PER_BLOCK

    def dropout(self, x, rate: float):
        """`x` with each element zeroed with probability `rate` and the others divided by 1 - rate."""
        # A SeedGenerator counts in the second number, so shifting the first never meets another pass's seeds.
        shift = ops.convert_to_tensor([self._next, 0], dtype=self._seed.dtype)
        self._next += 1
        return keras.random.dropout(x, rate, seed=_DrawnSeed(self._seed + shift))


class _DrawnSeed(keras.random.SeedGenerator):
    """Hands a tensor to `keras.random` functions, which accept only an int or a `SeedGenerator`."""

    def __init__(self, seed):
        self._drawn = seed

    def next(self, ordered=True):
        return self._drawn
