"""The model of a run: built, filled and adapted in one fixed order; and the size of its adapters, without building it.

Importing this module imports no framework: the count serves the plan that is printed before Keras is chosen.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from llama_exp import lora_source
from llama_exp import quantization as integer_weights
from llama_exp.architecture import linear_shapes

logger = logging.getLogger(__name__)


def build(
    backbone_factory: Callable,
    *,
    policy: str,
    preset_dir: Path | None,
    quantization: Mapping,
    lora: Mapping,
    remat: bool,
    seed: int,
):
    """A backbone, ready to train: built, then loaded, then quantized, then given adapters.

    The order matters: integers stand for the loaded weights; adapters freeze what is there, and they are never part of
    a preset, so loading must not see them. A preset's weights are quantized while they are read.

    Args:
        backbone_factory: called with `dtype=`, returns the `LlamaBackbone` of the config's `model` section.
        policy: the `precision` section's value.
        preset_dir: local preset folder to take the weights from; None: they stay random.
        quantization: the `quantization` section; a quantized preset decides where its `mode` is none.
        lora: the `lora` section; `rank` 0 means no adapters, `source` an adapter to go on from.
        remat: recompute each block in the backward pass.
        seed: of the random weights and the adapters, and of dropout.

    Raises:
        InputError: the preset's weights do not fit the model, or are quantized in another way than the section says.
        ConfigError: quantized weights without adapters.
        ValueError: an argument of the model or of `lora` is impossible.
    """
    import keras

    from llama_exp import precision

    keras.utils.set_random_seed(seed)
    dtype = precision.policy(policy)
    if preset_dir is None:
        integer_weights.require_trainable(integer_weights.of_section(quantization), lora["rank"])
        backbone = backbone_factory(dtype=dtype)
        if quantization["mode"] != "none":
            backbone.quantize(**quantization)
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
        lora_source.start(backbone, **lora)
    backbone.remat = remat
    return backbone


def count_lora_parameters(model: Mapping, lora: Mapping) -> int:
    """Trainable parameters that a `lora` section adds to a `model` section; 0 for rank 0.

    Raises:
        InputError: the section's `source` is no adapter, does not fit the model, or disagrees with the section.
    """
    if lora["rank"] == 0:
        return 0
    shapes = linear_shapes(model)
    return sum(rank * sum(shapes[path]) for path, rank in lora_source.ranks(lora, model).items())
