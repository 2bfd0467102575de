"""One split of tokenized data, on the disk.

Shape letters: B batch, S query positions (sequence_length).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from llama_exp.files.row_file import RowFile

TOKEN_IDS, SEGMENT_IDS, IS_TARGET = "token_ids.npy", "segment_ids.npy", "is_target.npy"


class Examples:
    """Rows of tokens; `len()` gives their number.

    On disk each row has S + 1 columns: the last one only serves as the successor of position S - 1.

    Args:
        folder: Holds token_ids (smallest unsigned type for the vocabulary), segment_ids (uint16 or larger; 0 is
            padding) and is_target (uint8), each (rows, S + 1).
        facts: Counts that were taken when the rows were made; see `RowWriter.finish`.
        fingerprint: Key of everything that decides the rows.

    Attributes:
        sequence_length: S. num_target_tokens: sum of the loss mask over all rows. num_tokens: tokens that are not
        padding. num_documents. vocabulary_size: the tokenizer's. max_token_id: the largest id that occurs.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], fingerprint: str):
        self._token_ids = RowFile(folder / TOKEN_IDS)
        self._segment_ids = RowFile(folder / SEGMENT_IDS)
        self._is_target = RowFile(folder / IS_TARGET)
        self.fingerprint = fingerprint
        self.facts = dict(facts)
        self.sequence_length: int = self._token_ids.shape[1] - 1
        self.num_target_tokens: int = facts["target_tokens"]
        self.num_tokens: int = facts["tokens"]
        self.num_documents: int = facts["documents"]
        self.vocabulary_size: int = facts["vocabulary_size"]
        self.max_token_id: int = facts["max_token_id"]

    def __len__(self) -> int:
        return len(self._token_ids)

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The rows at `indices` (B,), each array (B, S).

        Returns:
            token_ids int32. segment_ids int32: 1.. from left to right, 0 for padding. position_ids int32: restart with
            each segment. padding_mask int32: 1 for tokens. labels int32: the next token of the same segment, 0 where
            there is none. loss_mask float32: 1 where the label counts.

        Raises:
            StorageError: the files were cut off since they were opened.
        """
        tokens = self._token_ids.read(indices).astype(np.int32)
        segments = self._segment_ids.read(indices).astype(np.int32)
        is_target = self._is_target.read(indices)
        has_label = (segments[:, 1:] == segments[:, :-1]) & (segments[:, :-1] > 0)
        segment_ids = segments[:, :-1]
        padding_mask = (segment_ids > 0).astype(np.int32)
        return {
            "token_ids": np.ascontiguousarray(tokens[:, :-1]),
            "position_ids": _positions(segment_ids) * padding_mask,
            "segment_ids": np.ascontiguousarray(segment_ids),
            "padding_mask": padding_mask,
            "labels": np.where(has_label, tokens[:, 1:], np.int32(0)),
            "loss_mask": (has_label & (is_target[:, 1:] > 0)).astype(np.float32),
        }


def _positions(segment_ids: np.ndarray) -> np.ndarray:
    """Distance of each column from the start of its segment, int32 (B, S)."""
    columns = np.arange(segment_ids.shape[1], dtype=np.int32)[None, :]
    begins = np.diff(segment_ids, axis=1, prepend=-1) != 0
    return columns - np.maximum.accumulate(np.where(begins, columns, 0), axis=1)
