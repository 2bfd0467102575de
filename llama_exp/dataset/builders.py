"""TFDS builders of our own data sets, and the quiet way to run any builder.

ArrayRecord files and `as_data_source` keep TensorFlow out of the process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow_datasets as tfds

_READ_AT_ONCE = 64  # examples, which may be long


@dataclasses.dataclass(kw_only=True)
class DocumentsConfig(tfds.core.BuilderConfig):
    """A builder's content.

    name: holds the content's key, so that other content is another config. examples: gives the examples, each a dict
    of the builder's fields; None only where files that exist already are read.
    """

    examples: Callable[[], Iterator[dict[str, str]]] | None = dataclasses.field(default=None, repr=False)


class _DocumentsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # untyped
    """A builder with one split, `train`, of text fields, in the order they are generated."""

    VERSION = tfds.core.Version("1.0.0")
    fields: tuple[str, ...]

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict({field: tfds.features.Text() for field in self.fields})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, str]]]:
        yield from enumerate(self.builder_config.examples())


def build(
    name: str,
    fields: tuple[str, ...],
    config_name: str,
    data_dir: str,
    examples: Callable[[], Iterator[dict[str, str]]],
) -> Any:
    """A builder of text fields, prepared under `data_dir/name` (which is only done where it is not there yet)."""
    kind = type("Documents", (_DocumentsBuilder,), {"name": name, "fields": fields}, skip_registration=True)
    config = DocumentsConfig(name=config_name, examples=examples)
    with silence():
        builder = kind(data_dir=data_dir, config=config, file_format="array_record")
        builder.download_and_prepare()
    return builder


def read(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """The examples of a prepared ArrayRecord builder in the order on disk, as nested dicts of bytes and arrays."""
    with silence():
        source = builder.as_data_source(split)
    for start in range(0, len(source), _READ_AT_ONCE):
        yield from source.__getitems__(list(range(start, min(start + _READ_AT_ONCE, len(source)))))


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps TFDS from printing and from drawing progress bars; our own messages are the ones a run shows."""
    absl = logging.getLogger("absl")
    level = absl.level
    tfds.disable_progress_bar()
    absl.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl.setLevel(level)
