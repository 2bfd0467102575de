"""The assembly of a model, the same wherever it comes from: built, loaded, quantized, given adapters.

    train        build(section by section)  --.
    commands     their options              ---+--> assemble(factory, checkpoint, quantization, adapt)
    from_preset  load(class, path, ...)     --'

The callers choose: which checkpoint, which quantization, which adapters. The order is not theirs.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import keras

from llama_exp import backend, precision
from llama_exp import quantization as small_types
from llama_exp.architecture import AS_STORED, CONFIG_KEYS, Quantization, count_parameters, one_scaling_factor
from llama_exp.errors import ConfigError, InputError, Problem
from llama_exp.formats import open_checkpoint, read_architecture
from llama_exp.formats.checkpoint import Checkpoint, match_architecture, require_agreement
from llama_exp.formats.random_weights import random_checkpoint
from llama_exp.lora import source as lora_source
from llama_exp.models import weights
from llama_exp.models.arguments import read_policy, section_of

logger = logging.getLogger(__name__)


def assemble(
    factory: Callable,
    checkpoint: Checkpoint | None,
    quantization: Quantization | None,
    adapt: Callable | None = None,
):
    """A backbone, put together in the one order: built, loaded, quantized, given adapters.

    The order matters: quantized weights stand for the loaded ones; adapters freeze what is there, and they are never
    part of a preset, so loading must not see them. Each tensor is quantized when it is read, so that the floating-point
    model is never in memory.

    Args:
        factory: returns the `LlamaBackbone`; called with `quantization=` if that is not None, otherwise with nothing.
        checkpoint: open; the weights are read from it. None: they are as the constructor makes them.
        quantization: how the weights are to be stored; None: in floating point.
        adapt: called with the filled backbone, to give it adapters; None: it gets none.

    Raises:
        InputError: the backbone has another architecture than the checkpoint, or a tensor is damaged.
        ValueError: the constructor refuses its arguments.
    """
    make = factory if quantization is None else functools.partial(factory, quantization=quantization)
    if checkpoint is None:
        backbone = make()
    else:
        backbone = weights.build_empty(make)
        config = backbone.get_config()
        checkpoint = match_architecture(checkpoint, {key: config[key] for key in CONFIG_KEYS})
        weights.fill(backbone, small_types.fit_checkpoint(checkpoint, quantization))
    if adapt is not None:
        adapt(backbone)
    return backbone


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
    """The backbone of a run, ready to train.

    Args:
        backbone_factory: called with `dtype=` and `seed=`, and `quantization=` for small types; returns the
            `LlamaBackbone` of the config's `model` section.
        policy: the `precision` section's value.
        preset_dir: local preset folder to take the weights from; None: they stay random.
        quantization: the `quantization` section; under `mode` preset the weights are taken as they are stored.
        lora: the `lora` section; `rank` 0 means no adapters, `source` an adapter to go on from.
        remat: what the backward pass computes again, the name of a `Remat`.
        seed: of the random weights and the adapters, and of everything that draws without a seed of its own: dropout.

    Raises:
        InputError: the preset's weights do not fit the model, or are quantized in another way than the section says.
        ConfigError: nothing would train; quantized weights without adapters.
        ValueError: an argument of the model or of `lora` is impossible.
    """
    backend.seed_generators(seed)
    factory = functools.partial(backbone_factory, dtype=precision.policy(policy), seed=seed)
    adapt = functools.partial(lora_source.start, lora=lora) if lora["rank"] > 0 else None
    with contextlib.nullcontext() if preset_dir is None else open_checkpoint(preset_dir) as checkpoint:
        as_stored = None if checkpoint is None else checkpoint.quantization
        stored = small_types.choose(quantization, as_stored, preset_dir or "random weights")
        small_types.require_trainable(stored, lora["rank"])
        if stored is not None:
            logger.info("quantization: %s", small_types.describe(stored))
        if checkpoint is None and stored is not None:  # random integers, which are never all there as floats
            plain = weights.build_empty(factory)
            checkpoint = random_checkpoint(plain.get_config(), plain.seed)
        backbone = assemble(factory, checkpoint, stored, adapt)
    backbone.remat = remat
    if not backbone.trainable_variables:
        action = "have the class that model._target_ names build it with trainable=True; lora.rank=8 then freezes it"
        raise ConfigError(Problem("nothing would train", "model", "0 trainable parameters", action))
    return backbone


def load(
    backbone_class: Callable,
    path: Path,
    load_weights: bool = True,
    dtype=None,
    quantization: Quantization | Mapping | None = None,
    **stated,
):
    """The backbone of a model on disk.

    Args:
        backbone_class: `LlamaBackbone` or a subclass.
        path: a KerasHub preset, a Hugging Face checkpoint, or a .gguf file.
        load_weights: false leaves the constructor's weights; the weight files need not exist.
        dtype: Keras dtype policy; None: the global one. What the files say about floating-point types does not count.
        quantization: as for the constructor; None: as the files are stored. A floating-point model is quantized while
            it is read; of a quantized one, only which activations are rounded is a choice.
        **stated: other arguments of the constructor. One that differs from the model's is an error, except where the
            format is known to be wrong.

    Raises:
        InputError: no such model, damaged, of another architecture than `stated`, or quantized in another way.
        ValueError: an argument is impossible.
    """
    if "rope_scaling_factor" in stated:
        older, newer = stated.pop("rope_scaling_factor"), stated.get("rope_position_scaling_factor")
        stated["rope_position_scaling_factor"] = one_scaling_factor(older, newer)
    section = {"mode": AS_STORED} if quantization is None else section_of(quantization)
    if not load_weights:
        arguments = _read_arguments(path, stated, dtype)
        stored = small_types.choose(section, None, path)
        return assemble(functools.partial(backbone_class, **arguments, dtype=dtype), None, stored)
    with open_checkpoint(path) as checkpoint:
        checkpoint = match_architecture(checkpoint, stated)
        stored = small_types.choose(section, checkpoint.quantization, path)
        factory = functools.partial(backbone_class, **checkpoint.config | stated, dtype=dtype)
        return assemble(factory, checkpoint, stored)


def _read_arguments(path: Path, stated: Mapping, dtype) -> dict:
    """The constructor arguments of a model of which nothing but the configuration is read."""
    config = read_architecture(path)
    # Without weights nothing but the sizes can contradict the caller.
    require_agreement(Checkpoint(path, "", config, {}, doubtful=frozenset(CONFIG_KEYS)), stated)
    arguments = {**config, **stated}
    _require_memory(path, arguments, read_policy(dtype).variable_dtype)
    return arguments


def _require_memory(path: Path, config: Mapping, dtype: str) -> None:
    """A configuration of a few bytes must not make the machine run out of memory."""
    if keras.distribution.distribution() is not None:  # then no device holds the whole model
        return
    num_bytes = count_parameters(config) * weights.numpy_dtype(dtype).itemsize
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if num_bytes > available:
        found = f"{num_bytes / 2**30:.0f} GiB as {dtype}, the machine has {available / 2**30:.0f} GiB"
        action = "choose a smaller model or a narrower dtype"
        raise InputError(Problem("the model does not fit into memory", str(path), found, action))
