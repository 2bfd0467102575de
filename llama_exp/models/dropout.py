"""Dropout whose masks depend on nothing but a seed tensor and the order of the calls.

Keras' Dropout layer advances a seed variable at each call. A block that is computed a second time in the backward
pass would then draw a second mask (TensorFlow) or leak a tracer (JAX). Here the backbone draws one seed per
forward pass, and each block derives the seeds of its own dropouts from it.
"""

from __future__ import annotations

import keras
from keras import ops

from llama_exp import recipe


def block_seed(seed, block: int):
    """The seed of block number `block`.

    Args:
        seed: integer tensor (2,), drawn once per forward pass from a `keras.random.SeedGenerator`.
        block: index of the block; different blocks get different seeds.
    """
    return _shift(seed, block * recipe.DROPOUT["seeds_per_block"])


class DropoutSeeds:
    """The seeds of one block in one forward pass, handed out in call order.

    Args:
        seed: from `block_seed`.
    """

    def __init__(self, seed):
        self._seed = seed
        self._next = 0

    def dropout(self, x, rate: float):
        """`x` with each element zeroed with probability `rate` and the others divided by 1 - rate."""
        seed = _shift(self._seed, self._next)
        self._next += 1
        return keras.random.dropout(x, rate, seed=_DrawnSeed(seed))


def _shift(seed, number: int):
    # A SeedGenerator counts in the second number, so shifting the first never meets another pass's seeds.
    return seed + ops.convert_to_tensor([number, 0], dtype=seed.dtype)


class _DrawnSeed(keras.random.SeedGenerator):
    """Hands a tensor to `keras.random` functions, which accept only an int or a `SeedGenerator`."""

    def __init__(self, seed):
        self._drawn = seed

    def next(self, ordered=True):
        return self._drawn
