"""The part of a terminal below the log lines that is drawn anew while something runs; there is one at a time.

Everything that is logged meanwhile stands above it. Whatever happens to the terminal never reaches what runs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any, Protocol

from llama_exp.console.logs import ConsoleHandler, write_line

# Whatever happens to a terminal must not reach the run: OSError: it is gone, ValueError: its stream is closed.
TERMINAL_GONE = (OSError, ValueError, AttributeError)
CANVAS_COLUMNS, CANVAS_LINES = 100, 20  # of what is no terminal and has no size
_open_areas: list[LiveArea] = []  # at most one


class Canvas(Protocol):
    """What shows a live area where there is no terminal: the cell of a notebook.

    transient: whether `stop` takes it away.
    """

    transient: bool

    def refresh(self) -> None:
        """Draws it as it is now."""

    def stop(self) -> None:
        """Leaves it as it is, or takes it away."""


class LiveArea:
    """What is drawn at the bottom of the terminal while it is open.

    Args:
        render: (columns, lines, whether only ASCII can be shown) -> a `rich.text.Text` of at most so many.
        per_second: how often it is drawn by a thread; None: by `refresh` alone. A process that forks has no threads.
    """

    def __init__(self, render: Callable[[int, int, bool], Any], per_second: int | None):
        self._render, self._per_second = render, per_second
        self._live: Any = None
        self._stream: Any = None

    @property
    def is_open(self) -> bool:
        """Whether it is on the screen."""
        return self._live is not None

    # Makes the canvas of an area that draws a text; None: areas are on the terminal, if there is one.
    canvas: Callable[[Callable[[], str]], Canvas] | None = None

    def open(self) -> None:
        """Shows it, if standard error is a terminal that shows no other, or there is a canvas."""
        if LiveArea.canvas is not None and not _open_areas:
            self._live = LiveArea.canvas(lambda: self._render(CANVAS_COLUMNS, CANVAS_LINES, False).plain)
            _open_areas.append(self)
            ConsoleHandler.print_above_bar = write_line
        elif is_terminal() and ConsoleHandler.name_of_lines is None and not _open_areas:
            with contextlib.suppress(*TERMINAL_GONE):
                self._open()

    def refresh(self) -> None:
        """Draws it as it is now."""
        if self._live is not None:
            with contextlib.suppress(*TERMINAL_GONE):
                self._live.refresh()

    def close(self, leaves: bool = True) -> None:
        """Leaves it on the screen as it is, or takes it away."""
        live, self._live = self._live, None
        if live is None:
            return
        live.transient = not leaves
        _open_areas.remove(self)
        ConsoleHandler.print_above_bar = None
        with contextlib.suppress(*TERMINAL_GONE):
            live.stop()
        if self._stream is not None:
            with contextlib.suppress(*TERMINAL_GONE):
                self._stream.close()

    def forget(self) -> None:
        """In a forked process, whose terminal the parent writes to: no longer open, and nothing is written."""
        self._live = None

    def _open(self) -> None:
        from rich.live import Live  # only where there is a terminal
        from rich.text import Text

        self._stream = _own_stream()
        console = terminal(self._stream)

        def draw() -> Any:
            return self._render(console.width - 1, console.height - 1, console.options.ascii_only)

        def print_above(text: str) -> None:
            console.print(Text(text), soft_wrap=True)

        often, by_thread = self._per_second or 1, self._per_second is not None
        self._live = Live(get_renderable=draw, console=console, auto_refresh=by_thread, refresh_per_second=often)
        self._live.start()
        _open_areas.append(self)
        ConsoleHandler.print_above_bar = print_above


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


def _own_stream() -> Any:
    """Standard error by a descriptor of our own, the terminal's also while a library's chatter is turned away."""
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="backslashreplace")
    except (OSError, ValueError, AttributeError):  # no stream of the system's
        return None


def _forget_in_child() -> None:
    """A forked process has its parent's area, its streams and its way of logging: otherwise it would draw there too."""
    if _open_areas:
        _open_areas.pop().forget()
        ConsoleHandler.print_above_bar = None
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            setattr(sys, name, getattr(stream, "rich_proxied_file", stream))


os.register_at_fork(after_in_child=_forget_in_child)
