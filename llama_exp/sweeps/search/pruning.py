"""Rows of running trials, as they come, and whether a trial goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.files.json_file import read_lines
from llama_exp.files.json_text import as_number
from llama_exp.files.metrics_file import read_metrics
from llama_exp.limits.figures import EVALUATION
from llama_exp.sweeps.jobs import Job
from llama_exp.sweeps.search.study import Study

METRICS, EVALUATIONS = "metrics.jsonl", "evaluation.jsonl"
_log = logging.getLogger(__name__)


class Pruning:
    """Reads what trials write while they run, as far as it says something of the figure that the search compares.

    Args:
        study: is told.
        figure: `evaluation.<name>.<figure>` stands in `evaluation.jsonl`, `validation.perplexity` in the rows of
            `metrics.jsonl` with the split `validation`; for any other one their `loss` counts.
    """

    def __init__(self, study: Study, figure: str):
        self._study = study
        name, _, key = figure.partition(".")[2].rpartition(".")
        self._evaluation: str | None = name if figure.startswith(f"{EVALUATION}.") else None
        self._key = "loss" if self._evaluation is None else key
        if figure == "validation.perplexity":
            self._key = "perplexity"
        self._sizes: dict[int, int] = {}

    def look(self, job: Job) -> bool:
        """Reports the rows that a running job has written since; whether it is to be stopped.

        What comes behind the row that decides is not reported: it would depend on when somebody looked.
        """
        for step, loss in self._read(job):
            if self._study.report(job.number, step, loss) and self._study.decide(job.number):
                return True
        return False

    def note_rest(self, job: Job) -> None:
        """Reports what a job had written when it ended: later trials are compared with it."""
        self._sizes.pop(job.number, None)
        for step, loss in self._read(job):
            self._study.report(job.number, step, loss)

    def _read(self, job: Job) -> Iterator[tuple[int, float]]:
        """Step and value of each row of a file that has grown since the last call."""
        path = job.folder / (METRICS if self._evaluation is None else EVALUATIONS)
        size = _find_size(path)
        if self._sizes.get(job.number, 0) == size:
            return
        self._sizes[job.number] = size
        try:
            rows = read_metrics(path) if self._evaluation is None else list(read_lines(path))
        except InputError as error:
            _log.warning("the trial is not compared with others by what it has not reported yet:\n%s", error)
            return
        for row in rows:
            value = as_number(row.get(self._key))
            if self._is_compared(row) and isinstance(value, int | float):
                yield row["step"], float(value)

    def _is_compared(self, row: Mapping[str, Any]) -> bool:
        if self._evaluation is None:
            return row.get("split") == "validation"
        return row.get("name") == self._evaluation and type(row.get("step")) is int


def _find_size(path: Path) -> int:
    """In bytes; 0 where there is no file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
