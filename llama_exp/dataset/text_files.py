"""Plain text on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llama_exp import recipe
from llama_exp.dataset import files
from llama_exp.dataset.builder_dataset import FIRST, LAST, MIDDLE, PART, BuilderDataset
from llama_exp.dataset.cache import content_key
from llama_exp.dataset.records import Record, document
from llama_exp.dataset.text_blocks import find_documents, read_blocks
from llama_exp.limits import choose
from llama_exp.limits.dataset import LIMITS, Document, EncodingErrors


class TextFiles(BuilderDataset):
    """UTF-8 text files: each file, paragraph (between blank lines) or line is a document; blank ones are none.

    A long document is stored in parts, so that memory does not grow with it.

    Args:
        files: A path or glob pattern, or several.
        document: What one document is.
        encoding_errors: What happens to bytes that are not UTF-8.
        **options: See `Dataset`.
    """

    name = "text_files"
    fields = ("text", "source", "part")

    def __init__(
        self,
        *,
        files: str | Sequence[str],
        document: Document | str,
        encoding_errors: EncodingErrors | str,
        **options: Any,
    ):
        super().__init__(**options)
        self.files = [files] if isinstance(files, str) else list(files)
        LIMITS.require(files=self.files)
        self.document = choose(Document, document, "dataset.document")
        self.encoding_errors = choose(EncodingErrors, encoding_errors, "dataset.encoding_errors")

    def look(self) -> None:
        """Fails if a pattern names no file, or a file that is no text."""
        files.resolve(self.files)

    def source_key(self) -> str:
        """SHA-256 of the files' bytes, names and the options."""
        paths = files.resolve(self.files)
        return content_key(
            **recipe.TEXT_FILES,
            fields=self.fields,
            names=[path.name for path in paths],
            digests=files.digest_files(paths),
            document=self.document.value,
            encoding_errors=self.encoding_errors.value,
        )

    def generate(self) -> Iterator[dict[str, str]]:
        """The documents in the order of the files; `source` is file:line of their first line."""
        for path in files.resolve(self.files):
            goes_on = False
            for line, text, more in find_documents(read_blocks(path, self.encoding_errors), self.document):
                yield {"text": text, "source": f"{path.name}:{line}", PART: _PARTS[goes_on, more]}
                goes_on = more

    def record(self, example: dict[str, str]) -> Record:
        """The text as it is."""
        begins, ends = example[PART] in ("", FIRST), example[PART] in ("", LAST)
        return document(example["source"], example["text"], begins, ends)


# (goes on with the document before, is gone on with) -> which part of a document an example is.
_PARTS = {(False, False): "", (False, True): FIRST, (True, True): MIDDLE, (True, False): LAST}
