"""Validation rows of running trials, as they come, and whether a trial goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from llama_exp.errors import InputError
from llama_exp.files.metrics_file import read_metrics
from llama_exp.sweeps.jobs import Job
from llama_exp.sweeps.search.study import Study

METRICS = "metrics.jsonl"
_log = logging.getLogger(__name__)


class Pruning:
    """Reads `metrics.jsonl` of trials: rows with `split` validation, whose `loss` is what the search compares."""

    def __init__(self, study: Study):
        self._study = study
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
        """Step and loss of each validation row of a file that has grown since the last call."""
        path = job.folder / METRICS
        size = _find_size(path)
        if self._sizes.get(job.number, 0) == size:
            return
        self._sizes[job.number] = size
        try:
            rows = read_metrics(path)
        except InputError as error:
            _log.warning("the trial is not compared with others by what it has not reported yet:\n%s", error)
            return
        for row in rows:
            if row.get("split") == "validation":
                yield row["step"], float(row["loss"])


def _find_size(path: Path) -> int:
    """In bytes; 0 where there is no file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
