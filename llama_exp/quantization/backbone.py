"""Quantization of a backbone: linear layers and embeddings as integers or float8, norms as they were.

What is stored and what is computed: `llama_exp.formats.quantized` and `llama_exp.models.quantized.linear`. A quantized
backbone does not train itself; adapters on top of it do (QLoRA, Dettmers et al. 2023, arXiv:2305.14314). The order is
build, load, quantize, LoRA. Where the weights come from a file, the model is built quantized at once and each tensor
is quantized as it is read, so that the floating-point model is never in memory.

Importing this module imports no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from llama_exp.architecture import (
    AS_STORED,
    MODES,
    Quantization,
    make_quantization,
    stored_problems,
    variable_shapes,
)
from llama_exp.architecture.quantization import describe
from llama_exp.console import live
from llama_exp.errors import ConfigError, InputError, Problem
from llama_exp.formats.checkpoint import RANDOM, Checkpoint, Tensor
from llama_exp.formats.quantized import dequantize as dequantize_matrix
from llama_exp.formats.quantized import form_of, of_matrix, part_shapes, quantize_checkpoint, require_possible
from llama_exp.formats.quantized import quantize as quantize_matrix
from llama_exp.quantization import gptq, importance


def read_keras_config(config) -> dict:
    """The options of `quantize` that a Keras `QuantizationConfig` states.

    Keras makes a configuration of defaults where only a mode was given, so that such a one leaves the options open. Its
    `Float8QuantizationConfig` is what it makes of float8: here it means float8 weights, and no training in float8.

    Raises:
        ValueError: it has a quantizer of its own, or is of a kind that is not supported.
    """
    own_activations = config.activation_quantizer is not None and not _is_standard(config.activation_quantizer)
    if config.mode not in MODES or config.weight_quantizer is not None or own_activations:
        raise ValueError(
            f"config={type(config).__name__} for mode={config.mode!r} is not supported: use mode int8, int4 or float8 "
            "with the standard quantizers, or weights only (activation_quantizer=None)."
        )
    if config.mode == "int8":
        return {"quantize_activations": config.activation_quantizer is not None}
    if config.mode == "float8":
        return {}
    if config.activation_quantizer is not None:
        raise ValueError("config.activation_quantizer with mode='int4': only int8 has integer products.")
    if config.block_size == type(config)().block_size:
        return {}
    return {"group_size": 0 if config.block_size in (None, -1) else config.block_size}


def _is_standard(quantizer) -> bool:
    from keras.quantizers import AbsMaxQuantizer

    return type(quantizer) is AbsMaxQuantizer and quantizer.get_config() == AbsMaxQuantizer().get_config()


def choose(section: Mapping, stored: Quantization | None, where: Path | str) -> Quantization | None:
    """The quantization of a model whose checkpoint is stored as `stored`.

    Args:
        section: a config's `quantization` section: `mode` and the options, those that it lacks have their defaults.
        stored: of the checkpoint; None: floating-point weights.
        where: the checkpoint, for messages.

    Raises:
        InputError: the section states another mode, group size, mode of some layers or rounding than the file has.
        ValueError: the options contradict the mode.
    """
    if section["mode"] == AS_STORED:
        return stored
    if stored is not None:
        for problem in stored_problems(section, stored, str(where)):
            raise InputError(problem)
    return make_quantization(**section)


def require_trainable(quantization: Quantization | None, rank: int) -> None:
    """Fails if a run would train quantized weights.

    Raises:
        ConfigError: quantized weights without adapters.
    """
    if quantization is not None and rank == 0:
        raise ConfigError(
            Problem(
                "quantized weights do not train, adapters on top of them do",
                "lora.rank",
                f"lora.rank=0 with {describe(quantization)}",
                "set lora.rank=8, or choose floating-point weights (quantization=none, and a preset that has them)",
            )
        )


def fit_checkpoint(checkpoint: Checkpoint, quantization: Quantization | None) -> Checkpoint:
    """`checkpoint` with the tensors of a model of `quantization`: as they are, or quantized while they are read."""
    if checkpoint.quantization is not None or quantization is None:
        return checkpoint
    return quantize_checkpoint(checkpoint, quantization, *_weigh_inputs(checkpoint, quantization))


def _weigh_inputs(checkpoint: Checkpoint, quantization: Quantization) -> tuple[Mapping, Mapping]:
    """How much inputs count, and kernels that are rounded already: for 4 bits and weights that were trained."""
    if quantization.mode != "int4" or checkpoint.format == RANDOM:
        return {}, {}
    if quantization.gptq:
        with live.steps_bar("rounding", gptq.num_steps(checkpoint.config)) as advance:
            return {}, gptq.kernels(checkpoint, quantization, advance)
    return importance.of_inputs(checkpoint), {}


def quantize(backbone, mode: str, **options) -> None:
    """Turns the weights of a filled backbone into integers or float8, layer by layer.

    Args:
        backbone: a `LlamaBackbone` with floating-point weights and without adapters.
        mode: int8, int4 or float8.
        **options: of the mode, see `llama_exp.architecture.make_quantization`.

    Raises:
        ValueError: an impossible argument, a backbone that is quantized already or has adapters, float16 products
            with int8 or float8, or weights that are not finite.
    """
    quantization = make_quantization(mode, **options)
    if quantization is None:
        raise ValueError("mode='none' changes nothing. Choose int8, int4 or float8.")
    if backbone.quantization is not None:
        raise ValueError(f"The backbone is quantized already: {describe(backbone.quantization)}.")
    if any(linear.adapter is not None for linear in backbone.linear_layers().values()):
        raise ValueError("The backbone has adapters. Quantize first, then call enable_lora.")

    counts, done = _weigh_inputs(_as_checkpoint(backbone), quantization)

    def converted(old: Mapping) -> dict:
        values = {}
        for path, variable in old.items():
            form = form_of(path)
            if form is None:
                values[path] = _array(variable)
            else:
                own = of_matrix(path, quantization)
                parts = done.get(path) or quantize_matrix(_array(variable), form, own, counts.get(path))
                values |= {path + suffix: part for suffix, part in parts.items()}
        return values

    _rebuild(backbone, quantization, converted)


def dequantize(backbone, changes: Mapping[str, Callable] | None = None) -> None:
    """Makes floats of the weights of a quantized backbone again, layer by layer, in its own dtype; they train again.

    Where activations were quantized, their rounding is gone: the result computes what the stored numbers stand for.

    Args:
        backbone: a quantized `LlamaBackbone`; its adapters are lost.
        changes: by path of a kernel, what is made of it before it is rounded to its dtype: functions of an array (I, O)
            float32 that return another.
    """
    quantization, shapes, changes = backbone.quantization, variable_shapes(backbone.get_config()), changes or {}

    def converted(old: Mapping) -> dict:
        values = {}
        for path, variable in old.items():
            form = form_of(path)
            if form is None:
                if path in shapes:
                    values[path] = _array(variable)
                continue
            own = of_matrix(path, quantization)
            parts = {suffix: _array(old[path + suffix]) for suffix in part_shapes(shapes[path], form, own)}
            values[path] = dequantize_matrix(parts, shapes[path], form, own)
            if path in changes:
                values[path] = changes[path](values[path])
        return values

    _rebuild(backbone, None, converted)
    backbone.unfreeze()


def _rebuild(backbone, quantization, converted) -> None:
    """Replaces layer by layer; `converted` turns the old variables by path into arrays for the new ones."""
    require_possible(quantization, backbone.compute_dtype)
    for old, new in backbone.exchange_layers(quantization):
        variables = {variable.path: variable for variable in old.weights}
        values = converted(variables)
        for variable in new.weights:
            variable.assign(values.pop(variable.path))
            if variable.path in variables:
                variable.trainable = variable.trainable and variables[variable.path].trainable


def _as_checkpoint(backbone) -> Checkpoint:
    """The weights of a floating-point backbone, each copied from the device when it is read."""

    def tensor(variable):
        def read(dtype=None):
            return _array(variable).astype(dtype or np.float32)

        return Tensor(tuple(variable.shape), np.dtype("float32"), f"variable {variable.path}", read)

    tensors = {variable.path: tensor(variable) for variable in backbone.weights}
    return Checkpoint(Path("memory"), "backbone", backbone.get_config(), tensors)


def _array(variable) -> np.ndarray:
    return np.asarray(variable.value)
