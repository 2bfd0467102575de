"""What is known of a sweep's jobs while it runs: one row each, and the figures of the whole."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llama_exp.files.redact import printable, redact_arguments
from llama_exp.sweeps.estimate import estimate_left
from llama_exp.sweeps.jobs import Glimpse, Job, Outcome, State


@dataclass
class Row:
    """A job as a person follows it. text: its overrides. seconds: of its last attempt so far."""

    job: Job
    text: str
    state: State = State.pending
    glimpse: Glimpse = field(default_factory=Glimpse)
    seconds: float = 0.0
    cause: str | None = None
    value: Any = None
    began: float = 0.0


class Board:
    """The jobs of one invocation.

    Args:
        total: jobs of the sweep in all, or trials that were asked for.
        waiting: the jobs that this invocation will run, as far as they are known.
        earlier: how many had finished before it.
        now: seconds on a clock that never goes back.
    """

    def __init__(
        self, total: int, waiting: Sequence[Job] = (), earlier: int = 0, now: Callable[[], float] = time.monotonic
    ):
        self.total, self.earlier = total, earlier
        self.rows = {job.number: make_row(job) for job in waiting}
        self._now, self._began, self._most_at_once = now, now(), 1

    @property
    def seconds(self) -> float:
        """Since this invocation began."""
        return self._now() - self._began

    def start(self, job: Job) -> Row:
        """A job begins, perhaps for the second time."""
        row = self.rows[job.number] = make_row(job)
        row.state, row.began = State.running, self._now()
        self._most_at_once = max(self._most_at_once, self.counts()[State.running])
        return row

    def tick(self, running: Iterable[tuple[Job, Glimpse, float]]) -> None:
        """How far the running jobs are."""
        for job, glimpse, seconds in running:
            row = self.rows[job.number]
            row.glimpse, row.seconds = glimpse, seconds

    def end(self, job: Job, outcome: Outcome) -> Row:
        """A job ended; also one that never started, because its process could not be made."""
        row = self.rows.setdefault(job.number, make_row(job))
        row.seconds = self._now() - row.began if row.state is State.running else 0.0
        row.state, row.cause, row.value = outcome.state, outcome.cause, outcome.value
        if outcome.state is State.finished and row.glimpse.steps is not None:
            row.glimpse = replace(row.glimpse, step=row.glimpse.steps)  # the last look was a little earlier
        return row

    def counts(self) -> Mapping[State, int]:
        """Jobs by state; waiting ones that are not known yet included."""
        counts = Counter(row.state for row in self.rows.values())
        counts[State.finished] += self.earlier
        counts[State.pending] += max(0, self.total - sum(counts.values()))
        return counts

    def left(self) -> float | None:
        """Seconds until the last job ends, as far as anybody can tell."""
        ended = [row.seconds for row in self.rows.values() if row.state is State.finished]
        running = [row for row in self.rows.values() if row.state is State.running]
        lengths = ended or [
            row.seconds + row.glimpse.seconds_left for row in running if row.glimpse.seconds_left is not None
        ]
        mean = sum(lengths) / len(lengths) if lengths else None
        left = [_seconds_left(row, mean) for row in running]
        return estimate_left(left, self.counts()[State.pending], self._most_at_once, mean)


def make_row(job: Job) -> Row:
    """A row of a job that waits."""
    return Row(job, printable(" ".join(redact_arguments(job.overrides))) or "no overrides")


def find_best(values: Mapping[int, Any], direction: str | None) -> int | None:
    """The number of the job with the best value; None where none is a finite number, or nobody says what is better.

    Args:
        values: number of the job -> what it returned.
        direction: `minimize`, `maximize`, or None.
    """
    numbers = [number for number, value in values.items() if is_number(value)]
    if direction is None or not numbers:
        return None
    choose = min if direction == "minimize" else max
    return choose(numbers, key=lambda number: values[number])


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def format_value(value: Any) -> str:
    """2.8912; several objectives with commas between them; anything else as it is."""
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value))
    if isinstance(value, float):
        return f"{value:.4f}" if not value or 1e-3 <= abs(value) < 1e6 else f"{value:.3e}"
    return "" if value is None else printable(str(value))


def list_numbers(numbers: Iterable[int]) -> str:
    """0-9, 11, 13."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _seconds_left(row: Row, mean: float | None) -> float | None:
    if row.glimpse.seconds_left is not None:
        return row.glimpse.seconds_left
    return None if mean is None else max(0.0, mean - row.seconds)
