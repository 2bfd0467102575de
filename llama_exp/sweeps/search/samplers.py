"""Samplers: one for each trial, from a seed of its own.

A sampler that lives as long as its process forgets, when it is killed, how many numbers it drew. Here trial k is
drawn by a new sampler, whose seed follows from the search's seed and k; all else it knows is in the study. Therefore
a search that was killed and goes on asks for the same trials as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from llama_exp.limits.search import Axis, Sampler, count_points
from llama_exp.sweeps.search.options import Options


def make_sampler(options: Options, axes: Sequence[Axis], number: int) -> BaseSampler:
    """The sampler that draws the trial of a number."""
    seed = int(np.random.SeedSequence([options.seed, number]).generate_state(1)[0])
    if options.sampler is Sampler.tpe:
        return TPESampler(seed=seed, n_startup_trials=options.n_startup_trials)
    if options.sampler is Sampler.gp:
        return GPSampler(seed=seed, n_startup_trials=options.n_startup_trials)
    if options.sampler is Sampler.cmaes:
        return CmaSampler([axis for axis in axes if axis.is_numeric], seed, options.n_startup_trials)
    if options.sampler is Sampler.grid:
        return GridSampler(axes, options.seed, number)
    return RandomSampler(seed=seed)


class GridSampler(BaseSampler):
    """The point of a grid that stands at a trial's place in an order shuffled by `seed`.

    Optuna's own ends the study by an exception once the grid is used up, and asks again for points of failed trials.
    """

    def __init__(self, axes: Sequence[Axis], seed: int, number: int):
        from llama_exp.sweeps.search.space import find_distributions

        place = int(np.random.default_rng(seed).permutation(count_points(axes))[number])
        sizes = tuple(len(axis.values) for axis in axes)
        positions = dict(zip((axis.key for axis in axes), np.unravel_index(place, sizes), strict=True))
        distributions = find_distributions(axes)
        self._point = {axis.key: _value_at(axis, distributions[axis.key], int(positions[axis.key])) for axis in axes}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is drawn together."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is drawn together."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The point's value."""
        return self._point[param_name]


def _value_at(axis: Axis, distribution: BaseDistribution, position: int) -> Any:
    """The value of an axis at a position among its values."""
    if axis.low is None:
        return axis.values[position]
    internal = distribution.to_internal_repr(axis.low + position * (axis.step or 1))
    return distribution.to_external_repr(internal)


class CmaSampler(BaseSampler):
    """CMA-ES (Hansen 2016) by the package `cmaes`, whose state is computed anew from the finished trials.

    Optuna's own keeps the state between trials as a pickle in the journal, and whoever opens the journal runs what is
    in it. Here the numbers of the finished trials are told again, in their order, a population at a time. Choices are
    drawn at random, and so is everything before `n_startup_trials` trials are finished.
    """

    def __init__(self, axes: Sequence[Axis], seed: int, n_startup_trials: int):
        self._axes = [axis for axis in axes if axis.low != axis.high]
        self._seed, self._n_startup_trials = seed, n_startup_trials
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The numeric axes, whose distributions the first trials show."""
        earlier = study.get_trials(deepcopy=False)
        known = {key: value for one in earlier for key, value in one.distributions.items()}
        return {axis.key: known[axis.key] for axis in self._axes if axis.key in known}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A point of the normal distribution that the finished trials lead to."""
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not search_space or len(finished) < self._n_startup_trials:
            return {}
        import cmaes

        size = len(self._axes)
        bounds = np.array([[0.0, 1.0]] * size)
        # The middle of the space, and a sixth of it: nearly all points within it, as Optuna begins.
        state = cmaes.CMA(np.full(size, 0.5), 1 / 6, bounds, n_max_resampling=10 * size, seed=self._seed)
        sign = -1.0 if study.direction is StudyDirection.MAXIMIZE else 1.0
        told = [(self._to_unit(t.params), sign * float(t.values[0])) for t in finished]
        for start in range(0, len(told) - state.population_size + 1, state.population_size):
            state.tell(told[start : start + state.population_size])
        unit = state.ask()
        return {axis.key: _from_unit(axis, number) for axis, number in zip(self._axes, unit, strict=True)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """At random."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _to_unit(self, point: Mapping[str, Any]) -> np.ndarray:
        return np.array([_to_unit(axis, point[axis.key]) for axis in self._axes])


def _ends(axis: Axis) -> tuple[float, float]:
    """Where an axis begins and ends on its scale; a discrete value owns the same length as each of its neighbours."""
    assert axis.low is not None and axis.high is not None
    margin = (axis.step or 0) / 2
    low, high = axis.low - margin, axis.high + margin
    return (math.log(low), math.log(high)) if axis.log else (low, high)


def _to_unit(axis: Axis, value: float) -> float:
    """0 to 1 for a value of an axis."""
    low, high = _ends(axis)
    return ((math.log(value) if axis.log else value) - low) / (high - low)


def _from_unit(axis: Axis, unit: float) -> float:
    """The value of an axis at 0 to 1; integers as integers."""
    low, high = _ends(axis)
    assert axis.low is not None and axis.high is not None
    number = low + float(unit) * (high - low)
    value = math.exp(number) if axis.log else number
    if axis.step is None:
        return min(max(value, axis.low), axis.high)
    position = round((min(max(value, axis.low), axis.high) - axis.low) / axis.step)
    return axis.low + position * axis.step
