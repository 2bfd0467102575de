"""Whether there is anything to learn in the answers of pairs and conversations."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from llama_exp.dataset.records import Record
from llama_exp.errors import InputError
from llama_exp.limits.objective import LossOn

log = logging.getLogger("llama_exp")


def watch_answers(documents: Iterable[tuple[str, Record]], name: str, loss_on: LossOn) -> Iterator[tuple[str, Record]]:
    """The same documents; at their end, empty answers are told.

    Args:
        documents: (split, record).
        name: of the data set.
        loss_on: under `all` the question is learned too, and nothing is told.

    Raises:
        InputError: after the last document, if every answer was empty.
    """
    num_answered = num_empty = 0
    for split, record in documents:
        yield split, record
        if loss_on is LossOn.completion and _has_question(record):
            num_answered += 1
            num_empty += not any(piece.text.strip() for piece in record.pieces if piece.counts and piece.token is None)
    if not num_empty:
        return
    if num_empty == num_answered:
        what, found = "every answer is empty: there is nothing to learn", f"{num_empty} of {num_answered} documents"
        action = "set dataset.completion_key or dataset.messages_key to where the answers are, or objective.loss_on=all"
        raise InputError.about(f"dataset {name}", what, found, action)
    log.warning(
        "dataset %s: %d of %d answers (%.1f %%) are empty: the model learns to say nothing there",
        *(name, num_empty, num_answered, 100 * num_empty / num_answered),
    )


def _has_question(record: Record) -> bool:
    """Whether something is asked, and something is to be learned; not so in plain text, or where weights are 0."""
    asked = any(piece.text and not piece.counts for piece in record.pieces if piece.token is None)
    return asked and any(piece.counts for piece in record.pieces)
