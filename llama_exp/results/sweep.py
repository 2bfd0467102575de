"""What the record of a sweep says of one of its jobs."""

from __future__ import annotations

import datetime
import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.sweeps import journal
from llama_exp.sweeps.opening import added_entries
from llama_exp.sweeps.record import Entry, Record, read_record

_CONFIG_DIR = "--config-dir"
_OF_SWEEP = re.compile(r"[+~]*(hydra[./=@]|resume=)")


@dataclass(frozen=True)
class Attempt:
    """One attempt at a job.

    number: from 1 on. state: as `sweeps.jobs.State` names it; None: it has not ended, or nobody saw its end. seconds:
    from its beginning to its end; None: not known.
    """

    number: int
    state: str | None
    cause: str | None
    seconds: float | None


@dataclass(frozen=True)
class SweepPlace:
    """Where a run stands in a sweep.

    sweep_dir: the sweep's folder. number: of the job. overrides: those that differ between jobs. differs: dotted keys
    whose values differ between the jobs, with the job's. attempts: at the job, in order. is_search: whether a search
    chose the jobs. command: that runs this job alone, from the sweep's working folder, secrets masked.
    """

    sweep_dir: Path
    number: int
    overrides: tuple[str, ...]
    differs: Mapping[str, Any]
    attempts: tuple[Attempt, ...]
    is_search: bool
    command: str


@dataclass(frozen=True)
class SweepResult:
    """What a sweep was asked for, and what came of it.

    folder: of the sweep. command: that began it. space: of a search, key -> what it may be; None: of a grid. constants:
    overrides that all jobs have, without Hydra's own. places: folder and place of each job, by number; of one that has
    not begun there is no folder.
    """

    folder: Path
    command: str
    space: Mapping[str, str] | None
    places: tuple[tuple[Path, SweepPlace], ...]


def read_sweep(sweep_dir: Path) -> SweepResult:
    """The sweep in a folder.

    Raises:
        InputError: there is none, or its record is damaged.
    """
    record = read_record(sweep_dir)
    command = str(record.facts.get("command", ""))
    return SweepResult(sweep_dir, command, record.space, tuple(read_places(sweep_dir)))


def read_places(sweep_dir: Path) -> Iterator[tuple[Path, SweepPlace]]:
    """Folder and place of each job of a sweep, by number; a job that has not begun has no folder yet.

    Raises:
        InputError: there is no sweep, or its record is damaged.
    """
    record, events = read_record(sweep_dir), journal.read(sweep_dir)
    of_jobs: dict[Any, list[dict[str, Any]]] = {}
    for event in events:
        of_jobs.setdefault(event.get("job"), []).append(event)
    for entry in _list_entries(record, events):
        attempts = tuple(_list_attempts(of_jobs.get(entry.number, [])))
        is_search = record.space is not None
        place = SweepPlace(
            sweep_dir, entry.number, entry.overrides, entry.differs, attempts, is_search, _join_command(record, entry)
        )
        yield sweep_dir / entry.folder, place


def _list_entries(record: Record, events: Sequence[dict[str, Any]]) -> list[Entry]:
    return sorted([*record.entries, *added_entries(list(events))], key=lambda entry: entry.number)


def _join_command(record: Record, entry: Entry) -> str:
    """The sweep's command with this job's overrides in place of the swept ones, and without what is about the sweep."""
    words = shlex.split(str(record.facts.get("command", "")))
    program = list(itertools.takewhile(lambda word: "=" not in word and not word.startswith("-"), words))
    folders = [f"{flag}={value}" for flag, value in itertools.pairwise(words) if flag == _CONFIG_DIR]
    folders += [word for word in words if word.startswith(f"{_CONFIG_DIR}=")]
    stated = [*map(str, record.facts.get("constants") or ()), *entry.overrides]
    return shlex.join([*program, *folders, *(line for line in stated if not _OF_SWEEP.match(line))])


def _list_attempts(events: Sequence[Mapping[str, Any]]) -> Iterator[Attempt]:
    """From the lines about one job; what a damaged line does not tell is not known."""
    numbered = [event for event in events if isinstance(event.get("attempt"), int)]
    begun = {event["attempt"]: event for event in numbered if event["event"] == "begin"}
    ended = {event["attempt"]: event for event in numbered if event["event"] == "end"}
    for number, begin in sorted(begun.items()):
        end = ended.get(number, {})
        state, cause = (end[name] if isinstance(end.get(name), str) else None for name in ("state", "cause"))
        yield Attempt(number, state, cause, _count_seconds(begin, end))


def _count_seconds(begin: Mapping[str, Any], end: Mapping[str, Any]) -> float | None:
    """Between two lines; None: one is not there, or has no time."""
    try:
        first, last = (datetime.datetime.fromisoformat(event["time"]) for event in (begin, end))
        return (last - first).total_seconds()
    except (KeyError, TypeError, ValueError):  # TypeError also: only one of them says its time zone
        return None
