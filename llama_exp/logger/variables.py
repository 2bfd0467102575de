"""W&B's own variables as defaults: what a person states in YAML or on the command line wins over them.

    stated in YAML or on the line  >  the run's own record (it goes on)  >  WANDB_* variable  >  default

A run that `wandb agent` starts is the agent's: its id, project and entity are those that the agent set. Imports no
wandb.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llama_exp.errors import Problem
from llama_exp.files.redact import printable, redact
from llama_exp.limits.logger import OF_VARIABLES, LoggerMode

CONFIG, RECORD, DEFAULT = "config", "run.json", "default"
# Argument of WandbLogger -> the variable that stands in for it where nobody states it.
VARIABLES = {
    "mode": "WANDB_MODE",
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "tags": "WANDB_TAGS",
    "group": "WANDB_RUN_GROUP",
    "name": "WANDB_NAME",
    "notes": "WANDB_NOTES",
    "job_type": "WANDB_JOB_TYPE",
}
# No two runs can share these; only an agent gives each of its runs one of its own.
_IDENTITY = ("WANDB_RUN_ID", "WANDB_RESUME")
_AGENT, _RUN_ID = "WANDB_SWEEP_ID", "WANDB_RUN_ID"
_MODES = {"run": LoggerMode.online, "dryrun": LoggerMode.offline} | {mode.value: mode for mode in LoggerMode}
_TRUE = ("true", "1", "yes", "on")
_DEFAULT_PROJECT = "llama_exp"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settled:
    """What a W&B run is. sources: key -> `config`, `run.json`, `default` or a variable's name.

    of_agent: whether `wandb agent` started it.
    """

    mode: LoggerMode
    project: str
    entity: str | None
    tags: list[str]
    group: str | None
    name: str
    notes: str | None
    job_type: str | None
    run_id: str | None
    sources: dict[str, str]
    of_agent: bool


def settle(stated: Mapping[str, Any], recorded: Mapping[str, Any], defaults: Mapping[str, Any]) -> Settled:
    """One value for each key, and where it comes from.

    Args:
        stated: `mode`, `project`, `entity`, `tags` of the configuration; None where it leaves one open.
        recorded: what the run's earlier start recorded; {} for a new run.
        defaults: `group` and `name` of the run.
    """
    variables, agent = _read(os.environ), _is_agent(os.environ)
    defaults = {"mode": _default_mode(agent), "project": _DEFAULT_PROJECT, "tags": [], **defaults}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for key, variable in VARIABLES.items():
        candidates = [
            (variables.get(key) if agent and key in ("project", "entity") else None, f"{variable} (wandb agent)"),
            (stated.get(key), CONFIG),
            (recorded.get(key) if key != "mode" and not agent else None, RECORD),
            (variables.get(key), variable),
            (defaults.get(key), DEFAULT),
        ]
        values[key], sources[key] = next((pair for pair in candidates if pair[0] is not None), (None, DEFAULT))
    values["tags"] = list(values["tags"])
    run_id = os.environ[_RUN_ID] if agent else recorded.get("run_id")
    return Settled(**values, run_id=run_id, sources=sources, of_agent=agent)


def settle_mode(stated: LoggerMode | None) -> LoggerMode:
    """The mode of a W&B run whose configuration states `stated`; the variables are sound."""
    return stated or _read(os.environ).get("mode") or _default_mode(_is_agent(os.environ))


def find_variable_problems(stated: Mapping[str, Any]) -> Iterator[Problem]:
    """The problems of variables that stand in for what `stated` (as above) leaves open."""
    variables = _read(os.environ)
    open_keys = [key for key in VARIABLES if stated.get(key) is None and key in variables]
    if "mode" in open_keys and not isinstance(variables["mode"], LoggerMode):
        action = f"give one of {', '.join(_MODES)}, or logger.mode=<mode>"
        yield Problem("is not one of W&B's modes", VARIABLES["mode"], _shown(variables["mode"]), action)
    for key in open_keys:
        if key == "mode":
            continue
        for problem in OF_VARIABLES.value_problems({key: variables[key]}):
            instead = f", or logger.{key}=<value>" if key in stated else f", or unset {VARIABLES[key]}"
            found = _shown(os.environ[VARIABLES[key]])
            yield Problem(problem.what, VARIABLES[key], found, f"{problem.action}{instead}")


@contextlib.contextmanager
def only_what_is_settled() -> Iterator[None]:
    """Hides the variables that say what a run is from wandb, and names those that count for nothing here.

    Their values are handed over as arguments; an agent's stay, because wandb takes sweep, id and place from them alone.
    """
    kept = [VARIABLES["project"], VARIABLES["entity"], _RUN_ID, _AGENT] if _is_agent(os.environ) else []
    names = [name for name in (*VARIABLES.values(), "WANDB_DISABLED", *_IDENTITY, _AGENT) if name not in kept]
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    ignored = [name for name in (*_IDENTITY, _AGENT) if name in hidden]
    if ignored:
        _log.warning("W&B: %s: does not count, each run has an id of its own", ", ".join(ignored))
    try:
        yield
    finally:
        os.environ.update(hidden)


def _read(environment: Mapping[str, str]) -> dict[str, Any]:
    """Key -> value of the variables that are set and not empty; a mode that there is not stays a text."""
    found: dict[str, Any] = {key: environment[name] for key, name in VARIABLES.items() if environment.get(name)}
    if "tags" in found:
        found["tags"] = [tag.strip() for tag in found["tags"].split(",")]
    if "mode" in found:
        found["mode"] = _MODES.get(found["mode"].lower(), found["mode"])
    elif environment.get("WANDB_DISABLED", "").lower() in _TRUE:
        found["mode"] = LoggerMode.disabled
    return found


def _is_agent(environment: Mapping[str, str]) -> bool:
    return bool(environment.get(_AGENT) and environment.get(_RUN_ID))


def _default_mode(agent: bool) -> LoggerMode:
    """Offline, so that nothing is sent unasked; a person who starts an agent has asked."""
    return LoggerMode.online if agent else LoggerMode.offline


def _shown(value: str) -> str:
    text = printable(redact(value))
    return text if len(text) <= 120 else f"{text[:117]}..."
