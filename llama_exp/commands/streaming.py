"""Text on standard output as its tokens come, flushed at once, also into a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llama_exp.files.redact import printable

_CUT = "\ufffd"  # what a character decodes to of which a token is still to come


class TextStream:
    """Writes the text of token ids, each piece as soon as it is certain.

    Args:
        tokenizer: of the model.
        ends: texts that end an answer as a stop token does, for tokenizers that have no token for them.
        strips: whether blanks at the answer's beginning and end are left out.
    """

    def __init__(self, tokenizer, ends: Sequence[str] = (), strips: bool = False):
        self._tokenizer, self._ends, self._strips = tokenizer, [end for end in ends if end], strips
        self._ids: list[int] = []
        self._start = self._read = 0  # of the ids: where decoding begins, and how many are in `text`
        self._written = 0  # characters
        self.text = ""
        self.ended = False

    def add(self, token_ids: Sequence[int]) -> None:
        """Takes more tokens, and writes what is certain of them."""
        if self.ended:
            return
        self._ids += [int(id_) for id_ in token_ids]
        # The tokens before are decoded again: the first of a text may lose its blank, which the others keep.
        before = self._tokenizer.decode(self._ids[self._start : self._read])
        now = self._tokenizer.decode(self._ids[self._start :])
        if now.endswith(_CUT):
            return
        self.text += now[len(before) :]
        self._start, self._read = self._read, len(self._ids)
        places = [place for end in self._ends if (place := self.text.find(end)) >= 0]
        if places:
            self.text, self.ended = self.text[: min(places)], True
        self._write(self._certain())

    def finish(self) -> str:
        """Writes the rest and a line's end; returns the whole text."""
        if not self.ended:
            rest = self._tokenizer.decode(self._ids[self._start :])
            self.text += rest[len(self._tokenizer.decode(self._ids[self._start : self._read])) :]
        if self._strips:
            self.text = self.text.rstrip()
        self._write(len(self.text))
        print(flush=True)
        return self.text.lstrip() if self._strips else self.text

    def _certain(self) -> int:
        """How many characters no later token can take back: of an end, or of blanks before it."""
        text = self.text
        if self.ended:
            return len(text)
        open_ends = [len(end[:size]) for end in self._ends for size in range(1, len(end)) if text.endswith(end[:size])]
        certain = len(text) - max(open_ends, default=0)
        return len(text[:certain].rstrip()) if self._strips else certain

    def _write(self, length: int) -> None:
        piece = self.text[self._written : length]
        if self._strips and not self.text[: self._written].strip():
            piece = piece.lstrip()
        self._written = max(self._written, length)
        sys.stdout.write(printable(piece))
        sys.stdout.flush()
