"""One run as its folder has it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.config.identity import flatten
from llama_exp.errors import InputError
from llama_exp.files.evaluation_file import ROWS, read_evaluations
from llama_exp.files.json_file import MAX_RECORD_BYTES, inside, read_json, read_lines
from llama_exp.files.json_file import read_record as read_json_if_whole
from llama_exp.files.latest import without_latest
from llama_exp.files.metrics_file import read_metrics
from llama_exp.files.yaml_file import read_yaml, read_yaml_texts
from llama_exp.limits.figures import find_number
from llama_exp.results.sweep import SweepPlace


@dataclass(frozen=True)
class RunResult:
    """What a run has left.

    folder: absolute, as it was found. config: of config.yaml, nested, with `recipe`. record: of run.json. summary: of
    summary.json; {} where the run was cut off before any. place: in a sweep; None: it belongs to none.
    """

    folder: Path
    config: Mapping[str, Any]
    record: Mapping[str, Any]
    summary: Mapping[str, Any]
    place: SweepPlace | None = None

    @functools.cached_property
    def values(self) -> dict[str, Any]:
        """The config by dotted key."""
        return flatten(self.config)

    @functools.cached_property
    def overrides(self) -> list[str]:
        """Of overrides.yaml, secrets masked; raises `InputError` for a damaged file."""
        return read_yaml_texts(self.folder, "overrides.yaml")

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Of metrics.jsonl; raises `InputError` for a damaged line."""
        return read_metrics(self.folder / "metrics.jsonl")

    @functools.cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """Of evaluation.jsonl, one per evaluation and step, with real NaN; [] if there is none.

        Raises:
            InputError: a line is no row of an evaluation.
        """
        return read_evaluations(self.folder / ROWS)

    @property
    def own_evaluations(self) -> list[dict[str, Any]]:
        """Those that the run's config asks for, the first of each step and name: commands add others later."""
        asked = self.config.get("evaluation")
        section = asked if isinstance(asked, Mapping) else {}
        names = {name for part in ("sets", "tasks") for name in section.get(part) or {}}
        found: dict[Any, dict[str, Any]] = {}
        for row in self.evaluations:
            if row["name"] in names:
                found.setdefault((row["step"], row["name"]), row)
        return list(found.values())

    def read_items(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The results for each item of a row of `evaluations`, by number; [] where the file is gone.

        Raises:
            InputError: the file is damaged, or does not lie in the run's folder.
        """
        path = inside(self.folder, str(row["file"]))
        items = read_lines(path) if path.exists() else []
        for number, item in enumerate(items, start=1):
            if type(item.get("item")) is not int:
                found = f"line {number}: item {item.get('item')!r}"[:160]
                raise InputError.about(path, "a line is no result of an item", found, "delete the file")
        return items

    @property
    def status(self) -> str:
        """running, finished, preempted, interrupted, pruned or failed; a killed run stays at running."""
        return str(self.summary.get("status", "running"))

    @property
    def command(self) -> str:
        """What trains it: of a run alone its first command, of a job the one that runs this job alone."""
        if self.place is not None:
            return self.place.command
        starts = self.record.get("starts")
        first = starts[0] if isinstance(starts, list) and starts else None
        return str((first if isinstance(first, Mapping) else self.record).get("command", ""))

    @property
    def name(self) -> str:
        """What tells it from others, for a person: number and overrides of a job, or the folder's name."""
        if self.place is None:
            return self.folder.name
        return f"{self.place.number}: {' '.join(self.place.overrides) or 'no overrides'}"


def load_run(folder: str | Path, place: SweepPlace | None = None) -> RunResult:
    """The run in a folder.

    Args:
        folder: a run's, or `outputs/<name>/latest`.
        place: in a sweep, if the caller knows it.

    Raises:
        InputError: the folder holds no run, or its record is damaged.
    """
    path = Path(without_latest(str(folder))).expanduser().absolute()
    if not holds_run(path):
        action = "give the folder of a run, outputs/<name>/<time>_<hash>, which has run.json and config.yaml"
        found = "no such folder" if not path.is_dir() else "no run.json, or no config.yaml"
        raise InputError.about(folder, "holds no run", found, action)
    record = read_json(path / "run.json", MAX_RECORD_BYTES)
    return RunResult(
        path, read_yaml(path, "config.yaml"), record, read_json_if_whole(path / "summary.json") or {}, place
    )


def holds_run(folder: Path) -> bool:
    """Whether a run was begun in the folder; its record may be damaged."""
    try:
        return (folder / "run.json").is_file() and (folder / "config.yaml").is_file()
    except OSError:  # a damaged record of a sweep may name a folder that no disk could have
        return False


def find_figure(run: RunResult, figure: str) -> float | None:
    """A number of the run's summary by its dotted path; None: it has none of this name.

    NaN and infinities stand as texts in the file, and come back as numbers.
    """
    return find_number(run.summary, figure)
