"""The model of a run: built, filled and adapted in one fixed order."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from llama_exp import quantization as integer_weights
from llama_exp.architecture import Quantization
from llama_exp.errors import ConfigError, Problem
from llama_exp.lora import source as lora_source

logger = logging.getLogger(__name__)


def build(
    backbone_factory: Callable,
    *,
    policy: str,
    preset_dir: Path | None,
    quantization: Mapping,
    lora: Mapping,
    remat: str,
    seed: int,
):
    """A backbone, ready to train: built, then loaded, then quantized, then given adapters.

    The order matters: quantized weights stand for the loaded ones; adapters freeze what is there, and they are never
    part of a preset, so loading must not see them. A preset's weights are quantized while they are read.

    Args:
        backbone_factory: called with `dtype=`, returns the `LlamaBackbone` of the config's `model` section.
        policy: the `precision` section's value.
        preset_dir: local preset folder to take the weights from; None: they stay random.
        quantization: the `quantization` section; a quantized preset decides where its `mode` is none.
        lora: the `lora` section; `rank` 0 means no adapters, `source` an adapter to go on from.
        remat: what the backward pass computes again, the name of a `Remat`.
        seed: of the random weights and the adapters, and of dropout.

    Raises:
        InputError: the preset's weights do not fit the model, or are quantized in another way than the section says.
        ConfigError: nothing would train; quantized weights without adapters.
        ValueError: an argument of the model or of `lora` is impossible.
    """
    import keras

    from llama_exp import precision

    keras.utils.set_random_seed(seed)
    dtype = precision.policy(policy)
    if preset_dir is None:
        stored = integer_weights.of_section(quantization)
        integer_weights.require_trainable(stored, lora["rank"])
        backbone = backbone_factory(dtype=dtype) if stored is None else _random(backbone_factory, dtype, stored, seed)
    else:
        from llama_exp.formats import open_checkpoint
        from llama_exp.models import weights
        from llama_exp.models.policy import serialized

        with open_checkpoint(preset_dir) as checkpoint:
            stored = integer_weights.chosen(quantization, checkpoint.quantization, preset_dir)
            integer_weights.require_trainable(stored, lora["rank"])
            logger.info("quantization: %s", integer_weights.describe(stored))
            dtype = serialized(dtype, stored, checkpoint.config)
            backbone = weights.filled(functools.partial(backbone_factory, dtype=dtype), checkpoint)
    if lora["rank"] > 0:
        lora_source.start(backbone, lora)
    backbone.remat = remat
    _require_trainable(backbone)
    return backbone


def _require_trainable(backbone) -> None:
    if not backbone.trainable_variables:
        action = "have the class that model._target_ names build it with trainable=True; lora.rank=8 then freezes it"
        raise ConfigError(Problem("nothing would train", "model", "0 trainable parameters", action))


def _random(backbone_factory: Callable, dtype, quantization: Quantization, seed: int):
    """A backbone with random integer weights, which were never all there in floating point."""
    from llama_exp.models import weights
    from llama_exp.models.policy import serialized
    from llama_exp.models.random_weights import random_checkpoint

    config = weights.build(functools.partial(backbone_factory, dtype=dtype)).get_config()
    dtype = serialized(dtype, quantization, config)
    return weights.filled(functools.partial(backbone_factory, dtype=dtype), random_checkpoint(config, seed))
