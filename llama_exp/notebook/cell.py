"""What a run shows in the cell of a notebook: one line that moves, and below it what is logged."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import html
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from llama_exp.console.live_area import LiveArea

_SECONDS_BETWEEN_DRAWINGS = 0.25


class Cell:
    """The place in the output of the running cell where a line stands; it appears with the first line.

    Args:
        publisher: of displays, the kernel's `display_pub`.
    """

    def __init__(self, publisher: Any):
        self._publisher, self._id = publisher, uuid.uuid4().hex
        self._appeared = False
        self.text = ""

    def show(self, text: str) -> None:
        """Puts a line there."""
        if self._appeared and text == self.text:
            return
        forms = {"text/plain": text, "text/html": f'<pre style="margin:0">{html.escape(text)}</pre>'}
        self._publisher.publish(forms, transient={"display_id": self._id}, update=self._appeared)
        self.text, self._appeared = text, True


class CellLine:
    """A line in a cell, drawn anew four times a second; a `live_area.Canvas`.

    Args:
        cell: where it stands; what stood there comes back if the line is taken away.
        draw: gives the line.
    """

    def __init__(self, cell: Cell, draw: Callable[[], str]):
        self.transient = False
        self._cell, self._draw, self._before = cell, draw, cell.text
        self._done = threading.Event()
        self.refresh()
        # In the context of the cell: by it the kernel knows whose output this is.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=lambda: context.run(self._watch), daemon=True)
        self._thread.start()

    def refresh(self) -> None:
        """Draws the line as it is now."""
        self._cell.show(self._draw())

    def stop(self) -> None:
        """Leaves the line as it is, or takes it away."""
        self._done.set()
        self._thread.join()
        self._cell.show(self._before if self.transient else self._draw())

    def _watch(self) -> None:
        while not self._done.wait(_SECONDS_BETWEEN_DRAWINGS):
            self.refresh()


@contextlib.contextmanager
def shown_in_cell() -> Iterator[None]:
    """In a notebook, a run inside the block shows itself in the cell; elsewhere it does as on any terminal."""
    shell = find_shell()
    if shell is None:
        yield
        return
    LiveArea.canvas = functools.partial(CellLine, Cell(shell.display_pub))
    try:
        # Notebooks show standard error as if all of it were wrong.
        with contextlib.redirect_stderr(sys.stdout):
            yield
    finally:
        LiveArea.canvas = None


def find_shell() -> Any:
    """IPython's shell, if this process is the kernel of a notebook, which has imported it; else None."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell if getattr(shell, "kernel", None) is not None else None
