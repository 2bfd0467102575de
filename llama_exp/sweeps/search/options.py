"""The options of a search, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_exp.limits.figures import Direction
from llama_exp.limits.search import LIMITS, Pruner, Sampler, list_directions


@dataclass(frozen=True)
class Options:
    """The keys of `hydra.sweeper`, as conf/hydra/sweeper/search.yaml explains them; `directions` is a list always."""

    n_trials: int
    directions: tuple[Direction, ...]
    objectives: tuple[str, ...] | None
    sampler: Sampler
    seed: int
    n_startup_trials: int
    pruner: Pruner
    prune_after_trials: int
    prune_after_rows: int
    reduction_factor: int


def read_options(node: Mapping[str, Any]) -> Options:
    """The typed options of a node that `find_option_problems` finds nothing wrong with."""
    values = {key: node.get(key) for key in LIMITS.values}
    directions = tuple(map(Direction, list_directions(values)))
    del values["direction"]
    objectives = values["objectives"]
    values |= {"sampler": Sampler(values["sampler"]), "pruner": Pruner(values["pruner"])}
    return Options(**values | {"directions": directions, "objectives": objectives and tuple(objectives)})
