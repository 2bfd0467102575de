"""What a launcher does with the jobs that Hydra gives it: freeze, run, tell, and answer Hydra."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, setup_globals
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from llama_exp import signals
from llama_exp.config.plugins import BASIC_SWEEPER
from llama_exp.console.logs import say
from llama_exp.errors import ConfigError, ExitCode, LlamaExpError, Problem
from llama_exp.files.redact import redact_arguments
from llama_exp.sweeps.app import App, load_app
from llama_exp.sweeps.freeze import hydra_is_of, without_hydra
from llama_exp.sweeps.grid import Grid
from llama_exp.sweeps.jobs import Job, Outcome, State
from llama_exp.sweeps.manifest import Manifest, collect_facts, opened
from llama_exp.sweeps.options import Options
from llama_exp.sweeps.output import OUTPUT
from llama_exp.sweeps.pool import Pool
from llama_exp.sweeps.reports import tell_once
from llama_exp.sweeps.table import Table

SAME_ERRORS = 3  # jobs in a row; says that the next ones will hardly do better
PATIENCE = 30.0  # seconds that schedulers wait between SIGTERM and SIGKILL
_own: list[Manifest] = []  # those that this launcher opened; of others the command line tells the end


class JobFailed(RuntimeError):
    """A job that sent no exception of its own: what ended it, in words."""


def launch(
    config: DictConfig,
    hydra_context: HydraContext,
    task_function: TaskFunction,
    job_overrides: Sequence[Sequence[str]],
    initial_job_idx: int,
) -> list[JobReturn]:
    """Runs what is left of the jobs of a sweep; see `hydra_plugins/llama_exp_sweeps/processes.py`.

    Raises:
        SystemExit: 2 for impossible options and for another sweep's folder, before anything starts; 6 for a folder that
            is in use; 7 for failed jobs, where Hydra's sweeper would not tell; 130 and 75 for a sweep that a signal
            stopped.
    """
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    try:
        options, app = read_options(config)
        grid = Grid(config, hydra_context, job_overrides, initial_job_idx, app)
        manifest = find_manifest(grid, options)
    except LlamaExpError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    is_own = manifest in _own
    jobs = grid.number_as(manifest)
    tell_same(jobs)
    unique = {job.number: job for job in jobs}
    is_open = {entry.number for entry in manifest.list_open()}
    waiting = [job for number, job in sorted(unique.items()) if number in is_open]
    words, output = manifest.words, manifest.folder / OUTPUT
    table = Table(manifest.folder, len(unique), waiting, len(unique) - len(waiting), words.objective, words.direction)
    with signals.noted(None), contextlib.closing(table):
        with Pool(task_function, hydra_context, options, app, [manifest, table], output) as pool:
            outcomes = run_all(pool, waiting, options)
        stopped = signals.received()
    code = find_stop(stopped, outcomes.values())
    if code is not None:
        tell_once(manifest)
        raise SystemExit(code)
    is_basic = config.hydra.sweeper.get("_target_") == BASIC_SWEEPER
    if is_basic and is_own:
        tell_at_the_end(hydra_context, manifest)
    return answer(jobs, outcomes, manifest, told_later=is_basic)


def find_stop(stopped: signals.signal.Signals | None, outcomes: Iterable[Outcome]) -> ExitCode | None:
    """The exit code of a sweep that a signal stopped, or some of its jobs; None: nothing is left for the next time."""
    states = {outcome.state for outcome in outcomes}
    if stopped is None and (State.failed in states or not states & {State.interrupted, State.preempted}):
        return None
    is_interrupt = State.interrupted in states if stopped is None else stopped == signals.signal.SIGINT
    return ExitCode.INTERRUPTED if is_interrupt else ExitCode.PREEMPTED


def answer(
    jobs: Sequence[Job], outcomes: Mapping[int, Outcome], manifest: Manifest, told_later: bool
) -> list[JobReturn]:
    """What Hydra's sweeper gets; `told_later`: somebody else says at the end which jobs failed."""
    returns = []
    for job in jobs:
        outcome = outcomes.get(job.number) or _recorded(manifest, job.number)
        if told_later and outcome.state is not State.finished:
            outcome = Outcome(State.finished)
        returns.append(make_return(job, outcome))
    return returns


class _End(Callback):
    """Tells at the end of a sweep what came of it, and gives the process its exit code."""

    def __init__(self, manifest: Manifest):
        self.manifest = manifest

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Raises SystemExit if a job failed."""
        if code := tell_once(self.manifest):
            raise SystemExit(code)


def tell_at_the_end(hydra_context: HydraContext, manifest: Manifest) -> None:
    """Lets Hydra call `_End` behind the application's own callbacks, once for all batches of a sweep."""
    callbacks = hydra_context.callbacks.callbacks
    if not any(isinstance(callback, _End) and callback.manifest is manifest for callback in callbacks):
        callbacks.insert(0, _End(manifest))  # they are called in the reverse order


def _recorded(manifest: Manifest, number: int) -> Outcome:
    status = manifest.find_status(number)
    return Outcome(status.state, status.cause, status.exit_code, status.value)


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


def find_manifest(grid: Grid, options: Options) -> Manifest:
    """The manifest that the command line opened, or that of an earlier batch of this sweep; else a new one.

    Raises:
        BusyError, ConfigError, InputError, StorageError: as `Manifest.open`.
    """
    manifest = opened.get()
    if manifest is None or manifest.folder.absolute() != grid.folder:
        manifest = Manifest.open(
            grid.folder,
            grid.list_points(),
            grid.app,
            collect_facts(),
            resume=options.resume == "auto",
            extend=options.extend,
            on_failed=options.on_failed,
        )
        opened.set(manifest)  # for the next batch; the process' end gives the folder back
        _own.append(manifest)
    return manifest


def tell_same(jobs: Sequence[Job]) -> None:
    """Says which points are there twice."""
    seen: set[int] = set()
    for job in jobs:
        if job.number in seen:
            words = " ".join(redact_arguments(job.overrides)) or "no overrides"
            say(f"{words} is job {job.number} again: it runs once")
        seen.add(job.number)


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
    say(text)
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
            say(text)


def make_return(job: Job, outcome: Outcome) -> JobReturn:
    """What Hydra and its sweepers want to know of a job."""
    cfg = without_hydra(job.cfg)
    overrides: Any = OmegaConf.to_container(job.cfg.hydra.overrides.task)
    result = JobReturn(overrides=overrides, cfg=cfg, working_dir=str(job.folder))
    with hydra_is_of(job.cfg):
        result.hydra_cfg = OmegaConf.masked_copy(job.cfg, ["hydra"])
    result.task_name = JobRuntime.instance().get("name")
    if outcome.state is State.finished:
        result.status, result.return_value = JobStatus.COMPLETED, outcome.value
        return result
    cause = outcome.cause or outcome.state.value
    is_ordinary = isinstance(outcome.error, Exception)
    result.status = JobStatus.FAILED
    result.return_value = outcome.error if is_ordinary else JobFailed(f"job {job.number}: {cause}")
    return result
