"""What all mirrors of a run have in common: they follow `metrics.jsonl`, and none can harm the training."""

from __future__ import annotations

import abc
import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_exp.files.evaluation_file import ROWS as EVALUATIONS
from llama_exp.files.evaluation_file import figures_of, read_evaluations
from llama_exp.files.json_file import read_record
from llama_exp.files.json_text import plain
from llama_exp.files.metrics_file import read_metrics
from llama_exp.files.redact import is_secret_name, printable, redact

_log = logging.getLogger(__name__)


class Mirror(abc.ABC):
    """Observer that copies a run's numbers elsewhere; whatever goes wrong ends the copy with one warning.

    `metrics.jsonl` is the record: a run that goes on writes the rows of the checkpointed part from it again, as far
    as the other side lacks them.

    Args:
        title: what it is called in a message.
        folder: the run folder.
        name: the run's name.
        group: joins the runs of a sweep, or None.
        config: the resolved config, flat (`lora.rank`); kept without secrets.

    Attributes:
        failure: why the copy ended early, on one line; None: it did not.
    """

    def __init__(self, title: str, folder: Path, name: str, group: str | None, config: Mapping[str, Any] | None):
        self._title = title
        self._folder = Path(folder)
        self._name = name
        self._group = group
        self._config = without_secrets(config or {})
        self.failure: str | None = None
        self._is_open = False
        self._rows = 0  # of metrics.jsonl that this observer was given, in this process and before
        self._restored_rows = 0
        self._seconds = 0.0  # of the last row, since the run's start

    def on_start(self, facts: dict[str, Any]) -> None:
        """Takes the facts of the run that are scalars into the config, as `facts.<name>`."""
        scalars = {key: value for key, value in facts.items() if isinstance(value, str | int | float | bool)}
        self._config |= without_secrets({f"facts.{key}": value for key, value in scalars.items()})

    def on_metrics(self, row: dict[str, Any]) -> None:
        """Takes a row of the record."""
        if self.failure is None:
            with self._harmless("log"):
                self._begin(row)
                self._take(row)
        self._rows += 1

    def on_evaluation(self, row: dict[str, Any]) -> None:
        """Takes a row of an evaluation, at the time of the last row of the record."""
        if self.failure is None:
            with self._harmless("log"):
                self._begin(evaluation=row)
                self._take(row)

    def on_finish(self, status: str) -> None:
        """Ends the copy within bounded time."""
        if self._is_open and self.failure is None:
            with self._harmless("finish"):
                self._close(status)

    def state(self) -> dict[str, Any]:
        """How many rows the run has had, for a checkpoint."""
        return {"rows": self._rows}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on behind the rows of a checkpoint."""
        self._rows = self._restored_rows = state["rows"]

    def _begin(self, row: dict[str, Any] | None = None, evaluation: dict[str, Any] | None = None) -> None:
        """Opens the other side before the first row, which may be one of these, and writes the rows of before."""
        if self._is_open:
            return
        self._open()
        self._is_open = True
        past = self._past(row)
        if past:  # also where a run goes on; else nothing was before
            past += self._past_evaluations(evaluation)
        for one in sorted(past, key=lambda one: one["step"]):
            self._take(one)

    def _past(self, row: dict[str, Any] | None) -> list[dict[str, Any]]:
        """The rows before the first one of this process.

        The record has it already, behind them; so a logger that is chosen only when a run goes on has all of them too.
        """
        rows = read_metrics(self._folder / "metrics.jsonl")
        if row is not None and rows and _place(rows[-1]) == _place(row):
            return rows[:-1]
        return rows[: self._restored_rows]

    def _past_evaluations(self, evaluation: dict[str, Any] | None) -> list[dict[str, Any]]:
        """What evaluation.jsonl has of the steps before, but for the row that is about to be taken."""
        rows = [row for row in read_evaluations(self._folder / EVALUATIONS) if row["step"] is not None]
        key = None if evaluation is None else (evaluation["step"], evaluation["name"])
        return [row for row in rows if (row["step"], row["name"]) != key]

    def _take(self, row: dict[str, Any]) -> None:
        if "split" in row:  # the seconds of an evaluation are its own, not those since the run's start
            self._seconds = row.get("seconds") or 0.0
        self._write(row["step"], figures(row), self._seconds)

    @property
    @abc.abstractmethod
    def outcome(self) -> str:
        """What was written where, for a person; once the run has ended."""

    @abc.abstractmethod
    def _open(self) -> None:
        """Makes the other side ready for rows."""

    @abc.abstractmethod
    def _write(self, step: int, values: dict[str, float], seconds: float) -> None:
        """Takes the figures of one row, `seconds` after the run's start; steps never fall."""

    @abc.abstractmethod
    def _close(self, status: str) -> None:
        """Ends the other side; `status` as in `summary.json`."""

    @contextlib.contextmanager
    def _harmless(self, action: str) -> Iterator[None]:
        """Whatever goes wrong inside ends the mirror with one warning, never the training."""
        try:
            yield
        except Exception as error:
            self.failure = one_line(error)
            text = "%s: %s failed, this run is no longer mirrored there; metrics.jsonl is (%s)"
            _log.warning(text, self._title, action, self.failure)


def _place(row: Mapping[str, Any]) -> tuple[Any, Any]:
    return row["step"], row["split"]


def figures(row: Mapping[str, Any]) -> dict[str, float]:
    """The row's numbers under `<split>/<name>` or `evaluation/<name>/<figure>`; NaN and infinities are floats."""
    if "split" not in row:
        return {f"evaluation/{row['name']}/{key}": value for key, value in figures_of(row).items()}
    split = row["split"]
    return {
        f"{split}/{key}": value
        for key, value in row.items()
        if key not in ("step", "split") and isinstance(value, int | float) and not isinstance(value, bool)
    }


def without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values that JSON can hold; entries with a secret's name are left out."""
    return {key: plain(value) for key, value in config.items() if not is_secret_name(key)}


def one_line(error: BaseException) -> str:
    """An exception as a short line without secrets."""
    text = " ".join(printable(redact(str(error))).split())
    return f"{type(error).__name__}: {text[:200]}"


def identify(folder: Path) -> str | None:
    """Eight digits that stand for a run, wherever its folder lies; None where nothing was recorded.

    They follow from its first start, so that a run which no mirror has named is the same one each time it is sent.
    """
    record = read_record(folder / "run.json") or {}
    first = next(iter(record.get("starts") or []), None)
    if first is None:
        return None
    names = [record.get("config_hash"), folder.name, first]
    return hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()[:8]
