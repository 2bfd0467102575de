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
from dataclasses import dataclass
from pathlib import Path

from llama_exp import signals
from llama_exp.errors import BusyError, ExitCode, Interrupted, LlamaExpError, Preempted, Problem
from llama_exp.experiments.child import run_child
from llama_exp.experiments.plan import Plan, Step
from llama_exp.experiments.record import Record
from llama_exp.experiments.request import BASES
from llama_exp.experiments.standing import Standing, find_standing
from llama_exp.experiments.verdicts import load_experiment, name_verdict
from llama_exp.files.lock import FolderLock, held, is_locked
from llama_exp.files.redact import redact_arguments
from llama_exp.files.writing import make_folder, storage_errors
from llama_exp.report import Options, Report, make_report

_LOOK_SECONDS = 0.2
_ORPHAN_SECONDS = 120.0  # that a stage whose conductor was killed may need for its checkpoint


def write_command(program: Sequence[str], step: Step) -> str:
    """The command of a stage, as a shell takes it; secrets masked."""
    return shlex.join([*program, "train", *redact_arguments(step.arguments)])


@dataclass(frozen=True)
class Ended:
    """How a start ended.

    code: 0, 7 if runs failed, or the one that ended a stage, and with it the experiment. report: on all runs, with the
    verdicts; None: no run has begun, or a stage ended it.
    """

    code: ExitCode
    report: Report | None = None


def conduct(plan: Plan, program: Sequence[str], command: str) -> Ended:
    """Runs all that is left of the steps, and judges the claims.

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
        failed: list[str] = []
        for number, step in enumerate(plan.steps, start=1):
            print(f"\nstage {number} of {len(plan.steps)}: {step.name}, {_standing_of(step)}")
            if missing := [name for name in step.needs if name in failed]:
                print(f"left out: it needs {', '.join(missing)}, of which runs failed", flush=True)
                failed.append(step.name)
                continue
            ended = _run(step, program, record)
            if (received := signals.received()) is not None:
                record.close(_code_of(received))
                raise _stopped(received, folder, command)
            if ended != ExitCode.OK and (step.is_cached or ended != ExitCode.SWEEP):
                record.close(ended)
                return Ended(_tell_end(step, ended, command))
            failed += [step.name] if ended else []
        code = ExitCode.SWEEP if failed else ExitCode.OK
        record.close(code)
        report = make_report(runs, Options()) if (runs := load_experiment(folder)) else None
        if report is not None:
            record.close(code, {result.name: name_verdict(result) for result in report.claims})
    if failed:
        told = f"\nruns failed in stage {', '.join(failed)}; to try them again: {command}"
        print(told, file=sys.stderr, flush=True)
    return Ended(code, report)


def _run(step: Step, program: Sequence[str], record: Record) -> int:
    """The exit code of a stage; a run that diverged is no failure."""
    with _guarded(step):
        before = _standing_of(step)
        if before.diverged and not before.failed:  # again they would do the same
            step = dataclasses.replace(step, arguments=(*step.arguments, "hydra.launcher.on_failed=skip"))
        print(f"  {write_command(program, step)}", flush=True)
        if step.is_cached and before.is_done:
            print("finished before", flush=True)
            return ExitCode.OK
        _wait_for_orphan(step.folder)
        record.begin(step)
        code = run_child(step.arguments, record.beat)
        record.end(code)
    now = _standing_of(step)
    return ExitCode.OK if code == ExitCode.SWEEP and now.is_done and not step.is_cached else code


def _standing_of(step: Step) -> Standing:
    return find_standing(step.folder, step.num_runs)


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


def _tell_end(step: Step, code: int, command: str) -> ExitCode:
    """Says that a stage ended the experiment, and which code the command leaves with."""
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    if code == ExitCode.CONFIG and not step.is_cached:
        how += f"; if it was edited since its runs began, give {step.folder.parent} another name and begin anew"
    print(f"\nstage {step.name} ended {how}; to go on: {command}", file=sys.stderr, flush=True)
    return ExitCode.SWEEP if code < 0 else ExitCode(code)


def _code_of(number: signal.Signals) -> ExitCode:
    return ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.PREEMPTED


def _stopped(number: signal.Signals, folder: Path, command: str) -> LlamaExpError:
    kind = Interrupted if number == signal.SIGINT else Preempted
    return kind(Problem("the experiment was stopped", str(folder), number.name, f"the same goes on: {command}"))
