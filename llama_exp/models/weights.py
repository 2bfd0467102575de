"""Weights in and out of a backbone: from files without a second copy, to files one tensor at a time.

A Keras layer draws random values when it is built, and a loader then overwrites them: twice the time, and while both
exist twice the memory. Here a backbone is built without values, and each variable adopts the array that was read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
from keras import ops
from keras.src.backend.common import global_state

from llama_exp import backend
from llama_exp.architecture import CONFIG_KEYS
from llama_exp.formats import writing
from llama_exp.formats.checkpoint import Checkpoint, Tensor
from llama_exp.formats.keras_hub import checkpoint as keras_hub

_PENDING = "uninitialized_variables"  # Keras' list of variables that were made in a scope without values


def build_empty(factory: Callable):
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
    """Gives every weight of a backbone from `build_empty` its value, cast to the variable's type.

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
        _adopt(variable, checkpoint.tensors[path].read(numpy_dtype(variable.dtype)))


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

    return Tensor(tuple(variable.shape), numpy_dtype(variable.dtype), f"variable {variable.path}", read)


def numpy_dtype(dtype: str) -> np.dtype:
    """NumPy's type for the name of a variable's type, bfloat16 and float8 among them."""
    return np.dtype(getattr(ml_dtypes, dtype, dtype))
