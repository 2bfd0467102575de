"""What a person sees of a sweep while it runs: a live table on a terminal, plain lines elsewhere.

Failures, and warnings that jobs print, are told when they happen, above the table. No thread draws: a process that
forks should have none, so that the table moves when its pool says how far the jobs are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llama_exp.console.live import format_seconds
from llama_exp.console.live_area import LiveArea
from llama_exp.console.logs import say
from llama_exp.console.progress import format_number
from llama_exp.files.shown_path import show_path
from llama_exp.sweeps.board import Board, Row, format_value, list_numbers
from llama_exp.sweeps.jobs import Glimpse, Job, Outcome, State
from llama_exp.sweeps.output import Messages, find_log

_SECONDS_BETWEEN_DRAWINGS = 0.25
_SECONDS_BETWEEN_LINES = 10.0  # of one job, where there is no terminal


class Table:
    """Observer of a pool.

    Args:
        folder: the sweep's.
        total: jobs in all, or trials that were asked for.
        waiting: the jobs that will run, as far as they are known; a search knows none.
        earlier: how many had finished before.
        objective: what a job returns, in words: `validation loss`.
        direction: which of its values are better, `minimize` or `maximize`; None: nobody says.
        now: seconds on a clock that never goes back.
    """

    def __init__(
        self,
        folder: Path,
        total: int,
        waiting: Sequence[Job] = (),
        earlier: int = 0,
        objective: str = "value",
        direction: str | None = None,
        now: Callable[[], float] = time.monotonic,
    ):
        self._folder, self._objective, self._direction, self._now = folder, objective, direction, now
        self._board = Board(total, waiting, earlier, now)
        self._messages = Messages(folder)
        self._area = LiveArea(self._draw, per_second=None)
        self._drawn = float("-inf")
        self._lines: dict[int, tuple[float, Glimpse]] = {}  # the last plain line of each running job: when, and what

    def on_start(self, job: Job, pid: int) -> None:
        """A job begins."""
        row = self._board.start(job)
        self._lines[job.number] = (self._now(), Glimpse())
        self._area.open()
        self._show(f"job {job.number} started: {row.text}")

    def on_tick(self, running: Sequence[tuple[Job, Glimpse, float]]) -> None:
        """How far the running jobs are."""
        self._board.tick(running)
        for job, glimpse, _ in running:
            self._tell_messages(job.number)
            if not self._area.is_open:
                self._tell_progress(job.number, glimpse)
        if self._now() - self._drawn >= _SECONDS_BETWEEN_DRAWINGS:
            self._redraw()

    def on_end(self, job: Job, outcome: Outcome) -> None:
        """A job ended: a failure is told at once, with the command that shows it."""
        self._tell_messages(job.number)
        row = self._board.end(job, outcome)
        self._lines.pop(job.number, None)
        line = self._ending(row)
        if outcome.state is State.failed:
            say(f"{line}\n  see: less {show_path(find_log(self._folder, job.number, job.folder))}")
            self._redraw()
        else:
            self._show(line)

    def close(self) -> None:
        """Takes the table away: what is told at the end has all that it says."""
        for message, numbers in self._messages.repeated():
            say(f"the same in job {list_numbers(numbers)}: {message.splitlines()[0]}")
        self._area.close(leaves=False)

    def _show(self, line: str) -> None:
        """An ordinary event: the table shows it, or a line says it."""
        if self._area.is_open:
            self._redraw()
        else:
            say(line)

    def _redraw(self) -> None:
        self._drawn = self._now()
        self._area.refresh()

    def _draw(self, columns: int, lines: int, ascii_only: bool) -> Any:
        from rich.text import Text  # only where there is a terminal

        from llama_exp.sweeps.table_text import Style, draw

        drawn = draw(self._board, show_path(self._folder), self._direction, Style(columns, lines, ascii_only))
        return Text("\n", no_wrap=True, overflow="crop").join(Text(text, look) for text, look in drawn)

    def _tell_messages(self, number: int) -> None:
        for message in self._messages.read(number):
            say("\n".join(f"job {number} | {line}" for line in message.splitlines()))

    def _tell_progress(self, number: int, glimpse: Glimpse) -> None:
        """A line at most every ten seconds, if the job has moved."""
        when, before = self._lines[number]
        has_moved = (glimpse.step, glimpse.validation_loss) != (before.step, before.validation_loss)
        if has_moved and glimpse.step is not None and self._now() - when >= _SECONDS_BETWEEN_LINES:
            self._lines[number] = (self._now(), glimpse)
            say(f"job {number}: {_progress(glimpse)}")

    def _ending(self, row: Row) -> str:
        """`job 3 finished in 0:12: validation loss 2.8912`."""
        number, took = row.job.number, format_seconds(row.seconds)
        if row.state is State.finished:
            value = format_value(row.value)
            return f"job {number} finished in {took}" + (f": {self._objective} {value}" if value else "")
        cause = "" if row.cause is None else f": {row.cause}"
        return f"job {number} ({row.text}) {row.state.value} after {took}{cause}"


def _progress(glimpse: Glimpse) -> str:
    parts = [f"step {glimpse.step}" + ("" if glimpse.steps is None else f"/{glimpse.steps}")]
    if glimpse.loss is not None:
        parts.append(f"loss {format_value(glimpse.loss)}")
    if glimpse.validation_loss is not None:
        parts.append(f"validation loss {format_value(glimpse.validation_loss)}")
    if glimpse.tokens_per_second is not None:
        parts.append(f"{format_number(glimpse.tokens_per_second)} tokens/s")
    if glimpse.seconds_left is not None:
        parts.append(f"ETA {format_seconds(glimpse.seconds_left)}")
    return "  ".join(parts)
