"""The order of the examples: a pure function of seed and position.

Global position p lies in epoch p // n at offset p % n. Each epoch visits every example once, in an order of its own,
and any position is found in O(1), so a resumed run needs no state but the number of examples it has seen.

A Feistel network (Luby & Rackoff 1988) over the next power of four >= n is a bijection whatever its round function;
cycle walking (Black & Rogaway 2002) applies it again to results >= n, which makes it a bijection on 0..n-1.
"""

from __future__ import annotations

import hashlib

import numpy as np

from llama_exp import recipe

_MAX_POSITION = 2**63 - 1


class Order:
    """Which example stands at which global position.

    Args:
        num_examples: n >= 1.
        seed: Any whole number; every bit of it counts.
    """

    def __init__(self, num_examples: int, seed: int):
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ValueError(f"seed must be a whole number, not {seed!r}")
        if not 1 <= num_examples <= 2**61:
            raise ValueError(f"num_examples must be 1 .. 2**61, not {num_examples}: an empty set has no order")
        self.num_examples = num_examples
        self.seed = seed
        self._half_bits = np.uint64(max(1, ((num_examples - 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half_bits)) - 1)
        digest = hashlib.sha256(f"llama_exp order {seed}".encode()).digest()
        self._key = np.frombuffer(digest[:8], "<u8")[0]

    def indices(self, start: int, count: int) -> np.ndarray:
        """The example indices at global positions start .. start + count - 1, int64 (count,)."""
        if start < 0 or count < 0 or start + count > _MAX_POSITION:
            raise ValueError(f"positions must lie in 0 .. 2**63 - 1, not start={start}, count={count}")
        positions = np.uint64(start) + np.arange(count, dtype=np.uint64)
        epochs, values = np.divmod(positions, np.uint64(self.num_examples))
        epoch_keys = _mix(epochs ^ self._key)
        values = self._permute(values, epoch_keys)
        outside = np.flatnonzero(values >= np.uint64(self.num_examples))
        while outside.size:
            values[outside] = self._permute(values[outside], epoch_keys[outside])
            outside = outside[values[outside] >= np.uint64(self.num_examples)]
        return values.astype(np.int64)

    def _permute(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        left, right = values >> self._half_bits, values & self._mask
        for round_ in range(recipe.EXAMPLE_ORDER["rounds"]):
            round_key = _mix(keys + np.uint64(round_ + 1))
            left, right = right, left ^ (_mix(right ^ round_key) & self._mask)
        return (left << self._half_bits) | right


def _mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's finalizer (Steele, Lea & Flood 2014) after its increment: 64 well-stirred bits per value."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
