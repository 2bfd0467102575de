"""Which rows a step trains on.

Shape letters: A micro-batches, B batch, S positions.
"""

from __future__ import annotations

import numpy as np

from llama_exp.dataset.order import Order


class Batches:
    """The rows of each step, in an order that follows from the seed alone.

    Args:
        examples: the split.
        seed: of the order.
        batch_size: B.
        accumulation_steps: A.
        repeats_first: whether every step trains on the rows of the first one.
    """

    def __init__(self, examples, seed: int, batch_size: int, accumulation_steps: int, repeats_first: bool = False):
        self._examples, self._order = examples, Order(len(examples), seed)
        self._batch_size, self._accumulation_steps = batch_size, accumulation_steps
        self._repeats_first = repeats_first

    @property
    def rows_per_step(self) -> int:
        """A * B."""
        return self._accumulation_steps * self._batch_size

    def rows(self, step: int) -> np.ndarray:
        """Indices of the examples in the step after `step` finished ones, (A * B,)."""
        position = 0 if self._repeats_first else step * self.rows_per_step
        return self._order.indices(position, self.rows_per_step)

    def arrays(self, step: int) -> dict[str, np.ndarray]:
        """The arrays (A, B, S) of the step after `step` finished ones."""
        shape = (self._accumulation_steps, self._batch_size, -1)
        return {key: value.reshape(shape) for key, value in self._examples.batch(self.rows(step)).items()}

    def row_length(self) -> int:
        """S."""
        return self._examples.batch(np.arange(1))["token_ids"].shape[1]
