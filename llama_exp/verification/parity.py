"""A built model against a NumPy forward pass from the same files, layer by layer.

The difference of a layer is the root mean square of (model - reference) divided by that of the reference, over all
positions. The first layer above the tolerance is named: what comes after it inherits its error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_exp import reference


@dataclass(frozen=True)
class Difference:
    """How far a layer's output is from the reference.

    Attributes:
        layer: its path, or `logits`.
        largest: the largest absolute difference.
        relative: root mean square of the difference over that of the reference; NaN where the model's is not finite.
    """

    layer: str
    largest: float
    relative: float


def compare(
    model,
    checkpoint,
    token_ids_BS: np.ndarray,
    dtype: np.dtype,
    watch: Callable[[Iterable, int], Iterable] = lambda steps, total: steps,
) -> list[Difference]:
    """The difference of every layer, in order, and of the logits.

    Args:
        model: a `LlamaCausalLM`.
        checkpoint: open, with floating-point weights: what the model should compute.
        token_ids_BS: integers.
        dtype: of the model's variables.
        watch: goes through the steps and shows how far they are: (steps, number of them) -> steps.
    """
    from llama_exp.models.layer_outputs import layer_outputs

    found = layer_outputs(model, token_ids_BS)
    expected: Any = reference.layer_outputs(checkpoint, token_ids_BS, dtype)
    return [_difference(layer, found[layer], output) for layer, output in watch(expected, len(found))]


def first_deviation(differences: list[Difference], tolerance: float) -> Difference | None:
    """The first layer beyond the tolerance; None: there is none."""
    return next((one for one in differences if not one.relative <= tolerance), None)  # NaN is beyond, too


def _difference(layer: str, found: np.ndarray, expected: np.ndarray) -> Difference:
    error = found.astype(np.float64) - expected
    size = math.sqrt(float(np.mean(np.square(expected))))
    relative = math.sqrt(float(np.mean(np.square(error)))) / size if size else float(np.abs(error).max() > 0)
    return Difference(layer, float(np.abs(error).max()), relative)
