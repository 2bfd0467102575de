"""Data sets of ours: the raw source is read once, and a TFDS builder keeps its examples.

    <cache_dir>/tfds/<name>/<content key>/1.0.0/    ArrayRecord files of TFDS
    <cache_dir>/tfds/<name>/<content key>.json      number, bytes and SHA-256 of the documents

The small file answers everything that opening a data set asks, so TFDS is not even imported when the rows are cached.
"""

from __future__ import annotations

import abc
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_exp import recipe
from llama_exp.console.live import amount_bar
from llama_exp.dataset.base import Dataset
from llama_exp.dataset.cache import cache_errors, cache_problem
from llama_exp.dataset.records import Record
from llama_exp.dataset.split import is_by_position
from llama_exp.errors import InputError, LlamaExpError, Problem, StorageError
from llama_exp.files.json_file import read_record
from llama_exp.files.lock import held
from llama_exp.files.writing import write_json

log = logging.getLogger("llama_exp")

# The field that says of an example which part of a document it is; empty: a whole one.
PART, FIRST, MIDDLE, LAST = "part", "first", "middle", "last"


class BuilderDataset(Dataset):
    """Examples that a TFDS builder of our own keeps under `<cache_dir>/tfds`.

    Attributes:
        name: for messages and the builder's folder. fields: of an example, all of them text; `source` says where it
        comes from, and `part` is there where documents may come in parts.
    """

    fields: tuple[str, ...] = ("text", "source")

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._folder = Path()  # known when the data set is opened, as are the next two
        self._config_name = ""
        self._stored: dict[str, Any] = {}

    @property
    def record_options(self) -> dict[str, Any]:
        """What shapes records after they were stored; part of the fingerprint."""
        return {}

    @abc.abstractmethod
    def source_key(self) -> str:
        """A cheap hexadecimal key of the raw source and of the options that shape the examples."""

    @abc.abstractmethod
    def generate(self) -> Iterator[dict[str, str]]:
        """The examples, made from the raw source; the builder stores them."""

    @abc.abstractmethod
    def record(self, example: dict[str, str]) -> Record:
        """The record of a stored example."""

    def open(self, cache_dir: str | Path) -> None:
        """Builds the examples unless that was done before, and computes the fingerprint."""
        self._folder = Path(cache_dir) / "tfds"
        self._config_name = self._named(self.source_key()[:24])
        facts = self._facts_path()
        stored = read_record(facts)
        if stored is None or not self._builder_folder().is_dir():
            with cache_errors(self._folder):
                facts.parent.mkdir(parents=True, exist_ok=True)
                with held(facts.with_suffix(".lock")):
                    stored = read_record(facts)
                    if stored is None or not self._builder_folder().is_dir():
                        stored = self._build(facts)
        self._stored = stored
        content: dict[str, Any] = {"documents": stored["sha256"], **self.record_options}
        if is_by_position(stored["documents"], self.validation_fraction):
            content["split"] = recipe.LONG_TEXTS
        self.identify(**content)

    def documents(self) -> Iterator[tuple[str, Record]]:
        """Every record with its split, read from the builder's files."""
        assert self._config_name, "open() comes first"
        in_parts = self._stored.get("examples", self._stored["documents"]) != self._stored["documents"]
        return self.split(self._records, None if in_parts else self._stored["documents"])

    @property
    def num_bytes(self) -> int | None:
        """Bytes of all fields."""
        return self._stored["bytes"]

    def _records(self) -> Iterator[Record]:
        for example in self._guarded(self._read()):
            yield self.record({field: value.decode("utf-8") for field, value in example.items()})

    def _read(self) -> Iterator[dict[str, Any]]:
        from llama_exp.dataset import builders

        builder = builders.build(self._tfds_name, self.fields, self._config_name, str(self._folder), self.generate)
        yield from builders.read(builder, "train")

    def _named(self, key: str) -> str:
        return key

    @property
    def _tfds_name(self) -> str:
        return re.sub(r"\W+", "_", self.name)

    def _facts_path(self) -> Path:
        return self._folder / self._tfds_name / f"{self._config_name}.json"

    def _builder_folder(self) -> Path:
        return self._folder / self._tfds_name / self._config_name

    def _build(self, facts: Path) -> dict[str, Any]:
        from llama_exp.dataset import builders

        counts = {"documents": 0, "examples": 0, "bytes": 0}
        total = hashlib.sha256()
        errors = []

        def counted() -> Iterator[dict[str, str]]:
            try:
                with amount_bar(f"reading {self.name}", None) as advance:
                    for example in self.generate():
                        content = {field: value for field, value in example.items() if field not in ("source", PART)}
                        size = sum(len(value.encode()) for value in content.values())
                        counts["documents"] += example.get(PART, "") in ("", LAST)
                        counts["examples"] += 1
                        counts["bytes"] += size
                        total.update(json.dumps(content, sort_keys=True).encode() + b"\n")
                        advance(size)
                        yield example
            except Exception as error:
                errors.append(error)
                raise

        examples = self._not_empty(counted())
        # Files without facts come from a process that was killed in between: TFDS would take them for the result.
        shutil.rmtree(self._builder_folder(), ignore_errors=True)
        try:
            builders.build(self._tfds_name, self.fields, self._config_name, str(self._folder), lambda: examples)
        except Exception as error:
            if errors:  # TFDS would pass on a copy, with its own text
                raise errors[0] from None
            # ArrayRecord raises RuntimeError on a full disk.
            raise StorageError(cache_problem(self._folder, error)) from error
        stored = {**counts, "sha256": total.hexdigest()}
        write_json(facts, stored)
        log.info("dataset %s: %d documents, %d bytes", self.name, counts["documents"], counts["bytes"])
        return stored

    def _not_empty(self, examples: Iterator[dict[str, str]]) -> Iterator[dict[str, str]]:
        """The same examples; the first one is made now, so that an empty source fails before a builder starts."""
        first = next(examples, None)
        if first is None:
            raise InputError(
                Problem(
                    what="the data set is empty",
                    where=f"dataset {self.name}",
                    found="0 documents",
                    action="check the source: its files may hold nothing but white space",
                )
            )

        def all_of_them() -> Iterator[dict[str, str]]:
            yield first
            yield from examples

        return all_of_them()

    def _guarded(self, examples: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from examples
        except LlamaExpError:
            raise
        except Exception as error:  # of dataset_info.json; of the examples from C++, without a type of their own
            raise InputError(
                Problem(
                    what="the prepared examples cannot be read",
                    where=str(self._builder_folder()),
                    found=(str(error).splitlines() or [type(error).__name__])[0],
                    action="delete that folder: it is built again",
                )
            ) from error
