"""The code of the standard library without its docstrings and comments: far from prose, and nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator

from llama_exp import recipe
from llama_exp.dataset import stdlib
from llama_exp.dataset.builder_dataset import BuilderDataset
from llama_exp.dataset.cache import content_key
from llama_exp.dataset.records import Record, document


class PythonCode(BuilderDataset):
    """Every function and class at the top level of a module, each a document; exact copies once.

    Docstrings are what `PythonDocs` reads: without them the two data sets share no text, so that a model of the one can
    be trained on the other, and what it forgets be measured.
    """

    name = "python_code"

    def source_key(self) -> str:
        """SHA-256 of the Python version and all sources."""
        return content_key(**recipe.PYTHON_CODE, sources=stdlib.digest())

    def generate(self) -> Iterator[dict[str, str]]:
        """By module, in the order of the source; `source` is the qualified name."""
        return stdlib.keep_texts(stdlib.find_code(), recipe.PYTHON_CODE["min_characters"])

    def record(self, example: dict[str, str]) -> Record:
        """The text as it is."""
        return document(example["source"], example["text"])

    def _named(self, key: str) -> str:
        return f"{stdlib.python_name()}_{key}"
