"""What a job of a sweep is, and how it can end."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig


class State(enum.Enum):
    """What became of a job so far."""

    pending = "pending"
    running = "running"
    finished = "finished"
    failed = "failed"  # raised, ended its process, was killed, ran out of memory, or hung
    interrupted = "interrupted"  # by SIGINT, with a checkpoint; goes on
    preempted = "preempted"  # by SIGTERM, SIGUSR1 or SIGHUP, with a checkpoint; goes on
    pruned = "pruned"  # by a search that expects nothing of it, with a checkpoint


# What is not over: a sweep that goes on takes such a job up.
LEFT = (State.pending, State.running, State.interrupted, State.preempted)


@dataclass(frozen=True)
class Needs:
    """What a job needs of the machine.

    environment: variables that libraries read when they are imported; jobs that agree in all share a fork server.
    memory_bytes: at its peak, as far as anybody can tell; None: nobody can.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Job:
    """One point of a sweep, frozen before the first one started.

    number: its place in the sweep, the same over all attempts. overrides: those that differ between the jobs.
    all_overrides: as Hydra has them. folder: where it runs. cfg: composed, `hydra` node included, interpolations open.
    """

    number: int
    overrides: tuple[str, ...]
    all_overrides: tuple[str, ...]
    folder: Path
    cfg: DictConfig


@dataclass(frozen=True)
class Outcome:
    """How one attempt at a job ended.

    cause: one line for a person, None if it finished. exit_code: of its process, None if a signal ended it.
    value: what the job returned (the objective). error: the exception that left the job, if it could be sent.
    """

    state: State
    cause: str | None = None
    exit_code: int | None = None
    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True)
class Glimpse:
    """How far a running job is, as far as its folder tells.

    phase: what it does beside its steps. steps: in all. loss: the last of a training row, nats per token.
    """

    phase: str | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    validation_loss: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None
