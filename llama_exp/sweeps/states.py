"""What became of each job: the journal's last word on it, corrected by the job's own folder.

The folder knows best how an attempt ended that wrote its own end: a job may have gone on by itself meanwhile, and a
line of the journal may be lost. Of an attempt that was killed before it could write, only the journal knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.errors import Problem
from llama_exp.files.lock import is_locked
from llama_exp.sweeps import journal
from llama_exp.sweeps.app import App
from llama_exp.sweeps.jobs import Outcome, State
from llama_exp.sweeps.liveness import is_alive, is_here

RETRY, SKIP = "retry", "skip"
_DONE = (State.finished, State.pruned)
_GONE = "its process is gone without a word"


@dataclass(frozen=True)
class Status:
    """What became of a job so far.

    attempts: how many began. cause: one line, None where there is none to tell. value: what it returned. process: of
    the last attempt (`liveness.identify_process`). started, ended: times of the last attempt in UTC.
    """

    state: State = State.pending
    attempts: int = 0
    cause: str | None = None
    exit_code: int | None = None
    value: Any = None
    process: Mapping[str, Any] | None = None
    started: str | None = None
    ended: str | None = None


def may_start(state: State, on_failed: str) -> bool:
    """Whether a sweep that goes on starts a job in this state; `on_failed`: retry or skip."""
    if state is State.failed:
        return on_failed == RETRY
    return state not in (*_DONE, State.running)


def find_status(events: Iterable[Mapping[str, Any]], folder: Path, app: App) -> Status:
    """What became of one job.

    Args:
        events: its lines of the journal, in order.
        folder: its folder, which may not exist.
        app: reads what the folder says.
    """
    told = _follow(events)
    if told.state is State.running:
        process = told.process or {}
        if is_alive(process) or (not is_here(process) and is_locked(folder)):
            return told
        told = _replace(told, Outcome(State.interrupted, _GONE))
    if not folder.is_dir():
        return Status(attempts=told.attempts) if told.state in _DONE else told
    found = app.find_outcome(folder)
    return told if found is None or not _knows_better(found, told) else _replace(told, found)


def problem_of_live(number: int, process: Mapping[str, Any], sweep_dir: Path) -> Problem:
    """That a job is still at work, for an error."""
    found = f"job {number} runs as pid {process.get('pid')} on host {process.get('host')}"
    action = "wait for it or stop it, then give the same command again"
    return Problem("a job of the sweep is still running", str(sweep_dir), found, action)


def _knows_better(found: Outcome, told: Status) -> bool:
    if found.state is told.state:
        return told.cause in (None, _GONE)
    # A failure that the folder does not know of came later: killed before the attempt wrote anything.
    return found.state in _DONE or told.state is not State.failed


def _follow(events: Iterable[Mapping[str, Any]]) -> Status:
    status = Status()
    for event in events:
        if event["event"] == "begin":
            process = event.get("process")
            status = Status(
                State.running,
                max(status.attempts + 1, _whole(event.get("attempt"))),
                process=process if isinstance(process, Mapping) else None,
                started=event.get("time"),
            )
        elif event["event"] == "end":
            status = _ended(status, event)
    return status


def _ended(status: Status, event: Mapping[str, Any]) -> Status:
    try:
        state = State(event.get("state"))
    except ValueError:  # of a later version
        return status
    return Status(
        state,
        max(status.attempts, _whole(event.get("attempt"))),
        event.get("cause"),
        event.get("exit_code"),
        journal.value_of(event),
        status.process,
        status.started,
        event.get("time"),
    )


def _replace(status: Status, outcome: Outcome) -> Status:
    value = status.value if outcome.value is None and outcome.state is status.state else outcome.value
    return Status(
        outcome.state,
        max(status.attempts, 1),
        outcome.cause,
        outcome.exit_code,
        value,
        status.process,
        status.started,
        status.ended,
    )


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0
