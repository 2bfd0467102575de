"""One job of a sweep, as `train_command.job` sees it: where it runs, whether it is done, and who tells the journal.

Under our own launcher its process does: it starts no job that is done, and sees how each ends. Under any other launcher
the job tells it itself. A job that is gone on with by itself, `resume=<its folder>`, tells it too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llama_exp.config.plugins import BASIC_LAUNCHER
from llama_exp.config.schema import Config
from llama_exp.console.logs import name_lines
from llama_exp.errors import BusyError
from llama_exp.files.sweep_record import mask_sweep_record
from llama_exp.run.folder import RunFolder, outcome
from llama_exp.run.resume import AUTO
from llama_exp.run.sweep_app import STATES, LlamaApp
from llama_exp.sweeps.child import is_a_job
from llama_exp.sweeps.jobs import Outcome, State
from llama_exp.sweeps.record import holds_sweep
from llama_exp.sweeps.reporter import Reporter, find_by_folder, find_by_overrides
from llama_exp.sweeps.states import problem_of_live


class SweepJob:
    """The place of a run in a sweep, or outside of any.

    Args:
        node: Hydra's own node of the job's config.
        in_sweep: whether Hydra runs a sweep.

    Attributes:
        folder: where it runs.
        group: the sweep's name, or None.
    """

    def __init__(self, node: Any, in_sweep: bool):
        self.folder, self.group = Path(node.runtime.output_dir), None
        self._reporter: Reporter | None = None
        self._goes_on = False
        if in_sweep:
            sweep_dir = Path(node.sweep.dir)
            self.group = sweep_dir.name
            self._goes_on = holds_sweep(sweep_dir)
            if not is_a_job():
                self._reporter = find_by_overrides(sweep_dir, list(node.overrides.task), LlamaApp())
        else:
            self._reporter = find_by_folder(self.folder, LlamaApp())
            self.group = None if self._reporter is None else self._reporter.sweep_dir.name
        if in_sweep and self._reporter is not None:
            self._settle(self._reporter.folder)
            if shares_terminal(node) and self._reporter.command:
                # Another launcher's process was not started by the command that a person would type again.
                sys.argv[:] = shlex.split(self._reporter.command)

    def run(self, config: Config, call: Callable[[Config], float]) -> float | None:
        """What the run returns, or has returned before: a job that is done is left as it is."""
        reporter = self._reporter
        if reporter is None:
            return call(self._own(config))
        if reporter.status.state is State.running:
            raise BusyError(problem_of_live(reporter.entry.number, reporter.status.process or {}, reporter.sweep_dir))
        if self._goes_on and not reporter.may_start:
            told = f"job {reporter.entry.number} is {reporter.status.state.value} and left as it is"
            print(told, file=sys.stderr)
            return reporter.status.value
        reporter.begin()
        try:
            value = call(self._own(config))
        except BaseException as error:
            reporter.end(describe(error))
            raise
        reporter.end(Outcome(State.finished, exit_code=0, value=value))
        return value

    def _own(self, config: Config) -> Config:
        """A job that began in its folder goes on there, in whatever way its sweep was started."""
        goes_on = self._goes_on and RunFolder.holds_run(self.folder)
        return dataclasses.replace(config, resume=AUTO) if goes_on else config

    def _settle(self, folder: Path) -> None:
        """Takes the folder that the sweep's record has, where another launcher counts in another way."""
        if folder.absolute() != self.folder.absolute():
            folder.mkdir(parents=True, exist_ok=True)
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()
            self.folder = folder


@contextlib.contextmanager
def announced(node: Any, in_sweep: bool) -> Iterator[None]:
    """Around a job of a sweep: no secret stays in Hydra's record; the terminal says which job begins, and whose lines.

    Raises:
        InputError, StorageError: the record cannot be read or written.
    """
    if not in_sweep:
        yield
        return
    mask_sweep_record(Path(node.sweep.dir))
    print(f"\njob {node.job.num}: {node.job.override_dirname or 'no overrides'}", file=sys.stderr)
    name_lines(f"job {node.job.num}" if shares_terminal(node) else None)
    try:
        yield
    finally:
        name_lines(None)  # a launcher's own process may run jobs too, and has the last word


def shares_terminal(node: Any) -> bool:
    """Whether other jobs may write to this one's terminal meanwhile.

    Our launcher gives each job a file of its own, and Hydra's runs one after the other.
    """
    return not is_a_job() and node.launcher.get("_target_") != BASIC_LAUNCHER


def describe(error: BaseException) -> Outcome:
    """How a run ended that left this exception."""
    status, code = outcome(error)
    lines = str(error).splitlines() or [""]
    is_typed = hasattr(error, "problems")
    cause = lines[0] if is_typed else f"{type(error).__name__}: {lines[0]}"
    return Outcome(STATES[status], cause, int(code))
