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
        self._line: dict[str, float] = {}  # of the step that is still open
        self._columns: dict[str, None] = {}  # in order
        self._num_steps = 0
        self._file = AppendedFile(self._folder / FILE)

    @property
    def outcome(self) -> str:
        """What was written where."""
        return f"{self._num_steps} steps to {show_path(self._file.path)}"

    def _open(self) -> None:
        self._columns = {}

    def _write(self, step: int, values: dict[str, float], seconds: float) -> None:
        if self._line.get(_STEP) != step:
            self._append()
            self._line = {_STEP: step}
        self._line |= values

    def _close(self, status: str) -> None:
        self._append()
        self._file.close()

    def _append(self) -> None:
        """Writes the open line; where it has new columns, the table anew."""
        if not self._line:
            return
        new = [key for key in self._line if key not in self._columns]
        if new:
            self._widen(new)
        self._file.append(_text([self._line.get(key, "") for key in self._columns]))
        self._num_steps += 1
        self._line = {}

    def _widen(self, new: list[str]) -> None:
        """Adds columns at the right, which are empty in the lines of before."""
        before = self._file.path.read_text(encoding="utf-8").splitlines()[1:] if self._columns else []
        self._columns |= dict.fromkeys(new)
        self._file.close()
        self._file = AppendedFile(self._folder / FILE)  # begins anew: nothing of the narrower table stays
        lines = [_text(list(self._columns)), *(f"{line}{',' * len(new)}\n" for line in before)]
        self._file.append("".join(lines))


def _text(values: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
