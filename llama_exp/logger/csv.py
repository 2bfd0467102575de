"""The run as one wide table, `metrics.csv`: a line for each step, a column for each figure of each split."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp.files.appended_file import AppendedFile
from llama_exp.files.shown_path import show_path
from llama_exp.logger.mirror import Mirror

FILE = "metrics.csv"
_STEP = "step"


class CsvLogger(Mirror):
    """Observer that keeps `metrics.csv` in the run folder: columns `step`, `train/loss`, `validation/loss` and so on.

    The line of a step is written when the next step begins, with all that was measured at it. A figure that first
    occurs later is a new column, for which the table is written anew. A run that goes on cuts the table back to its
    checkpoint.
    """

    def __init__(self, *, folder: Path, name: str, group: str | None = None, config: Mapping[str, Any] | None = None):
        super().__init__("CSV", folder, name, group, config)
        self._lines: list[dict[str, float]] = []  # one a step, the last one still open
        self._columns = [_STEP]
        self._file = AppendedFile(self._folder / FILE)

    @property
    def outcome(self) -> str:
        """What was written where."""
        return f"{len(self._lines)} steps to {show_path(self._file.path)}"

    def _open(self) -> None:
        self._lines, self._columns = [], [_STEP]

    def _write(self, step: int, values: dict[str, float], seconds: float) -> None:
        if not self._lines or self._lines[-1][_STEP] != step:
            self._append()
            self._lines.append({_STEP: step})
        self._lines[-1] |= values

    def _close(self, status: str) -> None:
        self._append()
        self._file.close()

    def _append(self) -> None:
        """Writes the open line, and where it has new columns the table."""
        if not self._lines:
            return
        new = [key for key in self._lines[-1] if key not in self._columns]
        if not new:
            self._file.append(self._text(self._lines[-1:]))
            return
        self._columns += new
        self._file.close()
        self._file = AppendedFile(self._folder / FILE)  # begins anew: nothing of the narrower table stays
        self._file.append(self._text([dict(zip(self._columns, self._columns, strict=True)), *self._lines]))

    def _text(self, lines: list[dict[str, Any]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n").writerows(lines)
        return text.getvalue()
