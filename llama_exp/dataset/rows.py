"""Records -> token rows on disk.

Shape letters: L stands for sequence_length.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llama_exp.dataset.encoding import encode
from llama_exp.dataset.packing import pack
from llama_exp.dataset.records import Record
from llama_exp.dataset.row_files import write_rows
from llama_exp.errors import InputError, Problem
from llama_exp.limits.dataset import Overlong, Packing
from llama_exp.limits.objective import LossOn

_RECORDS_AT_ONCE = 512
_CHARACTERS_AT_ONCE = 1 << 18
_TOKENS_FILE, _TARGETS_FILE = "tokens.flat", "targets.flat"


@dataclass
class _Open:
    """The document whose records are coming in.

    tokens: so far, targets among them (the first token is never one): `target_tokens`. kept: tokens that rows may
    hold. waiting: token ids and marks that are not written yet.
    """

    has_text: bool = False
    tokens: int = 0
    target_tokens: int = 0
    kept: int = 0
    waiting: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    has_target: bool = False


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

    Attributes:
        counts: of documents and tokens so far. first_overlong: source of the first document of more than L tokens.
    """

    def __init__(
        self, folder: Path, *, name: str, tokenizer: Any, sequence_length: int, overlong: Overlong, loss_on: LossOn
    ):
        folder.mkdir(parents=True)
        self._folder, self._name, self._tokenizer = folder, name, tokenizer
        self._sequence_length, self._overlong, self._all_count = sequence_length, overlong, loss_on is LossOn.all
        self._token_type = np.min_scalar_type(max(tokenizer.vocabulary_size - 1, 0))
        self._waiting: list[Record] = []
        self._waiting_characters = 0
        self._lengths: list[int] = []
        self._open = _Open()
        self.first_overlong = ""
        self.counts = dict.fromkeys(
            ("documents", "empty", "plain", "overlong", "overlong_dropped", "masked")
            + ("longest", "source_tokens", "source_target_tokens", "max_token_id"),
            0,
        )

    def __enter__(self) -> RowWriter:
        self._files = contextlib.ExitStack()
        self._tokens_file = self._files.enter_context(open(self._folder / _TOKENS_FILE, "wb"))
        self._targets_file = self._files.enter_context(open(self._folder / _TARGETS_FILE, "wb"))
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()

    def add(self, record: Record) -> None:
        """Takes one record; its tokens are made when enough records wait."""
        self._waiting.append(record)
        self._waiting_characters += len(record.text)
        if len(self._waiting) == _RECORDS_AT_ONCE or self._waiting_characters >= _CHARACTERS_AT_ONCE:
            self._tokenize()

    def finish(self, packing: Packing) -> dict[str, int]:
        """Packs everything into rows and returns the counts.

        Returns:
            documents: documents that came in; of these empty (no text), plain (all of it counts), overlong (more than
            L tokens), overlong_dropped (under `error` too, which the caller raises) and masked (no target); longest:
            tokens of the longest; source_tokens, source_target_tokens: of all; masked_pieces: parts of cut documents
            without a target; tokens, target_tokens, segments and rows that were written; vocabulary_size, max_token_id.
        """
        self._tokenize()
        self._files.close()
        lengths = np.array(self._lengths, np.int64)
        facts = {
            **self.counts,
            **dict.fromkeys(("masked_pieces", "rows", "segments", "tokens", "target_tokens"), 0),
            "vocabulary_size": self._tokenizer.vocabulary_size,
        }
        if len(lengths):
            facts |= self._write(lengths, packing)
        for file in (_TOKENS_FILE, _TARGETS_FILE):
            (self._folder / file).unlink()
        return facts

    def _write(self, lengths: np.ndarray, packing: Packing) -> dict[str, int]:
        if packing is Packing.auto:
            with_text = self.counts["documents"] - self.counts["empty"]
            packing = Packing.concat if self.counts["plain"] == with_text else Packing.best_fit
        tokens = np.memmap(self._folder / _TOKENS_FILE, self._token_type, "r")
        targets = np.memmap(self._folder / _TARGETS_FILE, np.uint8, "r")
        layout, masked_pieces = pack(lengths, targets, self._sequence_length, packing)
        length, pad_id = self._sequence_length, self._tokenizer.pad_id or 0
        return {
            "masked_pieces": masked_pieces,
            "rows": layout.num_rows,
            "segments": len(layout.row),
            "tokens": int(layout.length.sum()),
            "target_tokens": write_rows(self._folder, layout, tokens, targets, sequence_length=length, pad_id=pad_id),
        }

    def _tokenize(self) -> None:
        records, self._waiting, self._waiting_characters = self._waiting, [], 0
        for record, (token_ids, is_target) in zip(
            records, encode(records, self._tokenizer, self._all_count), strict=True
        ):
            self._take(record, token_ids, is_target)
            if record.ends:
                self._end(record)

    def _take(self, record: Record, token_ids: np.ndarray, is_target: np.ndarray) -> None:
        """Adds the tokens of a record to its document, as many as may stay."""
        document = self._open
        self._check(record, document, token_ids)
        document.has_text |= any(piece.text.strip() for piece in record.pieces if piece.token is None)
        first = 1 if document.tokens == 0 else 0  # the first token of a document is no target
        document.target_tokens += int(is_target[first:].sum())
        overlong = self._overlong_of(record)
        room = len(token_ids) if overlong is Overlong.split else max(0, self._sequence_length - document.kept)
        document.has_target |= bool(is_target[first:room].any())
        document.waiting.append((token_ids[:room], is_target[:room]))
        document.tokens += len(token_ids)
        document.kept += min(room, len(token_ids))
        if overlong is Overlong.split and document.has_target and document.has_text:
            self._flush(document)  # a document that stays whole need not be in memory as a whole

    def _end(self, record: Record) -> None:
        """Decides about the document that ends with a record."""
        document, self._open = self._open, _Open()
        self.counts["documents"] += 1
        if not document.has_text:
            self.counts["empty"] += 1
            return
        self.counts["plain"] += record.is_plain
        self.counts["longest"] = max(self.counts["longest"], document.tokens)
        self.counts["source_tokens"] += document.tokens
        self.counts["source_target_tokens"] += document.target_tokens
        if document.tokens > self._sequence_length:
            self.counts["overlong"] += 1
            self.first_overlong = self.first_overlong or record.source
            if self._overlong in (Overlong.drop, Overlong.error):
                self.counts["overlong_dropped"] += 1
                return
        if not document.has_target:
            self.counts["masked"] += document.tokens > 0
            return
        self._flush(document)
        self._lengths.append(document.kept)

    def _flush(self, document: _Open) -> None:
        for token_ids, is_target in document.waiting:
            if len(token_ids):
                self.counts["max_token_id"] = max(self.counts["max_token_id"], int(token_ids.max()))
            self._tokens_file.write(token_ids.astype(self._token_type).tobytes())
            self._targets_file.write(is_target.tobytes())
        document.waiting.clear()

    def _overlong_of(self, record: Record) -> Overlong:
        if self._overlong is not Overlong.auto:
            return self._overlong
        return Overlong.split if record.is_plain else Overlong.truncate

    def _check(self, record: Record, document: _Open, token_ids: np.ndarray) -> None:
        vocabulary_size = self._tokenizer.vocabulary_size
        bad = np.flatnonzero((token_ids < 0) | (token_ids >= vocabulary_size))
        if bad.size:
            raise InputError(
                Problem(
                    what="a token id lies outside the vocabulary",
                    where=f"dataset {self._name}, record {record.source}, token {document.tokens + bad[0]}",
                    found=f"id {token_ids[bad[0]]}, vocabulary_size {vocabulary_size}",
                    action=f"ids must be 0 .. {vocabulary_size - 1}: repair the tokenizer",
                )
            )
