"""A LoRA adapter on disk, whatever wrote it: a folder of PEFT's, or a `.lora.h5` file of KerasHub's.

    peft, keras_lora --open--> Adapter --load--> LlamaBackbone with adapters
                                  `----merge---> kernels + scale * A B, with DoRA's magnitudes

As with `Checkpoint`, names, shapes and types are known to fit the model before any tensor is read. Imports no
framework.

Shape letters: I inputs, O outputs of a linear layer, R rank of its adapter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llama_exp.architecture import linear_shapes
from llama_exp.errors import InputError
from llama_exp.files.json_file import NAMES_SHOWN

SMALLEST_SQUARES = 1e-30  # keeps the norm of a column of zeros from dividing by it; its product is zero anyway
ACTION = "use a LoRA adapter that was made for this model, as this package, PEFT or KerasHub writes it"


def compute_scale(rank: int, alpha: float, use_rslora: bool) -> float:
    """What multiplies A B: alpha / rank, or alpha / sqrt(rank) for rsLoRA (Kalajdzievski 2023, arXiv:2312.03732)."""
    return alpha / math.sqrt(rank) if use_rslora else alpha / rank


class Matrices(NamedTuple):
    """What trains of one adapted layer, float32: A (I, R), B (R, O), and with DoRA the magnitude (O,)."""

    a_IR: np.ndarray
    b_RO: np.ndarray
    magnitude_O: np.ndarray | None = None


def merge_kernel(kernel_IO: np.ndarray, matrices: Matrices, scale: float) -> np.ndarray:
    """W + s A B, with DoRA magnitude / ||W + s A B|| times that: a new array (I, O) float32.

    Args:
        kernel_IO: W, (I, O) float32.
        matrices: of the layer.
        scale: s.
    """
    sum_IO = np.matmul(matrices.a_IR, matrices.b_RO, dtype=np.float32)
    sum_IO *= np.float32(scale)
    sum_IO += kernel_IO
    if matrices.magnitude_O is not None:
        squares_O = np.einsum("io,io->o", sum_IO, sum_IO, dtype=np.float64)
        norm_O = np.sqrt(np.maximum(squares_O, SMALLEST_SQUARES))
        sum_IO *= (matrices.magnitude_O / norm_O).astype(np.float32)
    return sum_IO


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter on disk that fits a model; open as long as its context.

    Attributes:
        path: the folder or the file.
        format: peft or keras_hub.
        rank: as the file states it for all layers; `ranks` may differ.
        alpha: numerator of the scale, likewise.
        dropout: probability that it was trained with; 0 where the file does not say.
        use_rslora: the scale is alpha / sqrt(R) instead of alpha / R.
        use_dora: every layer has a magnitude (Liu et al. 2024, arXiv:2402.09353).
        ranks: R of every adapted linear layer by path, in the model's order.
        alphas: alpha by the same paths.
        base: what identifies the weights it was trained on (`digest`, `variable_dtype`); None: the file does not say.
        read: called with a path of `ranks`, returns its `Matrices`. Raises InputError if the file is damaged or a value
            is not finite.
    """

    path: Path
    format: str
    rank: int
    alpha: float
    dropout: float
    use_rslora: bool
    use_dora: bool
    ranks: dict[str, int]
    alphas: dict[str, float]
    base: dict[str, str] | None
    read: Callable[[str], Matrices]

    def scale_of(self, path: str) -> float:
        """What multiplies A B of one linear layer."""
        return compute_scale(self.ranks[path], self.alphas[path], self.use_rslora)


def check_fit(path: Path, found: Mapping[str, Mapping[str, tuple[int, ...]]], expected: Mapping) -> None:
    """Fails unless every adapted layer has exactly the matrices of the shapes it needs; names up to five that differ.

    Args:
        path: of the adapter.
        found: name of a tensor in the file (A, B, magnitude) -> shape, by linear layer.
        expected: the same as the model needs it.

    Raises:
        InputError: a matrix is missing, too many or has another shape.
    """
    unfit = []
    for layer, shapes in found.items():
        unfit += [f"{layer}: {name}, of which there should be none" for name in shapes if name not in expected[layer]]
        for name, shape in expected[layer].items():
            if name not in shapes:
                unfit.append(f"{layer}: no {name}")
            elif tuple(shapes[name]) != tuple(shape):
                swapped = ", the shape of its counterpart" if shapes[name] in expected[layer].values() else ""
                unfit.append(f"{layer}: {name} {tuple(shapes[name])} instead of {tuple(shape)}{swapped}")
    if unfit:
        raise InputError.about(
            path, "the adapter's matrices do not fit the model or its own rank", shorten_names(unfit), ACTION
        )


def require_layers(path: Path, names: Iterable[str], config: Mapping) -> None:
    """Fails if a path of `names` is no linear layer of the model of `config`."""
    shapes = linear_shapes(config)
    if unknown := [name for name in names if name not in shapes]:
        action = f"load it into the architecture it was made for; this one has {config['num_layers']} layers"
        raise InputError.about(path, "the adapter names layers that the model lacks", shorten_names(unknown), action)


def shorten_names(names: list[str]) -> str:
    """The first few names, for a message."""
    more = f"; and {len(names) - NAMES_SHOWN} more" if names[NAMES_SHOWN:] else ""
    return "; ".join(names[:NAMES_SHOWN]) + more
