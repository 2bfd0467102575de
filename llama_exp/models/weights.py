"""Weights in and out of a backbone: from files without a second copy, to files one tensor at a time.

A Keras layer draws random values when it is built, and a loader then overwrites them: twice the time, and while both
exist twice the memory. Here a backbone is built without values, and each variable adopts the array that was read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
from keras import ops
from keras.src.backend.common import global_state

from llama_exp import backend, quantization
from llama_exp.architecture import CONFIG_KEYS, count_parameters, one_scaling_factor
from llama_exp.errors import InputError, Problem
from llama_exp.formats import open_checkpoint, read_architecture, writing
from llama_exp.formats.checkpoint import Checkpoint, Tensor, agreed, require_agreement
from llama_exp.formats.keras_hub import checkpoint as keras_hub
from llama_exp.models.policy import for_checkpoint, parsed

_PENDING = "uninitialized_variables"  # Keras' list of variables that were made in a scope without values


def load(backbone_class: Callable, path: Path, load_weights: bool = True, dtype=None, **stated):
    """The backbone of a model on disk.

    Args:
        backbone_class: `LlamaBackbone` or a subclass.
        path: a KerasHub preset, a Hugging Face checkpoint, or a .gguf file.
        load_weights: false leaves random weights; the weight files need not exist.
        dtype: Keras dtype policy; None: the global one. What the files say about floating-point types does not count;
            their quantization does. KerasHub's map of quantized policies quantizes a floating-point model.
        **stated: other arguments of the constructor. One that differs from the model's is an error, except where the
            format is known to be wrong.

    Raises:
        InputError: no such model, damaged, or of another architecture than `stated`.
    """
    if "rope_scaling_factor" in stated:
        older, newer = stated.pop("rope_scaling_factor"), stated.get("rope_position_scaling_factor")
        stated["rope_position_scaling_factor"] = one_scaling_factor(older, newer)
    if load_weights:
        with open_checkpoint(path) as checkpoint:
            checkpoint = agreed(checkpoint, stated)
            dtype = for_checkpoint(dtype, checkpoint)
            return filled(lambda: backbone_class(**checkpoint.config | stated, dtype=dtype), checkpoint)
    config = read_architecture(path)
    # Without weights nothing but the sizes can contradict the caller.
    require_agreement(Checkpoint(path, "", config, {}, doubtful=frozenset(CONFIG_KEYS)), stated)
    _require_memory(path, config | stated, parsed(dtype, config | stated).policy)
    return backbone_class(**config | stated, dtype=dtype)


def filled(factory: Callable, checkpoint: Checkpoint):
    """The backbone that `factory` makes, with the weights of an open checkpoint, quantized if the backbone is.

    Raises:
        InputError: the backbone has another architecture than the checkpoint, or a tensor is damaged.
    """
    backbone = build(factory)
    config = backbone.get_config()
    checkpoint = agreed(checkpoint, {key: config[key] for key in CONFIG_KEYS})
    fill(backbone, quantization.fit_checkpoint(checkpoint, backbone.quantization))
    return backbone


def build(factory: Callable):
    """What `factory` makes, with weights that have no values yet: `fill` must follow before the first use.

    Seeds of dropout are drawn as always.
    """
    try:
        with keras.StatelessScope(initialize_variables=False):
            backbone = factory()
        weights = {id(variable) for variable in backbone.weights}
        for variable in global_state.get_global_attribute(_PENDING, []):
            if id(variable) not in weights:
                variable._deferred_initialize()
    finally:  # or the next scope of anybody would draw values for them after all
        global_state.set_global_attribute(_PENDING, [])
    return backbone


def fill(backbone, checkpoint: Checkpoint) -> None:
    """Gives every weight of a backbone from `build` its value, cast to the variable's type.

    Args:
        backbone: its weights are the checkpoint's tensors, by path.
        checkpoint: open, of the backbone's architecture.

    Raises:
        InputError: a tensor is damaged or not finite in the variable's type; the backbone is of no use then.
    """
    variables = {variable.path: variable for variable in backbone.weights}
    if variables.keys() != checkpoint.tensors.keys():
        differing = sorted(variables.keys() ^ checkpoint.tensors.keys())
        raise ValueError(f"the backbone's weights are not the checkpoint's tensors; they differ in {differing[:5]}.")
    for path, variable in variables.items():
        _adopt(variable, checkpoint.tensors[path].read(_numpy_dtype(variable.dtype)))


def tensors_of(backbone) -> dict[str, Tensor]:
    """The weights of a backbone, to be written: each is copied from the device when it is read."""
    return {variable.path: _tensor(variable) for variable in backbone.weights}


def save(backbone, folder: Path, max_shard_gib: float | None, tokenizer=None) -> None:
    """Writes a KerasHub preset; the folder appears complete or not at all.

    Args:
        backbone: without adapters.
        folder: must not exist, be empty, or hold nothing but a model, which is replaced.
        max_shard_gib: larger weights are split into files of about this size; None: one file.
        tokenizer: with `save(folder)`; None: a preset without tokenizer.

    Raises:
        ValueError: the backbone has adapters, which the format cannot hold.
        StorageError: the folder is not replaceable or cannot be written.
    """
    adapted = [path for path, linear in backbone.linear_layers().items() if linear.adapter is not None]
    if adapted:
        raise ValueError(
            f"the backbone has unmerged adapters ({adapted[0]} and {len(adapted) - 1} more), which a preset cannot "
            "hold. Merge them with llama_exp.lora.merge(backbone), or save them with llama_exp.lora.save_adapter."
        )
    config = backbone.get_config()
    max_shard_bytes = None if max_shard_gib is None else int(max_shard_gib * 2**30)
    with writing(folder) as draft:
        if tokenizer is not None:
            tokenizer.save(draft)
        architecture = {key: config[key] for key in CONFIG_KEYS}
        keras_hub.write(draft, architecture, tensors_of(backbone), backbone.quantization, max_shard_bytes)


def _adopt(variable, array: np.ndarray) -> None:
    """Makes `array` the first value of a variable; on a CPU it becomes the variable's memory if it is aligned."""
    if tuple(variable.shape) != array.shape:
        raise ValueError(f"{variable.path} has shape {variable.shape}, its value {array.shape}.")
    variable._initialize(backend.adopt(array))
    variable._initializer = None


def _tensor(variable) -> Tensor:
    def read(dtype: np.dtype | None = None) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(ops.convert_to_numpy(variable.value), dtype))

    return Tensor(tuple(variable.shape), _numpy_dtype(variable.dtype), f"variable {variable.path}", read)


def _numpy_dtype(dtype: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, dtype, dtype))


def _require_memory(path: Path, config: dict, policy) -> None:
    """A configuration of a few bytes must not make the machine run out of memory."""
    if keras.distribution.distribution() is not None:  # then no device holds the whole model
        return
    num_bytes = count_parameters(config) * _numpy_dtype(policy.variable_dtype).itemsize
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if num_bytes > available:
        found = f"{num_bytes / 2**30:.0f} GiB as {policy.variable_dtype}, the machine has {available / 2**30:.0f} GiB"
        action = "choose a smaller model or a narrower dtype"
        raise InputError(Problem("the model does not fit into memory", str(path), found, action))
