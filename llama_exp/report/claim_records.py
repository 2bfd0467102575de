"""Claims as plain rows, for `claims.csv` and `claims.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from llama_exp.config.identity import to_dict
from llama_exp.files.json_text import dump_json
from llama_exp.protocol import ClaimResult
from llama_exp.report.claims import add_flops, add_seconds, group_claims
from llama_exp.report.contents import Report
from llama_exp.report.links import one_line


def list_claim_rows(report: Report) -> Iterator[dict[str, Any]]:
    """One row for each claim; ends that are open are infinite, and numbers that there are not None."""
    yield from (_make_row(report, result) for result in report.claims)


def dump_claims(report: Report) -> str:
    """`claims.json`: what each experiment stated, and of each claim the row, its runs and the points that it rests on.

    Numbers that JSON cannot express stand as in a run's files: "NaN", "Infinity".
    """
    experiments = []
    for experiment, claims in group_claims(report):
        stated = to_dict(dataclasses.replace(experiment.protocol, stage=None))
        experiments.append(
            {
                "name": experiment.name,
                "quick": experiment.is_quick,
                "changes": list(experiment.changes),
                "protocol": stated,
                "notes": list(experiment.notes),
                "claims": [_make_row(report, result) | _find_more(report, result) for result in claims],
            }
        )
    return dump_json({"experiments": experiments}, indent=1) + "\n"


def _make_row(report: Report, result: ClaimResult) -> dict[str, Any]:
    claim, obtained = result.claim, result.obtained
    return {
        "experiment": result.experiment.name,
        "quick": result.experiment.is_quick,
        "changes": " ".join(result.experiment.changes),
        "claim": result.name,
        "statement": one_line(claim.statement),
        "where": claim.where,
        "published": claim.published,
        "expected_low": claim.expected.low,
        "expected_high": claim.expected.high,
        "estimator": claim.estimator,
        "obtained": None if obtained is None else obtained.value,
        "low": None if obtained is None else obtained.low,
        "high": None if obtained is None else obtained.high,
        "unit": "" if obtained is None else obtained.unit,
        "interval": "" if obtained is None else obtained.method,
        "verdict": result.verdict.value,
        "reason": one_line(result.reason),
        "runs": len(result.runs),
        "missing": len(result.missing),
        "seconds": add_seconds(report, result),
        "flops": add_flops(report, result),
    }


def _find_more(report: Report, result: ClaimResult) -> dict[str, Any]:
    drawing = None if result.obtained is None else dataclasses.asdict(result.obtained.drawing)
    return {
        "run_folders": [str(report.run(number + 1).folder) for number in result.runs],
        "missing_runs": list(result.missing),
        "notes": list(result.notes),
        "drawing": drawing,
    }
