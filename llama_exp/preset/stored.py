"""How a preset's weights are stored, as far as this machine can tell without a download. Imports no framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from llama_exp.architecture import SIZES, Quantization
from llama_exp.errors import InputError
from llama_exp.preset import local
from llama_exp.preset.table import PRESETS, context_length


class Stored(NamedTuple):
    """What is known of a preset.

    quantization: None means floating point. sizes: those of `architecture.SIZES`. context_length: tokens that it was
    made for; None: not known.
    """

    quantization: Quantization | None
    sizes: Mapping[str, object]
    context_length: int | None


def read_stored(source: str) -> Stored | None:
    """By the table of built-in presets, or the configuration of a model on this machine; None: only a download tells.

    A preset on a server counts as unknown even where it is cached, because the same command must not mean something
    else after the download. A local one that cannot be read is unknown too: whoever opens it tells why.

    Args:
        source: see `preset.resolve`.
    """
    for name, preset in PRESETS.items():
        if source in (name, preset.handle):
            sizes = {key: preset.architecture[key] for key in SIZES}
            return Stored(preset.quantization, sizes, context_length(name))
    if "://" in source:
        return None
    from llama_exp import formats  # NumPy, which the check of a config does without

    try:
        path = local.find(source)
        architecture = formats.read_architecture(path)
        sizes = {key: architecture[key] for key in SIZES}
        return Stored(formats.read_quantization(path), sizes, formats.read_context_length(path))
    except InputError:
        return None
