"""A run that was stopped and continued against one that was not: the same bits.

    whole       trains to step n, where it is stopped: a checkpoint
    halves      is stopped at step m, and goes on in a process of its own to step n: a checkpoint
    compared    weights, optimizer, seeds, position in the data, the observers' states, and every row of metrics

The configuration is the user's, its length too, so that the learning rate is the one of every step. Only what cannot
change a result is shortened: validation, samples, loggers. Everything lies in a temporary folder.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llama_exp.config.identity import flatten
from llama_exp.errors import ConfigError, ExitCode, Preempted, Problem
from llama_exp.files.metrics_file import read_metrics
from llama_exp.files.temporary import temporary_folder
from llama_exp.limits.trainer import OWN_OBSERVERS
from llama_exp.verification.subject import compose

Groups = Mapping[str, Mapping[str, np.ndarray]]
Row = Mapping[str, Any]
STEPS = 4
COMMAND = "llama-exp verify resume"
# What takes time and cannot change a result (see `MAY_CHANGE`).
_SHORT = {
    "trainer.validation_batches": "1",
    "trainer.sample_tokens": "4",
    "trainer.log_every_steps": "1",
    "trainer.validate_every_steps": "2",
    "trainer.checkpoint_every_steps": "1000000",
    "logger": "none",
    "resume": "none",
}
# What a clock decides, and memory, which a process of its own has from its own beginning.
_OF_THE_PROCESS = {"tokens_per_second", "peak_memory_bytes", "mfu", "seconds"}
_STOP = "trainer.callbacks.verify_resume"


class StopAfter:
    """A callback that stops the run as a scheduler would: SIGTERM, after a step.

    Args:
        step: the last one.
    """

    def __init__(self, step: int):
        self._step = step

    def on_step(self, step: int, loss: float, tokens: int) -> None:
        """Sends the signal."""
        if step == self._step:
            signal.raise_signal(signal.SIGTERM)


@dataclass(frozen=True)
class Resumption:
    """What the comparison found.

    steps: of both runs. stopped_at: the step at which one was. num_arrays, num_rows: that were compared. differences:
    what is not the same, in words; empty: every bit is.
    """

    steps: int
    stopped_at: int
    num_arrays: int
    num_rows: int
    differences: list[str]


def verify(overrides: Sequence[str], tell: Callable[[str], None]) -> Resumption:
    """Trains, stops, continues and compares.

    Args:
        overrides: the command line.
        tell: called with what is being done.

    Raises:
        ConfigError: the configuration is wrong, or has too few steps to stop in between.
        LlamaExpError: a run failed.
    """
    config = compose(overrides, COMMAND)
    if config.trainer.max_steps < 3:
        action = "give at least 3: one before the stop, one behind it, and one more to be stopped at again"
        raise ConfigError(
            Problem("the run is too short to be stopped", "trainer.max_steps", str(config.trainer.max_steps), action)
        )
    steps = min(STEPS, config.trainer.max_steps - 1)
    half = steps // 2
    with temporary_folder() as folder:
        whole, halves = folder / "whole", folder / "halves"
        tell(f"{steps} steps at a stretch")
        _train(overrides, whole, steps)
        tell(f"{half} steps, then a stop")
        _train(overrides, halves, half)
        tell(f"from step {half} to {steps}, in another process")
        _go_on(overrides, halves, steps)
        tell("comparing")
        return _compare(whole, halves, steps, half)


def _arguments(overrides: Sequence[str], stop: int, resume: str = "none") -> list[str]:
    """The command line of a run that is stopped; what it shortens takes the place of what was typed."""
    own = _SHORT | {_STOP: f"{{_target_:{__name__}.StopAfter,step:{stop}}}", "resume": resume}
    kept = [line for line in overrides if not _is_replaced(line.lstrip("+~").partition("=")[0], own)]
    return [*kept, *(f"{key}={value}" for key, value in own.items())]


def _is_replaced(key: str, own: Mapping[str, str]) -> bool:
    return key in own or key.startswith(("logger.", "hydra."))


def _train(overrides: Sequence[str], folder: Path, stop: int) -> None:
    from llama_exp.run.job import run_job

    arguments = _arguments(overrides, stop)
    try:
        # What it says of its stop, and of how to go on, is not for the person who waits here.
        with contextlib.redirect_stderr(io.StringIO()):
            run_job(compose(arguments, COMMAND), arguments, folder)
    except Preempted:
        return
    raise RuntimeError(f"the run was to stop after step {stop}, and went on")


def _go_on(overrides: Sequence[str], folder: Path, stop: int) -> None:
    arguments = [*_arguments(overrides, stop, resume=str(folder)), f"hydra.run.dir={folder}"]
    command = [sys.executable, "-m", "llama_exp", "train", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    if done.returncode != ExitCode.PREEMPTED:
        raise RuntimeError(f"the run that went on ended with exit code {done.returncode}\n{done.stderr[-2000:]}")


def _compare(whole: Path, halves: Path, steps: int, half: int) -> Resumption:
    from llama_exp.trainer import load

    one, other = (load(folder / "checkpoints" / f"step-{steps:08d}") for folder in (whole, halves))
    rows, others = (list(map(_without_clock, read_metrics(folder / "metrics.jsonl"))) for folder in (whole, halves))
    differences = [
        *find_other_arrays(one.tensors, other.tensors),
        *find_other_values(_plain(one), _plain(other)),
        *find_other_rows(rows, others),
    ]
    return Resumption(steps, half, sum(map(len, one.tensors.values())), len(rows), differences)


def find_other_arrays(ours: Groups, theirs: Groups) -> Iterator[str]:
    """In words: every array of a checkpoint that has not the same bits, or is in one alone."""
    for group in sorted({*ours, *theirs}):
        one, other = ours.get(group, {}), theirs.get(group, {})
        for name in sorted({*one, *other}):
            if name not in one or name not in other:
                yield f"{group}: {name} is in one run alone"
            elif one[name].dtype != other[name].dtype or one[name].tobytes() != other[name].tobytes():
                yield f"{group}: {name}: {_describe(one[name], other[name])}"


def find_other_values(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """In words: every fact of a checkpoint that is not the same."""
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            yield f"{name}: {theirs.get(name)}, without a stop {ours.get(name)}"


def find_other_rows(ours: Sequence[Row], theirs: Sequence[Row]) -> Iterator[str]:
    """In words: the first row of metrics that is not the same."""
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
            what = ", ".join(f"{key} {other.get(key)}, without a stop {one.get(key)}" for key in keys)
            yield f"metrics of step {one.get('step')}, {one.get('split')}: {what}"
            return
    if len(ours) != len(theirs):
        yield f"metrics: {len(theirs)} rows, without a stop {len(ours)}"


def _describe(one: np.ndarray, other: np.ndarray) -> str:
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"{other.dtype}{other.shape}, without a stop {one.dtype}{one.shape}"
    wide, others = one.astype(np.float64), other.astype(np.float64)
    return f"{int((wide != others).sum())} of {one.size} numbers differ, by at most {np.abs(wide - others).max():.3g}"


def _plain(checkpoint: Any) -> dict[str, Any]:
    """What a checkpoint says beside its arrays, without clocks and without the places of lines in files."""
    state = checkpoint.state
    counters = {key: value for key, value in state["progress"].items() if key not in _OF_THE_PROCESS}
    observers = {name: value for name, value in state["observers"].items() if name not in OWN_OBSERVERS}
    facts = {"seeds": state["seeds"], "data": state["data"], "base_digest": checkpoint.base_digest}
    return flatten({"progress": counters, "observers": observers, **facts})


def _without_clock(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in _OF_THE_PROCESS}
