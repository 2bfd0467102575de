"""A run's folder while the run goes on: whoever deletes, moves or replaces it ends the run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from llama_exp.errors import Problem, StorageError


class KeptFolder:
    """Observer that fails as soon as the folder is no longer the one that the run began to write into.

    Otherwise open files would take the rest of the metrics with them, and the next checkpoint would make a new folder
    with half of a run in it.

    Args:
        path: the folder; until `remember` nothing is compared.
    """

    def __init__(self, path: Path):
        self._path = path
        self._identity: tuple[int, int] | None = None

    def remember(self) -> None:
        """Takes the folder that is there now for the run's."""
        self._identity = _identify(self._path)

    def require(self) -> None:
        """Raises `StorageError` unless the folder is where it was."""
        found = _identify(self._path)
        if self._identity in (None, found):
            return
        what = "the run folder was deleted, moved or replaced while the run was going on"
        lost = "what it held, the last checkpoint too, is lost to this run"
        state = "there is no such folder any more" if found is None else "another folder has its name"
        action = "if it was moved, give it its name back and go on with resume=auto; else begin a new run"
        raise StorageError(Problem(what, str(self._path), f"{state}; {lost}", action))

    def on_start(self, facts: dict[str, Any]) -> None:
        """Compares."""
        self.require()

    def on_metrics(self, row: dict[str, Any]) -> None:
        """Compares, before others write the row."""
        self.require()

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """Compares, before others write the text."""
        self.require()

    def on_finish(self, status: str) -> None:
        """Nothing: whatever ended the run is told."""

    def state(self) -> dict[str, Any]:
        """Nothing to remember; compares, before a checkpoint is written."""
        self.require()
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing."""


def _identify(path: Path) -> tuple[int, int] | None:
    """Device and number of a folder; None: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
