"""Quantization of a backbone: linear layers and embeddings as integers or float8, norms as they were.

What is stored and what is computed: `llama_exp.formats.quantized` and `llama_exp.models.quantized.linear`. A quantized
backbone does not train itself; adapters on top of it do (QLoRA, Dettmers et al. 2023, arXiv:2305.14314). The order is
build, load, quantize, LoRA. Where the weights come from a file, the model is built quantized at once and each tensor
is quantized as it is read, so that the floating-point model is never in memory.

Importing this module imports no framework.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from llama_exp.architecture import MODES, Quantization, make_quantization, variable_shapes
from llama_exp.console import progress
from llama_exp.errors import ConfigError, InputError, Problem
from llama_exp.formats.checkpoint import RANDOM, Checkpoint, Tensor
from llama_exp.formats.quantized import dequantize as dequantize_matrix
from llama_exp.formats.quantized import form_of, of_matrix, part_shapes, quantize_checkpoint, require_possible
from llama_exp.formats.quantized import quantize as quantize_matrix
from llama_exp.quantization import gptq, importance

OPTIONS = (
    "mode",
    "quantize_activations",
    "group_size",
    "embeddings",
    "float_activations",
    "asymmetric_activations",
    "gptq",
    "int8_layers",
)
_ROUNDING = ("quantize_activations", "float_activations", "asymmetric_activations")  # of inputs, not of weights


def of_section(section: Mapping) -> Quantization | None:
    """What a config's `quantization` section asks for (`OPTIONS`, those that it lacks are open); None: nothing.

    Raises:
        ValueError: the options contradict the mode.
    """
    return make_quantization(**{key: section.get(key) for key in OPTIONS})


def options_of(config) -> dict:
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


def describe(quantization: Quantization | None) -> str:
    """The quantization in words, for logs and messages."""
    if quantization is None:
        return "none"
    if quantization.mode == "int8":
        floats = f" except of {', '.join(quantization.float_activations)}" if quantization.float_activations else ""
        kind = "asymmetric activations" if quantization.asymmetric_activations else "activations"
        return f"int8 weights and {kind}{floats}" if quantization.quantize_activations else "int8 weights"
    if quantization.mode == "float8":
        return "float8 weights"
    size = quantization.group_size
    embeddings = "" if quantization.embeddings is None else f", {quantization.embeddings} embeddings"
    layers = f", int8 {' and '.join(quantization.int8_layers)}" if quantization.int8_layers else ""
    rounding = ", rounded by GPTQ" if quantization.gptq else ""
    return f"int4 weights, a scale per {f'{size} inputs' if size else 'output'}{embeddings}{layers}{rounding}"


def chosen(section: Mapping, stored: Quantization | None, where: Path | str) -> Quantization | None:
    """The quantization of a model whose checkpoint is stored as `stored`.

    A quantized checkpoint decides. The section may leave it open with `mode` none, or state the same; only which
    activations are rounded is still a choice, because it does not change the weights.

    Args:
        section: the config's `quantization` section.
        stored: of the checkpoint; None: floating-point weights.
        where: the checkpoint, for messages.

    Raises:
        InputError: the section states another mode, group size, mode of some layers or rounding than the file has.
    """
    wanted = of_section(section)
    if stored is None:
        return wanted
    if wanted is None:
        return stored
    stated = ["mode", *(key for key in ("group_size", "embeddings", "gptq", "int8_layers") if section[key] is not None)]
    differing = [key for key in stated if getattr(wanted, key) != getattr(stored, key)]
    if differing:
        problem = Problem(
            f"the preset in {where} is quantized in another way",
            f"quantization.{differing[0]}",
            f"{describe(wanted)} (preset: {describe(stored)})",
            "set quantization=none to take it as it is stored, or choose a preset with floating-point weights",
        )
        raise InputError(problem)
    if all(section[key] is None for key in _ROUNDING):
        return stored
    return dataclasses.replace(stored, **{key: getattr(wanted, key) for key in _ROUNDING})


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
                "set lora.rank=8, or use floating-point weights (quantization=none and a preset without quantization)",
            )
        )


def fitted(checkpoint: Checkpoint, quantization: Quantization | None) -> Checkpoint:
    """`checkpoint` with the tensors of a model of `quantization`: as they are, or quantized while they are read."""
    if checkpoint.quantization is not None or quantization is None:
        return checkpoint
    return quantize_checkpoint(checkpoint, quantization, *_seen(checkpoint, quantization))


def _seen(checkpoint: Checkpoint, quantization: Quantization) -> tuple[Mapping, Mapping]:
    """Importance of inputs, and kernels that are rounded already: for 4 bits and weights that were trained."""
    if quantization.mode != "int4" or checkpoint.format == RANDOM:
        return {}, {}
    if quantization.gptq:
        with progress.steps_bar("rounding", gptq.num_steps(checkpoint.config)) as advance:
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

    counts, done = _seen(_as_checkpoint(backbone), quantization)

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
    for variable in backbone.weights:
        variable.trainable = True


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


def _array(variable):
    from keras import ops

    return ops.convert_to_numpy(variable.value)
