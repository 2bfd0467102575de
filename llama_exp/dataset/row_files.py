"""Token rows on disk: a layout of pieces becomes the files of `Examples`, a block of rows at a time."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from llama_exp.dataset.examples import IS_TARGET, SEGMENT_IDS, TOKEN_IDS
from llama_exp.dataset.packing import Layout
from llama_exp.files.row_file import writing_rows

_TOKENS_AT_ONCE = 1 << 19


def write_rows(
    folder: Path, layout: Layout, tokens: np.ndarray, targets: np.ndarray, *, sequence_length: int, pad_id: int
) -> int:
    """Writes the arrays of `Examples` into a folder.

    Args:
        folder: exists.
        layout: which token goes where.
        tokens: the flat stream, of the smallest unsigned type for the vocabulary.
        targets: 1 for each of them that counts, uint8.
        sequence_length: positions of a row; it has one more column.
        pad_id: fills what no piece takes.

    Returns:
        Number of targets in the rows.
    """
    segment = np.arange(len(layout.row)) - np.searchsorted(layout.row, layout.row) + 1
    segment_type = np.promote_types(np.min_scalar_type(int(segment.max())), np.uint16)
    types = {TOKEN_IDS: tokens.dtype, SEGMENT_IDS: segment_type, IS_TARGET: np.dtype(np.uint8)}
    shape = (layout.num_rows, sequence_length + 1)
    rows_at_once = max(1, _TOKENS_AT_ONCE // shape[1])
    target_tokens = 0
    with contextlib.ExitStack() as stack:
        append = {name: stack.enter_context(writing_rows(folder / name, dtype, shape)) for name, dtype in types.items()}
        for first in range(0, layout.num_rows, rows_at_once):
            last = min(first + rows_at_once, layout.num_rows)
            pieces = slice(*np.searchsorted(layout.row, [first, last]))
            count = layout.length[pieces] + layout.continues[pieces]
            within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            source = np.repeat(layout.start[pieces], count) + within
            place = (layout.row[pieces] - first) * shape[1] + layout.column[pieces]
            place = np.repeat(place, count) + within
            block = {name: np.zeros((last - first) * shape[1], dtype) for name, dtype in types.items()}
            block[TOKEN_IDS][:] = pad_id
            block[TOKEN_IDS][place] = tokens[source]
            block[SEGMENT_IDS][place] = np.repeat(segment[pieces], count)
            block[IS_TARGET][place] = targets[source] * (within > 0)  # a piece's first token is no target in its row
            for name, values in block.items():
                append[name](values.reshape(last - first, shape[1]))
            target_tokens += int(block[IS_TARGET].sum())
    return target_tokens
