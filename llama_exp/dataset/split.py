"""Which documents validate.

    by content     a hash of a document decides: equal documents fall on one side, and adding some moves none
    by position    of so few documents that whole ones cannot give the share, each one's end validates

Where hashes leave one side without a document, the one whose hash is nearest to the border changes sides.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator

from llama_exp import recipe
from llama_exp.dataset.records import Record, document

Records = Callable[[], Iterator[Record]]
TRAIN, VALIDATION = "train", "validation"
_ENOUGH = 30  # documents expected on the smaller side: hashes leave it empty once in 10^13 data sets


class Split:
    """Divides the documents of one source, every time in the same way.

    Args:
        records: Gives all records, in the same order each time.
        fraction: Share that validates, in (0, 1).
        num_documents: How many there are, if that is known and none of them comes in parts; then many documents are
            read only once. None: they are counted.
    """

    def __init__(self, records: Records, fraction: float, num_documents: int | None = None):
        self._records, self._fraction = records, fraction
        self._border = fraction * 2**64
        self._is_large = num_documents is not None and num_documents * min(fraction, 1 - fraction) > _ENOUGH
        self._hashes, self._lengths = array("Q"), array("q")

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        """Every record with its split."""
        if self._is_large:
            for record in self._records():
                yield self._side(_hash(record.group)), record
            return
        if not self._hashes:
            self._survey()
        number, left = -1, 0
        for record in self._records():
            if record.begins:
                number += 1
                left = self._train_characters(number)
            if left is None:
                yield self._side(self._hashes[number]), record
            elif left >= len(record.text):
                left -= len(record.text)
                yield TRAIN, record
            elif left < 0:
                yield VALIDATION, record
            else:
                yield from _cut(record, left)
                left = -1

    def _survey(self) -> None:
        """Hash and length in characters of each document (-1: it may not be cut), and the border between the sides."""
        for record in self._records():
            if record.begins:
                total, length = hashlib.sha256(), 0
            total.update((record.group if record.begins and record.ends else record.text).encode())
            length += len(record.text)
            if record.ends:
                self._hashes.append(int.from_bytes(total.digest()[:8], "big"))
                self._lengths.append(length if record.is_plain else -1)
        if self._hashes:
            lowest, highest = min(self._hashes), max(self._hashes)
            if lowest >= self._border:
                self._border = lowest + 1
            elif highest < self._border and lowest < highest:
                self._border = highest

    def _side(self, hashed: int) -> str:
        return VALIDATION if hashed < self._border else TRAIN

    def _train_characters(self, number: int) -> int | None:
        """The length of the training part of a document that is cut; None: it stays whole."""
        length = self._lengths[number]
        if length < 2 or not is_by_position(len(self._hashes), self._fraction):
            return None
        return min(length - 1, max(1, round(length * (1 - self._fraction))))


def _cut(record: Record, position: int) -> Iterator[tuple[str, Record]]:
    """Both sides of a record that is cut near a character: the training part ends there, the other begins."""
    end = _near_end(record.text, position)
    yield TRAIN, document(record.source, record.text[:end], begins=record.begins)
    yield VALIDATION, document(record.source, record.text[end:], ends=record.ends)


def is_by_position(num_documents: int, fraction: float) -> bool:
    """Whether there are so few documents that whole ones cannot give the share."""
    return num_documents * min(fraction, 1 - fraction) < 1


def _near_end(text: str, position: int) -> int:
    """A line's end behind the position, else a blank, else the position itself."""
    for mark in ("\n", " "):
        found = text.find(mark, position, position + recipe.LONG_TEXTS["line_end_characters"])
        if 0 <= found < len(text) - 1:
            return found + 1
    return position


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
