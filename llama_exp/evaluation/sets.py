"""The loss on a set of documents, in nats per token, as perplexity, and in bits per byte.

Shape letters: B batch, S positions, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from llama_exp import backend
from llama_exp.architecture import INPUT_KEYS
from llama_exp.errors import InputError, NumericalError, Problem
from llama_exp.evaluation.likelihood import CHUNK_TOKENS
from llama_exp.evaluation.outcome import Outcome
from llama_exp.evaluation.overlap_check import row_texts
from llama_exp.files.metrics_file import perplexity
from llama_exp.limits.evaluation import SET
from llama_exp.objective import next_token_scores


class SetEvaluation:
    """One named set, read in rows as a training set is.

    Args:
        name: of the set.
        examples: its rows (`llama_exp.dataset.Examples`).
        model: a `LlamaCausalLM` with the tokenizer that made the rows.
        batch_size: rows at a time.
        jit, fuse: as in `llama_exp.backend.compiled`.

    Attributes:
        size: rows in all.
    """

    kind = SET

    def __init__(self, name: str, examples, model, batch_size: int, jit: bool, fuse: bool = True):
        self.name, self._examples, self._model, self._batch_size = name, examples, model, batch_size
        self.size = len(examples)
        self._num_bytes: np.ndarray | None = None
        self._call = backend.compiled(self._scores, model.backbone.variables, [], jit, fuse)

    def fingerprint(self) -> str:
        """Of the rows: documents, their form, the tokenizer."""
        return self._examples.fingerprint

    def texts(self) -> list[str]:
        """The text of each row, to be looked for in the training rows."""
        return ["\n".join(texts) for texts in row_texts(self._examples, self._model.tokenizer)]

    def run(self, watch: Callable[[float], None]) -> Outcome:
        """The loss of all counted tokens, each weighing the same; `watch` gets the number of rows that came.

        Bytes are those of the counted tokens' text in UTF-8: begin, end and other special tokens have none, though
        their loss counts.

        Raises:
            NumericalError: the loss is not finite.
        """
        if self._num_bytes is None:
            self._num_bytes = self._count_bytes()
        rows = []
        for some in self._batches():
            losses, counts = self._losses(some)
            for loss, count, size in zip(losses, counts, self._num_bytes[some], strict=True):
                mean = float(loss / count) if count else None
                rows.append({"loss": mean, "tokens": int(count), "bytes": int(size), "sum": float(loss)})
            watch(len(some))
        return self._outcome(rows)

    def _outcome(self, rows: list[dict[str, Any]]) -> Outcome:
        total, num_tokens = math.fsum(row.pop("sum") for row in rows), sum(row["tokens"] for row in rows)
        num_bytes = sum(row["bytes"] for row in rows)
        if not num_tokens:
            action = "give documents in which something counts in the loss (objective.loss_on=all: everything)"
            raise InputError.about(f"evaluation.sets.{self.name}", "the set has no counted tokens", "0 tokens", action)
        if not math.isfinite(total):
            action = "look at the run's loss; or try a wider type (precision=float32)"
            what, where = "the loss of the set is not finite", f"evaluation.sets.{self.name}"
            raise NumericalError(Problem(what, where, str(total), action))
        loss = total / num_tokens
        bits = total / math.log(2) / num_bytes if num_bytes else None
        figures = {"loss": loss, "perplexity": perplexity(loss), "bits_per_byte": bits}
        return Outcome(figures, rows, num_tokens)

    def _batches(self) -> Iterator[np.ndarray]:
        for start in range(0, self.size, self._batch_size):
            yield np.arange(start, min(start + self._batch_size, self.size))

    def _losses(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Summed loss and number of counted tokens of each row; float64."""
        filled = np.concatenate([indices, np.repeat(indices[-1:], self._batch_size - len(indices))])
        batch = self._examples.batch(filled)
        scores_BS = ops.convert_to_numpy(self._call({key: batch[key] for key in (*INPUT_KEYS, "labels")}))
        mask_BS = batch["loss_mask"] > 0
        losses_B = -np.where(mask_BS, scores_BS, 0.0).sum(axis=1, dtype=np.float64)
        return losses_B[: len(indices)], mask_BS.sum(axis=1)[: len(indices)]

    def _scores(self, batch):
        hidden_BSD = self._model.backbone({key: batch[key] for key in INPUT_KEYS}, training=False)
        embedding = self._model.backbone.token_embedding
        return next_token_scores(embedding, hidden_BSD, batch["labels"], chunk_tokens=CHUNK_TOKENS)[0]

    def _count_bytes(self) -> np.ndarray:
        """UTF-8 bytes of the counted tokens of each row, (rows,)."""
        found = np.zeros(self.size, np.int64)
        for indices in self._batches():
            batch = self._examples.batch(indices)
            for row, index in enumerate(indices):
                tokens, labels = batch["token_ids"][row], batch["labels"][row]
                found[index] = sum(
                    num_bytes(self._model.tokenizer, tokens[first : first + 1], labels[first:end])
                    for first, end in _stretches(batch["loss_mask"][row] > 0, batch["segment_ids"][row])
                )
        return found


def num_bytes(tokenizer, before: np.ndarray, token_ids: np.ndarray) -> int:
    """UTF-8 bytes that token ids add to the text of the one before them.

    A character that is cut between two rows counts with the bytes that stand on either side, as far as a decoded text
    tells them.
    """

    def size(ids: np.ndarray) -> int:
        text = tokenizer.decode(ids.tolist())
        return len(text.encode()) - 2 * text.count("\ufffd")  # one in the place of three bytes

    return size(np.concatenate([before, token_ids])) - size(before)


def _stretches(mask: np.ndarray, segments: np.ndarray):
    """Begin and end of each stretch of counted positions of one document."""
    numbered = np.where(mask, segments, 0)
    borders = np.flatnonzero(np.diff(numbered, prepend=0, append=0))
    for first, end in zip(borders, borders[1:], strict=False):
        if numbered[first]:
            yield first, end


def prepare_set(dataset, tokenizer, cache_dir: str, loss_on: str, whole: bool):
    """The rows of a set that is open: all of them, or those of its validation split.

    Raises:
        InputError: there is no row; StorageError: the cache cannot be written.
    """
    if whole:
        return dataset.prepare_whole(tokenizer, cache_dir=Path(cache_dir), loss_on=loss_on)
    return dataset.prepare(tokenizer, cache_dir=Path(cache_dir), loss_on=loss_on)["validation"]
