"""Records -> token rows on disk.

Shape letters: L stands for sequence_length.
"""

from __future__ import annotations

import contextlib
import logging
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from llama_exp.dataset.examples import IS_TARGET, SEGMENT_IDS, TOKEN_IDS
from llama_exp.dataset.packing import Layout, pack
from llama_exp.dataset.records import Piece, Record
from llama_exp.errors import InputError, Problem
from llama_exp.files.row_file import writing_rows
from llama_exp.limits.dataset import Overlong, Packing
from llama_exp.limits.objective import LossOn

log = logging.getLogger("llama_exp")

_TOKENIZED_AT_ONCE = 512  # records
_ROWS_AT_ONCE = 4096


class RowWriter:
    """Takes the records of one split and leaves `Examples` files in a folder; a context manager.

    The tokens pass through flat files in the same folder, so that memory holds no more than some records, some rows,
    and a few numbers per document.

    Args:
        folder: Made here; must not exist.
        name: Data set and split, for messages.
        tokenizer: See `llama_exp.tokenizer`.
        sequence_length: L.
        overlong: What to do with documents of more than L tokens.
        loss_on: Whether only the pieces that count are targets, or every token is.
    """

    def __init__(
        self, folder: Path, *, name: str, tokenizer: Any, sequence_length: int, overlong: Overlong, loss_on: LossOn
    ):
        folder.mkdir(parents=True)
        self._folder, self._name, self._tokenizer = folder, name, tokenizer
        self._sequence_length, self._overlong, self._all_count = sequence_length, overlong, loss_on is LossOn.all
        self._token_type = np.min_scalar_type(max(tokenizer.vocabulary_size - 1, 0))
        self._waiting: list[Record] = []
        self._lengths: list[int] = []
        self._max_token_id = 0
        self.counts = dict.fromkeys(("documents", "empty", "overlong", "overlong_dropped", "masked"), 0)

    def __enter__(self) -> RowWriter:
        self._files = contextlib.ExitStack()
        self._tokens_file = self._files.enter_context(open(self._folder / "tokens.flat", "wb"))
        self._targets_file = self._files.enter_context(open(self._folder / "targets.flat", "wb"))
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()

    def add(self, record: Record) -> None:
        """Takes one record; its tokens are made when enough records wait."""
        self._waiting.append(record)
        if len(self._waiting) == _TOKENIZED_AT_ONCE:
            self._tokenize()

    def finish(self, packing: Packing) -> dict[str, int]:
        """Packs everything into rows and returns the counts.

        Returns:
            documents: records that came in; of these empty (no text), overlong (more than L tokens), overlong_dropped
            and masked (no target); masked_pieces: parts of cut documents without a target; tokens, target_tokens,
            segments and rows that were written; vocabulary_size, max_token_id.
        """
        self._tokenize()
        self._files.close()
        lengths = np.array(self._lengths, np.int64)
        facts = {
            **self.counts,
            **dict.fromkeys(("masked_pieces", "rows", "segments", "tokens", "target_tokens"), 0),
            "vocabulary_size": self._tokenizer.vocabulary_size,
            "max_token_id": self._max_token_id,
        }
        if len(lengths):
            tokens = np.memmap(self._folder / "tokens.flat", self._token_type, "r")
            targets = np.memmap(self._folder / "targets.flat", np.uint8, "r")
            layout, facts["masked_pieces"] = pack(lengths, targets, self._sequence_length, packing)
            facts |= self._write(layout, tokens, targets)
            del tokens, targets
        for file in ("tokens.flat", "targets.flat"):
            (self._folder / file).unlink()
        self._report(facts)
        return facts

    def _tokenize(self) -> None:
        records, self._waiting = self._waiting, []
        for record, token_ids, is_target in zip(records, *self._encode(records), strict=True):
            self.counts["documents"] += 1
            if not any(piece.text.strip() for piece in record.pieces if piece.token is None):
                self.counts["empty"] += 1
                continue
            if len(token_ids) > self._sequence_length:
                token_ids, is_target = self._shortened(record, token_ids, is_target)
            if not is_target[1:].any():
                self.counts["masked"] += len(token_ids) > 0  # a dropped one has been counted already
                continue
            self._check(record, token_ids)
            self._max_token_id = max(self._max_token_id, int(token_ids.max()))
            self._lengths.append(len(token_ids))
            self._tokens_file.write(token_ids.astype(self._token_type).tobytes())
            self._targets_file.write(is_target.tobytes())

    def _encode(self, records: list[Record]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Token ids (int64) and target marks (uint8) of each record; all plain text goes to the tokenizer at once."""
        plans = [_joined(record.pieces, self._tokenizer, self._all_count) for record in records]
        queues = {}
        for continuation in (False, True):
            parts = [(part, later) for plan in plans for part, _, later in plan if isinstance(part, str)]
            texts = [part for part, later in parts if later == continuation]
            queues[continuation] = iter(self._tokenizer.encode_batch(texts, continuation=continuation))
        all_ids, all_targets = [], []
        for plan in plans:
            ids: list[int] = []
            targets: list[int] = []
            for part, counts, later in plan:
                if isinstance(part, str):
                    new = next(queues[later])
                elif part == self._tokenizer.eos_id and ids and ids[-1] in self._tokenizer.stop_ids:
                    continue  # the turn has ended with a token of its own
                else:
                    new = [part]
                ids += new
                targets += [counts] * len(new)
            all_ids.append(np.array(ids, np.int64))
            all_targets.append(np.array(targets, np.uint8))
        return all_ids, all_targets

    def _shortened(self, record: Record, token_ids: np.ndarray, is_target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.counts["overlong"] += 1
        if self._overlong is Overlong.error:
            raise InputError(
                Problem(
                    what="a document is longer than a row, and dataset.overlong is error",
                    where=f"dataset {self._name}, record {record.source}",
                    found=f"{len(token_ids)} tokens, dataset.sequence_length={self._sequence_length}",
                    action="set dataset.overlong to split, truncate or drop, or raise dataset.sequence_length",
                )
            )
        if self._overlong is Overlong.drop:
            self.counts["overlong_dropped"] += 1
            return token_ids[:0], is_target[:0]
        kept = self._sequence_length if self._overlong is Overlong.truncate else len(token_ids)
        return token_ids[:kept], is_target[:kept]

    def _check(self, record: Record, token_ids: np.ndarray) -> None:
        vocabulary_size = self._tokenizer.vocabulary_size
        bad = np.flatnonzero((token_ids < 0) | (token_ids >= vocabulary_size))
        if bad.size:
            raise InputError(
                Problem(
                    what="a token id lies outside the vocabulary",
                    where=f"dataset {self._name}, record {record.source}, token {bad[0]}",
                    found=f"id {token_ids[bad[0]]}, vocabulary_size {vocabulary_size}",
                    action=f"ids must be 0 .. {vocabulary_size - 1}: repair the tokenizer",
                )
            )

    def _write(self, layout: Layout, tokens: np.ndarray, targets: np.ndarray) -> dict[str, int]:
        shape = (layout.num_rows, self._sequence_length + 1)
        segment = np.arange(len(layout.row)) - np.searchsorted(layout.row, layout.row) + 1
        segment_type = np.promote_types(np.min_scalar_type(int(segment.max())), np.uint16)
        files = {TOKEN_IDS: self._token_type, SEGMENT_IDS: segment_type, IS_TARGET: np.dtype(np.uint8)}
        with contextlib.ExitStack() as stack:
            append = {
                name: stack.enter_context(writing_rows(self._folder / name, np.dtype(dtype), shape))
                for name, dtype in files.items()
            }
            target_tokens = self._fill(append, layout, tokens, targets, segment.astype(segment_type))
        return {
            "rows": layout.num_rows,
            "segments": len(layout.row),
            "tokens": int(layout.length.sum()),
            "target_tokens": target_tokens,
        }

    def _fill(self, append, layout: Layout, tokens: np.ndarray, targets: np.ndarray, segment: np.ndarray) -> int:
        """Appends every row to its files, some at a time, and returns the number of targets."""
        columns, pad_id, target_tokens = self._sequence_length + 1, self._tokenizer.pad_id or 0, 0
        for first in range(0, layout.num_rows, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, layout.num_rows)
            pieces = slice(*np.searchsorted(layout.row, [first, last]))
            count = layout.length[pieces] + layout.continues[pieces]
            within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            source = np.repeat(layout.start[pieces], count) + within
            place = (layout.row[pieces] - first) * columns + layout.column[pieces]
            place = np.repeat(place, count) + within
            size = (last - first) * columns
            block = {
                TOKEN_IDS: np.full(size, pad_id, self._token_type),
                SEGMENT_IDS: np.zeros(size, segment.dtype),
                IS_TARGET: np.zeros(size, np.uint8),
            }
            block[TOKEN_IDS][place] = tokens[source]
            block[SEGMENT_IDS][place] = np.repeat(segment[pieces], count)
            block[IS_TARGET][place] = targets[source] * (within > 0)  # a piece's first token is no target in its row
            for name, values in block.items():
                append[name](values.reshape(last - first, columns))
            target_tokens += int(block[IS_TARGET].sum())
        return target_tokens

    def _report(self, facts: dict[str, int]) -> None:
        filled = facts["tokens"] / max(1, facts["rows"] * self._sequence_length)
        log.info(
            "dataset %s: %d documents -> %d rows of %d tokens (%.1f %% filled), %d targets",
            *(self._name, facts["documents"], facts["rows"], self._sequence_length, 100 * filled),
            facts["target_tokens"],
        )
        share = 100 / max(1, facts["documents"])
        if facts["overlong"]:
            log.info(
                "dataset %s: %d documents (%.1f %%) are longer than %d tokens (overlong=%s)",
                *(self._name, facts["overlong"], facts["overlong"] * share),
                *(self._sequence_length, self._overlong.value),
            )
        for reason, meaning in (("empty", "hold no text"), ("masked", "have no target of the loss")):
            if facts[reason]:
                log.warning(
                    "dataset %s: %d documents (%.1f %%) %s and are dropped",
                    *(self._name, facts[reason], facts[reason] * share, meaning),
                )
        if facts["masked_pieces"]:
            log.warning(
                "dataset %s: %d parts of documents that were cut have no target of the loss and are dropped",
                *(self._name, facts["masked_pieces"]),
            )


Part = tuple[str | int, int, bool]


def _joined(pieces: tuple[Piece, ...], tokenizer: Any, all_count: bool) -> list[Part]:
    """(text or token id, counts, follows other text) with neighbouring texts of the same count made one.

    Joining them keeps the encoding what it would be if the document were given as one string.
    """
    resolved: list[tuple[str | int, int]] = []
    for piece in pieces:
        counts = int(piece.counts or all_count)
        token_id = _token_id(piece.token, tokenizer)
        if token_id is not None:
            resolved.append((token_id, counts))
        elif piece.text:
            resolved.append((piece.text, counts))
    parts: list[Part] = []
    text_before = False
    for (is_text, counts), group in groupby(resolved, key=lambda part: (isinstance(part[0], str), part[1])):
        if is_text:
            parts.append(("".join(str(text) for text, _ in group), counts, text_before))
            text_before = True
        else:
            parts += [(token_id, counts, False) for token_id, _ in group]
            text_before = False
    return parts


def _token_id(token: str | None, tokenizer: Any) -> int | None:
    if token == "bos":
        return tokenizer.begin_id
    if token == "eos":
        return tokenizer.eos_id
    return None if token is None else tokenizer.special_id(token)
