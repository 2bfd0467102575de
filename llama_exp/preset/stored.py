"""How a preset's weights are stored, as far as this machine can tell without a download. Imports no framework."""

from __future__ import annotations

from typing import NamedTuple

from llama_exp.architecture import Quantization
from llama_exp.errors import InputError
from llama_exp.preset import local
from llama_exp.preset.table import PRESETS


class Stored(NamedTuple):
    """What is known of a preset's weights. quantization: None means floating point."""

    quantization: Quantization | None


def read_stored(source: str) -> Stored | None:
    """By the table of built-in presets, or the configuration of a model on this machine; None: only a download tells.

    A preset on a server counts as unknown even where it is cached, because the same command must not mean something
    else after the download. A local one that cannot be read is unknown too: whoever opens it tells why.

    Args:
        source: see `preset.resolve`.
    """
    for name, preset in PRESETS.items():
        if source in (name, preset.handle):
            return Stored(preset.quantization)
    if "://" in source:
        return None
    from llama_exp.formats import read_quantization  # NumPy, which the check of a config does without

    try:
        return Stored(read_quantization(local.find(source)))
    except InputError:
        return None
