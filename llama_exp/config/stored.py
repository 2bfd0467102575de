"""What `quantization.mode=preset` means for a run, so that its record and hash say it in numbers."""

from __future__ import annotations

import dataclasses

from llama_exp.architecture import AS_STORED, OPTIONS, Quantization, to_section
from llama_exp.config.schema import Config, QuantizationConfig


def resolve_stored(config: Config) -> Config:
    """The config with the quantization of its preset's weights in place of `quantization.mode=preset`.

    Where only a download tells, the mode stays `preset`: run.json records what it was then.

    Args:
        config: with sound sections `preset` and `quantization`.
    """
    stated = [getattr(config.quantization, name) for name in OPTIONS]
    if config.quantization.mode != AS_STORED or stated != [None] * len(OPTIONS):  # a rule refuses those with numbers
        return config
    stored = known_quantization(config)
    if isinstance(stored, str):
        return config
    return dataclasses.replace(config, quantization=QuantizationConfig(**to_section(stored)))


def known_quantization(config: Config) -> Quantization | str | None:
    """How the weights are stored that the run loads; None: in floating point; `preset`: only a download tells."""
    if config.preset.source is None or not config.preset.load_weights:
        return None
    from llama_exp.preset.stored import read_stored  # a tenth of a second, for those who need it

    stored = read_stored(config.preset.source)
    return AS_STORED if stored is None else stored.quantization
