"""What training changed, as numbers: of each matrix, of each kind of matrix, of all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_exp.inspection.spectrum import count_rank, find_stable_rank

_ALL_UP_TO = 16  # of the largest values each is kept, behind them four of every octave
_KEPT = ("full", "lora", "dora")


@dataclass(frozen=True)
class MatrixUpdate:
    """The change of one matrix.

    path: of the layer, `transformer_layer_0/self_attention/query`. shape: of the matrix. norm: Frobenius norm of its
    change. base_norm: of the matrix before; None: the base was not read. rank_90, stable_rank: see `spectrum`. values:
    the largest singular values, and behind the 16th four of every octave. places: where each of them stands, from 1.
    """

    path: str
    shape: tuple[int, int]
    norm: float
    base_norm: float | None
    rank_90: int
    stable_rank: float
    values: tuple[float, ...]
    places: tuple[int, ...]

    @property
    def kind(self) -> str:
        """query, key, value, attention_output, feedforward_..., embeddings, reverse_embeddings."""
        return self.path.rpartition("/")[2]

    @property
    def block(self) -> int | None:
        """The number of the transformer layer that it belongs to; None: to none."""
        name = self.path.partition("/")[0]
        return int(name.rpartition("_")[2]) if name.startswith("transformer_layer_") else None

    @property
    def relative_norm(self) -> float | None:
        """Norm of the change over that of the matrix before."""
        return self.norm / self.base_norm if self.base_norm else None

    @property
    def full_rank(self) -> int:
        """The rank that no change of this shape can exceed."""
        return min(self.shape)


@dataclass(frozen=True)
class Update:
    """The change of all matrices of a run.

    method: full, lora or dora. step: of the weights after. start: what the run started from, for a person.
    matrices: those that train, in the model's order; norms, which are vectors, are none.
    """

    method: str
    step: int | None
    start: str
    matrices: tuple[MatrixUpdate, ...]

    def of_kind(self, kind: str) -> list[MatrixUpdate]:
        """Those of one kind."""
        return [matrix for matrix in self.matrices if matrix.kind == kind]

    @property
    def kinds(self) -> list[str]:
        """Each kind once, in the model's order."""
        return list(dict.fromkeys(matrix.kind for matrix in self.matrices))

    @property
    def linear(self) -> list[MatrixUpdate]:
        """The linear layers of the blocks: what adapters can be put on, and what published ranks speak of."""
        return [matrix for matrix in self.matrices if matrix.block is not None]


def make_matrix_update(path: str, shape: Iterable[int], values: np.ndarray, base_norm: float | None) -> MatrixUpdate:
    """What the singular values of a change say of it.

    Args:
        path: of the layer.
        shape: of the matrix.
        values: all singular values that are not zero by construction, largest first.
        base_norm: Frobenius norm of the matrix before; None: not known.
    """
    rows, columns = shape
    places = keep_places(len(values))
    return MatrixUpdate(
        path,
        (rows, columns),
        float(np.sqrt(np.square(values).sum())),
        base_norm,
        count_rank(values),
        find_stable_rank(values),
        tuple(float(values[place - 1]) for place in places),
        tuple(places),
    )


def keep_places(count: int) -> list[int]:
    """Which of `count` singular values a record keeps, by their places from 1: few enough for a model of any size."""
    later = [round(_ALL_UP_TO * 2 ** (step / 4)) for step in range(1, 4 * 32)]
    return [place for place in [*range(1, _ALL_UP_TO + 1), *later] if place < count] + ([count] if count else [])


def mean(values: Iterable[float]) -> float:
    """Their mean; NaN of none."""
    found = list(values)
    return math.fsum(found) / len(found) if found else math.nan


def to_data(update: Update) -> dict[str, Any]:
    """As JSON, with means per kind and over all linear layers for readers without this package."""
    return {
        "method": update.method,
        "step": update.step,
        "start": update.start,
        "mean_rank_90": _mean_or_none(matrix.rank_90 for matrix in update.linear),
        "kinds": {
            kind: {
                "matrices": len(update.of_kind(kind)),
                "mean_rank_90": mean(matrix.rank_90 for matrix in update.of_kind(kind)),
                "mean_stable_rank": mean(matrix.stable_rank for matrix in update.of_kind(kind)),
                "norm": math.sqrt(math.fsum(matrix.norm**2 for matrix in update.of_kind(kind))),
            }
            for kind in update.kinds
        },
        "matrices": {
            matrix.path: {
                "shape": list(matrix.shape),
                "norm": matrix.norm,
                "base_norm": matrix.base_norm,
                "relative_norm": matrix.relative_norm,
                "rank_90": matrix.rank_90,
                "stable_rank": matrix.stable_rank,
                "singular_values": list(matrix.values),
                "places": list(matrix.places),
            }
            for matrix in update.matrices
        },
    }


def from_data(data: Mapping[str, Any]) -> Update:
    """What `to_data` wrote.

    Raises:
        ValueError: it is of another form.
    """
    try:
        matrices = tuple(_matrix(path, entry) for path, entry in data["matrices"].items())
        update = Update(data["method"], data["step"], data["start"], matrices)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"no record of an update: {error!r}") from error
    if update.method not in _KEPT:
        raise ValueError(f"no record of an update: method {update.method!r}")
    return update


def _matrix(path: str, entry: Mapping[str, Any]) -> MatrixUpdate:
    rows, columns = entry["shape"]
    base_norm = entry["base_norm"]
    return MatrixUpdate(
        path,
        (int(rows), int(columns)),
        float(entry["norm"]),
        None if base_norm is None else float(base_norm),
        int(entry["rank_90"]),
        float(entry["stable_rank"]),
        tuple(map(float, entry["singular_values"])),
        tuple(map(int, entry["places"])),
    )


def _mean_or_none(values: Iterable[float]) -> float | None:
    found = mean(values)
    return None if math.isnan(found) else found
