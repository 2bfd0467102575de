"""The card of a model that `convert` or `merge` writes."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from llama_exp.commands.export_target import Target
from llama_exp.commands.sources import Source
from llama_exp.errors import InputError
from llama_exp.files.json_file import open_regular
from llama_exp.formats.gguf.file import open_gguf
from llama_exp.results import load_run
from llama_exp.run import model_card
from llama_exp.run.provenance import command_line

_MAX_CARD_BYTES = 1 << 20


def make(source: Source, place: Target, weights: str, file: str | None) -> model_card.Card:
    """What there is to say of a model.

    Args:
        source: of the model.
        place: where to and how.
        weights: how they are stored.
        file: name of the GGUF file; None: another format.
    """
    run = None if source.run is None else load_run(source.run)
    base = _base(source) if run is None else model_card.base_of(run)
    changes = place.quantization is not None or place.dtype not in (None, "float32")
    adapter = source.adapter.name if source.adapter is not None and run is None else None
    return model_card.Card(place.format, weights, base, run, command_line(sys.argv), file, changes, adapter)


def _base(source: Source) -> model_card.Base:
    has_card = source.path.is_dir() and (source.path / model_card.CARD).is_file()
    licence = _licence(source.path) if has_card or source.path.is_file() else None
    return model_card.Base(source.origin, source.revision, licence=licence, has_card=has_card)


def _licence(path: Path) -> str | None:
    """As the head of its card, or a GGUF file, states it; None: they do not, or cannot be read."""
    try:
        if path.is_file():
            with open_gguf(path) as gguf:
                return gguf.text("general.license")
        with open_regular(path / model_card.CARD) as file:
            text = file.read(_MAX_CARD_BYTES).decode("utf-8", "replace")
        _, head, _ = text.split("---", 2)
        found = yaml.safe_load(head)
    except (InputError, OSError, ValueError, yaml.YAMLError):
        return None
    licence = found.get("license") if isinstance(found, dict) else None
    return licence if isinstance(licence, str) else None
