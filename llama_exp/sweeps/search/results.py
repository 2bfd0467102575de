"""What came of a search: a table of its trials, its best point, and two pictures.

trials.csv                  a line for each trial
optimization_results.yaml   the best point, under the names that Hydra's Optuna sweeper gives it
history.png                 objectives over trials
importance.png              how much each key of the space decides: PED-ANOVA (Watanabe et al. 2023), Optuna's default
"""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState

from llama_exp.console.logs import say
from llama_exp.errors import ExitCode
from llama_exp.files.writing import write_text
from llama_exp.limits.figures import Direction
from llama_exp.limits.search import Axis
from llama_exp.sweeps.ending import Report, repeat_command, tell_end
from llama_exp.sweeps.jobs import State
from llama_exp.sweeps.manifest import Manifest
from llama_exp.sweeps.reports import make_reports
from llama_exp.sweeps.search.options import Options
from llama_exp.sweeps.search.plots import draw_history, draw_importance
from llama_exp.sweeps.search.space import write_overrides
from llama_exp.sweeps.search.study import Study, find_cause, find_stopped_step

_MOST_SHOWN = 5  # of several best points
FEWEST_FOR_IMPORTANCE = 4  # finished trials; of fewer, chance alone decides
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Best:
    """A trial that no other one beats. values: of the objectives. overrides: its point."""

    number: int
    values: tuple[float, ...]
    overrides: tuple[str, ...]


def find_best(study: Study, axes: Sequence[Axis]) -> list[Best]:
    """The best trial; of several objectives all that no other trial beats in each of them; none if none is finished."""
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    return [
        Best(trial.number, tuple(trial.values), write_overrides(axes, trial.params))
        for trial in (study.optuna.best_trials if complete else [])
    ]


def write_results(folder: Path, study: Study, axes: Sequence[Axis], options: Options) -> None:
    """Writes tables and pictures into the sweep's folder; raises `StorageError`."""
    names = list_objectives(options)
    write_text(folder / "trials.csv", _write_table(study.trials, axes, names))
    best = find_best(study, axes)
    if not best:
        return
    write_text(folder / "optimization_results.yaml", yaml.safe_dump(_summarise(best), sort_keys=False))
    try:
        draw_history(folder / "history.png", study.trials, names, options.directions)
        importance = find_importance(study, axes, options.directions)
        if importance:
            draw_importance(folder / "importance.png", importance, names)
    except Exception as error:  # a picture is no reason to lose a search
        _log.warning("the search could not be drawn: %s", error)


def list_objectives(options: Options) -> list[str]:
    """A name for each objective."""
    if options.objectives is not None:
        return list(options.objectives)
    count = len(options.directions)
    return ["value"] if count == 1 else [f"value {number}" for number in range(count)]


def find_importance(study: Study, axes: Sequence[Axis], directions: Sequence[Direction]) -> list[dict[str, float]]:
    """For each objective: key -> its share of what decides, the largest first; empty where nobody can say."""
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    free = [axis.key for axis in axes if len({trial.params[axis.key] for trial in complete}) > 1]
    if len(complete) < FEWEST_FOR_IMPORTANCE or not free:
        return []
    found = []
    with warnings.catch_warnings():  # it says that it takes low values for good ones, which is why they get a sign
        warnings.simplefilter("ignore", UserWarning)
        for index, direction in enumerate(directions):
            sign = 1.0 if direction is Direction.minimize else -1.0

            def target(trial: FrozenTrial, index: int = index, sign: float = sign) -> float:
                return sign * trial.values[index]

            found.append(get_param_importances(study.optuna, params=free, target=target))
    return found


def _summarise(best: Sequence[Best]) -> dict[str, Any]:
    parser = OverridesParser.create()
    points = [{line.partition("=")[0]: parser.parse_override(line).value() for line in one.overrides} for one in best]
    if len(best[0].values) > 1:
        solutions = [{"params": point, "values": list(one.values)} for one, point in zip(best, points, strict=True)]
        return {"name": "optuna", "solutions": solutions}
    return {"name": "optuna", "best_params": points[0], "best_value": best[0].values[0]}


def _write_table(trials: Sequence[FrozenTrial], axes: Sequence[Axis], names: Sequence[str]) -> str:
    """Lines of CSV: number, state, objectives, point, last reported step, seconds, cause."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", *names, *(axis.key for axis in axes), "step", "seconds", "cause"])
    for trial in trials:
        is_complete = trial.state is TrialState.COMPLETE
        values = list(trial.values) if is_complete and trial.values else [""] * len(names)
        point = [line.partition("=")[2] for line in write_overrides(axes, trial.params)]
        seconds = "" if trial.duration is None else round(trial.duration.total_seconds(), 1)
        stopped = find_stopped_step(trial) if trial.state is TrialState.PRUNED else None
        step = trial.last_step if stopped is None else stopped
        writer.writerow([trial.number, trial.state.name.lower(), *values, *point, step, seconds, find_cause(trial)])
    return text.getvalue()


def tell_end_of(study: Study, axes: Sequence[Axis], options: Options, manifest: Manifest) -> ExitCode:
    """Tells what came of all trials, and the best point with the command that repeats it alone; the exit code."""
    trials, names = study.trials, list_objectives(options)
    reports = [_as_study_says(report, trials[report.number]) for report in make_reports(manifest)]
    is_done = not study.num_left and all(trial.state.is_finished() for trial in trials)
    words = dataclasses.replace(
        manifest.words,
        objective=names[0] if options.objectives else manifest.words.objective,
        direction=options.directions[0].value if len(names) == 1 else None,
        go_on="" if is_done else manifest.words.go_on,  # trials that failed are not tried again
    )
    code = tell_end(reports, manifest.folder, words)
    manifest.is_told = True
    for best in find_best(study, axes)[:_MOST_SHOWN]:
        values = ", ".join(f"{name} {value:.6g}" for name, value in zip(names, best.values, strict=True))
        say(f"best: trial {best.number}, {values}; alone:\n  {repeat_command(reports[best.number], words.program)}")
    return code


def _as_study_says(report: Report, trial: FrozenTrial) -> Report:
    """A job as the search sees it: one that returned no number has failed."""
    if trial.state is TrialState.COMPLETE:
        value = trial.values[0] if len(trial.values) == 1 else tuple(trial.values)
        return dataclasses.replace(report, state=State.finished, value=value, cause=None)
    if trial.state is TrialState.FAIL:
        return dataclasses.replace(report, state=State.failed, value=None, cause=find_cause(trial))
    return dataclasses.replace(report, state=State.pruned) if trial.state is TrialState.PRUNED else report
