"""Quantization of a backbone: linear layers and embeddings as integers, norms as they were.

What is stored and what is computed: `llama_exp.formats.quantized` and `llama_exp.models.quantized_linear`. A quantized
backbone does not train itself; adapters on top of it do (QLoRA, Dettmers et al. 2023, arXiv:2305.14314). The order is
build, load, quantize, LoRA. Where the weights come from a file, the model is built of integers at once and each tensor
is quantized as it is read, so that the floating-point model is never in memory.

Importing this module imports no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from llama_exp.architecture import MODES, Quantization, make_quantization, variable_shapes
from llama_exp.errors import ConfigError, InputError, Problem
from llama_exp.formats.checkpoint import Checkpoint
from llama_exp.formats.quantized import dequantize as dequantize_matrix
from llama_exp.formats.quantized import form_of, part_shapes, quantized, require_possible
from llama_exp.formats.quantized import quantize as quantize_matrix


def of_section(section: Mapping) -> Quantization | None:
    """What the config's `quantization` section (`mode`, `quantize_activations`, `group_size`) asks for; None: nothing.

    Raises:
        ValueError: the options contradict the mode.
    """
    return make_quantization(section["mode"], section["quantize_activations"], section["group_size"])


def options_of(config) -> dict:
    """The options of `quantize` that a Keras `QuantizationConfig` states.

    Raises:
        ValueError: it has a quantizer of its own, or is of a kind that is not supported.
    """
    own_activations = config.activation_quantizer is not None and not _is_standard(config.activation_quantizer)
    if config.mode not in MODES or config.weight_quantizer is not None or own_activations:
        raise ValueError(
            f"config={type(config).__name__} for mode={config.mode!r} is not supported: use mode int8 or int4 with the "
            "standard quantizers, or weights only (activation_quantizer=None)."
        )
    if config.mode == "int8":
        return {"quantize_activations": config.activation_quantizer is not None}
    if config.activation_quantizer is not None:
        raise ValueError("config.activation_quantizer with mode='int4': only int8 has integer products.")
    return {"group_size": 0 if config.block_size in (None, -1) else config.block_size}


def _is_standard(quantizer) -> bool:
    from keras.quantizers import AbsMaxQuantizer

    return type(quantizer) is AbsMaxQuantizer and quantizer.get_config() == AbsMaxQuantizer().get_config()


def describe(quantization: Quantization | None) -> str:
    """The quantization in words, for logs and messages."""
    if quantization is None:
        return "none"
    if quantization.mode == "int8":
        return "int8 weights and activations" if quantization.quantize_activations else "int8 weights"
    size = quantization.group_size
    return f"int4 weights, a scale per {f'{size} inputs' if size else 'output'}"


def chosen(section: Mapping, stored: Quantization | None, where: Path | str) -> Quantization | None:
    """The quantization of a model whose checkpoint is stored as `stored`.

    A quantized checkpoint decides. The section may leave it open with `mode` none, or state the same; only
    `quantize_activations` is still a choice, because it does not change the integers.

    Args:
        section: the config's `quantization` section.
        stored: of the checkpoint; None: floating-point weights.
        where: the checkpoint, for messages.

    Raises:
        InputError: the section states another mode or group size than the checkpoint has.
    """
    wanted = of_section(section)
    if stored is None:
        return wanted
    if wanted is None:
        return stored
    groups_differ = section["group_size"] is not None and wanted.group_size != stored.group_size
    if wanted.mode != stored.mode or groups_differ:
        problem = Problem(
            f"the preset in {where} is quantized in another way",
            "quantization.mode" if wanted.mode != stored.mode else "quantization.group_size",
            f"{describe(wanted)} (preset: {describe(stored)})",
            "set quantization=none to take it as it is stored, or choose a preset with floating-point weights",
        )
        raise InputError(problem)
    if section["quantize_activations"] is None:
        return stored
    return Quantization(stored.mode, wanted.quantize_activations, stored.group_size)


def require_trainable(quantization: Quantization | None, rank: int) -> None:
    """Fails if a run would train integers.

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
    return quantized(checkpoint, quantization)


def quantize(backbone, mode: str, quantize_activations: bool | None = None, group_size: int | None = None) -> None:
    """Turns the weights of a filled backbone into integers, layer by layer.

    Args:
        backbone: a `LlamaBackbone` with floating-point weights and without adapters.
        mode: int8 or int4.
        quantize_activations: int8 only; None: true.
        group_size: int4 only, inputs that share a scale; 0: all of them; None: 128.

    Raises:
        ValueError: an impossible argument, a backbone that is quantized already or has adapters, float16 products
            with int8, or weights that are not finite.
    """
    quantization = make_quantization(mode, quantize_activations, group_size)
    if quantization is None:
        raise ValueError("mode='none' changes nothing. Choose int8 or int4.")
    if backbone.quantization is not None:
        raise ValueError(f"The backbone is quantized already: {describe(backbone.quantization)}.")
    if any(linear.adapter is not None for linear in backbone.linear_layers().values()):
        raise ValueError("The backbone has adapters. Quantize first, then call enable_lora.")

    def converted(old: Mapping) -> dict:
        values = {}
        for path, variable in old.items():
            form = form_of(path)
            if form is None:
                values[path] = _array(variable)
            else:
                parts = quantize_matrix(_array(variable), form, quantization)
                values |= {path + suffix: part for suffix, part in parts.items()}
        return values

    _rebuild(backbone, quantization, converted)


def dequantize(backbone, deltas: Mapping[str, Callable] | None = None) -> None:
    """Turns the integers of a quantized backbone into floating-point weights, layer by layer; they train again.

    Where activations were quantized, their rounding is gone: the result computes what the integers stand for.

    Args:
        backbone: a quantized `LlamaBackbone`; its adapters are lost.
        deltas: by path of a kernel, functions of (I, O) float32 tensors that are added to it before it is rounded to
            its dtype.
    """
    from keras import ops

    quantization, shapes, deltas = backbone.quantization, variable_shapes(backbone.get_config()), deltas or {}

    def converted(old: Mapping) -> dict:
        values = {}
        for path, variable in old.items():
            form = form_of(path)
            if form is None:
                if path in shapes:
                    values[path] = _array(variable)
                continue
            parts = {suffix: _array(old[path + suffix]) for suffix in part_shapes(shapes[path], form, quantization)}
            values[path] = dequantize_matrix(parts, shapes[path], form, quantization)
            if path in deltas:
                values[path] += ops.convert_to_numpy(deltas[path]())
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


def _array(variable):
    from keras import ops

    return ops.convert_to_numpy(variable.value)
