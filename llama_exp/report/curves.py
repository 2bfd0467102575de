"""Figures of runs over their steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llama_exp.limits.figures import split_figure
from llama_exp.report.contents import Curve, ReportedRun
from llama_exp.results import RunResult


def list_curves(results: Sequence[RunResult], runs: Sequence[ReportedRun]) -> tuple[Curve, ...]:
    """Training and validation loss of every run, and the figures of its evaluations during training.

    Raises:
        InputError: a line of metrics.jsonl or evaluation.jsonl is damaged.
    """
    curves = []
    for result, run in zip(results, runs, strict=True):
        points: dict[str, dict[int, float]] = {}
        for figure, step, value in (*_list_losses(result), *_list_evaluations(result)):
            points.setdefault(figure, {})[step] = value  # of a step that was done twice, the second
        for figure, values in points.items():
            steps = tuple(sorted(values))
            curves.append(Curve(run.number, run.group, figure, steps, tuple(values[step] for step in steps)))
    return tuple(curves)


def _list_losses(result: RunResult) -> Iterator[tuple[str, int, float]]:
    for row in result.rows:
        if row.get("split") in ("train", "validation"):
            yield f"{row['split']}.loss", row["step"], float(row["loss"])


def _list_evaluations(result: RunResult) -> Iterator[tuple[str, int, float]]:
    for row in result.evaluations:
        for word, value in row.items():
            if row.get("step") is not None and word != "seconds" and _is_figure(word, value):
                yield f"evaluation.{row['name']}.{word}", row["step"], float(value)


def _is_figure(word: str, value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and split_figure(word)[1] is not None
