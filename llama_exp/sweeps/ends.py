"""How a job's process ended, as an `Outcome` with its cause in plain words."""

from __future__ import annotations

import logging
import os
import pickle
import signal
from typing import Any

from llama_exp.errors import ExitCode
from llama_exp.sweeps.child import Result
from llama_exp.sweeps.jobs import Outcome, State

GOES_ON: dict[int, State] = {ExitCode.INTERRUPTED: State.interrupted, ExitCode.PREEMPTED: State.preempted}
_log = logging.getLogger(__name__)


def decide(status: int, result: Result | None, asked: State | None, reason: str | None) -> Outcome:
    """How an attempt ended.

    Args:
        status: as `os.waitpid` gives it.
        result: what the job sent before; None: nothing.
        asked: the state that the launcher stopped it for; None: it ended by itself.
        reason: why the launcher stopped it, or what is known of the signal that ended it.
    """
    code = os.waitstatus_to_exitcode(status)
    if result is not None and result.value is not None:
        return Outcome(State.finished, exit_code=0, value=_load(result.value))
    if asked is State.failed or (asked is not None and (result is None or result.exit_code in GOES_ON)):
        return Outcome(asked, reason, code if code >= 0 else None)
    if code < 0:
        return Outcome(State.failed, reason or f"was killed by {signal.Signals(-code).name}")
    cause, error = f"ended its process with exit code {code}", None
    if result is None and code == 0:
        cause += " before it returned"
    elif result is not None and result.raised is not None:
        cause, error = f"raised {result.raised}", None if result.error is None else _load(result.error)
    return Outcome(GOES_ON.get(code, State.failed), cause, code, error=error)


def _load(data: bytes) -> Any:
    """The object; its text's place is empty where the launcher cannot make it, as the job could."""
    try:
        return pickle.loads(data)
    except Exception as error:  # whatever a class of the job's own does when it is made
        _log.warning("what a job returned cannot be read: %s", error)
        return None
