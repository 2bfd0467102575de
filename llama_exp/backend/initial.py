"""Initial values of Keras variables by seed and path alone, the same numbers on every backend.

The generators of TensorFlow and JAX draw different numbers from the same seed; `llama_exp.architecture.draws` draws
them by NumPy. One variable exists as an array at a time.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import ml_dtypes
import numpy as np

from llama_exp import backend

Draw = Callable[[int, str, tuple[int, ...], float], np.ndarray]


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
