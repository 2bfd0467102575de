"""How documents share rows.

Shape letters: P pieces, M documents; L stands for sequence_length.

A row has L positions and one more column, the successor of its last token. So a document that is cut at a row's end
loses no target: the next row begins with the very token that was the last target before it.

    L = 4, documents a0..a5 (6 tokens) and b0..b2:

    concat      a0 a1 a2 a3 | a4        best_fit, overlong=split     a0 a1 a2 a3 | a4
                a4 a5 b0 b1 | b2                                     b0 b1 b2  . | .
                b2  .  .  . | .                                      a4 a5  .  . | .

Every document of n tokens gives n - 1 targets, however it is packed. (The lone b2 has no target left: that row is
dropped.)
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np

from llama_exp.limits.dataset import Packing

_SUMMED_AT_ONCE = 1 << 20  # tokens


@dataclass(frozen=True)
class Layout:
    """Where each piece of a document goes; all arrays int64 (P,), sorted by row and column.

    start: index of its first token in the flat stream. length: tokens at positions of the row. continues: 1 where the
    document goes on, so that the token behind the piece is its last target. row, column: its place.
    """

    start: np.ndarray
    length: np.ndarray
    continues: np.ndarray
    row: np.ndarray
    column: np.ndarray
    num_rows: int


def pack(lengths: np.ndarray, is_target: np.ndarray, sequence_length: int, packing: Packing) -> tuple[Layout, int]:
    """A layout of documents that leaves out what has no target.

    Args:
        lengths: Tokens of each document, int64 (M,), each at least 2.
        is_target: 1 for each token of the flat stream that counts when it is predicted, uint8 (sum of lengths,).
        sequence_length: L.
        packing: How documents share rows.

    Returns:
        The layout, and the number of pieces that were left out although they are longer than one token.
    """
    if packing is Packing.concat:
        start, length, continues = _cut_stream(lengths, sequence_length)
        row, column = start // sequence_length, start % sequence_length
    else:
        start, length, continues = _cut_documents(lengths, sequence_length)
        row, column = np.arange(len(start)), np.zeros(len(start), np.int64)
    targets = _targets_before(is_target, start + length + continues) - _targets_before(is_target, start + 1)
    targets_of_row = np.bincount(row, weights=targets)
    kept = np.flatnonzero(targets_of_row[row] > 0)
    left_out = int(((targets_of_row[row] == 0) & (length + continues > 1)).sum())
    start, length, continues, column = start[kept], length[kept], continues[kept], column[kept]
    row = np.cumsum(targets_of_row > 0)[row[kept]] - 1
    if packing is Packing.best_fit:
        row, column = best_fit_decreasing(length, sequence_length)
    order = np.lexsort((column, row))
    num_rows = int(row.max()) + 1 if len(row) else 0
    return Layout(start[order], length[order], continues[order], row[order], column[order], num_rows), left_out


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Bins for items: the longest first, each into the fullest bin that still has room for it.

    Args:
        lengths: int64 (P,), each 1 .. capacity.
        capacity: Room in a bin.

    Returns:
        bin and offset of each item, int64 (P,), after O(P log P + P log capacity) comparisons.
    """
    bins, offsets = np.empty(len(lengths), np.int64), np.empty(len(lengths), np.int64)
    rooms: list[int] = []  # the sizes of room that some bin has, ascending
    bins_by_room: dict[int, list[int]] = {}
    num_bins = 0
    for item in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[item])
        place = bisect.bisect_left(rooms, length)
        if place == len(rooms):
            room, number, num_bins = capacity, num_bins, num_bins + 1
        else:
            room = rooms[place]
            number = bins_by_room[room].pop()
            if not bins_by_room[room]:
                del bins_by_room[room], rooms[place]
        bins[item], offsets[item] = number, capacity - room
        if left := room - length:
            if left not in bins_by_room:
                bins_by_room[left] = []
                bisect.insort(rooms, left)
            bins_by_room[left].append(number)
    return bins, offsets


def _cut_stream(lengths: np.ndarray, sequence_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, length and `continues` of the pieces of all documents in a row, cut at the ends of rows and documents."""
    total = int(lengths.sum())
    ends = np.cumsum(lengths)
    start = np.union1d(ends - lengths, np.arange(0, total, sequence_length))
    length = np.diff(start, append=total)
    return start, length, (~np.isin(start + length, ends)).astype(np.int64)


def _cut_documents(lengths: np.ndarray, sequence_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, length and `continues` of whole documents, cut every `sequence_length` tokens where they are too long."""
    # A last token that was already the target of the piece before it needs no piece of its own.
    pieces = -(-(lengths - 1) // sequence_length)
    document = np.repeat(np.arange(len(lengths)), pieces)
    offset = (np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * sequence_length
    length = np.minimum(sequence_length, lengths[document] - offset)
    continues = (offset + length < lengths[document]).astype(np.int64)
    return (np.cumsum(lengths) - lengths)[document] + offset, length, continues


def _targets_before(is_target: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Sum of `is_target` before each of the ascending positions, int64 (P,), without a sum per token in memory."""
    before = np.empty(len(positions), np.int64)
    total = 0
    for first in range(0, len(is_target) + 1, _SUMMED_AT_ONCE):
        sums = np.concatenate([[0], np.cumsum(is_target[first : first + _SUMMED_AT_ONCE], dtype=np.int64)])
        here = slice(*np.searchsorted(positions, [first, first + _SUMMED_AT_ONCE]))
        before[here] = total + sums[positions[here] - first]
        total += int(sums[-1])
    return before
