"""The default data set: English prose about Python that every Python carries, so nothing is downloaded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from llama_exp import recipe
from llama_exp.dataset import stdlib
from llama_exp.dataset.builder_dataset import BuilderDataset
from llama_exp.dataset.cache import content_key
from llama_exp.dataset.records import Record, document


class PythonDocs(BuilderDataset):
    """The topics of `pydoc_data` and the docstrings of the standard library, each a document; exact copies once."""

    name = "python_docs"

    def source_key(self) -> str:
        """SHA-256 of the Python version and all sources."""
        return content_key(**recipe.PYTHON_DOCS, sources=stdlib.digest())

    def generate(self) -> Iterator[dict[str, str]]:
        """Topics first, then docstrings by module; `source` is the qualified name."""
        docstrings = ((item.name, item.docstring) for item in stdlib.find_documented())
        texts = ((name, text.strip()) for name, text in itertools.chain(stdlib.read_topics(), docstrings))
        return stdlib.keep_texts(texts, recipe.PYTHON_DOCS["min_characters"])

    def record(self, example: dict[str, str]) -> Record:
        """The text as it is."""
        return document(example["source"], example["text"])

    def _named(self, key: str) -> str:
        return f"{stdlib.python_name()}_{key}"
