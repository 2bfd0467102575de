"""What every data set does: records -> train and validation -> token rows, cached."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llama_exp import recipe
from llama_exp.console.live import amount_bar
from llama_exp.dataset import report
from llama_exp.dataset.answers import watch_answers
from llama_exp.dataset.cache import cached_folder, content_key
from llama_exp.dataset.examples import Examples
from llama_exp.dataset.records import Record
from llama_exp.dataset.rows import RowWriter
from llama_exp.dataset.split import Split
from llama_exp.limits import choose
from llama_exp.limits.dataset import LIMITS, Overlong, Packing
from llama_exp.limits.objective import LossOn

SPLITS = ("train", "validation")
WHOLE = "whole"  # in the place of both
_FACTS_VERSION = 2  # of what is counted beside the rows; no part of what the rows are


class Dataset(abc.ABC):
    """A source of documents.

    Args:
        sequence_length: Tokens per row, at least 2.
        packing: A `Packing` or its name; likewise below.
        overlong: An `Overlong`.
        validation_fraction: Share of the documents that a hash of their content puts into validation, in (0, 1).

    Raises:
        ValueError: a value is impossible.
    """

    name: str

    def __init__(
        self, *, sequence_length: int, packing: Packing | str, overlong: Overlong | str, validation_fraction: float
    ):
        LIMITS.require(sequence_length=sequence_length, validation_fraction=validation_fraction)
        self.sequence_length = sequence_length
        self.packing = choose(Packing, packing, "dataset.packing")
        self.overlong = choose(Overlong, overlong, "dataset.overlong")
        self.validation_fraction = validation_fraction
        self._fingerprint: str | None = None
        self._split: Split | None = None
        self._is_whole = False

    def look(self) -> None:  # noqa: B027  # most sources have nothing to look for
        """Fails if the source is not there, before anything that takes time; by default nothing is looked for.

        Raises:
            InputError: it is not there.
        """

    @abc.abstractmethod
    def open(self, cache_dir: str | Path) -> None:
        """Makes the source ready to be read, with its own files under `cache_dir`, and computes the fingerprint.

        Raises:
            InputError: the source is missing, damaged or empty. StorageError: the cache cannot be written.
        """

    @abc.abstractmethod
    def documents(self) -> Iterator[tuple[str, Record]]:
        """Every record with its split, `train` or `validation`, in a fixed order. Needs `open`."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the documents and of everything that decides their split and their form."""
        if self._fingerprint is None:
            raise ValueError(f"{self.name}: call open(cache_dir) before anything else")
        return self._fingerprint

    def use_tokenizer(self, tokenizer: Any) -> None:  # noqa: B027 - most sources need nothing of it
        """Told before documents become rows; a source whose text depends on the tokenizer's model takes it from here.

        Raises:
            InputError: the tokenizer lacks what the source needs.
        """

    def identify(self, **content: Any) -> None:
        """Computes the fingerprint, for `open`.

        Args:
            **content: JSON-serializable; everything that decides the documents, such as `file_digest(path)` of
                `llama_exp.files.digest` and the names of columns. Name and `validation_fraction` are added.
        """
        self._fingerprint = content_key(name=self.name, validation_fraction=self.validation_fraction, **content)

    def split(
        self, records: Callable[[], Iterator[Record]], num_documents: int | None = None
    ) -> Iterator[tuple[str, Record]]:
        """Every record with its split, by a hash of its content; see `llama_exp.dataset.split`. For `documents`.

        Args:
            records: Gives all records, in the same order each time; it may be asked twice.
            num_documents: How many they are, if that is known.
        """
        if self._is_whole:
            return ((WHOLE, record) for record in records())
        if self._split is None:
            self._split = Split(records, self.validation_fraction, num_documents)
        return iter(self._split)

    def texts(self, split: str) -> Iterator[str]:
        """The plain texts of one split, to train a tokenizer on."""
        with amount_bar("training the tokenizer", self.num_bytes) as advance:
            for its_split, record in self.documents():
                advance(len(record.text))
                if its_split == split:
                    yield record.text

    @property
    def num_bytes(self) -> int | None:
        """About how much text there is, for a progress bar; None: not known."""
        return None

    def prepare(
        self, tokenizer: Any, *, cache_dir: str | Path, loss_on: LossOn | str, minimum_train_rows: int = 1
    ) -> dict[str, Examples]:
        """Token rows of both splits, from the cache where they are there already.

        Args:
            tokenizer: See `llama_exp.tokenizer`.
            cache_dir: Rows go into its folder `examples`, under a key of everything that decides them.
            loss_on: Which target tokens count.
            minimum_train_rows: Fewer rows than this cannot be trained on (the batch size).

        Raises:
            InputError: a split is empty or too small, every answer is empty, a document is too long under
                `overlong=error`, or a token id lies outside the vocabulary. StorageError: the cache cannot be written.
                ValueError: another `loss_on`.
        """
        return self._prepare_splits(SPLITS, tokenizer, cache_dir, loss_on, minimum_train_rows)

    def prepare_whole(self, tokenizer: Any, *, cache_dir: str | Path, loss_on: LossOn | str) -> Examples:
        """Token rows of all documents, none of them cut into splits; arguments and errors of `prepare`."""
        self._is_whole = True
        try:
            return self._prepare_splits((WHOLE,), tokenizer, cache_dir, loss_on, 1)[WHOLE]
        finally:
            self._is_whole = False

    def _prepare_splits(
        self,
        splits: tuple[str, ...],
        tokenizer: Any,
        cache_dir: str | Path,
        loss_on: LossOn | str,
        minimum_train_rows: int,
    ) -> dict[str, Examples]:
        loss_on = choose(LossOn, loss_on, "objective.loss_on")
        self.use_tokenizer(tokenizer)
        key = content_key(
            format_version=recipe.ROWS["version"],
            dataset=self.fingerprint,
            tokenizer=tokenizer.fingerprint,
            vocabulary_size=tokenizer.vocabulary_size,
            sequence_length=self.sequence_length,
            packing=self.packing.value,
            overlong=self.overlong.value,
            loss_on=loss_on.value,
            **({} if splits == SPLITS else {"splits": splits}),
        )
        made: list[str] = []

        def write(folder: Path) -> dict[str, Any]:
            made.append(key)
            return self._write(folder, splits, tokenizer, loss_on)

        name = content_key(rows=key, facts=_FACTS_VERSION, long_texts=recipe.LONG_TEXTS)
        folder, facts = cached_folder(Path(cache_dir) / "examples", name[:32], write)
        for split in splits:
            place = self._place(split)
            report.log_counts(place, facts[split], self.sequence_length, self.overlong, cached=not made)
            needed = minimum_train_rows if split == "train" else 1
            if facts[split]["rows"] < needed:
                raise report.too_small(self.name, split, facts[split], needed)
        return {split: Examples(folder / split, facts[split], fingerprint=f"{key}-{split}") for split in splits}

    def _place(self, split: str) -> str:
        return f"{self.name}, whole" if split == WHOLE else f"{self.name}, split {split}"

    def _write(self, folder: Path, splits: tuple[str, ...], tokenizer: Any, loss_on: LossOn) -> dict[str, Any]:
        with contextlib.ExitStack() as stack:
            writers = {
                split: stack.enter_context(
                    RowWriter(
                        folder / split,
                        name=self._place(split),
                        tokenizer=tokenizer,
                        sequence_length=self.sequence_length,
                        overlong=self.overlong,
                        loss_on=loss_on,
                    )
                )
                for split in splits
            }
            with amount_bar("tokenizing", self.num_bytes) as advance:
                for split, record in watch_answers(self.documents(), self.name, loss_on):
                    advance(len(record.text))
                    writers.get(split, writers[splits[0]]).add(record)
            facts = {split: writer.finish(self.packing) for split, writer in writers.items()}
        longest = max(counts["longest"] for counts in facts.values())
        facts = {split: counts | {"longest": longest} for split, counts in facts.items()}
        for split, counts in facts.items():
            if counts["overlong"] and self.overlong is Overlong.error:
                raise report.too_long(self._place(split), writers[split].first_overlong, counts, self.sequence_length)
        for split, counts in facts.items():
            if not counts["rows"]:  # before it enters the cache: an empty set is no result
                raise report.too_small(self.name, split, counts, 1)
        return facts
