"""A bar for work whose amount is counted in bytes or characters: reading, tokenizing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from llama_exp.console.progress import is_terminal, terminal


@contextlib.contextmanager
def amount_bar(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar while its block runs, if standard error is a terminal; yields what is called with each amount done.

    Args:
        description: what is done.
        total: bytes in all, about; None: not known, the bar then only shows how many there were and that it moves.
    """
    if not is_terminal():
        yield lambda amount: None
        return
    from rich import progress

    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn())
    times = (progress.TimeElapsedColumn(), progress.TimeRemainingColumn())
    with progress.Progress(*columns, *times, console=terminal(), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda amount: bar.advance(task, amount)
