"""The one live line at the bottom of a terminal: how far a run is, or what it does before its first step.

Rich allows one live display at a time, so that bars of single parts (`steps_bar`) are shown in this line while it is
open, and by themselves otherwise.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from llama_exp.console.logs import ConsoleHandler

# Whatever happens to a terminal must not reach the run: OSError: it is gone, ValueError: its stream is closed.
TERMINAL_GONE = (OSError, ValueError, AttributeError)
_REFRESHES_PER_SECOND = 4
_open_lines: list[LiveLine] = []  # at most one


class LiveLine:
    """A line that is drawn anew four times a second, below everything that is logged.

    Args:
        render: (columns, whether only ASCII can be shown) -> the line.
    """

    def __init__(self, render: Callable[[int, bool], str]):
        self._render = render
        self._live: Any = None
        self._stream: Any = None
        self._phase: str | None = None
        self._phase_since = 0.0

    def open(self) -> None:
        """Shows the line, if standard error is a terminal."""
        if is_terminal() and self._live is None and not _open_lines:
            with contextlib.suppress(*TERMINAL_GONE):
                self._open()

    def close(self, leaves: bool = True) -> None:
        """Leaves the line on the screen as it is, or takes it away."""
        live, self._live = self._live, None
        if live is None:
            return
        live.transient = not leaves
        _open_lines.remove(self)
        ConsoleHandler.print_above_bar = None
        with contextlib.suppress(*TERMINAL_GONE):
            live.stop()
        if self._stream is not None:
            with contextlib.suppress(*TERMINAL_GONE):
                self._stream.close()

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

    def _open(self) -> None:
        from rich.live import Live  # only where there is a terminal
        from rich.text import Text

        self._stream = _own_stream()
        console = terminal(self._stream)

        def line() -> Text:
            text = self._render(console.width - 1, console.options.ascii_only)
            return Text(text, no_wrap=True, overflow="crop")

        def print_above(text: str) -> None:
            console.print(Text(text), soft_wrap=True)

        self._live = Live(get_renderable=line, console=console, refresh_per_second=_REFRESHES_PER_SECOND)
        self._live.start()
        _open_lines.append(self)
        ConsoleHandler.print_above_bar = print_above


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


def is_terminal() -> bool:
    """Whether standard error is a terminal that can move its cursor."""
    try:
        return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    except (ValueError, AttributeError):
        return False


def terminal(stream: Any = None) -> Any:
    """A rich console with a sensible width, also where COLUMNS or the terminal says 0; None: on standard error."""
    from rich.console import Console

    says_nothing = os.environ.get("COLUMNS", "1").strip() == "0"
    width = shutil.get_terminal_size().columns if says_nothing else None
    return Console(stderr=True, file=stream, width=width, markup=False, emoji=False, highlight=False)


def format_seconds(seconds: float) -> str:
    """0:07, 1:23, 2:03:04, 3 days, 1:00:00."""
    text = str(datetime.timedelta(seconds=round(seconds))).removeprefix("0:")
    return text[1:] if len(text) == 5 and text[0] == "0" else text


def _own_stream() -> Any:
    """Standard error by a descriptor of our own, the terminal's also while a library's chatter is turned away."""
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="backslashreplace")
    except (OSError, ValueError, AttributeError):  # no stream of the system's
        return None
