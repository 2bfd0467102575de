"""A sweep, or any folder of runs, as a table with one row per run."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_exp.console.progress import shorten
from llama_exp.files.shown_path import show_path
from llama_exp.notebook.frames import to_frame
from llama_exp.notebook.result import Result, as_result, list_figures
from llama_exp.results import RunResult, load_runs

_CELL_CHARACTERS = 40


class SweepTable(list[dict[str, Any]]):
    """Rows, one per run: its number in the sweep, the keys that differ between jobs, status, figures, folder.

    Attributes:
        runs: the runs, in the order of the rows.
    """

    def __init__(self, runs: Sequence[RunResult]):
        self.runs: list[Result] = [as_result(run) for run in runs]
        super().__init__(map(_to_row, self.runs))

    def frame(self) -> Any:
        """The table as a pandas frame; raises ImportError where pandas is not installed."""
        return to_frame(self, "the table itself, a list of dicts")

    def _repr_html_(self) -> str:
        columns = list(dict.fromkeys(key for row in self for key in row))
        head = "".join(f"<th>{html.escape(key)}</th>" for key in columns)
        lines = "".join(f"<tr>{''.join(_cell(row.get(key)) for key in columns)}</tr>" for row in self)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def load_sweep(folder: str | Path) -> SweepTable:
    """The runs of a sweep, of several, or below any folder, as a table.

    Args:
        folder: of a sweep, or one that holds runs.

    Raises:
        InputError: there is none, or a record is damaged.
    """
    return SweepTable(load_runs([folder]))


def _to_row(run: RunResult) -> dict[str, Any]:
    place = run.place
    job = {} if place is None else {"job": place.number, **place.differs}
    return {**job, "status": run.status, **list_figures(run.summary), "folder": show_path(run.folder)}


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)
    return f"<td>{html.escape(shorten(text, _CELL_CHARACTERS))}</td>"
