"""Any TensorFlow Datasets builder by name."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_exp import recipe
from llama_exp.dataset.base import Dataset
from llama_exp.dataset.cache import content_key
from llama_exp.dataset.records import Record, document, pair
from llama_exp.dataset.split import is_by_position
from llama_exp.errors import InputError, LlamaExpError, Problem
from llama_exp.limits.dataset import LIMITS

log = logging.getLogger("llama_exp")

_NOWHERE = f"{os.devnull}/none"  # a folder that cannot be there


class Tfds(Dataset):
    """A data set of the TFDS catalogue.

    Sets that are prepared as ArrayRecord files are read without TensorFlow, and what is prepared here is prepared like
    that; TFRecord files, TFDS' own default, need TensorFlow.

    Args:
        builder: name[/config][:version].
        train_split: TFDS split; slices such as train[:10%] are allowed.
        validation_split: TFDS split; None: `validation_fraction` of the training split, by a hash of the content.
        text_key: Feature with the text, all of which counts in the loss; None: `prompt_key` and `completion_key`, or
            the only text feature there is.
        prompt_key: Feature with the prompt.
        completion_key: Feature with the completion, the only part that counts; nothing is put between the two.
        data_dir: Where TFDS keeps prepared data; None: its own default.
        download: Whether a set that is not there may be downloaded and prepared.
        **options: See `Dataset`.
    """

    name = "tfds"

    def __init__(
        self,
        *,
        builder: str,
        train_split: str,
        validation_split: str | None,
        text_key: str | None,
        prompt_key: str | None,
        completion_key: str | None,
        data_dir: str | None,
        download: bool,
        **options: Any,
    ):
        super().__init__(**options)
        keys = {"text_key": text_key, "prompt_key": prompt_key, "completion_key": completion_key}
        LIMITS.require(builder=builder, train_split=train_split, validation_split=validation_split, **keys)
        self.builder, self.train_split, self.validation_split = builder, train_split, validation_split
        self.text_key, self.prompt_key, self.completion_key = text_key, prompt_key, completion_key
        self.data_dir, self.download = data_dir, download
        self.name = f"tfds {builder}"
        self._builder: Any = None
        self._keys: tuple[str, ...] = ()
        self._num_documents = 0

    def open(self, cache_dir: str | Path) -> None:
        """Finds the builder and prepares it where that is allowed and needed; `cache_dir` is not used."""
        from llama_exp.dataset.builders import silence

        self._builder = self._found()
        with silence():
            prepared = self._builder.is_prepared()
        if not prepared:
            self._prepare()
        self._keys = self._chosen_keys()
        info = self._builder.info
        splits = {}
        for split in filter(None, (self.train_split, self.validation_split)):
            try:
                sub_split = info.splits[split]
            except Exception as error:  # a bad slice raises whatever the parser raises
                available = ", ".join(info.splits)
                raise self._error("no such split", repr(split), f"splits: {available} ({_line(error)})") from None
            splits[split] = [sub_split.num_examples, sorted(Path(file).name for file in sub_split.filenames)]
        self._num_documents = splits[self.train_split][0]
        by_position = not self.validation_split and is_by_position(self._num_documents, self.validation_fraction)
        self._fingerprint = content_key(
            **({"split": recipe.LONG_TEXTS} if by_position else {}),
            name=info.full_name,
            splits=splits,
            shards={name: [split.num_bytes, split.shard_lengths] for name, split in sorted(info.splits.items())},
            validation_split=self.validation_split,
            validation_fraction=None if self.validation_split else self.validation_fraction,
            keys=self._keys,
        )

    def documents(self) -> Iterator[tuple[str, Record]]:
        """Every record with its split; documents that two TFDS splits share are counted and reported."""
        if self.validation_split is None:
            yield from self.split(lambda: self._records(self.train_split), self._num_documents)
            return
        known, shared = set(), 0
        for record in self._records(self.train_split):
            known.add(_short_hash(record.group))
            yield "train", record
        for record in self._records(self.validation_split):
            shared += _short_hash(record.group) in known
            yield "validation", record
        if shared:
            log.warning(
                "dataset %s: %d documents of %s are also in %s",
                self.name,
                shared,
                self.validation_split,
                self.train_split,
            )

    def _found(self) -> Any:
        import tensorflow_datasets as tfds

        from llama_exp.dataset.builders import silence

        try:
            with silence():
                return tfds.builder(self.builder, data_dir=self.data_dir)
        except tfds.core.DatasetNotFoundError:
            name = self.builder.split("/")[0].split(":")[0]
            known = tfds.core.load.list_builders(with_community_datasets=False)
            near = difflib.get_close_matches(name, known, n=3) or ["see tensorflow.org/datasets/catalog"]
            raise self._error("TFDS knows no such builder", self.builder, f"nearest names: {', '.join(near)}") from None
        except Exception as error:  # unknown versions and configs raise whatever TFDS raises
            raise self._unmade(error) from error

    def _unmade(self, error: Exception) -> InputError:
        """Why there is no builder: what was prepared is damaged, if there would be one without it."""
        import tensorflow_datasets as tfds

        from llama_exp.dataset.builders import silence

        with contextlib.suppress(Exception), silence():
            builder = tfds.builder(self.builder, data_dir=_NOWHERE)
            place = Path(self.data_dir or tfds.core.constants.DATA_DIR) / builder.data_path.relative_to(_NOWHERE)
            action = f"delete {place} and prepare the set again"
            return self._error("dataset_info.json of the prepared set is damaged", _line(error), action)
        action = "check configuration and version (name[/config][:version])"
        return self._error("TFDS cannot make this builder", _line(error), action)

    def _prepare(self) -> None:
        from tensorflow_datasets.core.download import downloader

        from llama_exp.dataset.builders import silence

        where = self.data_dir or "TFDS' default folder"
        offline = (
            f'prepare it where there is a network: python -c "import tensorflow_datasets as tfds; tfds.builder('
            f"'{self.builder}', file_format='array_record').download_and_prepare()\", and set dataset.data_dir"
        )
        if not self.download:
            action = f"set dataset.download=true, or {offline}"
            raise self._error(f"not prepared in {where}, and dataset.download is false", self.builder, action)
        retries, downloader.MAX_RETRIES = downloader.MAX_RETRIES, 0  # ten of them take minutes without a network
        log.info("dataset %s: downloading and preparing", self.name)
        try:
            with silence():
                import tensorflow_datasets as tfds

                self._builder = tfds.builder(self.builder, data_dir=self.data_dir, file_format="array_record")
                self._builder.download_and_prepare()
        except Exception as error:  # network, checksums, disk and generation raise many types
            raise self._error("it could not be downloaded and prepared", _line(error), offline) from error
        finally:
            downloader.MAX_RETRIES = retries

    def _chosen_keys(self) -> tuple[str, ...]:
        """(text feature,) or (prompt feature, completion feature)."""
        import tensorflow_datasets as tfds

        features = dict(self._builder.info.features or {})
        text = [name for name, feature in features.items() if isinstance(feature, tfds.features.Text)]
        pair = (self.prompt_key, self.completion_key)
        chosen: tuple[str | None, ...] = (self.text_key,) if self.text_key else pair
        if chosen == (None, None):
            chosen = tuple(text)
            if len(text) != 1:
                action = "set dataset.text_key, or dataset.prompt_key and dataset.completion_key"
                raise self._error("which feature is the text is not clear", f"text features: {text}", action)
        for key in chosen:
            if key not in text:
                found = f"{key!r}; features: {', '.join(features)}"
                raise self._error("no text feature of this name", found, f"text features: {', '.join(text) or 'none'}")
        return tuple(key for key in chosen if key is not None)

    def _records(self, split: str) -> Iterator[Record]:
        for number, example in enumerate(self._examples(split)):
            source = f"{split} #{number}"
            try:
                texts = [_decoded(example[key]) for key in self._keys]
            except UnicodeDecodeError as error:
                raise self._error(
                    f"record {source} is not UTF-8", f"byte {error.start}: {error.reason}", "choose another feature"
                ) from None
            yield document(source, texts[0]) if len(texts) == 1 else pair(source, *texts)

    def _examples(self, split: str) -> Iterator[dict[str, Any]]:
        from llama_exp.dataset import builders

        file_format = self._builder.info.file_format.value
        try:
            if file_format == "array_record":
                yield from builders.read(self._builder, split)
            else:
                yield from self._through_tensorflow(split, file_format)
        except LlamaExpError:
            raise
        except Exception as error:  # damaged shards raise from C++ and from TensorFlow
            action = f"delete {self._builder.data_dir} and prepare the set again"
            raise self._error(f"split {split} cannot be read", _line(error), action) from error

    def _through_tensorflow(self, split: str, file_format: str) -> Iterator[dict[str, Any]]:
        import tensorflow_datasets as tfds

        if importlib.util.find_spec("tensorflow") is None:
            raise self._error(
                f"reading {file_format} files needs TensorFlow, which is not installed",
                str(self._builder.data_dir),
                "pip install tensorflow, or prepare the set with file_format='array_record'",
            )
        config = tfds.ReadConfig(interleave_cycle_length=1)  # one shard after the other: a fixed order
        yield from tfds.as_numpy(self._builder.as_dataset(split=split, read_config=config, shuffle_files=False))

    def _error(self, what: str, found: str, action: str) -> InputError:
        return InputError(Problem(what=what, where=f"dataset {self.name}", found=found, action=action))


def _decoded(value: Any) -> str:
    return value if isinstance(value, str) else bytes(value).decode("utf-8")


def _short_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:8]


def _line(error: Exception) -> str:
    """The first telling line of a message that may be a page long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
