"""Text files as a stream: bytes -> blocks of text -> documents, those that are long in parts.

Memory holds a few blocks, whatever the size of a file or of a document in it.
"""

from __future__ import annotations

import codecs
import io
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from llama_exp import recipe
from llama_exp.dataset import files
from llama_exp.dataset.stretches import cut_blindly
from llama_exp.errors import InputError, Problem
from llama_exp.limits.dataset import Document, EncodingErrors

log = logging.getLogger("llama_exp")

PART_CHARACTERS = recipe.LONG_TEXTS["part_characters"]
_BLOCK_BYTES = 1 << 20
_REPLACEMENT = "\ufffd"
_MAX_REPLACED_SHARE = 0.3  # of the characters: what is above was never text in UTF-8

# A whole document, and what ends one.
_DOCUMENT = {
    Document.line: re.compile(r"[^\n]+"),
    Document.paragraph: re.compile(r"[^\n]*\S[^\n]*(?:\n[^\n]*\S[^\n]*)*"),
}
_END = {Document.line: re.compile(r"\n"), Document.paragraph: re.compile(r"\n[^\S\n]*\n")}
_LAST_END = re.compile(r"\n[^\S\n]*\Z")


def read_blocks(path: Path, errors: EncodingErrors) -> Iterator[str]:
    """The text of a UTF-8 file in blocks, without a byte order mark and with line ends made newlines.

    Raises:
        InputError: the file cannot be read, or holds bytes that are not UTF-8 (under strict: any; under replace: so
            many that it is no text).
    """
    decoder = _Decoder(path, errors)
    line_ends = io.IncrementalNewlineDecoder(None, translate=True)
    try:
        with open(path, "rb") as file:
            if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
                file.seek(0)
            data = file.read(_BLOCK_BYTES)
            while data:
                following = file.read(_BLOCK_BYTES)
                yield line_ends.decode(decoder.decode(data, final=not following), final=not following)
                data = following
    except OSError as error:
        raise files.explain_unreadable(error) from None
    decoder.report()


class _Decoder:
    """UTF-8 by blocks: names the line of a bad byte, or counts what was replaced."""

    def __init__(self, path: Path, errors: EncodingErrors):
        self._path, self._errors = path, errors
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors.value)
        self._line_ends = self._characters = self._replaced = 0
        self._tail = b""

    def decode(self, data: bytes, final: bool) -> str:
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            line = 1 + self._line_ends + error.object.count(b"\n", 0, error.start)
            raise files.explain_encoding(self._path, line, error) from None
        self._line_ends += data.count(b"\n")
        if self._errors is EncodingErrors.replace:
            seen = self._tail + data  # two bytes of a character can stand in the block before
            self._replaced += text.count(_REPLACEMENT) - seen.count(_REPLACEMENT.encode())
            self._tail = seen[-2:]
            self._characters += len(text)
            self._require_text()
        return text

    def report(self) -> None:
        """Warns of what was replaced."""
        if self._replaced:
            message = "%s: %d stretches of bytes that are not UTF-8 became U+FFFD"
            log.warning(message, self._path, self._replaced)

    def _require_text(self) -> None:
        share = self._replaced / max(1, self._characters)
        if share > _MAX_REPLACED_SHARE:
            raise InputError(
                Problem(
                    "this is no text in UTF-8, so replacing what is not UTF-8 leaves nothing to learn",
                    str(self._path),
                    f"{share:.0%} of the characters would be replaced",
                    "convert it (iconv -f <its encoding> -t UTF-8), or leave it out of dataset.files",
                )
            )


def find_documents(blocks: Iterable[str], kind: Document) -> Iterator[tuple[int, str, bool]]:
    """The documents of a text that comes in blocks.

    Returns:
        (number of its first line, text, whether the next one goes on with the same document) of each document, or of
        each part of a long one. Blank documents are none.
    """
    found = _Documents(kind)
    for block in blocks:
        yield from found.take(block)
    yield from found.finish()


class _Documents:
    """Cuts a stream of text into documents; keeps what may go on in the next block."""

    def __init__(self, kind: Document):
        self._kind = kind
        self._text = ""
        self._line = 1
        self._is_open = False  # parts of the document at the beginning of `_text` were given already

    def take(self, block: str) -> Iterator[tuple[int, str, bool]]:
        self._text += block
        if self._kind is not Document.file and (end := self._last_end()):
            yield from self._whole_documents(end)
        if not self._is_open and self._kind is not Document.file:
            self._skip(self._first_start())
        while self._certain() > PART_CHARACTERS and (self._is_open or self._text.strip()):
            end = cut_blindly(self._text, PART_CHARACTERS)
            yield self._line, self._text[:end], True
            self._skip(end)
            self._is_open = True

    def finish(self) -> Iterator[tuple[int, str, bool]]:
        if self._kind is not Document.file:
            yield from self._whole_documents(len(self._text))
        elif self._is_open or self._text.strip():
            yield self._line, self._text, False

    def _whole_documents(self, end: int) -> Iterator[tuple[int, str, bool]]:
        """The documents that end before `end`, where nothing goes on."""
        if self._is_open:
            match = _END[self._kind].search(self._text) or _LAST_END.search(self._text)
            rest = self._text[: match.start()] if match else self._text
            yield self._line, rest, False
            self._is_open = False
            self._skip(len(rest))
            end -= len(rest)
        line, position = self._line, 0
        for match in _DOCUMENT[self._kind].finditer(self._text, 0, end):
            line += self._text.count("\n", position, match.start())
            position = match.start()
            if match.group().strip():
                yield line, match.group(), False
        self._skip(end)

    def _certain(self) -> int:
        """Characters that belong to the document: blanks at the end may turn out to stand behind a paragraph."""
        return len(self._text.rstrip()) if self._kind is Document.paragraph else len(self._text)

    def _last_end(self) -> int:
        """Where the last document that is certainly over ends; 0: none is."""
        if self._kind is Document.line:
            return self._text.rfind("\n") + 1
        end = self._text.rfind("\n\n") + 1
        for match in _END[self._kind].finditer(self._text, max(0, end - 1)):
            end = match.start() + 1
        return end

    def _first_start(self) -> int:
        """Where the first document begins, behind blank lines; 0: it has not come."""
        match = _DOCUMENT[self._kind].search(self._text)
        return match.start() if match else 0

    def _skip(self, count: int) -> None:
        self._line += self._text.count("\n", 0, count)
        self._text = self._text[count:]
