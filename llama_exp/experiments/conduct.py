"""Runs the stages of an experiment one after the other, each by the command that a person would type.

What was cut off is no special case: a stage goes on by its sweep's record, a base by its checkpoint, and the conductor
itself knows nothing that is not in their folders.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from llama_exp import signals
from llama_exp.errors import BusyError, ExitCode, Interrupted, LlamaExpError, Preempted, Problem
from llama_exp.experiments.child import run_child
from llama_exp.experiments.plan import Plan, Step
from llama_exp.experiments.record import Record
from llama_exp.experiments.request import BASES
from llama_exp.experiments.standing import find_standing
from llama_exp.files.lock import FolderLock, held, is_locked
from llama_exp.files.redact import redact_arguments
from llama_exp.files.writing import make_folder, storage_errors

_LOOK_SECONDS = 0.2
_ORPHAN_SECONDS = 120.0  # that a stage whose conductor was killed may need for its checkpoint
_GOES_ON = (ExitCode.OK, ExitCode.SWEEP)


def write_command(program: Sequence[str], step: Step) -> str:
    """The command of a stage, as a shell takes it; secrets masked."""
    return shlex.join([*program, "train", *redact_arguments(step.arguments)])


def conduct(plan: Plan, program: Sequence[str], command: str) -> ExitCode:
    """Runs all that is left of the steps; returns 0, 7 if runs failed, or the code that ended a stage.

    Args:
        plan: what to run.
        program: the words that start this program.
        command: as it was typed; the same goes on.

    Raises:
        BusyError: another process runs this experiment.
        InputError, StorageError: of its record.
        Interrupted, Preempted: a signal ended it, and everything can go on.
    """
    folder = plan.request.folder
    with _owned(folder):
        record = Record(plan, command, {step.name: write_command(program, step) for step in plan.steps})
        code = ExitCode.OK
        failed: set[str] = set()
        for number, step in enumerate(plan.steps, start=1):
            _announce(number, len(plan.steps), step, write_command(program, step))
            if missing := failed & set(step.needs):
                print(f"left out: it needs {', '.join(sorted(missing))}, of which runs failed", flush=True)
                failed.add(step.name)
                continue
            found = _run(step, record)
            if number_of := signals.received():
                record.close(_code_of(number_of))
                raise _stopped(number_of, folder, command)
            if found not in _GOES_ON or (step.is_cached and found != ExitCode.OK):
                record.close(found)
                return _tell_end(step, found, command)
            if found == ExitCode.SWEEP:
                failed.add(step.name)
                code = ExitCode.SWEEP
        record.close(code)
        if failed:
            print(f"\nruns failed in {', '.join(sorted(failed))}; to try them again: {command}", file=sys.stderr)
    return code


def _run(step: Step, record: Record) -> int:
    """The exit code of a stage."""
    with _guarded(step):
        if step.is_cached and find_standing(step.folder, 1).is_done:
            print("finished before", flush=True)
            return ExitCode.OK
        _wait_for_orphan(step.folder)
        record.begin(step)
        code = run_child(step.arguments, record.beat)
        record.end(code)
        return code


@contextlib.contextmanager
def _guarded(step: Step) -> Iterator[None]:
    """One process at a time trains a base, whose folder experiments share."""
    if not step.is_cached:
        yield
        return
    make_folder(BASES)
    path = BASES / f"{step.folder.name}.lock"
    with storage_errors(path), held(path, f"another process trains {step.folder}: waiting for it"):
        yield


@contextlib.contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """The experiment's folder for this process alone."""
    make_folder(folder)
    try:
        lock = FolderLock(folder, "experiment")
    except BusyError as error:
        (problem,) = error.problems
        what = "another process runs this experiment"
        raise BusyError(dataclasses.replace(problem, what=what, action="wait for it or stop it")) from error
    try:
        yield
    finally:
        lock.release()


def _wait_for_orphan(folder: Path) -> None:
    """Waits while a stage of an earlier start, whose conductor was killed, writes its checkpoint."""
    if not folder.is_dir() or not is_locked(folder):
        return
    print(f"waiting for the process that has {folder}, of an earlier start", flush=True)
    end = time.monotonic() + _ORPHAN_SECONDS
    while is_locked(folder) and time.monotonic() < end:  # behind that, the stage says who has it
        time.sleep(_LOOK_SECONDS)


def _announce(number: int, total: int, step: Step, command: str) -> None:
    told = find_standing(step.folder, step.num_runs)
    print(f"\nstage {number} of {total}: {step.name}, {told}\n  {command}", flush=True)


def _tell_end(step: Step, code: int, command: str) -> ExitCode:
    """Says that a stage ended the experiment, and which code the command leaves with."""
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    print(f"\nstage {step.name} ended {how}; to go on: {command}", file=sys.stderr, flush=True)
    return ExitCode.SWEEP if code < 0 else ExitCode(code)


def _code_of(number: signal.Signals) -> ExitCode:
    return ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.PREEMPTED


def _stopped(number: signal.Signals, folder: Path, command: str) -> LlamaExpError:
    kind = Interrupted if number == signal.SIGINT else Preempted
    return kind(Problem("the experiment was stopped", str(folder), number.name, f"the same goes on: {command}"))
