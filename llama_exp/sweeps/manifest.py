"""The manifest of a sweep: its frozen points in `sweep.json`, what happened to each in `sweep.jsonl`, and a lock.

    with Manifest.open(sweep_dir, points, app, facts, resume=True) as manifest:   begins a sweep, or goes on with one
        for entry in manifest.list_open(): ...                                    what is left to do
        Pool(..., observers=[manifest])                                           writes down what happens

Two sweeps with the same points are the same sweep, wherever and whenever they were typed. Who tells the truth about a
job: its own folder, then the journal (see `states`).
"""

from __future__ import annotations

import contextvars
import logging
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_exp.config.quoting import plain_or_quoted
from llama_exp.config.sweep_point import Point
from llama_exp.errors import BusyError, ConfigError, Problem
from llama_exp.files.json_text import plain
from llama_exp.files.lock import FolderLock
from llama_exp.files.redact import redact_arguments
from llama_exp.files.shown_path import show_path
from llama_exp.files.writing import make_folder, remove_drafts
from llama_exp.sweeps import journal
from llama_exp.sweeps.app import App
from llama_exp.sweeps.ending import Words
from llama_exp.sweeps.jobs import Glimpse, Job, Outcome, State
from llama_exp.sweeps.liveness import identify_process
from llama_exp.sweeps.opening import added_entries, begin_record, drop_same, go_on_record, mask, tell_other_code
from llama_exp.sweeps.record import RECORD_FILE, Entry, Record, holds_sweep, join_common, key_of, own_lines, read_record
from llama_exp.sweeps.states import RETRY, Status, find_status, may_start, problem_of_live

# A fork server that lost its launcher gives its jobs 30 seconds for a checkpoint.
ORPHAN_SECONDS = 45.0
log = logging.getLogger(__name__)


def collect_facts() -> dict[str, Any]:
    """How this process was started, for an application that says no more of it; secrets masked."""
    return {
        "command": shlex.join(redact_arguments(sys.argv)),
        "arguments": redact_arguments(sys.argv[1:]),
        "working_folder": os.getcwd(),
    }


def make_words(facts: Mapping[str, Any], folder: Path) -> Words:
    """How the end of an application's sweep is told that says no more of itself."""
    command = shlex.split(str(facts.get("command", ""))) or [""]
    program = ["python", command[0]] if command[0].endswith(".py") else command[:1]
    kept = [word for word in command[1:] if not word.startswith("hydra.sweep.dir=")]
    place = f"hydra.sweep.dir={plain_or_quoted(show_path(folder))}"
    return Words(program, shlex.join([*program, *kept, place]))


class Manifest:
    """The manifest of one sweep, owned by this process until it is closed. `open` one.

    Attributes:
        folder: the sweep's.
        entries: its jobs by number, with the overrides of this invocation.
        is_new: whether the sweep began with this invocation.
        words: how its end is told.
        is_told: whether it has been.
    """

    def __init__(self, folder: Path, app: App, lock: FolderLock, on_failed: str, words: Words):
        self.folder, self.is_new = folder, True
        self.entries: dict[int, Entry] = {}
        self._app, self._lock, self._on_failed = app, lock, on_failed
        self.is_told, self.words = False, words
        self._record = Record("", {}, None, {}, (), "")
        self._numbers: dict[frozenset[str], int] = {}
        self._keys: set[str] = set()
        self._events: dict[int, list[dict[str, Any]]] = {}

    @classmethod
    def open(
        cls,
        folder: Path,
        points: Sequence[Point],
        app: App,
        facts: Mapping[str, Any],
        *,
        resume: bool,
        extend: bool = False,
        on_failed: str = RETRY,
        space: Mapping[str, str] | None = None,
        words: Words | None = None,
    ) -> Manifest:
        """Begins the sweep in a folder, or goes on with the one that is there.

        Args:
            folder: the sweep's; made if needed.
            points: in the order of this invocation; of a search one that stands for all.
            app: answers for the folders of jobs.
            facts: how the sweep was started: command, arguments, working_folder; of its code git, patch.
            resume: whether a sweep that is there goes on; else it is refused.
            extend: whether points may be added to it.
            on_failed: what becomes of failed jobs when it goes on: retry or skip.
            space: of a search, key -> what it may be; its jobs are added as it asks for them.
            words: how its end is told; None: by what `facts` say.

        Raises:
            BusyError: another process has the sweep, or a job of it still runs.
            ConfigError: the folder holds a sweep and `resume` is false, or one with other points.
            InputError: its record is damaged.
            StorageError: the folder cannot be written.
        """
        masked = mask(points)
        make_folder(folder)
        words = make_words(facts, folder) if words is None else words
        manifest = cls(folder, app, FolderLock(folder, "sweep"), on_failed, words)
        try:
            manifest._open(masked, facts, resume, extend, space)
        except BaseException:
            manifest.close()
            raise
        return manifest

    @property
    def facts(self) -> Mapping[str, Any]:
        """How the sweep was started at first."""
        return self._record.facts

    @property
    def is_search(self) -> bool:
        """Whether its jobs are added as a search asks for them."""
        return self._record.space is not None

    @property
    def identity(self) -> str:
        """The hash of its points."""
        return self._record.identity

    def find_entry(self, overrides: Sequence[str]) -> Entry | None:
        """The job that Hydra's overrides mean, by those of them whose keys differ between the points."""
        number = self._numbers.get(own_lines(redact_arguments(overrides), self._keys))
        return None if number is None else self.entries[number]

    def folder_of(self, entry: Entry) -> Path:
        """Where a job runs."""
        return self.folder / entry.folder

    def config_of(self, entry: Entry) -> dict[str, Any]:
        """All recorded values of a job, by dotted key."""
        return join_common(self._record.common, entry.differs)

    def find_status(self, number: int) -> Status:
        """What became of a job so far."""
        return find_status(self._events.get(number, ()), self.folder_of(self.entries[number]), self._app)

    def find_statuses(self) -> dict[int, Status]:
        """The same of all jobs, by number; reads again what other processes wrote meanwhile."""
        self._read_events()
        return {number: self.find_status(number) for number in sorted(self.entries)}

    def list_open(self) -> list[Entry]:
        """The jobs that are left to do, by number."""
        statuses = self.find_statuses()
        return [self.entries[number] for number in statuses if may_start(statuses[number].state, self._on_failed)]

    def add(self, point: Point) -> Entry:
        """A further job, of a search, with the next number; raises `ConfigError`, `StorageError`."""
        (masked,) = mask([point])
        number = max(self.entries, default=-1) + 1
        differs = {key: value for key, value in plain(dict(point.config)).items() if self._is_own(key, value)}
        entry = Entry(number, masked.overrides, point.folder_as(number), point.identity, differs)
        facts = {"overrides": entry.overrides, "folder": entry.folder, "identity": entry.identity, "differs": differs}
        journal.append(self.folder, "add", job=number, **facts)
        self._take(entry)
        return entry

    def on_start(self, job: Job, pid: int) -> None:
        """An attempt at a job began, in a process of this machine."""
        attempt = self.find_status(job.number).attempts + 1
        self._remember(journal.append_begin(self.folder, job.number, attempt, pid))

    def on_end(self, job: Job, outcome: Outcome) -> None:
        """It ended."""
        attempt = self.find_status(job.number).attempts
        self._remember(journal.append_end(self.folder, job.number, attempt, outcome))

    def on_tick(self, running: Sequence[tuple[Job, Glimpse, float]]) -> None:
        """Nothing: what happens is written when it does."""

    def close(self) -> None:
        """Gives the folder back."""
        self._lock.release()

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _open(
        self,
        points: Sequence[Point],
        facts: Mapping[str, Any],
        resume: bool,
        extend: bool,
        space: Mapping[str, str] | None,
    ) -> None:
        folder, before, unique = self.folder, None, drop_same(points)
        remove_drafts(folder / RECORD_FILE)
        if holds_sweep(folder):
            before = read_record(folder)
            self.is_new = False
            if not resume:
                raise ConfigError(_taken(folder, before))
            record = go_on_record(before, unique, facts, space, folder, extend)
        else:
            record = begin_record(unique, facts, space)
        events = journal.read(folder, is_first=True)
        if before is not None:
            starts = [event for event in events if event["event"] == "open"]
            tell_other_code({**before.facts, **(starts[-1] if starts else {})}, facts, folder)
        if record != before:
            record.write(folder)
        self._record = record
        for entry in [*record.entries, *added_entries(events)]:
            self._take(entry)
        numbers = {entry.identity: entry.number for entry in record.entries}
        for point in points if space is None else ():  # also those that are others under another name
            self._numbers[own_lines(point.overrides, self._keys)] = numbers[point.identity]
        self._read_events()
        self._wait_for_orphans()
        code = {key: facts.get(key) for key in ("command", "git", "patch")}
        process = identify_process(os.getpid())
        journal.append(folder, "open", process=process, on_failed=self._on_failed, **code)

    def _take(self, entry: Entry) -> None:
        self.entries[entry.number] = entry
        self._keys |= set(map(key_of, entry.overrides))
        self._numbers[own_lines(entry.overrides, self._keys)] = entry.number

    def _is_own(self, key: str, value: Any) -> bool:
        return key not in self._record.common or self._record.common[key] != value

    def _read_events(self) -> None:
        self._events = {}
        for event in journal.read(self.folder):
            if event["event"] in ("begin", "end"):
                self._remember(event)

    def _remember(self, event: dict[str, Any]) -> None:
        self._events.setdefault(event["job"], []).append(event)

    def _wait_for_orphans(self) -> None:
        """Jobs of a launcher that was killed end a little later than it; two at once would spoil each other."""
        deadline, told = time.monotonic() + ORPHAN_SECONDS, False
        while live := self._find_live():
            number, status = live[0]
            if time.monotonic() > deadline:
                raise BusyError(problem_of_live(number, status.process or {}, self.folder))
            if not told:
                text = "job %d still runs (pid %s), of an earlier start of this sweep: waiting for it to end"
                log.warning(text, number, (status.process or {}).get("pid"))
                told = True
            time.sleep(0.2)

    def _find_live(self) -> list[tuple[int, Status]]:
        found = [
            (number, self.find_status(number)) for number, events in self._events.items() if number in self.entries
        ]
        return [(number, status) for number, status in found if status.state is State.running]


def _taken(folder: Path, record: Record) -> Problem:
    action = "go on with it: resume=auto; or choose another folder with hydra.sweep.dir=<folder>"
    found = f"{folder}, begun {record.started}"
    return Problem("the folder holds a sweep already", "hydra.sweep.dir", found, action)


# The manifest that the command line opened before Hydra ran, for the launcher; None: the launcher opens its own.
opened: contextvars.ContextVar[Manifest | None] = contextvars.ContextVar("opened", default=None)
