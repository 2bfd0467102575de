"""What the page draws of claims, as plain containers. Imports no framework."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from llama_exp.protocol import ClaimResult, Obtained
from llama_exp.report.contents import Report


def make_claim_data(report: Report) -> list[dict[str, Any] | None]:
    """One entry for each claim; None where the runs do not answer. What is open or not finite is null."""
    return [None if one.obtained is None else _make_claim(one, one.obtained) for one in report.claims]


def _make_claim(result: ClaimResult, obtained: Obtained) -> dict[str, Any]:
    drawing, expected = obtained.drawing, result.claim.expected
    return {
        "x": drawing.x,
        "y": drawing.y,
        "logX": drawing.is_log_x,
        "logY": drawing.is_log_y,
        "series": [
            {
                "label": series.label,
                "points": _finite_pairs(series.points),
                "line": _finite_pairs(series.line),
                "marked": series.marked,
            }
            for series in drawing.series
        ],
        "value": obtained.value,
        "interval": [end if math.isfinite(end) else None for end in (obtained.low, obtained.high)],
        "expected": [expected.low, expected.high],
        "published": result.claim.published,
        "unit": obtained.unit or "obtained",
    }


def _finite_pairs(pairs: Iterable[tuple[float, float]]) -> list[list[float]]:
    return [[x, y] for x, y in pairs if math.isfinite(x) and math.isfinite(y)]
