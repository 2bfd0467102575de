"""The one live line at the bottom of a terminal: how far a run is, or what it does before its first step.

Rich allows one live display at a time, so that bars of single parts (`steps_bar`) are shown in this line while it is
open, and by themselves otherwise.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any

from llama_exp.console.live_area import LiveArea, is_terminal, terminal

_REFRESHES_PER_SECOND = 4
_open_lines: list[LiveLine] = []  # at most one


class LiveLine:
    """A line that is drawn anew four times a second, below everything that is logged.

    Args:
        render: (columns, whether only ASCII can be shown) -> the line.
    """

    def __init__(self, render: Callable[[int, bool], str]):
        def draw(columns: int, lines: int, ascii_only: bool) -> Any:
            from rich.text import Text  # only where there is a terminal

            return Text(render(columns, ascii_only), no_wrap=True, overflow="crop")

        self._area = LiveArea(draw, _REFRESHES_PER_SECOND)
        self._phase: str | None = None
        self._phase_since = 0.0

    def open(self) -> None:
        """Shows the line, if standard error is a terminal."""
        if not self._area.is_open:
            self._area.open()
            if self._area.is_open:
                _open_lines.append(self)

    def close(self, leaves: bool = True) -> None:
        """Leaves the line on the screen as it is, or takes it away."""
        if self in _open_lines:
            _open_lines.remove(self)
        self._area.close(leaves)

    def show_phase(self, phase: str | None) -> None:
        """What happens beside or before the steps; None: nothing else."""
        if phase != self._phase:
            self._phase, self._phase_since = phase, time.monotonic()

    @contextlib.contextmanager
    def part(self, description: str) -> Iterator[Callable[[str], None]]:
        """A phase while the block runs; yields what is called with how far it is."""
        before = self._phase
        self.show_phase(description)

        def show(how_far: str) -> None:
            self._phase = f"{description} {how_far}"  # its time goes on

        try:
            yield show
        finally:
            self.show_phase(before)

    @property
    def phase(self) -> str | None:
        """What happens and for how long: `compiling 0:07`."""
        if self._phase is None:
            return None
        seconds = round(time.monotonic() - self._phase_since)
        return self._phase if seconds < 1 else f"{self._phase} {format_seconds(seconds)}"


@contextlib.contextmanager
def steps_bar(description: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar with times while its block runs, if standard error is a terminal; yields what each step has to call."""
    if _open_lines:
        with _open_lines[0].part(description) as show:
            done = 0

            def advance() -> None:
                nonlocal done
                done += 1
                show(f"{done}/{total}")

            yield advance
        return
    if not is_terminal():
        yield lambda: None
        return
    from rich import progress

    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn())
    with _bar(columns) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


@contextlib.contextmanager
def amount_bar(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar for work counted in bytes or characters (reading, tokenizing), as `steps_bar` shows steps.

    Args:
        description: what is done.
        total: bytes in all, about; None: not known, the bar then only shows how many there were and that it moves.
    """
    if _open_lines:
        with _open_lines[0].part(description) as show:
            done = 0

            def add(amount: int) -> None:
                nonlocal done
                done += amount
                show(f"{done / 1e6:.1f} MB" if total is None else f"{min(1.0, done / max(total, 1)):.0%}")

            yield add
        return
    if not is_terminal():
        yield lambda amount: None
        return
    from rich import progress

    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn())
    with _bar(columns) as bar:
        task = bar.add_task(description, total=total)
        yield lambda amount: bar.advance(task, amount)


def _bar(columns: tuple) -> Any:
    from rich import progress

    times = (progress.TimeElapsedColumn(), progress.TimeRemainingColumn())
    return progress.Progress(*columns, *times, console=terminal(), transient=True)


def format_seconds(seconds: float) -> str:
    """0:07, 1:23, 2:03:04, 3 days, 1:00:00."""
    text = str(datetime.timedelta(seconds=round(seconds))).removeprefix("0:")
    return text[1:] if len(text) == 5 and text[0] == "0" else text
