"""Whether what a model is evaluated on stands in what it was trained on: looked up once for the same rows and items.

training rows (token ids)        -> the texts of their documents
items of a task, rows of a set   -> a text each
both                             -> find_overlap -> the cache, a file, a line for a person
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from llama_exp.console.live import amount_bar
from llama_exp.dataset.cache import cached_folder, content_key
from llama_exp.evaluation.overlap import NGRAM_WORDS, ItemOverlap, Overlap, find_overlap

WARNING_SHARE = 0.01  # of the items of one evaluation, from here on a line of the log is a warning
_ROWS_AT_ONCE = 256
_TAIL_TOKENS = 128  # about what 13 words have, of bytes too
_FORM = 1  # of what is cached

_log = logging.getLogger(__name__)


def check_overlap(train: Any, tokenizer: Any, items: Mapping[str, Sequence[str]], cache_dir: str) -> dict[str, Overlap]:
    """The overlap of each evaluation's items with the training rows; one pass over these for all that are new.

    Args:
        train: the training rows (`llama_exp.dataset.Examples`).
        tokenizer: that made them.
        items: name of an evaluation -> the text of each of its items.
        cache_dir: what was found lies in its folder `overlap`, under a key of rows and items.

    Raises:
        StorageError: the cache cannot be written, or the rows cannot be read.
    """
    keys = {name: _key(train, texts) for name, texts in items.items()}
    root, found = Path(cache_dir) / "overlap", {}
    new = {name: texts for name, texts in items.items() if not (root / keys[name]).exists()}
    fresh = _find_all(train, tokenizer, new) if new else {}
    for name, texts in items.items():

        def build(folder: Path, name: str = name, texts: Sequence[str] = texts) -> dict[str, Any]:
            overlap = fresh[name] if name in fresh else _find_all(train, tokenizer, {name: texts})[name]
            return {"items": [asdict(item) for item in overlap.items]}

        _, facts = cached_folder(root, keys[name], build)
        found[name] = Overlap(NGRAM_WORDS, tuple(ItemOverlap(**item) for item in facts["items"]))
    return found


def row_texts(examples: Any, tokenizer: Any) -> Iterator[list[str]]:
    """The texts of each row, one for each document in it, without special tokens.

    A document that goes on from the row before begins with that row's last tokens, so that words which stand on both
    sides of the cut are found. `llama_exp.dataset.packing` draws how documents are cut.
    """
    decode = _Pieces(tokenizer).decode
    tail: list[int] = []  # of the document that the next row may go on with, and the token that it would begin with
    following = -1
    for start in range(0, len(examples), _ROWS_AT_ONCE):
        batch = examples.batch(np.arange(start, min(start + _ROWS_AT_ONCE, len(examples))))
        rows = zip(batch["token_ids"], batch["segment_ids"], batch["labels"], strict=True)
        for token_ids, segments, labels in rows:
            documents = _split_documents(token_ids, segments)
            if documents and tail and token_ids[0] == following:
                documents[0] = tail + documents[0]
            yield [decode(document) for document in documents]
            following = int(labels[-1])  # 0: the last document ends here, or with token 0
            tail = documents[-1][-_TAIL_TOKENS:] if documents and following else []


class _Pieces(dict[int, str | None]):
    """Decodes by a table of each token's own text, five times as fast as a tokenizer does.

    A token whose text depends on its neighbours, such as a part of a character, leaves the whole stretch to the
    tokenizer. White space in front of the text may differ.
    """

    def __init__(self, tokenizer: Any):
        super().__init__()
        self._tokenizer = tokenizer
        self._before = tokenizer.encode("a")
        self._text_before = tokenizer.decode(self._before)

    def decode(self, token_ids: list[int]) -> str:
        pieces = [self[token_id] for token_id in token_ids]
        return self._tokenizer.decode(token_ids) if None in pieces else "".join(filter(None, pieces))

    def __missing__(self, token_id: int) -> str | None:
        text = self._tokenizer.decode([*self._before, token_id])
        is_whole = text.startswith(self._text_before) and "\ufffd" not in text
        self[token_id] = text[len(self._text_before) :] if is_whole else None
        return self[token_id]


def _split_documents(token_ids: np.ndarray, segments: np.ndarray) -> list[list[int]]:
    borders = np.flatnonzero(np.diff(segments, prepend=0, append=0))
    pieces = zip(borders, borders[1:], strict=False)
    return [token_ids[first:end].tolist() for first, end in pieces if segments[first]]


def tell(name: str, overlap: Overlap) -> None:
    """One line of the log: how many items stand in the training rows, and the worst of them."""
    if overlap.share is None:
        _log.info("%s: its items are too short to be looked for in the training rows", name)
    elif not overlap.overlapping:
        _log.info(
            "%s: no %d words in a row of its %d items stand in the training rows", name, overlap.n, overlap.judged
        )
    else:
        worst = overlap.worst(1)[0]
        item = overlap.items[worst]
        level = logging.WARNING if overlap.share >= WARNING_SHARE else logging.INFO
        message = "%s: %d of %d items share %d words in a row with the training rows, worst item %d with row %d: %r"
        _log.log(level, message, name, overlap.overlapping, overlap.judged, overlap.n, worst, item.row, item.text)


def rows_of(overlap: Overlap) -> list[dict[str, Any]]:
    """A row for each item with an overlap, the worst first, as JSON has it."""
    numbers = overlap.worst(len(overlap.items))
    return [{"item": number, **asdict(overlap.items[number])} for number in numbers]


def _find_all(train: Any, tokenizer: Any, items: Mapping[str, Sequence[str]]) -> dict[str, Overlap]:
    together = [text for texts in items.values() for text in texts]
    with amount_bar("looking for evaluation items in the training rows", len(train)) as advance:
        overlap = find_overlap(row_texts(train, tokenizer), together, advance=advance)
    found, start = {}, 0
    for name, texts in items.items():
        found[name] = Overlap(overlap.n, overlap.items[start : start + len(texts)])
        start += len(texts)
    return found


def _key(train: Any, texts: Sequence[str]) -> str:
    return content_key(form=_FORM, train=train.fingerprint, items=list(texts), n=NGRAM_WORDS)[:32]
