"""A report as tidy CSV files: one row a fact, for spreadsheets and data frames.

runs.csv         a row for each run and figure, with folder, command and config
steps.csv        a row for each run, figure and step
configs.csv      a row for each config and figure: mean, deviation, interval
comparisons.csv  a row for each config against its baseline
costs.csv        a row for each run
claims.csv       a row for each claim, where the runs state some
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from llama_exp.report.claim_records import list_claim_rows
from llama_exp.report.contents import Comparison, Report
from llama_exp.report.grouping import format_setting
from llama_exp.report.links import one_line


def write_csv(report: Report) -> dict[str, str]:
    """Name of a file -> its text."""
    claims = {"claims.csv": _write(list_claim_rows(report))} if report.claims else {}
    return claims | {
        "runs.csv": _write(_list_runs(report)),
        "steps.csv": _write(_list_steps(report)),
        "configs.csv": _write(_list_configs(report)),
        "comparisons.csv": _write(_list_comparisons(report)),
        "costs.csv": _write(_list_costs(report)),
    }


def _write(rows: Iterable[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    writer: csv.DictWriter | None = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    return file.getvalue()


def _list_runs(report: Report) -> Iterator[dict[str, Any]]:
    for run in report.runs:
        head = {"run": run.number, "name": one_line(run.name), "folder": run.folder, "command": one_line(run.command)}
        head |= {"status": run.status, "config": run.group, "seed": run.seed, **_settings(report, run.values)}
        head |= {"averaged": run.reason is None, "reason": run.reason and one_line(run.reason)}
        for figure in report.figures:
            yield {**head, "figure": figure.path, "value": run.figures.get(figure.path)}


def _list_steps(report: Report) -> Iterator[dict[str, Any]]:
    for curve in report.curves:
        for step, value in zip(curve.steps, curve.values, strict=True):
            yield {"run": curve.run, "config": curve.group, "figure": curve.figure, "step": step, "value": value}


def _list_configs(report: Report) -> Iterator[dict[str, Any]]:
    for group in report.groups:
        settings = _settings(report, group.values)
        for path, estimate in group.estimates.items():
            yield {"config": group.number, **settings, "figure": path, **dataclasses.asdict(estimate)}


def _list_comparisons(report: Report) -> Iterator[dict[str, Any]]:
    for row in report.comparisons.rows if report.comparisons is not None else ():
        settings = _settings(report, report.group(row.group).values)
        yield {"config": row.group, **settings, "baseline": row.baseline, "figure": row.figure, **_numbers_of(row)}


def _numbers_of(row: Comparison) -> dict[str, Any]:
    mean = None if row.difference is None else row.difference.mean
    ends: Sequence[Any] = (None, None) if row.difference is None else (row.difference.low, row.difference.high)
    bootstrap: Sequence[Any] = row.bootstrap or (None, None)
    better: Sequence[Any] = (None,) * 3 if row.better is None else (row.better.count, row.better.low, row.better.high)
    return {
        "pairs": len(row.pairs),
        "seeds": " ".join(map(str, row.seeds)),
        "difference": mean,
        "low": ends[0],
        "high": ends[1],
        "p": row.p,
        "p_is_exact": row.p_is_exact,
        "p_holm": row.p_holm,
        "smallest_p": row.smallest_p,
        "better": better[0],
        "better_low": better[1],
        "better_high": better[2],
        "bca_low": bootstrap[0],
        "bca_high": bootstrap[1],
    }


def _list_costs(report: Report) -> Iterator[dict[str, Any]]:
    for cost in report.costs:
        run = report.run(cost.run)
        yield {**dataclasses.asdict(cost), "config": run.group, "folder": run.folder, "command": one_line(run.command)}


def _settings(report: Report, values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers with all their digits."""
    return {key.path: _setting(values[key.path]) for key in report.keys}


def _setting(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else one_line(format_setting(value))
