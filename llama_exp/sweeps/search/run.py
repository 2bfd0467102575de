"""A search from Hydra's call to its end: check, fix what is the same in all trials, search, tell.

Optuna is imported behind the fork of the process that forks all servers: it starts threads, which no fork survives,
and loads NumPy, whose threads a server's variables could not set any more.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import configure_log, setup_globals
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from llama_exp import signals
from llama_exp.config.check.search_space import find_search_problems, read_axes
from llama_exp.config.sweep_point import Point
from llama_exp.errors import ConfigError, ExitCode, LlamaExpError, Problem
from llama_exp.files.redact import redact_arguments
from llama_exp.limits.search import Axis
from llama_exp.sweeps import launch
from llama_exp.sweeps.app import App
from llama_exp.sweeps.freeze import freeze, hydra_is_of
from llama_exp.sweeps.jobs import LEFT, Job, Outcome
from llama_exp.sweeps.manifest import Manifest, collect_facts, opened
from llama_exp.sweeps.options import Options as LauncherOptions
from llama_exp.sweeps.output import OUTPUT
from llama_exp.sweeps.pool import Observer, Pool
from llama_exp.sweeps.search.options import Options, read_options
from llama_exp.sweeps.states import SKIP
from llama_exp.sweeps.table import Table

if TYPE_CHECKING:
    from llama_exp.sweeps.search.study import Study


@dataclass(frozen=True)
class Plan:
    """What a search is asked for.

    config, hydra_context: Hydra's. constants: overrides of every trial. axes: the space; written: as it was typed.
    folder: the sweep's.
    """

    config: DictConfig
    hydra_context: HydraContext
    constants: tuple[str, ...]
    axes: tuple[Axis, ...]
    written: dict[str, str]
    options: Options
    launcher: LauncherOptions
    app: App
    folder: Path

    def freeze(self, overrides: Sequence[str], number: int) -> Job:
        """The job of a number with these overrides."""
        (job,) = freeze(self.config, self.hydra_context, [overrides], [number])
        return job


def search(
    config: DictConfig, hydra_context: HydraContext, task_function: TaskFunction, arguments: Sequence[str]
) -> None:
    """Runs the trials of a search; see `hydra_plugins/llama_exp_sweeps/search.py`.

    Raises:
        SystemExit: 2 for mistakes, all at once and before anything starts; 7 for failed trials; 6 for a folder that
            is in use; 130 and 75 for a search that a signal stopped.
    """
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    try:
        code = _search(make_plan(config, hydra_context, arguments), task_function)
    except LlamaExpError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    if code:
        raise SystemExit(code)


def make_plan(config: DictConfig, hydra_context: HydraContext, arguments: Sequence[str]) -> Plan:
    """Raises ConfigError with every mistake of options, space and launcher."""
    constants, sweeps = _read_overrides(config, hydra_context, arguments)
    problems = list(find_search_problems(config.hydra, sweeps))
    launcher, app = None, None
    try:
        if not any(problem.where == "hydra/launcher" for problem in problems):
            launcher, app = launch.read_options(config)
    except ConfigError as error:
        problems += error.problems
    if problems or launcher is None or app is None:
        raise ConfigError(*problems)
    return Plan(
        config,
        hydra_context,
        tuple(str(override.input_line) for override in constants),
        tuple(read_axes(sweeps)[0]),
        {sweep.get_key_element(): str(sweep.input_line).partition("=")[2] for sweep in sweeps},
        read_options(config.hydra.sweeper),
        launcher,
        app,
        Path(os.path.abspath(str(config.hydra.sweep.dir))),
    )


def _read_overrides(
    config: DictConfig, hydra_context: HydraContext, arguments: Sequence[str]
) -> tuple[list[Override], list[Override]]:
    """Those of all trials, and those of the space: of `hydra.sweeper.params`, and of the command line, which win."""
    params = config.hydra.sweeper.get("params") or {}
    parser = OverridesParser.create(config_loader=hydra_context.config_loader)
    try:
        found = parser.parse_overrides([*(f"{key}={value}" for key, value in params.items()), *arguments])
    except HydraException as error:
        action = "see https://hydra.cc/docs/advanced/override_grammar/extended"
        problem = Problem("is not written in Hydra's grammar", "hydra.sweeper.params", str(error), action)
        raise ConfigError(problem) from error
    by_key = {override.get_key_element(): override for override in found}.values()
    return [one for one in by_key if not one.is_sweep_override()], [one for one in by_key if one.is_sweep_override()]


def _search(plan: Plan, task_function: TaskFunction) -> int:
    """The exit code."""
    of_command_line = opened.get()
    held = _open_manifest(plan) if of_command_line is None else contextlib.nullcontext(of_command_line)
    with held as manifest, signals.noted(None):
        OmegaConf.save(plan.config, plan.folder / "multirun.yaml")
        table = Table(
            plan.folder,
            plan.options.n_trials,
            earlier=_count_ended(manifest),
            objective=manifest.words.objective,
            direction=plan.options.directions[0].value if len(plan.options.directions) == 1 else None,
        )
        output = plan.folder / OUTPUT
        try:
            observers: list[Observer] = [manifest, table]
            with Pool(task_function, plan.hydra_context, plan.launcher, plan.app, observers, output) as pool:
                study = _run(plan, pool, manifest)
        finally:
            table.close()
        return _tell_end(plan, study, manifest)


def _open_manifest(plan: Plan) -> Manifest:
    """The sweep's record, for an application whose command line has opened none."""
    standing_for_all = plan.freeze([*plan.constants, *_first_point(plan.axes)], 0)
    return Manifest.open(
        plan.folder,
        [_as_point(standing_for_all, plan)],
        plan.app,
        collect_facts(),
        resume=plan.launcher.resume == "auto",
        on_failed=SKIP,  # a trial that failed has told the search something, and counts
        space=plan.written,
    )


def _run(plan: Plan, pool: Pool, manifest: Manifest) -> Study:
    """The study, with as many trials as wanted, unless a signal came."""
    from llama_exp.sweeps.search.search import Search
    from llama_exp.sweeps.search.study import Study
    from llama_exp.sweeps.search.trials import make_job

    study = Study(plan.folder, plan.options, plan.axes)

    def make(trial: Any) -> Job:
        job = make_job(trial, plan.axes, plan.constants, plan.freeze)
        _note(job, plan, manifest)
        return job

    def find_outcome(number: int) -> Outcome | None:
        status = manifest.find_status(number)
        return None if status.state in LEFT else Outcome(status.state, status.cause, status.exit_code, status.value)

    def stop_all(received: signals.signal.Signals) -> None:
        launch.stop_all(pool, received)

    objectives = plan.options.objectives or (manifest.words.figure,)
    Search(study, pool, make, find_outcome, plan.options, stop_all, plan.launcher.stop_on_failure, objectives[0]).run()
    return study


def _first_point(axes: Sequence[Axis]) -> list[str]:
    return [f"{axis.key}={axis.values[0] if axis.values else axis.low}" for axis in axes]


def _note(job: Job, plan: Plan, manifest: Manifest) -> None:
    """Adds a job to the manifest, unless it is there.

    Raises:
        ConfigError: another one is there under its number.
    """
    known = manifest.entries.get(job.number)
    own = tuple(redact_arguments(job.overrides))
    if known is None:
        known = manifest.add(_as_point(job, plan))
    if known.number != job.number or known.overrides != own:
        what = "the trials in study.journal are not those of the sweep's jobs"
        found = f"trial {job.number} is {' '.join(own)}, job {known.number} was {' '.join(known.overrides)}"
        action = "put back the file that was there, or search in another folder: hydra.sweep.dir=<folder>"
        raise ConfigError(Problem(what, str(plan.folder), found, action))


def _as_point(job: Job, plan: Plan) -> Point:
    with hydra_is_of(job.cfg):
        identity, config = plan.app.identify(job.cfg)
    folder = str(job.folder.relative_to(plan.folder))
    return Point(job.overrides, identity, config, lambda number: folder)


def _count_ended(manifest: Manifest) -> int:
    return sum(status.state not in LEFT for status in manifest.find_statuses().values())


def _tell_end(plan: Plan, study: Study, manifest: Manifest) -> int:
    """Tables, pictures, the best point, and the exit code."""
    from llama_exp.sweeps.search.results import tell_end_of, write_results

    write_results(plan.folder, study, plan.axes, plan.options)
    code = tell_end_of(study, plan.axes, plan.options, manifest)
    stopped = signals.received()
    if stopped is not None:
        return ExitCode.INTERRUPTED if stopped == signals.signal.SIGINT else ExitCode.PREEMPTED
    return code
