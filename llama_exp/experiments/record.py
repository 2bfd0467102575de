"""`experiment.json`: what was run of an experiment, when, how often it was begun, and how each start ended.

schema, name, title, quick, extra    of the experiment; extra: overrides that all runs were given
models                               name -> source of each model that the user gave
stages                               name -> half, folder, runs, command that runs it by hand
verdicts                             claim -> verdict, of the last start that came to its end
starts                               one for each time the command was given: time, command, versions, machine, and of
                                     its stages time, seconds, cpu_seconds, exit_code

`seconds` grows every ten seconds; a start that was killed has no exit code, and its last such figure. What came out is
in the runs' own folders. Written whole, so that a kill leaves the old record or the new one.
"""

from __future__ import annotations

import datetime
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.experiments.plan import Plan, Step
from llama_exp.files.json_file import MAX_RECORD_BYTES, read_json
from llama_exp.files.writing import make_folder, write_json
from llama_exp.run import machine, provenance

RECORD_FILE = "experiment.json"
SCHEMA = 1
_TOLD = ("llama_exp", "keras", "tensorflow", "jax", "numpy")
_ACTION = "put back a whole copy of the file, or delete it: the runs stay, and only how often they were begun is lost"


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in an experiment's folder; None: it was never begun.

    Raises:
        InputError: the file is damaged, or of a later version.
    """
    path = folder / RECORD_FILE
    if not path.exists():
        return None
    try:
        content = read_json(path, MAX_RECORD_BYTES)
    except InputError as error:
        (problem,) = error.problems
        raise InputError.about(path, problem.what, problem.found, _ACTION) from error
    is_whole = isinstance(content.get("stages"), dict) and _are_starts(content.get("starts"))
    if content.get("schema") != SCHEMA or not is_whole:
        found = f"schema {content.get('schema')}, stages {type(content.get('stages')).__name__}"
        raise InputError.about(path, "is no record of an experiment that this version knows", found, _ACTION)
    return content


class Record:
    """The record of a start that is going on; every change of it is written at once.

    Args:
        plan: of the experiment.
        command: as it was typed.
        commands: name of each stage -> its command.

    Raises:
        InputError: there is a damaged record.
        StorageError: it cannot be written.
    """

    def __init__(self, plan: Plan, command: str, commands: Mapping[str, str]):
        request = plan.request
        self._folder = request.folder
        before = read_record(self._folder) or {"stages": {}, "starts": []}
        self._start: dict[str, Any] = {
            "time": _now(),
            "command": command,
            "exit_code": None,
            "versions": _versions(),
            "machine": _machine(),
            "stages": [],
        }
        stages = {**before["stages"], **{step.name: _describe(step, commands[step.name]) for step in plan.steps}}
        self._content = {
            "schema": SCHEMA,
            "name": request.name,
            "title": plan.protocol.title,
            "quick": request.is_quick,
            "extra": list(request.extra),
            "models": {**before.get("models", {}), **request.models},
            "stages": {name: stages[name] for name in sorted(stages, key=list(plan.protocol.stages).index)}
            if stages.keys() <= plan.protocol.stages.keys()
            else stages,
            "verdicts": before.get("verdicts", {}),
            "starts": [*before["starts"], self._start],
        }
        self._stage: dict[str, Any] = {}
        self._begun, self._cpu = 0.0, 0.0
        make_folder(self._folder)
        self._write()

    def begin(self, step: Step) -> None:
        """A stage begins."""
        self._begun, self._cpu = time.monotonic(), _child_seconds()
        self._stage = {"name": step.name, "time": _now(), "seconds": 0.0, "cpu_seconds": None, "exit_code": None}
        self._start["stages"].append(self._stage)
        self._write()

    def beat(self) -> None:
        """It goes on."""
        self._stage["seconds"] = round(time.monotonic() - self._begun, 3)
        self._write()

    def end(self, exit_code: int) -> None:
        """It ended."""
        self._stage["exit_code"] = exit_code
        self._stage["cpu_seconds"] = round(_child_seconds() - self._cpu, 3)
        self.beat()

    def close(self, exit_code: int, verdicts: Mapping[str, str] | None = None) -> None:
        """The start ended; verdicts: by claim, None where it did not come so far."""
        self._start["exit_code"] = exit_code
        self._content["verdicts"] = self._content["verdicts"] if verdicts is None else dict(verdicts)
        self._write()

    def _write(self) -> None:
        write_json(self._folder / RECORD_FILE, self._content)


def _describe(step: Step, command: str) -> dict[str, Any]:
    return {"half": step.half.value, "folder": str(step.folder), "runs": step.num_runs, "command": command}


def _are_starts(starts: object) -> bool:
    return isinstance(starts, list) and all(
        isinstance(start, dict) and isinstance(start.get("stages"), list) for start in starts
    )


def _versions() -> dict[str, Any]:
    packages = provenance.package_versions()
    facts = provenance.git_state(Path(__file__).resolve().parents[1])[0]
    return {
        **{name: packages[name] for name in _TOLD if packages.get(name)},
        "commit": facts.get("commit"),
        "dirty": facts.get("dirty"),
    }


def _machine() -> dict[str, Any]:
    facts = machine.describe()
    return {name: facts[name] for name in ("cpu", "cores", "memory_bytes", "platform") if name in facts}


def _child_seconds() -> float:
    """Processor time of all processes that this one started and that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
