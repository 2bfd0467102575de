"""A sweep's journal for jobs that no launcher of ours runs: each tells itself what becomes of it, wherever it runs.

Nothing here takes the sweep's lock, which the process has that started the sweep.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_exp.files.redact import redact_arguments
from llama_exp.sweeps import journal
from llama_exp.sweeps.app import App
from llama_exp.sweeps.jobs import Outcome
from llama_exp.sweeps.opening import added_entries
from llama_exp.sweeps.record import Entry, find_entry, holds_sweep, read_record
from llama_exp.sweeps.states import RETRY, Status, find_status, may_start

DEPTH = 4  # folders between a sweep and its jobs, at most


@dataclass(frozen=True)
class Reporter:
    """Tells the journal of a sweep about one of its jobs.

    sweep_dir: the sweep's folder. entry: the job. status: what became of it before. may_start: whether the sweep, as
    it was started last, would start the job. command: what started it last, secrets masked; None: nobody knows.
    """

    sweep_dir: Path
    entry: Entry
    status: Status
    may_start: bool
    command: str | None = None

    @property
    def folder(self) -> Path:
        """Where the job runs, also where its launcher counts in another way."""
        return self.sweep_dir / self.entry.folder

    def begin(self) -> None:
        """An attempt begins, in this process."""
        journal.append_begin(self.sweep_dir, self.entry.number, self.status.attempts + 1, os.getpid())

    def end(self, outcome: Outcome) -> None:
        """It ended."""
        journal.append_end(self.sweep_dir, self.entry.number, self.status.attempts + 1, outcome)


def find_by_overrides(sweep_dir: Path, overrides: Sequence[str], app: App) -> Reporter | None:
    """The reporter of the job that Hydra's overrides mean; None: the folder holds no sweep, or not this job.

    Raises:
        InputError: the record of the sweep is damaged.
    """
    return _find(sweep_dir, app, lambda entries: find_entry(entries, redact_arguments(overrides)))


def find_by_folder(folder: Path, app: App) -> Reporter | None:
    """The reporter of the job that runs in a folder by itself; None: it is no job of a sweep."""
    folder = folder.absolute()
    for sweep_dir in folder.parents[:DEPTH]:
        if holds_sweep(sweep_dir):
            return _find(sweep_dir, app, functools.partial(_in_folder, name=str(folder.relative_to(sweep_dir))))
    return None


def _in_folder(entries: Sequence[Entry], name: str) -> Entry | None:
    return next((entry for entry in entries if entry.folder == name), None)


def _find(sweep_dir: Path, app: App, choose: Callable[[list[Entry]], Entry | None]) -> Reporter | None:
    if not holds_sweep(sweep_dir):
        return None
    events = journal.read(sweep_dir)
    entry = choose([*read_record(sweep_dir).entries, *added_entries(events)])
    if entry is None:
        return None
    own = [event for event in events if event["event"] in ("begin", "end") and event["job"] == entry.number]
    status = find_status(own, sweep_dir / entry.folder, app)
    opened = ([event for event in events if event["event"] == "open"] or [{}])[-1]
    may = may_start(status.state, str(opened.get("on_failed", RETRY)))
    return Reporter(sweep_dir, entry, status, may, opened.get("command"))
