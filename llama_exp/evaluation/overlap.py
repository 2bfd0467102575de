"""Which items of an evaluation stand in the training rows: runs of n words that both have.

The measure is that of GPT-3 (Brown et al. 2020, https://arxiv.org/abs/2005.14165, section 4 and appendix C): an item
overlaps if any n = 13 words in a row, without regard to case and punctuation, stand in the training text too; an item
of fewer words if all of them do. Items of fewer than 8 words, the least that paper takes for n, say nothing: such
phrases are everywhere. Words, not tokens: 13 tokens of a byte tokenizer are two words, and found in any text.

Shape letters: W words, G runs of n words (n-grams) of all items, U different ones.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

NGRAM_WORDS = 13
FEWEST_WORDS = 8

# Chinese and Japanese are written without spaces: there each character counts as a word.
_NO_SPACES = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(rf"[{_NO_SPACES}]|[^\W_{_NO_SPACES}]+")
_BETWEEN_TEXTS = "\n"  # stands between two texts in a list of words, and is none
_WORDS_AT_ONCE = 1 << 18
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of a word's hash is lost


@dataclass(frozen=True)
class ItemOverlap:
    """One item.

    Attributes:
        words: how many it has.
        share: of its n-grams that stand in the training rows, 0 .. 1; None: it has too few words to say.
        row: number of the first training row with one of them; None: there is none.
        text: the item's first run of words that was found, or "".
    """

    words: int
    share: float | None
    row: int | None = None
    text: str = ""


@dataclass(frozen=True)
class Overlap:
    """The items of one evaluation, in their order.

    Attributes:
        n: words of an n-gram.
        items: one for each.
    """

    n: int
    items: tuple[ItemOverlap, ...]

    @property
    def judged(self) -> int:
        """Items of enough words."""
        return sum(item.share is not None for item in self.items)

    @property
    def overlapping(self) -> int:
        """Items of which at least one n-gram was found."""
        return sum(bool(item.share) for item in self.items)

    @property
    def share(self) -> float | None:
        """Overlapping items per judged item; None: no item could be judged."""
        return self.overlapping / self.judged if self.judged else None

    def worst(self, count: int) -> list[int]:
        """Numbers of the items with the largest shares, those without an overlap left out."""
        found = [number for number, item in enumerate(self.items) if item.share]
        return sorted(found, key=lambda number: -(self.items[number].share or 0.0))[:count]


def find_overlap(
    train_rows: Iterable[Sequence[str]],
    items: Sequence[str],
    n: int = NGRAM_WORDS,
    advance: Callable[[int], object] = lambda rows: None,
) -> Overlap:
    """Looks for the items' n-grams in the training rows, in one pass over these.

    Memory holds 64-bit hashes of the items' n-grams, and of a quarter of a million training words at a time. The hashes
    may agree by chance: for 10 million training words and a million n-grams the probability is below 1e-6.

    Args:
        train_rows: the texts of each row, one for each document in it.
        items: the text of each item.
        n: words of an n-gram, at least 1.
        advance: is told how many more rows were read.
    """
    grams = _ItemGrams(items, n)
    words: list[str] = []
    ends: list[int] = []  # number of words after each row
    first_row = 0
    for texts in train_rows:
        for text in texts:
            words += split_words(text)
            words.append(_BETWEEN_TEXTS)
        ends.append(len(words))
        if len(words) >= _WORDS_AT_ONCE:
            grams.look_into(words, ends, first_row)
            advance(len(ends))
            first_row += len(ends)
            words, ends = [], []
    grams.look_into(words, ends, first_row)
    advance(len(ends))
    return grams.result()


def split_words(text: str) -> list[str]:
    """Words without case, punctuation and forms of the same letter (Unicode's NFKC)."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class _ItemGrams:
    """The n-grams of all items by the number of their words, and what has been found of them."""

    def __init__(self, items: Sequence[str], n: int):
        self._items, self._n = items, n
        self._words = [0] * len(items)
        hashes: dict[int, list[np.ndarray]] = {}
        owners: dict[int, list[int]] = {}
        for number, item in enumerate(items):
            words = split_words(item)
            self._words[number] = len(words)
            length = min(n, len(words))
            if length >= min(n, FEWEST_WORDS):
                hashes.setdefault(length, []).append(_hash_runs(_hash_words(words), length))
                owners.setdefault(length, []).append(number)
        self._tables = {length: _Table(owners[length], hashes[length]) for length in sorted(hashes)}

    def look_into(self, words: list[str], ends: list[int], first_row: int) -> None:
        """Marks what stands in some rows: their words, and where each row ends among them."""
        hash_W = _hash_words(words)
        for length, table in self._tables.items():
            if length <= len(words):
                table.mark(_hash_runs(hash_W, length), np.array(ends), first_row)

    def result(self) -> Overlap:
        shares: list[ItemOverlap | None] = [None] * len(self._items)
        for length, table in self._tables.items():
            for number, found, row_G in table.by_item():
                first = int(found.argmax())
                words = split_words(self._items[number])[first : first + length] if found.any() else []
                row = int(row_G[found].min()) if found.any() else None
                shares[number] = ItemOverlap(self._words[number], float(found.mean()), row, " ".join(words))
        items = (item or ItemOverlap(words, None) for item, words in zip(shares, self._words, strict=True))
        return Overlap(self._n, tuple(items))


class _Table:
    """Runs of words of one length: their hashes, sorted, and the first training row of each; -1: not found."""

    def __init__(self, owners: list[int], hashes: list[np.ndarray]):
        self._owners = owners
        self._counts = [len(hash_G) for hash_G in hashes]
        self._hash_U, self._inverse_G = np.unique(np.concatenate(hashes), return_inverse=True)
        self._row_U = np.full(len(self._hash_U), -1, np.int64)

    def mark(self, hash_W: np.ndarray, ends: np.ndarray, first_row: int) -> None:
        place_W = np.minimum(np.searchsorted(self._hash_U, hash_W), len(self._hash_U) - 1)
        hit_H = np.flatnonzero(self._hash_U[place_W] == hash_W)[::-1]  # so that the first of equal ones is written last
        place_H = place_W[hit_H]
        rows_H = first_row + np.searchsorted(ends, hit_H, side="right")
        is_new = self._row_U[place_H] < 0
        self._row_U[place_H[is_new]] = rows_H[is_new]

    def by_item(self) -> Iterable[tuple[int, np.ndarray, np.ndarray]]:
        """Each item's number, and of its n-grams whether they were found and in which row."""
        row_G = self._row_U[self._inverse_G]
        for number, rows in zip(self._owners, np.split(row_G, np.cumsum(self._counts)[:-1]), strict=True):
            yield number, rows >= 0, rows


def _hash_words(words: list[str]) -> np.ndarray:
    """Python's own hashes (W,) uint64: equal within a process, which is all that is needed."""
    return np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)


def _hash_runs(hash_W: np.ndarray, length: int) -> np.ndarray:
    """Hashes of every `length` words in a row, (W - length + 1,) uint64: a polynomial modulo 2^64."""
    count = len(hash_W) - length + 1
    hash_G = np.zeros(count, np.uint64)
    for place in range(length):
        hash_G = hash_G * _MULTIPLIER + hash_W[place : place + count]
    return hash_G
