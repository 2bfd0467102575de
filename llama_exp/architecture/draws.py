"""Random numbers by seed and path alone, drawn by NumPy: the same on every machine and every backend.

A variable's path chooses the key of a stream of its own, so that neither the backend nor other variables, nor the order
in which they are made, change its values.
"""

from __future__ import annotations

import hashlib

import numpy as np


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


def _generator(seed: int, path: str) -> np.random.Generator:
    key = hashlib.sha256(f"{seed} {path}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
