"""The checkpoint of another run that a new one begins with (`branch_from`), found and compared before it is touched.

    branch_from=<checkpoint>        that one
    branch_from=<run folder>        the newest checkpoint that this run would have had too
    branch_from=<folder of runs>    the same of the run that got farthest among those that fit: a sweep over the seed
                                    finds the run of its own seed

A state fits where both runs compute the same until then: everything that decides the result is equal, but for the
number of steps and the schedule, whose learning rates agree to the last bit at every update up to the checkpoint.
Imports no framework.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.config.identity import DECIDING_FIGURES, LENGTH, MAY_CHANGE, flatten, is_science, to_record
from llama_exp.config.schema import Config
from llama_exp.errors import ConfigError, InputError, LlamaExpError, Problem
from llama_exp.files.latest import is_latest
from llama_exp.files.shown_path import show_path
from llama_exp.rates import CURVES, Curve
from llama_exp.run.resume import list_checkpoints, read_recorded
from llama_exp.run.unfinished import RECORD_FILE, load_run_record
from llama_exp.trainer.contents import STRIPPED, without_optimizer
from llama_exp.trainer.manifest import MANIFEST, Invalid, verified_manifest

KEY = "branch_from"
SCHEDULE = "schedule."
# What decides which weights are kept or when a run ends, where a figure does.
DECIDING = re.compile(
    r"trainer\.(stop_early|patience|min_delta|validate_every_steps|validation_batches|callbacks.*)|evaluation\..*"
)
_STRAIGHT = "or train from step 0 with branch_from=null"
_MOST_SHOWN = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trunk:
    """A run's state to begin with.

    run: its folder. checkpoint: the checkpoint's folder. step: finished steps. manifest: the checkpoint's, verified.
    record: the run's run.json.
    """

    run: Path
    checkpoint: Path
    step: int
    manifest: Mapping[str, Any]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class _Comparison:
    """A run beside the config. problems: what differs and may not. until: last update at which the rates agree."""

    run: Path
    problems: tuple[Problem, ...]
    until: float


def find_trunk(config: Config) -> Trunk:
    """The checkpoint that `branch_from` names, or the best of those that it leads to.

    Raises:
        ConfigError: nothing is there, or the runs compute something else; every key that differs is named.
        InputError: the record or the checkpoint is damaged, or has no optimizer any more.
    """
    place = Path(str(config.branch_from)).expanduser()
    if (place / MANIFEST).is_file():
        return _take_named(place, config)
    if (place / RECORD_FILE).exists():
        comparison = _compare(place, config)
        _raise_if_any(comparison.problems)
        return _take_newest(comparison, config)
    return _take_farthest(place, config)


def _take_named(checkpoint: Path, config: Config) -> Trunk:
    comparison = _compare(checkpoint.absolute().parent.parent, config)
    _raise_if_any(comparison.problems)
    try:
        trunk = _read(comparison.run, checkpoint)
    except Invalid as reason:
        action = f"choose another checkpoint of the run, {_STRAIGHT}"
        raise InputError.about(checkpoint, "is no valid checkpoint", str(reason), action) from reason
    if trunk.step > min(comparison.until, config.trainer.max_steps) or _is_measured_more(trunk, config):
        raise ConfigError(_too_late([trunk.step], comparison, config))
    return trunk


def _take_newest(comparison: _Comparison, config: Config) -> Trunk:
    """The newest valid checkpoint of a run up to which both are the same."""
    last = min(comparison.until, config.trainer.max_steps)
    found = list_checkpoints(comparison.run)
    for step, checkpoint in sorted(found.items(), reverse=True):
        if step <= last:
            try:
                trunk = _read(comparison.run, checkpoint)
                if not _is_measured_more(trunk, config):
                    return trunk
            except Invalid as reason:
                _log.warning("checkpoint %s is damaged (%s), and not branched from", checkpoint, reason)
    raise ConfigError(_too_late(sorted(found), comparison, config))


def _take_farthest(place: Path, config: Config) -> Trunk:
    """Of the runs in a folder, of those that fit, the one that got farthest; of equals the first by name."""
    runs = sorted(file.parent for file in place.glob(f"*/{RECORD_FILE}") if not is_latest(file.parent))
    if not runs:
        raise ConfigError(find_missing(str(place)))
    comparisons, trunks = [], []
    for run in runs:
        try:
            comparisons.append(_compare(run, config))
            if not comparisons[-1].problems:
                trunks.append(_take_newest(comparisons[-1], config))
        except LlamaExpError as error:
            _log.warning("%s cannot be branched from: %s", show_path(run), str(error).splitlines()[0])
    if trunks:
        return max(trunks, key=lambda trunk: trunk.step)
    if not comparisons:
        action = f"name one of its runs, and its mistake is told whole; {_STRAIGHT}"
        raise InputError.about(place, "no run in the folder can be branched from", f"{len(runs)} runs", action)
    nearest = min(comparisons, key=lambda one: len(one.problems))
    if not nearest.problems:
        return _take_newest(nearest, config)  # which raises what is wrong with it
    differing = [f"{problem.where}: {problem.found}" for problem in nearest.problems]
    more = [f"and {len(differing) - _MOST_SHOWN} more"] if len(differing) > _MOST_SHOWN else []
    found = f"{len(runs)} runs in {show_path(place)}; the nearest, {nearest.run.name}, differs in "
    found += "; ".join([*differing[:_MOST_SHOWN], *more])
    what = "none of the runs computes what this one does up to a checkpoint"
    raise ConfigError(Problem(what, KEY, found, f"give the values of one of them, {_STRAIGHT}"))


def find_missing(place: str) -> Problem:
    """The problem of a place that has no run."""
    action = f"give a checkpoint, a run or a folder of runs (outputs/<name>/<run>), {_STRAIGHT}"
    return Problem("is no checkpoint, no run and no folder of runs", KEY, place, action)


def _read(run: Path, checkpoint: Path) -> Trunk:
    manifest = verified_manifest(checkpoint)
    if manifest["state"].get(STRIPPED):
        raise without_optimizer(checkpoint)
    return Trunk(run, checkpoint, manifest["step"], manifest, load_run_record(run))


def _compare(run: Path, config: Config) -> _Comparison:
    record = to_record(config)
    before, now = read_recorded(run, record), flatten(record)
    problems = [_differs(key, before[key], now[key]) for key in _list_differing(before, now)]
    until = _agree_until(before, now)
    if until is None:
        found = f"{now.get(f'{SCHEDULE}_target_')}, the other run has {before.get(f'{SCHEDULE}_target_')}"
        what = "learning rates of a schedule of your own can only be compared if all of it is equal, max_steps too"
        problems.append(Problem(what, "schedule", found, f"use a schedule of llama_exp, {_STRAIGHT}"))
    return _Comparison(run, tuple(problems), until or 0)


def _list_differing(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Keys that must be equal and are not; one that a side lacks gets the value "nothing"."""
    for key in sorted(before.keys() | now.keys()):
        old, new = before.setdefault(key, "nothing"), now.setdefault(key, "nothing")
        may_differ = key.startswith(SCHEDULE) or (MAY_CHANGE.fullmatch(key) and not DECIDING.fullmatch(key))
        if old != new and not (may_differ or (DECIDING.fullmatch(key) and not _does_a_figure_decide(now))):
            yield key


def _does_a_figure_decide(values: Mapping[str, Any]) -> bool:
    return any(values.get(f"trainer.{key}") is not None for key in DECIDING_FIGURES)


def _is_measured_more(trunk: Trunk, config: Config) -> bool:
    """Whether a figure that decides was measured at the other run's last step, where this run measures nothing."""
    progress = trunk.manifest["state"].get("progress") or {}
    is_extra = progress.get("validated_step") == trunk.step and trunk.step % config.trainer.validate_every_steps
    return bool(is_extra) and _does_a_figure_decide(flatten(to_record(config)))


def _differs(key: str, old: object, new: object) -> Problem:
    what = "the other run computes something else, so that its state is not one of this run"
    action = f"set {key}={old}, {_STRAIGHT}" if is_science(key) and "nothing" not in (old, new) else _STRAIGHT[3:]
    return Problem(what, key, f"{new}, the other run has {old}", action)


def _agree_until(before: Mapping[str, Any], now: Mapping[str, Any]) -> float | None:
    """The last update until which both schedules give the same rate; None: nobody knows."""
    one, other = _schedule(before), _schedule(now)
    if one == other:
        return math.inf
    curves = [_curve(*one), _curve(*other)]
    return None if None in curves else curves[0].agrees_until(curves[1])  # type: ignore[union-attr, arg-type]


def _schedule(values: Mapping[str, Any]) -> tuple[dict[str, Any], Any, Any]:
    section = {key.removeprefix(SCHEDULE): value for key, value in values.items() if key.startswith(SCHEDULE)}
    section = {key: value for key, value in section.items() if value != "nothing"}
    return section, values.get(LENGTH), values.get("optimizer.learning_rate")


def _curve(section: Mapping[str, Any], num_steps: Any, learning_rate: Any) -> Curve | None:
    make = CURVES.get(str(section.get("_target_")))
    options = {key: value for key, value in section.items() if key != "_target_"}
    try:
        return None if make is None else make(learning_rate=learning_rate, num_steps=num_steps, **options)
    except TypeError:  # of a damaged record
        return None


def _too_late(steps: list[int], comparison: _Comparison, config: Config) -> Problem:
    """The problem of checkpoints that all lie behind what both runs have in common."""
    until, last = comparison.until, config.trainer.max_steps
    common = f"the learning rates agree up to update {int(until)}" if until < last else f"this run has {last} steps"
    shown = ", ".join(map(str, steps)) or "no step"
    what = "this run would not have come to the state of any checkpoint there is"
    action = "let the other run keep earlier checkpoints (trainer.checkpoint_every_steps, trainer.keep_checkpoints), "
    action += f"or change the schedule, {_STRAIGHT}"
    return Problem(what, KEY, f"{common}; {show_path(comparison.run)} has checkpoints of {shown}", action)


def _raise_if_any(problems: tuple[Problem, ...]) -> None:
    if problems:
        raise ConfigError(*problems)
