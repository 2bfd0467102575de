"""What a search (`hydra/sweeper=search`) accepts: its keys, and its space beside them.

A search needs the extra `search`; a Gaussian process needs two large packages more, which everybody else is spared.
"""

from __future__ import annotations

import enum
import importlib.metadata
import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_exp.errors import Problem
from llama_exp.limits import COUNT, Limit, Limits, is_whole, name_choices
from llama_exp.limits.figures import (
    AT_THE_END,
    OF_VALIDATION,
    Direction,
    find_unknown_figure,
    is_known_in_training,
    split_figure,
)

SECTION = "hydra.sweeper"
INSTALL = "pip install 'llama_exp[search]'"
LARGEST_GRID = 1_000_000  # points; their order is shuffled in memory
_OPTUNA = 5  # the major version whose samplers and journal we know


class Sampler(enum.Enum):
    """How the next point of the space is chosen."""

    tpe = "tpe"  # where good points lie denser than bad ones (Bergstra et al. 2011); any space
    gp = "gp"  # by a Gaussian process; for few, costly trials
    cmaes = "cmaes"  # by a normal distribution that moves and turns (Hansen 2016); numbers only
    random = "random"
    grid = "grid"  # every point once, in a shuffled order


class Pruner(enum.Enum):
    """Which trials are stopped early, by their validation rows so far."""

    none = "none"
    median = "median"  # those worse than half of the finished trials at the same step
    successive_halving = "successive_halving"  # all but the best of `reduction_factor` at each of ever later steps
    hyperband = "hyperband"  # the same, several times over, beginning at different steps


@dataclass(frozen=True)
class Axis:
    """One direction of a search space.

    key: as an override names it. values: as overrides spell them, in order; empty where there are endless many.
    low, high, step: the numbers that are possible, both ends included; None where the values are not numbers on a
    scale. step None: any number between them. log: whether numbers count by their logarithm.
    """

    key: str
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False

    @property
    def is_numeric(self) -> bool:
        """Whether the values lie on a scale."""
        return self.low is not None


def _is_direction(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return isinstance(names, Sequence) and bool(names) and all(name in name_choices(Direction) for name in names)


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(n, str) and n for n in value)


def _one_of(choices: type[enum.Enum]) -> Limit:
    names = name_choices(choices)
    return Limit(lambda value: value in names, f"one of {', '.join(names)}")


def _fits_together(options: Mapping[str, Any]) -> Iterator[Problem]:
    """What several objectives forbid, and how many names they need."""
    directions, objectives = list_directions(options), options["objectives"]
    count = f"direction={','.join(directions)}"
    if objectives is not None and len(objectives) != len(directions):
        found = f"objectives={','.join(objectives)} with {count}"
        yield Problem("every objective has a direction", f"{SECTION}.objectives", found, "give as many of both")
    if len(directions) > 1 and options["pruner"] != Pruner.none.value:
        what = "stops a trial by one number, and there are several objectives"
        yield Problem(what, f"{SECTION}.pruner", f"{options['pruner']} with {count}", "set hydra.sweeper.pruner=none")
    if len(directions) > 1 and options["sampler"] == Sampler.cmaes.value:
        action = "set hydra.sweeper.sampler=tpe, or give one direction"
        yield Problem("follows one objective", f"{SECTION}.sampler", f"cmaes with {count}", action)


LIMITS = Limits(
    SECTION,
    {
        "n_trials": COUNT,
        "direction": Limit(_is_direction, "minimize, maximize, or a list of them"),
        "objectives": Limit(lambda value: value is None or _is_list_of_names(value), "names in a list, or null"),
        "sampler": _one_of(Sampler),
        "seed": Limit(lambda value: is_whole(value, 0), "an integer of at least 0"),
        "n_startup_trials": COUNT,
        "pruner": _one_of(Pruner),
        "prune_after_trials": COUNT,
        "prune_after_rows": COUNT,
        "reduction_factor": Limit(lambda value: is_whole(value, 2), "an integer of at least 2"),
    },
    (_fits_together,),
)


def list_directions(options: Mapping[str, Any]) -> list[str]:
    """The direction of each objective."""
    direction = options["direction"]
    return [direction] if isinstance(direction, str) else list(direction)


def find_option_problems(options: Mapping[str, Any], axes: Sequence[Axis]) -> Iterator[Problem]:
    """The problems of the keys, of the space with the sampler, and of what is not installed."""
    problems = list(LIMITS.value_problems(options))
    yield from problems
    if not problems:
        yield from LIMITS.pair_problems(options)
    if options["sampler"] in name_choices(Sampler):
        sampler = Sampler(options["sampler"])
        yield from _sampler_problems(sampler, axes)
        yield from _find_absent(sampler)


def count_points(axes: Sequence[Axis]) -> int:
    """How many points a grid has."""
    return math.prod(len(axis.values) for axis in axes)


def _sampler_problems(sampler: Sampler, axes: Sequence[Axis]) -> Iterator[Problem]:
    """Whether the sampler can do something with the space."""
    if sampler is Sampler.cmaes and axes and not any(axis.is_numeric for axis in axes):
        found = f"cmaes with {', '.join(axis.key for axis in axes)}"
        action = "give a key an interval(low,high) or a range(start,stop,step), or set hydra.sweeper.sampler=tpe"
        yield Problem("needs numbers, and the space has choices only", f"{SECTION}.sampler", found, action)
    if sampler is not Sampler.grid:
        return
    endless = [axis for axis in axes if not axis.values]
    for axis in endless:
        action = "give a list of values or range(start,stop,step), or set hydra.sweeper.sampler=tpe"
        yield Problem("a grid needs single values, not an interval", axis.key, f"{axis.low} to {axis.high}", action)
    if not endless and (count := count_points(axes)) > LARGEST_GRID:
        action = f"give fewer values (at most {LARGEST_GRID} points), or set hydra.sweeper.sampler=random"
        yield Problem("has too many points", f"{SECTION}.sampler", f"grid of {count}", action)


def _find_absent(sampler: Sampler) -> Iterator[Problem]:
    """Packages that the search needs and that are not installed."""
    if importlib.util.find_spec("optuna") is None:
        yield Problem("needs the package optuna", "hydra/sweeper", "search, and it is not installed", INSTALL)
    elif int((version := importlib.metadata.version("optuna")).partition(".")[0]) != _OPTUNA:
        yield Problem(f"needs optuna {_OPTUNA}", "hydra/sweeper", f"search with optuna {version}", INSTALL)
    needed = {Sampler.cmaes: ("cmaes",), Sampler.gp: ("torch", "scipy")}.get(sampler, ())
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    if absent:
        action = INSTALL if sampler is Sampler.cmaes else f"pip install {' '.join(absent)}"
        found = f"{sampler.value}, and not installed: {', '.join(absent)}"
        yield Problem("needs packages", f"{SECTION}.sampler", found, f"{action}, or set hydra.sweeper.sampler=tpe")


def find_objective_problems(options: Mapping[str, Any], objective_metric: str) -> Iterator[Problem]:
    """Where the sweeper and the figures that it compares do not fit together.

    Args:
        options: the sweeper's keys, sound by themselves.
        objective_metric: the figure that each run returns.
    """
    directions, objectives = list_directions(options), options["objectives"]
    if objectives is None and len(directions) > 1:
        action = "name them in hydra.sweeper.objectives=[validation.loss,...], or give one direction"
        found = f"direction={','.join(directions)}"
        yield Problem("a run returns one figure", f"{SECTION}.direction", found, action)
        return
    where = "objective_metric" if objectives is None else f"{SECTION}.objectives"
    for figure, direction in zip(objectives or [objective_metric], directions, strict=True):
        path, own = split_figure(figure)
        if objectives is not None:
            yield from find_unknown_figure(figure, where, (*OF_VALIDATION, *AT_THE_END), None)
        if own is not None and own.value != direction:
            found, action = f"{direction} with {where}={figure}", f"set {SECTION}.direction={own.value}"
            yield Problem("is the wrong way for the figure", f"{SECTION}.direction", found, action)
        if options["pruner"] != Pruner.none.value and not is_known_in_training(path):
            action = f"set {SECTION}.pruner=none, or compare the runs by {', '.join(OF_VALIDATION)}"
            what = "stops a trial by a figure that only the end of a run knows"
            yield Problem(what, f"{SECTION}.pruner", f"{options['pruner']} with {where}={figure}", action)
