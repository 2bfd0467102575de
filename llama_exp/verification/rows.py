"""Rows of training data written in another way that means the same.

Shape letters: B rows, S positions, N documents, L positions of the longest of them.
"""

from __future__ import annotations

import numpy as np

Rows = dict[str, np.ndarray]
MOST_DOCUMENTS = 8
LEAST_PADDING = 8


def keep_few_documents(rows: Rows) -> Rows:
    """The rows with at least two documents in each, and not many in all.

    A row that is one document is taken for two, its halves: what is compared is whether they can be told apart.
    """
    segments = rows["segment_ids"]
    if segments.max() < 2:
        rows = _halve(rows)
    last = max(2, MOST_DOCUMENTS // len(segments))
    return _masked(rows, rows["segment_ids"] <= last)


def unpack(rows: Rows) -> Rows:
    """Each document of (B, S) rows in a row of its own, (N, L), padded behind."""
    places = [np.flatnonzero(row == segment) for row in rows["segment_ids"] for segment in range(1, int(row.max()) + 1)]
    owners = [n for n, row in enumerate(rows["segment_ids"]) for _ in range(int(row.max()))]
    length = max(len(place) for place in places)
    unpacked = {key: np.zeros((len(places), length), array.dtype) for key, array in rows.items()}
    for number, (owner, place) in enumerate(zip(owners, places, strict=True)):
        for key, array in rows.items():
            unpacked[key][number, : len(place)] = array[owner, place]
        unpacked["segment_ids"][number, : len(place)] = 1
    return unpacked


def pad(rows: Rows, vocabulary_size: int) -> Rows:
    """The rows with padding behind, whose tokens are any: (B, S + S / 4)."""
    num_rows, length = rows["token_ids"].shape
    more = max(LEAST_PADDING, length // 4)
    padded = {key: np.pad(array, ((0, 0), (0, more))) for key, array in rows.items()}
    padded["token_ids"][:, length:] = np.random.default_rng(0).integers(0, vocabulary_size, (num_rows, more))
    return padded


def drop_targets(rows: Rows) -> Rows:
    """The rows with half of the first one's targets, so that not all rows have the same number."""
    loss_mask = rows["loss_mask"].copy()
    counted = np.flatnonzero(loss_mask[0])
    loss_mask[0, counted[len(counted) // 2 :]] = 0.0
    return rows | {"loss_mask": loss_mask}


def _halve(rows: Rows) -> Rows:
    """The second half of each row as a document of its own, whose first token nobody predicts."""
    lengths = rows["padding_mask"].sum(axis=1)
    columns = np.arange(rows["token_ids"].shape[1])[None, :]
    middle = (lengths // 2)[:, None]
    is_second = (columns >= middle) & (rows["padding_mask"] > 0)
    halved = dict(rows)
    halved["segment_ids"] = np.where(is_second, 2, rows["segment_ids"]).astype(np.int32)
    halved["position_ids"] = np.where(is_second, columns - middle, rows["position_ids"]).astype(np.int32)
    halved["loss_mask"] = np.where(columns == middle - 1, np.float32(0), rows["loss_mask"])
    return halved


def _masked(rows: Rows, kept: np.ndarray) -> Rows:
    """The rows with padding wherever they are not kept."""
    return {key: array if key == "token_ids" else (array * kept).astype(array.dtype) for key, array in rows.items()}
