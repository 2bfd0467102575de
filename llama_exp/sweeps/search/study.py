"""The trials of a search: asked for one by one, and told how they ended, in a journal in the sweep's folder.

A trial is asked for on a copy in memory and then written in one line, so that a kill leaves it whole or not at all.
The number of a trial is that of its job.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from llama_exp.errors import ConfigError, InputError, Problem
from llama_exp.files.study_file import mend_study
from llama_exp.limits.search import Axis, Pruner, Sampler, count_points
from llama_exp.sweeps.search.options import Options
from llama_exp.sweeps.search.samplers import make_sampler
from llama_exp.sweeps.search.space import find_distributions

NAME = "search"  # of the study in its journal; hyperband's brackets follow from it
_IDENTITY, _CAUSE, _STOPPED = "identity", "cause", "stopped_at"
_SHOWN = 8  # differences in a message


class Study:
    """The study in a sweep's folder, new or as an earlier invocation left it.

    Args:
        folder: the sweep's, locked for this process.
        options: of the search.
        axes: its space.

    Raises:
        ConfigError: the folder holds a search of another space or direction; what else must be the same, the sweep's
            manifest knows.
        InputError: its journal cannot be read.
        StorageError: it cannot be written.
    """

    def __init__(self, folder: Path, options: Options, axes: Sequence[Axis]):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._options, self._axes = options, list(axes)
        self._distributions = find_distributions(axes)
        self._directions = [StudyDirection[direction.value.upper()] for direction in options.directions]
        path = mend_study(folder)
        try:
            self._storage = JournalStorage(JournalFileBackend(str(path)))
            known = {study.study_name: study.user_attrs for study in self._storage.get_all_studies()}
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            action = "put back a whole copy of it, or search in another folder: hydra.sweep.dir=<folder>"
            raise InputError.about(path, "is no journal of a search", str(error), action) from error
        identity = _identify(options, axes)
        before = known.get(NAME, {}).get(_IDENTITY, identity)
        if before != identity:
            raise _refuse(path, before, identity)
        self._study = optuna.create_study(
            storage=self._storage, study_name=NAME, directions=self._directions, load_if_exists=True
        )
        self._study.set_user_attr(_IDENTITY, identity)
        self._id = self._storage.get_study_id_from_name(NAME)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials that were asked for."""
        return self._study.get_trials(deepcopy=False)

    @property
    def optuna(self) -> optuna.Study:
        """Optuna's own object."""
        return self._study

    @property
    def num_left(self) -> int:
        """How many trials are still to be asked for."""
        most = count_points(self._axes) if self._options.sampler is Sampler.grid else self._options.n_trials
        return max(min(self._options.n_trials, most) - len(self.trials), 0)

    def ask(self) -> FrozenTrial:
        """The next trial, running from now on."""
        number = len(self.trials)
        sampler = make_sampler(self._options, self._axes, number)
        draft = optuna.create_study(directions=self._directions, sampler=sampler)
        draft.add_trials(self.trials)
        params = draft.ask(self._distributions).params
        self._study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=self._distributions))
        return self.trials[number]

    def tell(self, number: int, state: TrialState, values: Sequence[float] | None = None, cause: str | None = None):
        """Ends a trial; one that has ended stays as it is.

        Args:
            number: of the trial.
            state: COMPLETE, PRUNED or FAIL.
            values: of the objectives, finite numbers, where it is complete.
            cause: why it failed, one line.
        """
        if self.trials[number].state.is_finished():
            return
        if cause is not None:
            self._storage.set_trial_user_attr(self._trial_id(number), _CAUSE, cause)
        self._study.tell(number, values, state)

    def report(self, number: int, step: int, value: float) -> bool:
        """Notes the value of a running trial at a step; False if that is known, as it is after a resume."""
        if step in self.trials[number].intermediate_values:
            return False
        self._storage.set_trial_intermediate_value(self._trial_id(number), step, value)
        return True

    def decide(self, number: int) -> bool:
        """Whether a running trial is to be stopped, by its values so far; a yes is remembered over a kill."""
        if not self._is_hopeless(self.trials[number]):
            return False
        self._storage.set_trial_user_attr(self._trial_id(number), _STOPPED, self.trials[number].last_step)
        return True

    def _is_hopeless(self, trial: FrozenTrial) -> bool:
        options, step = self._options, trial.last_step
        complete = [t for t in self.trials if t.state is TrialState.COMPLETE and t.intermediate_values]
        if step is None or options.pruner is Pruner.none or len(complete) < options.prune_after_trials:
            return False
        steps = sorted(complete[0].intermediate_values)
        # At the end of a trial there is nothing left to save.
        if len(trial.intermediate_values) < options.prune_after_rows or step >= steps[-1]:
            return False
        if math.isnan(trial.intermediate_values[step]):
            return True
        first = max(steps[min(options.prune_after_rows, len(steps)) - 1], 1)
        return _make_pruner(options, first, steps[-1]).prune(self._study, trial)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)


def find_cause(trial: FrozenTrial) -> str | None:
    """Why a trial failed."""
    return trial.user_attrs.get(_CAUSE)


def find_stopped_step(trial: FrozenTrial) -> int | None:
    """The step whose validation row decided that a trial is stopped; None: none did."""
    return trial.user_attrs.get(_STOPPED)


def _make_pruner(options: Options, first: int, last: int) -> BasePruner:
    """The pruner; `first` and `last` are the steps at which it may decide for the first time, and at which trials end.

    Those that halve count in steps: their first rung is the first step at which they may decide.
    """
    if options.pruner is Pruner.median:
        return MedianPruner(n_startup_trials=options.prune_after_trials)
    if options.pruner is Pruner.successive_halving:
        return SuccessiveHalvingPruner(min_resource=first, reduction_factor=options.reduction_factor)
    return HyperbandPruner(min_resource=first, max_resource=last, reduction_factor=options.reduction_factor)


def _identify(options: Options, axes: Sequence[Axis]) -> dict[str, Any]:
    """What must be the same for the trials of an earlier invocation to count, as plain JSON values."""
    scale = {axis.key: [axis.low, axis.high, axis.step, axis.log] for axis in axes}
    return {
        "direction": [direction.value for direction in options.directions],
        "objectives": None if options.objectives is None else list(options.objectives),
        "space": {axis.key: list(axis.values) if axis.low is None else scale[axis.key] for axis in axes},
    }


def _refuse(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> ConfigError:
    """The error that shows what differs."""
    lines = []
    for part in now:
        old, new = before[part], now[part]
        if isinstance(old, dict) and isinstance(new, dict):
            keys = sorted({*old, *new})
            lines += [f"{key}: {_show(old, key)} -> {_show(new, key)}" for key in keys if old.get(key) != new.get(key)]
        elif old != new:
            lines.append(f"{part}: {old} -> {new}")
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    what = "the folder holds another search: its trials say nothing about this one"
    action = "run the search in another folder (hydra.sweep.dir=<folder>), or take the difference back"
    return ConfigError(Problem(what, str(path), "; ".join(lines[:_SHOWN]) + more, action))


def _show(values: Mapping[str, Any], key: str) -> str:
    return str(values[key]) if key in values else "absent"
