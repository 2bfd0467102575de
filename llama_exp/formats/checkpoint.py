"""What every format is read into and written from: an architecture, and tensors that are read one by one.

    keras_hub, hugging_face, gguf --open--> Checkpoint --fill--> LlamaBackbone
                                                 `-----write--> keras_hub, hugging_face

A tensor carries this project's name, shape and orientation, whatever the file has; nothing is read before it is
asked for, so that a model of any size can be moved with the memory of its largest tensor. Imports no framework.

Shape letters: I inputs, O outputs of a linear layer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from llama_exp.architecture import (
    EMBEDDINGS,
    REVERSE_EMBEDDINGS,
    SIZES,
    Quantization,
    count_parameters,
)
from llama_exp.errors import InputError, Problem
from llama_exp.limits.model import LIMITS as MODEL_LIMITS

logger = logging.getLogger(__name__)

SCALING = "rope_position_scaling_factor"
SHAPE_KEYS = (*SIZES, "tie_word_embeddings")
# Several times those of any published Llama. A file of a few bytes must not be able to ask for a machine's memory.
MAX_SIZES = {
    "vocabulary_size": 1 << 24,
    "num_layers": 1 << 11,
    "num_query_heads": 1 << 12,
    "hidden_dim": 1 << 18,
    "intermediate_dim": 1 << 20,
    "num_key_value_heads": 1 << 12,
}
MAX_PARAMETERS = 10**13
RANDOM = "random"  # format of weights that nothing was trained into


@dataclass(frozen=True)
class Tensor:
    """One variable of a model, in a file or elsewhere.

    Attributes:
        shape: as the variable has it: kernels (I, O), embeddings (V, D), reverse embeddings (D, V), norms (D,).
        dtype: of the values as stored (of the decoded values, for blocks of GGUF).
        origin: file and name, for messages.
        read: called with the NumPy dtype wanted, or None for `dtype`; returns a new C-contiguous array of `shape`.
            Raises InputError if the file is damaged, or a floating-point value is not finite (also after the cast).
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    origin: str
    read: Callable[[np.dtype | None], np.ndarray]


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk, checked against its own configuration; open as long as its context.

    Attributes:
        path: the folder or the file.
        format: keras_hub, hugging_face or gguf.
        config: every constructor argument of `LlamaBackbone` in `architecture.CONFIG_KEYS`.
        tensors: exactly one for every variable of the model of `config` and `quantization`, by path.
        quantization: None for floating-point weights.
        doubtful: keys of `config` that this format is known to state wrongly or not at all.
        context_length: tokens that the model is meant for; it changes no computation. None: the files do not say.
    """

    path: Path
    format: str
    config: dict
    tensors: dict[str, Tensor]
    quantization: Quantization | None = None
    doubtful: frozenset[str] = field(default_factory=frozenset)
    context_length: int | None = None


def require_agreement(checkpoint: Checkpoint, stated: Mapping, action: str = "") -> None:
    """Fails if the caller states another architecture than the checkpoint has, with every field that differs.

    `dropout` is the caller's own. A field that the format is known to get wrong (`doubtful`) only warns: the caller's
    value holds. So does the linear scaling of positions, with which a model is taught longer texts.

    Args:
        checkpoint: an open checkpoint.
        stated: constructor arguments that the caller gives, newer names.
        action: what to do about it; empty: to state the checkpoint's values.

    Raises:
        InputError: a field differs.
    """
    config, differing = checkpoint.config, []
    for key, value in stated.items():
        if key == "dropout" or key not in config or config[key] == value:
            continue
        if key == SCALING or (key in checkpoint.doubtful and key not in SHAPE_KEYS):
            logger.warning("model.%s=%s holds; the preset in %s has %s", key, value, checkpoint.path, config[key])
        else:
            differing.append(key)
    if differing:
        found = ", ".join(f"{key}={stated[key]} (preset: {config[key]})" for key in differing)
        keys = " ".join(f"model.{key}={'null' if config[key] is None else config[key]}" for key in differing)
        what = f"the preset in {checkpoint.path} has another architecture"
        raise InputError(Problem(what, "model", found, action or f"set {keys}, or preset=none"))


def require_possible(config: Mapping, where: str) -> None:
    """Fails if no model has such sizes, before anything of that size is made.

    Args:
        config: every constructor argument, of the right types.
        where: file that the sizes come from, for messages.

    Raises:
        InputError: too large, or a combination that the backbone refuses.
    """
    action = "choose another model, or download this one again"
    large = [f"{key}={config[key]}, limit {limit}" for key, limit in MAX_SIZES.items() if config[key] > limit]
    if large:
        raise InputError(Problem("no Llama is that large", where, "; ".join(large), action))
    try:
        MODEL_LIMITS.require(**config)
    except ValueError as error:
        raise InputError(Problem("the architecture is impossible", where, str(error), action)) from error
    if (count := count_parameters(config)) > MAX_PARAMETERS:
        raise InputError(
            Problem("no Llama is that large", where, f"{count} parameters, limit {MAX_PARAMETERS}", action)
        )


def tie(checkpoint: Checkpoint) -> Checkpoint:
    """The same model with `tie_word_embeddings`: the output matrix is dropped if it is the embedding table.

    Some writers store a tied matrix twice.

    Raises:
        InputError: the two differ in a single value.
    """
    tensors = dict(checkpoint.tensors)
    output, table = tensors.pop(REVERSE_EMBEDDINGS, None), tensors[EMBEDDINGS]
    if output is not None and not np.array_equal(output.read(None), table.read(None).T):
        what = "the output matrix is not the embedding table, so the embeddings cannot be tied"
        action = "set tie_word_embeddings to false, or choose another model"
        raise InputError(Problem(what, output.origin, "tie_word_embeddings=true", action))
    return replace(checkpoint, config=checkpoint.config | {"tie_word_embeddings": True}, tensors=tensors)


def match_architecture(checkpoint: Checkpoint, stated: Mapping, action: str = "") -> Checkpoint:
    """The checkpoint as a caller wants it: tied if `stated` says so and the values allow it, the same otherwise.

    Args: as `require_agreement` has them.

    Raises:
        InputError: as `require_agreement` and `tie`.
    """
    if stated.get("tie_word_embeddings") and not checkpoint.config["tie_word_embeddings"]:
        others = {key: value for key, value in stated.items() if key != "tie_word_embeddings"}
        require_agreement(checkpoint, others, action)
        return tie(checkpoint)
    require_agreement(checkpoint, stated, action)
    return checkpoint
