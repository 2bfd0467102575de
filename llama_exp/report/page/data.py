"""What the scripts of the page draw, as JSON: curves, effects, parallel coordinates. Imports no framework."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from llama_exp.limits.figures import Direction
from llama_exp.report.contents import Curve, Effect, EffectLine, Report, Scale
from llama_exp.report.grouping import format_setting
from llama_exp.report.page.claims import make_claim_data

# A curve has at most this many points: more than pixels are none that anybody sees, and the page has to open at once.
MOST_POINTS = 600


def dump_data(report: Report) -> str:
    """The data for a `<script type="application/json">`; nothing in it can end the element."""
    text = json.dumps(make_data(report), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def make_data(report: Report) -> dict[str, Any]:
    """The same as plain containers; a number that is not finite is null."""
    curves: dict[int, dict[str, list[list[float | None]]]] = {}
    for curve in report.curves:
        curves.setdefault(curve.run, {})[curve.figure] = list(_list_points(curve))
    claims = {"claims": make_claim_data(report)} if report.claims else {}
    return claims | {
        "figure": {"label": report.figure.label, "lower": report.figure.direction is Direction.minimize},
        "runs": [
            {
                "number": run.number,
                "name": f"run {run.number}: {run.name}",
                "group": run.group,
                "curves": curves.get(run.number, {}),
            }
            for run in report.runs
        ],
        "groups": [{"number": group.number, "label": group.label or "all runs"} for group in report.groups],
        "effects": [_make_effect(report, effect) for effect in report.effects],
        "coordinates": _make_coordinates(report),
    }


def _list_points(curve: Curve) -> Iterable[list[float | None]]:
    points = list(zip(curve.steps, curve.values, strict=True))
    for index in thin_out(len(points), MOST_POINTS):
        step, value = points[index]
        yield [step, _finite(value)]


def thin_out(count: int, most: int) -> list[int]:
    """Evenly spaced indices of at most `most` of `count` things, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})


def _make_effect(report: Report, effect: Effect) -> dict[str, Any]:
    return {
        "label": effect.key.label,
        "scale": effect.key.scale.value,
        "ticks": [format_setting(value) for value in effect.key.values],
        "lines": [{"label": line.label, "points": _make_points(report, effect, line)} for line in effect.lines],
    }


def _make_points(report: Report, effect: Effect, line: EffectLine) -> list[dict[str, Any]]:
    is_category = effect.key.scale is Scale.categories
    return [
        {
            "at": format_setting(point.value) if is_category else float(point.value),
            "text": format_setting(point.value),
            "mean": _finite(point.estimate.mean),
            "low": _finite(point.estimate.low),
            "high": _finite(point.estimate.high),
            "runs": [
                {"name": f"run {number}: {report.run(number).name}", "value": _finite(value)}
                for number, value in zip(point.runs, point.run_values, strict=True)
            ],
        }
        for point in line.points
    ]


def _make_coordinates(report: Report) -> dict[str, Any] | None:
    if report.coordinates is None:
        return None
    axes = [{"label": axis.label, "ticks": [[at, text] for at, text in axis.ticks]} for axis in report.coordinates.axes]
    lines = [
        {
            "name": f"run {line.run}: {report.run(line.run).name}",
            "group": line.group,
            "positions": list(line.positions),
            "value": _finite(line.value),
        }
        for line in report.coordinates.lines
    ]
    return {"axes": axes, "lines": lines}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
