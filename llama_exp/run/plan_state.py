"""What trains, and how many float32 numbers an optimizer of ours keeps of it. Imports no framework.

adamw       two for each parameter
lion        one
sgd         one; none without momentum
adafactor   a sum over rows and one over columns of each matrix, I + O numbers for (I, O); one of a vector's each
muon        one of a hidden layer's matrix, as of A and B; two of embeddings and vectors
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llama_exp.architecture import linear_shapes, variable_shapes
from llama_exp.config.identity import to_dict
from llama_exp.config.schema import Config
from llama_exp.config.schema.training import AdafactorConfig, LionConfig, MuonConfig, OptimizerConfig, SGDConfig
from llama_exp.lora.source import ranks


def count_state_bytes(config: Config, model: Mapping[str, Any]) -> int | None:
    """Bytes of the optimizer's state; None: it is the user's own, or Keras', and not known.

    Args:
        config: of the run.
        model: its section, as plain data.

    Raises:
        InputError: as `lora.source.ranks`.
    """
    if not isinstance(config.optimizer, OptimizerConfig):
        return None
    shapes = _list_trainable_shapes(model, to_dict(config.lora))
    return 4 * sum(_count_numbers(config.optimizer, path, shape) for path, shape in shapes.items())


def count_trainable(model: Mapping[str, Any], lora: Mapping[str, Any]) -> int:
    """Parameters that train: adapters alone where there are any, and scales of norms unless they are held.

    Args:
        model: its section, as plain data.
        lora: the section `lora`, likewise.

    Raises:
        InputError: as `lora.source.ranks`.
    """
    return sum(map(math.prod, _list_trainable_shapes(model, lora).values()))


def _list_trainable_shapes(model: Mapping[str, Any], lora: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    own = ranks(lora, model)
    if not own:
        shapes = variable_shapes(model)
        return {path: shape for path, shape in shapes.items() if len(shape) > 1 or model["train_norms"]}
    linears = linear_shapes(model)
    shapes = {}
    for path, rank in own.items():
        inputs, outputs = linears[path]
        shapes |= {f"{path}/lora_a": (inputs, rank), f"{path}/lora_b": (rank, outputs)}
        if lora["use_dora"]:
            shapes[f"{path}/lora_magnitude"] = (outputs,)
    return shapes


def _count_numbers(optimizer: OptimizerConfig, path: str, shape: tuple[int, ...]) -> int:
    size, is_matrix = math.prod(shape), len(shape) == 2
    if isinstance(optimizer, SGDConfig):
        return size if optimizer.momentum else 0
    if isinstance(optimizer, LionConfig):
        return size
    if isinstance(optimizer, AdafactorConfig):
        return sum(shape) if is_matrix else size
    if isinstance(optimizer, MuonConfig):
        return size if is_matrix and "embedding" not in path else 2 * size
    return 2 * size
