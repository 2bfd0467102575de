"""`sweep.jsonl`: what happened to each job of a sweep, one line of strict JSON each, in the order in which it did.

    {"time", "event": "open",  "command", "pid", ...}                               an invocation of the sweep begins
    {"time", "event": "add",   "job", "overrides", "folder", "identity", "differs"} a search adds a job
    {"time", "event": "begin", "job", "attempt", "process": {...}} an attempt at a job begins
    {"time", "event": "end",   "job", "attempt", "state", "cause", "exit_code", "value"}

It only grows, and any process may add to it: the launcher for jobs that it runs, jobs themselves under launchers of
others. A line that a kill or a full disk cut short is dropped when it is read; what it said is in the jobs' folders.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.files.json_file import open_regular, parse_json
from llama_exp.files.json_text import plain
from llama_exp.files.writing import append_line
from llama_exp.sweeps.jobs import Outcome
from llama_exp.sweeps.liveness import identify_process

JOURNAL_FILE = "sweep.jsonl"
_UNFINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
log = logging.getLogger(__name__)


def append(sweep_dir: Path, event: str, **facts: Any) -> dict[str, Any]:
    """Adds a line, through to the disk, and returns what it says; raises `StorageError`."""
    entry = {"time": now(), "event": event, **facts}
    append_line(sweep_dir / JOURNAL_FILE, entry)
    return entry


def append_begin(sweep_dir: Path, number: int, attempt: int, pid: int) -> dict[str, Any]:
    """An attempt at a job begins, in the process `pid` of this machine."""
    return append(sweep_dir, "begin", job=number, attempt=attempt, process=identify_process(pid))


def append_end(sweep_dir: Path, number: int, attempt: int, outcome: Outcome) -> dict[str, Any]:
    """An attempt at a job ended."""
    facts = {"state": outcome.state.value, "cause": outcome.cause, "exit_code": outcome.exit_code}
    return append(sweep_dir, "end", job=number, attempt=attempt, **facts, value=_storable(outcome.value, number))


def read(sweep_dir: Path, is_first: bool = False) -> list[dict[str, Any]]:
    """All whole lines, others are dropped. Empty if there is no journal yet.

    Args:
        sweep_dir: the sweep's folder.
        is_first: whether lines that are dropped are told; once is enough.

    Raises:
        InputError: the file cannot be read.
    """
    path = sweep_dir / JOURNAL_FILE
    if not path.exists():
        return []
    with open_regular(path) as file:
        lines = file.read().split(b"\n")
    found, dropped = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip(b"\0 "):  # a power cut can leave zeros
            try:
                found.append(_checked(parse_json(path, line)))
            except InputError:
                dropped.append(str(number))
    if dropped and is_first:
        text = "%s: line %s is cut short or damaged and does not count; the jobs' own folders say how they ended"
        log.warning(text, path, ", ".join(dropped[:5]) + (" and more" if dropped[5:] else ""))
    return found


def value_of(entry: Mapping[str, Any]) -> Any:
    """What a job returned, from its line `end`; NaN and the infinities are words there."""
    value = entry.get("value")
    return _UNFINITE.get(value, value) if isinstance(value, str) else value


def now() -> str:
    """The time for a record, in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _storable(value: Any, number: int) -> Any:
    """The value as JSON has it; None, with a warning, for one that JSON cannot hold."""
    try:
        return plain(value)
    except TypeError:
        log.warning("job %d returned a %s, which the journal cannot hold: None is kept", number, type(value).__name__)
        return None


def _checked(entry: dict[str, Any]) -> dict[str, Any]:
    """The line, if it is one of a journal."""
    is_of_job = entry.get("event") in ("add", "begin", "end")
    if not isinstance(entry.get("event"), str) or (is_of_job and not isinstance(entry.get("job"), int)):
        raise InputError.about(JOURNAL_FILE, "is no line of a journal", str(entry)[:80])
    return entry
