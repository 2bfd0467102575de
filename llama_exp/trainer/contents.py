"""What the loop writes beside a checkpoint's arrays, read back: how far it was, the seeds, the observers' states."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llama_exp.errors import InputError
from llama_exp.trainer.checkpoint import Checkpoint
from llama_exp.trainer.counters import Counters

STRIPPED = "stripped"  # in the state of a checkpoint that has no optimizer any more
_ACTION = "go on from another checkpoint with resume=<checkpoint folder>, or begin a new run with resume=none"


@dataclass(frozen=True)
class Contents:
    """The checked `state` of a checkpoint.

    counters: how far the run was. seeds: of the seed generators, in the order in which the model made them; integer
    arrays. observers: name -> what that observer's `state` gave.
    """

    counters: Counters
    seeds: list[np.ndarray]
    observers: dict[str, Any]


def read_contents(checkpoint: Checkpoint) -> Contents:
    """What a checkpoint says beside its arrays.

    Raises:
        InputError: it is of another form than the loop writes; its digests are right, so another program wrote it.
    """
    state = checkpoint.state
    seeds, observers = state.get("seeds"), state.get("observers")
    if not isinstance(seeds, list) or not all(map(_is_seed, seeds)):
        raise foreign(checkpoint, "seeds", seeds)
    if not isinstance(observers, dict):
        raise foreign(checkpoint, "observers", observers)
    return Contents(_read_counters(checkpoint), [np.array(numbers, dtype="int64") for numbers in seeds], observers)


def require_optimizer(checkpoint: Checkpoint) -> None:
    """Raises `InputError` if the optimizer's state was removed when the run had finished."""
    if checkpoint.state.get(STRIPPED):
        raise without_optimizer(checkpoint.folder)


def without_optimizer(folder: Path) -> InputError:
    """The error of a checkpoint that has weights alone."""
    what = "the run has finished, and kept no optimizer's state to go on with (trainer.keep_optimizer)"
    action = "begin a new run with resume=none, and trainer.keep_optimizer=always if it is to be made longer later"
    return InputError.about(folder, what, "weights alone", action)


def restore_part(checkpoint: Checkpoint, part: str, value: Any, restore: Callable[[Any], None]) -> None:
    """Calls `restore(value)`; raises `InputError` where the value is of another form than it takes."""
    try:
        restore(value)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise foreign(checkpoint, part, f"{value} ({error!r})") from error


def foreign(checkpoint: Checkpoint, part: str, found: object) -> InputError:
    """The error of a part of the state that this version of the package did not write."""
    what = "the checkpoint's state is of another form than this version of llama_exp writes"
    return InputError.about(checkpoint.folder, what, f"{part}: {str(found)[:100]}", _ACTION)


def _read_counters(checkpoint: Checkpoint) -> Counters:
    progress = checkpoint.state.get("progress")
    fields = {field.name: field for field in dataclasses.fields(Counters)}
    if not isinstance(progress, Mapping) or not progress.keys() <= fields.keys():
        raise foreign(checkpoint, "progress", progress)
    for name, value in progress.items():
        if not _fits(value, str(fields[name].type)):
            raise foreign(checkpoint, f"progress.{name}", value)
    counters = Counters(**progress)
    if counters.step != checkpoint.step:
        raise foreign(checkpoint, "progress.step", f"{counters.step}, of a checkpoint of step {checkpoint.step}")
    return counters


def _fits(value: object, annotation: str) -> bool:
    """Whether a value of JSON is of one of Counters' types."""
    if value is None:
        return annotation.endswith("| None")
    if annotation.startswith("int"):
        return type(value) is int and value >= -1
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_seed(numbers: object) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
