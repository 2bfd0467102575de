"""What a launcher does with the jobs that Hydra gives it: freeze, run, tell, and answer Hydra."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from llama_exp import signals
from llama_exp.errors import ConfigError, ExitCode, LlamaExpError, Problem
from llama_exp.sweeps.app import App, load_app
from llama_exp.sweeps.freeze import find_same, freeze, hydra_is_of, without_hydra
from llama_exp.sweeps.jobs import Job, Outcome, State
from llama_exp.sweeps.options import Options
from llama_exp.sweeps.pool import OUTPUT, Observer, Pool

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
SAME_ERRORS = 3  # jobs in a row; says that the next ones will hardly do better
PATIENCE = 30.0  # seconds that schedulers wait between SIGTERM and SIGKILL
GOES_ON = (State.interrupted, State.preempted, State.pending)


class JobFailed(RuntimeError):
    """A job that sent no exception of its own: what ended it, in words."""


def launch(
    config: DictConfig,
    hydra_context: HydraContext,
    task_function: TaskFunction,
    job_overrides: Sequence[Sequence[str]],
    initial_job_idx: int,
) -> list[JobReturn]:
    """Runs the jobs of a sweep; see `hydra_plugins/llama_exp_sweeps/processes.py`.

    Raises:
        SystemExit: 2 for impossible options, before anything starts; 7 for failed jobs, where nobody else would tell;
            130 and 75 for a sweep that a signal stopped.
    """
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    try:
        options, app = read_options(config)
    except LlamaExpError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
    jobs = freeze(config, hydra_context, job_overrides, numbers)
    same = find_same(jobs, app)
    tell_same(jobs, same)
    unique = [job for job in jobs if job.number not in same]
    sweep_dir = Path(os.path.abspath(str(config.hydra.sweep.dir)))
    observers: list[Observer] = []
    with signals.noted(None):
        with Pool(task_function, hydra_context, options, app, observers, sweep_dir / OUTPUT) as pool:
            outcomes = run_all(pool, unique, options)
        stopped = signals.received()
    tell_end(unique, outcomes, stopped)
    if stopped is not None:
        raise SystemExit(ExitCode.INTERRUPTED if stopped == signals.signal.SIGINT else ExitCode.PREEMPTED)
    has_failed = any(outcome.state is State.failed for outcome in outcomes.values())
    if has_failed and config.hydra.sweeper.get("_target_") == BASIC_SWEEPER:
        raise SystemExit(ExitCode.SWEEP)
    return [make_return(job, outcomes.get(same.get(job.number, job.number))) for job in jobs]


def read_options(config: DictConfig) -> tuple[Options, App]:
    """The launcher's keys, and the application that answers for its jobs.

    Raises:
        ConfigError: with every impossible value.
    """
    node: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    options = Options.make(node)
    try:
        return options, load_app(options.app)
    except (ImportError, AttributeError) as error:
        action = "give the dotted name of a class that can be imported, or null"
        problem = Problem(f"cannot be had: {error}", "hydra.launcher.app", str(options.app), action)
        raise ConfigError(problem) from error


def tell_same(jobs: Sequence[Job], same: Mapping[int, int]) -> None:
    """Says which points are there twice."""
    for job in jobs:
        if job.number in same:
            words = " ".join(job.overrides) or "no overrides"
            print(f"job {job.number} ({words}) is job {same[job.number]} again: it runs once", file=sys.stderr)


def run_all(pool: Pool, jobs: Sequence[Job], options: Options) -> dict[int, Outcome]:
    """Runs jobs until all have ended, or as many as had started when the sweep was told to stop; number -> outcome."""
    waiting, outcomes, is_stopping = deque(jobs), dict[int, Outcome](), False
    watch = _SameError()
    while waiting or pool.running:
        received = signals.received()
        if received is not None and not is_stopping:
            is_stopping = True
            stop_all(pool, received)
        if is_stopping or (options.stop_on_failure and watch.has_failed):
            waiting.clear()
        while waiting and pool.free_slots:
            pool.start(waiting.popleft())
        for job, outcome in pool.wait(0.5):
            outcomes[job.number] = outcome
            watch.add(outcome)
    return outcomes


def stop_all(pool: Pool, received: signals.signal.Signals) -> None:
    """Asks every running job to stop with a checkpoint; the operating system takes the second signal at once."""
    is_interrupt = received == signals.signal.SIGINT
    again = "Ctrl-C again" if is_interrupt else "the same signal again"
    text = f"{received.name}: {len(pool.running)} running jobs stop, no other starts; {again}: at once"
    print(text, file=sys.stderr)
    state = State.interrupted if is_interrupt else State.preempted
    for job in pool.running:
        patience = PATIENCE if received == signals.signal.SIGTERM else None
        pool.stop(job.number, state, f"was stopped by {received.name}", patience)


class _SameError:
    """Notices that all jobs fail, and in the same way."""

    def __init__(self) -> None:
        self.has_failed = self._has_succeeded = False
        self._causes: list[str | None] = []

    def add(self, outcome: Outcome) -> None:
        self.has_failed |= outcome.state is State.failed
        self._has_succeeded |= outcome.state in (State.finished, State.pruned)
        self._causes.append(outcome.cause)
        if not self._has_succeeded and len(self._causes) == SAME_ERRORS and len(set(self._causes)) == 1:
            text = f"the same error in {SAME_ERRORS} jobs: {self._causes[0]}; Ctrl-C stops the sweep"
            print(text, file=sys.stderr)


def tell_end(jobs: Sequence[Job], outcomes: Mapping[int, Outcome], stopped: object) -> None:
    """What came of the jobs, on standard error."""
    failed = [job for job in jobs if job.number in outcomes and outcomes[job.number].state is State.failed]
    for job in failed:
        words = " ".join(job.overrides) or "no overrides"
        print(f"job {job.number} failed ({words}): {outcomes[job.number].cause}", file=sys.stderr)
    finished = sum(outcome.state is State.finished for outcome in outcomes.values())
    left = len(jobs) - finished - len(failed)
    print(f"{finished} finished, {len(failed)} failed, {left} left", file=sys.stderr)


def make_return(job: Job, outcome: Outcome | None) -> JobReturn:
    """What Hydra and its sweepers want to know of a job; None: it never started."""
    cfg = without_hydra(job.cfg)
    overrides: Any = OmegaConf.to_container(job.cfg.hydra.overrides.task)
    result = JobReturn(overrides=overrides, cfg=cfg, working_dir=str(job.folder))
    with hydra_is_of(job.cfg):
        result.hydra_cfg = OmegaConf.masked_copy(job.cfg, ["hydra"])
    result.task_name = JobRuntime.instance().get("name")
    if outcome is not None and outcome.state is State.finished:
        result.status, result.return_value = JobStatus.COMPLETED, outcome.value
    else:
        cause = "never started" if outcome is None else outcome.cause
        error = None if outcome is None else outcome.error
        is_ordinary = isinstance(error, Exception)
        result.status = JobStatus.FAILED
        result.return_value = error if is_ordinary else JobFailed(f"job {job.number} {cause}")
    return result
