"""The jobs of trials, and what an outcome of a job says about its trial."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from llama_exp.errors import InputError
from llama_exp.files.json_file import MAX_RECORD_BYTES, read_json
from llama_exp.limits.figures import find_number, split_figure
from llama_exp.limits.search import Axis
from llama_exp.sweeps.jobs import Job, Outcome, State
from llama_exp.sweeps.search.options import Options
from llama_exp.sweeps.search.space import write_overrides

SUMMARY = "summary.json"
Freeze = Callable[[Sequence[str], int], Job]  # overrides and number -> the job


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a trial is told: its state, the values of the objectives if it is complete, the cause if it failed."""

    state: TrialState
    values: tuple[float, ...] | None = None
    cause: str | None = None


def make_job(trial: FrozenTrial, axes: Sequence[Axis], constants: Sequence[str], freeze: Freeze) -> Job:
    """The job of a trial: the same number, and the trial's point as overrides behind those of all jobs."""
    own = write_overrides(axes, trial.params)
    return dataclasses.replace(freeze([*constants, *own], trial.number), overrides=own)


def judge(outcome: Outcome, folder: Path, options: Options) -> Verdict | None:
    """What an attempt's end means for its trial; None: the trial goes on later.

    Args:
        outcome: of the job.
        folder: the job's.
        options: of the search.
    """
    if outcome.state is State.pruned:
        return Verdict(TrialState.PRUNED)
    if outcome.state is State.failed:
        return Verdict(TrialState.FAIL, cause=outcome.cause or "no cause is known")
    if outcome.state is not State.finished:
        return None
    try:
        return Verdict(TrialState.COMPLETE, _read_values(outcome.value, folder, options))
    except ValueError as error:
        return Verdict(TrialState.FAIL, cause=str(error))


def _read_values(value: Any, folder: Path, options: Options) -> tuple[float, ...]:
    """The objectives of a finished job; raises ValueError with the reason why there are none."""
    wanted = len(options.directions)
    if options.objectives is not None:
        found = [_find_in_summary(folder, name) for name in options.objectives]
    elif isinstance(value, Sequence) and not isinstance(value, str):
        found = list(value)
    else:
        found = [value]
    if len(found) != wanted:
        raise ValueError(f"returned {len(found)} values, and the search has {wanted} directions")
    return tuple(_as_number(entry) for entry in found)


def _find_in_summary(folder: Path, name: str) -> float:
    """The number under a dotted name in a job's `summary.json`."""
    try:
        node: Any = read_json(folder / SUMMARY, MAX_RECORD_BYTES)
    except InputError as error:
        raise ValueError(f"has no {SUMMARY} with {name}: {error.problems[0].what}") from error
    value = find_number(node, split_figure(name)[0]) if isinstance(node, dict) else None
    if value is None:
        raise ValueError(f"has no {name} in its {SUMMARY}")
    return value


def _as_number(value: Any) -> float:
    """A finite number; numbers of NumPy's count too."""
    if isinstance(value, bool) or not (isinstance(value, numbers.Real) or hasattr(value, "__float__")):
        raise ValueError(f"returned {value!r}, and a search needs a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"returned {number}, which is no finite number")
    return number
