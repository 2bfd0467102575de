"""What a command that computes shows meanwhile."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console


@contextlib.contextmanager
def told() -> Iterator[Callable[[str], None]]:
    """Yields what shows, on a terminal, what is being done."""
    console = Console(file=sys.stderr)  # as it is now: a run may turn it away
    if not console.is_terminal:
        yield lambda phase: None
        return
    with console.status("") as status:
        yield lambda phase: status.update(f"[not bold]{phase}")
