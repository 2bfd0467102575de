"""Records -> token ids, as many texts at once as keep all processors busy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np

from llama_exp.dataset.records import Piece, Record
from llama_exp.dataset.stretches import STRETCH, divide

# (text or token id, whether it counts, whether it follows other text)
Part = tuple[str | int, int, bool]


def encode(records: list[Record], tokenizer: Any, all_count: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Token ids (int64) and target marks (uint8) of each record; all plain text goes to the tokenizer at once.

    Args:
        records: few enough for memory, which holds all of their tokens.
        tokenizer: See `llama_exp.tokenizer`.
        all_count: Whether tokens of pieces that do not count are targets too.
    """
    plans = [_in_stretches(_joined(record, tokenizer, all_count), tokenizer) for record in records]
    queues = {}
    for continuation in (False, True):
        parts = [(part, later) for plan in plans for part, _, later in plan if isinstance(part, str)]
        texts = [part for part, later in parts if later == continuation]
        queues[continuation] = iter(tokenizer.encode_batch(texts, continuation=continuation))
    for plan in plans:
        ids: list[int] = []
        targets: list[int] = []
        for part, counts, later in plan:
            if isinstance(part, str):
                new = next(queues[later])
            elif part == tokenizer.eos_id and ids and ids[-1] in tokenizer.stop_ids:
                continue  # the turn has ended with a token of its own
            else:
                new = [part]
            ids += new
            targets += [counts] * len(new)
        yield np.array(ids, np.int64), np.array(targets, np.uint8)


def _in_stretches(parts: list[Part], tokenizer: Any) -> list[Part]:
    """The same parts, a long text as several."""
    short: list[Part] = []
    for part, counts, later in parts:
        if isinstance(part, str) and len(part) > STRETCH:
            stretches = divide(part, tokenizer)
            short += [(text, counts, later or number > 0) for number, text in enumerate(stretches)]
        else:
            short.append((part, counts, later))
    return short


def _joined(record: Record, tokenizer: Any, all_count: bool) -> list[Part]:
    """The pieces with neighbouring texts of the same count made one.

    Joining them keeps the encoding what it would be if the document were given as one string.
    """
    resolved: list[tuple[str | int, int]] = []
    for piece in record.pieces:
        counts = int(piece.counts or all_count)
        token_id = _token_id(piece, tokenizer)
        if token_id is not None:
            resolved.append((token_id, counts))
        elif piece.text:
            resolved.append((piece.text, counts))
    parts: list[Part] = []
    text_before = not record.begins
    for (is_text, counts), group in groupby(resolved, key=lambda part: (isinstance(part[0], str), part[1])):
        if is_text:
            parts.append(("".join(str(text) for text, _ in group), counts, text_before))
            text_before = True
        else:
            parts += [(token_id, counts, False) for token_id, _ in group]
            text_before = False
    return parts


def _token_id(piece: Piece, tokenizer: Any) -> int | None:
    if piece.token == "bos":
        return tokenizer.begin_id
    if piece.token == "eos":
        return tokenizer.eos_id
    return None if piece.token is None else tokenizer.special_id(piece.token)
