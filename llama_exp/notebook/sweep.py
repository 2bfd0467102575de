"""A sweep, or any folder of runs, as a table with one row per run."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_exp.console.progress import shorten
from llama_exp.notebook.frames import to_frame
from llama_exp.notebook.result import Result, as_result
from llama_exp.results import RunResult, list_figure_paths, list_tidy_rows, load_runs

_CELL_CHARACTERS = 40
# Of the columns, what a person looks for; the rest is in the rows.
_HIDDEN = ("folder", "command")
_SHOWN_FIGURES = ("validation.", "evaluation.", "steps", "seconds")


class SweepTable(list[dict[str, Any]]):
    """Rows as `results.list_tidy_rows` has them: run, status, seed, the keys that differ, every figure.

    Attributes:
        runs: the runs, in the order of the rows.
    """

    def __init__(self, runs: Sequence[RunResult]):
        self.runs: list[Result] = [as_result(run) for run in runs]
        super().__init__(list_tidy_rows(self.runs))

    def frame(self) -> Any:
        """The table as a pandas frame; raises ImportError where pandas is not installed."""
        return to_frame(self, "the table itself, a list of dicts")

    def _repr_html_(self) -> str:
        columns = self._list_shown()
        head = "".join(f"<th>{html.escape(key)}</th>" for key in columns)
        lines = "".join(f"<tr>{''.join(_cell(row[key]) for key in columns)}</tr>" for row in self)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"

    def _list_shown(self) -> list[str]:
        figures = {path for run in self.runs for path in list_figure_paths(run)}
        hidden = {path for path in figures if not path.startswith(_SHOWN_FIGURES)} | {*_HIDDEN}
        filled = (key for key in (self[0] if self else {}) if any(row[key] is not None for row in self))
        return [key for key in filled if key not in hidden]


def load_sweep(folder: str | Path) -> SweepTable:
    """The runs of a sweep, or below any folder, as a table.

    Args:
        folder: of a sweep, or one that holds runs: outputs/<name>.

    Raises:
        InputError: there is none, or a record is damaged.
    """
    return SweepTable(load_runs([folder]))


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)
    return f"<td>{html.escape(shorten(text, _CELL_CHARACTERS))}</td>"
