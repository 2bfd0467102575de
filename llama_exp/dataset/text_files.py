"""Plain text on disk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from llama_exp import recipe
from llama_exp.dataset import files
from llama_exp.dataset.builder_dataset import BuilderDataset
from llama_exp.dataset.cache import content_key
from llama_exp.dataset.records import Record, document
from llama_exp.limits import choose
from llama_exp.limits.dataset import LIMITS, Document, EncodingErrors


class TextFiles(BuilderDataset):
    """UTF-8 text files: each file, paragraph (between blank lines) or line is a document; blank ones are none.

    Args:
        files: Paths or glob patterns.
        document: What one document is.
        encoding_errors: What happens to bytes that are not UTF-8.
        **options: See `Dataset`.
    """

    name = "text_files"

    def __init__(
        self, *, files: Sequence[str], document: Document | str, encoding_errors: EncodingErrors | str, **options: Any
    ):
        super().__init__(**options)
        LIMITS.require(files=list(files))
        self.files = list(files)
        self.document = choose(Document, document, "dataset.document")
        self.encoding_errors = choose(EncodingErrors, encoding_errors, "dataset.encoding_errors")

    def source_key(self) -> str:
        """SHA-256 of the files' bytes, names and the options."""
        paths = files.resolve(self.files)
        return content_key(
            **recipe.TEXT_FILES,
            names=[path.name for path in paths],
            digests=files.digest_files(paths),
            document=self.document.value,
            encoding_errors=self.encoding_errors.value,
        )

    def generate(self) -> Iterator[dict[str, str]]:
        """The documents in the order of the files; `source` is file:line of a document's first line."""
        for path in files.resolve(self.files):
            try:
                data = path.read_bytes()
            except OSError as error:
                raise files.explain_unreadable(error) from None
            text = files.decode(data, path, self.encoding_errors)
            for line, part in _parts(text, self.document):
                yield {"text": part, "source": f"{path.name}:{line}"}

    def record(self, example: dict[str, str]) -> Record:
        """The text as it is."""
        return document(example["source"], example["text"])


def _parts(text: str, kind: Document) -> Iterator[tuple[int, str]]:
    """(number of its first line, text) of each document."""
    if kind is Document.file:
        if text.strip():
            yield 1, text
        return
    pattern = r"[^\n]+" if kind is Document.line else r"[^\n]*\S[^\n]*(?:\n[^\n]*\S[^\n]*)*"
    line, position = 1, 0
    for match in re.finditer(pattern, text):
        line += text.count("\n", position, match.start())
        position = match.start()
        if match.group().strip():
            yield line, match.group()
