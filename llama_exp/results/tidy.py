"""Runs as a tidy table: one row a run, one column a fact, for CSV files and data frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_exp.config.identity import is_science
from llama_exp.results.run import RunResult, find_figure

_NOT_FIGURES = ("schema", "exit_code")


def list_tidy_rows(runs: Sequence[RunResult]) -> list[dict[str, Any]]:
    """One row for each run, all with the same columns in the same order; None where a run has no such value.

    Columns: `run` (its name), `folder`, `command`, `status`, `job` (number in its sweep), `seed`; then the keys of the
    config that differ between the runs, of what decides their figures and of `runtime`; then every number of
    summary.json by its dotted path, NaN and infinities as numbers.
    """
    keys = _find_differing(runs)
    figures = dict.fromkeys(path for run in runs for path in list_figure_paths(run))
    rows = []
    for run in runs:
        head = {
            "run": run.name,
            "folder": str(run.folder),
            "command": run.command,
            "status": run.status,
            "job": None if run.place is None else run.place.number,
            "seed": run.values.get("seed"),
        }
        values = {key: run.values.get(key) for key in keys}
        rows.append({**head, **values, **{path: find_figure(run, path) for path in figures}})
    return rows


def list_figure_paths(run: RunResult) -> list[str]:
    """Dotted paths of all numbers in the run's summary, in its order."""
    return [path for path in _list_paths(run.summary, "") if find_figure(run, path) is not None]


def _list_paths(node: Any, prefix: str) -> list[str]:
    paths = []
    for key, value in node.items():
        if isinstance(value, dict):
            paths += _list_paths(value, f"{prefix}{key}.")
        elif prefix or key not in _NOT_FIGURES:
            paths.append(f"{prefix}{key}")
    return paths


def _find_differing(runs: Sequence[RunResult]) -> list[str]:
    """Keys of the config, but for the seed, that not all runs have with the same value."""
    if not runs:
        return []
    first = runs[0].values
    keys = dict.fromkeys(key for run in runs for key in run.values if key != "seed" and _is_told(key))
    return [key for key in keys if any(_differ(first, run.values, key) for run in runs[1:])]


def _is_told(key: str) -> bool:
    """Whether a reader of figures wants it: what decides them, and where they were computed."""
    return is_science(key) or (key.startswith("runtime.") and key != "runtime.cache_dir")


def _differ(one: dict[str, Any], other: dict[str, Any], key: str) -> bool:
    return (key in one) != (key in other) or one.get(key) != other.get(key)
