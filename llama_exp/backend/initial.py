"""Initial values by seed and path alone: drawn by NumPy, the same numbers on every backend.

The generators of TensorFlow and JAX draw different numbers from the same seed. Here a variable's path chooses the key
of a stream of its own, so that neither the backend nor other variables, nor the order in which they are made, change
its values. One variable exists as an array at a time.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import ml_dtypes
import numpy as np

from llama_exp import backend

Draw = Callable[[int, str, tuple[int, ...], float], np.ndarray]


def draw_normal(seed: int, path: str, shape: tuple[int, ...], stddev: float) -> np.ndarray:
    """Values of N(0, stddev^2), float32."""
    values = _generator(seed, path).standard_normal(shape, np.float32)
    values *= stddev
    return values


def draw_uniform(seed: int, path: str, shape: tuple[int, ...], bound: float) -> np.ndarray:
    """Values of U(-bound, bound), float32."""
    values = _generator(seed, path).random(shape, np.float32)  # multiples of 2^-24 in [0, 1)
    values -= 0.5
    values *= 2 * bound
    return values


class Initializer:
    """A Keras initializer for the one variable of a path.

    Args:
        draw: `draw_normal` or `draw_uniform`.
        seed: any whole number; None: one that Python's `random` chooses when the variable is made, as Keras' own
            initializers do, so that `keras.utils.set_random_seed` decides.
        path: of the variable.
        scale: what `draw` calls `stddev` or `bound`.
    """

    def __init__(self, draw: Draw, seed: int | None, path: str, scale: float):
        self._draw, self._seed, self._path, self._scale = draw, seed, path, scale

    def __call__(self, shape: tuple[int, ...], dtype: str, layout=None):
        """A tensor in `dtype`, rounded from float32; `layout`: how JAX spreads it over devices."""
        seed = choose_seed() if self._seed is None else self._seed
        values = self._draw(seed, self._path, shape, self._scale)
        return backend.adopt(values.astype(getattr(ml_dtypes, dtype, dtype), copy=False), layout)


def choose_seed() -> int:
    """A seed for what was given none; `keras.utils.set_random_seed` makes it repeatable."""
    return random.randrange(1 << 32)


def _generator(seed: int, path: str) -> np.random.Generator:
    key = hashlib.sha256(f"{seed} {path}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
