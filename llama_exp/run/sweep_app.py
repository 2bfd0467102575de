"""What a launcher may ask of llama_exp's jobs: which they are, what they need, how far they are, how they ended."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import json
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import llama_exp
from llama_exp import runtime
from llama_exp.config.check import config_hash, to_config
from llama_exp.config.identity import flatten, to_record
from llama_exp.config.schema import Config
from llama_exp.errors import InputError
from llama_exp.files.json_file import open_regular, read_record
from llama_exp.files.json_text import plain
from llama_exp.files.yaml_file import read_yaml
from llama_exp.limits.figures import find_number, split_figure
from llama_exp.sweeps.freeze import without_hydra
from llama_exp.sweeps.jobs import Glimpse, Needs, Outcome, State

# What frameworks and compiled programs take of a job's own: the pages of the libraries are its server's.
FRAMEWORK_BYTES = 600 * 2**20
TAIL_BYTES = 2**16
# Beginnings of modules that import the package of an extra as they are imported.
OF_AN_EXTRA = {"llama_exp.evaluation.harness_": "lm_eval"}
# What summary.json may say at the end -> what the sweep calls it.
STATES = {state.value: state for state in State if state not in (State.pending, State.running)}


class LlamaApp:
    """llama_exp's answers to `llama_exp.sweeps.app.App`."""

    def identify(self, cfg: Any) -> tuple[str, dict[str, Any]]:
        """The hash of what decides the result, and the whole record."""
        config = _typed(cfg)
        return config_hash(config), plain(flatten(to_record(config)))

    def find_needs(self, cfg: Any, cores: int) -> Needs:
        """Variables by backend and threads; memory by the plan, where there is one."""
        from llama_exp.run import plan  # loads NumPy, whose threads the variables could not set any more

        config = _typed(cfg)
        place = config.runtime
        variables = runtime.find_environment(place.backend.value, place.threads or cores, place.cache_dir)
        planned = plan.make_plan(config)
        size = None if planned is None else FRAMEWORK_BYTES + planned.array_bytes
        return Needs(variables, size)

    def prepare(self) -> None:
        """Imports the backend and all of this package, so that no edit of its code gets into jobs that wait."""
        runtime.import_backend()
        for name in list_modules():
            importlib.import_module(name)

    def look(self, folder: Path) -> Glimpse:
        """From the last rows of `metrics.jsonl`."""
        try:
            train, validation = _last_rows(folder)
            if not train and not validation:
                return Glimpse(phase="starting")
            return _glimpse(train, validation, _max_steps(folder))
        except (InputError, OSError, ValueError, KeyError, TypeError):
            return Glimpse()

    def find_outcome(self, folder: Path) -> Outcome | None:
        """From `summary.json`; None while it says `running`, which a killed run leaves too."""
        summary = read_record(folder / "summary.json") or {}
        state = STATES.get(str(summary.get("status")))
        if state is None:
            return None
        code = summary.get("exit_code")
        value = _find_objective(folder, summary) if state is State.finished else None
        reason = summary.get("reason")
        cause = None if state is State.finished or reason is None else str(reason).splitlines()[0]
        return Outcome(state, cause, code if isinstance(code, int) else None, value)


def list_modules() -> Iterator[str]:
    """All modules of this package that a run may need, beside the half of `backend` that Keras' backend has chosen."""
    for module in pkgutil.walk_packages(llama_exp.__path__, "llama_exp."):
        needed = [package for beginning, package in OF_AN_EXTRA.items() if module.name.startswith(beginning)]
        if not all(map(importlib.util.find_spec, needed)):
            continue
        if module.name != "llama_exp.__main__" and not module.name.startswith("llama_exp.backend._"):
            yield module.name


def _typed(cfg: Any) -> Config:
    return to_config(without_hydra(cfg))


def _last_rows(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The last rows of training and of validation; empty: there is none at the file's end."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return {}, {}
    with open_regular(path) as file:
        file.seek(max(0, file.seek(0, io.SEEK_END) - TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
    found: dict[str, Mapping[str, Any]] = {}
    for line in lines[1:] if len(lines) > 1 and not lines[0].startswith(b"{") else lines:
        row = json.loads(line)
        found[row["split"]] = row
    return found.get("train", {}), found.get("validation", {})


def _glimpse(train: Mapping[str, Any], validation: Mapping[str, Any], steps: int | None) -> Glimpse:
    last = max(train, validation, key=lambda row: row.get("step", -1))
    step, rate = last["step"], train.get("tokens_per_second")
    left = None
    if steps is not None and isinstance(rate, float) and train["step"] > 0:
        left = max(0.0, (steps - step) * train["tokens"] / train["step"] / rate)
    return Glimpse(None, step, steps, _real(train.get("loss")), _real(validation.get("loss")), rate, left)


def _real(value: Any) -> float | None:
    """NaN and infinities stand as texts in the file."""
    return None if value is None else float(value)


def _find_objective(folder: Path, summary: Mapping[str, Any]) -> float | None:
    """What the job in a folder returned."""
    try:
        figure = read_yaml(folder, "config.yaml").get("objective_metric")
    except InputError:
        return None
    return find_number(summary, split_figure(str(figure))[0])


@functools.lru_cache(maxsize=256)
def _max_steps(folder: Path) -> int | None:
    steps = read_yaml(folder, "config.yaml").get("trainer", {}).get("max_steps")
    return steps if isinstance(steps, int) else None
