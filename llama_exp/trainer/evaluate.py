"""Mean loss over a split, every counted token weighing the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from keras import ops

from llama_exp import backend
from llama_exp.objective import next_token_loss
from llama_exp.trainer.step import INPUT_KEYS


class Evaluation:
    """`evaluation(stop)`: the mean loss over the first rows of a split, computed without gradients or dropout.

    Args:
        backbone: the model's.
        examples: a split; its rows are read in order.
        batch_size: rows at a time.
        max_batches: None: the whole split.
        chunk_tokens: see `llama_exp.objective`.
        jit: whether XLA compiles it.
        fuse: as in `TrainStep`.
    """

    def __init__(
        self,
        backbone,
        examples,
        *,
        batch_size: int,
        max_batches: int | None,
        chunk_tokens: int,
        jit: bool,
        fuse: bool = True,
    ):
        self._backbone = backbone
        self._examples = examples
        self._batch_size = batch_size
        num_rows = len(examples)
        self._num_rows = num_rows if max_batches is None else min(num_rows, max_batches * batch_size)
        self._chunk_tokens = chunk_tokens
        self._call = backend.compiled(self._losses, backbone.variables, [], jit, fuse)

    def __call__(self, stop: Callable[[], bool] = lambda: False) -> tuple[float, float] | None:
        """Returns (summed loss, number of counted tokens), or None if `stop()` became true in between."""
        total, count = 0.0, 0.0
        for start in range(0, self._num_rows, self._batch_size):
            if stop():
                return None
            loss, weight = self._call(self._batch(start))
            total += float(ops.convert_to_numpy(loss))
            count += float(ops.convert_to_numpy(weight))
        return total, count

    def _batch(self, start: int) -> dict[str, np.ndarray]:
        """Rows from `start`; the last batch is filled up with rows that do not count, so that one shape serves."""
        indices = np.arange(start, start + self._batch_size)
        batch = self._examples.batch(np.minimum(indices, self._num_rows - 1))
        batch["loss_mask"] = batch["loss_mask"] * (indices < self._num_rows)[:, None].astype("float32")
        return batch

    def _losses(self, batch):
        hidden_BSD = self._backbone({key: batch[key] for key in INPUT_KEYS if key in batch}, training=False)
        return next_token_loss(
            self._backbone.token_embedding,
            hidden_BSD,
            batch["labels"],
            batch["loss_mask"],
            chunk_tokens=self._chunk_tokens,
            training=False,
        )
