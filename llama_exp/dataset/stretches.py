"""Where a long text may be cut so that nothing changes.

What a tokenizer needs in memory, and how many processors it uses, must not depend on how a text is divided into
documents. So a long text is encoded in stretches. The cut stands where a letter or digit is followed by white space, or
in a script without blanks by a mark: no word of the split patterns in use (GPT-2's, Llama 3's) goes on there, and none
of them looks back. Where the tokenizer is known, the cut is tried: the surroundings must give the same tokens as both
sides alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from llama_exp import recipe

STRETCH = recipe.LONG_TEXTS["stretch_characters"]
_WORD_ENDS = re.compile(r"[^\W_](?=[ \n\t])"), re.compile(r"[^\W_](?=[\W_])")


def word_ends(text: str, limit: int) -> list[int]:
    """Positions up to `limit` where a letter or digit stands before white space, else before a mark; the last first."""
    first = max(0, limit - recipe.LONG_TEXTS["searched_characters"])
    for pattern in _WORD_ENDS:
        found = [match.end() for match in pattern.finditer(text, first, limit + 1) if match.end() <= limit]
        if found:
            return found[::-1]
    return []


def cut_blindly(text: str, limit: int) -> int:
    """Where to cut for tokenizers that are not known yet: at the last end of a word, else at `limit`."""
    return next(iter(word_ends(text, limit)), limit)


def divide_blindly(texts: Iterable[str], size: int = STRETCH) -> Iterator[str]:
    """The same texts in stretches of at most `size` characters, cut at ends of words."""
    for text in texts:
        start = 0
        while len(text) - start > size:
            end = cut_blindly(text, start + size)
            yield text[start:end]
            start = end
        yield text[start:]


def divide(text: str, tokenizer: Any, size: int = STRETCH) -> Iterator[str]:
    """The text in stretches of at most `size` characters that give the tokens of the whole text, one after the other.

    All but the first are continuations. Only in a word of thousands of equal letters no such cut may be found; it is
    then cut after `size` characters.
    """
    start = 0
    while len(text) - start > size:
        end = _find_cut(text, start + size, tokenizer)
        yield text[start:end]
        start = end
    yield text[start:]


def _find_cut(text: str, limit: int, tokenizer: Any) -> int:
    candidates = word_ends(text, limit)[:4]
    candidates += range(limit, limit - recipe.LONG_TEXTS["tried_cuts"], -1)
    return next((end for end in candidates if _changes_nothing(text, end, tokenizer)), limit)


def _changes_nothing(text: str, end: int, tokenizer: Any) -> bool:
    reach = recipe.LONG_TEXTS["compared_characters"]
    first, last = end - reach, end + reach
    texts = [text[first:last], text[first:end], text[end:last]]
    whole, left, right = tokenizer.encode_batch(texts, continuation=True)
    return list(whole) == [*left, *right]
