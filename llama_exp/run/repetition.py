"""What is special about a run that repeats another; see `llama_exp.reproduction`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Repetition:
    """What `run_job` needs to know of it.

    steps: it ends after so many, on the schedule of the whole run; None: it is the whole run. command: goes on with it
    once a signal has stopped it. on_ready: is given what run.json says before the first step.
    """

    steps: int | None
    command: str
    on_ready: Callable[[Mapping[str, Any]], None]
