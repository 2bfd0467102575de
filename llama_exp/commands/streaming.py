"""Text written as its tokens come, flushed at once, also into a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from llama_exp.files.redact import printable

_CUT = "\ufffd"  # what a character decodes to of which a token is still to come


class TextStream:
    """Writes the text of token ids, each piece as soon as it is certain.

    Args:
        out: a text stream.
        tokenizer: of the model.
        ends: texts that end an answer as a stop token does, for tokenizers that have no token for them.
        strips: whether blanks at the answer's beginning and end are left out.
    """

    def __init__(self, out: TextIO, tokenizer, ends: Sequence[str] = (), strips: bool = False):
        self._out, self._tokenizer = out, tokenizer
        self._ends, self._strips = [end for end in ends if end], strips
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
        print(file=self._out, flush=True)
        return self.text.lstrip() if self._strips else self.text

    def _certain(self) -> int:
        """How many characters no later token can take back: of an end, or of blanks before it."""
        certain = self.text
        if not self.ended:
            beginnings = (end[:size] for end in self._ends for size in range(1, len(end)))
            open_end = max((len(begun) for begun in beginnings if certain.endswith(begun)), default=0)
            certain = certain[: len(certain) - open_end]
        return len(certain.rstrip() if self._strips else certain)

    def _write(self, length: int) -> None:
        piece = self.text[self._written : length]
        if self._strips and not self.text[: self._written].strip():
            piece = piece.lstrip()
        self._written = max(self._written, length)
        self._out.write(printable(piece))
        self._out.flush()
