"""How first values and learning rates follow the width of a model: the standard way, and muP (Yang et al. 2022).

Under muP the best learning rate of a narrow model is that of a wide one. With m = hidden_dim / base_hidden_dim and
h = base_head_dim / head_dim, each a number of times what `standard` has:

    kind of variable              first values   rate, Adam and Lion   rate, SGD
    token embedding                    1                  1                m
    scale of a norm                    1                  1                m
    query kernel                 sqrt(h) / sqrt(m)   sqrt(h) / m           h
    other kernels of the blocks    1 / sqrt(m)           1 / m             1
    output matrix, untied            1 / m               1 / m            1 / m
    scale of the last norm, tied     1 / m               1 / m            1 / m

First values: the standard deviation of a matrix, the value itself of a scale. At the base width all are 1.

Source: Yang et al. 2022, arXiv:2203.03466, tables 3 and 8 and definition 4.1. There attention scores are divided by
the size of a head instead of its root, and logits are multiplied by 1 / m. Here both factors, sqrt(h) and 1 / m, are
part of what they would multiply, so that a muP model computes what every Llama computes and is stored as one. This is
the same model and the same training (ibid., lemma J.1): a factor c in front of a variable is a variable of c times the
first values and, under Adam, c times the rate, under SGD c^2 times. What the equality leaves out: docs/adr/0038.

Matrices from a finite size to a width are "input" there (embedding), from a width to a finite size "output"; scales of
norms are vectors. Lion's steps have the size of its rate, as Adam's have; its factors are Adam's.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_exp.architecture.llama import EMBEDDINGS, FINAL_NORM, INITIALIZER_RANGES, PARAMETRIZATION, REVERSE_EMBEDDINGS

KEYS = ("hidden_dim", "num_query_heads", "tie_word_embeddings", *INITIALIZER_RANGES, *PARAMETRIZATION)


class Parametrization(enum.Enum):
    """How first values and learning rates follow the width."""

    standard = "standard"
    mup = "mup"


class MupRates(enum.Enum):
    """By which column of the table learning rates change."""

    adam = "adam"
    sgd = "sgd"


# What there is a column for.
MUP_OPTIMIZERS = {
    "llama_exp.optimizer.adamw": MupRates.adam,
    "llama_exp.optimizer.lion": MupRates.adam,
    "llama_exp.optimizer.sgd": MupRates.sgd,
}


@dataclass(frozen=True)
class Factors:
    """What a kind of variable has of `standard`: first values, and learning rates by kind of optimizer."""

    first_values: float
    adam: float
    sgd: float


def read_keys(backbone) -> dict[str, Any]:
    """The constructor arguments of a `LlamaBackbone` that the functions below read."""
    return {key: getattr(backbone, key) for key in KEYS}


def find_factors(config: Mapping[str, Any], path: str) -> Factors:
    """The row of the table for the variable `path` of a backbone with the constructor arguments `config`."""
    if Parametrization(config["parametrization"]) is Parametrization.standard:
        return Factors(1.0, 1.0, 1.0)
    m = config["hidden_dim"] / config["base_hidden_dim"]
    if path == REVERSE_EMBEDDINGS or (path == FINAL_NORM and config["tie_word_embeddings"]):
        return Factors(1 / m, 1 / m, 1 / m)
    if path == EMBEDDINGS or path.endswith("/scale"):
        return Factors(1.0, 1.0, m)
    h = _head_ratio(config) if path.endswith("/query/kernel") else 1.0
    return Factors(math.sqrt(h) / math.sqrt(m), math.sqrt(h) / m, h)


def first_value(config: Mapping[str, Any], path: str) -> float:
    """What the variable `path` begins with: a standard deviation, of a norm's scale the value."""
    config = {**INITIALIZER_RANGES, **PARAMETRIZATION, **config}  # a run of before these keys
    factor = find_factors(config, path).first_values
    if path.endswith("/scale"):
        return factor
    is_table = path in (EMBEDDINGS, REVERSE_EMBEDDINGS)
    return config["embedding_initializer_range" if is_table else "initializer_range"] * factor


def rate_factors(backbone, rates: MupRates | None = MupRates.adam) -> dict[str, float]:
    """What the learning rate of each trainable variable is multiplied by, by path; 1 where a path is missing.

    Adapters have no row in the table: theirs is the rate as it is stated.

    Args:
        backbone: a `LlamaBackbone`, or a class of somebody else's, which may know of no parametrization.
        rates: the column of the table, which the optimizer decides; None: there is none for it.

    Raises:
        ValueError: muP without a column.
    """
    if Parametrization(getattr(backbone, "parametrization", "standard")) is Parametrization.standard:
        return {}
    if rates is None:
        known = ", ".join(name.rpartition(".")[2] for name in MUP_OPTIMIZERS)
        raise ValueError(f"parametrization='mup' knows the learning rates of {known} only. Use one, or 'standard'.")
    config = read_keys(backbone)
    paths = [variable.path for variable in backbone.trainable_variables if "/adapter/" not in variable.path]
    factors = {path: getattr(find_factors(config, path), rates.value) for path in paths}
    return {path: factor for path, factor in factors.items() if factor != 1.0}


def _head_ratio(config: Mapping[str, Any]) -> float:
    """h: 1 where wider models have more heads, and not larger ones."""
    base = config["base_head_dim"]
    return 1.0 if base is None else base / (config["hidden_dim"] // config["num_query_heads"])
